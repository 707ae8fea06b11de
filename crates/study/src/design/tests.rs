//! Simulated studies have the power, coverage and level that formulas predict.

use experiment::results::ScoreRow;
use experiment::{FURTHER, GOLD};
use trainer::Silent;

use super::sizes::{Designs, Enough};
use super::*;
use crate::evidence::POWER;
use crate::questions::Acquisition;
use crate::recipe::Preset;

const STUDIES: usize = 80;
/// Four standard errors of a share near 80% of so many studies.
const SLACK: f64 = 0.18;

fn assumed() -> Assumptions {
    Assumptions { spread: Spread::TYPICAL, source: "assumed".to_owned(), judge: None, studies: STUDIES }
}

fn recipe(settings: &[&str]) -> StudyRecipe {
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
    StudyRecipe::preset(Preset::Laptop, &settings).unwrap()
}

fn found(recipe: &StudyRecipe, assumed: &Assumptions) -> Found {
    let simulation = Simulation::of(recipe, &Acquisition, assumed).unwrap().unwrap();
    simulation.run(&mut Silent).unwrap()
}

#[test]
fn larger_effects_are_found_more_often_and_intervals_cover() {
    let recipe = recipe(&["study.seeds=3", "study.annotators=[\"human\", \"gpt-4-turbo\"]"]);
    let Found { power, coverage, detectable, false_alarms } = found(&recipe, &assumed());
    assert_eq!(power.len(), 2, "does training help, and whose labels are better");
    for shares in power.into_iter().flatten() {
        assert!(shares.is_sorted() && shares[2] - shares[0] > 0.2, "{shares:?}");
    }
    assert!(coverage.iter().all(|share| (0.9..=1.0).contains(share)), "{coverage:?}");
    assert!(false_alarms.iter().all(|share| *share <= 0.05 + SLACK), "{false_alarms:?}");
    assert!(detectable.iter().all(|mde| (0.1..1.0).contains(mde)), "{detectable:?}");
}

#[test]
fn a_recommended_design_has_its_power_in_simulations() {
    let (recipe, assumed) = (recipe(&["study.seeds=2"]), assumed());
    let simulation = Simulation::of(&recipe, &Acquisition, &assumed).unwrap().unwrap();
    let simulated = vec![(simulation, found(&recipe, &assumed))];
    let Designs { by_seeds, factor, cheapest } = Designs::of(&recipe, &simulated, &assumed).unwrap();
    let (at, power) = cheapest.expect("many seeds are enough");
    assert!(
        power >= POWER - SLACK && (1.0..2.0).contains(&factor),
        "{power} with {factor} times the questions"
    );
    let questions = |design: &Option<Enough>| design.as_ref().map_or(usize::MAX, |design| design.questions);
    assert!(by_seeds.is_sorted_by(|(_, few), (_, more)| questions(few) >= questions(more)));
    let Enough { seeds, questions, runs, calls } = by_seeds[at].1.as_ref().unwrap();
    assert_eq!((*runs, *calls), (2 * *seeds as usize, 3 * seeds * *questions as u64 * 2));
}

