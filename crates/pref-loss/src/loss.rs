//! The losses, each with its equation and reference.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::kernels::{self, Kernel, PairLoss, WithKernel};
use crate::{
    Beta, Divergence, Float, LabelSmoothing, LogpReduction, NoiseRate, PairBatch, Reward, TargetMargin,
    TargetSmoothing, Temperature, Weight,
};

/// A loss over preference pairs.
///
/// # Notation
/// Per pair, in nats: a and b are the chosen and the rejected response's log-ratio `log π − log π_ref`, summed over
/// the response's tokens, and h = a − b. ā and b̄ are the same divided by the response's number of tokens. In the
/// losses *without a reference* they are plain log-probabilities `log π`. σ(x) = 1/(1 + e⁻ˣ).
///
/// Losses and gradients are finite for |βa|, |βb| up to at least 10⁴ in both precisions, except where noted.
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
    /// Direct preference optimization, −log σ(βh) (Rafailov et al. 2023, arXiv:2305.18290, eq. 7).
    ///
    /// The optimal margin is unbounded, so DPO overfits mislabeled pairs.
    Dpo {
        /// β.
        beta: Beta,
    },
    /// Conservative DPO, −(1−ε) log σ(βh) − ε log σ(−βh) (Mitchell 2023, "A note on DPO with noisy preferences &
    /// relationship to IPO").
    ///
    /// The minimum is at βh = log((1−ε)/ε). ε = 0 is DPO; with ε ≥ ½ the loss no longer follows the labels.
    Cdpo {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: LabelSmoothing,
    },
    /// Robust DPO, [−(1−ε) log σ(βh) + ε log σ(−βh)]/(1−2ε) (Chowdhury et al. 2024, arXiv:2403.00409).
    ///
    /// If a fraction ε of the labels is flipped at random, its expectation is DPO's loss on the true labels.
    /// Unbounded below: for large βh it falls like −εβh/(1−2ε).
    Robust {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: NoiseRate,
    },
    /// Identity preference optimization, (h − 1/(2β))², or with ā − b̄ for h (Azar et al. 2023, arXiv:2310.12036, eq.
    /// 17, with β for their τ).
    Ipo {
        /// β.
        beta: Beta,
        /// Sum or mean over tokens.
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
    /// Typical β: 2 to 10, because the loss compares means over tokens.
    Simpo {
        /// β.
        beta: Beta,
        /// γ.
        gamma: TargetMargin,
    },
    /// ORPO, −ā − λ log σ(odds(ā) − odds(b̄)) with odds(x) = log(eˣ/(1−eˣ)), *without a reference* (Hong et al. 2024,
    /// arXiv:2403.07691, eqs. 6 and 7).
    ///
    /// The paper's λ is TRL's `beta`. A mean log-probability is clamped to −10⁻⁷, because a certain response has
    /// infinite odds.
    Orpo {
        /// λ.
        lambda: Weight,
    },
    /// DPO-positive, −log σ(β(h − λ max(0, −a))) (Pal et al. 2024, "Smaug", arXiv:2402.13228).
    ///
    /// The penalty applies where the chosen response is less likely than under the reference. The paper's λ is 5 to
    /// 50.
    Dpop {
        /// β.
        beta: Beta,
        /// λ.
        lambda: Weight,
    },
    /// The chosen response's negative log-likelihood per token, −ā, *without a reference*.
    ///
    /// Added to DPO with a weight α it gives RPO (Pang et al. 2024, arXiv:2404.19733); see
    /// [`LossSum`](crate::LossSum). Each response has the same weight. TRL's `sft` averages over a batch's tokens, so
    /// that long responses weigh more.
    Sft,
    /// Length-normalized DPO, −log σ(β(ā − b̄)) (TRL's `sigmoid_norm`; Tülu 3, arXiv:2411.15124).
    SigmoidNorm {
        /// β.
        beta: Beta,
    },
    /// EXO for pairs, σ(βh) log(σ(βh)/(1−ε)) + σ(−βh) log(σ(−βh)/ε) (Ji et al. 2024, arXiv:2402.00856, eq. 16).
    ///
    /// cDPO with the KL divergence reversed. The minimum is 0, at the same βh = log((1−ε)/ε). The loss saturates on
    /// the wrong side, where its gradient vanishes.
    ExoPair {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: TargetSmoothing,
    },
    /// NCA for pairs, −log σ(βa) − ½ log σ(−βa) − ½ log σ(−βb) (Chen et al. 2024, arXiv:2402.05369).
    ///
    /// It constrains each response by itself, so that the chosen response's likelihood does not fall with the
    /// rejected one's.
    NcaPair {
        /// β.
        beta: Beta,
    },
    /// Binary classifier optimization for pairs, −log σ(βa) − log σ(−βb) (Jung et al. 2024, arXiv:2404.04656, its
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
    /// better than the policy's own.
    ///
    /// Bounded, so the gradient vanishes for a pair far on the wrong side.
    ApoZero {
        /// β.
        beta: Beta,
    },
    /// APO-down, σ(βa) + σ(−βh) (same paper, eq. 8): for chosen responses that are worse than the policy's own.
    ApoDown {
        /// β.
        beta: Beta,
    },
    /// DiscoPOP, (1−m)(−log σ(x)) + m e⁻ˣ with x = βh, m = σ(x/τ) (Lu et al. 2024, arXiv:2406.08414, eq. 5). A
    /// language model proposed it. It is not convex and has a local maximum at a negative margin.
    ///
    /// With τ > 1 the loss overflows for very negative x.
    Discopop {
        /// β.
        beta: Beta,
        /// τ.
        temperature: Temperature,
    },
    /// Contrastive preference optimization, −(1−ε) log σ(βh) − ε log σ(−βh), *without a reference* (Xu et al. 2024,
    /// arXiv:2401.08417). The paper adds the SFT term: see [`LossSum`](crate::LossSum).
    Cpo {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: LabelSmoothing,
    },
    /// f-DPO, −log σ(β(g(a) − g(b))), g as in [`Divergence`] (Wang et al. 2023, arXiv:2309.16240).
    ///
    /// Exponents are clamped at 80; the gradient is 0 beyond.
    FDpo {
        /// β.
        beta: Beta,
        /// Which divergence.
        divergence: Divergence,
    },
    /// AOT on paired data (Melnyk et al. 2024, arXiv:2406.05882, Algorithm 1). cDPO's loss between the k-th smallest
    /// policy margin and the k-th smallest reference margin of the batch.
    ///
    /// *A pair's loss depends on its batch.*
    Aot {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: LabelSmoothing,
    },
    /// AOT on unpaired data: cDPO's loss between the k-th smallest chosen log-ratio and the k-th smallest rejected one
    /// (same paper).
    ///
    /// *A pair's loss depends on its batch.*
    AotUnpaired {
        /// β.
        beta: Beta,
        /// ε.
        label_smoothing: LabelSmoothing,
    },
}

