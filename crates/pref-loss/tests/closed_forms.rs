//! The kernels against closed forms, finite differences and each other.

use pref_loss::{
    Beta, LabelSmoothing, LogpReduction, LossOutput, PairBatch, PairLogps, PairTokens, PreferenceLoss,
};
use proptest::prelude::*;

/// Between two ways to write the same f64 expression, relative to the larger of value and 1.
const SAME_F64: f64 = 1e-13;
/// Central differences in f64 with a step of 1e-5, relative to the larger of slope and 1.
const FINITE_DIFFERENCE: f64 = 1e-6;

fn beta(value: f64) -> Beta {
    Beta::new(value).unwrap()
}

fn dpo(b: f64) -> PreferenceLoss {
    PreferenceLoss::Dpo { beta: beta(b) }
}

fn cdpo(b: f64, smoothing: f64) -> PreferenceLoss {
    PreferenceLoss::Cdpo { beta: beta(b), label_smoothing: LabelSmoothing::new(smoothing).unwrap() }
}

fn ipo(b: f64, reduction: LogpReduction) -> PreferenceLoss {
    PreferenceLoss::Ipo { beta: beta(b), reduction }
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
}

/// One pair's loss and both gradients.
fn one(loss: PreferenceLoss, policy: [f64; 2], reference: [f64; 2], tokens: [u32; 2]) -> [f64; 3] {
    let batch = PairBatch::new(
        PairLogps { chosen: &policy[..1], rejected: &policy[1..] },
        PairLogps { chosen: &reference[..1], rejected: &reference[1..] },
        PairTokens { chosen: &tokens[..1], rejected: &tokens[1..] },
    )
    .unwrap();
    let mut out = LossOutput::default();
    loss.evaluate(&batch, &mut out).unwrap();
    [out.losses()[0], out.chosen_grads()[0], out.rejected_grads()[0]]
}

#[test]
fn losses_at_the_reference_have_known_values() {
    for b in [0.01, 0.1, 0.5, 2.0] {
        assert_eq!(dpo(b).at_reference(), Some(std::f64::consts::LN_2));
        for smoothing in [0.0, 0.1, 0.5, 0.9, 1.0] {
            assert!(close(cdpo(b, smoothing).at_reference().unwrap(), std::f64::consts::LN_2, SAME_F64));
        }
        for reduction in [LogpReduction::Sum, LogpReduction::Mean] {
            let [loss, ..] = one(ipo(b, reduction), [-30.0, -70.0], [-30.0, -70.0], [7, 20]);
            assert!(close(loss, 1.0 / (4.0 * b * b), SAME_F64), "IPO at beta {b}: {loss}");
        }
    }
    assert_eq!(ipo(0.1, LogpReduction::Sum).at_reference(), Some(25.0));
    assert_eq!(ipo(0.1, LogpReduction::Mean).at(0.0_f32, 0.0).loss, 25.0);
}

#[test]
fn the_slope_at_the_reference_is_proportional_to_one_minus_two_epsilon() {
    assert_eq!(dpo(0.1).at(0.0_f64, 0.0).chosen_grad, -0.05);
    assert_eq!(cdpo(0.1, 0.5).at(0.0_f64, 0.0).chosen_grad, 0.0);
    assert_eq!(cdpo(0.1, 1.0).at(0.0_f64, 0.0).chosen_grad, 0.05);
}

#[test]
fn cdpo_is_minimal_at_the_log_odds_of_the_labels() {
    for (b, smoothing) in [(0.1_f64, 0.1_f64), (0.5, 0.3), (0.1, 0.9)] {
        let minimum = ((1.0 - smoothing) / smoothing).ln() / b;
        let at = cdpo(b, smoothing).at(minimum, 0.0);
        assert!(at.chosen_grad.abs() < SAME_F64, "slope {} at the minimum", at.chosen_grad);
        assert!(at.loss < cdpo(b, smoothing).at(minimum + 1.0, 0.0).loss);
        assert!(at.loss < cdpo(b, smoothing).at(minimum - 1.0, 0.0).loss);
    }
}

