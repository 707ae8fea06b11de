//! The judgement of one record: the model is asked twice, with the responses swapped the second time.

use std::num::NonZeroU32;

use llm_client::{ChatRequest, ChatSampling, Client};
use pref_data::{Label, PreferenceRecord};
use serde::{Deserialize, Serialize};

use crate::prompt::PromptTemplate;
use crate::verdict::Verdict;

/// A model as an annotator.
#[derive(Clone, Debug, PartialEq)]
pub struct LlmAnnotator {
    /// The annotator's name in the records.
    pub name: String,
    /// The endpoint's name of the model.
    pub model: String,
    /// The question.
    pub template: PromptTemplate,
    /// How answers are sampled.
    pub sampling: ChatSampling,
    /// The labels of undecided records.
    pub policies: Policies,
}

/// The labels of records on which a model does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// The label where the verdict changes with the order of the responses.
    pub disagreement: Fallback,
    /// The label where an answer has no verdict after all tries.
    pub refusal: Fallback,
    /// How often a question is asked before an answer without a verdict counts as a refusal.
    pub asked: NonZeroU32,
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
    /// gives no label.
    fn default() -> Self {
        Self {
            disagreement: Fallback::Tie,
            refusal: Fallback::Unlabelled,
            asked: NonZeroU32::MIN.saturating_add(1),
        }
    }
}

/// A model's judgement of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// Why there is no label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<Unlabelled>,
    /// The two answers: in the responses' order, then swapped. Fewer where a call failed.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Game {
    /// The verdict on the responses as they were shown.
    pub verdict: Option<Verdict>,
    /// The answer to the last try.
    pub answer: String,
}

impl LlmAnnotator {
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
        let [first, second] = &record.responses[..] else {
            return Ok(Judgement::none(Unlabelled::NotAPair, Vec::new()));
        };
        let mut games = Vec::with_capacity(2);
        for (a, b) in [(first, second), (second, first)] {
            let messages = self.template.messages(&record.prompt, a, b);
            match self.play(client, messages).await {
                Ok(game) => games.push(game),
                Err(ref error @ llm_client::Error::Call { ref source, .. }) if !stops_everything(error) => {
                    let failure = format!("{}: {error}: {source}", source.kind());
                    return Ok(Judgement::none(Unlabelled::Failed(failure), games));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.policies.decide(games))
    }

    /// Asks until an answer has a verdict, up to the limit.
    async fn play(
        &self,
        client: &Client,
        messages: Vec<llm_client::ChatMessage>,
    ) -> Result<Game, llm_client::Error> {
        let mut request =
            ChatRequest { model: self.model.clone(), messages, sampling: self.sampling.clone(), repeat: 0 };
        loop {
            let answer = client.chat(&request).await?.reply.text;
            let verdict = Verdict::read(&answer);
            request.repeat += 1;
            if verdict.is_some() || request.repeat >= self.policies.asked.get() {
                return Ok(Game { verdict, answer });
            }
        }
    }
}

/// Whether every further call would fail too: a wrong key, a wrong model, an empty account.
fn stops_everything(error: &llm_client::Error) -> bool {
    let llm_client::Error::Call { source, .. } = error else { return true };
    error.is_bad_input() || matches!(source, llm_client::Failure::QuotaExhausted { .. })
}

impl Judgement {
    fn none(why: Unlabelled, games: Vec<Game>) -> Self {
        Self { label: None, unlabelled: Some(why), games }
    }
}

impl Policies {
    fn decide(self, games: Vec<Game>) -> Judgement {
        let verdicts = games.iter().enumerate().map(|(index, game)| {
            let verdict = game.verdict?;
            Some(if index == 0 { verdict } else { verdict.swapped() })
        });
        let (fallback, why) = match verdicts.collect::<Option<Vec<Verdict>>>().as_deref() {
            Some([one, other]) if one == other => {
                let label = match one {
                    Verdict::First => Label::Prefers(0),
                    Verdict::Second => Label::Prefers(1),
                    Verdict::Tie => Label::Tie,
                };
                return Judgement { label: Some(label), unlabelled: None, games };
            }
            Some(_) => (self.disagreement, Unlabelled::Disagreement),
            None => (self.refusal, Unlabelled::Refusal),
        };
        match fallback {
            Fallback::Tie => Judgement { label: Some(Label::Tie), unlabelled: None, games },
            Fallback::Unlabelled => Judgement::none(why, games),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_answers_make_a_label_where_they_agree() {
        use Verdict::{First, Second, Tie};
        let decide = |policies: Policies, verdicts: [Option<Verdict>; 2]| {
            let games = verdicts.map(|verdict| Game { verdict, answer: String::new() });
            let judgement = policies.decide(games.to_vec());
            assert_eq!(judgement.label.is_none(), judgement.unlabelled.is_some());
            judgement.label.ok_or_else(|| judgement.unlabelled.expect("one of the two"))
        };
        let strict = Policies { disagreement: Fallback::Unlabelled, ..Policies::default() };
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
            assert_eq!(decide(strict, verdicts), strictly, "{verdicts:?}");
            assert_eq!(decide(lenient, verdicts), leniently, "{verdicts:?}");
        }
    }
}
