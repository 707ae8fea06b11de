//! Tables 8 and 9, and the tuned columns of Table 5: at the β that the sweep chooses.

use experiment::{Cell, Grid, Runner, Subject, loss_name, percent};
use pref_data::FlipRate;
use report::table::{Align, Column, Table, Value};
use trainer::HeldOutMetrics;

use super::{QUARTERS, Sweep};
use crate::error::StudyError;
use crate::question::{About, Question};
use crate::recipe::{PaperSet, StudyRecipe};
use crate::results::Results;
use crate::tables::{Policy, Slice, is_baseline, progress};
use crate::tuning::{Chosen, Setting, annotator};

/// How scores depend on volume, noise and checkpoints at the chosen β.
pub struct Tuned;

impl Question for Tuned {
    fn about(&self) -> About {
        About {
            name: "tuned",
            tables: &["8", "9"],
            title: "Tables 8 and 9: at the tuned β",
            help: "Volume, noise and checkpoints at the β that the sweep chooses.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        Sweep.grid(recipe)
    }

    fn grid_of_results(&self, recipe: &StudyRecipe, runner: &Runner) -> Result<Option<Grid>, StudyError> {
        let Some(collected) = runner.stored(&Sweep.grid(recipe))? else { return Ok(None) };
        let chosen = Chosen::of(&Results::new(recipe, runner, &collected))?;
        Ok(chosen.map(|chosen| tuned_grid(recipe, &chosen)))
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let Some(chosen) = Chosen::of(results)? else { return Ok(Vec::new()) };
        Ok(vec![checkpoints(results, &chosen)?, volume(results, &chosen)?, noise(results, &chosen)?])
    }

    fn printed(&self, set: PaperSet) -> &'static [usize] {
        if set == PaperSet::Gair { &[8, 9] } else { &[] }
    }
}

/// Returns the sweep, and checkpoints and volumes of the settings with clean labels at the chosen β.
fn tuned_grid(recipe: &StudyRecipe, chosen: &Chosen) -> Grid {
    let study = &recipe.study;
    let mut grid = Sweep.grid(recipe);
    let checkpoints = recipe.train.checkpoints.len();
    for seed in 0..study.seeds {
        for setting in Setting::all() {
            if setting.flip_rate == FlipRate::NONE {
                let cell = setting.cell(study, chosen.beta(setting), seed);
                grid.add_cell(&cell, 0..checkpoints);
                for fraction in study.volumes_or(QUARTERS) {
                    grid.add_cell(&Cell { fraction, ..cell.clone() }, [checkpoints - 1]);
                }
            }
        }
    }
    grid
}

/// Returns the tuned columns of Table 5.
fn checkpoints(results: &Results<'_>, chosen: &Chosen) -> Result<Table, StudyError> {
    let [dpo, ipo, ..] = Setting::all();
    let policies = [dpo, ipo].map(|setting| {
        let beta = chosen.beta(setting);
        Policy {
            name: format!("{}, β = {}", loss_name(setting.loss), beta.get()),
            is: Box::new(move |cell| *cell == setting.cell(&results.recipe.study, beta, cell.seed)),
        }
    });
    progress(results, "table-5-tuned", "Training loss and scores at the tuned β".to_owned(), &policies)
}

/// Returns Table 8: scores by volume at the chosen β.
fn volume(results: &Results<'_>, chosen: &Chosen) -> Result<Table, StudyError> {
    let [dpo, ipo, ..] = Setting::all();
    let columns = [dpo, ipo].map(|setting| {
        let title = format!("{}, β = {}", loss_name(setting.loss), chosen.beta(setting).get());
        Slice::new(title, move |subject: &Subject| match subject {
            Subject::Baseline { .. } => true,
            Subject::Trained { cell, .. } => {
                cell.loss == setting.loss
                    && cell.flip_rate == setting.flip_rate
                    && cell.beta == chosen.beta(setting)
            }
        })
    });
    let shares = results.recipe.study.volumes_or(QUARTERS);
    let levels = shares.into_iter().map(|share| {
        Slice::new(format!("{}%", percent(share.get())), move |subject: &Subject| {
            matches!(subject, Subject::Trained { cell, .. } if cell.fraction == share)
        })
    });
    let levels: Vec<_> = [Slice::new("SFT (baseline)", is_baseline)].into_iter().chain(levels).collect();
    pivot(results, "table-8", "Scores by volume at the tuned β", "Share of pairs", &levels, &columns)
}

/// Returns Table 9: scores under flipped labels at the chosen β. Without flipped labels, cDPO's score is DPO's, as in the
/// paper.
fn noise(results: &Results<'_>, chosen: &Chosen) -> Result<Table, StudyError> {
    let [clean, _, noisy_dpo, noisy_cdpo] = Setting::all();
    let columns = [noisy_dpo, noisy_cdpo].map(|setting| {
        Slice::new(loss_name(setting.loss), move |subject: &Subject| match subject {
            Subject::Baseline { .. } => true,
            Subject::Trained { cell, .. } => cell.flip_rate == clean.flip_rate || cell.loss == setting.loss,
        })
    });
    let at = |setting: Setting| {
        let beta = chosen.beta(setting);
        move |subject: &Subject| setting.holds(results, subject, beta)
    };
    let (of_dpo, of_cdpo) = (at(noisy_dpo), at(noisy_cdpo));
    let levels = [
        Slice::new("SFT (baseline)", is_baseline),
        Slice::new(format!("0%, DPO's β = {}", chosen.beta(clean).get()), at(clean)),
        Slice::new(
            format!("5%, β = {} and {}", chosen.beta(noisy_dpo).get(), chosen.beta(noisy_cdpo).get()),
            move |subject: &Subject| of_dpo(subject) || of_cdpo(subject),
        ),
    ];
    pivot(
        results,
        "table-9",
        "Scores under flipped labels at the tuned β",
        "Flipped labels",
        &levels,
        &columns,
    )
}

fn pivot(
    results: &Results<'_>,
    id: &str,
    title: &str,
    header: &str,
    levels: &[Slice<'_>],
    columns: &[Slice<'_>],
) -> Result<Table, StudyError> {
    let scorers = results.scorers();
    let last = results.last_checkpoint();
    let is_final = |subject: &Subject| match subject {
        Subject::Baseline { .. } => true,
        Subject::Trained { checkpoint, .. } => *checkpoint == last,
    };
    let mut rows = Vec::new();
    for scorer in scorers.shown() {
        for (at, level) in levels.iter().enumerate() {
            let label = if at == 0 { scorer.label.as_str() } else { "" };
            let mut row = vec![Value::text(label), Value::text(&level.label)];
            for column in columns {
                let keep =
                    |subject: &Subject| is_final(subject) && (level.keep)(subject) && (column.keep)(subject);
                row.push(results.scores.mean_value(scorer, &keep)?);
            }
            rows.push(row);
        }
    }
    let by = match results.scores.held_out(&|_| true, HeldOutMetrics::accuracy) {
        Some(_) => "accuracy on held-out preferences, so that these scores have no optimism",
        None => {
            "the judge's scores of the same questions, which makes the tuned scores optimistic: see the sweep"
        }
    };
    Ok(Table {
        id: id.into(),
        title: title.into(),
        columns: [Column::new("Scorer", Align::Left), Column::new(header, Align::Left)]
            .into_iter()
            .chain(columns.iter().map(|column| Column::new(&column.label, Align::Right)))
            .collect(),
        rows,
        notes: vec![
            results.scores.interval_note(),
            format!("On the preferences of {}. β was chosen by {by}.", annotator(&results.recipe.study)),
        ],
    })
}
