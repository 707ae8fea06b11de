//! Formulas: loss and gradient of one pair as a function of two numbers.
//!
//! The arguments are a of the chosen and b of the rejected response, as defined by `PreferenceLoss::reads`. All
//! formulas are branch-free, so that the compiler vectorizes a loop over pairs. log σ never goes through a rounded σ.

use crate::Float;

/// The loss of one pair and its derivatives with respect to the two numbers that the loss compares.
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

/// A visitor of a loss's formula. It is compiled once per formula, so that a loop over pairs does not branch on the
/// loss.
pub(crate) trait WithKernel<F> {
    /// The visitor's result.
    type Output;

    /// Visits the formula.
    fn call(self, kernel: impl Kernel<F>) -> Self::Output;
}

/// A loss of the margin h = a − b alone, given L(h) and dL/dh.
#[inline(always)]
fn of_margin<F: Float>(loss: F, slope: F) -> PairLoss<F> {
    PairLoss { loss, chosen_grad: slope, rejected_grad: -slope }
}

/// −(1−ε) log σ(x) − ε log σ(−x), x = βh.
///
/// Folding both terms into softplus(−x) + εx would cancel digits for ε near 1, as would the textbook slope σ(x) − (1−ε)
/// for large x. With ε = 0 the second term adds an exact 0.
#[inline(always)]
pub(crate) fn smoothed_logistic<F: Float>(a: F, b: F, beta: F, smoothing: [F; 2]) -> PairLoss<F> {
    let [believed, doubted] = smoothing;
    let s = (beta * (a - b)).logistic();
    of_margin(believed * s.minus_log_p + doubted * s.minus_log_q, beta * (doubted * s.p - believed * s.q))
}

/// −log σ(βh), without the arithmetic of a second term.
#[inline(always)]
pub(crate) fn logistic<F: Float>(a: F, b: F, beta: F) -> PairLoss<F> {
    shifted_logistic(a, b, beta, F::of(0.0))
}

/// −log σ(βh − γ).
#[inline(always)]
pub(crate) fn shifted_logistic<F: Float>(a: F, b: F, beta: F, gamma: F) -> PairLoss<F> {
    let s = (beta * (a - b) - gamma).logistic();
    of_margin(s.minus_log_p, -(beta * s.q))
}

/// (h − t)².
#[inline(always)]
pub(crate) fn squared<F: Float>(a: F, b: F, target: F) -> PairLoss<F> {
    let residual = (a - b) - target;
    of_margin(residual * residual, residual + residual)
}

/// max(0, 1 − βh). The slope is 0 at the kink, as in autograd.
#[inline(always)]
pub(crate) fn hinge<F: Float>(a: F, b: F, beta: F) -> PairLoss<F> {
    let zero = F::of(0.0);
    let short = F::of(1.0) - beta * (a - b);
    // The comparison is false for NaN, so that NaN propagates.
    let is_reached = short <= zero;
    of_margin(if is_reached { zero } else { short }, if is_reached { zero } else { -beta })
}

/// KL(softmax(0, −x) ‖ (1−ε, ε)): σ(x) log(σ(x)/(1−ε)) + σ(−x) log(σ(−x)/ε), x = βh.
///
/// log σ(x) − log σ(−x) is x itself, so the slope is σ(x)σ(−x)(x − logit(1−ε)).
#[inline(always)]
pub(crate) fn exo<F: Float>(a: F, b: F, beta: F, logs: [F; 2]) -> PairLoss<F> {
    let [log_believed, log_doubted] = logs;
    let x = beta * (a - b);
    let s = x.logistic();
    let zero = F::of(0.0);
    let logit = log_believed - log_doubted;
    // ∞·0 would be NaN where σ is 0 in the limit.
    let term = |weight: F, minus_log: F, log_target: F| {
        if weight == zero { zero } else { -(weight * (minus_log + log_target)) }
    };
    let both = s.p * s.q;
    let slope = if both == zero { zero } else { beta * both * (x - logit) };
    of_margin(term(s.p, s.minus_log_p, log_believed) + term(s.q, s.minus_log_q, log_doubted), slope)
}

/// −log σ(βa) − ½ log σ(−βa) − ½ log σ(−βb).
#[inline(always)]
pub(crate) fn nca<F: Float>(a: F, b: F, beta: F) -> PairLoss<F> {
    let half = F::of(0.5);
    let (chosen, rejected) = ((beta * a).logistic(), (beta * b).logistic());
    PairLoss {
        loss: chosen.minus_log_p + half * chosen.minus_log_q + half * rejected.minus_log_q,
        chosen_grad: beta * (half * chosen.p - chosen.q),
        rejected_grad: beta * half * rejected.p,
    }
}

/// −log σ(βa) − log σ(−βb).
#[inline(always)]
pub(crate) fn bco<F: Float>(a: F, b: F, beta: F) -> PairLoss<F> {
    let (chosen, rejected) = ((beta * a).logistic(), (beta * b).logistic());
    PairLoss {
        loss: chosen.minus_log_p + rejected.minus_log_q,
        chosen_grad: -(beta * chosen.q),
        rejected_grad: beta * rejected.p,
    }
}

