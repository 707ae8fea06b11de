//! The engine: trains the cells of a grid, evaluates its subjects, and keeps both in the store.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use llm_client::Totals;
use trainer::recipe::LossKind;
use trainer::{Context, HeldOutMetrics, Outcome, RunDir, Start};

use crate::analysis::Analysis;
use crate::asked;
use crate::cell::{Cell, Subject, slice_name};
use crate::error::StudyError;
use crate::evaluate::{Candidate, Evaluation, Score, scores_file};
use crate::failures::Failure;
use crate::fitted::FittedLabels;
use crate::grid::{Grid, Question};
use crate::judges::Judges;
use crate::recipe::StudyRecipe;
use crate::results::{PolicyRow, ScoreRow};
use crate::store::{Key, ResultStore};
use crate::sweep::Chosen;
use crate::world::World;

/// A part of the cells: every `of`-th, beginning with the `index`-th. Workers and machines that share a folder each
/// take one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 0.
    pub index: usize,
    /// How many parts there are.
    pub of: usize,
}

impl Shard {
    /// All of the cells.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Its part of a grid: every subject lies with the cell that it belongs to.
    pub(crate) fn part(self, grid: &Grid) -> impl Iterator<Item = &Subject> {
        let cells = grid.cells();
        grid.subjects().iter().enumerate().filter_map(move |(position, subject)| {
            let position = match subject {
                Subject::Baseline { .. } => position,
                Subject::Trained { cell, .. } => cells.iter().position(|c| *c == cell).unwrap_or(position),
            };
            (position % self.of == self.index).then_some(subject)
        })
    }
}

/// A study under way: a recipe, the world it starts from, and what was computed so far.
#[derive(Debug)]
pub struct Runner {
    recipe: StudyRecipe,
    store: ResultStore,
    world: World,
    judges: Judges,
}

/// What a grid came to.
#[derive(Debug, Default)]
pub struct Collected {
    /// What was measured, in the grid's order.
    pub evaluated: Vec<Evaluated>,
    /// What could not be had.
    pub failed: Vec<Failure>,
}

/// A subject with what was measured of it.
#[derive(Debug)]
pub struct Evaluated {
    /// What was evaluated.
    pub subject: Subject,
    /// Its scores and answers.
    pub evaluation: Evaluation,
    /// The address of its training run, or of the world for the baseline.
    pub key: Key,
    /// Optimiser steps of preference training.
    pub step: u64,
    /// Mean training loss over the steps since the checkpoint before.
    pub training_loss: Option<f64>,
    /// What was measured on pairs that were not trained on, at this checkpoint; nothing of the baseline.
    pub held_out: Option<HeldOutMetrics>,
    /// Which of its labels it had learned by then; nothing of the baseline, nor where the run did not keep that.
    pub labels: Option<FittedLabels>,
}

impl Runner {
    /// A study of `recipe`, with its store under the recipe's output folder.
    ///
    /// # Errors
    ///
    /// Where the recipe asks for something that its world does not have.
    pub fn new(recipe: StudyRecipe) -> Result<Self, StudyError> {
        let store = ResultStore::new(Path::new(&recipe.output.dir).join("store"));
        let world = World::new(&recipe, &store)?;
        let judges = Judges::new(&recipe, &store);
        Ok(Self { recipe, store, world, judges })
    }

    pub(crate) fn store(&self) -> &ResultStore {
        &self.store
    }

