//! Evaluates a loss over a batch in one pass.

use crate::kernels::{self, Kernel, WithKernel};
use crate::{
    Beta, Float, LabelSmoothing, LogpReduction, LossOutput, PairBatch, PrefLossError, PreferenceLoss,
};

impl PreferenceLoss {
    /// Computes losses and gradients of every pair in one pass and overwrites `out` with them.
    ///
    /// The gradients are those of each pair's *own* loss with respect to the policy's summed log-probabilities.
    /// [`LossOutput::scale_grads`] turns them into those of a mean.
    ///
    /// # Errors
    /// [`PrefLossError::MissingReference`] if the loss needs a reference and the batch has none.
    pub fn evaluate<F: Float>(
        &self,
        batch: &PairBatch<'_, F>,
        out: &mut LossOutput<F>,
    ) -> Result<(), PrefLossError> {
        let reads = self.reads();
        if reads.reference && batch.reference.is_none() {
            return Err(PrefLossError::MissingReference { loss: self.name() });
        }
        match *self {
            Self::Aot { beta, label_smoothing } => {
                Ranked::margins(batch).evaluate(beta, label_smoothing, out);
            }
            Self::AotUnpaired { beta, label_smoothing } => {
                Ranked::responses(batch).evaluate(beta, label_smoothing, out);
            }
            _ => self.with_kernel(Loop { pairs: Pairs::of(batch, reads.reference, reads.reduction), out }),
        }
        Ok(())
    }
}

