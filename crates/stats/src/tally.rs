//! Wins, losses and ties.

use serde::{Deserialize, Serialize};

use crate::distribution::to_f64;
use crate::{Error, Interval, SignTest, sign_test, wilson_interval};

/// A rater's preference between two models' answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The first model's answer is better.
    #[serde(rename = "model_1")]
    Model1,
    /// The second model's answer is better.
    #[serde(rename = "model_2")]
    Model2,
    /// A tie.
    Equal,
}

impl Choice {
    /// All choices, in the order in which [`choice_counts`](crate::choice_counts) counts them.
    pub const ALL: [Self; 3] = [Self::Model1, Self::Model2, Self::Equal];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Model1 => 0,
            Self::Model2 => 1,
            Self::Equal => 2,
        }
    }
}

/// Counts of wins and ties of two models.
///
/// ```
/// use stats::Tally;
///
/// let tally = Tally { wins_model_1: 63, wins_model_2: 46, ties: 51 };
/// assert_eq!(tally.win_rate(), Some(63.0 / 160.0));
/// assert_eq!(tally.decisive_win_rate(), Some(63.0 / 109.0));
/// assert_eq!(tally.adjusted_win_rate(), Some((63.0 + 51.0 / 2.0) / 160.0));
/// assert!(tally.sign_test().p_value > 0.05, "63 wins of 109 may be luck");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Items that the first model won.
    pub wins_model_1: u64,
    /// Items that the second model won.
    pub wins_model_2: u64,
    /// Items that neither won.
    pub ties: u64,
}

impl Tally {
    /// Returns the number of items.
    pub fn items(&self) -> u64 {
        self.decisive() + self.ties
    }

    /// Returns the number of items without a tie.
    pub fn decisive(&self) -> u64 {
        self.wins_model_1 + self.wins_model_2
    }

    /// Returns the tally with the models swapped.
    #[must_use]
    pub fn swapped(&self) -> Self {
        Self { wins_model_1: self.wins_model_2, wins_model_2: self.wins_model_1, ties: self.ties }
    }

    /// Raw win rate of the first model: wins over all items. `None` without items.
    pub fn win_rate(&self) -> Option<f64> {
        ratio(to_f64(self.wins_model_1), self.items())
    }

    /// Win rate of the first model among the decisive items: ties are left out. `None` without decisive items.
    pub fn decisive_win_rate(&self) -> Option<f64> {
        ratio(to_f64(self.wins_model_1), self.decisive())
    }

    /// Win rate of the first model with every tie counted as half a win, FastChat's `win_rate_adjusted`. `None` without
    /// items.
    pub fn adjusted_win_rate(&self) -> Option<f64> {
        ratio(to_f64(self.wins_model_1) + to_f64(self.ties) / 2.0, self.items())
    }

    /// Wilson's interval of the [raw win rate](Self::win_rate).
    ///
    /// # Errors
    ///
    /// [`Error::Proportion`] without items, [`Error::Level`].
    pub fn win_rate_interval(&self, level: f64) -> Result<Interval, Error> {
        wilson_interval(self.wins_model_1, self.items(), level)
    }

    /// Wilson's interval of the [decisive win rate](Self::decisive_win_rate).
    ///
    /// # Errors
    ///
    /// [`Error::Proportion`] without decisive items, [`Error::Level`].
    pub fn decisive_win_rate_interval(&self, level: f64) -> Result<Interval, Error> {
        wilson_interval(self.wins_model_1, self.decisive(), level)
    }

    /// The sign test of the decisive items: could a fair coin have done this?
    pub fn sign_test(&self) -> SignTest {
        sign_test(self.wins_model_1, self.wins_model_2)
    }
}

impl FromIterator<Choice> for Tally {
    fn from_iter<I: IntoIterator<Item = Choice>>(choices: I) -> Self {
        let mut tally = Self::default();
        tally.extend(choices);
        tally
    }
}

impl Extend<Choice> for Tally {
    fn extend<I: IntoIterator<Item = Choice>>(&mut self, choices: I) {
        for choice in choices {
            match choice {
                Choice::Model1 => self.wins_model_1 += 1,
                Choice::Model2 => self.wins_model_2 += 1,
                Choice::Equal => self.ties += 1,
            }
        }
    }
}

fn ratio(part: f64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part / to_f64(whole))
}
