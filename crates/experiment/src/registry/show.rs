//! The report on one cell.

use report::table::{Align, Column, Table, Value};
use trainer::{HeldOutMetrics, PreferenceMetrics, RunDir, StepMetrics};

use super::{Entry, Registry};
use crate::analysis::Analysis;
use crate::cell::{Subject, percent};
use crate::error::ExperimentError;
use crate::evaluated::{Collected, Evaluated, Score};
use crate::runner::Runner;
use crate::scorers::Scorers;

impl Registry {
    /// Returns tables on the cell whose name has the prefix `id`: state, training, scores with intervals, sample answers, and
    /// recipe.
    ///
    /// # Errors
    ///
    /// [`ExperimentError::UnknownCell`] if no name has the prefix, or several have it; if the store cannot be read.
    pub fn show(&self, id: &str) -> Result<Vec<Table>, ExperimentError> {
        let entry = self.find(id)?;
        let mut tables = vec![self.summary(entry)?];
        if let Some(run) = &entry.run {
            tables.extend(training(&RunDir::open_finished(run).ok(), entry, self)?);
        }
        if let Some(runner) = self.runner(entry) {
            let collected = collected(runner, entry)?;
            if collected.evaluated.iter().any(|of| entry.subjects.contains(&of.subject)) {
                tables.push(scores(runner, entry, &collected)?);
                tables.extend(answers(runner, entry, &collected.evaluated)?);
            }
        }
        if let Some(run) = &entry.run {
            tables.extend(recipe(&run.join("recipe.toml"))?);
        }
        Ok(tables)
    }

    fn find(&self, id: &str) -> Result<&Entry, ExperimentError> {
        let found: Vec<&Entry> = self.entries.iter().filter(|entry| entry.id.starts_with(id)).collect();
        match found[..] {
            [entry] => Ok(entry),
            _ => Err(ExperimentError::UnknownCell {
                id: id.to_owned(),
                folder: self.folder.clone(),
                matches: found.iter().map(|entry| entry.id.clone()).collect(),
            }),
        }
    }