/// (a − t)² + (b + t)².
#[inline(always)]
pub(crate) fn sppo<F: Float>(a: F, b: F, target: F) -> PairLoss<F> {
    let (chosen, rejected) = (a - target, b + target);
    PairLoss {
        loss: chosen * chosen + rejected * rejected,
        chosen_grad: chosen + chosen,
        rejected_grad: rejected + rejected,
    }
}

/// σ(−βa) + σ(βb).
#[inline(always)]
pub(crate) fn apo_zero<F: Float>(a: F, b: F, beta: F) -> PairLoss<F> {
    let (chosen, rejected) = ((beta * a).logistic(), (beta * b).logistic());
    PairLoss {
        loss: chosen.q + rejected.p,
        chosen_grad: -(beta * chosen.p * chosen.q),
        rejected_grad: beta * rejected.p * rejected.q,
    }
}

/// σ(βa) + σ(−βh).
#[inline(always)]
pub(crate) fn apo_down<F: Float>(a: F, b: F, beta: F) -> PairLoss<F> {
    let (chosen, margin) = ((beta * a).logistic(), (beta * (a - b)).logistic());
    let apart = beta * margin.p * margin.q;
    PairLoss {
        loss: chosen.p + margin.q,
        chosen_grad: beta * chosen.p * chosen.q - apart,
        rejected_grad: apart,
    }
}

/// (1−m)(−log σ(x)) + m e⁻ˣ with x = βh, m = σ(x/τ).
#[inline(always)]
pub(crate) fn discopop<F: Float>(a: F, b: F, beta: F, temperature: F) -> PairLoss<F> {
    let x = beta * (a - b);
    let (s, m) = (x.logistic(), (x / temperature).logistic());
    // m e⁻ˣ as one exponential: e⁻ˣ alone overflows where the product does not.
    let exponential = (-(m.minus_log_p + x)).exp();
    let slope = -(m.p * m.q / temperature * s.minus_log_p) - m.q * s.q
        + exponential * (m.q / temperature - F::of(1.0));
    of_margin(m.q * s.minus_log_p + exponential, beta * slope)
}

/// −log σ(β(a − b − λ max(0, −a))).
#[inline(always)]
pub(crate) fn dpop<F: Float>(a: F, b: F, beta: F, lambda: F) -> PairLoss<F> {
    let zero = F::of(0.0);
    let is_below = a < zero;
    let penalty = if is_below { -(lambda * a) } else { zero };
    let s = (beta * (a - b - penalty)).logistic();
    let pull = beta * s.q;
    let steeper = if is_below { F::of(1.0) + lambda } else { F::of(1.0) };
    PairLoss { loss: s.minus_log_p, chosen_grad: -(pull * steeper), rejected_grad: pull }
}

/// −a − λ log σ(z), z = log(eᵃ/(1−eᵃ)) − log(eᵇ/(1−eᵇ)), a and b being means over tokens.
#[inline(always)]
pub(crate) fn orpo<F: Float>(a: F, b: F, lambda: F) -> PairLoss<F> {
    let (chosen, rejected) = (Odds::of(a), Odds::of(b));
    let s = (chosen.log - rejected.log).logistic();
    let pull = lambda * s.q;
    PairLoss {
        loss: lambda * s.minus_log_p - a,
        chosen_grad: -(F::of(1.0) + pull * chosen.slope),
        rejected_grad: pull * rejected.slope,
    }
}

/// The log-odds of a probability given by its logarithm, and their derivative 1/(1−p).
struct Odds<F> {
    log: F,
    slope: F,
}

impl<F: Float> Odds<F> {
    /// A probability of 1 has infinite odds, so the log-probability is clamped to −10⁻⁷.
    #[inline(always)]
    fn of(logp: F) -> Self {
        let nearest = F::of(-1e-7);
        let logp = if logp > nearest { nearest } else { logp };
        let complement = -logp.exp_m1();
        Self { log: logp - complement.ln(), slope: F::of(1.0) / complement }
    }
}

/// −a.
#[inline(always)]
pub(crate) fn sft<F: Float>(a: F) -> PairLoss<F> {
    PairLoss { loss: -a, chosen_grad: F::of(-1.0), rejected_grad: F::of(0.0) }
}

/// −log σ(β(g(a) − g(b))) for the score g of an f-divergence, given with its derivative.
#[inline(always)]
pub(crate) fn scored<F: Float>(chosen: [F; 2], rejected: [F; 2], beta: F) -> PairLoss<F> {
    let s = (beta * (chosen[0] - rejected[0])).logistic();
    let pull = beta * s.q;
    PairLoss { loss: s.minus_log_p, chosen_grad: -(pull * chosen[1]), rejected_grad: pull * rejected[1] }
}
