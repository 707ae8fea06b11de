//! Formulas on tensors, for autograd.
//!
//! Implemented from the equations, independently of the closed-form kernels, so that each is a test of the other.

use tch::Tensor;

use crate::divergence::LARGEST_EXPONENT;
use crate::{Beta, Divergence, PreferenceLoss};

/// Computes the loss `[pairs]` of the two numbers `[pairs]` that it compares; for AOT, of its two samples.
pub(super) fn loss(loss: &PreferenceLoss, a: &Tensor, b: &Tensor) -> Tensor {
    use PreferenceLoss as L;
    let beta = loss.beta().map_or(1.0, Beta::get);
    let margin = || (a - b) * beta;
    match *loss {
        L::Dpo { .. } | L::SigmoidNorm { .. } => minus_log_sigmoid(&margin()),
        L::Cdpo { label_smoothing, .. } | L::Cpo { label_smoothing, .. } => {
            smoothed(&margin(), label_smoothing.weights())
        }
        L::Aot { label_smoothing, .. } | L::AotUnpaired { label_smoothing, .. } => {
            let [a, b] = [a, b].map(|sample| sample.sort(0, false).0);
            smoothed(&((a - b) * beta), label_smoothing.weights())
        }
        L::Robust { label_smoothing, .. } => smoothed(&margin(), label_smoothing.weights()),
        L::Ipo { beta, .. } => (a - b - beta.target_margin()).square(),
        L::Hinge { .. } => (margin().neg() + 1.0).relu(),
        L::Simpo { gamma, .. } => minus_log_sigmoid(&(margin() - gamma.get())),
        L::Orpo { lambda } => minus_log_sigmoid(&(log_odds(a) - log_odds(b))) * lambda.get() - a,
        L::Dpop { lambda, .. } => minus_log_sigmoid(&(margin() - a.neg().relu() * (beta * lambda.get()))),
        L::Sft => a.neg(),
        L::ExoPair { label_smoothing, .. } => exo(&margin(), label_smoothing.logs()),
        L::NcaPair { .. } => {
            let [chosen, rejected] = [a, b].map(|ratio| ratio * beta);
            let pushed = minus_log_sigmoid(&chosen.neg()) + minus_log_sigmoid(&rejected.neg());
            minus_log_sigmoid(&chosen) + pushed * 0.5
        }
        L::BcoPair { .. } => minus_log_sigmoid(&(a * beta)) + minus_log_sigmoid(&(b * -beta)),
        L::SppoHard { beta } => (a - beta.target_margin()).square() + (b + beta.target_margin()).square(),
        L::ApoZero { .. } => (a * -beta).sigmoid() + (b * beta).sigmoid(),
        L::ApoDown { .. } => (a * beta).sigmoid() + margin().neg().sigmoid(),
        L::Discopop { temperature, .. } => discopop(&margin(), temperature.get()),
        L::FDpo { divergence, .. } => {
            minus_log_sigmoid(&((score(divergence, a) - score(divergence, b)) * beta))
        }
    }
}

fn minus_log_sigmoid(x: &Tensor) -> Tensor {
    x.log_sigmoid().neg()
}

fn smoothed(x: &Tensor, [believed, doubted]: [f64; 2]) -> Tensor {
    minus_log_sigmoid(x) * believed + minus_log_sigmoid(&x.neg()) * doubted
}

fn exo(x: &Tensor, [log_believed, log_doubted]: [f64; 2]) -> Tensor {
    let opposite = x.neg();
    x.sigmoid() * (x.log_sigmoid() - log_believed)
        + opposite.sigmoid() * (opposite.log_sigmoid() - log_doubted)
}

fn discopop(x: &Tensor, temperature: f64) -> Tensor {
    let mixed = x / temperature;
    // m e⁻ˣ as one exponential: e⁻ˣ alone overflows where the product does not.
    let exponential = (mixed.log_sigmoid() - x).exp();
    minus_log_sigmoid(x) * mixed.neg().sigmoid() + exponential
}

fn log_odds(logp: &Tensor) -> Tensor {
    let logp = logp.clamp_max(-1e-7);
    &logp - logp.expm1().neg().log()
}

fn score(divergence: Divergence, log_ratio: &Tensor) -> Tensor {
    match (divergence, divergence.power()) {
        (_, Some(power)) => (log_ratio * power).clamp_max(LARGEST_EXPONENT).expm1() / power,
        (Divergence::Js, None) => log_ratio.log_sigmoid(),
        (_, None) => log_ratio.shallow_clone(),
    }
}
