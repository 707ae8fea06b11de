//! Pairs of rated responses, by named strategies.

use std::collections::BTreeMap;

use pref_data::{Label, PreferenceRecord};
use rand::RngExt as _;
use seeds::{Seeds, Stream};

use crate::AnnotateError;
use crate::ask::Judgement;
use crate::candidates::record_digest;
use crate::run::Annotation;

/// Which two responses of a record make a pair. Equal ratings never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The highest and the lowest mean rating. The pairs are easy, and the policy sees the worst responses most.
    BestWorst,
    /// The highest mean rating and a random response with a lower one, as in Zephyr's data. The pairs differ in difficulty.
    BestRandom,
    /// The two responses with the largest lead that holds in every rating, over all orders and aspects. Records without such
    /// a lead make no pair, so that fewer labels are wrong.
    MaxMargin,
}

/// Pairs, and the records that made none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RatedPairs {
    /// A record with two responses, in the order of the candidates, and one label.
    pub records: Vec<PreferenceRecord>,
    /// Records whose responses have no lead above the margin.
    pub tied: usize,
    /// Records that the annotator did not rate.
    pub unrated: usize,
}

/// Makes at most one pair of each record from the ratings of `log`. A lead is larger than `margin`, in rating points.
///
/// Ratings belong to records by id, and the digest of prompt and responses must agree. Random choices have a stream for each
/// record.
///
/// # Errors
///
/// [`AnnotateError::Misaligned`] for a record without its line in the log, or with a line about other responses;
/// [`AnnotateError::NotRated`] for a log without ratings.
pub fn rated_pairs(
    records: &[PreferenceRecord],
    log: &[Annotation],
    strategy: Strategy,
    margin: f64,
    seeds: &Seeds,
) -> Result<RatedPairs, AnnotateError> {
    let mut by_id: BTreeMap<&str, &Annotation> = BTreeMap::new();
    for line in log {
        if by_id.insert(&line.id, line).is_some() {
            return Err(AnnotateError::RepeatedId { id: line.id.clone(), what: "lines of the log" });
        }
    }
    if !log.is_empty() && log.iter().all(|line| line.judgement.ratings.is_empty()) {
        return Err(AnnotateError::NotRated);
    }
    let mut out = RatedPairs::default();
    for record in records {
        let misaligned = |problem| AnnotateError::Misaligned { id: record.id.clone(), problem };
        let line = by_id.remove(record.id.as_str()).ok_or_else(|| misaligned("has no line in the log"))?;
        if line.digest != record_digest(record) {
            return Err(misaligned("has other responses in the log"));
        }
        let judgement = &line.judgement;
        if judgement.ratings.len() != record.responses.len() {
            out.unrated += 1;
            continue;
        }
        let mut stream = seeds.stream(&format!("pair of {}", record.id));
        match choose(judgement, strategy, margin, &mut stream) {
            Some((chosen, rejected)) => out.records.push(pair(record, &line.annotator, chosen, rejected)),
            None => out.tied += 1,
        }
    }
    match by_id.keys().next() {
        Some(id) => Err(AnnotateError::Misaligned { id: (*id).to_owned(), problem: "is in the log only" }),
        None => Ok(out),
    }
}

fn pair(record: &PreferenceRecord, annotator: &str, chosen: usize, rejected: usize) -> PreferenceRecord {
    let (first, second) = (chosen.min(rejected), chosen.max(rejected));
    let responses = vec![record.responses[first].clone(), record.responses[second].clone()];
    let label = Label::Prefers(usize::from(chosen == second));
    PreferenceRecord { responses, labels: [(annotator.to_owned(), label)].into(), ..record.clone() }
}

fn choose(
    judgement: &Judgement,
    strategy: Strategy,
    margin: f64,
    rng: &mut Stream,
) -> Option<(usize, usize)> {
    let ratings = &judgement.ratings;
    let every = 0..ratings.len();
    let leads = |one: usize, other: usize| ratings[one] - ratings[other] > margin;
    // One of several equal responses at random, so that the file's order decides nothing.
    let any = |among: Vec<usize>, rng: &mut Stream| Some(among[rng.random_range(0..among.len())]);
    let extreme = |sign: f64| {
        let top = ratings.iter().map(|rating| sign * rating).fold(f64::NEG_INFINITY, f64::max);
        every.clone().filter(|at| sign * ratings[*at] >= top).collect::<Vec<usize>>()
    };
    match strategy {
        Strategy::BestWorst => {
            let (best, worst) = (any(extreme(1.0), rng)?, any(extreme(-1.0), rng)?);
            leads(best, worst).then_some((best, worst))
        }
        Strategy::BestRandom => {
            let best = any(extreme(1.0), rng)?;
            let lower: Vec<usize> = every.filter(|other| leads(best, *other)).collect();
            if lower.is_empty() { None } else { Some((best, any(lower, rng)?)) }
        }
        Strategy::MaxMargin => {
            let pairs = every.clone().flat_map(|one| every.clone().map(move |other| (one, other)));
            let with_lead = pairs.map(|(one, other)| (smallest_lead(judgement, one, other), (one, other)));
            let clear: Vec<_> = with_lead.filter(|(lead, _)| *lead > margin).collect();
            let most = clear.iter().map(|(lead, _)| *lead).fold(f64::NEG_INFINITY, f64::max);
            let best: Vec<_> = clear.into_iter().filter(|(lead, _)| *lead >= most).collect();
            (!best.is_empty()).then(|| best[rng.random_range(0..best.len())].1)
        }
    }
}

