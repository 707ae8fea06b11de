//! The losses, in closed form.

use serde::{Deserialize, Serialize};

use crate::{Beta, Float, LabelSmoothing, LogpReduction, LossOutput, PairBatch, Reward};

/// A loss over preference pairs.
///
/// Each is a function of one number per pair, the margin h between the chosen and the rejected log-ratio
/// `log π − log π_ref`, in nats.
///
/// ```
/// use pref_loss::{Beta, PreferenceLoss};
///
/// let dpo = PreferenceLoss::Dpo { beta: Beta::new(0.1)? };
/// let at_reference = dpo.at_margin(0.0_f64);
/// assert_eq!(at_reference.loss, std::f64::consts::LN_2);
/// assert_eq!(at_reference.slope, -0.05);
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum PreferenceLoss {
    /// Direct preference optimisation, −log σ(βh) (Rafailov et al. 2023, eq. 7).
    Dpo {
        /// β.
        beta: Beta,
    },
    /// Conservative DPO, −(1−ε) log σ(βh) − ε log σ(−βh) (Mitchell 2023, "A note on DPO with noisy preferences").
    Cdpo {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: LabelSmoothing,
    },
    /// Identity preference optimisation, (h − 1/(2β))² (Azar et al. 2023, eq. 17, with β for their τ).
    Ipo {
        /// β.
        beta: Beta,
        /// Whether h compares sums over tokens or means.
        reduction: LogpReduction,
    },
}

/// The value and the slope of a loss at one margin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarginLoss<F> {
    /// L(h).
    pub loss: F,
    /// dL/dh, per nat.
    pub slope: F,
}

impl PreferenceLoss {
    /// Losses and gradients of every pair in one pass, into `out`, whose former content is dropped.
    ///
    /// The gradients are those of each pair's *own* loss; [`LossOutput::scale_grads`] makes them those of a mean.
    pub fn evaluate<F: Float>(&self, batch: &PairBatch<'_, F>, out: &mut LossOutput<F>) {
        out.clear();
        for pair in 0..batch.len() {
            let (chosen, rejected) = batch.log_ratios(pair);
            let (chosen_weight, rejected_weight) = self.weights(batch, pair);
            let MarginLoss { loss, slope } =
                self.at_margin(chosen * chosen_weight - rejected * rejected_weight);
            out.push(loss, slope * chosen_weight, -(slope * rejected_weight));
        }
    }

    /// The loss as a function of the margin h, with its derivative.
    ///
    /// Right to a few units in the last place for every |βh| up to 10⁴ and beyond.
    pub fn at_margin<F: Float>(&self, margin: F) -> MarginLoss<F> {
        match *self {
            Self::Dpo { beta } => smoothed_logistic(margin, beta, LabelSmoothing::ZERO),
            Self::Cdpo { beta, label_smoothing } => smoothed_logistic(margin, beta, label_smoothing),
            Self::Ipo { beta, .. } => {
                let residual = margin - F::of(ipo_target(beta));
                MarginLoss { loss: residual * residual, slope: residual + residual }
            }
        }
    }

    /// The implicit rewards of every pair: the numbers behind `rewards/chosen`, `rewards/rejected`, `rewards/margins`
    /// and `rewards/accuracies`.
    pub fn rewards<'a, F: Float>(
        &self,
        batch: &'a PairBatch<'_, F>,
    ) -> impl ExactSizeIterator<Item = Reward<F>> + 'a {
        let beta = F::of(self.beta().get());
        (0..batch.len()).map(move |pair| {
            let (chosen, rejected) = batch.log_ratios(pair);
            Reward { chosen: beta * chosen, rejected: beta * rejected }
        })
    }

    /// β.
    pub fn beta(&self) -> Beta {
        match *self {
            Self::Dpo { beta } | Self::Cdpo { beta, .. } | Self::Ipo { beta, .. } => beta,
        }
    }

    /// What every pair's loss is while the policy still equals the reference: ln 2 for DPO and cDPO, 1/(4β²) for IPO.
    /// A run whose first step says otherwise compares different tokens or different weights.
    pub fn at_reference(&self) -> f64 {
        self.at_margin(0.0_f64).loss
    }

    /// The name in recipes and tables: `dpo`, `cdpo`, `ipo`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dpo { .. } => "dpo",
            Self::Cdpo { .. } => "cdpo",
            Self::Ipo { .. } => "ipo",
        }
    }

    /// By what each response's log-ratio is multiplied on its way into the margin: dh/d(log-prob), up to sign.
    #[inline]
    fn weights<F: Float>(&self, batch: &PairBatch<'_, F>, pair: usize) -> (F, F) {
        match self {
            Self::Ipo { reduction: LogpReduction::Mean, .. } => (
                F::of(1.0 / f64::from(batch.tokens.chosen[pair])),
                F::of(1.0 / f64::from(batch.tokens.rejected[pair])),
            ),
            Self::Ipo { reduction: LogpReduction::Sum, .. } | Self::Dpo { .. } | Self::Cdpo { .. } => {
                (F::of(1.0), F::of(1.0))
            }
        }
    }
}

/// The margin that IPO draws every pair to, 1/(2β).
pub(crate) fn ipo_target(beta: Beta) -> f64 {
    0.5 / beta.get()
}

/// −(1−ε) log σ(x) − ε log σ(−x) at x = βh.
///
/// Both terms stand as softplus: folding them into softplus(−x) + εx would cancel digits for ε near 1, as would the
/// textbook slope σ(x) − (1−ε) for large x. With ε = 0 the second term adds an exact 0.
#[inline]
fn smoothed_logistic<F: Float>(margin: F, beta: Beta, label_smoothing: LabelSmoothing) -> MarginLoss<F> {
    let beta = F::of(beta.get());
    let believed = F::of(1.0 - label_smoothing.get());
    let doubted = F::of(label_smoothing.get());
    let x = beta * margin;
    MarginLoss {
        loss: believed * (-x).softplus() + doubted * x.softplus(),
        slope: beta * (doubted * x.sigmoid() - believed * (-x).sigmoid()),
    }
}