#[test]
fn mean_reduction_divides_by_token_counts() {
    let [loss, chosen, rejected] = one(ipo(0.5, LogpReduction::Mean), [-8.0, -14.0], [-10.0, -12.0], [2, 4]);
    // h = 2/2 − (−2)/4 = 1.5, and the target is 1.
    assert_eq!([loss, chosen, rejected], [0.25, 0.5, -0.25]);
    let [loss, chosen, rejected] = one(ipo(0.5, LogpReduction::Sum), [-8.0, -14.0], [-10.0, -12.0], [2, 4]);
    assert_eq!([loss, chosen, rejected], [9.0, 6.0, -6.0]);
}

#[test]
fn extreme_margins_keep_their_values_and_tails() {
    for margin in [1e4_f64, -1e4, 1e5, -1e5, 7e2, -7e2] {
        let at = dpo(1.0).at(margin, 0.0);
        let expected = if margin > 0.0 { (-margin).exp() } else { -margin };
        assert_eq!(at.loss, expected, "DPO at {margin}");
        assert_eq!(
            at.chosen_grad,
            if margin > 0.0 { -(-margin).exp() } else { -1.0 },
            "DPO's slope at {margin}"
        );
        // ε = 1 is the mirror image, and must keep the tail that 1 − σ would round away.
        let mirrored = cdpo(1.0, 1.0).at(-margin, 0.0);
        assert_eq!((mirrored.loss, mirrored.chosen_grad), (at.loss, -at.chosen_grad));
        for smoothing in [0.0, 0.2, 0.5] {
            let at = cdpo(0.1, smoothing).at(margin as f32, 0.0);
            assert!(at.loss.is_finite() && at.chosen_grad.is_finite());
        }
    }
    // Far in the tail, but not so far that f64 ends: a naive ln(1 + e⁻ˣ) is 0 from x = 37 on.
    assert!(close(dpo(1.0).at(40.0, 0.0).loss / (-40.0_f64).exp(), 1.0, SAME_F64));
    assert_eq!(dpo(1.0).at(100.0_f32, 0.0).chosen_grad, -(-100.0_f32).exp());
    let ipo = ipo(0.1, LogpReduction::Sum).at(-1e4_f32, 0.0);
    assert_eq!((ipo.loss, ipo.chosen_grad), (10_005.0 * 10_005.0, -20_010.0));
}

#[test]
fn rewards_are_summed_log_ratios_and_ties_are_not_accurate() {
    let batch = PairBatch::new(
        PairLogps { chosen: &[-20.0, -31.0, -8.0], rejected: &[-25.0, -30.0, -9.0] },
        PairLogps { chosen: &[-20.0, -33.0, -8.0], rejected: &[-25.0, -30.0, -10.0] },
        PairTokens { chosen: &[9, 12, 4], rejected: &[11, 10, 5] },
    )
    .unwrap();
    for loss in [dpo(0.5), cdpo(0.5, 0.2), ipo(0.5, LogpReduction::Mean)] {
        let rewards: Vec<_> = loss.rewards(&batch).collect();
        assert_eq!(rewards.iter().map(|reward| reward.chosen).collect::<Vec<_>>(), [0.0, 1.0, 0.0]);
        assert_eq!(rewards.iter().map(|reward| reward.rejected).collect::<Vec<_>>(), [0.0, 0.0, 0.5]);
        assert_eq!(rewards.iter().map(|reward| reward.margin()).collect::<Vec<_>>(), [0.0, 1.0, -0.5]);
        assert_eq!(
            rewards.iter().map(|reward| reward.is_accurate()).collect::<Vec<_>>(),
            [false, true, false]
        );
    }
}

#[test]
fn scaling_touches_gradients_only_and_buffers_are_reused() {
    let mut out = LossOutput::with_capacity(2);
    let logps = PairLogps { chosen: &[-20.0, -31.0], rejected: &[-25.0, -30.0] };
    let tokens = PairTokens { chosen: &[9, 12], rejected: &[11, 10] };
    let batch = PairBatch::new(logps, logps, tokens).unwrap();
    for _ in 0..2 {
        let before = out.losses().as_ptr();
        dpo(0.1).evaluate(&batch, &mut out).unwrap();
        assert_eq!(out.losses().as_ptr(), before, "no new allocation");
        assert_eq!(out.chosen_grads(), [-0.05, -0.05]);
        out.scale_grads(0.5);
        assert_eq!(out.chosen_grads(), [-0.025, -0.025]);
        assert_eq!(out.rejected_grads(), [0.025, 0.025]);
        assert_eq!(out.mean_loss(), std::f64::consts::LN_2);
    }
}

