//! The grids of the questions.

use std::num::NonZeroU64;

use experiment::{Cell, Grid, Subject};
use study::Question;
use study::questions::{
    Acquisition, EqualSteps, Mixtures, Noise, Overfitting, SmoothingRules, Sweep, Volume,
};
use study::recipe::{Preset, StudyRecipe};

fn of(question: &dyn Question) -> Grid {
    question.grid(&StudyRecipe::preset(Preset::Sandbox, &[]).unwrap())
}

#[test]
fn questions_share_cells() {
    let cells = |question: &dyn Question| {
        let grid = of(question);
        grid.cells().into_iter().cloned().collect::<Vec<_>>()
    };
    let acquisition = cells(&Acquisition);
    assert_eq!(acquisition.len(), 2 * 2 * 2);
    assert_eq!(cells(&Overfitting), acquisition, "Table 5 has the runs of Table 1");
    for (question, clean) in [(&Volume as &dyn Question, 8), (&Noise, 4)] {
        let shared = cells(question).iter().filter(|cell| acquisition.contains(cell)).count();
        assert_eq!(shared, clean, "{} shares the clean runs on all pairs", question.about().name);
    }
}

#[test]
fn a_joined_grid_has_each_subject_once_and_counts_every_request() {
    let mut joined = of(&Acquisition);
    let alone = joined.subjects().len();
    joined.join(of(&Overfitting));
    assert_eq!(joined.subjects().len(), of(&Overfitting).subjects().len());
    assert_eq!(joined.requested(), alone + joined.subjects().len());
    let cells = joined.cells().len();
    joined.join(of(&Volume));
    assert_eq!(joined.cells().len(), cells + 3 * 2 * 2 * 2, "three smaller shares are new");
}

#[test]
fn smaller_shares_have_more_epochs_at_equal_steps() {
    let grid = of(&EqualSteps);
    let volumes: Vec<_> = grid.cells().iter().map(|cell| (cell.fraction.get(), cell.epochs)).collect();
    for (share, epochs) in [(0.75, 4), (0.5, 6), (0.25, 12)] {
        assert!(volumes.contains(&(share, NonZeroU64::new(epochs))), "{share}: {volumes:?}");
    }
    let whole = of(&Acquisition);
    let is_shared = |cell: &&Cell| whole.cells().contains(cell);
    assert_eq!(grid.cells().iter().filter(|cell| is_shared(cell)).count(), 8, "all pairs are Table 1's runs");
}

#[test]
fn the_sweep_shares_cells_with_other_questions() {
    let sweep = of(&Sweep);
    assert_eq!(sweep.cells().len(), 4 * 11 * 2);
    let mut others = of(&Acquisition);
    others.join(of(&Noise));
    let shared = sweep.cells().iter().filter(|cell| others.cells().contains(cell)).count();
    assert_eq!(shared, 4 * 2, "each setting's default β");
}

#[test]
fn mixtures_share_the_cells_of_either_annotator() {
    let grid = of(&Mixtures);
    assert_eq!(grid.cells().len(), (2 + 3 + 3) * 2, "alone, mixtures, slices");
    let whole = of(&Acquisition);
    let shared = grid.cells().iter().filter(|cell| whole.cells().contains(cell)).count();
    assert_eq!(shared, 2 * 2);
    let one = StudyRecipe::preset(Preset::Sandbox, &["study.annotators=[\"human\"]".to_owned()]).unwrap();
    assert!(Mixtures.grid(&one).cells().is_empty(), "one annotator has no mixtures");
}

#[test]
fn both_rules_for_epsilon_share_the_cells_of_the_question_on_noise() {
    let grid = of(&SmoothingRules);
    assert_eq!(grid.cells().len(), 2 * 5 * 3 * 2, "DPO, and cDPO under two rules");
    let noise = of(&Noise);
    let shared = grid.cells().iter().filter(|cell| noise.cells().contains(cell)).count();
    assert_eq!(shared, 2 * 5 * 2 * 2);
    let recipe =
        StudyRecipe::preset(Preset::Sandbox, &["loss.label_smoothing=flip_rate".to_owned()]).unwrap();
    let rules: Vec<String> = SmoothingRules
        .grid(&recipe)
        .cells()
        .iter()
        .filter_map(|cell| cell.label_smoothing.map(|rule| rule.to_string()))
        .collect();
    assert!(rules.len() == 2 * 5 * 2 && rules.iter().all(|rule| rule == "0.1"), "{rules:?}");
}

#[test]
fn overfitting_evaluates_every_checkpoint() {
    let grid = of(&Overfitting);
    assert_eq!(grid.subjects().len(), 2 + 8 * 4);
    let grid = of(&Acquisition);
    assert!(grid.subjects().iter().all(|s| !matches!(s, Subject::Trained { checkpoint: 0..=2, .. })));
}
