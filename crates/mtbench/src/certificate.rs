//! A judge of pairs against people: agreement, bias by position and length, and the benefit of more votes.

use std::collections::BTreeMap;

use report::table::{Align, Column, Table, Value};
use seeds::Seeds;
use stats::{ClusteredScores, Estimate, MeanEstimate, mean_interval};

use crate::agreement::{Ties, Vote, Voters, agreements};
use crate::answer::Answer;
use crate::pair::{PairJudgment, Winner};

const LEVEL: f64 = 0.95;
const RESAMPLES: usize = 10_000;
/// The number of additional votes whose benefit is predicted.
const MORE: f64 = 80.0;
const TURNS: [u8; 2] = [1, 2];

/// A share of events, with its bootstrap interval over questions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The number of events.
    pub events: usize,
    /// The share; `None` with fewer than two questions.
    pub share: Option<Estimate>,
}

/// A judge of pairs against people.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// The judge.
    pub judge: String,
    /// Pairs of a comparison by the judge and a person's vote that agree: ties counted, and left out.
    pub agreement: [Share; 2],
    /// Pairs of two persons' votes that agree: ties counted, and left out.
    pub people: [Share; 2],
    /// Comparisons whose two games, with swapped positions, have the same winner.
    pub consistent: Share,
    /// Contradicting games that the first position wins: one half without bias.
    pub first_position: Share,
    /// Decided comparisons by the judge that the longer answer wins.
    pub longer_by_judge: Share,
    /// Decided votes of people that the longer answer wins.
    pub longer_by_people: Share,
    /// The share of wins of the longer answer by the judge minus that by people, on pairs that both decided.
    pub length_bias: Option<MeanEstimate>,
    /// Votes of people on pairs that the judge has not compared.
    pub unmatched: usize,
}

/// Compares the judge's comparisons with people's votes.
///
/// As in FastChat, votes of authors do not count. Comparisons without a verdict do not count either.
///
/// # Errors
///
/// Those of the bootstrap.
pub fn certify(
    judge: &str,
    votes: &[Vote],
    judgments: &[PairJudgment],
    answers: &[Answer],
) -> Result<Certificate, stats::Error> {
    let judgments: Vec<&PairJudgment> =
        judgments.iter().filter(|judgment| judgment.winner() != Winner::Error).collect();
    let people = people(votes);
    let judged: Vec<Vote> = judgments.iter().map(|judgment| Vote::from(*judgment)).collect();
    let all: Vec<Vote> = people.iter().chain(&judged).cloned().collect();
    let agreeing = |voters: Voters<'_>, ties: Ties| {
        share(TURNS.iter().flat_map(|turn| agreements(&all, *turn, voters, ties)))
    };
    let both = |voters: Voters<'_>| -> Result<[Share; 2], stats::Error> {
        Ok([agreeing(voters, Ties::Counted)?, agreeing(voters, Ties::LeftOut)?])
    };
    let games =
        judgments.iter().map(|judgment| (judgment.question_id, judgment.g1_winner, judgment.g2_winner));
    let contradicting = games.clone().filter_map(|(question, first, second)| match (first, second) {
        // Model 1 is first in the first game, and second in the other one.
        (Winner::Model1, Winner::Model2) => Some((question, true)),
        (Winner::Model2, Winner::Model1) => Some((question, false)),
        _ => None,
    });
    let lengths = Lengths::new(answers);
    let [by_judge, by_people] = [&judged, &people].map(|votes| lengths.longer_wins(votes));
    let compared: Vec<PairKey> = judged.iter().map(pair_key).collect();
    Ok(Certificate {
        judge: judge.to_owned(),
        agreement: both(Voters::JudgeAndHumans(judge))?,
        people: both(Voters::Humans)?,
        consistent: share(games.map(|(question, first, second)| (question, first == second)))?,
        first_position: share(contradicting)?,
        longer_by_judge: share(by_judge.iter().map(|(key, longer)| (key.0, *longer)))?,
        longer_by_people: share(by_people.iter().map(|(key, longer)| (key.0, *longer)))?,
        length_bias: length_bias(&by_judge, &by_people),
        unmatched: people.iter().filter(|vote| !compared.contains(&pair_key(vote))).count(),
    })
}

/// A question, its turn, and two models in alphabetical order.
type PairKey = (u64, u8, String, String);

fn pair_key(vote: &Vote) -> PairKey {
    let (a, b) = (vote.model_a.clone(), vote.model_b.clone());
    let (first, second) = if a < b { (a, b) } else { (b, a) };
    (vote.question_id, vote.turn, first, second)
}

/// Returns the votes of people but authors, named as FastChat names them.
fn people(votes: &[Vote]) -> Vec<Vote> {
    let named = votes.iter().filter_map(|vote| {
        let name = vote.judge.as_str().filter(|name| !name.starts_with("author"))?;
        let judge = if name.starts_with("expert") { name.to_owned() } else { format!("expert {name}") };
        Some(Vote { judge: judge.into(), ..vote.clone() })
    });
    named.collect()
}

