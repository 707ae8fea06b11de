//! A question in one file, outside of the list of questions, runs like the others.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use distributed::ProcessGroup;
use experiment::results::read_parquet;
use experiment::{Axes, BENCHMARK, Crew, FURTHER, Grid, Subject};
use pref_data::{FlipRate, Fraction};
use report::table::{Align, Column, Table, Value};
use study::recipe::{Preset, StudyRecipe};
use study::{About, Claim, Contrast, Findings, Question, Questions, Results, Study, StudyError};
use test_support::SMALL_SANDBOX;
use trainer::recipe::LossKind;
use trainer::{Context, NoClock, Silent};

const LOSSES: &[LossKind] = &[LossKind::Hinge];

/// Whether hinge loss improves on the supervised policy.
struct Hinge;

fn is_trained(subject: &Subject) -> bool {
    matches!(subject, Subject::Trained { .. })
}

fn is_baseline(subject: &Subject) -> bool {
    !is_trained(subject)
}

impl Question for Hinge {
    fn about(&self) -> About {
        About {
            name: "hinge",
            tables: &["hinge"],
            title: "Own: hinge loss",
            help: "Hinge loss on the labels of one annotator.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let axes = Axes {
            annotators: &study.annotators[..1],
            volumes: vec![(Fraction::ALL, None)],
            flip_rates: vec![FlipRate::NONE],
            losses: LOSSES,
            betas: &study.betas,
            loss_betas: &study.loss_betas,
            seeds: study.seeds,
        };
        let mut grid = Grid::baselines(study.seeds);
        for cell in axes.cells() {
            grid.add_cell(&cell, [recipe.train.checkpoints.len() - 1]);
        }
        grid
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let judge = results.scorers().judge;
        let difference = results.scores.difference_value(&judge, &is_trained, &is_baseline)?;
        Ok(vec![Table {
            id: "table-hinge".into(),
            title: "Hinge loss".into(),
            columns: vec![Column::new("Loss", Align::Left), Column::new("Difference from SFT", Align::Right)],
            rows: vec![vec![Value::text("hinge"), difference]],
            notes: Vec::new(),
        }])
    }

    fn claims<'a>(&self, _: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let contrast = Contrast::difference(Box::new(is_trained), Box::new(is_baseline));
        Ok(vec![Claim::new("Hinge", "hinge − SFT".into(), contrast)])
    }
}

const QUESTIONS: Questions = &[&study::questions::Acquisition, &Hinge];

/// Answers `Hinge` in the folder `out`, with `more` settings.
fn answer(out: &Path, more: &[&str]) -> Findings {
    let settings = SMALL_SANDBOX.iter().chain(more).map(|&setting| setting.to_owned());
    let settings: Vec<String> = settings.chain([format!("output.dir={}", out.display())]).collect();
    let recipe = StudyRecipe::preset(Preset::Sandbox, &settings).unwrap();
    let study = Study::new(recipe, QUESTIONS).unwrap();
    let (mut silent, stop) = (Silent, AtomicBool::new(false));
    let mut context = Context {
        clock: &NoClock,
        progress: &mut silent,
        stop: &stop,
        group: ProcessGroup::single(),
        cache: None,
    };
    study.answer(&[&Hinge], &Crew::Alone, &mut context).unwrap().expect("a single process has findings")
}

#[test]
fn a_question_of_ones_own_runs_in_a_study() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let findings = answer(&out, &[]);

    assert_eq!(findings.tables.len(), 1);
    assert!(matches!(findings.tables[0].rows[0][1], Value::Difference { .. }), "{:?}", findings.tables);
    assert!(findings.components.is_none(), "one seed shows no variance between seeds");
    let verdicts = findings.verdicts.unwrap();
    assert_eq!(verdicts.rows.len(), 1);
    assert!(verdicts.notes.iter().any(|note| note.contains("these very policies")), "{:?}", verdicts.notes);
    let page = std::fs::read_to_string(findings.report).unwrap();
    assert!(page.contains("Own: hinge loss"));
    let cells = study::registry(&out, QUESTIONS).unwrap().table().unwrap();
    assert_eq!(cells.rows.len(), 2, "the supervised policy and one run");
    assert!(cells.rows.iter().all(|row| row[1] == Value::text("hinge")), "{:?}", cells.rows);
}

#[test]
fn seeds_samples_and_ratings_are_separate_factors() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let runs = || std::fs::read_dir(out.join("store/runs")).unwrap().count();
    let evaluations = || std::fs::read_dir(out.join("store/scores")).unwrap().count();
    answer(&out, &["study.seeds=2"]);
    assert_eq!((runs(), evaluations()), (2, 4), "two policies with two seeds");

    let more = answer(&out, &["study.seeds=2", "answers.samples=3"]);
    assert_eq!((runs(), evaluations()), (2, 12), "the policies answer twice more, and none is trained");
    let rows = read_parquet(&out.join("results.parquet")).unwrap();
    let samples = |set: &str| -> BTreeSet<u64> {
        rows.iter().filter(|row| row.question_set == set).map(|row| row.sample).collect()
    };
    assert_eq!((samples(BENCHMARK).len(), samples(FURTHER).len()), (3, 1));
    let sources = |findings: &Findings| -> Vec<String> {
        let rows = &findings.components.as_ref().expect("two seeds").rows;
        rows.iter().map(|row| format!("{:?}", row[2])).collect()
    };
    let has = |of: &[String], what: &str| of.iter().any(|source| source.contains(what));
    let components = sources(&more);
    assert!(has(&components, "training") && has(&components, "sampling of an answer"), "{components:?}");
    assert!(!has(&components, "judge: one of several"), "{components:?}");

    let rated = answer(&out, &["study.seeds=2", "judge.repeats=3"]);
    assert_eq!((runs(), evaluations()), (2, 16), "the same answers are rated again");
    assert!(has(&sources(&rated), "judge: one of several"), "{:?}", sources(&rated));
}
