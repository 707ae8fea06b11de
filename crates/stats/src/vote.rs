//! What several raters decide together.

use serde::{Deserialize, Serialize};

use crate::{Choice, Error, Tally};

/// What a split vote amounts to. A vote is split when no choice has more votes than every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SplitPolicy {
    /// When all three choices have the same number of votes: 1-1-1 among three raters.
    pub three_way: ThreeWaySplit,
    /// When two choices share the lead: 2-2 among four raters, 2-2-1 among five.
    pub two_way: TwoWaySplit,
}

/// What a vote amounts to in which all three choices have the same number of votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreeWaySplit {
    /// The models are equal.
    #[default]
    Equal,
    /// There is no decision.
    Undecided,
}

/// What a vote amounts to in which two choices share the lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TwoWaySplit {
    /// The models are equal, whichever two choices lead.
    #[default]
    Equal,
    /// A model that shares the lead with *equal* wins; two models that share it are equal.
    Leaning,
    /// There is no decision.
    Undecided,
}

/// How a vote came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The decision; `None` if the vote was split and the policy leaves it undecided.
    pub choice: Option<Choice>,
    /// Whether it took the policy.
    pub split: Split,
}

/// Whether a vote was split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// One choice had more votes than every other.
    No,
    /// Two choices shared the lead.
    TwoWay,
    /// All three did.
    ThreeWay,
}

/// How the votes over many items came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MajorityVotes {
    /// One verdict an item, in the items' order.
    pub verdicts: Vec<Verdict>,
}

impl MajorityVotes {
    /// Wins and ties among the items that were decided.
    pub fn tally(&self) -> Tally {
        self.verdicts.iter().filter_map(|verdict| verdict.choice).collect()
    }

    /// How many items were split in this way: how often the policy was needed.
    pub fn splits(&self, split: Split) -> usize {
        self.verdicts.iter().filter(|verdict| verdict.split == split).count()
    }

    /// How many items were left undecided.
    pub fn undecided(&self) -> usize {
        self.verdicts.iter().filter(|verdict| verdict.choice.is_none()).count()
    }
}

/// The vote of several raters on each of several items: the choice with the most votes, and `policy` where there is no
/// such choice. Among three raters that is the majority.
///
/// # Errors
///
/// [`Error::NoVotes`] for an item that nobody rated.
///
/// ```
/// use stats::Choice::{Equal, Model1, Model2};
/// use stats::{Split, SplitPolicy, majority_vote};
///
/// let votes = majority_vote(&[[Model1, Model1, Equal], [Model1, Model2, Equal]], SplitPolicy::default())?;
/// assert_eq!((votes.tally().wins_model_1, votes.tally().ties), (1, 1));
/// assert_eq!(votes.splits(Split::ThreeWay), 1);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn majority_vote<R: AsRef<[Choice]>>(items: &[R], policy: SplitPolicy) -> Result<MajorityVotes, Error> {
    let verdicts = items.iter().enumerate().map(|(item, ratings)| {
        let ratings = ratings.as_ref();
        if ratings.is_empty() { Err(Error::NoVotes { item }) } else { Ok(policy.decide(ratings)) }
    });
    Ok(MajorityVotes { verdicts: verdicts.collect::<Result<_, _>>()? })
}

impl SplitPolicy {
    fn decide(self, ratings: &[Choice]) -> Verdict {
        let mut votes = [0_usize; 3];
        for rating in ratings {
            votes[rating.index()] += 1;
        }
        let most = votes.into_iter().max();
        let leaders: Vec<Choice> =
            Choice::ALL.into_iter().filter(|choice| Some(votes[choice.index()]) == most).collect();
        match leaders[..] {
            [leader] => Verdict { choice: Some(leader), split: Split::No },
            [one, other] => Verdict { choice: self.two_way.decide(one, other), split: Split::TwoWay },
            _ => Verdict { choice: self.three_way.decide(), split: Split::ThreeWay },
        }
    }
}

impl TwoWaySplit {
    fn decide(self, one: Choice, other: Choice) -> Option<Choice> {
        match (self, one, other) {
            (Self::Undecided, ..) => None,
            (Self::Leaning, model, Choice::Equal) | (Self::Leaning, Choice::Equal, model) => Some(model),
            (Self::Equal | Self::Leaning, ..) => Some(Choice::Equal),
        }
    }
}

impl ThreeWaySplit {
    fn decide(self) -> Option<Choice> {
        match self {
            Self::Equal => Some(Choice::Equal),
            Self::Undecided => None,
        }
    }
}
