//! The losses, each with its equation and source.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::kernels;
use crate::{
    Beta, Divergence, Float, LabelSmoothing, LogpReduction, LossOutput, NoiseRate, PairBatch, PrefLossError,
    Reward, TargetMargin, TargetSmoothing, Temperature, Weight,
};

/// A loss over preference pairs.
///
/// # Notation
/// Per pair, in nats: a and b are the chosen and the rejected response's log-ratio `log π − log π_ref`, summed over the
/// response's tokens, and h = a − b. ā and b̄ are the same divided by the response's number of tokens. In the losses
/// without a reference (their text says so) they are plain log-probabilities `log π`. σ(x) = 1/(1 + e⁻ˣ).
///
/// Every loss is finite with finite gradients for |βa|, |βb| up to 10⁴ and beyond, in both precisions, but where its
/// text says otherwise.
///
/// ```
/// use pref_loss::{Beta, PreferenceLoss};
///
/// let dpo = PreferenceLoss::Dpo { beta: Beta::new(0.1)? };
/// let at_reference = dpo.at(0.0_f64, 0.0);
/// assert_eq!(at_reference.loss, std::f64::consts::LN_2);
/// assert_eq!((at_reference.chosen_grad, at_reference.rejected_grad), (-0.05, 0.05));
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum PreferenceLoss {
    /// Direct preference optimisation, −log σ(βh) (Rafailov et al. 2023, arXiv:2305.18290, eq. 7).
    ///
    /// Never content: the margin of a pair that is labelled one way only is drawn to infinity, so wrong labels are
    /// learnt by heart.
    Dpo {
        /// β.
        beta: Beta,
    },
    /// Conservative DPO, −(1−ε) log σ(βh) − ε log σ(−βh) (Mitchell 2023, "A note on DPO with noisy preferences &
    /// relationship to IPO").
    ///
    /// Least at βh = log((1−ε)/ε). ε = 0 is DPO; from ½ on the labels are no longer followed.
    Cdpo {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: LabelSmoothing,
    },
    /// Robust DPO, [−(1−ε) log σ(βh) + ε log σ(−βh)]/(1−2ε) (Chowdhury et al. 2024, arXiv:2403.00409).
    ///
    /// If a share ε of the labels is flipped at random, its expectation is DPO's loss on the true labels. Unbounded
    /// below: for large βh it falls like −εβh/(1−2ε).
    Robust {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: NoiseRate,
    },
    /// Identity preference optimisation, (h − 1/(2β))², or with ā − b̄ for h (Azar et al. 2023, arXiv:2310.12036,
    /// eq. 17, with β for their τ).
    Ipo {
        /// β.
        beta: Beta,
        /// Whether h compares sums over tokens or means.
        reduction: LogpReduction,
    },
    /// Hinge, max(0, 1 − βh) (SLiC: Zhao et al. 2023, arXiv:2305.10425; the form with log-ratios: Liu et al.
    /// 2023, RSO, arXiv:2309.06657).
    ///
    /// No gradient once βh ≥ 1.
    Hinge {
        /// β.
        beta: Beta,
    },
    /// SimPO, −log σ(β(ā − b̄) − γ), *without a reference* (Meng et al. 2024, arXiv:2405.14734, eq. 6).
    ///
    /// β is of another order here, 2 to 10, since means are compared.
    Simpo {
        /// β.
        beta: Beta,
        /// γ.
        gamma: TargetMargin,
    },
    /// ORPO, −ā − λ log σ(odds(ā) − odds(b̄)) with odds(x) = log(eˣ/(1−eˣ)), *without a reference* (Hong et al. 2024,
    /// arXiv:2403.07691, eqs. 6 and 7).
    ///
    /// The paper's λ is TRL's `beta`. A mean log-prob above −10⁻⁷ counts as −10⁻⁷: a certain response has infinite odds.
    Orpo {
        /// λ.
        lambda: Weight,
    },
    /// DPO-positive, −log σ(β(h − λ max(0, −a))) (Pal et al. 2024, "Smaug", arXiv:2402.13228).
    ///
    /// The penalty starts where the chosen response becomes less likely than under the reference. The paper's λ is 5 to
    /// 50.
    Dpop {
        /// β.
        beta: Beta,
        /// λ.
        lambda: Weight,
    },
    /// The chosen response's negative log-likelihood per token, −ā, *without a reference*.
    ///
    /// With a weight α beside DPO it is the RPO term (Pang et al. 2024, arXiv:2404.19733); see
    /// [`LossSum`](crate::LossSum). Each response counts alike; where TRL's `sft` averages over a batch's tokens, long
    /// responses count more.
    Sft,
    /// Length-normalised DPO, −log σ(β(ā − b̄)) (TRL's `sigmoid_norm`; Tülu 3, arXiv:2411.15124).
    SigmoidNorm {
        /// β.
        beta: Beta,
    },
    /// EXO for pairs, σ(βh) log(σ(βh)/(1−ε)) + σ(−βh) log(σ(−βh)/ε) (Ji et al. 2024, arXiv:2402.00856, eq. 16).
    ///
    /// cDPO with the divergence the other way round: least, namely 0, at the same βh = log((1−ε)/ε). Far out on the
    /// wrong side it saturates, and so does its gradient.
    ExoPair {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: TargetSmoothing,
    },
    /// NCA for pairs, −log σ(βa) − ½ log σ(−βa) − ½ log σ(−βb) (Chen et al. 2024, arXiv:2402.05369).
    ///
    /// Absolute, not relative, so the chosen response's likelihood does not fall along with the rejected one's.
    NcaPair {
        /// β.
        beta: Beta,
    },
    /// Binary classifier optimisation for pairs, −log σ(βa) − log σ(−βb) (Jung et al. 2024, arXiv:2404.04656, its
    /// reward shift 0 as in TRL since 0.29).
    BcoPair {
        /// β.
        beta: Beta,
    },
    /// SPPO with hard probabilities, (a − 1/(2β))² + (b + 1/(2β))² (Wu et al. 2024, arXiv:2405.00675, eq. 4.7 with P of
    /// 1 and 0).
    SppoHard {
        /// β.
        beta: Beta,
    },
    /// APO-zero, σ(−βa) + σ(βb) (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7): for chosen responses that are
    /// better than what the policy writes.
    ///
    /// Bounded, so a pair far on the wrong side is given up.
    ApoZero {
        /// β.
        beta: Beta,
    },
    /// APO-down, σ(βa) + σ(−βh) (same paper, eq. 8): for chosen responses that are worse than what the policy writes.
    ApoDown {
        /// β.
        beta: Beta,
    },
    /// DiscoPOP, (1−m)(−log σ(x)) + m e⁻ˣ with x = βh, m = σ(x/τ) (Lu et al. 2024, arXiv:2406.08414, eq. 5): a blend
    /// that a language model proposed. Not convex: it has a hump on the wrong side of 0.
    ///
    /// With τ > 1 the exponential outgrows its weight, and the loss overflows for very negative x.
    Discopop {
        /// β.
        beta: Beta,
        /// τ.
        temperature: Temperature,
    },
    /// Contrastive preference optimisation, −(1−ε) log σ(βh) − ε log σ(−βh), *without a reference* (Xu et al. 2024,
    /// arXiv:2401.08417). The paper adds the chosen response's likelihood: see [`LossSum`](crate::LossSum).
    Cpo {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: LabelSmoothing,
    },
    /// f-DPO, −log σ(β(g(a) − g(b))), g as in [`Divergence`] (Wang et al. 2023, arXiv:2309.16240).
    ///
    /// Exponents are cut at 80, where the gradient is 0 from then on.
    FDpo {
        /// β.
        beta: Beta,
        /// Which divergence.
        divergence: Divergence,
    },
    /// AOT on paired data: cDPO's loss between the k-th smallest policy margin and the k-th smallest reference margin of
    /// the batch (Melnyk et al. 2024, arXiv:2406.05882, Algorithm 1).
    ///
    /// *The batch matters*: a pair's loss depends on the others.
    Aot {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: LabelSmoothing,
    },
    /// AOT on unpaired data: cDPO's loss between the k-th smallest chosen log-ratio and the k-th smallest rejected one
    /// (same paper).
    ///
    /// *The batch matters*: a pair's loss depends on the others.
    AotUnpaired {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: LabelSmoothing,
    },
}