/// The smallest lead of one response over another, over all orders and aspects.
fn smallest_lead(judgement: &Judgement, one: usize, other: usize) -> f64 {
    let (responses, games) = (judgement.ratings.len(), &judgement.games);
    let leads = games.iter().enumerate().flat_map(|(game, of)| {
        let place = move |at: usize| if game < games.len() / 2 { at } else { responses - 1 - at };
        of.ratings.values().map(move |ratings| ratings[place(one)] - ratings[place(other)])
    });
    leads.fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pref_data::Text;

    use super::*;
    use crate::ask::Game;

    fn record(id: &str, responses: usize) -> PreferenceRecord {
        PreferenceRecord {
            id: id.to_owned(),
            prompt: Text::Plain("?".to_owned()),
            responses: (0..responses).map(|at| Text::Plain(format!("answer {at} of {id}"))).collect(),
            labels: BTreeMap::new(),
            domain: None,
            context: Default::default(),
        }
    }

    /// Ratings in the order of the responses; the second order shows them in reverse.
    fn line(record: &PreferenceRecord, forward: &[f64], reverse: &[f64]) -> Annotation {
        let game =
            |ratings: Vec<f64>| Game { ratings: [("honesty".to_owned(), ratings)].into(), ..Game::default() };
        let ratings = forward.iter().zip(reverse).map(|(one, other)| (one + other) / 2.0).collect();
        let games = vec![game(forward.to_vec()), game(reverse.iter().rev().copied().collect())];
        Annotation {
            id: record.id.clone(),
            digest: record_digest(record),
            annotator: "rater".to_owned(),
            judgement: Judgement { ratings, games, label: Some(Label::Tie), ..Judgement::default() },
        }
    }

    /// The chosen and the rejected response.
    fn texts(record: &PreferenceRecord) -> (&str, &str) {
        let text = |at: usize| match &record.responses[at] {
            Text::Plain(text) => text.as_str(),
            Text::Chat(_) => panic!("a text"),
        };
        let Label::Prefers(chosen) = record.labels["rater"] else { panic!("a tie as a label") };
        (text(chosen), text(1 - chosen))
    }

    #[test]
    fn each_strategy_takes_its_pair() {
        let candidate = record("x", 4);
        // Response 2 has the best mean and 1 the worst.
        let log = [line(&candidate, &[2.0, 1.0, 5.0, 4.0], &[2.0, 2.0, 4.0, 4.0])];
        let take = |strategy, seed| {
            rated_pairs(std::slice::from_ref(&candidate), &log, strategy, 0.0, &Seeds::new(seed))
                .expect("aligned")
        };
        assert_eq!(texts(&take(Strategy::BestWorst, 0).records[0]), ("answer 2 of x", "answer 1 of x"));
        let random: BTreeSet<String> = (0..30)
            .map(|seed| {
                let made = take(Strategy::BestRandom, seed);
                let (chosen, rejected) = texts(&made.records[0]);
                assert_eq!(chosen, "answer 2 of x");
                rejected.to_owned()
            })
            .collect();
        assert_eq!(random.len(), 3, "{random:?}");
        // Leads that hold in both orders: 2 over 0 and 1 by 2, 3 over 0 and 1 by 2, 2 over 3 by 0.
        for seed in 0..20 {
            let made = take(Strategy::MaxMargin, seed);
            let (chosen, rejected) = texts(&made.records[0]);
            assert!(["answer 2 of x", "answer 3 of x"].contains(&chosen), "{chosen}");
            assert!(["answer 0 of x", "answer 1 of x"].contains(&rejected), "{rejected}");
        }
    }

    #[test]
    fn ties_and_unrated_records_make_no_pair() {
        let (tied, narrow, contradicted, unrated) =
            (record("t", 3), record("n", 2), record("c", 2), record("u", 2));
        let mut log = vec![
            line(&tied, &[3.0; 3], &[3.0; 3]),
            line(&narrow, &[3.0, 4.0], &[3.0, 4.0]),
            line(&contradicted, &[1.0, 5.0], &[3.0, 2.0]),
            line(&unrated, &[], &[]),
        ];
        log.reverse();
        let records = [tied, narrow, contradicted, unrated];
        let count = |strategy, margin| {
            let made = rated_pairs(&records, &log, strategy, margin, &Seeds::new(0)).expect("aligned");
            (made.records.len(), made.tied, made.unrated)
        };
        assert_eq!(count(Strategy::BestWorst, 0.0), (2, 1, 1));
        assert_eq!(count(Strategy::BestRandom, 1.0), (1, 2, 1), "a lead of 1 is not above 1");
        assert_eq!(count(Strategy::MaxMargin, 0.0), (1, 2, 1), "one order contradicts the other");
    }

    #[test]
    fn a_log_of_other_records_is_refused() {
        let known = record("x", 2);
        let good = line(&known, &[1.0, 2.0], &[1.0, 2.0]);
        let other = Annotation { id: "y".to_owned(), ..good.clone() };
        let changed = Annotation { digest: "0".to_owned(), ..good.clone() };
        for log in
            [vec![], vec![other.clone()], vec![changed], vec![good.clone(), other], vec![good.clone(), good]]
        {
            let records = std::slice::from_ref(&known);
            let made = rated_pairs(records, &log, Strategy::BestWorst, 0.0, &Seeds::new(0));
            assert!(made.is_err_and(|error| error.is_bad_input()), "{log:?}");
        }
        let pairwise = [line(&known, &[], &[])];
        let made = rated_pairs(&[known], &pairwise, Strategy::BestWorst, 0.0, &Seeds::new(0));
        assert!(matches!(made, Err(AnnotateError::NotRated)));
    }
}
