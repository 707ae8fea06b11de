//! Choice of the next token from a row of probabilities.

use rand::RngExt;
use seeds::Stream;

/// Sampling parameters of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits. Below [`Sampling::GREEDY_BELOW`] the choice is the likeliest token, without randomness.
    pub temperature: f64,
    /// Number of likeliest tokens to sample from.
    pub top_k: Option<usize>,
    /// Probability of the smallest set of likeliest tokens to sample from, after `top_k`; 1 keeps all.
    pub top_p: f64,
    /// Maximum number of new tokens, without the stop token.
    pub max_new_tokens: usize,
    /// Tokens that end the sequence.
    pub stop_tokens: Vec<u32>,
}

impl Sampling {
    /// Temperatures below this are greedy, as in FastChat.
    pub const GREEDY_BELOW: f64 = 1e-4;

    /// Returns the parameters of greedy decoding.
    pub fn greedy(max_new_tokens: usize, stop_tokens: Vec<u32>) -> Self {
        Self { temperature: 0.0, top_k: None, top_p: 1.0, max_new_tokens, stop_tokens }
    }

    pub(crate) fn is_greedy(&self) -> bool {
        self.temperature < Self::GREEDY_BELOW
    }

    /// Returns the problem with these parameters, if any.
    pub(crate) fn problem(&self) -> Option<String> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Some(format!("temperature is {}, but must be finite and not negative", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Some(format!("top_p is {}, but must be in (0, 1]", self.top_p));
        }
        (self.top_k == Some(0))
            .then(|| "top_k is 0, which excludes all tokens; use None for no limit".to_owned())
    }
}

/// A chosen token and the margin of the choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) token: u32,
    pub(crate) margin: f32,
}

/// Chooses from `probabilities`, softmax outputs at the request's temperature (at 1 for a greedy one).
///
/// Sampling draws one uniform number and inverts the cumulative distribution over the kept tokens in the order of their ids:
/// unlike an order by probability, it is stable where two tokens are almost equally likely. Returns `None` if the probabilities
/// are NaN.
pub(crate) fn decide(probabilities: &[f32], sampling: &Sampling, stream: &mut Stream) -> Option<Decision> {
    if sampling.is_greedy() {
        return likeliest(probabilities);
    }
    let uniform: f64 = stream.random();
    if sampling.top_k.is_none() && sampling.top_p >= 1.0 {
        let all = || probabilities.iter().enumerate().map(|(id, &p)| (id, p));
        return invert(all, uniform).map(|(id, margin)| Decision { token: id as u32, margin: margin as f32 });
    }
    let kept = filter(probabilities, sampling)?;
    let (id, distance) = invert(|| kept.tokens.iter().map(|&id| (id, probabilities[id])), uniform)?;
    // One token more or less at the filter's edge moves each boundary by at most its probability.
    let margin = if distance > 2.0 * kept.edge { distance } else { distance.min(kept.margin) };
    Some(Decision { token: id as u32, margin: margin as f32 })
}

/// Returns the first token of the highest probability; its margin is the lead over the second.
fn likeliest(probabilities: &[f32]) -> Option<Decision> {
    let (mut token, mut best, mut next) = (None, -1.0, -1.0);
    for (block, some) in probabilities.chunks(BLOCK).enumerate() {
        // A vectorized check skips nearly all blocks.
        if !exceed(some, next) {
            continue;
        }
        for (id, &p) in (block * BLOCK..).zip(some) {
            if p > best {
                next = best;
                (token, best) = (Some(id as u32), p);
            } else if p > next {
                next = p;
            }
        }
    }
    token.map(|token| Decision { token, margin: best - next.max(0.0) })
}

/// Probabilities per block.
const BLOCK: usize = 128;

/// Returns whether one of `probabilities` is above `bound`; NaN is not.
fn exceed(probabilities: &[f32], bound: f32) -> bool {
    probabilities.iter().fold(false, |exceeds, &p| exceeds | (p > bound))
}

