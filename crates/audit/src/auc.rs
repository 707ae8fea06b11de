//! The area under the ROC curve of scores of pairs.

use serde::Serialize;
use stats::Interval;

use crate::interval::{self, LEVEL};

/// An area under the ROC curve, with a 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Auc {
    /// The area: 0.5 for scores without information, 1 for scores that predict every label.
    pub auc: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

/// The score of a pair: how much more a model favors the chosen response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scored {
    pub(crate) score: f64,
    /// The group of dependent pairs.
    pub(crate) group: u64,
    /// The fold of cross-validation whose model scored it.
    pub(crate) fold: usize,
}

/// Computes the area under the ROC curve over both presentations of every pair: chosen first with `score`, rejected first
/// with −`score`. Folds are averaged, weighted by size (`LeDell`, Petersen and van der Laan 2015).
///
/// In a fold of n pairs the area is the mean over all (i, j) of 1{sᵢ > −sⱼ} + ½·1{sᵢ = −sⱼ}. It is a one-sample statistic of
/// degree 2, so its variance is 4/n² Σ over groups of (Σ of Vᵢ − area)² (`DeLong`'s components, summed by group as Obuchowski
/// 1997). The interval is normal on the logit scale.
pub(crate) fn auc(pairs: &[Scored]) -> Option<Auc> {
    if pairs.is_empty() {
        return None;
    }
    let n = pairs.len() as f64;
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by_key(|&at| pairs[at].fold);
    let (mut sum, mut residuals) = (0.0, Vec::with_capacity(pairs.len()));
    for fold in order.chunk_by(|a, b| pairs[*a].fold == pairs[*b].fold) {
        let components = components(&fold.iter().map(|&at| pairs[at].score).collect::<Vec<_>>());
        let total: f64 = components.iter().sum();
        let mean = total / components.len() as f64;
        sum += total;
        residuals
            .extend(fold.iter().zip(components).map(|(&at, component)| (pairs[at].group, component - mean)));
    }
    let auc = sum / n;
    residuals.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let groups = residuals.chunk_by(|a, b| a.0 == b.0).count();
    let squares: f64 = residuals
        .chunk_by(|a, b| a.0 == b.0)
        .map(|group| group.iter().map(|(_, residual)| residual).sum::<f64>().powi(2))
        .sum();
    let variance = 4.0 * squares / (n * n) * groups as f64 / (groups.max(2) - 1) as f64;
    let Interval { low, high, .. } = logit_interval(auc, variance.sqrt(), groups);
    Some(Auc { auc, low, high })
}

/// Returns for each score the share of scores that it exceeds after a change of their sign.
fn components(scores: &[f64]) -> Vec<f64> {
    let mut negated: Vec<f64> = scores.iter().map(|score| -score).collect();
    negated.sort_by(f64::total_cmp);
    let share = |&score: &f64| {
        let below = negated.partition_point(|other| *other < score);
        let up_to = negated.partition_point(|other| *other <= score);
        (below + up_to) as f64 / (2 * scores.len()) as f64
    };
    scores.iter().map(share).collect()
}

fn logit_interval(auc: f64, standard_error: f64, groups: usize) -> Interval {
    const Z: f64 = 1.959_963_984_540_054;
    if standard_error <= 0.0 || auc <= 0.0 || auc >= 1.0 {
        // All components are equal, as for a feature that every label follows.
        return interval::of_share((auc * groups as f64).round() as usize, groups);
    }
    let logit = (auc / (1.0 - auc)).ln();
    let half = Z * standard_error / (auc * (1.0 - auc));
    let back = |x: f64| 1.0 / (1.0 + (-x).exp());
    Interval { low: back(logit - half), high: back(logit + half), level: LEVEL }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scores: &[f64]) -> Auc {
        let pairs = (0..).zip(scores).map(|(group, &score)| Scored { score, group, fold: 0 });
        auc(&pairs.collect::<Vec<_>>()).expect("there are pairs")
    }

    #[test]
    fn closed_forms() {
        assert!((of(&[0.0; 40]).auc - 0.5).abs() < 1e-12, "scores of 0 say nothing");
        let perfect = of(&[1.0; 40]);
        assert_eq!((perfect.auc, perfect.high), (1.0, 1.0));
        assert!(perfect.low > 0.9 && perfect.low < 1.0);
        // Scores of ±1 with a share p of positive ones have the area p² + p(1 − p) = p.
        let signs: Vec<f64> = (0..100).map(|at| if at % 10 < 7 { 1.0 } else { -1.0 }).collect();
        assert!((of(&signs).auc - 0.7).abs() < 1e-12);
    }

    #[test]
    fn copies_do_not_narrow_the_interval() {
        let pair = |group: u64| Scored { score: ((group * 37) % 101) as f64 - 40.0, group, fold: 0 };
        let once: Vec<Scored> = (0..101).map(pair).collect();
        let thrice: Vec<Scored> = (0..303).map(|at| pair(at % 101)).collect();
        let [once, thrice] = [once, thrice].map(|pairs| auc(&pairs).expect("there are pairs"));
        assert!((once.auc - thrice.auc).abs() < 1e-12 && (once.low - thrice.low).abs() < 1e-9);
    }
}