    /// The recipe.
    pub fn recipe(&self) -> &StudyRecipe {
        &self.recipe
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The folder where tables, figures and the report go.
    pub fn output(&self) -> PathBuf {
        PathBuf::from(&self.recipe.output.dir)
    }

    /// Notes in the study's folder that `questions` are being answered, so that who looks into it meanwhile knows which cells
    /// are still to come.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be written.
    pub fn begin(&self, questions: &[Question]) -> Result<(), StudyError> {
        questions.iter().try_for_each(|&question| asked::begin(&self.output(), question, &self.recipe))
    }

    /// Makes what every cell starts from.
    ///
    /// # Errors
    ///
    /// Where training or the disk fails, or somebody asks to stop.
    pub fn prepare(&self, context: &mut Context<'_>) -> Result<(), StudyError> {
        self.world.prepare(self.recipe.study.seeds, context).map_err(StudyError::or_full_disk)
    }

    /// Finds out whether the judge can be asked, before hours of training: its address, its key, its price.
    ///
    /// # Errors
    ///
    /// Where it cannot.
    pub fn open_judge(&self) -> Result<(), StudyError> {
        self.judges.open()
    }

    /// What each judge was paid in this run, in words; nothing where nobody was.
    pub fn paid(&self) -> Vec<String> {
        let told = |(judge, paid): (&str, Totals)| {
            let Totals { answered, unanswered, usage, usd, unpriced } = paid;
            let unpriced =
                if unpriced > 0 { format!(" and {unpriced} calls of unknown price") } else { String::new() };
            format!(
                "{judge}: {answered} answered calls, {unanswered} that may be billed, {} + {} tokens, {usd:.4} USD{unpriced}",
                usage.prompt_tokens, usage.completion_tokens
            )
        };
        self.judges.paid().into_iter().map(told).collect()
    }

    /// Trains and evaluates the part of `grid` that `shard` holds; what is in the store stays as it is.
    ///
    /// A trained policy that fails does so alone: the store gets a note of it, and who failed already is not tried again before
    /// [`forget_failures`](Self::forget_failures).
    ///
    /// A part of a grid whose judge is an endpoint is trained and answered, and left unjudged: one process asks, at one pace
    /// and on one budget.
    ///
    /// # Errors
    ///
    /// Where the policy that all others start from fails, a judge can no longer be asked, the disk fails, or somebody asks to
    /// stop. What was finished until then is kept.
    pub fn run(&self, grid: &Grid, shard: Shard, context: &mut Context<'_>) -> Result<(), StudyError> {
        self.recipe.train.take_threads();
        self.prepare(context)?;
        context.cache = Some(self.store.root().to_owned());
        for subject in shard.part(grid) {
            if context.wants_stop() {
                return Err(StudyError::Stopped);
            }
            if self.failure(subject)?.is_none() {
                self.make(subject, shard, context).map_err(StudyError::or_full_disk)?;
            }
        }
        Ok(())
    }

    /// Trains and evaluates one subject, or notes why that cannot be.
    fn make(&self, subject: &Subject, shard: Shard, context: &mut Context<'_>) -> Result<(), StudyError> {
        if let Subject::Trained { cell, .. } = subject
            && let Err(error) = self.train(cell, context)
        {
            return match error.is_of_one_policy() {
                true => self.note_failure(&self.run_key(cell), format!("training {cell}"), &error),
                false => Err(error),
            };
        }
        let made = if shard != Shard::WHOLE && !self.world.is_sandbox() {
            self.candidate(subject)
                .and_then(|(candidate, _)| candidate.answer(&self.recipe, &self.world, context))
        } else if !self.is_evaluated(subject) {
            self.evaluate(subject, context)
        } else {
            Ok(())
        };
        match (made, subject) {
            (Err(error), Subject::Trained { .. }) if error.is_of_one_policy() => {
                self.note_failure(&self.scores_key(subject), format!("evaluating {subject}"), &error)
            }
            (made, _) => made,
        }
    }

    /// The cells of all `questions`, each once. What is asked at the β that the sweep chooses is part of it once the sweep is in
    /// the store, so that who runs a grid looks again afterwards.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub fn grid(&self, questions: &[Question]) -> Result<Grid, StudyError> {
        let mut grid = Grid::default();
        for &question in questions {
            let chosen = if question == Question::Tuned { self.chosen()? } else { None };
            grid.join(match chosen {
                Some(chosen) => Grid::tuned(&self.recipe, &chosen),
                None => Grid::of(question, &self.recipe),
            });
        }
        Ok(grid)
    }

    /// The β that the sweep chooses, where it is in the store.
    fn chosen(&self) -> Result<Option<Chosen>, StudyError> {
        match self.stored(&Grid::of(Question::Strength, &self.recipe))? {
            Some(collected) => Chosen::of(&Analysis::new(&self.recipe, &collected)),
            None => Ok(None),
        }
    }

