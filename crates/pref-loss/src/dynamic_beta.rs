//! β-DPO: one β per batch.

use serde::{Deserialize, Serialize};

use crate::{Beta, PrefLossError, Weight};

/// β-DPO (Wu et al. 2024, arXiv:2407.08639): DPO with one β per batch, β = (1 + α(M̄ − M₀)) β₀. β rises with the
/// batch's reward margin.
///
/// M̄ is the batch's mean implicit margin β₀h, and M₀ its running mean over batches. This type is the state between
/// batches: it returns the β for DPO. No gradient flows through it. *A pair's loss depends on its batch.*
///
/// ```
/// use pref_loss::{Beta, DynamicBeta, PreferenceLoss, Weight};
///
/// let mut dynamic = DynamicBeta::new(Beta::new(0.1)?, Weight::new(0.6)?, 0.9)?;
/// // The first batch is what is usual.
/// assert_eq!(dynamic.next(&[0.5, 1.5]), Beta::new(0.1)?);
/// let beta = dynamic.next(&[3.0, 3.0]);
/// assert!((beta.get() - 0.1 * (1.0 + 0.6 * 2.0)).abs() < 1e-12);
/// let loss = PreferenceLoss::Dpo { beta };
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicBeta {
    beta: Beta,
    alpha: Weight,
    momentum: f64,
    mean: Option<f64>,
}

/// Lower bound of β/β₀: the formula is negative for a batch with very negative margins.
const LEAST: f64 = 1e-3;

impl DynamicBeta {
    /// Creates the state from β₀, α (0.6 in the paper) and the momentum of the running mean (0.9 in the paper).
    ///
    /// # Errors
    /// [`PrefLossError::Parameter`] if the momentum is outside \[0, 1).
    pub fn new(beta: Beta, alpha: Weight, momentum: f64) -> Result<Self, PrefLossError> {
        if (0.0..1.0).contains(&momentum) {
            Ok(Self { beta, alpha, momentum, mean: None })
        } else {
            Err(PrefLossError::Parameter {
                name: "momentum",
                value: momentum,
                range: "at least 0 and below 1",
            })
        }
    }

    /// Returns β₀.
    pub fn beta(&self) -> Beta {
        self.beta
    }

    /// Returns the running mean margin, for a checkpoint; `None` before the first batch.
    pub fn mean(&self) -> Option<f64> {
        self.mean
    }

    /// Restores the running mean of a checkpoint.
    #[must_use]
    pub fn with_mean(self, mean: Option<f64>) -> Self {
        Self { mean, ..self }
    }

    /// Returns the β of a batch with these implicit margins β₀h and updates the running mean. Without margins,
    /// returns β₀.
    pub fn next(&mut self, margins: &[f64]) -> Beta {
        if margins.is_empty() {
            return self.beta;
        }
        let count = margins.len() as f64;
        let mean = margins.iter().sum::<f64>() / count;
        let usual = self.mean.unwrap_or(mean);
        self.mean = Some(self.momentum * usual + (1.0 - self.momentum) * mean);
        let factor = 1.0 + self.alpha.get() * (mean - usual);
        let factor = if factor.is_finite() { factor.max(LEAST) } else { 1.0 };
        Beta::new(self.beta.get() * factor).unwrap_or(self.beta)
    }
}
