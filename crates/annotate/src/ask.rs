//! The judgement of one record: the model is asked in both orders of the responses.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use futures_util::future::join_all;
use llm_client::{ChatRequest, ChatSampling, Client, Reply};
use pref_data::{Label, PreferenceRecord, Text};
use serde::{Deserialize, Serialize};

use crate::prompt::{PromptTemplate, shown_prompt};
use crate::ratings::{self, Aspect, RatingQuestion};
use crate::verdict::{Verdict, first_is_better};

/// A model as an annotator.
#[derive(Clone, Debug, PartialEq)]
pub struct LlmAnnotator {
    /// The annotator's name in the records.
    pub name: String,
    /// The endpoint's name of the model.
    pub model: String,
    /// The question.
    pub question: Question,
    /// How answers are sampled. With `top_logprobs`, verdicts on pairs are probabilities.
    pub sampling: ChatSampling,
    /// The labels of undecided records.
    pub policies: Policies,
}

/// What a model is asked about a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which of two responses is better.
    Pairwise(PromptTemplate),
    /// A rating of each response, by aspect. The label is the response with the highest mean.
    Ratings(RatingQuestion),
}

/// The labels of records on which a model does not decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policies {
    /// The label where the verdict changes with the order of the responses.
    pub disagreement: Fallback,
    /// The label where an answer has no verdict after all tries.
    pub refusal: Fallback,
    /// How often a question is asked before an answer without a verdict counts as a refusal.
    pub asked: NonZeroU32,
    /// The largest lead that is a tie: of the best mean rating over the next, or of the probability over one half.
    pub tie_margin: f64,
}

/// The label of a record on which a model does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// A tie.
    Tie,
    /// No label.
    Unlabelled,
}

impl Default for Policies {
    /// A verdict that depends on the order is a tie, as in FastChat. Two answers without a verdict are a refusal, which
    /// gives no label. Only equal ratings and probabilities of one half are ties.
    fn default() -> Self {
        Self {
            disagreement: Fallback::Tie,
            refusal: Fallback::Unlabelled,
            asked: NonZeroU32::MIN.saturating_add(1),
            tie_margin: 0.0,
        }
    }
}

/// A model's judgement of a record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// Why there is no label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<Unlabelled>,
    /// Whether the two orders of the responses give different verdicts.
    #[serde(default)]
    pub order_dependent: bool,
    /// The mean rating of each response, where the question asks for ratings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ratings: Vec<f64>,
    /// The probability that the first response is better, the mean of both orders, where the server gives
    /// log-probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// The answers: those about the responses' own order, then as many about the reverse. Fewer where a call failed.
    pub games: Vec<Game>,
}

/// Why a record has no label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlabelled {
    /// The verdict changes with the order of the responses.
    Disagreement,
    /// An answer has no verdict.
    Refusal,
    /// A call failed: the kind of the failure, a colon, and its message.
    Failed(String),
    /// The record has more than two responses.
    NotAPair,
}

impl Unlabelled {
    /// Returns the reason in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disagreement => "undecided",
            Self::Refusal => "refused",
            Self::Failed(_) => "failed",
            Self::NotAPair => "not a pair",
        }
    }
}

/// One answer of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Game {
    /// The verdict on the responses as they were shown.
    pub verdict: Option<Verdict>,
    /// The ratings by aspect, in the order in which the responses were shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ratings: BTreeMap<String, Vec<f64>>,
    /// The probability that the response shown first is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// The answer to the last try.
    pub answer: String,
    /// The server's name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The server's fingerprint of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl Game {
    /// Whether the answer has a verdict or ratings.
    pub fn is_read(&self) -> bool {
        self.verdict.is_some() || !self.ratings.is_empty()
    }
}

/// One question about a record, and how its answer is read.
struct Asked<'a> {
    request: ChatRequest,
    /// The aspects that are rated; none of a pairwise question.
    aspects: &'a [Aspect],
    responses: usize,
}