/// Passes a formula and its parameters to a visitor. Not a closure: the compiler need not inline a long one, and a
/// loop with a call is not vectorized.
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
    /// Whether they are log-ratios to the reference; otherwise they are the policy's log-probabilities.
    pub reference: bool,
    /// Sum or mean over tokens.
    pub reduction: LogpReduction,
}

impl PreferenceLoss {
    /// Computes the loss of one pair and its derivatives as a function of the two numbers that it compares.
    /// [`reads`](Self::reads) defines them.
    ///
    /// For AOT, the batch is this one pair.
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

    /// Computes the implicit rewards of every pair, as in `rewards/chosen`, `rewards/rejected`, `rewards/margins` and
    /// `rewards/accuracies`.
    ///
    /// Rewards use summed log-ratios for every loss, so that they are comparable between losses. Without a reference
    /// they use summed log-probabilities. The factor is β, or 1 for a loss without β.
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

    /// Returns β, or `None` for ORPO and the SFT term.
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

    /// Returns which two numbers of a pair the loss compares.
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

    /// Returns the loss of a pair while the policy equals the reference: ln 2 for DPO and cDPO, 1/(4β²) for IPO.
    /// `None` for a loss without a reference. If the first step of a run has another loss, tokens or weights differ
    /// between policy and reference.
    pub fn at_reference(&self) -> Option<f64> {
        self.reads().reference.then(|| self.at(0.0_f64, 0.0).loss)
    }

    /// Returns the name in recipes and tables, such as `dpo` or `exo_pair`. It equals the serialized `kind`.
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

    /// Passes the formula, with its parameters rounded to `F`, to a visitor.
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
