//! Weighted sums of losses.

use serde::{Deserialize, Serialize};

use crate::{Float, LossOutput, PairBatch, PrefLossError, PreferenceLoss, Weight};

/// One loss of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossTerm {
    /// Its weight.
    pub weight: Weight,
    /// The loss.
    pub loss: PreferenceLoss,
}

/// A weighted sum of losses over the same pairs: RPO is DPO with α times the SFT term, CPO in its authors' form is
/// [`PreferenceLoss::Cpo`] with the SFT term.
///
/// ```
/// use pref_loss::{Beta, LossOutput, LossSum, PairBatch, PairLogps, PairTokens, PreferenceLoss, Weight};
///
/// let rpo = LossSum::with_sft(PreferenceLoss::Dpo { beta: Beta::new(0.1)? }, Weight::new(1.0)?);
/// let logps = PairLogps { chosen: &[-20.0], rejected: &[-25.0] };
/// let batch = PairBatch::new(logps, logps, PairTokens { chosen: &[10], rejected: &[11] })?;
/// let (mut out, mut scratch) = (LossOutput::default(), LossOutput::default());
/// rpo.evaluate(&batch, &mut out, &mut scratch)?;
/// assert_eq!(out.losses(), [std::f64::consts::LN_2 + 2.0]);
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossSum {
    /// The losses with their weights.
    pub terms: Vec<LossTerm>,
}

impl LossSum {
    /// Creates the sum of a preference loss and α times the SFT term.
    pub fn with_sft(loss: PreferenceLoss, alpha: Weight) -> Self {
        let one = LossTerm { weight: Weight::ONE, loss };
        Self { terms: vec![one, LossTerm { weight: alpha, loss: PreferenceLoss::Sft }] }
    }

    /// Computes losses and gradients of every pair into `out`, with `scratch` for one term at a time. Overwrites
    /// both.
    ///
    /// # Errors
    /// As [`PreferenceLoss::evaluate`], for the first term that has one.
    pub fn evaluate<F: Float>(
        &self,
        batch: &PairBatch<'_, F>,
        out: &mut LossOutput<F>,
        scratch: &mut LossOutput<F>,
    ) -> Result<(), PrefLossError> {
        for numbers in out.resized(batch.len()) {
            numbers.fill(F::of(0.0));
        }
        for term in &self.terms {
            term.loss.evaluate(batch, scratch)?;
            out.add(F::of(term.weight.get()), scratch);
        }
        Ok(())
    }
}
