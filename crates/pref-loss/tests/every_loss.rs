//! Properties of all losses and of individual ones.

use pref_loss::{
    AlphaCoefficient, Beta, Divergence, Float, LabelSmoothing, LogpReduction, LossOutput, LossSum, LossTerm,
    NoiseRate, PairBatch, PairLogps, PairTokens, PrefLossError, PreferenceLoss, TargetMargin,
    TargetSmoothing, Temperature, Weight,
};
use proptest::prelude::*;

/// Between two ways to write the same f64 expression, relative to the larger of value and 1.
const SAME_F64: f64 = 1e-12;
/// Central differences in f64 with a step of 1e-5, relative to the larger of slope and 1.
const FINITE_DIFFERENCE: f64 = 1e-5;

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
}

/// Every loss at one β and one ε below ½.
fn every_loss(beta: f64, smoothing: f64) -> Vec<PreferenceLoss> {
    use PreferenceLoss as L;
    let beta = Beta::new(beta).unwrap();
    let label_smoothing = LabelSmoothing::new(smoothing).unwrap();
    let lambda = Weight::new(5.0).unwrap();
    let alpha = |value| Divergence::Alpha(AlphaCoefficient::new(value).unwrap());
    let divergences = [Divergence::ReverseKl, Divergence::ForwardKl, Divergence::Js, alpha(0.5), alpha(1.5)];
    let mut losses = vec![
        L::Dpo { beta },
        L::Cdpo { beta, label_smoothing },
        L::Robust { beta, label_smoothing: NoiseRate::new(smoothing).unwrap() },
        L::Ipo { beta, reduction: LogpReduction::Sum },
        L::Ipo { beta, reduction: LogpReduction::Mean },
        L::Hinge { beta },
        L::Simpo { beta, gamma: TargetMargin::new(0.5).unwrap() },
        L::Orpo { lambda },
        L::Dpop { beta, lambda },
        L::Sft,
        L::SigmoidNorm { beta },
        L::ExoPair { beta, label_smoothing: TargetSmoothing::new(smoothing.max(1e-3)).unwrap() },
        L::NcaPair { beta },
        L::BcoPair { beta },
        L::SppoHard { beta },
        L::ApoZero { beta },
        L::ApoDown { beta },
        L::Discopop { beta, temperature: Temperature::new(0.05).unwrap() },
        L::Cpo { beta, label_smoothing },
        L::Aot { beta, label_smoothing },
        L::AotUnpaired { beta, label_smoothing },
    ];
    losses.extend(divergences.map(|divergence| L::FDpo { beta, divergence }));
    losses
}

fn evaluate<F: Float>(
    loss: &PreferenceLoss,
    policy: [&[F]; 2],
    reference: [&[F]; 2],
    tokens: [&[u32]; 2],
) -> LossOutput<F> {
    let [policy, reference] = [policy, reference].map(|[chosen, rejected]| PairLogps { chosen, rejected });
    let tokens = PairTokens { chosen: tokens[0], rejected: tokens[1] };
    let mut out = LossOutput::with_capacity(3);
    loss.evaluate(&PairBatch::new(policy, reference, tokens).unwrap(), &mut out).unwrap();
    out
}

/// The mean loss of three pairs.
fn mean_loss(loss: &PreferenceLoss, policy: &[Vec<f64>; 2], reference: &[Vec<f64>; 2]) -> f64 {
    let tokens: [&[u32]; 2] = [&[7, 3, 20], &[5, 9, 12]];
    let slices = |logps: &[Vec<f64>; 2]| [logps[0].clone(), logps[1].clone()];
    let (policy, reference) = (slices(policy), slices(reference));
    evaluate(loss, [&policy[0], &policy[1]], [&reference[0], &reference[1]], tokens).mean_loss()
}

