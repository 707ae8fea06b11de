//! The schedule of retries.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::failure::Failure;

/// The schedule of retries.
///
/// The pause after attempt n is uniform in the upper half of `first_wait · 2^(n−1)`, at most `longest_wait`. Without
/// jitter, calls that failed together would be repeated together. A wait that the server requests is the minimum; if it
/// exceeds `longest_wait`, the call fails at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The most attempts, the first one included; at least 1.
    pub attempts: u32,
    /// The scale of the first pause.
    pub first_wait: Duration,
    /// The longest pause.
    pub longest_wait: Duration,
}

impl RetryPolicy {
    /// Eight attempts, from half a second to a minute apart: they outlast about two minutes of downtime.
    pub const PATIENT: Self =
        Self { attempts: 8, first_wait: Duration::from_millis(500), longest_wait: Duration::from_secs(60) };

    /// One attempt.
    pub const NEVER: Self = Self { attempts: 1, first_wait: Duration::ZERO, longest_wait: Duration::ZERO };

    /// Returns the pause after attempt `attempt` (from 1) failed, or `None` after the last attempt.
    pub fn pause(&self, attempt: u32, failure: &Failure, rng: &mut impl Rng) -> Option<Duration> {
        if attempt >= self.attempts || !failure.is_transient() {
            return None;
        }
        let doubled = self.first_wait.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        let scale = doubled.min(self.longest_wait);
        let jittered = scale.mul_f64(rng.random_range(0.5..=1.0));
        match failure.retry_after() {
            Some(asked) if asked > self.longest_wait => None,
            // Jitter is added: all calls got the same wait.
            Some(asked) => Some(asked + jittered.min(asked.mul_f64(0.25) + self.first_wait)),
            None => Some(jittered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seeds::Seeds;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 6,
        first_wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(10),
    };

    fn rate_limited(seconds: Option<u64>) -> Failure {
        Failure::RateLimited { retry_after: seconds.map(Duration::from_secs), message: String::new() }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        let mut rng = Seeds::new(1).stream("jitter");
        let mut seen = Vec::new();
        for (attempt, scale) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0)] {
            for _ in 0..100 {
                let pause = POLICY.pause(attempt, &Failure::CutBody, &mut rng).unwrap().as_secs_f64();
                assert!((scale / 2.0..=scale).contains(&pause), "attempt {attempt}: {pause}");
                seen.push(pause);
            }
        }
        seen.sort_by(f64::total_cmp);
        seen.dedup();
        assert_eq!(seen.len(), 500);
        assert_eq!(POLICY.pause(6, &Failure::CutBody, &mut rng), None, "six attempts are six");
    }

    #[test]
    fn the_requested_wait_is_the_minimum() {
        let mut rng = Seeds::new(2).stream("jitter");
        for _ in 0..100 {
            let pause = POLICY.pause(1, &rate_limited(Some(7)), &mut rng).unwrap().as_secs_f64();
            assert!((7.0..=10.0).contains(&pause), "{pause}");
        }
        assert_eq!(POLICY.pause(1, &rate_limited(Some(3600)), &mut rng), None);
        assert!(POLICY.pause(1, &rate_limited(None), &mut rng).unwrap() <= Duration::from_secs(1));
    }

    #[test]
    fn permanent_failures_are_not_retried() {
        let mut rng = Seeds::new(3).stream("jitter");
        let message = String::new;
        for failure in [
            Failure::QuotaExhausted { message: message() },
            Failure::ContextOverflow { message: message() },
            Failure::Refused { status: 401, message: message() },
        ] {
            assert_eq!(POLICY.pause(1, &failure, &mut rng), None, "{failure}");
        }
        assert_eq!(RetryPolicy::NEVER.pause(1, &Failure::CutBody, &mut rng), None);
    }
}
