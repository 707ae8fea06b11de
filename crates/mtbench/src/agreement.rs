//! Agreement of judges, counted as in FastChat's `compute_agreement.py`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pair::{PairJudgment, Winner};
use crate::{fields, question_id};

/// One vote on two models' answers: a row of the data set `mt_bench_human_judgments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// The question's key.
    #[serde(with = "question_id")]
    pub question_id: u64,
    /// One model.
    pub model_a: String,
    /// The other.
    pub model_b: String,
    /// `model_a`, `model_b`, or a word with `tie` in it.
    pub winner: String,
    /// The voter: a name such as `expert_3`, or a judge and its prompt.
    pub judge: Value,
    /// The turn: 1 or 2.
    #[serde(deserialize_with = "fields::turn")]
    pub turn: u8,
}

/// The voters to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voters<'a> {
    /// The comparisons by the judge of this name, with each human vote.
    JudgeAndHumans(&'a str),
    /// Each human vote with each other human vote.
    Humans,
}

/// The treatment of ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// They count, and any kind of tie equals any other.
    Counted,
    /// Pairs of votes with a tie among them are left out.
    LeftOut,
}

/// Pairs of votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VoteAgreement {
    /// Pairs that agree.
    pub agree: u64,
    /// All pairs.
    pub total: u64,
}

impl VoteAgreement {
    /// Returns the share that agrees, or `None` without pairs, where FastChat divides by zero.
    #[expect(clippy::cast_precision_loss, reason = "there are not 2^53 pairs of votes")]
    pub fn ratio(self) -> Option<f64> {
        (self.total > 0).then(|| self.agree as f64 / self.total as f64)
    }
}

/// Counts the votes on turn `turn` that agree.
///
/// Votes on the same two models are compared in either order of the models. With several comparisons of one pair by
/// the judge, FastChat stops; here the last one counts.
pub fn vote_agreement(votes: &[Vote], turn: u8, voters: Voters<'_>, ties: Ties) -> VoteAgreement {
    let mut agreement = VoteAgreement::default();
    for (_, agrees) in agreements(votes, turn, voters, ties) {
        agreement.total += 1;
        agreement.agree += u64::from(agrees);
    }
    agreement
}

/// Returns the question of each pair of votes on turn `turn`, and whether they agree.
pub(crate) fn agreements(votes: &[Vote], turn: u8, voters: Voters<'_>, ties: Ties) -> Vec<(u64, bool)> {
    let judge = match voters {
        Voters::JudgeAndHumans(judge) => judge,
        Voters::Humans => "",
    };
    let mut by_pair: BTreeMap<(u64, &str, &str), BTreeMap<Kind, Vec<&str>>> = BTreeMap::new();
    for vote in votes.iter().filter(|vote| vote.turn == turn) {
        let (a, b) = (vote.model_a.as_str(), vote.model_b.as_str());
        let (key, winner) = if a < b {
            ((vote.question_id, a, b), vote.winner.as_str())
        } else {
            ((vote.question_id, b, a), reverted(&vote.winner))
        };
        by_pair.entry(key).or_default().entry(kind(&vote.judge, judge)).or_default().push(winner);
    }
    let counts = |vote: &str| ties == Ties::Counted || !vote.contains("tie");
    let mut found = Vec::new();
    for (&(question, ..), of_pair) in &by_pair {
        let mut compare = |one: &str, two: &str| {
            if counts(one) && counts(two) {
                found.push((question, one == two || (one.contains("tie") && two.contains("tie"))));
            }
        };
        let Some(humans) = of_pair.get(&Kind::Human) else { continue };
        match voters {
            Voters::JudgeAndHumans(_) => {
                let judge = of_pair.get(&Kind::Judge).and_then(|votes| votes.last());
                judge.iter().for_each(|judge| humans.iter().for_each(|human| compare(judge, human)));
            }
            Voters::Humans => {
                for (at, one) in humans.iter().enumerate() {
                    humans[at + 1..].iter().for_each(|two| compare(one, two));
                }
            }
        }
    }
    found
}

impl From<&PairJudgment> for Vote {
    /// Converts the comparison to one vote. Contradicting games are a `tie (inconsistent)`, as in the data set.
    fn from(judgment: &PairJudgment) -> Self {
        let winner = match judgment.winner() {
            Winner::Model1 => "model_a",
            Winner::Model2 => "model_b",
            Winner::Error => "error",
            Winner::Tie if judgment.g1_winner == judgment.g2_winner => "tie",
            Winner::Tie => "tie (inconsistent)",
        };
        let judge = [judgment.judge.judge.as_str(), &judgment.judge.prompt];
        Self {
            question_id: judgment.question_id,
            model_a: judgment.model_1.clone(),
            model_b: judgment.model_2.clone(),
            winner: winner.to_owned(),
            judge: Value::from(judge.map(Value::from).to_vec()),
            turn: judgment.turn,
        }
    }
}

/// The kinds of voters that FastChat distinguishes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Judge,
    Human,
    Author,
    Other,
}

fn kind(voter: &Value, judge: &str) -> Kind {
    match voter {
        Value::Array(named)
            if named.first().is_some_and(|name| name == judge)
                && named.get(1).and_then(Value::as_str).is_some_and(|prompt| prompt.starts_with("pair")) =>
        {
            Kind::Judge
        }
        Value::String(name) if name.starts_with("expert") => Kind::Human,
        Value::String(name) if name.starts_with("author") => Kind::Author,
        _ => Kind::Other,
    }
}

fn reverted(winner: &str) -> &str {
    match winner {
        "model_a" => "model_b",
        "model_b" => "model_a",
        other => other,
    }
}