/// Returns whether a batch is so close to a kink or a change of order that finite differences are invalid.
fn is_near_a_kink(loss: &PreferenceLoss, policy: &[Vec<f64>; 2], reference: &[Vec<f64>; 2]) -> bool {
    let ratios: Vec<[f64; 2]> =
        (0..3).map(|i| [0, 1].map(|side| policy[side][i] - reference[side][i])).collect();
    let near = |a: f64, b: f64| (a - b).abs() < 1e-3;
    let beta = loss.beta().map_or(1.0, Beta::get);
    match loss {
        PreferenceLoss::Hinge { .. } => ratios.iter().any(|[a, b]| near(beta * (a - b), 1.0)),
        PreferenceLoss::Dpop { .. } => ratios.iter().any(|[a, _]| near(*a, 0.0)),
        PreferenceLoss::Aot { .. } => {
            let margin = |i: usize| policy[0][i] - policy[1][i];
            near(margin(0), margin(1)) || near(margin(0), margin(2)) || near(margin(1), margin(2))
        }
        PreferenceLoss::AotUnpaired { .. } => [0, 1].iter().any(|&side| {
            [(0, 1), (0, 2), (1, 2)].iter().any(|&(i, j)| near(ratios[i][side], ratios[j][side]))
        }),
        _ => false,
    }
}

fn three() -> impl Strategy<Value = [Vec<f64>; 2]> {
    prop::array::uniform2(prop::collection::vec(-40.0..-1.0_f64, 3))
}

proptest! {
    #[test]
    fn gradients_match_finite_differences(
        beta in 0.001..0.9,
        smoothing in 0.01..0.45,
        policy in three(),
        offsets in prop::array::uniform2(prop::collection::vec(-6.0..6.0_f64, 3)),
    ) {
        const STEP: f64 = 1e-5;
        let reference = [0, 1].map(|side: usize| {
            policy[side].iter().zip(&offsets[side]).map(|(logp, offset)| logp + offset).collect::<Vec<_>>()
        });
        for loss in every_loss(beta, smoothing) {
            if is_near_a_kink(&loss, &policy, &reference) {
                continue;
            }
            let out = evaluate(
                &loss,
                [&policy[0], &policy[1]],
                [&reference[0], &reference[1]],
                [&[7, 3, 20], &[5, 9, 12]],
            );
            for (side, grads) in [out.chosen_grads(), out.rejected_grads()].into_iter().enumerate() {
                for (pair, &grad) in grads.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut policy = policy.clone();
                        policy[side][pair] += by;
                        3.0 * mean_loss(&loss, &policy, &reference)
                    };
                    let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                    prop_assert!(
                        close(grad, difference, FINITE_DIFFERENCE * 3.0 * mean_loss(&loss, &policy, &reference).abs().max(1.0)),
                        "{loss:?} pair {pair} side {side}: {grad} vs {difference}"
                    );
                }
            }
        }
    }

    #[test]
    fn f32_matches_f64_in_the_tails(
        beta in 0.001..0.9,
        smoothing in 0.0..0.45,
        a in -1e4..1e4_f64,
        b in -1e4..1e4_f64,
    ) {
        let (a, b) = (f64::from(a as f32), f64::from(b as f32));
        for loss in every_loss(f64::from(beta as f32), smoothing) {
            if matches!(loss, PreferenceLoss::Orpo { .. }) {
                continue; // Its numbers are mean log-probs; below.
            }
            let (single, double) = (loss.at(a as f32, b as f32), loss.at(a, b));
            prop_assert!(double.loss.is_finite() && double.chosen_grad.is_finite() && double.rejected_grad.is_finite());
            if matches!(loss, PreferenceLoss::FDpo { .. }) {
                // An exponential multiplies what rounding does to its argument; here only that nothing overflows.
                prop_assert!(single.loss.is_finite() && single.chosen_grad.is_finite() && single.rejected_grad.is_finite());
                continue;
            }
            // Rounding βa to f32 moves the argument of σ by up to 2⁻²⁴·|βa|, and λ or 1/τ multiplies that.
            let tolerance = 64.0 * f64::from(f32::EPSILON) * (1.0 + a.abs().max(b.abs()));
            for (single, double) in [
                (single.loss, double.loss),
                (single.chosen_grad, double.chosen_grad),
                (single.rejected_grad, double.rejected_grad),
            ] {
                prop_assert!(close(f64::from(single), double, tolerance), "{loss:?} at {a}, {b}: {single} vs {double}");
            }
        }
    }

    #[test]
    fn losses_do_not_depend_on_batch_order(beta in 0.001..0.9, policy in three(), reference in three()) {
        for loss in every_loss(beta, 0.1) {
            let rotated = |logps: &[Vec<f64>; 2]| {
                let mut logps = logps.clone();
                logps.iter_mut().for_each(|side| side.rotate_left(1));
                logps
            };
            let evaluate = |policy: &[Vec<f64>; 2], reference: &[Vec<f64>; 2]| {
                let [p, r] = [policy, reference].map(|logps| [logps[0].as_slice(), logps[1].as_slice()]);
                evaluate(&loss, p, r, [&[4, 4, 4], &[6, 6, 6]])
            };
            let before = evaluate(&policy, &reference);
            let after = evaluate(&rotated(&policy), &rotated(&reference));
            prop_assert!(close(before.mean_loss(), after.mean_loss(), SAME_F64));
            let mut grads = before.chosen_grads().to_vec();
            grads.rotate_left(1);
            prop_assert_eq!(&grads, after.chosen_grads());
        }
    }

    #[test]
    fn swapping_responses_negates_the_margin(beta in 0.001..0.9, smoothing in 0.0..0.45, h in -100.0..100.0_f64) {
        let beta = Beta::new(beta).unwrap();
        let rate = NoiseRate::new(smoothing).unwrap();
        let robust = |h| PreferenceLoss::Robust { beta, label_smoothing: rate }.at(h, 0.0);
        let dpo = |h| PreferenceLoss::Dpo { beta }.at(h, 0.0);
        for loss in every_loss(beta.get(), smoothing) {
            let is_of_margin = !matches!(
                loss.name(),
                "orpo" | "dpop" | "sft" | "nca_pair" | "bco_pair" | "sppo_hard" | "apo_zero" | "apo_down" | "f_dpo"
            );
            if is_of_margin {
                prop_assert_eq!(loss.at(h, 0.0).loss, loss.at(0.0, -h).loss);
            }
        }
        // A label flipped with probability ε costs on average what the true one costs under DPO.
        let expected = (1.0 - smoothing) * robust(h).loss + smoothing * robust(-h).loss;
        prop_assert!(close(expected, dpo(h).loss, 1e-10), "{} vs {}", expected, dpo(h).loss);
        let slope = (1.0 - smoothing) * robust(h).chosen_grad - smoothing * robust(-h).chosen_grad;
        prop_assert!(close(slope, dpo(h).chosen_grad, 1e-10));
    }

    #[test]
    fn orpo_in_f32_matches_f64(a in -30.0..0.0_f64, b in -30.0..0.0_f64) {
        let loss = PreferenceLoss::Orpo { lambda: Weight::new(0.5).unwrap() };
        let (a, b) = (f64::from(a as f32), f64::from(b as f32));
        let (single, double) = (loss.at(a as f32, b as f32), loss.at(a, b));
        prop_assert!(close(f64::from(single.loss), double.loss, 1e-5));
        prop_assert!(double.chosen_grad < 0.0 && double.rejected_grad >= 0.0);
    }
}