/// The loss of one pair and its derivatives, per nat, to the two numbers that the loss compares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss<F> {
    /// The loss.
    pub loss: F,
    /// dL/da.
    pub chosen_grad: F,
    /// dL/db.
    pub rejected_grad: F,
}

/// A loss's formula with its parameters.
pub(crate) trait Kernel<F>: Copy + Sync {
    /// Loss and gradient of one pair.
    fn at(self, a: F, b: F) -> PairLoss<F>;
}

/// Something to do with a loss's formula, compiled once for each formula, so that a loop over pairs has no branch on which
/// loss it is.
pub(crate) trait WithKernel<F> {
    /// What comes of it.
    type Output;

    /// Does it.
    fn call(self, kernel: impl Kernel<F>) -> Self::Output;
}

/// Hands a formula over together with the parameters that it names. A closure would do, but for one thing: nothing makes
/// the compiler inline a long one into its loops, and a loop with a call in it gets no vector instructions.
macro_rules! formula {
    ($with:expr, [$($parameter:ident: $type:ty),*], |$a:ident, $b:ident| $body:expr) => {{
        #[derive(Clone, Copy)]
        struct Formula<F: Float> {
            $($parameter: $type,)*
            of: PhantomData<F>,
        }

        impl<F: Float> Kernel<F> for Formula<F> {
            #[inline(always)]
            fn at(self, $a: F, $b: F) -> PairLoss<F> {
                let Self { $($parameter,)* .. } = self;
                $body
            }
        }

        $with.call(Formula { $($parameter,)* of: PhantomData })
    }};
}