    fn summary(&self, entry: &Entry) -> Result<Table, ExperimentError> {
        let what = match &entry.cell {
            None => "the supervised policy".to_owned(),
            Some(cell) => cell.to_string(),
        };
        let names = self.names_of(entry);
        let mut rows = vec![("What", what), ("State", self.state(entry)?)];
        rows.push(("Questions", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
        if let Some(run) = &entry.run {
            rows.push(("Folder", run.display().to_string()));
        }
        Ok(two_columns("cell", format!("Cell {}", entry.id), rows))
    }
}

/// Reads the results of an entry and of the supervised policy with the same seeds.
fn collected(runner: &Runner, entry: &Entry) -> Result<Collected, ExperimentError> {
    let mut subjects: Vec<Subject> = entry.subjects.clone();
    for seed in entry.subjects.iter().map(Subject::seed).collect::<Vec<_>>() {
        let baseline = Subject::Baseline { seed };
        if !subjects.contains(&baseline) {
            subjects.push(baseline);
        }
    }
    let mut collected = Collected::default();
    for subject in &subjects {
        collected.evaluated.extend(runner.evaluated(subject)?);
        collected.failed.extend(runner.failure(subject)?);
    }
    Ok(collected)
}

/// Returns a table of training metrics by checkpoint; `None` for an unfinished run.
fn training(
    run: &Option<RunDir>,
    entry: &Entry,
    registry: &Registry,
) -> Result<Option<Table>, ExperimentError> {
    let Some(run) = run else { return Ok(None) };
    let steps = run.read_metrics()?;
    let held_out = run.read_evaluations()?;
    let shares = registry.runner(entry).map(|runner| &runner.setup().train.checkpoints);
    let mut rows = Vec::new();
    let mut before = 0;
    for (at, (step, _)) in run.list_checkpoints()?.into_iter().enumerate() {
        let these: Vec<&StepMetrics> = steps.iter().filter(|m| before < m.step && m.step <= step).collect();
        let mean = |of: &dyn Fn(&StepMetrics) -> Option<f64>| {
            let values: Vec<f64> = these.iter().filter_map(|metrics| of(metrics)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let preference = |of: fn(&PreferenceMetrics) -> f64| mean(&|m| m.preference.as_ref().map(of));
        let measured = held_out.iter().find(|metrics| metrics.step == step);
        let share =
            shares.and_then(|shares| shares.get(at)).map_or(String::new(), |&s| format!("{}%", percent(s)));
        rows.push(vec![
            Value::text(share),
            Value::Count(step),
            number(mean(&|m| Some(m.loss)), 4),
            number(preference(|p| p.accuracy), 3),
            number(preference(|p| p.margin), 3),
            number(mean(&|m| Some(m.grad_norm)), 2),
            number(measured.and_then(HeldOutMetrics::accuracy), 3),
            number(measured.and_then(|metrics| metrics.kl), 2),
        ]);
        before = step;
    }
    Ok(Some(Table {
        id: "cell-training".into(),
        title: "Training".into(),
        columns: ["Training", "Step", "Loss", "Accuracy", "Margin", "Gradient norm", "Held-out accuracy", "KL"]
            .map(|title| Column::new(title, Align::Right))
            .into(),
        rows,
        notes: vec![
            "Loss, accuracy, margin (nats) and gradient norm: means over the steps since the previous checkpoint. Held-out \
             accuracy and KL (nats per answer): at the checkpoint."
                .to_owned(),
        ],
    }))
}

/// Returns a table of scores at each evaluated checkpoint, with differences from the supervised policy.
fn scores(runner: &Runner, entry: &Entry, collected: &Collected) -> Result<Table, ExperimentError> {
    let analysis = Analysis::new(runner.setup(), collected);
    let scorers = Scorers::of(runner.setup());
    let is_sft = |subject: &Subject| matches!(subject, Subject::Baseline { .. });
    let mut rows = Vec::new();
    let mut row =
        |at: &str, keep: &dyn Fn(&Subject) -> bool, is_baseline: bool| -> Result<(), ExperimentError> {
            for (k, scorer) in scorers.all().into_iter().enumerate() {
                let label = if k == 0 { at } else { "" };
                rows.push(vec![
                    Value::text(label),
                    Value::text(&scorer.label),
                    analysis.mean_value(scorer, keep)?,
                    match is_baseline {
                        true => Value::text("–"),
                        false => analysis.difference_value(scorer, keep, &is_sft)?,
                    },
                ]);
            }
            Ok(())
        };
    if entry.cell.is_none() {
        for subject in &entry.subjects {
            row(&format!("seed {}", subject.seed()), &|other| other == subject, true)?;
        }
    }
    for subject in &entry.subjects {
        if let Subject::Trained { checkpoint, .. } = subject
            && runner.is_evaluated(subject)
        {
            let share = runner.setup().train.checkpoints.get(*checkpoint).copied().unwrap_or(1.0);
            row(&format!("{}% of training", percent(share)), &|other| other == subject, false)?;
        }
    }
    Ok(Table {
        id: "cell-scores".into(),
        title: "Scores".into(),
        columns: [("After", Align::Left), ("Scorer", Align::Left), ("Score", Align::Right)]
            .into_iter()
            .chain([("Difference from SFT", Align::Right)])
            .map(|(title, align)| Column::new(title, align))
            .collect(),
        rows,
        notes: vec![
            "Brackets: 95% bootstrap intervals clustered by question, for this run. They cover the sampling of questions only."
                .to_owned(),
        ],
    })
}

/// Returns a table of sample answers of the supervised policy and of this cell.
fn answers(
    runner: &Runner,
    entry: &Entry,
    evaluated: &[Evaluated],
) -> Result<Option<Table>, ExperimentError> {
    let is_shown = |of: &&Evaluated| runner.is_final(&of.subject);
    let seed = entry.subjects.iter().map(Subject::seed).min().unwrap_or(0);
    let sft = evaluated.iter().find(|of| of.subject == Subject::Baseline { seed });
    let trained = evaluated.iter().filter(is_shown).find(|of| matches!(of.subject, Subject::Trained { .. }));
    let judge = Scorers::of(runner.setup()).judge;
    let mut shown = Vec::new();
    for (name, of) in [("SFT", sft), ("this cell", trained)] {
        if let Some(of) = of {
            shown.push((name, of, of.evaluation.answers()?));
        }
    }
    let mut rows = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for question in runner.source().questions() {
        if seen.contains(&question.category.as_str()) {
            continue;
        }
        seen.push(&question.category);
        let dash = || Value::text("–");
        rows.push(vec![
            Value::text(&question.category),
            Value::text("prompt"),
            Value::text(&question.turns[0]),
            dash(),
        ]);
        for (name, of, answers) in &shown {
            let answer = answers.iter().find(|answer| answer.question_id == question.question_id);
            let Some(text) = answer.and_then(|answer| answer.turns().first()) else { continue };
            let is_of = |s: &&Score| judge.is_of(s) && (s.question_id, s.turn) == (question.question_id, 1);
            let score = of.evaluation.scores.iter().find(is_of).and_then(|score| score.score);
            rows.push(vec![Value::text(""), Value::text(*name), Value::text(text), number(score, 1)]);
        }
    }
    let left = |title: &str| Column::new(title, Align::Left);
    Ok((!shown.is_empty()).then(|| Table {
        id: "cell-answers".into(),
        title: format!("Sample answers, seed {seed}"),
        columns: vec![left("Category"), left("Policy"), left("Text"), Column::new("Score", Align::Right)],
        rows,
        notes: vec![format!("First question of each category, first turn. Scorer: {}.", judge.name)],
    }))
}

/// Returns a table of the run's resolved recipe.
fn recipe(path: &std::path::Path) -> Result<Option<Table>, ExperimentError> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(None) };
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, value)) = line.split_once(" = ") {
            rows.push((format!("{section}{key}"), value.to_owned()));
        }
    }
    Ok(Some(two_columns("cell-recipe", "Recipe".to_owned(), rows)))
}

fn two_columns<K: Into<String>>(id: &str, title: String, rows: Vec<(K, String)>) -> Table {
    Table {
        id: id.to_owned(),
        title,
        columns: ["Key", "Value"].map(|title| Column::new(title, Align::Left)).into(),
        rows: rows.into_iter().map(|(key, value)| vec![Value::text(key), Value::text(value)]).collect(),
        notes: Vec::new(),
    }
}

fn number(value: Option<f64>, decimals: usize) -> Value {
    match value {
        Some(value) => Value::Number { value, decimals },
        None => Value::missing("not measured"),
    }
}
