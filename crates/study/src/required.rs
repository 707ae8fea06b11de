//! The sample that a study requires for an effect.

use stats::{PlannedTest, RequiredSample, Source};

use crate::contrast::Measurement;
use crate::error::StudyError;

/// What a larger study needs to detect an effect, source by source.
#[derive(Clone, Debug)]
pub(crate) struct Required {
    /// The present numbers of questions, seeds and samples.
    present: [usize; 3],
    /// The required numbers; `None` with one seed, which does not show how much seeds vary.
    samples: Option<[RequiredSample; 3]>,
}

impl Required {
    /// Computes the required sample of a test of `effect`.
    pub(crate) fn of(test: &PlannedTest, effect: f64, measurement: &Measurement) -> Result<Self, StudyError> {
        let (questions, seeds) = measurement.size;
        let Some(parts) = &measurement.parts else {
            return Ok(Self { present: [questions, seeds, 1], samples: None });
        };
        let samples = match effect.abs() > 0.0 {
            true => {
                Some(test.required_samples(effect, parts).map_err(StudyError::stats("required samples"))?)
            }
            false => None,
        };
        Ok(Self { present: [questions, seeds, parts.size.samples], samples })
    }

    /// Returns the source with the smallest multiple of its present number, among those that are enough alone.
    fn cheapest(&self) -> Option<&RequiredSample> {
        let multiple =
            |sample: &RequiredSample| Some(sample.number? as f64 / self.of_source(sample.source) as f64);
        let known = self.samples.iter().flatten().filter_map(|sample| Some((multiple(sample)?, sample)));
        known.min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, sample)| sample)
    }

    fn of_source(&self, source: Source) -> usize {
        let [questions, seeds, samples] = self.present;
        match source {
            Source::Questions => questions,
            Source::Seeds => seeds,
            Source::Samples => samples,
        }
        .max(1)
    }

    /// Returns the cheapest enlargement, for a table.
    pub(crate) fn in_short(&self) -> String {
        match (&self.samples, self.cheapest()) {
            (Some(_), Some(sample)) => number_of(sample),
            (Some(_), None) => "more of all".to_owned(),
            (None, _) if self.present[1] < 2 => "2 seeds or more".to_owned(),
            (None, _) => "–".to_owned(),
        }
    }

    /// Returns the enlargement by each source.
    pub(crate) fn in_words(&self) -> String {
        let Some(samples) = &self.samples else {
            return match self.present[1] {
                0 | 1 => "required sample: two seeds or more, since one does not show how much seeds vary"
                    .to_owned(),
                _ => "required sample: none, since the effect is 0".to_owned(),
            };
        };
        let each = samples.iter().map(|sample| match sample.number {
            Some(_) => format!("{} (now {})", number_of(sample), self.of_source(sample.source)),
            None => format!("no number of {}", name(sample.source)),
        });
        let cheapest = self.cheapest().map_or("no source alone is enough".to_owned(), |sample| {
            format!("{} are the smallest enlargement", name(sample.source))
        });
        format!(
            "required sample, the other sizes being equal: {}; {cheapest}",
            each.collect::<Vec<_>>().join(", or ")
        )
    }
}

fn number_of(sample: &RequiredSample) -> String {
    let end = |number: Option<usize>| number.map_or("∞".to_owned(), |number| number.to_string());
    format!("{} {} [{}, {}]", end(sample.number), name(sample.source), end(sample.low), end(sample.high))
}

fn name(source: Source) -> &'static str {
    match source {
        Source::Questions => "questions",
        Source::Seeds => "seeds",
        Source::Samples => "samples",
    }
}