#[test]
fn minima_match_the_papers() {
    let beta = Beta::new(0.1).unwrap();
    let ipo = PreferenceLoss::Ipo { beta, reduction: LogpReduction::Sum }.at(5.0_f64, 0.0);
    assert_eq!((ipo.loss, ipo.chosen_grad), (0.0, 0.0));
    let sppo = PreferenceLoss::SppoHard { beta }.at(5.0_f64, -5.0);
    assert_eq!((sppo.loss, sppo.chosen_grad, sppo.rejected_grad), (0.0, 0.0, 0.0));
    for smoothing in [0.001, 0.1, 0.4] {
        let exo = PreferenceLoss::ExoPair { beta, label_smoothing: TargetSmoothing::new(smoothing).unwrap() };
        let least = exo.at(((1.0 - smoothing) / smoothing).ln() / 0.1, 0.0_f64);
        assert!(least.loss.abs() < SAME_F64 && least.chosen_grad.abs() < SAME_F64, "{least:?}");
    }
    let hinge = PreferenceLoss::Hinge { beta }.at(10.0_f64, 0.0);
    assert_eq!((hinge.loss, hinge.chosen_grad), (0.0, 0.0));
}

#[test]
fn special_cases_reduce_to_other_losses() {
    let beta = Beta::new(0.3).unwrap();
    let dpo = PreferenceLoss::Dpo { beta };
    let one = AlphaCoefficient::new(1.0).unwrap();
    let same = [
        PreferenceLoss::FDpo { beta, divergence: Divergence::ReverseKl },
        PreferenceLoss::FDpo { beta, divergence: Divergence::Alpha(one) },
        PreferenceLoss::Dpop { beta, lambda: Weight::new(0.0).unwrap() },
        PreferenceLoss::Simpo { beta, gamma: TargetMargin::new(0.0).unwrap() },
        PreferenceLoss::Robust { beta, label_smoothing: NoiseRate::new(0.0).unwrap() },
        PreferenceLoss::Aot { beta, label_smoothing: LabelSmoothing::ZERO },
    ];
    for (a, b) in [(0.0_f64, 0.0), (-3.0, 4.0), (20.0, -7.5)] {
        for loss in same {
            assert_eq!(loss.at(a, b), dpo.at(a, b), "{loss:?} at {a}, {b}");
        }
        let forward = |divergence| PreferenceLoss::FDpo { beta, divergence }.at(a, b);
        let zero = AlphaCoefficient::new(0.0).unwrap();
        assert_eq!(forward(Divergence::ForwardKl), forward(Divergence::Alpha(zero)));
    }
}

