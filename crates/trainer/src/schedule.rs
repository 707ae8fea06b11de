//! Learning-rate schedules, equal to those of transformers at each step.

use serde::{Deserialize, Serialize};

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Linear decay to zero (`get_linear_schedule_with_warmup`).
    Linear,
    /// Cosine decay to zero over half a period (`get_cosine_schedule_with_warmup`).
    Cosine,
    /// No decay (`get_constant_schedule_with_warmup`).
    Constant,
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
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = (step - self.warmup_steps) as f64 / length;
        let factor = match self.decay {
            Decay::Linear => (1.0 - done).max(0.0),
            Decay::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * done).cos())).max(0.0),
            Decay::Constant => 1.0,
        };
        self.peak * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `transformers.get_scheduler(name, opt, 3, 10)`, stepped ten times at peak 1.0 (transformers 5.23).
    const LINEAR: [f64; 10] =
        [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 6.0 / 7.0, 5.0 / 7.0, 4.0 / 7.0, 3.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0];
    const COSINE: [f64; 10] = [
        0.0,
        1.0 / 3.0,
        2.0 / 3.0,
        1.0,
        0.950_484_433_951_209_5,
        0.811_744_900_929_366_8,
        0.611_260_466_978_157_2,
        0.388_739_533_021_842_8,
        0.188_255_099_070_633_23,
        0.049_515_566_048_790_48,
    ];

    #[test]
    fn follows_transformers() {
        for (decay, expected) in [(Decay::Linear, LINEAR), (Decay::Cosine, COSINE)] {
            let schedule = Schedule::new(1.0, 0.25, decay, 10);
            for (step, expected) in expected.iter().enumerate() {
                let got = schedule.learning_rate(step as u64);
                assert!((got - expected).abs() < 1e-12, "{decay:?} step {step}: {got} instead of {expected}");
            }
        }
    }

    #[test]
    fn no_warmup_starts_at_the_peak() {
        assert_eq!(Schedule::new(2.0, 0.0, Decay::Linear, 4).learning_rate(0), 2.0);
        assert_eq!(Schedule::new(2.0, 0.0, Decay::Constant, 4).learning_rate(400), 2.0);
    }
}