    /// What was measured of `grid`, where all of it is in the store but what failed; nothing runs.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub fn stored(&self, grid: &Grid) -> Result<Option<Collected>, StudyError> {
        if !self.plan(grid)?.is_settled() {
            return Ok(None);
        }
        let mut collected = Collected::default();
        for subject in grid.subjects() {
            match self.failure(subject)? {
                Some(failure) => collected.failed.push(failure),
                None => collected.evaluated.extend(self.evaluated(subject)?),
            }
        }
        Ok(Some(collected))
    }

    /// What was measured of one subject, where it is in the store.
    pub(crate) fn evaluated(&self, subject: &Subject) -> Result<Option<Evaluated>, StudyError> {
        if !self.is_evaluated(subject) {
            return Ok(None);
        }
        let (candidate, trained) = self.candidate(subject)?;
        Ok(candidate.stored()?.map(|evaluation| trained.with(subject, evaluation)))
    }

    /// Whether a subject is a policy at the end of its training, as the supervised one always is.
    pub(crate) fn is_final(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Baseline { .. } => true,
            Subject::Trained { checkpoint, .. } => checkpoint + 1 == self.recipe.train.checkpoints.len(),
        }
    }

    /// Evaluates a subject whose policy is trained.
    fn evaluate(&self, subject: &Subject, context: &mut Context<'_>) -> Result<(), StudyError> {
        let (candidate, _) = self.candidate(subject)?;
        let shows_itself = !self.world.is_sandbox();
        if !shows_itself {
            context.progress.begin(&format!("evaluating {subject}"), 1);
        }
        candidate.evaluate(&self.recipe, &self.world, &self.judges, context)?;
        if !shows_itself {
            context.progress.end();
        }
        Ok(())
    }

    /// Where a subject's policy is and its evaluation goes, and what its training came to.
    fn candidate(&self, subject: &Subject) -> Result<(Candidate, Trained), StudyError> {
        let (model, trained) = match subject {
            Subject::Baseline { .. } => {
                let key = self.world.key().clone();
                let trained = Trained { key, step: 0, training_loss: None, held_out: None, labels: None };
                (self.world.model(), trained)
            }
            Subject::Trained { cell, checkpoint } => {
                let dir = RunDir::open_finished(&self.run_folder(cell))?;
                let checkpoints = dir.list_checkpoints()?;
                let (step, model) = checkpoints
                    .get(*checkpoint)
                    .cloned()
                    .ok_or_else(|| too_short(cell, checkpoints.len(), checkpoint + 1))?;
                let before = checkpoint.checked_sub(1).map_or(0, |previous| checkpoints[previous].0);
                let training_loss = Some(mean_loss(&dir, before, step)?);
                let held_out = dir.read_evaluations()?.into_iter().find(|metrics| metrics.step == step);
                let labels = FittedLabels::of(&dir, step)?;
                (model, Trained { key: self.run_key(cell), step, training_loss, held_out, labels })
            }
        };
        let candidate = Candidate {
            model,
            model_id: model_id(subject, trained.step),
            seed: subject.seed(),
            answers: self.store.answers(&self.answers_key(subject)),
            scores: self.store.scores(&self.scores_key(subject)),
        };
        Ok((candidate, trained))
    }

    /// Trains a cell, or finds it in the store.
    fn train(&self, cell: &Cell, context: &mut Context<'_>) -> Result<RunDir, StudyError> {
        if let Some(dir) = self.finished(cell) {
            return Ok(dir);
        }
        let wanted = self.recipe.train.checkpoints.len();
        // Equal responses make no pair, so that a run that could be long enough may still turn out too short.
        let there = usize::try_from(self.steps_of(cell)?).unwrap_or(usize::MAX);
        if there < wanted {
            return Err(too_short(cell, there, wanted));
        }
        let folder = self.run_folder(cell);
        tracing::info!("training {cell}");
        let (records, held_out) = (self.world.records(cell.seed), self.world.held_out(cell.seed));
        let recipe = self.recipe.of_cell(cell, &self.world.model(), &records, held_out.as_deref(), &folder);
        let report = trainer::run(&recipe, Start::FreshOrResume, context)?;
        match report.outcome {
            Outcome::Finished => Ok(report.dir),
            Outcome::Stopped(_) => Err(StudyError::Stopped),
        }
    }

    /// A cell's training run, where it is in the store.
    pub(crate) fn finished(&self, cell: &Cell) -> Option<RunDir> {
        RunDir::open_finished(&self.run_folder(cell)).ok()
    }

    /// The folder of a cell's training run, there or not.
    pub(crate) fn run_folder(&self, cell: &Cell) -> PathBuf {
        self.store.run(&self.run_key(cell))
    }

    /// Whether a subject's evaluation is in the store.
    pub(crate) fn is_evaluated(&self, subject: &Subject) -> bool {
        scores_file(&self.store.scores(&self.scores_key(subject))).exists()
    }

    /// The address of a cell: its recipe with model and data named by their content instead of by path.
    pub(crate) fn run_key(&self, cell: &Cell) -> Key {
        let world = self.world.key().as_str();
        let data = format!("{world}/records-{}", cell.seed);
        let held_out = self.world.held_out(cell.seed).map(|_| format!("{world}/held-out-{}", cell.seed));
        let held_out = held_out.as_deref().map(Path::new);
        let anywhere = Path::new("anywhere");
        let recipe = self.recipe.of_cell(cell, Path::new(world), Path::new(&data), held_out, anywhere);
        Key::of(&["run", &recipe.to_toml()])
    }

    /// The address of a subject's answers: its policy, the questions, the streams, and how it answers.
    fn answers_key(&self, subject: &Subject) -> Key {
        let model = &self.recipe.model;
        let how = format!("{:?} {:?} {:?}", self.recipe.answers, model.dtype, self.questions());
        Key::of(&[
            "answers",
            self.world.key().as_str(),
            &self.origin(subject),
            &subject.seed().to_string(),
            &how,
        ])
    }

    /// The address of a subject's evaluation: its answers and who rates them.
    pub(crate) fn scores_key(&self, subject: &Subject) -> Key {
        let world = self.world.key().as_str();
        match self.world.is_sandbox() {
            true => {
                let ids: Vec<u64> = self.world.questions().iter().map(|q| q.question_id).collect();
                let seed = subject.seed().to_string();
                Key::of(&["scores", world, &self.origin(subject), &seed, &format!("{ids:?}")])
            }
            false => {
                let judge = self.recipe.judge.identity();
                let references = format!("{:?}", self.world.references());
                Key::of(&["scores", self.answers_key(subject).as_str(), &judge, &references])
            }
        }
    }

    /// The run behind a subject, and how much of it.
    fn origin(&self, subject: &Subject) -> String {
        match subject {
            Subject::Baseline { .. } => "baseline".to_owned(),
            Subject::Trained { cell, checkpoint } => format!("{} {checkpoint}", self.run_key(cell).as_str()),
        }
    }

    /// The benchmark's questions, as far as answers depend on them.
    fn questions(&self) -> Vec<(u64, &str, &[String])> {
        let questions = self.world.questions().iter();
        questions.map(|q| (q.question_id, q.category.as_str(), &*q.turns)).collect()
    }
}

