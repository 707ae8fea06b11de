//! Limits on concurrency and rate.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// Limits on concurrency and rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most calls at a time.
    pub concurrency: NonZeroU32,
    /// The most requests a minute, if limited.
    pub requests_per_minute: Option<NonZeroU32>,
    /// The most tokens a minute, of prompts and answers, if limited.
    pub tokens_per_minute: Option<NonZeroU64>,
}

impl Limits {
    /// `concurrency` calls at a time, without limits a minute.
    pub fn concurrent(concurrency: NonZeroU32) -> Self {
        Self { concurrency, requests_per_minute: None, tokens_per_minute: None }
    }
}

const MINUTE: f64 = 60.0;

/// Schedules calls in their order.
///
/// Calls are spaced evenly instead of let through in bursts: a server that counts by the second sees no more than its
/// share of the minute, and no window of a minute holds more than the limit. A call keeps the line busy for `tokens /
/// tokens_per_minute`; when its true number of tokens is known, what comes after moves accordingly.
#[derive(Debug)]
pub(crate) struct Pacer {
    request_seconds: f64,
    token_seconds: f64,
    requests_free_at: f64,
    tokens_free_at: f64,
}

impl Pacer {
    pub(crate) fn new(limits: &Limits) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "limits beyond 2^53 tokens a minute are none")]
        let tokens = limits.tokens_per_minute.map(|tokens| tokens.get() as f64);
        Self {
            request_seconds: limits.requests_per_minute.map_or(0.0, |most| MINUTE / f64::from(most.get())),
            token_seconds: tokens.map_or(0.0, |most| MINUTE / most),
            requests_free_at: 0.0,
            tokens_free_at: 0.0,
        }
    }

    /// Returns the wait of a call of about `tokens` tokens at time `now`.
    pub(crate) fn wait(&mut self, now: Duration, tokens: u64) -> Duration {
        let now = now.as_secs_f64();
        let start = now.max(self.requests_free_at).max(self.tokens_free_at);
        self.requests_free_at = start + self.request_seconds;
        self.tokens_free_at = start + self.seconds_of(tokens);
        Duration::from_secs_f64(start - now)
    }

    /// Corrects a call that was scheduled with `expected` tokens and had `used`.
    pub(crate) fn settle(&mut self, expected: u64, used: u64) {
        self.tokens_free_at += self.seconds_of(used) - self.seconds_of(expected);
    }

    #[expect(clippy::cast_precision_loss, reason = "no call has 2^53 tokens")]
    fn seconds_of(&self, tokens: u64) -> f64 {
        tokens as f64 * self.token_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer(requests: Option<u32>, tokens: Option<u64>) -> Pacer {
        Pacer::new(&Limits {
            concurrency: NonZeroU32::MIN,
            requests_per_minute: requests.and_then(NonZeroU32::new),
            tokens_per_minute: tokens.and_then(NonZeroU64::new),
        })
    }

    #[test]
    fn requests_are_spaced_evenly() {
        let mut pacer = pacer(Some(120), None);
        let waits = [0, 0, 0].map(|now| pacer.wait(Duration::from_millis(now), 1_000_000));
        assert_eq!(waits.map(|wait| wait.as_millis()), [0, 500, 1000]);
        assert_eq!(pacer.wait(Duration::from_secs(9), 1).as_millis(), 0, "an idle client has no wait");
    }

    #[test]
    fn tokens_take_their_time_and_are_settled_when_known() {
        let mut pacer = pacer(None, Some(6_000));
        let wait = |pacer: &mut Pacer, tokens| pacer.wait(Duration::ZERO, tokens).as_secs_f64();
        assert_eq!(wait(&mut pacer, 100), 0.0);
        assert_eq!(wait(&mut pacer, 200), 1.0);
        assert_eq!(wait(&mut pacer, 50), 3.0);
        pacer.settle(200, 300);
        assert_eq!(wait(&mut pacer, 100), 4.5, "100 tokens more are one second more");
        pacer.settle(100, 0);
        assert_eq!(wait(&mut pacer, 1), 4.5, "fewer are one less, and no call overtakes");
    }

    #[test]
    fn no_window_of_a_minute_holds_more_than_the_limit() {
        let mut pacer = pacer(Some(30), Some(100_000));
        let starts: Vec<f64> = (0..200).map(|_| pacer.wait(Duration::ZERO, 10).as_secs_f64()).collect();
        for (at, start) in starts.iter().enumerate() {
            let within = starts[at..].iter().filter(|later| **later < start + MINUTE - 1e-6).count();
            assert!(within <= 30, "{within} from {start}");
        }
    }

    #[test]
    fn without_limits_nothing_waits() {
        let mut pacer = pacer(None, None);
        assert!((0..100).all(|_| pacer.wait(Duration::ZERO, u64::MAX).is_zero()));
    }
}