/// Which two numbers of a pair a loss compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// Whether they are log-ratios to the reference, or the policy's log-probabilities alone.
    pub reference: bool,
    /// Whether they are summed over tokens, or averaged.
    pub reduction: LogpReduction,
}

impl PreferenceLoss {
    /// Losses and gradients of every pair in one pass, into `out`, whose former content is dropped.
    ///
    /// The gradients are those of each pair's *own* loss, to the policy's summed log-probabilities;
    /// [`LossOutput::scale_grads`] makes them those of a mean.
    ///
    /// # Errors
    /// [`PrefLossError::MissingReference`] if the loss needs a reference and the batch has none.
    pub fn evaluate<F: Float>(
        &self,
        batch: &PairBatch<'_, F>,
        out: &mut LossOutput<F>,
    ) -> Result<(), PrefLossError> {
        crate::evaluate::evaluate(self, batch, out)
    }

    /// The loss of one pair as a function of the two numbers that it compares, with its derivatives to them; which
    /// numbers, [`reads`](Self::reads) tells.
    ///
    /// For AOT: of a batch of one pair.
    pub fn at<F: Float>(&self, a: F, b: F) -> PairLoss<F> {
        struct At<F>(F, F);

        impl<F: Float> WithKernel<F> for At<F> {
            type Output = PairLoss<F>;

            fn call(self, kernel: impl Kernel<F>) -> PairLoss<F> {
                kernel.at(self.0, self.1)
            }
        }

        self.with_kernel(At(a, b))
    }