/// Returns the token whose interval of the cumulative distribution contains `uniform`, and the distance to its nearer end.
fn invert<I: Iterator<Item = (usize, f32)>>(tokens: impl Fn() -> I, uniform: f64) -> Option<(usize, f64)> {
    let total: f64 = tokens().map(|(_, p)| f64::from(p)).sum();
    if !(total.is_finite() && total > 0.0) {
        return None;
    }
    let target = uniform * total;
    let (mut below, mut last) = (0.0, None);
    for (id, p) in tokens().filter(|&(_, p)| p > 0.0) {
        let above = below + f64::from(p);
        last = Some((id, (target - below).min(above - target).abs() / total));
        if above > target {
            break;
        }
        below = above;
    }
    last
}

/// The tokens that `top_k` and `top_p` leave.
struct Kept {
    /// By id.
    tokens: Vec<usize>,
    /// Share of the least likely kept token.
    edge: f64,
    /// How much probability would have to move for another set to be kept.
    margin: f64,
}

fn filter(probabilities: &[f32], sampling: &Sampling) -> Option<Kept> {
    let by_probability =
        |a: &usize, b: &usize| probabilities[*b].total_cmp(&probabilities[*a]).then(a.cmp(b));
    // Tokens below this are together less likely than what `top_p` cuts off, so they need not be sorted.
    let negligible = match sampling.top_k {
        None => (1.0 - sampling.top_p) / probabilities.len() as f64 * 0.5,
        Some(_) => 0.0,
    };
    let mut tokens: Vec<usize> =
        (0..probabilities.len()).filter(|&id| f64::from(probabilities[id]) >= negligible).collect();
    let (mut margin, mut following) = (f64::INFINITY, None);
    if let Some(k) = sampling.top_k.filter(|&k| k < tokens.len()) {
        tokens.select_nth_unstable_by(k, by_probability);
        following = Some(f64::from(probabilities[tokens[k]]));
        tokens.truncate(k);
    }
    tokens.sort_unstable_by(by_probability);
    // `top_p` is a share of what `top_k` leaves, or of everything, tokens too unlikely to be sorted included.
    let sum = |ids: &mut dyn Iterator<Item = f32>| ids.map(f64::from).sum::<f64>();
    let total = match sampling.top_k {
        Some(_) => sum(&mut tokens.iter().map(|&id| probabilities[id])),
        None => sum(&mut probabilities.iter().copied()),
    };
    let least = f64::from(probabilities[*tokens.last()?]);
    if let Some(following) = following {
        margin = (least - following) / total;
    }
    let mut edge = least / total;
    if sampling.top_p < 1.0 {
        let mut mass = 0.0;
        let mut count = 0;
        while count < tokens.len() && mass < sampling.top_p {
            edge = f64::from(probabilities[tokens[count]]) / total;
            mass += edge;
            count += 1;
        }
        margin = margin.min((mass - sampling.top_p).abs()).min((sampling.top_p - (mass - edge)).abs());
        if let Some(&next) = tokens.get(count) {
            margin = margin.min(edge - f64::from(probabilities[next]) / total);
        }
        tokens.truncate(count);
    }
    tokens.sort_unstable();
    Some(Kept { tokens, edge, margin })
}

#[cfg(test)]
mod tests {
    use super::*;
    use seeds::Seeds;

    fn sampling(temperature: f64, top_k: Option<usize>, top_p: f64) -> Sampling {
        Sampling { temperature, top_k, top_p, max_new_tokens: 1, stop_tokens: Vec::new() }
    }

    fn frequencies(probabilities: &[f32], sampling: &Sampling, draws: usize) -> Vec<f64> {
        let mut stream = Seeds::new(3).stream("draws");
        let mut counts = vec![0.0; probabilities.len()];
        for _ in 0..draws {
            counts[decide(probabilities, sampling, &mut stream).unwrap().token as usize] +=
                1.0 / draws as f64;
        }
        counts
    }

