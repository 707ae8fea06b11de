//! Shares nest, whichever way they are taken.

use proptest::prelude::*;

use super::*;
use crate::order::shuffled_order;
use crate::record::{PreferenceRecord, Votes};

fn pair(index: usize, domain: Option<&str>) -> Pair {
    Pair {
        id: index.to_string(),
        prompt: Text::Plain("q".to_owned()),
        chosen: Text::Plain(format!("good {index}")),
        rejected: Text::Plain(format!("bad {index}")),
        domain: domain.map(str::to_owned),
        context: Default::default(),
        annotator: "human".to_owned(),
        votes: Votes::default(),
        flipped: false,
    }
}

fn ids(pairs: &[Pair]) -> Vec<usize> {
    pairs.iter().map(|pair| pair.id.parse().expect("ids are numbers here")).collect()
}

#[test]
fn fractions_outside_their_range_are_refused() {
    for bad in [-0.1, 0.0, 1.1, f64::NAN, f64::INFINITY] {
        assert!(Fraction::new(bad).is_err(), "{bad}");
    }
    assert_eq!(serde_json::to_string(&Fraction::ALL).expect("a number"), "1.0");
}

#[test]
fn first_rows_are_the_first() {
    let take = |fraction: f64, n: usize| {
        let fraction = Fraction::new(fraction).expect("in range");
        ids(&select((0..n).map(|i| pair(i, None)).collect(), fraction, Selection::FirstRows, &Seeds::new(0)))
    };
    assert_eq!(take(0.5, 5), [0, 1]);
    assert_eq!(take(0.01, 5), [0]);
    assert_eq!(take(1.0, 3), [0, 1, 2]);
}

#[test]
fn orders_are_frozen() {
    // Recorded results depend on these permutations: a change here silently changes every study.
    let seeds = Seeds::new(0);
    assert_eq!([0, 1].map(|epoch| shuffled_order(8, &seeds, epoch)), ORDERS);
    let half = Fraction::new(0.5).expect("in range");
    let take = |selection| {
        let pairs = (0..12).map(|i| pair(i, [Some("a"), Some("b"), None][i % 3])).collect();
        ids(&select(pairs, half, selection, &seeds))
    };
    assert_eq!(take(Selection::Random), RANDOM_HALF);
    assert_eq!(take(Selection::Stratified), STRATIFIED_HALF);
}

const ORDERS: [[usize; 8]; 2] = [[5, 2, 1, 7, 6, 3, 0, 4], [6, 4, 5, 0, 3, 2, 1, 7]];
const RANDOM_HALF: [usize; 6] = [2, 4, 7, 8, 10, 11];
const STRATIFIED_HALF: [usize; 6] = [3, 4, 5, 7, 8, 9];

proptest! {
    #[test]
    fn shares_nest_and_keep_their_order(
        domains in prop::collection::vec(0usize..4, 1..80), seed: u64, a in 0.01f64..1.0, b in 0.01f64..1.0,
    ) {
        let n = domains.len();
        let name = |domain: usize| [None, Some("x"), Some("y"), Some("z")][domain];
        for selection in [Selection::Random, Selection::Stratified, Selection::FirstRows] {
            let take = |fraction: f64| {
                let fraction = Fraction::new(fraction).expect("in range");
                let pairs = domains.iter().enumerate().map(|(i, &domain)| pair(i, name(domain))).collect();
                ids(&select(pairs, fraction, selection, &Seeds::new(seed)))
            };
            let (small, large) = (take(a.min(b)), take(a.max(b)));
            prop_assert!(small.iter().all(|id| large.contains(id)));
            prop_assert!(large.is_sorted());
            prop_assert_eq!(take(1.0).len(), n);
            let exact = a.max(b) * n as f64;
            if selection == Selection::FirstRows {
                prop_assert_eq!(large.len(), (exact.floor() as usize).max(1));
            } else {
                prop_assert_eq!(large.len(), (exact.round() as usize).max(1));
            }
            if selection == Selection::Stratified {
                for domain in 0..4 {
                    let of = domains.iter().filter(|&&d| d == domain).count();
                    let taken = large.iter().filter(|&&id| domains[id] == domain).count();
                    // Rounding the whole moves the line by half a pair, which one domain may bear alone.
                    let off = (taken as f64 - large.len() as f64 / n as f64 * of as f64).abs();
                    prop_assert!(off <= 1.5, "{} of {}: {}", taken, of, off);
                }
            }
        }
    }

    #[test]
    fn orders_are_permutations_and_differ_by_epoch(n in 20usize..100, seed: u64) {
        let seeds = Seeds::new(seed);
        let first = shuffled_order(n, &seeds, 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..n).collect::<Vec<_>>());
        prop_assert_ne!(first, shuffled_order(n, &seeds, 1));
    }
}

#[test]
fn a_smaller_draw_is_part_of_a_larger_one() {
    let drawn = |count, seed| draw((0..50).collect(), count, &Seeds::new(seed));
    let (few, many) = (drawn(7, 0), drawn(20, 0));
    assert_eq!((few.len(), many.len()), (7, 20));
    assert!(many.is_sorted() && few.iter().all(|one| many.contains(one)));
    assert_ne!(drawn(20, 1), many);
    assert_eq!(drawn(51, 0), (0..50).collect::<Vec<i32>>());
}

#[test]
fn whole_prompts_are_held_out() {
    // Three records a prompt, twenty prompts.
    let record = |index: usize| PreferenceRecord {
        id: index.to_string(),
        prompt: Text::Plain(format!("question {}", index % 20)),
        responses: ["good", "bad"].map(|text| Text::Plain(text.to_owned())).into(),
        labels: BTreeMap::new(),
        domain: None,
        context: Default::default(),
    };
    let split = |count: usize, seed: u64| {
        let held_out = NonZeroUsize::new(count).expect("not 0");
        hold_out((0..60).map(record).collect(), |record| &record.prompt, held_out, &Seeds::new(seed))
    };
    let (training, held_out) = split(7, 0);
    assert_eq!((training.len(), held_out.len()), (51, 9), "as many prompts as hold seven records");
    let prompts = |records: &[PreferenceRecord]| -> Vec<Text> {
        records.iter().map(|record| record.prompt.clone()).collect()
    };
    assert!(prompts(&held_out).iter().all(|prompt| !prompts(&training).contains(prompt)));
    let order =
        |records: &[PreferenceRecord]| records.is_sorted_by_key(|record| record.id.parse::<usize>().ok());
    assert!(order(&training) && order(&held_out));
    assert_eq!(split(7, 0), (training, held_out.clone()));
    assert_ne!(split(7, 1).1, held_out);
    assert_eq!(split(100, 0).0.len(), 0);
}