#[test]
fn an_earlier_study_shows_its_spread() {
    let recipe = recipe(&["study.seeds=8", "study.annotators=[\"human\", \"a\", \"b\", \"c\"]"]);
    let planted = Spread { seed: 0.3, policy_question: 0.5, seed_question: 0.0, answer: 1.0, length: 0.5 };
    let assumed = Assumptions { spread: planted, ..assumed() };
    let simulation = Simulation::of(&recipe, &Acquisition, &assumed).unwrap().unwrap();
    let collected = simulation.draw(&[0.0; 9], 0);
    let rows: Vec<_> =
        collected.evaluated.iter().flat_map(|evaluated| evaluated.rows(&simulation.setup)).collect();
    // Answers of the four annotators' policies have 400, 800, 1600 and 3200 characters, those of SFT 1600.
    let annotators = ["human", "a", "b", "c"];
    let with_length = |row: ScoreRow| {
        let at = annotators.iter().position(|name| *name == row.annotator).unwrap_or(2);
        ScoreRow { characters: 400 << at, ..row }
    };
    let rows: Vec<ScoreRow> = rows.into_iter().map(with_length).collect();
    let folder = tempfile::tempdir().unwrap();
    // As in the sandbox: other questions, and another scorer.
    let other = |row: &ScoreRow| {
        let (question_set, scorer) = (FURTHER.to_owned(), GOLD.to_owned());
        ScoreRow { question_set, scorer, question_id: row.question_id + 1000, ..row.clone() }
    };
    let all: Vec<ScoreRow> = rows.iter().map(other).chain(rows.iter().cloned()).collect();
    experiment::results::write_parquet(&folder.path().join("results.parquet"), &all).unwrap();
    let spread = Spread::of_study(folder.path()).unwrap();
    for (measured, planted) in [
        (spread.seed, planted.seed),
        (spread.policy_question, planted.policy_question),
        (spread.answer, planted.answer),
    ] {
        assert!((measured - planted).abs() < 0.15, "{spread:?}");
    }
    // DPO and IPO of each annotator, and SFT: 2, 2, 3 and 2 policies.
    let doublings: [f64; 9] = [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0];
    let mean = doublings.iter().sum::<f64>() / 9.0;
    let expected = (doublings.iter().map(|length| (length - mean).powi(2)).sum::<f64>() / 8.0).sqrt();
    assert!((spread.length - expected).abs() < 1e-9, "{spread:?}, not {expected}");
    let one: Vec<_> = rows.into_iter().filter(|row| row.seed == 0).collect();
    experiment::results::write_parquet(&folder.path().join("results.parquet"), &one).unwrap();
    let error = Spread::of_study(folder.path()).unwrap_err().to_string();
    assert!(error.contains("fewer than two policies with two or more seeds"), "{error}");
}

#[test]
fn a_judge_that_shows_half_of_an_effect_finds_less() {
    let recipe = recipe(&["study.seeds=3"]);
    let half = JudgeFit { slope: 0.5, correlation: 0.6, answers: 200, per_doubling: None };
    let by_half = found(&recipe, &Assumptions { judge: Some(half), ..assumed() }).power[0].unwrap();
    let whole = found(&recipe, &assumed()).power[0].unwrap();
    assert_eq!(by_half[1], whole[0], "the same scores: 0.2 points of people are 0.1 of the judge");
    assert_eq!(by_half[2], whole[1]);
}

#[test]
fn a_judge_that_favors_length_raises_false_alarms_that_no_size_removes() {
    let recipe = recipe(&["study.seeds=6", "study.questions=160"]);
    let judge = JudgeFit { slope: 1.0, correlation: 0.6, answers: 200, per_doubling: Some(1.5) };
    let biased = Assumptions { judge: Some(judge), ..assumed() };
    let (fair, unfair) = (found(&recipe, &assumed()), found(&recipe, &biased));
    assert!(unfair.false_alarms[0] > fair.false_alarms[0] + 0.3, "{:?}", unfair.false_alarms);
    assert!(unfair.coverage[0] < 0.8 && fair.coverage[0] > 0.9, "{:?}", unfair.coverage);
    assert_eq!(
        found(&recipe, &biased.without_length_bias()).power,
        fair.power,
        "the same draws without a bias"
    );
    let tables =
        design(&recipe, &[&Acquisition], &Assumptions { studies: 20, ..biased }, &mut Silent).unwrap();
    assert!(tables[0].notes.iter().any(|note| note.contains("+1.50 points for a doubling of length")));
    assert!(tables[1].notes.iter().any(|note| note.starts_with("Without the judge's length bias")));
}

#[test]
fn tables_name_assumptions_and_the_cheapest_design() {
    let recipe = recipe(&["study.seeds=2"]);
    let assumed = Assumptions { studies: 20, ..assumed() };
    let tables = design(&recipe, &[&Acquisition], &assumed, &mut Silent).unwrap();
    let ids: Vec<&str> = tables.iter().map(|table| table.id.as_ref()).collect();
    assert_eq!(ids, ["design", "designs"]);
    assert!(tables[0].notes[2].starts_with("Standard deviations, assumed: training seeds 0.15"));
    assert!(tables[1].notes[1].starts_with("The fewest judge calls: "), "{:?}", tables[1].notes);
    assert_eq!(tables, design(&recipe, &[&Acquisition], &assumed, &mut Silent).unwrap(), "the same seeds");
}