fn share(events: impl IntoIterator<Item = (u64, bool)>) -> Result<Share, stats::Error> {
    let rows: Vec<(u64, f64)> =
        events.into_iter().map(|(question, is_so)| (question, f64::from(u8::from(is_so)))).collect();
    let events = rows.len();
    let scores = ClusteredScores::new(rows)?;
    let share = match scores.clusters() {
        0 | 1 => None,
        _ => {
            let mut stream = Seeds::new(0).stream("certificate");
            Some(mean_interval(&scores, RESAMPLES, LEVEL, &mut stream)?)
        }
    };
    Ok(Share { events, share })
}

/// The lengths of answers in characters, by model, question and turn.
struct Lengths<'a>(BTreeMap<(&'a str, u64, u8), usize>);

impl<'a> Lengths<'a> {
    fn new(answers: &'a [Answer]) -> Self {
        let of_answer = answers.iter().flat_map(|answer| {
            let turns = (1..).zip(answer.turns());
            turns.map(|(turn, text)| {
                ((answer.model_id.as_str(), answer.question_id, turn), text.chars().count())
            })
        });
        Self(of_answer.collect())
    }

    /// Returns whether the longer answer wins, for each decided vote on answers of different lengths.
    fn longer_wins(&self, votes: &[Vote]) -> Vec<(PairKey, bool)> {
        let of_vote = |vote: &Vote| {
            let length = |model: &str| self.0.get(&(model, vote.question_id, vote.turn)).copied();
            let (a, b) = (length(&vote.model_a)?, length(&vote.model_b)?);
            let is_a = match vote.winner.as_str() {
                "model_a" => true,
                "model_b" => false,
                _ => return None,
            };
            (a != b).then(|| (pair_key(vote), is_a == (a > b)))
        };
        votes.iter().filter_map(of_vote).collect()
    }
}

/// Returns the mean over questions of the judge's minus people's share of wins of the longer answer.
fn length_bias(judge: &[(PairKey, bool)], people: &[(PairKey, bool)]) -> Option<MeanEstimate> {
    let judged: BTreeMap<&PairKey, bool> = judge.iter().map(|(key, longer)| (key, *longer)).collect();
    let mut by_question: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (key, person) in people {
        let Some(judge) = judged.get(key) else { continue };
        let sum = by_question.entry(key.0).or_default();
        let value = |longer: bool| f64::from(u8::from(longer));
        *sum = (sum.0 + value(*judge) - value(*person), sum.1 + 1.0);
    }
    MeanEstimate::of(&by_question.values().map(|(sum, count)| sum / count).collect::<Vec<_>>()).ok()
}

impl Certificate {
    /// Predicts half the width of the interval of the agreement with 80 more votes, if their questions vary alike.
    ///
    /// Returns it with the present one; `None` without an interval.
    pub fn half_widths(&self) -> Option<[f64; 2]> {
        let Share { events, share } = self.agreement[0];
        let now = share.map(|share| (share.high - share.low) / 2.0)?;
        #[expect(clippy::cast_precision_loss, reason = "there are not 2^53 votes")]
        let events = events as f64;
        Some([now, now * (events / (events + MORE)).sqrt()])
    }

    /// Returns the table of the certificate.
    pub fn table(&self) -> Table {
        let shown = |share: &Share| match share.share {
            Some(Estimate { value, low, high, .. }) => {
                Value::Interval { value: 100.0 * value, low: 100.0 * low, high: 100.0 * high, decimals: 1 }
            }
            None => Value::missing("fewer than two questions have such votes"),
        };
        let row = |name: &str, share: &Share| {
            vec![Value::text(name), Value::Count(share.events as u64), shown(share)]
        };
        let mut rows = vec![
            row("judge and person agree", &self.agreement[0]),
            row("the same without ties", &self.agreement[1]),
            row("two persons agree", &self.people[0]),
            row("the same without ties", &self.people[1]),
            row("order: same winner after the swap", &self.consistent),
            row("order: first position wins a contradiction", &self.first_position),
            row("length: longer answer wins, judge", &self.longer_by_judge),
            row("length: longer answer wins, people", &self.longer_by_people),
        ];
        let bias = self.length_bias.and_then(|bias| Some((bias.value, bias.interval(LEVEL).ok()?)));
        rows.push(vec![
            Value::text("length: judge − people, same pairs"),
            Value::text(""),
            bias.map_or_else(
                || Value::missing("fewer than two questions have such votes"),
                |(value, interval)| Value::Difference {
                    value: 100.0 * value,
                    low: 100.0 * interval.low,
                    high: 100.0 * interval.high,
                    decimals: 1,
                },
            ),
        ]);
        let right = |name: &str| Column::new(name, Align::Right);
        Table {
            id: "certificate".into(),
            title: format!("{} against people", self.judge),
            columns: vec![Column::new("Measure", Align::Left), right("Votes"), right("%")],
            rows,
            notes: self.notes(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "Brackets: 95% intervals over questions, bootstrapped; t-intervals for the difference. Ties of any kind are equal. \
             Votes of authors do not count."
                .to_owned(),
        ];
        notes.extend(self.half_widths().map(|[now, more]| {
            format!(
                "{MORE} more votes would narrow the interval of the agreement from ±{:.1} to ±{:.1} points.",
                100.0 * now,
                100.0 * more
            )
        }));
        if self.unmatched > 0 {
            notes.push(format!("{} votes are on pairs that the judge has not compared.", self.unmatched));
        }
        notes
    }
}
