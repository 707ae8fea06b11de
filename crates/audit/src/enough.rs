//! The effect on a benchmark that a comparison of policies could show.

use serde::Serialize;
use stats::{DetectableEffect, MeanEstimate, PlannedTest, RequiredSample, Source, StudySize, VarianceParts};

use crate::error::AuditError;
use crate::interval::LEVEL;
use crate::noise::NoiseEstimate;

/// A planned comparison of two policies on a benchmark with ratings from 1 to 10.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Questions.
    pub questions: usize,
    /// Training seeds of each policy.
    pub seeds: usize,
    /// Comparisons that share an error rate of 5%.
    pub comparisons: usize,
    /// The standard deviation over questions of the difference between two runs, in points.
    pub deviation: f64,
    /// The standard deviation over seeds of one policy's mean score, in points.
    pub seed_deviation: f64,
}

impl Plan {
    /// MT-Bench with one run of each policy and GPT-4 as judge.
    ///
    /// 2.3 is the middle of the deviations between published runs of Mistral-7B models, which range from 1.9 to 2.7; the
    /// power table of the paper's reanalysis uses them. 0.15 is a middle value of the simulations of crate `stats`.
    pub const MT_BENCH: Self =
        Self { questions: 80, seeds: 1, comparisons: 1, deviation: 2.3, seed_deviation: 0.15 };

    fn parts(&self) -> VarianceParts {
        let (seeds, questions) = (self.seeds.max(1), self.questions.max(2));
        VarianceParts {
            question: 0.0,
            seed: 2.0 * self.seed_deviation.powi(2),
            fixed: 0.0,
            sampling: self.deviation.powi(2),
            size: StudySize { seeds, questions, samples: 1 },
            seed_df: (2 * seeds).saturating_sub(2).max(1) as f64,
        }
    }
}

/// Prices in USD, for what more labels and judgments cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Prices {
    /// Of the label of one pair.
    pub label: Option<f64>,
    /// Of one call of the judge, which rates one turn of an answer.
    pub judge_call: Option<f64>,
}

/// What a planned comparison can show.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Enough {
    /// The planned comparison.
    pub plan: Plan,
    /// The smallest difference in points that is found with a power of 80% at 5%.
    pub detectable_effect: f64,
    /// The same for labels without noise: the effect that clean labels must have so that these labels still show it.
    pub of_clean_labels: Option<f64>,
    /// How many clean pairs carry the same information.
    pub equivalent_clean_pairs: Option<f64>,
    /// How many questions, seeds or samples find [`Enough::TARGET`].
    pub required: Vec<RequiredSample>,
    /// The given prices.
    pub prices: Prices,
}

impl Enough {
    /// Returns the smallest enlargement that alone finds [`Enough::TARGET`]: the number and its source.
    pub(crate) fn cheapest(&self) -> Option<(usize, &'static str)> {
        let multiple = |sample: &RequiredSample| {
            let (now, name) = match sample.source {
                Source::Seeds => (self.plan.seeds, "seeds"),
                _ => (self.plan.questions, "questions"),
            };
            Some((sample.number? as f64 / now.max(1) as f64, sample.number?, name))
        };
        let all = self.required.iter().filter_map(multiple);
        all.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, number, name)| (number, name))
    }

    /// A difference in points that is often called relevant on MT-Bench.
    pub const TARGET: f64 = 0.2;

    /// Turns of a question of MT-Bench.
    const TURNS: usize = 2;

    /// Returns the judge's calls for two policies that answer so many questions with so many seeds.
    pub fn judge_calls(questions: usize, seeds: usize) -> usize {
        2 * Self::TURNS * questions * seeds
    }

    /// Computes the detectable effect of a plan, for `usable` pairs with this noise.
    ///
    /// With a share ε of random flips, the expected gradient of a linear loss shrinks by 1 − 2ε, and n pairs weigh as much as
    /// n(1 − 2ε)² clean ones.
    pub(crate) fn of(
        (plan, prices): (Plan, Prices),
        usable: usize,
        noise: Option<&NoiseEstimate>,
    ) -> Result<Self, AuditError> {
        let parts = plan.parts();
        let failed = |source| AuditError::Statistics { what: "detectable effect", source };
        let runs = (parts.size.seeds * parts.size.questions) as f64;
        let over_questions = MeanEstimate {
            value: 0.0,
            standard_error: (parts.sampling / runs).sqrt(),
            degrees_of_freedom: (parts.size.questions - 1) as f64,
        };
        let test = PlannedTest { level: LEVEL, power: 0.8, comparisons: plan.comparisons.max(1) };
        let DetectableEffect { value, .. } =
            test.minimum_detectable_effect(&parts.over_seeds(over_questions)).map_err(failed)?;
        let required = test.required_samples(Self::TARGET, &parts).map_err(failed)?;
        let kept = noise.filter(|noise| noise.method.identifies()).map(|noise| 1.0 - 2.0 * noise.estimate);
        Ok(Self {
            plan,
            detectable_effect: value,
            of_clean_labels: kept.filter(|kept| *kept > 0.01).map(|kept| value / kept),
            equivalent_clean_pairs: kept.map(|kept| usable as f64 * kept * kept),
            required: required.into_iter().filter(|sample| sample.source != Source::Samples).collect(),
            prices,
        })
    }
}
