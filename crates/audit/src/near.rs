//! Near-duplicate texts: `MinHash` and locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman and Ullman, *Mining of
//! Massive Datasets*, §3.4).

use std::borrow::Cow;

use rayon::prelude::*;

use crate::text::{jaccard, mix, shingles};

/// Texts are near-duplicates from this Jaccard similarity of their word pairs on.
pub(crate) const SIMILAR: f64 = 0.7;
/// With 16 bands of 4 minima, two texts at the threshold share a band with probability 0.99.
const BANDS: usize = 16;
const ROWS: usize = 4;
/// Candidates are compared with at most this many texts of their bucket.
const LEADERS: usize = 8;

/// Returns for each text the index of the first text of its group. Groups are transitive: a chain of near-duplicates is
/// one group.
pub(crate) fn groups<'a>(texts: &(impl Fn(usize) -> Cow<'a, str> + Sync), count: usize) -> Vec<usize> {
    let bands: Vec<[u32; BANDS]> =
        (0..count).into_par_iter().map(|at| band_keys(&shingles(&texts(at)))).collect();
    let mut parents: Vec<usize> = (0..count).collect();
    for band in 0..BANDS {
        let mut order: Vec<(u32, usize)> =
            bands.iter().enumerate().map(|(at, keys)| (keys[band], at)).collect();
        order.sort_unstable();
        for bucket in order.chunk_by(|a, b| a.0 == b.0).filter(|bucket| bucket.len() > 1) {
            join(bucket, texts, &mut parents);
        }
    }
    (0..count).map(|at| root(&mut parents, at)).collect()
}

/// Returns for each text of `first` whether a near-duplicate is among the texts of `second`.
pub(crate) fn overlap<'a>(
    first: &(impl Fn(usize) -> Cow<'a, str> + Sync),
    count: usize,
    second: &(impl Fn(usize) -> Cow<'a, str> + Sync),
    second_count: usize,
) -> Vec<Option<usize>> {
    let keys = |texts: &(dyn Fn(usize) -> Cow<'a, str> + Sync), count: usize| -> Vec<(u32, usize, usize)> {
        let of = |at: usize| {
            band_keys(&shingles(&texts(at))).into_iter().enumerate().map(move |(band, key)| (key, band, at))
        };
        (0..count).into_par_iter().flat_map_iter(of).collect()
    };
    let mut index = keys(second, second_count);
    index.par_sort_unstable();
    let find = |at: usize| {
        let mine = shingles(&first(at));
        let mut candidates: Vec<usize> = Vec::new();
        for (band, key) in band_keys(&mine).into_iter().enumerate() {
            let from = index.partition_point(|&(k, b, _)| (k, b) < (key, band));
            let same = index[from..].iter().take_while(|&&(k, b, _)| (k, b) == (key, band));
            candidates.extend(same.take(LEADERS).map(|&(.., other)| other));
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates.into_iter().find(|&other| jaccard(&mine, &shingles(&second(other))) >= SIMILAR)
    };
    (0..count).into_par_iter().map(find).collect()
}

fn join<'a>(bucket: &[(u32, usize)], texts: &impl Fn(usize) -> Cow<'a, str>, parents: &mut [usize]) {
    let mut leaders: Vec<(usize, Vec<u64>)> = Vec::new();
    for &(_, at) in bucket {
        let own_root = root(parents, at);
        if leaders.iter().any(|(leader, _)| root(parents, *leader) == own_root) {
            continue;
        }
        let mine = shingles(&texts(at));
        match leaders.iter().find(|(_, theirs)| jaccard(&mine, theirs) >= SIMILAR) {
            Some(&(leader, _)) => {
                let other_root = root(parents, leader);
                // The first text of a group is its root.
                parents[own_root.max(other_root)] = own_root.min(other_root);
            }
            None if leaders.len() < LEADERS => leaders.push((at, mine)),
            None => {}
        }
    }
}

fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

fn band_keys(shingles: &[u64]) -> [u32; BANDS] {
    let mut minima = [u64::MAX; BANDS * ROWS];
    for shingle in shingles {
        let mut seed: u64 = 0;
        for minimum in &mut minima {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            *minimum = (*minimum).min(mix(shingle ^ seed));
        }
    }
    std::array::from_fn(|band| {
        let rows = &minima[band * ROWS..(band + 1) * ROWS];
        (rows.iter().fold(0, |key, row| mix(key ^ row)) >> 32) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(seed: u64) -> String {
        (0..24).map(|at| format!("w{} ", mix(seed * 1000 + at) % 5000)).collect()
    }

    #[test]
    fn changed_words_are_found_and_other_texts_are_not() {
        let mut texts: Vec<String> = (0..200).map(sentence).collect();
        for at in 0..50 {
            let changed = format!("{} extra", texts[at]);
            texts.push(changed);
        }
        let groups = groups(&|at| Cow::Borrowed(texts[at].as_str()), texts.len());
        assert!((0..200).all(|at| groups[at] == at), "different texts are groups of their own");
        assert!((0..50).all(|at| groups[200 + at] == at), "a changed text joins its original");
    }

    #[test]
    fn overlap_finds_the_other_text() {
        let first: Vec<String> = (0..60).map(sentence).collect();
        let second: Vec<String> = (40..100).map(|seed| sentence(seed) + "please").collect();
        let found = overlap(
            &|at| Cow::Borrowed(first[at].as_str()),
            60,
            &|at| Cow::Borrowed(second[at].as_str()),
            60,
        );
        assert!((0..40).all(|at| found[at].is_none()));
        assert!((40..60).all(|at| found[at] == Some(at - 40)));
    }
}