    #[test]
    fn greedy_finds_the_two_likeliest_wherever_they_stand() {
        let of = |peaks: &[(usize, f32)]| {
            let mut probabilities = vec![1e-4; 3 * BLOCK + 7];
            peaks.iter().for_each(|&(at, p)| probabilities[at] = p);
            let mut stream = Seeds::new(0).stream("s");
            decide(&probabilities, &sampling(0.0, None, 1.0), &mut stream).unwrap()
        };
        for at in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 5, 3 * BLOCK + 6] {
            for next in [2, BLOCK - 2, BLOCK + 1, 3 * BLOCK + 5] {
                assert_eq!(of(&[(at, 0.5), (next, 0.25)]), Decision { token: at as u32, margin: 0.25 });
            }
            assert_eq!(of(&[(at, 0.5), (BLOCK + 9, f32::NAN)]).token, at as u32);
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest_and_no_randomness() {
        let mut stream = Seeds::new(0).stream("s");
        let decision = decide(&[0.1, 0.4, 0.4, 0.1], &sampling(0.0, None, 1.0), &mut stream);
        assert_eq!(decision, Some(Decision { token: 1, margin: 0.0 }));
        let decision = decide(&[0.125, 0.625, 0.25], &sampling(0.0, None, 1.0), &mut stream);
        assert_eq!(decision, Some(Decision { token: 1, margin: 0.375 }));
        assert_eq!(stream.random::<u64>(), Seeds::new(0).stream("s").random::<u64>(), "nothing was drawn");
    }

    #[test]
    fn draws_follow_the_filtered_distribution() {
        const DRAWS: usize = 40_000;
        // Five standard errors of a share of one half.
        const TOLERANCE: f64 = 5.0 * 0.5 / 200.0;
        let probabilities = [0.1, 0.4, 0.05, 0.3, 0.15];
        let cases = [
            (sampling(1.0, None, 1.0), [0.1, 0.4, 0.05, 0.3, 0.15]),
            (sampling(1.0, Some(2), 1.0), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]),
            // 0.4 + 0.3 < 0.75 ≤ 0.4 + 0.3 + 0.15
            (sampling(1.0, None, 0.75), [0.0, 0.4 / 0.85, 0.0, 0.3 / 0.85, 0.15 / 0.85]),
            // After top_k = 3 the shares are .47, .35, .18; the first two reach 0.8.
            (sampling(1.0, Some(3), 0.8), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]),
        ];
        for (sampling, expected) in cases {
            let found = frequencies(&probabilities, &sampling, DRAWS);
            for (id, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert!(
                    (found - expected).abs() < TOLERANCE,
                    "{sampling:?}: token {id} has {found}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn nucleus_of_a_large_vocabulary_equals_the_one_found_by_sorting_everything() {
        let mut stream = Seeds::new(5).stream("vocabulary");
        let mut weights: Vec<f32> = (0..5_000).map(|_| stream.random::<f32>().powi(20)).collect();
        let total: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= total);
        for top_p in [0.05, 0.5, 0.9, 0.999] {
            let kept = filter(&weights, &sampling(1.0, None, top_p)).unwrap();
            let mut sorted: Vec<usize> = (0..weights.len()).collect();
            sorted.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
            let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            let mut mass = 0.0;
            let count = sorted.iter().take_while(|&&id| {
                let take = mass < top_p;
                mass += f64::from(weights[id]) / sum;
                take
            });
            let mut expected: Vec<usize> = count.copied().collect();
            expected.sort_unstable();
            assert_eq!(kept.tokens, expected, "top_p {top_p}");
        }
    }

    #[test]
    fn a_margin_is_the_distance_to_another_choice() {
        let probabilities = [0.25, 0.5, 0.25];
        for draw in 0..1_000 {
            let mut stream = Seeds::new(draw).stream("s");
            let uniform: f64 = stream.clone().random();
            let decision = decide(&probabilities, &sampling(1.0, None, 1.0), &mut stream).unwrap();
            let (token, margin) = match uniform {
                u if u < 0.25 => (0, u.min(0.25 - u)),
                u if u < 0.75 => (1, (u - 0.25).min(0.75 - u)),
                u => (2, (u - 0.75).min(1.0 - u)),
            };
            assert_eq!(decision.token, token);
            assert!((f64::from(decision.margin) - margin).abs() < 1e-6);
        }
    }

    #[test]
    fn probabilities_that_are_not_numbers_choose_nothing() {
        let mut stream = Seeds::new(0).stream("s");
        for sampling in [sampling(0.0, None, 1.0), sampling(1.0, None, 1.0), sampling(1.0, Some(2), 0.9)] {
            assert_eq!(decide(&[f32::NAN; 4], &sampling, &mut stream), None, "{sampling:?}");
        }
    }
}
