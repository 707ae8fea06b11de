//! Power and minimum detectable effects.

use serde::{Deserialize, Serialize};

use crate::distribution::{length, noncentral_t_cdf, t_quantile};
use crate::error::{check_finite, check_level};
use crate::estimate::satterthwaite;
use crate::{Design, Error, Over, Variances};

/// Upper limit of the search for seeds.
const MOST_SEEDS: usize = 10_000;

/// A planned comparison: variances of a *difference* between two policies, measured or assumed, and the population of
/// the claim.
///
/// Power is that of the two-sided t-test of [`Components::estimate`](crate::Components::estimate) with standard error
/// s and ν degrees of freedom. It is the probability that a noncentral t with shift Δ/s is outside of (−c, c), where
/// c is the (1 + level)/2 quantile of t (Lehmann and Romano, *Testing Statistical Hypotheses*, §5.3).
///
/// ```
/// use stats::{CrossedScores, Observation, Over, Plan};
///
/// // Differences of two policies: two seeds, forty questions, one turn.
/// let rows = (0..80_u64).map(|i| Observation {
///     seed: i % 2,
///     question: i / 2,
///     turn: 1,
///     repeat: 0,
///     score: ((i * 37) % 11) as f64 / 4.0 - 1.0,
/// });
/// let components = CrossedScores::new(rows)?.components()?;
/// let plan = Plan { variances: components.variances(), over: Over::SeedsAndQuestions, level: 0.95 };
/// let design = components.design;
/// let smallest = plan.minimal_detectable_difference(design, 0.8)?;
/// assert!((plan.power(smallest, design)? - 0.8).abs() < 1e-6);
/// // More questions see more.
/// let larger = stats::Design { questions: 160, ..design };
/// assert!(plan.minimal_detectable_difference(larger, 0.8)? < smallest);
/// # Ok::<(), stats::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Variances of the difference.
    pub variances: Variances,
    /// The population of the claim.
    pub over: Over,
    /// Confidence level: 0.95 for tests at 5%.
    pub level: f64,
}

/// The required number of seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedsNeeded {
    /// This many.
    Seeds(usize),
    /// No number of seeds is enough, because of the variance between questions.
    MoreQuestions {
        /// The standard error with infinitely many seeds.
        floor: f64,
    },
}

impl Plan {
    /// Computes the power of a study of this `design` at a true difference of `difference` score points.
    ///
    /// # Errors
    ///
    /// [`Error::Level`], [`Error::NotFinite`]; [`Error::OneSeed`] and [`Error::TooFewClusters`] for a design without
    /// replicates of a random factor.
    pub fn power(&self, difference: f64, design: Design) -> Result<f64, Error> {
        check_finite(&[difference])?;
        let (variance, df) = self.spread(design)?;
        if variance <= 0.0 {
            return Ok(if difference == 0.0 { 1.0 - self.level } else { 1.0 });
        }
        Ok(two_sided_power(difference.abs() / variance.sqrt(), df, self.level))
    }

    /// Computes the power at each of `differences`.
    ///
    /// # Errors
    ///
    /// As [`power`](Self::power).
    pub fn power_curve(&self, differences: &[f64], design: Design) -> Result<Vec<(f64, f64)>, Error> {
        differences.iter().map(|&difference| Ok((difference, self.power(difference, design)?))).collect()
    }

    /// Computes the minimum detectable difference, in score points, of this design at `power`.
    ///
    /// # Errors
    ///
    /// As [`power`](Self::power); [`Error::Power`] unless 1 − level < `power` < 1.
    pub fn minimal_detectable_difference(&self, design: Design, power: f64) -> Result<f64, Error> {
        let (variance, df) = self.spread(design)?;
        Ok(shift_for_power(df, self.level, power)? * variance.sqrt())
    }

    /// Computes the number of seeds with `power` at a true difference of `difference`, with all other sizes as in
    /// `design`.
    ///
    /// # Errors
    ///
    /// As [`minimal_detectable_difference`](Self::minimal_detectable_difference).
    pub fn seeds_needed(&self, difference: f64, design: Design, power: f64) -> Result<SeedsNeeded, Error> {
        let is_enough = |seeds: usize| -> Result<bool, Error> {
            Ok(self.power(difference, Design { seeds, ..design })? >= power)
        };
        shift_for_power(1.0, self.level, power)?;
        if !is_enough(MOST_SEEDS)? {
            let (floor, _) = self.spread(Design { seeds: usize::MAX >> 16, ..design })?;
            return Ok(SeedsNeeded::MoreQuestions { floor: floor.sqrt() });
        }
        if self.over == Over::Questions && is_enough(1)? {
            return Ok(SeedsNeeded::Seeds(1));
        }
        let (mut low, mut high) = (1, MOST_SEEDS);
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            if is_enough(middle)? {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(SeedsNeeded::Seeds(high))
    }

    fn spread(&self, design: Design) -> Result<(f64, f64), Error> {
        check_level(self.level)?;
        variance_of_mean(&self.variances, design, self.over)
    }
}

/// Returns the shift, in standard errors, with this power at a two-sided test.
///
/// # Errors
///
/// [`Error::Power`] unless 1 − level < `power` < 1.
pub(crate) fn shift_for_power(df: f64, level: f64, power: f64) -> Result<f64, Error> {
    if !(1.0 - level < power && power < 1.0) {
        return Err(Error::Power { power, level });
    }
    let (mut low, mut high) = (0.0, 1.0);
    while two_sided_power(high, df, level) < power {
        high *= 2.0;
    }
    while high - low > 1e-10 * high {
        let middle = f64::midpoint(low, high);
        if two_sided_power(middle, df, level) < power {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(high)
}

pub(crate) fn two_sided_power(shift: f64, df: f64, level: f64) -> f64 {
    /// Beyond this multiple of the critical value the power is 1 in f64.
    const BEYOND_DOUBT: f64 = 200.0;
    let critical = t_quantile(f64::midpoint(1.0, level), df);
    if shift > BEYOND_DOUBT * critical {
        return 1.0;
    }
    (1.0 - noncentral_t_cdf(critical, df, shift) + noncentral_t_cdf(-critical, df, shift)).clamp(0.0, 1.0)
}

/// Returns the variance of a mean over a whole `design`, as [`Components::estimate`](crate::Components::estimate) has it on
/// average, and its degrees of freedom.
fn variance_of_mean(variances: &Variances, design: Design, over: Over) -> Result<(f64, f64), Error> {
    if over != Over::Questions && design.seeds < 2 {
        return Err(Error::OneSeed);
    }
    if over != Over::Seeds && design.questions < 2 {
        return Err(Error::TooFewClusters { clusters: design.questions });
    }
    let [s, q, t, j] = [design.seeds, design.questions, design.turns, design.repeats].map(length);
    let cell = variances.seed_question + variances.answer / t + variances.judge / (t * j);
    let of_question = ((variances.question + variances.turn / t) / q + cell / (s * q), q - 1.0);
    let of_seed = (variances.seed / s + cell / (s * q), s - 1.0);
    Ok(match over {
        Over::Questions => satterthwaite(&[of_question]),
        Over::Seeds => satterthwaite(&[of_seed]),
        Over::SeedsAndQuestions => satterthwaite(&[of_seed, of_question]),
    })
}
