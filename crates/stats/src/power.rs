//! What a study of a given size can see.

use serde::{Deserialize, Serialize};

use crate::crossed::satterthwaite;
use crate::distribution::{length, noncentral_t_cdf, t_quantile};
use crate::{Design, Error, Over};

/// More seeds than anybody trains.
const MOST_SEEDS: usize = 10_000;

/// Variances by source, in squared score points: measured ([`Components::variances`](crate::Components::variances)) or
/// assumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Variances {
    /// Between seeds, over all questions alike.
    pub seed: f64,
    /// Between questions, for all seeds alike.
    pub question: f64,
    /// Of seeds, differing from question to question.
    pub seed_question: f64,
    /// Between the turns of a question.
    pub turn: f64,
    /// Of a seed's answer to a turn.
    pub answer: f64,
    /// Of judgments of the same answer.
    pub judge: f64,
}

impl Variances {
    /// The variance of a mean over a whole `design`, as [`Components::estimate`](crate::Components::estimate) will see it
    /// on average, and its degrees of freedom.
    fn of_mean(&self, design: Design, over: Over) -> Result<(f64, f64), Error> {
        if over != Over::Questions && design.seeds < 2 {
            return Err(Error::OneSeed);
        }
        if over != Over::Seeds && design.questions < 2 {
            return Err(Error::TooFewClusters { clusters: design.questions });
        }
        let [s, q, t, j] = [design.seeds, design.questions, design.turns, design.repeats].map(length);
        let cell = self.seed_question + self.answer / t + self.judge / (t * j);
        let of_question = ((self.question + self.turn / t) / q + cell / (s * q), q - 1.0);
        let of_seed = (self.seed / s + cell / (s * q), s - 1.0);
        Ok(match over {
            Over::Questions => satterthwaite(&[of_question]),
            Over::Seeds => satterthwaite(&[of_seed]),
            Over::SeedsAndQuestions => satterthwaite(&[of_seed, of_question]),
        })
    }
}

/// A planned comparison: variances of a *difference* between two policies, measured or taken from a similar comparison, and
/// what is to be drawn anew.
///
/// Power is that of the two-sided t-test which [`Components::estimate`](crate::Components::estimate) makes: with standard error s and ν degrees of
/// freedom, the probability that a noncentral t of shift Δ/s leaves (−c, c), c being the (1 + level)/2 quantile of t
/// (Lehmann and Romano, *Testing Statistical Hypotheses*, §5.3).
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
    /// What the claim is about.
    pub over: Over,
    /// Confidence level of the interval that shall exclude 0: 0.95 for tests at 5%.
    pub level: f64,
}

/// How many seeds a difference takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedsNeeded {
    /// This many.
    Seeds(usize),
    /// No number of seeds is enough: questions alone make the difference this uncertain.
    MoreQuestions {
        /// The standard error that is left with any number of seeds.
        floor: f64,
    },
}

impl Plan {
    /// The probability that a study of this `design` finds a true difference of `difference` score points.
    ///
    /// # Errors
    ///
    /// [`Error::Level`], [`Error::NotFinite`]; [`Error::OneSeed`] and [`Error::TooFewClusters`] for a design without
    /// replicates of what is to be drawn anew.
    pub fn power(&self, difference: f64, design: Design) -> Result<f64, Error> {
        crate::error::check_finite(&[difference])?;
        let (variance, df) = self.spread(design)?;
        if variance <= 0.0 {
            return Ok(if difference == 0.0 { 1.0 - self.level } else { 1.0 });
        }
        Ok(two_sided_power(difference.abs() / variance.sqrt(), df, self.level))
    }

    /// The power at each of `differences`: a power curve.
    ///
    /// # Errors
    ///
    /// As [`power`](Self::power).
    pub fn power_curve(&self, differences: &[f64], design: Design) -> Result<Vec<(f64, f64)>, Error> {
        differences.iter().map(|&difference| Ok((difference, self.power(difference, design)?))).collect()
    }

    /// The smallest true difference, in score points, that this design finds with probability `power`: what a table
    /// that prints a difference should say beside it.
    ///
    /// # Errors
    ///
    /// As [`power`](Self::power); [`Error::Power`] unless 1 − level < `power` < 1.
    pub fn minimal_detectable_difference(&self, design: Design, power: f64) -> Result<f64, Error> {
        let (variance, df) = self.spread(design)?;
        Ok(self.shift(df, power)? * variance.sqrt())
    }

    /// How many seeds it takes to find a true difference of `difference` with probability `power`, all else as in
    /// `design`.
    ///
    /// # Errors
    ///
    /// As [`minimal_detectable_difference`](Self::minimal_detectable_difference).
    pub fn seeds_needed(&self, difference: f64, design: Design, power: f64) -> Result<SeedsNeeded, Error> {
        let is_enough = |seeds: usize| -> Result<bool, Error> {
            Ok(self.power(difference, Design { seeds, ..design })? >= power)
        };
        self.shift(1.0, power)?;
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
        crate::bootstrap::check_level(self.level)?;
        self.variances.of_mean(design, self.over)
    }

    /// The shift, in standard errors, that has this power.
    fn shift(&self, df: f64, power: f64) -> Result<f64, Error> {
        if !(1.0 - self.level < power && power < 1.0) {
            return Err(Error::Power { power, level: self.level });
        }
        let (mut low, mut high) = (0.0, 1.0);
        while two_sided_power(high, df, self.level) < power {
            high *= 2.0;
        }
        while high - low > 1e-10 * high {
            let middle = f64::midpoint(low, high);
            if two_sided_power(middle, df, self.level) < power {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(high)
    }
}

fn two_sided_power(shift: f64, df: f64, level: f64) -> f64 {
    /// No standard error is ever overestimated by this factor.
    const BEYOND_DOUBT: f64 = 200.0;
    let critical = t_quantile(f64::midpoint(1.0, level), df);
    if shift > BEYOND_DOUBT * critical {
        return 1.0;
    }
    (1.0 - noncentral_t_cdf(critical, df, shift) + noncentral_t_cdf(-critical, df, shift)).clamp(0.0, 1.0)
}
