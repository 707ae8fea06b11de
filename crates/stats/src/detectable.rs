//! Minimum detectable effects and required samples of corrected tests.

use serde::{Deserialize, Serialize};

use crate::distribution::{chi_squared_quantile, length};
use crate::error::{check_finite, check_level};
use crate::estimate::satterthwaite;
use crate::power::{shift_for_power, two_sided_power};
use crate::{Error, Interval, MeanEstimate};

/// A two-sided test of one of several comparisons, and its power.
///
/// The level is Bonferroni's, 1 − (1 − level)/comparisons. Holm's test is at least as powerful: it equals Bonferroni's
/// in the worst case, where no other comparison is significant.
///
/// ```
/// use stats::{MeanEstimate, PlannedTest};
///
/// let difference = MeanEstimate { value: 0.1, standard_error: 0.1, degrees_of_freedom: 79.0 };
/// let one = PlannedTest { level: 0.95, power: 0.8, comparisons: 1 };
/// let six = PlannedTest { comparisons: 6, ..one };
/// let [alone, corrected] = [one, six].map(|test| test.minimum_detectable_effect(&difference).unwrap());
/// assert!((alone.value - 0.283).abs() < 1e-3 && (corrected.value - 0.355).abs() < 1e-3);
/// assert!(corrected.interval.low < 0.355 && 0.355 < corrected.interval.high);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTest {
    /// Confidence level of the family of tests: 0.95 for a familywise error of 5%.
    pub level: f64,
    /// The power, such as 0.8.
    pub power: f64,
    /// The number of comparisons in the family.
    pub comparisons: usize,
}

/// The smallest true effect that a test detects with its power.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectableEffect {
    /// The minimum detectable effect, in score points.
    pub value: f64,
    /// Its 90% confidence interval: the standard error is an estimate.
    pub interval: Interval,
}

/// Variances of a difference by source, for the standard error at another size of the study.
///
/// With S seeds, Q questions and R samples per answer the variance is `question`/Q + `seed`/S + (`fixed` +
/// `sampling`/R)/(S Q). The parts are unbiased, so one of them may be negative; only their sum is clamped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VarianceParts {
    /// Variance of the difference between questions.
    pub question: f64,
    /// Variance of the difference between training seeds.
    pub seed: f64,
    /// Interaction of seeds and questions that more samples do not reduce.
    pub fixed: f64,
    /// Variance between sampled answers of one seed to one question, judge included.
    pub sampling: f64,
    /// The size of the study.
    pub size: StudySize,
    /// Degrees of freedom of `seed`, at the size of the study.
    pub seed_df: f64,
}

impl VarianceParts {
    /// Adds the variance between seeds to a mean over questions; nothing with one seed. Degrees of freedom are
    /// Satterthwaite's.
    ///
    /// ```
    /// use stats::{MeanEstimate, StudySize, VarianceParts};
    ///
    /// let size = StudySize { seeds: 2, questions: 80, samples: 1 };
    /// let parts = VarianceParts { question: 1.0, seed: 0.18, fixed: 0.0, sampling: 0.0, size, seed_df: 10.0 };
    /// let mean = MeanEstimate { value: 0.5, standard_error: 0.4, degrees_of_freedom: 19.0 };
    /// assert!((parts.over_seeds(mean).standard_error - 0.5).abs() < 1e-12);
    /// ```
    #[must_use]
    pub fn over_seeds(&self, mean: MeanEstimate) -> MeanEstimate {
        if self.size.seeds < 2 {
            return mean;
        }
        let (question, seed) = (mean.standard_error.powi(2), (self.seed / length(self.size.seeds)).max(0.0));
        let variance = question + seed;
        let uncertainty = question.powi(2) / mean.degrees_of_freedom + seed.powi(2) / self.seed_df.max(1.0);
        let degrees_of_freedom =
            if uncertainty > 0.0 { variance * variance / uncertainty } else { mean.degrees_of_freedom };
        MeanEstimate { standard_error: variance.sqrt(), degrees_of_freedom, ..mean }
    }
}

/// The size of a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudySize {
    /// Training seeds per cell.
    pub seeds: usize,
    /// Questions.
    pub questions: usize,
    /// Sampled answers per seed and question.
    pub samples: usize,
}

/// A source of variance that a larger study reduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// More questions.
    Questions,
    /// More training seeds.
    Seeds,
    /// More sampled answers per question.
    Samples,
}

/// How many of one source detect an effect, all other sizes being equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredSample {
    /// The source.
    pub source: Source,
    /// The required number; `None` if no number up to 100,000 is enough.
    pub number: Option<usize>,
    /// The number for the lower end of the 90% interval of the variance.
    pub low: Option<usize>,
    /// The number for its upper end.
    pub high: Option<usize>,
}

/// Confidence level of the intervals of effects and samples.
const INTERVAL: f64 = 0.9;
/// Limit of the search.
const MOST: usize = 100_000;

impl PlannedTest {
    /// Computes the minimum detectable effect of a comparison from its own standard error.
    ///
    /// # Errors
    ///
    /// [`Error::Level`]; [`Error::Power`] unless the power is between the corrected error rate and 1;
    /// [`Error::TooFewClusters`] for 0 comparisons.
    pub fn minimum_detectable_effect(&self, difference: &MeanEstimate) -> Result<DetectableEffect, Error> {
        let MeanEstimate { standard_error, degrees_of_freedom, .. } = *difference;
        let shift = self.shift(degrees_of_freedom)?;
        let [low, high] =
            variance_ratios(degrees_of_freedom).map(|ratio| shift * standard_error * ratio.sqrt());
        Ok(DetectableEffect {
            value: shift * standard_error,
            interval: Interval { low, high, level: INTERVAL },
        })
    }

