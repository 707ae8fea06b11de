//! β-DPO: a β that follows the batch.

use serde::{Deserialize, Serialize};

use crate::{Beta, PrefLossError, Weight};

/// β-DPO (Wu et al. 2024, arXiv:2407.08639): DPO whose β rises in batches with a larger reward margin than usual and falls
/// in those with a smaller one, β = (1 + α(M̄ − M₀)) β₀.
///
/// M̄ is the batch's mean implicit margin β₀h, and M₀ its running mean over batches. Not a loss but a state between
/// batches: it names the β for DPO. No gradient flows through it. *The batch matters.*
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
    variance: f64,
}

/// The least β, relative to β₀: the formula itself would turn negative in a batch of very wrong margins.
const LEAST: f64 = 1e-3;

impl DynamicBeta {
    /// β₀, α (0.6 in the paper) and the momentum of the running mean (0.9 there).
    ///
    /// # Errors
    /// [`PrefLossError::Parameter`] if the momentum is outside \[0, 1).
    pub fn new(beta: Beta, alpha: Weight, momentum: f64) -> Result<Self, PrefLossError> {
        if (0.0..1.0).contains(&momentum) {
            Ok(Self { beta, alpha, momentum, mean: None, variance: 0.0 })
        } else {
            Err(PrefLossError::Parameter {
                name: "momentum",
                value: momentum,
                range: "at least 0 and below 1",
            })
        }
    }

    /// The β of a batch with these implicit margins β₀h; then the margins join the running mean. Without margins, β₀.
    pub fn next(&mut self, margins: &[f64]) -> Beta {
        if margins.is_empty() {
            return self.beta;
        }
        let count = margins.len() as f64;
        let mean = margins.iter().sum::<f64>() / count;
        let usual = self.mean.unwrap_or(mean);
        let spread = margins.iter().map(|margin| (margin - usual).powi(2)).sum::<f64>() / count;
        let joined = |old: f64, new: f64| self.momentum * old + (1.0 - self.momentum) * new;
        self.variance = if self.mean.is_some() { joined(self.variance, spread) } else { spread };
        self.mean = Some(joined(usual, mean));
        let factor = 1.0 + self.alpha.get() * (mean - usual);
        let factor = if factor.is_finite() { factor.max(LEAST) } else { 1.0 };
        Beta::new(self.beta.get() * factor).unwrap_or(self.beta)
    }

    /// How likely the paper's filter keeps a pair of this margin, up to a factor: exp(−(M − M₀)²/(2σ²)), σ² being the
    /// running variance. Pairs are then drawn by it without replacement; 1 before the first batch.
    pub fn keep_weight(&self, margin: f64) -> f64 {
        match self.mean {
            Some(mean) if self.variance > 0.0 => (-(margin - mean).powi(2) / (2.0 * self.variance)).exp(),
            _ => 1.0,
        }
    }
}