/// The input slices of a loop.
#[derive(Clone, Copy)]
struct Pairs<'a, F> {
    policy: [&'a [F]; 2],
    reference: Option<[&'a [F]; 2]>,
    /// Token counts, where means are compared.
    tokens: Option<[&'a [u32]; 2]>,
}

impl<'a, F: Float> Pairs<'a, F> {
    fn of(batch: &PairBatch<'a, F>, reference: bool, reduction: LogpReduction) -> Self {
        let reference = batch.reference.filter(|_| reference).map(|logps| [logps.chosen, logps.rejected]);
        let tokens =
            (reduction == LogpReduction::Mean).then_some([batch.tokens.chosen, batch.tokens.rejected]);
        Self { policy: [batch.policy.chosen, batch.policy.rejected], reference, tokens }
    }

    #[cfg(feature = "rayon")]
    fn split_at(self, middle: usize) -> (Self, Self) {
        fn halves<T>(slices: [&[T]; 2], middle: usize) -> ([&[T]; 2], [&[T]; 2]) {
            let [(a, b), (c, d)] = slices.map(|slice| slice.split_at(middle));
            ([a, c], [b, d])
        }
        let policy = halves(self.policy, middle);
        let reference = self.reference.map(|logps| halves(logps, middle));
        let tokens = self.tokens.map(|counts| halves(counts, middle));
        (
            Self { policy: policy.0, reference: reference.map(|r| r.0), tokens: tokens.map(|t| t.0) },
            Self { policy: policy.1, reference: reference.map(|r| r.1), tokens: tokens.map(|t| t.1) },
        )
    }
}

/// Evaluates a formula on every pair.
struct Loop<'a, 'b, F> {
    pairs: Pairs<'a, F>,
    out: &'b mut LossOutput<F>,
}

impl<F: Float> WithKernel<F> for Loop<'_, '_, F> {
    type Output = ();

    fn call(self, kernel: impl Kernel<F>) {
        let out = self.out.resized(self.pairs.policy[0].len());
        walk(self.pairs, out, kernel);
    }
}

/// Below twice this many pairs a second thread does not pay off.
#[cfg(feature = "rayon")]
const PAIRS_PER_THREAD: usize = 16 * 1024;

/// Evaluates all pairs. With the feature `rayon`, splits them recursively over rayon's threads; the results do not
/// depend on the split.
fn walk<F: Float>(pairs: Pairs<'_, F>, out: [&mut [F]; 3], kernel: impl Kernel<F>) {
    #[cfg(feature = "rayon")]
    if out[0].len() >= 2 * PAIRS_PER_THREAD {
        let middle = out[0].len() / 2;
        let (left, right) = pairs.split_at(middle);
        let [(a, d), (b, e), (c, f)] = out.map(|numbers| numbers.split_at_mut(middle));
        rayon::join(|| walk(left, [a, b, c], kernel), || walk(right, [d, e, f], kernel));
        return;
    }
    let [losses, chosen_grads, rejected_grads] = out;
    let [chosen, rejected] = pairs.policy;
    match (pairs.reference, pairs.tokens) {
        (Some([ref_chosen, ref_rejected]), None) => {
            ratios(chosen, rejected, ref_chosen, ref_rejected, losses, chosen_grads, rejected_grads, kernel);
        }
        (None, None) => plain(chosen, rejected, losses, chosen_grads, rejected_grads, kernel),
        (Some([ref_chosen, ref_rejected]), Some(counts)) => {
            let (a, b) = ((chosen, ref_chosen), (rejected, ref_rejected));
            mean_ratios(a, b, counts, losses, chosen_grads, rejected_grads, kernel);
        }
        (None, Some(counts)) => means(chosen, rejected, counts, losses, chosen_grads, rejected_grads, kernel),
    }
}

/// Sums with a reference. Each slice is an argument of its own: the compiler then knows that they do not overlap, and
/// vectorizes.
#[expect(clippy::too_many_arguments, reason = "only separate arguments are known not to overlap")]
#[inline(never)]
fn ratios<F: Float>(
    chosen: &[F],
    rejected: &[F],
    ref_chosen: &[F],
    ref_rejected: &[F],
    losses: &mut [F],
    chosen_grads: &mut [F],
    rejected_grads: &mut [F],
    kernel: impl Kernel<F>,
) {
    let pairs = losses.len();
    let (chosen, rejected) = (&chosen[..pairs], &rejected[..pairs]);
    let (ref_chosen, ref_rejected) = (&ref_chosen[..pairs], &ref_rejected[..pairs]);
    let (chosen_grads, rejected_grads) = (&mut chosen_grads[..pairs], &mut rejected_grads[..pairs]);
    for i in 0..pairs {
        // Each response's log-ratio first: the two sums are close, so the subtraction is nearly exact.
        let at = kernel.at(chosen[i] - ref_chosen[i], rejected[i] - ref_rejected[i]);
        losses[i] = at.loss;
        chosen_grads[i] = at.chosen_grad;
        rejected_grads[i] = at.rejected_grad;
    }
}

/// Sums without a reference.
#[inline(never)]
fn plain<F: Float>(
    chosen: &[F],
    rejected: &[F],
    losses: &mut [F],
    chosen_grads: &mut [F],
    rejected_grads: &mut [F],
    kernel: impl Kernel<F>,
) {
    let pairs = losses.len();
    let (chosen, rejected) = (&chosen[..pairs], &rejected[..pairs]);
    let (chosen_grads, rejected_grads) = (&mut chosen_grads[..pairs], &mut rejected_grads[..pairs]);
    for i in 0..pairs {
        let at = kernel.at(chosen[i], rejected[i]);
        losses[i] = at.loss;
        chosen_grads[i] = at.chosen_grad;
        rejected_grads[i] = at.rejected_grad;
    }
}

/// Means over tokens with a reference: the gradient of a sum is the gradient of the mean divided by the token count.
#[inline(never)]
fn mean_ratios<F: Float>(
    chosen: (&[F], &[F]),
    rejected: (&[F], &[F]),
    counts: [&[u32]; 2],
    losses: &mut [F],
    chosen_grads: &mut [F],
    rejected_grads: &mut [F],
    kernel: impl Kernel<F>,
) {
    let pairs = losses.len();
    let (chosen, ref_chosen) = (&chosen.0[..pairs], &chosen.1[..pairs]);
    let (rejected, ref_rejected) = (&rejected.0[..pairs], &rejected.1[..pairs]);
    let (chosen_counts, rejected_counts) = (&counts[0][..pairs], &counts[1][..pairs]);
    let (chosen_grads, rejected_grads) = (&mut chosen_grads[..pairs], &mut rejected_grads[..pairs]);
    for i in 0..pairs {
        let (m, n) = (F::of_count(chosen_counts[i]), F::of_count(rejected_counts[i]));
        let at = kernel.at((chosen[i] - ref_chosen[i]) / m, (rejected[i] - ref_rejected[i]) / n);
        losses[i] = at.loss;
        chosen_grads[i] = at.chosen_grad / m;
        rejected_grads[i] = at.rejected_grad / n;
    }
}

/// Means over tokens without a reference.
#[inline(never)]
fn means<F: Float>(
    chosen: &[F],
    rejected: &[F],
    counts: [&[u32]; 2],
    losses: &mut [F],
    chosen_grads: &mut [F],
    rejected_grads: &mut [F],
    kernel: impl Kernel<F>,
) {
    let pairs = losses.len();
    let (chosen, rejected) = (&chosen[..pairs], &rejected[..pairs]);
    let (chosen_counts, rejected_counts) = (&counts[0][..pairs], &counts[1][..pairs]);
    let (chosen_grads, rejected_grads) = (&mut chosen_grads[..pairs], &mut rejected_grads[..pairs]);
    for i in 0..pairs {
        let (m, n) = (F::of_count(chosen_counts[i]), F::of_count(rejected_counts[i]));
        let at = kernel.at(chosen[i] / m, rejected[i] / n);
        losses[i] = at.loss;
        chosen_grads[i] = at.chosen_grad / m;
        rejected_grads[i] = at.rejected_grad / n;
    }
}

/// AOT's two samples, sorted and compared by rank.
struct Ranked<'a, 'b, F> {
    batch: &'b PairBatch<'a, F>,
    /// A pair's value in each sample.
    samples: [fn(&PairBatch<'_, F>, usize) -> F; 2],
    /// Whether the first sample consists of margins, which depend on both responses of a pair.
    is_paired: bool,
}

impl<'a, 'b, F: Float> Ranked<'a, 'b, F> {
    fn margins(batch: &'b PairBatch<'a, F>) -> Self {
        let policy = |batch: &PairBatch<'_, F>, i: usize| batch.policy.chosen[i] - batch.policy.rejected[i];
        let reference = |batch: &PairBatch<'_, F>, i: usize| {
            batch.reference.map_or(F::of(0.0), |logps| logps.chosen[i] - logps.rejected[i])
        };
        Self { batch, samples: [policy, reference], is_paired: true }
    }

    fn responses(batch: &'b PairBatch<'a, F>) -> Self {
        let chosen = |batch: &PairBatch<'_, F>, i: usize| batch.log_ratios(i).0;
        let rejected = |batch: &PairBatch<'_, F>, i: usize| batch.log_ratios(i).1;
        Self { batch, samples: [chosen, rejected], is_paired: false }
    }

    fn evaluate(&self, beta: Beta, label_smoothing: LabelSmoothing, out: &mut LossOutput<F>) {
        let weights = label_smoothing.weights().map(F::of);
        let mut order = std::mem::take(&mut out.order);
        for (indices, number) in order.iter_mut().zip(self.samples) {
            indices.clear();
            indices.extend(0..self.batch.len());
            let key = |i: usize| (number(self.batch, i), i);
            // Ties keep the order of the pairs. The batch is validated, so all values are comparable.
            indices
                .sort_unstable_by(|&i, &j| key(i).partial_cmp(&key(j)).unwrap_or(std::cmp::Ordering::Equal));
        }
        let [losses, chosen_grads, rejected_grads] = out.resized(self.batch.len());
        for (&first, &second) in order[0].iter().zip(&order[1]) {
            let (a, b) = (self.samples[0](self.batch, first), self.samples[1](self.batch, second));
            let at = kernels::smoothed_logistic(a, b, F::of(beta.get()), weights);
            losses[first] = at.loss;
            chosen_grads[first] = at.chosen_grad;
            let loser = if self.is_paired { first } else { second };
            rejected_grads[loser] = at.rejected_grad;
        }
        out.order = order;
    }
}
