//! Learning-rate schedules, equal to those of transformers at each step.

use serde::{Deserialize, Serialize};

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// Linear decay to zero (`get_linear_schedule_with_warmup`).
    Linear,
    /// Cosine decay to zero over half a period (`get_cosine_schedule_with_warmup`).
    Cosine,
    /// No decay (`get_constant_schedule_with_warmup`).
    Constant,
    /// No decay until the last ⌈`share` · steps⌉ steps, which decay to zero (`get_wsd_schedule`).
    Stable {
        /// The share of the steps that decay.
        share: f64,
        /// The curve of the decay.
        shape: DecayShape,
    },
}

/// The curve of the decay in a warmup-stable-decay schedule: `decay_type` of transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayShape {
    /// Half a period of the cosine.
    #[default]
    Cosine,
    /// A line.
    Linear,
    /// One minus the square root of the decay's progress.
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

/// The learning rate of each optimizer step: linear warm-up, then [`Decay`].
///
/// ```
/// use trainer::{Decay, Schedule};
///
/// let schedule = Schedule::new(5e-7, 0.1, Decay::Linear, 100);
/// assert_eq!(schedule.warmup_steps(), 10);
/// assert_eq!(schedule.learning_rate(0), 0.0); // transformers makes its first update at zero
/// assert_eq!(schedule.learning_rate(10), 5e-7);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    peak: f64,
    warmup_steps: u64,
    total_steps: u64,
    decay: Decay,
}

impl Schedule {
    /// Creates a schedule of `total_steps` updates, whose first ⌈`warmup_ratio` · `total_steps`⌉ rise to `peak`.
    pub fn new(peak: f64, warmup_ratio: f64, decay: Decay, total_steps: u64) -> Self {
        let warmup_steps = (warmup_ratio * total_steps as f64).ceil() as u64;
        Self { peak, warmup_steps, total_steps, decay }
    }

    /// Returns the number of warm-up updates.
    pub fn warmup_steps(&self) -> u64 {
        self.warmup_steps
    }

    /// Returns the learning rate of update `step`, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let all = self.total_steps.saturating_sub(self.warmup_steps);
        // Where warm-up and decay overlap by rounding, the decay has begun when the warm-up ends, as in transformers.
        let done = |steps: u64| (step + steps).saturating_sub(self.total_steps) as f64 / steps.max(1) as f64;
        let factor = match self.decay {
            Decay::Linear => DecayShape::Linear.factor(done(all)),
            Decay::Cosine => DecayShape::Cosine.factor(done(all)),
            Decay::Constant => 1.0,
            Decay::Stable { share, shape } => {
                let steps = (share * self.total_steps as f64).ceil() as u64;
                shape.factor(done(steps))
            }
        };
        self.peak * factor
    }
}

impl DecayShape {
    /// Returns the share of the peak after this share of the decay.
    fn factor(self, done: f64) -> f64 {
        let factor = match self {
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Self::Linear => 1.0 - done,
            Self::OneMinusSqrt => 1.0 - done.sqrt(),
        };
        factor.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A schedule of transformers, from `fixtures/schedules.py`.
    #[derive(Deserialize)]
    struct Recorded {
        scheduler: String,
        decay_type: Option<DecayShape>,
        warmup_ratio: f64,
        decay_ratio: Option<f64>,
        total_steps: u64,
        rates: Vec<f64>,
    }

    #[test]
    fn follows_transformers() {
        let text = include_str!("../tests/fixtures/schedules.json");
        let all: Vec<Recorded> = serde_json::from_str(text).unwrap();
        assert!(all.len() >= 20);
        for recorded in all {
            let Recorded { scheduler, decay_type, warmup_ratio, decay_ratio, total_steps, rates } = recorded;
            let decay = match (scheduler.as_str(), decay_type, decay_ratio) {
                ("linear", ..) => Decay::Linear,
                ("cosine", ..) => Decay::Cosine,
                ("constant", ..) => Decay::Constant,
                ("wsd", Some(shape), Some(share)) => Decay::Stable { share, shape },
                _ => panic!("{scheduler} is recorded without its parameters"),
            };
            let schedule = Schedule::new(2.0, warmup_ratio, decay, total_steps);
            assert_eq!(rates.len() as u64, total_steps);
            for (step, expected) in rates.iter().enumerate() {
                let got = schedule.learning_rate(step as u64);
                let place = format!("{decay:?}, {warmup_ratio} of {total_steps}, step {step}");
                assert!((got - expected).abs() < 1e-12, "{place}: {got} instead of {expected}");
            }
        }
    }

    #[test]
    fn no_warmup_starts_at_the_peak() {
        assert_eq!(Schedule::new(2.0, 0.0, Decay::Linear, 4).learning_rate(0), 2.0);
        assert_eq!(Schedule::new(2.0, 0.0, Decay::Constant, 4).learning_rate(400), 2.0);
    }
}