    /// The implicit rewards of every pair: the numbers behind `rewards/chosen`, `rewards/rejected`, `rewards/margins`
    /// and `rewards/accuracies`.
    ///
    /// Always from summed log-ratios, whatever the loss compares, so that losses can be told apart by them; from summed
    /// log-probabilities where the batch has no reference. Times β, or plain where a loss has no β.
    pub fn rewards<'a, F: Float>(
        &self,
        batch: &'a PairBatch<'_, F>,
    ) -> impl ExactSizeIterator<Item = Reward<F>> + 'a {
        let scale = F::of(self.beta().map_or(1.0, Beta::get));
        (0..batch.len()).map(move |pair| {
            let (chosen, rejected) = batch.log_ratios(pair);
            Reward { chosen: scale * chosen, rejected: scale * rejected }
        })
    }

    /// β; `None` for ORPO and the SFT term, which have none.
    pub fn beta(&self) -> Option<Beta> {
        match *self {
            Self::Orpo { .. } | Self::Sft => None,
            Self::Dpo { beta }
            | Self::Cdpo { beta, .. }
            | Self::Robust { beta, .. }
            | Self::Ipo { beta, .. }
            | Self::Hinge { beta }
            | Self::Simpo { beta, .. }
            | Self::Dpop { beta, .. }
            | Self::SigmoidNorm { beta }
            | Self::ExoPair { beta, .. }
            | Self::NcaPair { beta }
            | Self::BcoPair { beta }
            | Self::SppoHard { beta }
            | Self::ApoZero { beta }
            | Self::ApoDown { beta }
            | Self::Discopop { beta, .. }
            | Self::Cpo { beta, .. }
            | Self::FDpo { beta, .. }
            | Self::Aot { beta, .. }
            | Self::AotUnpaired { beta, .. } => Some(beta),
        }
    }

    /// Which two numbers of a pair the loss compares.
    pub fn reads(&self) -> Reads {
        let reduction = match *self {
            Self::Ipo { reduction, .. } => reduction,
            Self::Simpo { .. } | Self::Orpo { .. } | Self::Sft | Self::SigmoidNorm { .. } => {
                LogpReduction::Mean
            }
            _ => LogpReduction::Sum,
        };
        let is_free = matches!(self, Self::Simpo { .. } | Self::Orpo { .. } | Self::Sft | Self::Cpo { .. });
        Reads { reference: !is_free, reduction }
    }

    /// What every pair's loss is while the policy still equals the reference, such as ln 2 for DPO and cDPO and 1/(4β²)
    /// for IPO; `None` for a loss without a reference. A run whose first step says otherwise compares different tokens
    /// or different weights.
    pub fn at_reference(&self) -> Option<f64> {
        self.reads().reference.then(|| self.at(0.0_f64, 0.0).loss)
    }

    /// The name in recipes and tables: `dpo`, `exo_pair`, …, as in the serialised form's `kind`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dpo { .. } => "dpo",
            Self::Cdpo { .. } => "cdpo",
            Self::Robust { .. } => "robust",
            Self::Ipo { .. } => "ipo",
            Self::Hinge { .. } => "hinge",
            Self::Simpo { .. } => "simpo",
            Self::Orpo { .. } => "orpo",
            Self::Dpop { .. } => "dpop",
            Self::Sft => "sft",
            Self::SigmoidNorm { .. } => "sigmoid_norm",
            Self::ExoPair { .. } => "exo_pair",
            Self::NcaPair { .. } => "nca_pair",
            Self::BcoPair { .. } => "bco_pair",
            Self::SppoHard { .. } => "sppo_hard",
            Self::ApoZero { .. } => "apo_zero",
            Self::ApoDown { .. } => "apo_down",
            Self::Discopop { .. } => "discopop",
            Self::Cpo { .. } => "cpo",
            Self::FDpo { .. } => "f_dpo",
            Self::Aot { .. } => "aot",
            Self::AotUnpaired { .. } => "aot_unpaired",
        }
    }

    /// Hands the formula over, its parameters rounded to `F`.
    #[inline]
    pub(crate) fn with_kernel<F: Float, W: WithKernel<F>>(&self, with: W) -> W::Output {
        let beta = F::of(self.beta().map_or(1.0, Beta::get));
        match *self {
            Self::Dpo { .. } | Self::SigmoidNorm { .. } => {
                formula!(with, [beta: F], |a, b| kernels::logistic(a, b, beta))
            }
            Self::Cdpo { label_smoothing, .. }
            | Self::Cpo { label_smoothing, .. }
            | Self::Aot { label_smoothing, .. }
            | Self::AotUnpaired { label_smoothing, .. } => {
                let weights = label_smoothing.weights().map(F::of);
                formula!(with, [beta: F, weights: [F; 2]], |a, b| kernels::smoothed_logistic(a, b, beta, weights))
            }
            Self::Robust { label_smoothing, .. } => {
                let weights = label_smoothing.weights().map(F::of);
                formula!(with, [beta: F, weights: [F; 2]], |a, b| kernels::smoothed_logistic(a, b, beta, weights))
            }
            Self::Ipo { beta, .. } => {
                let target = F::of(beta.target_margin());
                formula!(with, [target: F], |a, b| kernels::squared(a, b, target))
            }
            Self::Hinge { .. } => formula!(with, [beta: F], |a, b| kernels::hinge(a, b, beta)),
            Self::Simpo { gamma, .. } => {
                let gamma = F::of(gamma.get());
                formula!(with, [beta: F, gamma: F], |a, b| kernels::shifted_logistic(a, b, beta, gamma))
            }
            Self::Orpo { lambda } => {
                let lambda = F::of(lambda.get());
                formula!(with, [lambda: F], |a, b| kernels::orpo(a, b, lambda))
            }
            Self::Dpop { lambda, .. } => {
                let lambda = F::of(lambda.get());
                formula!(with, [beta: F, lambda: F], |a, b| kernels::dpop(a, b, beta, lambda))
            }
            Self::Sft => formula!(with, [], |a, _b| kernels::sft(a)),
            Self::ExoPair { label_smoothing, .. } => {
                let logs = label_smoothing.logs().map(F::of);
                formula!(with, [beta: F, logs: [F; 2]], |a, b| kernels::exo(a, b, beta, logs))
            }
            Self::NcaPair { .. } => formula!(with, [beta: F], |a, b| kernels::nca(a, b, beta)),
            Self::BcoPair { .. } => formula!(with, [beta: F], |a, b| kernels::bco(a, b, beta)),
            Self::SppoHard { beta } => {
                let target = F::of(beta.target_margin());
                formula!(with, [target: F], |a, b| kernels::sppo(a, b, target))
            }
            Self::ApoZero { .. } => formula!(with, [beta: F], |a, b| kernels::apo_zero(a, b, beta)),
            Self::ApoDown { .. } => formula!(with, [beta: F], |a, b| kernels::apo_down(a, b, beta)),
            Self::Discopop { temperature, .. } => {
                let temperature = F::of(temperature.get());
                formula!(with, [beta: F, temperature: F], |a, b| kernels::discopop(a, b, beta, temperature))
            }
            Self::FDpo { divergence, .. } => formula!(with, [beta: F, divergence: Divergence], |a, b| {
                kernels::scored(divergence.score(a), divergence.score(b), beta)
            }),
        }
    }
}
