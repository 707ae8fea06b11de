//! Random orders for nested selections: a share is a prefix of an order, so a smaller share is part of a larger one.

use rand::RngExt;
use rand::seq::SliceRandom;
use seeds::{Seeds, Stream};

/// Returns the order in which epoch `epoch` (from 0) visits `n` items: a permutation of `0..n`.
///
/// Each epoch has its own order; all draw from the stream `data-order`.
pub fn shuffled_order(n: usize, seeds: &Seeds, epoch: u64) -> Vec<usize> {
    permutation(n, seeds.indexed("data-order", epoch))
}

/// Returns a share of `n` items, rounded.
pub(crate) fn share(rate: f64, n: usize) -> usize {
    (rate * n as f64).round() as usize
}

pub(crate) fn permutation(n: usize, mut stream: Stream) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut stream);
    order
}

/// Returns the order of weighted sampling without replacement (Efraimidis and Spirakis, *Information Processing
/// Letters* 97, 2006).
pub(crate) fn weighted_order(weights: &[f64], mut stream: Stream) -> Vec<usize> {
    let waits: Vec<f64> = weights
        .iter()
        .map(|weight| {
            // In (0, 1], so that the logarithm is finite.
            let draw = 1.0 - stream.random::<f64>();
            -draw.ln() / weight
        })
        .collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| waits[a].total_cmp(&waits[b]).then(a.cmp(&b)));
    order
}

/// Marks the first `count` items of an order.
pub(crate) fn marked(order: &[usize], count: usize) -> Vec<bool> {
    let mut marked = vec![false; order.len()];
    for &index in order.iter().take(count) {
        marked[index] = true;
    }
    marked
}
