//! Noise nests, undoes itself, and takes the pairs that it says.

use proptest::prelude::*;

use super::*;
use crate::record::Votes;

/// Pair `index` has annotator `a` or `b`, a rejected response that is longer or shorter, and more or less divided votes.
fn pair(index: usize) -> Pair {
    Pair {
        id: index.to_string(),
        prompt: Text::Plain("q".to_owned()),
        chosen: Text::Plain(format!("good {index}")),
        rejected: Text::Plain(if index.is_multiple_of(2) {
            format!("bad {index}, and long")
        } else {
            "b".to_owned()
        }),
        domain: None,
        context: Default::default(),
        annotator: ["a", "b"][index % 2].to_owned(),
        votes: Votes { chosen: 10, rejected: u32::try_from(index % 10).expect("small") },
        flipped: false,
    }
}

fn pairs(n: usize) -> Vec<Pair> {
    (0..n).map(pair).collect()
}

fn rate(rate: f64) -> FlipRate {
    FlipRate::new(rate).expect("in range")
}

fn models() -> [NoiseModel; 5] {
    let odds = BTreeMap::from([("a".to_owned(), Odds::new(20.0).expect("above 0"))]);
    [
        NoiseModel::Uniform,
        NoiseModel::ByAnnotator(odds),
        NoiseModel::LengthBiased,
        NoiseModel::AmbiguousFirst,
        NoiseModel::TiesDropped,
    ]
}

#[test]
fn rates_and_odds_outside_their_range_are_refused() {
    for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert!(FlipRate::new(bad).is_err(), "{bad}");
    }
    for bad in [-0.1, 0.0, f64::NAN, f64::INFINITY] {
        assert!(Odds::new(bad).is_err(), "{bad}");
    }
    let message = serde_json::from_str::<FlipRate>("1.5").expect_err("1.5 is no share").to_string();
    assert_eq!(message, "flip_rate is 1.5; it must lie in [0, 1]");
}

#[test]
fn rate_one_flips_all_and_twice_is_none() {
    let original = pairs(9);
    let mut flipped = original.clone();
    flip_labels(&mut flipped, FlipRate::NONE, &Seeds::new(1));
    assert_eq!(flipped, original);
    flip_labels(&mut flipped, rate(1.0), &Seeds::new(1));
    assert!(flipped.iter().zip(&original).all(|(a, b)| a.flipped && a.chosen == b.rejected));
    flip_labels(&mut flipped, rate(1.0), &Seeds::new(2));
    assert_eq!(flipped, original);
}

#[test]
fn each_model_takes_the_pairs_that_it_names_sooner() {
    let taken = |model: NoiseModel| {
        let (_, log) = corrupt(pairs(1_000), &Noise { model, rate: rate(0.2) }, &Seeds::new(3));
        let taken = log.rows.iter().filter(|row| row.fate != Fate::Kept);
        taken.map(|row| row.id.parse().expect("a number")).collect::<Vec<usize>>()
    };
    let even = |ids: &[usize]| ids.iter().filter(|&&id| id.is_multiple_of(2)).count();
    let [uniform, by_annotator, length, ambiguous, dropped] = models().map(taken);
    assert!((70..130).contains(&even(&uniform)), "{}", even(&uniform));
    // With odds of 20 to 1 about 188 of 200 while both kinds last.
    assert!(even(&by_annotator) > 170 && even(&by_annotator) < 200, "{}", even(&by_annotator));
    assert!(even(&length) > 180, "{}", even(&length));
    assert!(ambiguous.iter().all(|id| id % 10 >= 8), "9 against 10 and 8 against 10 come first");
    assert_eq!(ambiguous, dropped);
}

#[test]
fn dropped_pairs_are_gone_and_logged() {
    let noise = Noise { model: NoiseModel::TiesDropped, rate: rate(0.5) };
    let (kept, log) = corrupt(pairs(20), &noise, &Seeds::new(0));
    assert_eq!((kept.len(), log.count(Fate::Dropped), log.count(Fate::Flipped)), (10, 10, 0));
    assert!(kept.iter().all(|pair| !pair.flipped));
    assert_eq!(log.to_string(), "of 20 pairs 0 flipped, 10 dropped");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.jsonl");
    log.write(&path).expect("written");
    let lines = std::fs::read_to_string(path).expect("a file");
    let rows: Vec<NoiseRow> = lines.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    assert_eq!(rows, log.rows);
}

#[test]
fn masks_are_frozen() {
    // Recorded results depend on these masks: a change here silently changes every study.
    let mask = |model| {
        let (_, log) = corrupt(pairs(12), &Noise { model, rate: rate(0.5) }, &Seeds::new(0));
        let mask = log.rows.iter().map(|row| if row.fate == Fate::Kept { '.' } else { 'x' });
        mask.collect::<String>()
    };
    assert_eq!(models().map(mask), MASKS);
}

const MASKS: [&str; 5] = ["xx....xx.x.x", "x.x.x.x.x.x.", "x.x.x.x.x.x.", "....xxxxxx..", "....xxxxxx.."];

proptest! {
    #[test]
    fn noise_nests_undoes_itself_and_is_as_much_as_asked(
        n in 0usize..80, seed: u64, a in 0.0f64..=1.0, b in 0.0f64..=1.0,
    ) {
        for model in models() {
            let apply = |pairs, share: f64| {
                corrupt(pairs, &Noise { model: model.clone(), rate: rate(share) }, &Seeds::new(seed))
            };
            let mask = |log: &NoiseLog| {
                log.rows.iter().map(|row| row.fate != Fate::Kept).collect::<Vec<_>>()
            };
            let ((_, few), (noisy, many)) = (apply(pairs(n), a.min(b)), apply(pairs(n), a.max(b)));
            prop_assert!(mask(&few).iter().zip(mask(&many)).all(|(&few, many)| !few || many));
            prop_assert_eq!(
                mask(&many).iter().filter(|&&m| m).count(), (a.max(b) * n as f64).round() as usize
            );
            if model == NoiseModel::TiesDropped {
                continue;
            }
            for (pair, row) in noisy.iter().zip(&many.rows) {
                prop_assert_eq!(pair.flipped, row.fate == Fate::Flipped);
            }
            // The log holds what is needed to get the true labels back.
            let mut restored = noisy;
            for (pair, row) in restored.iter_mut().zip(&many.rows) {
                if row.fate == Fate::Flipped {
                    pair.flip();
                }
            }
            prop_assert_eq!(restored, pairs(n));
        }
    }

    #[test]
    fn flipping_in_place_is_uniform_noise(n in 0usize..60, seed: u64, share in 0.0f64..=1.0) {
        let noise = Noise { model: NoiseModel::Uniform, rate: rate(share) };
        let mut in_place = pairs(n);
        flip_labels(&mut in_place, noise.rate, &Seeds::new(seed));
        prop_assert_eq!(&corrupt(pairs(n), &noise, &Seeds::new(seed)).0, &in_place);
        flip_labels(&mut in_place, noise.rate, &Seeds::new(seed));
        prop_assert_eq!(in_place, pairs(n));
    }
}