    /// Computes how many questions, seeds or samples detect `effect`, each with the other sizes of the study.
    ///
    /// The source with the smallest multiple of its present number is the one to buy, if prices are equal.
    ///
    /// # Errors
    ///
    /// As [`minimum_detectable_effect`](Self::minimum_detectable_effect); [`Error::NotFinite`] for an effect that is
    /// not finite; [`Error::Margin`] for an effect of 0.
    ///
    /// ```
    /// use stats::{PlannedTest, Source, StudySize, VarianceParts};
    ///
    /// let size = StudySize { seeds: 4, questions: 80, samples: 1 };
    /// let parts = VarianceParts { question: 0.6, seed: 0.02, fixed: 0.3, sampling: 1.5, size, seed_df: 24.0 };
    /// let test = PlannedTest { level: 0.95, power: 0.8, comparisons: 6 };
    /// let [questions, seeds, samples] = test.required_samples(0.4, &parts)?;
    /// assert_eq!(questions.source, Source::Questions);
    /// assert!(questions.number.unwrap() > 80 && seeds.number.unwrap() > 4);
    /// assert!(questions.low < questions.number && questions.number < questions.high);
    /// assert_eq!(samples.number, None, "samples reduce neither the variance of questions nor of seeds");
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn required_samples(&self, effect: f64, parts: &VarianceParts) -> Result<[RequiredSample; 3], Error> {
        check_finite(&[effect])?;
        if effect == 0.0 {
            return Err(Error::Margin { margin: effect });
        }
        let (_, df) = parts.variance(parts.size);
        self.shift(df)?;
        let [low, high] = variance_ratios(df);
        let mut found = Vec::new();
        for source in [Source::Questions, Source::Seeds, Source::Samples] {
            let number = |ratio: f64| self.required(effect, parts, source, ratio);
            let (number, low, high) = (number(1.0)?, number(low)?, number(high)?);
            found.push(RequiredSample { source, number, low, high });
        }
        Ok(<[RequiredSample; 3]>::try_from(found).expect("there are three sources"))
    }

    /// Returns the least number of `source` with enough power if all variances are `ratio` times as large.
    fn required(
        &self,
        effect: f64,
        parts: &VarianceParts,
        source: Source,
        ratio: f64,
    ) -> Result<Option<usize>, Error> {
        let is_enough = |number: usize| -> Result<bool, Error> {
            let (variance, df) = parts.variance(parts.size.with(source, number));
            let shift = effect.abs() / (variance * ratio).sqrt();
            Ok(variance <= 0.0 || two_sided_power(shift, df, self.corrected_level()) >= self.power)
        };
        // A seed or a question alone has no degrees of freedom.
        let (mut low, mut high) = (if source == Source::Samples { 0 } else { 1 }, MOST);
        if !is_enough(high)? {
            return Ok(None);
        }
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            if is_enough(middle)? {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(Some(high))
    }

    /// Returns the effect, in standard errors, that the corrected test detects.
    fn shift(&self, df: f64) -> Result<f64, Error> {
        check_level(self.level)?;
        if self.comparisons == 0 {
            return Err(Error::TooFewClusters { clusters: 0 });
        }
        shift_for_power(df, self.corrected_level(), self.power)
    }

    fn corrected_level(&self) -> f64 {
        1.0 - (1.0 - self.level) / length(self.comparisons)
    }
}

impl VarianceParts {
    /// Returns the part with the largest variance at the size of the study.
    pub fn largest(&self) -> Source {
        let StudySize { seeds, questions, samples } = self.size;
        let [s, q, r] = [seeds, questions, samples].map(length);
        let parts = [
            (Source::Questions, self.question / q),
            (Source::Seeds, self.seed / s),
            (Source::Samples, self.sampling / (s * q * r)),
        ];
        parts
            .into_iter()
            .max_by(|one, other| one.1.total_cmp(&other.1))
            .map_or(Source::Questions, |(of, _)| of)
    }

    /// Returns the variance of the difference in a study of another size, with its degrees of freedom.
    fn variance(&self, size: StudySize) -> (f64, f64) {
        let [s, q, r] = [size.seeds, size.questions, size.samples].map(length);
        let cell = (self.fixed + self.sampling / r) / (s * q);
        // As in an estimate: the variance over questions contains the interaction, and the excess of seeds is clamped.
        let question = ((self.question / q + cell).max(0.0), q - 1.0);
        let seed = (self.seed / s).max(0.0);
        let seed_df = self.seed_df * (s - 1.0) / (length(self.size.seeds) - 1.0).max(1.0);
        // The interaction is part of the estimate of the seeds' variance and adds to its uncertainty.
        let (variance, _) = satterthwaite(&[question, (seed, 1.0)]);
        let uncertainty = question.0.powi(2) / question.1 + (seed + cell.max(0.0)).powi(2) / seed_df.max(1.0);
        let df = if uncertainty > 0.0 { variance * variance / uncertainty } else { question.1 };
        (variance, df.max(1.0))
    }
}

impl StudySize {
    fn with(self, source: Source, number: usize) -> Self {
        match source {
            Source::Questions => Self { questions: number, ..self },
            Source::Seeds => Self { seeds: number, ..self },
            Source::Samples => Self { samples: number, ..self },
        }
    }
}

/// Returns the ends of the 90% interval of a variance, relative to its estimate with `df` degrees of freedom.
fn variance_ratios(df: f64) -> [f64; 2] {
    if df.is_infinite() {
        return [1.0, 1.0];
    }
    [f64::midpoint(1.0, INTERVAL), (1.0 - INTERVAL) / 2.0].map(|p| df / chi_squared_quantile(p, df))
}