fn too_short(cell: &Cell, there: usize, wanted: usize) -> StudyError {
    StudyError::TooShort { cell: cell.to_string(), there, wanted }
}

/// What the training behind a subject came to.
struct Trained {
    key: Key,
    step: u64,
    training_loss: Option<f64>,
    held_out: Option<HeldOutMetrics>,
    labels: Option<FittedLabels>,
}

impl Trained {
    fn with(self, subject: &Subject, evaluation: Evaluation) -> Evaluated {
        let Self { key, step, training_loss, held_out, labels } = self;
        Evaluated { subject: subject.clone(), evaluation, key, step, training_loss, held_out, labels }
    }
}

/// What tells an evaluation from all others of a study: its run's address, seed and step.
pub(crate) type EvaluationId = (Key, u64, u64);

impl Evaluated {
    pub(crate) fn id(&self) -> EvaluationId {
        (self.key.clone(), self.subject.seed(), self.step)
    }

    /// The scores as rows of `results.parquet`.
    pub fn rows(&self, recipe: &StudyRecipe) -> Vec<ScoreRow> {
        let policy = self.policy(recipe);
        let row = |score: &Score| ScoreRow {
            cell: policy.cell.clone(),
            annotator: policy.annotator.clone(),
            slice: policy.slice.clone(),
            loss: policy.loss.clone(),
            beta: policy.beta,
            label_smoothing: policy.label_smoothing,
            fraction: policy.fraction,
            flip_rate: policy.flip_rate,
            learning_rate: policy.learning_rate,
            epochs: policy.epochs,
            seed: policy.seed,
            step: policy.step,
            progress: policy.progress,
            question_set: score.question_set.clone(),
            question_id: score.question_id,
            category: score.category.clone(),
            turn: score.turn,
            scorer: score.scorer.clone(),
            score: score.score,
            characters: score.characters as u64,
        };
        self.evaluation.scores.iter().map(row).collect()
    }

