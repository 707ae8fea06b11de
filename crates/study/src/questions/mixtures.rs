//! Beyond RQ1: two annotators' labels, mixed, and on the records where they agree or differ.

use experiment::{Cell, Grid, Subject, loss_name, slice_name};
use pref_data::{AgreementSlice, Keep};
use pref_loss::Beta;
use report::table::{Align, Column, Table, Value};
use trainer::recipe::LossKind;

use crate::claims::Claim;
use crate::contrast::{Contrast, Select};
use crate::error::StudyError;
use crate::question::{About, Question};
use crate::recipe::{StudyRecipe, StudySection};
use crate::results::Results;
use crate::tables::is_baseline;

const DPO: &[LossKind] = &[LossKind::Dpo];

/// The effect of mixing two annotators' labels, and of their agreement.
pub struct Mixtures;

impl Question for Mixtures {
    fn about(&self) -> About {
        About {
            name: "mixed",
            tables: &["mixed"],
            title: "Beyond RQ1: mixed labels and agreement",
            help: "Two annotators' labels of the same pairs: each alone, mixed by record, and on records where they agree or differ.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let mut grid = Grid::baselines(study.seeds);
        for seed in 0..study.seeds {
            for labels in Labels::of(study) {
                for &loss in study.losses_or(DPO) {
                    for &beta in study.betas_of(loss) {
                        let cell = labels.cell(loss, beta, seed);
                        grid.add_cell(&cell, [recipe.train.checkpoints.len() - 1]);
                    }
                }
            }
        }
        grid
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        Ok(scores(results)?.into_iter().collect())
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let all = Labels::of(&results.recipe.study);
        let (alone, sliced): (Vec<&Labels>, Vec<&Labels>) =
            all.iter().partition(|labels| labels.slice.is_none());
        let ([one, .., other], [same, of_one, of_other]) = (&alone[..], &sliced[..]) else {
            return Ok(Vec::new());
        };
        let mut claims = Vec::new();
        for &loss in results.recipe.study.losses_or(DPO) {
            let on = |labels: &Labels| -> Select<'a> {
                let (labels, last) = (labels.clone(), results.last_checkpoint());
                Box::new(move |subject| {
                    matches!(subject, Subject::Trained { cell, checkpoint }
                        if *checkpoint == last && cell.loss == loss && labels.is_run(cell))
                })
            };
            let mut claim = |comparison: String, contrast| {
                let comparison = format!("{}: {comparison}", loss_name(loss));
                claims.push(Claim::new("Mixed labels", comparison, contrast));
            };
            for labels in [one, other] {
                let comparison = format!("both agree − all of {}", labels.source);
                claim(comparison, Contrast::difference(on(same), on(labels)));
            }
            let comparison = format!("where they differ: {} − {}", other.source, one.source);
            claim(comparison, Contrast::difference(on(of_other), on(of_one)));
        }
        Ok(claims)
    }
}

/// A source of labels and the records that it labels.
#[derive(Clone, Debug, PartialEq)]
struct Labels {
    /// An annotator or a mixture.
    source: String,
    /// The records on which two annotators agree or differ; `None` for all records.
    slice: Option<AgreementSlice>,
}

impl Labels {
    /// Returns the first two annotators, their mixtures, and both slices. Where they agree, the labels of both are the same.
    fn of(study: &StudySection) -> Vec<Self> {
        let [one, other, ..] = study.annotators.as_slice() else { return Vec::new() };
        let whole = |source: &String| Self { source: source.clone(), slice: None };
        let sliced = |source: &String, keep: Keep| {
            let annotators = [one.clone(), other.clone()];
            Self { source: source.clone(), slice: Some(AgreementSlice { annotators, keep }) }
        };
        let mut all = vec![whole(one)];
        all.extend(study.mixtures().iter().map(whole));
        all.push(whole(other));
        all.extend([sliced(one, Keep::Same), sliced(one, Keep::Different), sliced(other, Keep::Different)]);
        all
    }

    /// Returns the run on these labels.
    fn cell(&self, loss: LossKind, beta: Beta, seed: u64) -> Cell {
        Cell { slice: self.slice.clone(), ..Cell::new(&self.source, loss, beta, seed) }
    }

    /// Returns whether a cell is a run on these labels.
    fn is_run(&self, cell: &Cell) -> bool {
        *cell == self.cell(cell.loss, cell.beta, cell.seed)
    }
}

/// Returns scores by source of labels, with numbers of pairs; `None` without two annotators.
fn scores(results: &Results<'_>) -> Result<Option<Table>, StudyError> {
    let study = &results.recipe.study;
    let all = Labels::of(study);
    if all.is_empty() {
        return Ok(None);
    }
    let scorers = results.scorers();
    let shown = scorers.shown();
    let mut rows = Vec::new();
    for &loss in study.losses_or(DPO) {
        for (at, labels) in all.iter().enumerate() {
            let keep = |subject: &Subject| match subject {
                Subject::Baseline { .. } => false,
                Subject::Trained { cell, checkpoint } => {
                    *checkpoint == results.last_checkpoint() && cell.loss == loss && labels.is_run(cell)
                }
            };
            let records = match &labels.slice {
                Some(slice) => slice_name(slice),
                None => "all".to_owned(),
            };
            let mut row = vec![Value::text(if at == 0 { loss_name(loss) } else { "" })];
            row.extend([Value::text(&labels.source), Value::text(records)]);
            row.push(match results.scores.labels(&keep) {
                Some(trained) => {
                    let pairs = trained.as_annotated().pairs as f64;
                    Value::Number {
                        value: pairs / (study.seeds * study.betas_of(loss).len() as u64) as f64,
                        decimals: 0,
                    }
                }
                None => Value::missing("not recorded"),
            });
            for scorer in &shown {
                row.push(results.scores.mean_value(scorer, &keep)?);
            }
            row.push(results.scores.difference_value(&scorers.judge, &keep, &is_baseline)?);
            rows.push(row);
        }
    }
    Ok(Some(Table {
        id: "table-mixed".into(),
        title: "Scores by source of labels, mixed and where two annotators agree".into(),
        columns: ["Loss", "Labels of", "Records"]
            .map(|title| Column::new(title, Align::Left))
            .into_iter()
            .chain([Column::new("Pairs", Align::Right)])
            .chain(shown.iter().map(|scorer| Column::new(&scorer.title, Align::Right)))
            .chain([Column::new("Judge: difference from SFT", Align::Right)])
            .collect(),
        rows,
        notes: vec![
            "Pairs: mean number of trained pairs per replicate. A slice has fewer pairs, and at equal epochs fewer steps."
                .to_owned(),
            results.scores.interval_note(),
            results.scores.difference_note(),
        ],
    }))
}
