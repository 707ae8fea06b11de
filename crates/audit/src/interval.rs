//! Intervals of shares, also of pairs that depend on each other.

use stats::{Interval, wilson_interval};

/// The confidence level of all intervals.
pub(crate) const LEVEL: f64 = 0.95;

/// Returns Wilson's interval of `hits` of `trials`; (0, 1) without trials.
pub(crate) fn of_share(hits: usize, trials: usize) -> Interval {
    wilson_interval(hits as u64, trials as u64, LEVEL).unwrap_or(Interval {
        low: 0.0,
        high: 1.0,
        level: LEVEL,
    })
}

/// A share with dependent trials, or of trials that are shares themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    pub(crate) value: f64,
    pub(crate) interval: Interval,
}

impl Share {
    /// Returns the mean of items `(group, share)`, with Wilson's interval for the number of items over the design effect:
    /// the variance between groups over that of independent trials, at least 1 (Kish 1965).
    pub(crate) fn of(items: &[(u64, f64)]) -> Self {
        let n = items.len() as f64;
        let value = items.iter().map(|(_, share)| share).sum::<f64>() / n.max(1.0);
        let mut sorted: Vec<(u64, f64)> = items.to_vec();
        sorted.sort_by_key(|(group, _)| *group);
        let residual = |group: &[(u64, f64)]| group.iter().map(|(_, share)| share - value).sum::<f64>();
        let squares: f64 = sorted.chunk_by(|a, b| a.0 == b.0).map(|group| residual(group).powi(2)).sum();
        let independent = n * value * (1.0 - value);
        let effect = if independent > 0.0 { (squares / independent).max(1.0) } else { 1.0 };
        let trials = (n / effect).round();
        Self { value, interval: of_share((value * trials).round() as usize, trials as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_trials_do_not_narrow_the_interval() {
        let once: Vec<(u64, f64)> =
            (0..200).map(|group| (group, f64::from(u8::from(group % 4 == 0)))).collect();
        let thrice: Vec<(u64, f64)> = once.iter().flat_map(|item| [*item; 3]).collect();
        assert_eq!(Share::of(&once).interval, of_share(50, 200));
        assert_eq!(Share::of(&thrice), Share::of(&once));
    }

    #[test]
    fn no_trials_say_nothing() {
        let Interval { low, high, .. } = of_share(0, 0);
        assert_eq!((low, high), (0.0, 1.0));
    }
}