#[test]
fn infinities_give_limits_and_nan_propagates() {
    for loss in every_loss(0.1, 0.1) {
        let nan = loss.at(f32::NAN, f32::NAN);
        assert!(nan.loss.is_nan(), "{loss:?}");
    }
    let dpo = every_loss(0.1, 0.1)[0];
    assert_eq!(dpo.at(f64::INFINITY, 0.0).loss, 0.0);
    assert_eq!(dpo.at(0.0, f64::INFINITY).loss, f64::INFINITY);
    assert_eq!(dpo.at(0.0, f64::INFINITY).chosen_grad, -0.1);
}

#[test]
fn only_reference_free_losses_accept_a_batch_without_reference() {
    let logps = PairLogps { chosen: &[-20.0, -31.0], rejected: &[-25.0, -30.0] };
    let batch =
        PairBatch::reference_free(logps, PairTokens { chosen: &[9, 12], rejected: &[11, 10] }).unwrap();
    let mut out = LossOutput::<f64>::default();
    for loss in every_loss(0.1, 0.1) {
        let result = loss.evaluate(&batch, &mut out);
        if loss.reads().reference {
            assert_eq!(result, Err(PrefLossError::MissingReference { loss: loss.name() }));
        } else {
            assert_eq!((result, out.losses().len()), (Ok(()), 2));
        }
    }
}

#[test]
fn sums_add_up_and_weights_multiply() {
    let logps = PairLogps { chosen: &[-20.0, -31.0], rejected: &[-25.0, -30.0] };
    let reference = PairLogps { chosen: &[-22.0, -30.0], rejected: &[-24.0, -31.0] };
    let batch =
        PairBatch::new(logps, reference, PairTokens { chosen: &[9, 12], rejected: &[11, 10] }).unwrap();
    let losses = every_loss(0.1, 0.1);
    let terms: Vec<LossTerm> = (losses.iter().enumerate())
        .map(|(i, &loss)| LossTerm { weight: Weight::new(i as f64 / 4.0).unwrap(), loss })
        .collect();
    let (mut sum, mut one) = (LossOutput::<f64>::default(), LossOutput::default());
    LossSum { terms }.evaluate(&batch, &mut sum, &mut one).unwrap();
    let mut expected = [0.0; 6];
    for (i, loss) in losses.iter().enumerate() {
        loss.evaluate(&batch, &mut one).unwrap();
        let columns = [one.losses(), one.chosen_grads(), one.rejected_grads()].concat();
        expected.iter_mut().zip(columns).for_each(|(sum, number)| *sum += i as f64 / 4.0 * number);
    }
    let ours = [sum.losses(), sum.chosen_grads(), sum.rejected_grads()].concat();
    assert!(ours.iter().zip(expected).all(|(&a, b)| close(a, b, SAME_F64)), "{ours:?} vs {expected:?}");

    sum.weigh(&[2.0, 0.0]).unwrap();
    assert!(close(sum.losses()[0], 2.0 * ours[0], SAME_F64));
    assert_eq!((sum.losses()[1], sum.chosen_grads()[1]), (0.0, 0.0));
    assert!(sum.weigh(&[1.0]).unwrap_err().to_string().contains("the weights of the chosen responses are 1"));
}

#[test]
fn serialization_round_trips() {
    for loss in every_loss(0.1, 0.1) {
        let written = serde_json::to_value(loss).unwrap();
        assert_eq!(written["kind"], loss.name());
        assert_eq!(serde_json::from_value::<PreferenceLoss>(written).unwrap(), loss);
    }
}
