//! A training loop with pref-loss and without libtorch. The policy is a table and the optimizer is gradient descent;
//! pref-loss computes the gradient of each response's log-probability.
//!
//! One prompt has four responses of known quality. Preferences follow Bradley and Terry, with probability
//! σ(difference of quality). DPO's implicit reward converges to that quality, up to a constant.

use pref_loss::{
    Beta, LabelSmoothing, LogpReduction, LossOutput, PairBatch, PairLogps, PairTokens, PrefLossError, PreferenceLoss,
};

const RESPONSES: usize = 4;
/// True quality: Bradley–Terry strength in nats.
const QUALITY: [f64; RESPONSES] = [0.0, 0.4, 1.1, 2.0];
/// Logits of the reference policy.
const REFERENCE: [f64; RESPONSES] = [1.0, 0.2, -0.5, -1.5];
const STEPS: usize = 4_000;

fn main() -> Result<(), PrefLossError> {
    let beta = Beta::new(0.5)?;
    let losses = [
        PreferenceLoss::Dpo { beta },
        PreferenceLoss::Cdpo { beta, label_smoothing: LabelSmoothing::new(0.2)? },
        PreferenceLoss::Ipo { beta, reduction: LogpReduction::Sum },
    ];
    println!("true quality      {}", row(&QUALITY));
    for loss in losses {
        let rewards = train(&loss)?.map(|ratio| beta.get() * ratio);
        println!("reward under {:<5}{}", loss.name(), row(&rewards));
    }
    Ok(())
}

/// Trains a policy and returns its log-ratios to the reference, relative to the first response's.
fn train(loss: &PreferenceLoss) -> Result<[f64; RESPONSES], PrefLossError> {
    let (pairs, frequencies) = preferences();
    let reference = log_softmax(&REFERENCE);
    let [ref_chosen, ref_rejected] = columns(&pairs, &reference);
    let tokens = vec![1; pairs.len()];
    let mut logits = REFERENCE;
    let mut out = LossOutput::with_capacity(pairs.len());
    for _ in 0..STEPS {
        let policy = log_softmax(&logits);
        let [chosen, rejected] = columns(&pairs, &policy);
        let batch = PairBatch::new(
            PairLogps { chosen: &chosen, rejected: &rejected },
            PairLogps { chosen: &ref_chosen, rejected: &ref_rejected },
            PairTokens { chosen: &tokens, rejected: &tokens },
        )?;
        loss.evaluate(&batch, &mut out)?;
        out.weigh(&frequencies)?;
        descend(&mut logits, &policy, &pairs, &out);
    }
    let policy = log_softmax(&logits);
    let first = policy[0] - reference[0];
    Ok(std::array::from_fn(|i| policy[i] - reference[i] - first))
}

/// Returns every ordered pair of responses, and the probability that the first is preferred.
fn preferences() -> (Vec<[usize; 2]>, Vec<f64>) {
    let ordered = (0..RESPONSES).flat_map(|a| (0..RESPONSES).map(move |b| [a, b]));
    let pairs: Vec<_> = ordered.filter(|[a, b]| a != b).collect();
    let frequency = |&[a, b]: &[usize; 2]| 1.0 / (1.0 + (QUALITY[b] - QUALITY[a]).exp());
    let frequencies = pairs.iter().map(frequency).collect();
    (pairs, frequencies)
}

/// Takes one gradient descent step.
fn descend(
    logits: &mut [f64; RESPONSES],
    policy: &[f64; RESPONSES],
    pairs: &[[usize; 2]],
    out: &LossOutput<f64>,
) {
    const RATE: f64 = 0.2;
    let mut by_response = [0.0; RESPONSES];
    for ((&[chosen, rejected], up), down) in pairs.iter().zip(out.chosen_grads()).zip(out.rejected_grads()) {
        by_response[chosen] += up;
        by_response[rejected] += down;
    }
    // Backward pass of the softmax: ∂ log π(i) / ∂ logit(k) = [i = k] − π(k).
    let total: f64 = by_response.iter().sum();
    for ((logit, logp), gradient) in logits.iter_mut().zip(policy).zip(by_response) {
        *logit -= RATE * (gradient - total * logp.exp());
    }
}

fn columns(pairs: &[[usize; 2]], logps: &[f64; RESPONSES]) -> [Vec<f64>; 2] {
    [0, 1].map(|side: usize| pairs.iter().map(|pair| logps[pair[side]]).collect())
}

fn log_softmax(logits: &[f64; RESPONSES]) -> [f64; RESPONSES] {
    let normalizer = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    logits.map(|logit| logit - normalizer)
}

fn row(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:>8.3}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dpo_recovers_the_true_quality() {
        let beta = Beta::new(0.5).unwrap();
        let ratios = train(&PreferenceLoss::Dpo { beta }).unwrap();
        for (ratio, quality) in ratios.iter().zip(QUALITY) {
            assert!((beta.get() * ratio - quality).abs() < 1e-6, "{ratios:?}");
        }
    }
}