    /// What was measured beside the scores, as a row of `policies.parquet`.
    pub fn policy(&self, recipe: &StudyRecipe) -> PolicyRow {
        let sft = PolicyRow {
            cell: self.key.as_str().to_owned(),
            annotator: String::new(),
            slice: String::new(),
            loss: LossKind::Sft.name().to_owned(),
            beta: 0.0,
            label_smoothing: 0.0,
            fraction: 1.0,
            flip_rate: 0.0,
            learning_rate: recipe.train.learning_rate,
            epochs: 0,
            seed: self.subject.seed(),
            step: self.step,
            progress: 0.0,
            answer_characters: self.evaluation.mean_characters(),
            training_loss: self.training_loss,
            held_out_accuracy: self.held_out.map(|metrics| metrics.accuracy),
            held_out_margin: self.held_out.map(|metrics| metrics.margin),
            kl: self.held_out.and_then(|metrics| metrics.kl),
            kept_pairs: self.labels.map(|labels| labels.kept.pairs),
            kept_preferred: self.labels.map(|labels| labels.kept.preferred),
            flipped_pairs: self.labels.map(|labels| labels.flipped.pairs),
            flipped_preferred: self.labels.map(|labels| labels.flipped.preferred),
        };
        let Subject::Trained { cell, checkpoint } = &self.subject else { return sft };
        let checkpoints = &recipe.train.checkpoints;
        let evenly = (checkpoint + 1) as f64 / checkpoints.len() as f64;
        PolicyRow {
            annotator: cell.annotator.clone(),
            slice: cell.slice.as_ref().map_or(String::new(), slice_name),
            loss: cell.loss.name().to_owned(),
            beta: cell.beta.get(),
            label_smoothing: if cell.loss.smooths_labels() { recipe.loss.label_smoothing.get() } else { 0.0 },
            fraction: cell.fraction.get(),
            flip_rate: cell.flip_rate.get(),
            epochs: cell.epochs.map_or(recipe.train.epochs, NonZeroU64::get),
            progress: checkpoints.get(*checkpoint).copied().unwrap_or(evenly),
            ..sft
        }
    }
}

/// The name under which a subject's answers stand in FastChat's files.
fn model_id(subject: &Subject, step: u64) -> String {
    match subject {
        Subject::Baseline { seed } => format!("sft-seed-{seed}"),
        Subject::Trained { cell, .. } => {
            let mut id = format!("{}-{}", cell.loss.name(), file_name(&cell.annotator));
            if let Some(slice) = &cell.slice {
                id += &format!("-where-{}", file_name(&slice_name(slice)));
            }
            if cell.fraction.get() != 1.0 {
                id += &format!("-{}pct", crate::cell::percent(cell.fraction.get()));
            }
            if cell.flip_rate.get() != 0.0 {
                id += &format!("-{}pct-flipped", crate::cell::percent(cell.flip_rate.get()));
            }
            if let Some(epochs) = cell.epochs {
                id += &format!("-{epochs}-epochs");
            }
            format!("{id}-beta-{}-seed-{}-step-{step}", cell.beta.get(), cell.seed)
        }
    }
}

/// Words that may stand in a file's name: mixtures have spaces, slices have signs.
fn file_name(words: &str) -> String {
    let plain = |letter: char| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '-' };
    words.replace("!=", "differs-from").replace('%', "pct").chars().map(plain).collect()
}

/// The mean training loss of the steps after `before` up to `step`.
fn mean_loss(dir: &RunDir, before: u64, step: u64) -> Result<f64, StudyError> {
    let metrics = dir.read_metrics()?;
    let losses: Vec<f64> =
        metrics.iter().filter(|m| before < m.step && m.step <= step).map(|m| m.loss).collect();
    Ok(losses.iter().sum::<f64>() / losses.len().max(1) as f64)
}