impl LlmAnnotator {
    /// Returns the requests about `record`, without repeats for answers that have no verdict. A record to which the question
    /// does not apply has none.
    pub fn requests(&self, record: &PreferenceRecord) -> Vec<ChatRequest> {
        self.questions(record).into_iter().map(|asked| asked.request).collect()
    }

    fn questions(&self, record: &PreferenceRecord) -> Vec<Asked<'_>> {
        let prompt = shown_prompt(record);
        let forward: Vec<&Text> = record.responses.iter().collect();
        let reverse: Vec<&Text> = record.responses.iter().rev().collect();
        let asked = |messages, aspects, responses| Asked {
            request: ChatRequest {
                model: self.model.clone(),
                messages,
                sampling: self.sampling.clone(),
                repeat: 0,
            },
            aspects,
            responses,
        };
        match &self.question {
            Question::Pairwise(_) if forward.len() != 2 => Vec::new(),
            Question::Pairwise(template) => [forward, reverse]
                .iter()
                .map(|shown| asked(template.messages(&prompt, shown[0], shown[1]), &[][..], 2))
                .collect(),
            Question::Ratings(question) => [&forward, &reverse]
                .into_iter()
                .flat_map(|shown| {
                    question.parts().map(|aspects| {
                        let messages = ratings::messages(aspects, &prompt, shown);
                        asked(messages, aspects, shown.len())
                    })
                })
                .collect(),
        }
    }

    /// Asks about one record. Known answers are not asked for again.
    ///
    /// # Errors
    ///
    /// Errors that every further call would meet. A call that fails after all attempts for another reason is part of the
    /// judgement.
    pub async fn judge(
        &self,
        record: &PreferenceRecord,
        client: &Client,
    ) -> Result<Judgement, llm_client::Error> {
        let questions = self.questions(record);
        if questions.is_empty() {
            return Ok(Judgement::none(Unlabelled::NotAPair, Vec::new()));
        }
        let mut games = Vec::with_capacity(questions.len());
        let mut failed = None;
        for answer in join_all(questions.into_iter().map(|asked| self.play(client, asked))).await {
            match answer {
                Ok(game) => games.push(game),
                Err(ref error @ llm_client::Error::Call { ref source, .. }) if !stops_everything(error) => {
                    failed.get_or_insert(format!("{}: {error}: {source}", source.kind()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(match failed {
            Some(failure) => Judgement::none(Unlabelled::Failed(failure), games),
            None => self.policies.decide(games),
        })
    }

    /// Asks until an answer has a verdict, up to the limit.
    async fn play(&self, client: &Client, asked: Asked<'_>) -> Result<Game, llm_client::Error> {
        let Asked { mut request, aspects, responses } = asked;
        loop {
            let reply = client.chat(&request).await?.reply;
            let game = read(reply, aspects, responses);
            request.repeat += 1;
            if game.is_read() || request.repeat >= self.policies.asked.get() {
                return Ok(game);
            }
        }
    }
}

fn read(reply: Reply, aspects: &[Aspect], responses: usize) -> Game {
    let Reply { text, model, fingerprint, logprobs, .. } = reply;
    let game = Game { model, fingerprint, ..Game::default() };
    if aspects.is_empty() {
        let verdict = Verdict::read(&text);
        Game { verdict, probability: first_is_better(&logprobs), answer: text, ..game }
    } else {
        let ratings = ratings::read(&text, aspects, responses).unwrap_or_default();
        Game { ratings, answer: text, ..game }
    }
}

/// Whether every further call would fail too: a wrong key, a wrong model, an empty account.
fn stops_everything(error: &llm_client::Error) -> bool {
    let llm_client::Error::Call { source, .. } = error else { return true };
    error.is_bad_input() || matches!(source, llm_client::Failure::QuotaExhausted { .. })
}

impl Judgement {
    fn none(why: Unlabelled, games: Vec<Game>) -> Self {
        Self { unlabelled: Some(why), games, ..Self::default() }
    }
}

impl Policies {
    fn decide(self, games: Vec<Game>) -> Judgement {
        if games.iter().any(|game| !game.is_read()) {
            return self.fall_back(self.refusal, Unlabelled::Refusal, games);
        }
        let (forward, reverse) = games.split_at(games.len() / 2);
        if games[0].verdict.is_some() {
            return self.decide_pair(&forward[0].clone(), &reverse[0].clone(), games);
        }
        let (forward, mut reverse) = (means(forward), means(reverse));
        reverse.reverse();
        let ratings: Vec<f64> =
            forward.iter().zip(&reverse).map(|(one, other)| (one + other) / 2.0).collect();
        let bests = [best(&forward, 0.0), best(&reverse, 0.0)];
        let order_dependent = matches!(bests, [Label::Prefers(one), Label::Prefers(other)] if one != other);
        let judgement = if order_dependent {
            self.fall_back(self.disagreement, Unlabelled::Disagreement, games)
        } else {
            Judgement { label: Some(best(&ratings, self.tie_margin)), games, ..Judgement::default() }
        };
        Judgement { order_dependent, ratings, ..judgement }
    }

    fn decide_pair(self, forward: &Game, reverse: &Game, games: Vec<Game>) -> Judgement {
        let verdict = forward.verdict;
        let order_dependent = verdict != reverse.verdict.map(Verdict::swapped);
        let probability =
            forward.probability.zip(reverse.probability).map(|(one, other)| (one + 1.0 - other) / 2.0);
        let judgement = match (probability, verdict) {
            (Some(p), _) => {
                let label = best(&[p, 1.0 - p], 2.0 * self.tie_margin);
                Judgement { label: Some(label), games, ..Judgement::default() }
            }
            (None, Some(verdict)) if !order_dependent => {
                let label = match verdict {
                    Verdict::First => Label::Prefers(0),
                    Verdict::Second => Label::Prefers(1),
                    Verdict::Tie => Label::Tie,
                };
                Judgement { label: Some(label), games, ..Judgement::default() }
            }
            (None, _) => self.fall_back(self.disagreement, Unlabelled::Disagreement, games),
        };
        Judgement { order_dependent, probability, ..judgement }
    }

    fn fall_back(self, fallback: Fallback, why: Unlabelled, games: Vec<Game>) -> Judgement {
        match fallback {
            Fallback::Tie => Judgement { label: Some(Label::Tie), games, ..Judgement::default() },
            Fallback::Unlabelled => Judgement::none(why, games),
        }
    }
}

/// The mean rating of each response over all aspects, in the order in which they were shown.
fn means(games: &[Game]) -> Vec<f64> {
    let ratings: Vec<&Vec<f64>> = games.iter().flat_map(|game| game.ratings.values()).collect();
    let responses = ratings.first().map_or(0, |first| first.len());
    let mean = |at: usize| ratings.iter().map(|of| of[at]).sum::<f64>() / ratings.len() as f64;
    (0..responses).map(mean).collect()
}

/// Rounding of means that is no difference.
const ROUNDING: f64 = 1e-9;

/// The response whose value leads all others by more than `margin`.
fn best(values: &[f64], margin: f64) -> Label {
    let mut by_value: Vec<usize> = (0..values.len()).collect();
    by_value.sort_by(|one, other| values[*other].total_cmp(&values[*one]));
    let lead = by_value.get(1).map_or(f64::INFINITY, |second| values[by_value[0]] - values[*second]);
    if lead > margin + ROUNDING { Label::Prefers(by_value[0]) } else { Label::Tie }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn game(verdict: Option<Verdict>) -> Game {
        Game { verdict, ..Game::default() }
    }

    fn rated(ratings: &[f64]) -> Game {
        Game { ratings: [("honesty".to_owned(), ratings.to_vec())].into(), ..Game::default() }
    }

    fn outcome(judgement: Judgement) -> Result<Label, Unlabelled> {
        assert_eq!(judgement.label.is_none(), judgement.unlabelled.is_some());
        judgement.label.ok_or_else(|| judgement.unlabelled.expect("one of the two"))
    }

    const STRICT: Policies = Policies {
        disagreement: Fallback::Unlabelled,
        refusal: Fallback::Unlabelled,
        asked: NonZeroU32::MIN,
        tie_margin: 0.0,
    };

    #[test]
    fn two_answers_make_a_label_where_they_agree() {
        use Verdict::{First, Second, Tie};
        let decide = |policies: Policies, verdicts: [Option<Verdict>; 2]| {
            outcome(policies.decide(verdicts.map(game).to_vec()))
        };
        let lenient = Policies { refusal: Fallback::Tie, ..Policies::default() };
        let cases = [
            ([Some(First), Some(Second)], Ok(Label::Prefers(0)), Ok(Label::Prefers(0))),
            ([Some(Second), Some(First)], Ok(Label::Prefers(1)), Ok(Label::Prefers(1))),
            ([Some(Tie), Some(Tie)], Ok(Label::Tie), Ok(Label::Tie)),
            // The response shown first wins.
            ([Some(First), Some(First)], Err(Unlabelled::Disagreement), Ok(Label::Tie)),
            ([Some(First), Some(Tie)], Err(Unlabelled::Disagreement), Ok(Label::Tie)),
            ([Some(First), None], Err(Unlabelled::Refusal), Ok(Label::Tie)),
        ];
        for (verdicts, strictly, leniently) in cases {
            assert_eq!(decide(STRICT, verdicts), strictly, "{verdicts:?}");
            assert_eq!(decide(lenient, verdicts), leniently, "{verdicts:?}");
        }
    }

    #[test]
    fn probabilities_of_both_orders_are_averaged() {
        let game = |verdict, probability| Game { probability: Some(probability), ..game(Some(verdict)) };
        // The response shown first wins each time, but more clearly when it is the second one.
        let games = vec![game(Verdict::First, 0.6), game(Verdict::First, 0.9)];
        let judgement = STRICT.decide(games.clone());
        assert!(judgement.order_dependent);
        assert!((judgement.probability.expect("both") - 0.35).abs() < 1e-12);
        assert_eq!(outcome(judgement), Ok(Label::Prefers(1)));
        let wide = Policies { tie_margin: 0.2, ..STRICT };
        assert_eq!(outcome(wide.decide(games)), Ok(Label::Tie));
        // Without log-probabilities in one order, the verdicts count.
        let half = vec![game(Verdict::First, 0.6), super::tests::game(Some(Verdict::First))];
        assert_eq!(outcome(STRICT.decide(half)), Err(Unlabelled::Disagreement));
    }

    #[test]
    fn the_highest_mean_rating_is_the_label() {
        // The second order shows the responses in reverse.
        let judgement = STRICT.decide(vec![rated(&[2.0, 5.0, 4.0]), rated(&[4.0, 4.0, 3.0])]);
        assert_eq!(judgement.ratings, [2.5, 4.5, 4.0]);
        assert_eq!(outcome(judgement.clone()), Ok(Label::Prefers(1)));
        assert!(!judgement.order_dependent, "a tie in one order contradicts nothing");
        let near = Policies { tie_margin: 0.5, ..STRICT };
        assert_eq!(outcome(near.decide(judgement.games)), Ok(Label::Tie));
        let contradiction = vec![rated(&[5.0, 4.0]), rated(&[5.0, 4.0])];
        assert_eq!(outcome(STRICT.decide(contradiction.clone())), Err(Unlabelled::Disagreement));
        assert!(STRICT.decide(contradiction).order_dependent);
        assert_eq!(outcome(STRICT.decide(vec![rated(&[3.0, 3.0]), rated(&[3.0, 3.0])])), Ok(Label::Tie));
        assert_eq!(outcome(STRICT.decide(vec![rated(&[3.0, 3.0]), game(None)])), Err(Unlabelled::Refusal));
    }
}
