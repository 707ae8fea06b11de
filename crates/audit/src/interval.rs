//! Intervals of shares, also of pairs that depend on each other.

use stats::{Interval, wilson_interval};

/// The confidence level of all intervals.
pub(crate) const LEVEL: f64 = 0.95;

/// Returns Wilson's interval of `hits` of `trials`, with the trials divided by the design effect; (0, 1) without trials.
pub(crate) fn of_share(hits: usize, trials: usize, design_effect: f64) -> Interval {
    let scaled = |number: usize| (number as f64 / design_effect.max(1.0)).round() as u64;
    let trials = scaled(trials);
    wilson_interval(scaled(hits).min(trials), trials, LEVEL).unwrap_or(Interval { low: 0.0, high: 1.0, level: LEVEL })
}

/// Returns the variance of a share with dependent trials over that with independent ones, at least 1 (Kish's design
/// effect, from the variance between groups). Items are `(group, hit)`.
pub(crate) fn design_effect(items: &[(u64, bool)]) -> f64 {
    let n = items.len() as f64;
    let share = items.iter().filter(|(_, hit)| *hit).count() as f64 / n.max(1.0);
    if share <= 0.0 || share >= 1.0 {
        return 1.0;
    }
    let mut sorted: Vec<(u64, bool)> = items.to_vec();
    sorted.sort_unstable();
    let residual = |group: &[(u64, bool)]| group.iter().map(|&(_, hit)| f64::from(u8::from(hit)) - share).sum::<f64>();
    let squares: f64 = sorted.chunk_by(|a, b| a.0 == b.0).map(|group| residual(group).powi(2)).sum();
    (squares / (n * share * (1.0 - share))).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_trials_do_not_narrow_the_interval() {
        let once: Vec<(u64, bool)> = (0..200).map(|group| (group, group % 4 == 0)).collect();
        let thrice: Vec<(u64, bool)> = once.iter().flat_map(|item| [*item; 3]).collect();
        assert!((design_effect(&once) - 1.0).abs() < 1e-9);
        assert!((design_effect(&thrice) - 3.0).abs() < 1e-9);
        assert_eq!(of_share(50, 200, 1.0), of_share(150, 600, 3.0));
    }

    #[test]
    fn no_trials_say_nothing() {
        let Interval { low, high, .. } = of_share(0, 0, 1.0);
        assert_eq!((low, high), (0.0, 1.0));
    }
}
