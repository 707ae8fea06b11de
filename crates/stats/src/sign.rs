//! The sign test and McNemar's test.

use serde::{Deserialize, Serialize};

use crate::distribution::{chi_squared_1_tail, fair_probability, to_f64};

/// Two-sided p-values of the sign test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignTest {
    /// The exact p-value.
    pub p_value: f64,
    /// The mid-p value, which counts half of what was seen itself: less conservative.
    pub mid_p_value: f64,
}

/// Computes the sign test of `wins` against `losses`, which is also McNemar's exact test. With n = `wins` + `losses`,
/// k the smaller of the two and X ~ B(n, ½): p = min(1, 2 P(X ≤ k)) and mid-p = 2 P(X < k) + P(X = k). Without a win
/// or a loss both are 1.
///
/// Use it for wins and losses of two models on independent items. Ties are excluded; report their number. The exact p
/// is conservative, mid-p has the nominal level on average (Lancaster, *Journal of the American Statistical
/// Association* 56, 1961).
///
/// ```
/// let test = stats::sign_test(63, 46);
/// assert!((test.p_value - 0.1250045413).abs() < 1e-9, "63 to 46 may be luck");
/// assert!(test.mid_p_value < test.p_value);
/// ```
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

/// McNemar's test of two paired yes-or-no outcomes, in its three forms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemarTest {
    /// The exact test, which is the sign test of the discordant pairs, and its mid-p variant. Use one of these.
    pub exact: SignTest,
    /// (b − c)²/(b + c) with its p-value by χ² with one degree of freedom: as older papers print it.
    pub chi_squared: (f64, f64),
    /// (|b − c| − 1)²/(b + c) with its p-value: Edwards' continuity correction.
    pub corrected: (f64, f64),
}

/// McNemar's test (*Psychometrika* 12, 1947) of two policies that pass or fail the same questions: `only_first` are
/// the questions that the first one alone passed, `only_second` those of the second. Questions that both passed or
/// both failed do not count.
///
/// Assumes that questions are independent of each other, which the turns of one question are not. Without discordant
/// pairs the χ² forms are 0 with p = 1, as the exact p is.
///
/// ```
/// let test = stats::mcnemar_test(63, 46);
/// assert!((test.exact.p_value - 0.1250045413).abs() < 1e-9);
/// assert!((test.corrected.0 - 2.3486239).abs() < 1e-7);
/// ```
pub fn mcnemar_test(only_first: u64, only_second: u64) -> McNemarTest {
    let discordant = to_f64(only_first + only_second);
    let gap = to_f64(only_first.abs_diff(only_second));
    let form = |gap: f64| {
        let statistic = if discordant > 0.0 { gap * gap / discordant } else { 0.0 };
        (statistic, chi_squared_1_tail(statistic))
    };
    McNemarTest {
        exact: sign_test(only_first, only_second),
        chi_squared: form(gap),
        corrected: form((gap - 1.0).max(0.0)),
    }
}
