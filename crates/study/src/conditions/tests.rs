//! Maps of constructed scores.

use experiment::{Analysis, Scorers};
use stats::{Assay, DetectableEffect, MeanEstimate};

use super::*;
use crate::fixtures::subjects;
use crate::recipe::Preset;
use crate::verdict::Shown;

const AXES: [&str; 7] = [
    "study.seeds=4",
    "study.map.learning_rates=[1e-4, 1e-3]",
    "study.map.epochs=[3]",
    "study.map.flip_rates=[0.0, 0.25]",
    "study.map.label_smoothing=[0.1]",
    "study.map.logp_reductions=[\"sum\"]",
    "study.map.volumes=[0.25, 1.0]",
];

fn recipe() -> StudyRecipe {
    StudyRecipe::preset(Preset::Sandbox, &AXES.map(str::to_owned)).unwrap()
}

/// Returns the marks of the map by line, and its sentences. At the recipe's learning rate the means are the paper's, and
/// cDPO has the mean `cdpo`; at the other rate nothing is learned.
fn marked(cdpo: f64) -> (Vec<(&'static str, String, Vec<Mark>)>, Vec<String>) {
    let recipe = recipe();
    let map = Map::new(&recipe);
    let mean = |subject: &Subject| match subject {
        Subject::Baseline { .. } => 5.0,
        Subject::Trained { cell, .. } if cell.learning_rate.is_some() => 5.0,
        Subject::Trained { cell, checkpoint } => match (cell.loss, checkpoint) {
            (LossKind::Cdpo, _) => cdpo,
            (LossKind::Ipo, 3) if cell.fraction == Fraction::ALL => 5.5,
            (LossKind::Ipo, 1) => 6.5,
            _ => 6.0,
        },
    };
    let scored: Vec<(Subject, f64)> =
        map.grid().subjects().iter().map(|subject| (subject.clone(), mean(subject))).collect();
    let setup = recipe.setup();
    let collected = subjects(&setup, scored);
    let analysis = Analysis::new(&setup, &collected);
    let judge = Scorers::of(&setup).judge;
    let marked = map.mark(&analysis, &judge).unwrap();
    let sentences = sentences(&map, &marked, &analysis, &judge);
    let table = table(&map, &marked, "table-map", "a map".to_owned());
    assert_eq!(table.rows.len(), map.lines.len());
    let rows = map.lines.iter().zip(marked.cells).map(|(line, cells)| {
        let marks = cells.into_iter().map(|cell| cell.expect("all policies are there").1);
        (line.pattern.says(), line.name(), marks.collect())
    });
    (rows.collect(), sentences)
}

#[test]
fn patterns_arise_where_the_scores_have_them() {
    use Mark::{Absent, Arises, Insensitive};
    let (marks, sentences) = marked(6.0);
    let expected = [
        ("DPO is unharmed by flips", "DPO", Arises),
        ("IPO falls with volume", "IPO, sum", Arises),
        ("training overfits", "DPO", Absent),
        ("training overfits", "DPO, 25% flipped", Absent),
        ("training overfits", "IPO, sum", Arises),
        ("cDPO beats DPO", "cDPO, ε = 0.1, 25% flipped", Absent),
    ];
    let expected = expected.map(|(says, name, mark)| (says, name.to_owned(), vec![mark, Insensitive]));
    assert_eq!(marks, expected);
    assert_eq!(sentences.len(), 5);
    assert!(
        sentences[1].starts_with(
            "“IPO falls with volume” arises in 1 of 2 places (IPO, sum: 1e-4 with 3 epochs), and does not in 0; in 1 the gain"
        ),
        "{sentences:?}"
    );
    assert!(
        sentences[1].contains("from the smallest share of the pairs to the largest: answer length 10 → 10")
    );
    assert!(sentences[4].ends_with("hold at learning rate 1e-4, 3 epochs, IPO by sum."), "{sentences:?}");
}

#[test]
fn the_findings_of_the_paper_hold_only_together() {
    let (marks, sentences) = marked(6.5);
    assert_eq!(marks[5].2[0], Mark::Arises, "cDPO beats DPO");
    assert!(sentences[3].contains("(cDPO, ε = 0.1, 25% flipped: 1e-4 with 3 epochs)"), "{sentences:?}");
    assert!(sentences[4].ends_with("hold nowhere in this map."), "{sentences:?}");
}

#[test]
fn a_mark_is_a_verdict_or_the_reason_why_there_is_none() {
    let nothing =
        Shown { is_higher: false, p: 0.5, equivalence: 0.5, not_lower: 0.5, assay: Assay::Sensitive };
    let mark = |shown: Shown, mde: f64| {
        let estimate = MeanEstimate { value: -0.1, standard_error: 0.1, degrees_of_freedom: 40.0 };
        let interval = stats::Interval { low: mde, high: mde, level: 0.9 };
        let mde = DetectableEffect { value: mde, interval };
        let measured = Measured { estimate, level: 0.95, shown, mde, size: (40, 2), control: None };
        Mark::of(&measured, Expectation::Lower, 0.2)
    };
    for (shown, mde, expected) in [
        (Shown { p: 0.01, ..nothing }, 0.5, Mark::Arises),
        (Shown { p: 0.01, is_higher: true, ..nothing }, 0.5, Mark::Absent),
        (Shown { equivalence: 0.01, ..nothing }, 0.5, Mark::Absent),
        (Shown { equivalence: 0.01, assay: Assay::NotSensitive, ..nothing }, 0.1, Mark::Insensitive),
        (Shown { assay: Assay::NotSensitive, ..nothing }, 0.5, Mark::Insensitive),
        (Shown { p: 0.01, assay: Assay::NotSensitive, ..nothing }, 0.5, Mark::Arises),
        (nothing, 0.3, Mark::TooSmall),
        (nothing, 0.2, Mark::Undecided),
    ] {
        assert_eq!(mark(shown, mde), expected, "{shown:?}");
    }
}

#[test]
fn the_map_shares_runs_with_other_questions() {
    let recipe = recipe();
    let grid = Map::new(&recipe).grid();
    // DPO and cDPO with flips, DPO without, IPO on two shares.
    assert_eq!(grid.cells().len(), 2 * 5 * 4);
    let shared = grid.cells().into_iter().filter(|cell| cell.learning_rate.is_none());
    assert!(shared.clone().count() == 5 * 4 && shared.clone().all(|cell| cell.epochs.is_none()));
    assert!(shared.clone().all(|cell| cell.label_smoothing.is_none() && cell.logp_reduction.is_none()));
    // The supervised policy; four checkpoints of DPO with either labels and of IPO, one of the others.
    assert_eq!(grid.subjects().len(), 4 + 2 * 4 * (3 * 4 + 2));
}

#[test]
fn rules_with_the_same_epsilon_are_one_line() {
    let settings = ["study.map.flip_rates=[0.0, 0.1]", "study.map.label_smoothing=[0.1, \"flip_rate\"]"];
    let recipe = StudyRecipe::preset(Preset::Sandbox, &settings.map(str::to_owned)).unwrap();
    let of_cdpo = Map::new(&recipe).lines.iter().filter(|line| line.pattern == Pattern::CdpoBeatsDpo).count();
    assert_eq!(of_cdpo, 1);
}