fn losses() -> impl Strategy<Value = PreferenceLoss> {
    (0.01..2.0, 0.0..=1.0, 0..4).prop_map(|(b, smoothing, which)| match which {
        0 => dpo(b),
        1 => cdpo(b, smoothing),
        2 => ipo(b, LogpReduction::Sum),
        _ => ipo(b, LogpReduction::Mean),
    })
}

proptest! {
    #[test]
    fn gradients_match_finite_differences(
        loss in losses(),
        policy in prop::array::uniform2(-60.0..-1.0),
        reference in prop::array::uniform2(-60.0..-1.0),
        tokens in prop::array::uniform2(1_u32..40),
    ) {
        const STEP: f64 = 1e-5;
        let [_, chosen_grad, rejected_grad] = one(loss, policy, reference, tokens);
        let at = |chosen: f64, rejected: f64| {
            one(loss, [policy[0] + chosen, policy[1] + rejected], reference, tokens)[0]
        };
        let by_chosen = (at(STEP, 0.0) - at(-STEP, 0.0)) / (2.0 * STEP);
        let by_rejected = (at(0.0, STEP) - at(0.0, -STEP)) / (2.0 * STEP);
        prop_assert!(close(chosen_grad, by_chosen, FINITE_DIFFERENCE), "{chosen_grad} vs {by_chosen}");
        prop_assert!(close(rejected_grad, by_rejected, FINITE_DIFFERENCE), "{rejected_grad} vs {by_rejected}");
    }

    #[test]
    fn cdpo_without_smoothing_is_bitwise_dpo(b in 0.01..2.0, margin in -1e3..1e3_f64) {
        prop_assert_eq!(cdpo(b, 0.0).at(margin, 0.0), dpo(b).at(margin, 0.0));
        prop_assert_eq!(cdpo(b, 0.0).at(margin as f32, 0.0), dpo(b).at(margin as f32, 0.0));
    }

    #[test]
    fn complementary_smoothing_equals_flipped_labels(
        b in 0.01..2.0,
        smoothing in 0.0..=1.0,
        policy in prop::array::uniform2(-60.0..-1.0),
        reference in prop::array::uniform2(-60.0..-1.0),
    ) {
        let [loss, chosen, rejected] = one(cdpo(b, smoothing), policy, reference, [5, 9]);
        let swap = |[a, b]: [f64; 2]| [b, a];
        let [swapped_loss, swapped_chosen, swapped_rejected] =
            one(cdpo(b, 1.0 - smoothing), swap(policy), swap(reference), [9, 5]);
        prop_assert!(close(loss, swapped_loss, SAME_F64));
        prop_assert!(close(chosen, swapped_rejected, SAME_F64));
        prop_assert!(close(rejected, swapped_chosen, SAME_F64));
    }

    #[test]
    fn flipped_labels_negate_the_margin(
        loss in losses(),
        policy in prop::array::uniform2(-60.0..-1.0),
        reference in prop::array::uniform2(-60.0..-1.0),
        tokens in prop::array::uniform2(1_u32..40),
    ) {
        // What a flipped pair costs is the loss at the negative margin, and its gradients change places with it.
        let ratio = |side: usize| match loss {
            PreferenceLoss::Ipo { reduction: LogpReduction::Mean, .. } =>
                (policy[side] - reference[side]) / f64::from(tokens[side]),
            _ => policy[side] - reference[side],
        };
        let mirrored = loss.at(ratio(1) - ratio(0), 0.0);
        let swap = |[a, b]: [f64; 2]| [b, a];
        let [flipped, ..] = one(loss, swap(policy), swap(reference), [tokens[1], tokens[0]]);
        prop_assert!(close(flipped, mirrored.loss, SAME_F64));
    }

    #[test]
    fn f32_matches_f64(loss in losses(), margin in -1e4..1e4_f64) {
        let margin = f64::from(margin as f32);
        let (single, double) = (loss.at(margin as f32, 0.0), loss.at(margin, 0.0));
        // Rounding β·h to f32 moves the logistic's argument by up to 2⁻²⁴·|βh|, and IPO squares what it is off by.
        let tolerance = 4.0 * f64::from(f32::EPSILON) * (1.0 + loss.beta().map_or(1.0, Beta::get) * margin.abs());
        prop_assert!(close(f64::from(single.loss), double.loss, tolerance));
        prop_assert!(close(f64::from(single.chosen_grad), double.chosen_grad, tolerance));
    }
}
