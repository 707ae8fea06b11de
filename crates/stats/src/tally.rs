//! Wins, losses and ties, and what they say about who is better.

use serde::{Deserialize, Serialize};
use statrs::function::{erf::erf_inv, gamma::ln_gamma};

use crate::{Error, bootstrap::check_level};

/// What a rater says of two models' answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The first model's answer is better.
    #[serde(rename = "model_1")]
    Model1,
    /// The second model's answer is better.
    #[serde(rename = "model_2")]
    Model2,
    /// Neither is.
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

/// How often each of two models won.
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
    /// How many items there are.
    pub fn items(&self) -> u64 {
        self.decisive() + self.ties
    }

    /// How many items somebody won.
    pub fn decisive(&self) -> u64 {
        self.wins_model_1 + self.wins_model_2
    }

    /// The tally as the second model sees it.
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

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence level, such as 0.95.
    pub level: f64,
}

/// Wilson's score interval of a proportion p̂ = `successes`/`trials`, without continuity correction:
/// (p̂ + z²/2n ± z √(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n), with z the normal quantile of (1 + `level`)/2
/// (Wilson, *Journal of the American Statistical Association* 22, 1927). It stays within 0 and 1.
///
/// # Errors
///
/// [`Error::Proportion`] without trials or with more successes than trials; [`Error::Level`].
///
/// ```
/// let interval = stats::wilson_interval(63, 160, 0.95)?;
/// assert!((interval.low - 0.3213875070).abs() < 1e-9);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn wilson_interval(successes: u64, trials: u64, level: f64) -> Result<Interval, Error> {
    check_level(level)?;
    if trials == 0 || successes > trials {
        return Err(Error::Proportion { successes, trials });
    }
    let z = std::f64::consts::SQRT_2 * erf_inv(level);
    let n = to_f64(trials);
    let p = to_f64(successes) / n;
    let shrink = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / shrink;
    let half_width = z / shrink * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At 0 and n successes one end is 0 or 1 exactly; rounding must not carry it past that.
    let low = if successes == 0 { 0.0 } else { (centre - half_width).max(0.0) };
    let high = if successes == trials { 1.0 } else { (centre + half_width).min(1.0) };
    Ok(Interval { low, high, level })
}

/// Two-sided p-values of the sign test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignTest {
    /// The exact p-value.
    pub p_value: f64,
    /// The mid-p value, which counts half of what was seen itself: less conservative.
    pub mid_p_value: f64,
}

/// The sign test of `wins` against `losses`, which is McNemar's exact test too: with X binomial of n = `wins` +
/// `losses` fair tosses and k the smaller of the two, p = min(1, 2 P(X ≤ k)) and mid-p = 2 P(X < k) + P(X = k). Without
/// a win or a loss both are 1.
pub fn sign_test(wins: u64, losses: u64) -> SignTest {
    let (n, k) = (wins + losses, wins.min(losses));
    let at_k = fair_probability(n, k);
    // P(X < k) from the largest term down, each by its ratio to the one before.
    let (mut below_k, mut term, mut i) = (0.0, at_k, k);
    while i > 0 && term > below_k * f64::EPSILON {
        term *= to_f64(i) / to_f64(n - i + 1);
        below_k += term;
        i -= 1;
    }
    SignTest { p_value: (2.0 * (below_k + at_k)).min(1.0), mid_p_value: (2.0 * below_k + at_k).min(1.0) }
}

/// The probability of `k` heads in `n` fair tosses.
fn fair_probability(n: u64, k: u64) -> f64 {
    let ln_factorial = |m: u64| ln_gamma(to_f64(m) + 1.0);
    (ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k) - to_f64(n) * std::f64::consts::LN_2).exp()
}

fn ratio(part: f64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part / to_f64(whole))
}

#[expect(clippy::cast_precision_loss, reason = "counts of items lie far below 2^53")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
