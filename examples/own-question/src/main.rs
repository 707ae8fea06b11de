//! A research question of one's own: `own-question DIR` asks in the sandbox whether hinge loss is better than DPO.
//!
//! A question is one type: the policies that it trains, its tables, and the comparisons that are tested. The study stores
//! every run, so that a second call trains nothing, and writes `report.html` into the folder.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use distributed::ProcessGroup;
use experiment::{Axes, Crew, Grid, Subject};
use pref_data::{FlipRate, Fraction};
use report::table::{Align, Column, Format, Table, Value};
use study::recipe::{Preset, StudyRecipe};
use study::{About, Claim, Contrast, Findings, Question, Questions, Results, Study, StudyError};
use trainer::recipe::LossKind;
use trainer::{Context, NoClock, Silent};

const LOSSES: &[LossKind] = &[LossKind::Hinge, LossKind::Dpo];

/// Whether hinge loss trains a better policy than DPO.
struct HingeAgainstDpo;

fn with_loss(loss: LossKind) -> impl Fn(&Subject) -> bool {
    move |subject| matches!(subject, Subject::Trained { cell, .. } if cell.loss == loss)
}

impl Question for HingeAgainstDpo {
    fn about(&self) -> About {
        About {
            name: "hinge",
            tables: &["hinge"],
            title: "Own: hinge loss against DPO",
            help: "Hinge loss and DPO on the labels of one annotator.",
        }
    }

    /// Every policy: each loss with each seed, and the supervised policy that they start from.
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
        let (hinge, dpo) = (with_loss(LossKind::Hinge), with_loss(LossKind::Dpo));
        let row = vec![
            results.scores.mean_value(&judge, &hinge)?,
            results.scores.mean_value(&judge, &dpo)?,
            results.scores.difference_value(&judge, &hinge, &dpo)?,
        ];
        let columns = ["Hinge", "DPO", "Difference"].map(|name| Column::new(name, Align::Right));
        Ok(vec![Table {
            id: "table-hinge".into(),
            title: "Hinge loss against DPO".into(),
            columns: [Column::new("Judge", Align::Left)].into_iter().chain(columns).collect(),
            rows: vec![[Value::text(&judge.label)].into_iter().chain(row).collect()],
            notes: vec![results.scores.difference_note()],
        }])
    }

    /// The comparisons that get a corrected test, a minimum detectable effect and a verdict.
    fn claims<'a>(&self, _: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let contrast =
            Contrast::difference(Box::new(with_loss(LossKind::Hinge)), Box::new(with_loss(LossKind::Dpo)));
        Ok(vec![Claim::new("Hinge", "hinge − DPO".into(), contrast)])
    }
}

const QUESTIONS: Questions = &[&HingeAgainstDpo];

/// Answers the question in the folder `out`.
fn answer(out: &Path, settings: &[&str]) -> Result<Findings, Box<dyn Error>> {
    let out = format!("output.dir={}", out.display());
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).chain([out]).collect();
    let study = Study::new(StudyRecipe::preset(Preset::Sandbox, &settings)?, QUESTIONS)?;
    let mut context = Context {
        clock: &NoClock,
        progress: &mut Silent,
        stop: &AtomicBool::new(false),
        group: ProcessGroup::single(),
        cache: None,
    };
    let findings = study.answer(QUESTIONS, &Crew::Alone, &mut context)?;
    Ok(findings.ok_or("a single process has findings")?)
}

#[expect(clippy::print_stdout, reason = "the result of a program")]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("name the folder of the results")?;
    let findings = answer(folder.as_ref(), &[])?;
    for table in findings.verdicts.iter().chain(&findings.tables) {
        println!("{}", table.render(Format::Text));
    }
    println!("report: {}", findings.report.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use test_support::SMALL_SANDBOX;

    use super::*;

    #[test]
    fn the_question_is_answered_with_a_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let findings = answer(&folder.path().join("study"), &SMALL_SANDBOX).unwrap();
        let [table] = &findings.tables[..] else { panic!("{:?}", findings.tables) };
        assert!(matches!(table.rows[0][3], Value::Difference { .. }), "{table:?}");
        assert_eq!(findings.verdicts.unwrap().rows.len(), 1);
        assert!(findings.report.exists());
    }
}
