//! The runner: trains the cells of a grid, evaluates its subjects, and stores both.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use llm_client::Totals;
use policy_model::Policy;
use trainer::{Context, HeldOutMetrics, Outcome, RunDir, Start};

use crate::cell::{Cell, Subject, file_name, percent, reduction_name, slice_name};
use crate::checkpoints::kept_checkpoints;
use crate::decision::decide;
use crate::error::ExperimentError;
use crate::evaluated::{Collected, Evaluated, Evaluation};
use crate::evaluation::{Candidate, scores_file};
use crate::fitted::FittedLabels;
use crate::given_policies::{Given, GivenFiles, GivenPolicies};
use crate::grid::Grid;
use crate::judges::Judges;
use crate::setup::Setup;
use crate::shard::Role;
use crate::source::DataSource;
use crate::store::{Key, ResultStore};
use crate::tally::Tally;

mod failures;
mod keys;
mod outcome;
mod weights;

use outcome::{Failed, Stage, agree};

/// An experiment: its setup, its data source, and its store.
#[derive(Debug)]
pub struct Runner {
    setup: Setup,
    store: ResultStore,
    source: DataSource,
    judges: Judges,
    given: GivenPolicies,
    /// The policy that this process has trained last, with the folder of its last checkpoint.
    trained: RefCell<Option<(PathBuf, Rc<Policy>)>>,
}

impl Runner {
    /// Opens the experiment of `setup`, with its store in the output folder.
    ///
    /// # Errors
    ///
    /// If the data source lacks something that the setup requires, and for a store of another layout.
    pub fn new(setup: Setup) -> Result<Self, ExperimentError> {
        let store = ResultStore::open(Path::new(&setup.output.dir).join("store"))?;
        let source = DataSource::new(&setup, &store)?;
        let judges = Judges::new(&setup, &store);
        let given = GivenPolicies::open(&setup, &source)?;
        Ok(Self { setup, store, source, judges, given, trained: RefCell::default() })
    }

    pub(crate) fn store(&self) -> &ResultStore {
        &self.store
    }

    /// Returns the setup.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Returns the data source.
    pub fn source(&self) -> &DataSource {
        &self.source
    }

    /// Returns the folder of tables, figures and reports.
    pub fn output(&self) -> PathBuf {
        PathBuf::from(&self.setup.output.dir)
    }

    /// Creates what every cell starts from, on rank 0: it has the same bytes on any number of ranks.
    ///
    /// # Errors
    ///
    /// If training or the disk fails, or the caller asks to stop.
    pub fn prepare(&self, context: &mut Context<'_>) -> Result<(), ExperimentError> {
        let group = std::mem::take(&mut context.group);
        let prepared = if group.is_main() {
            self.store.create().and_then(|()| self.source.prepare(self.setup.seeds, context))
        } else {
            Ok(())
        };
        context.group = group;
        prepared.map_err(ExperimentError::or_full_disk)?;
        Ok(context.group.barrier()?)
    }

    /// Checks address, key and price of each judge, before hours of training.
    ///
    /// # Errors
    ///
    /// If a judge cannot be called.
    pub fn open_judge(&self) -> Result<(), ExperimentError> {
        self.judges.open()
    }

    /// Returns the costs of each judge in this process, one line each.
    pub fn costs(&self) -> Vec<String> {
        let line = |(judge, paid): (&str, Totals)| {
            let Totals { answered, unanswered, usage, usd, unpriced } = paid;
            let unpriced =
                if unpriced > 0 { format!(" and {unpriced} calls of unknown price") } else { String::new() };
            format!(
                "{judge}: {answered} answered calls, {unanswered} that may be billed, {} + {} tokens, {usd:.4} USD{unpriced}",
                usage.prompt_tokens, usage.completion_tokens
            )
        };
        self.judges.paid().into_iter().map(line).collect()
    }

    /// Trains and evaluates the cells of `grid` that `role` has; stored results stay.
    ///
    /// All ranks of the context's group call this with the same grid. They train and answer together; only rank 0 judges
    /// and writes, and it decides what is left to do.
    /// The failure of a trained policy is recorded, and the others continue. A failed policy is not retried before
    /// [`forget_failures`](Self::forget_failures).
    /// A part whose judge is an endpoint is trained and answered only: one process calls the judge, at one rate and with
    /// one budget.
    ///
    /// # Errors
    ///
    /// If the supervised policy fails, a judge cannot be called, the disk fails, a rank dies, or the caller asks to stop.
    /// Finished results are kept.
    pub fn run(&self, grid: &Grid, role: Role, context: &mut Context<'_>) -> Result<(), ExperimentError> {
        let computed = self.run_together(grid, role, context);
        match computed {
            // All ranks stop together.
            Err(ExperimentError::Stopped) => computed,
            computed => context.group.propagate_error(computed),
        }
    }

    fn run_together(
        &self,
        grid: &Grid,
        role: Role,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        self.setup.train.take_threads();
        self.check(grid)?;
        for given in self.given.outside(grid) {
            tracing::warn!(
                "{given} is in study.policies, but no cell of this grid: it takes no training's place"
            );
        }
        self.prepare(context)?;
        context.cache = Some(self.store.root().to_owned());
        let mut tally = None;
        for subject in role.shard().part(grid) {
            if context.group.any(context.wants_stop())? {
                return Err(ExperimentError::Stopped);
            }
            if decide(context, || self.begin(subject, role))? {
                // The processes of a part show nothing.
                if role == Role::Lead && context.group.is_main() {
                    self.show(&mut tally, grid, subject, context);
                }
                self.compute(grid, subject, role, context).map_err(ExperimentError::or_full_disk)?;
            }
        }
        if let Some(tally) = &mut tally {
            context.progress.overall(tally.look(self, None));
        }
        Ok(())
    }

    /// Shows the state of the grid before `subject` is computed.
    fn show(&self, tally: &mut Option<Tally>, grid: &Grid, subject: &Subject, context: &mut Context<'_>) {
        if tally.is_none() {
            // Without a plan there is an error soon, or work that nobody counts.
            *tally = Tally::new(self, grid).ok();
        }
        if let Some(tally) = tally {
            context.progress.overall(tally.look(self, Some(subject)));
        }
    }

    /// Trains and evaluates one subject, or records its failure.
    fn compute(
        &self,
        grid: &Grid,
        subject: &Subject,
        role: Role,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        let made = self.make(subject, role, context);
        let failure = agree(made, subject, context)?;
        if !context.group.is_main() {
            return Ok(());
        }
        match (failure, subject) {
            (Some(report), Subject::Trained { cell, .. }) if report.stage == Stage::Training => {
                self.note_failure(&self.run_key(cell), format!("training {cell}"), report.reason)?;
            }
            (Some(report), subject) => {
                let what = format!("evaluating {subject}");
                self.note_failure(&self.scores_key(subject, 0), what, report.reason)?;
            }
            (None, Subject::Trained { cell, .. }) => self.drop_weights(grid, cell)?,
            (None, Subject::Baseline { .. }) => {}
        }
        self.end(subject)
    }

    fn make(&self, subject: &Subject, role: Role, context: &mut Context<'_>) -> Result<(), Failed> {
        if let Subject::Trained { cell, .. } = subject
            && self.given.of(cell).is_none()
        {
            self.train(subject, cell, context).map_err(|error| Failed { stage: Stage::Training, error })?;
        }
        let only_answers = role != Role::Lead && !self.source.is_sandbox();
        let evaluated =
            if only_answers { self.answer(subject, context) } else { self.evaluate(subject, context) };
        evaluated.map_err(|error| Failed { stage: Stage::Evaluation, error })
    }

    /// Answers the benchmark with a subject, for judges that another process calls.
    fn answer(&self, subject: &Subject, context: &mut Context<'_>) -> Result<(), ExperimentError> {
        let (candidates, _) = self.candidates(subject)?;
        candidates.iter().try_for_each(|candidate| candidate.answer(&self.setup, &self.source, context))
    }

    /// Reads the results of `grid`; `None` unless each subject is evaluated or failed.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn stored(&self, grid: &Grid) -> Result<Option<Collected>, ExperimentError> {
        let mut collected = Collected::default();
        for subject in grid.subjects() {
            match (self.failure(subject)?, self.evaluated(subject)?) {
                (Some(failure), _) => collected.failed.push(failure),
                (None, Some(evaluated)) => collected.evaluated.push(evaluated),
                (None, None) => return Ok(None),
            }
        }
        Ok(Some(collected))
    }

    /// Reads the results of one subject; `None` unless it is evaluated.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn evaluated(&self, subject: &Subject) -> Result<Option<Evaluated>, ExperimentError> {
        if !self.is_made(subject) || !self.is_evaluated(subject) {
            return Ok(None);
        }
        let (candidates, trained) = self.candidates(subject)?;
        let evaluations = candidates.iter().map(Candidate::stored).collect::<Result<Option<Vec<_>>, _>>()?;
        let evaluation = evaluations.and_then(|samples| samples.into_iter().reduce(Evaluation::with));
        Ok(evaluation.map(|evaluation| trained.with(subject, evaluation)))
    }

    /// Returns whether a subject is fully trained. The supervised policy always is.
    pub fn is_final(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Baseline { .. } => true,
            Subject::Trained { checkpoint, .. } => *checkpoint == self.setup.last_checkpoint(),
        }
    }

    /// Evaluates a trained subject.
    fn evaluate(&self, subject: &Subject, context: &mut Context<'_>) -> Result<(), ExperimentError> {
        if decide(context, || Ok(self.is_evaluated(subject)))? {
            return Ok(());
        }
        let (candidates, _) = self.candidates(subject)?;
        let shows_itself = !self.source.is_sandbox();
        if !shows_itself {
            context.progress.begin(&format!("evaluating {subject}"), 1);
        }
        for candidate in candidates {
            candidate.evaluate(&self.setup, &self.source, &self.judges, context)?;
        }
        if !shows_itself {
            context.progress.end();
        }
        Ok(())
    }

    /// Returns the policy and the folders of each sample of a subject, and the results of its training.
    fn candidates(&self, subject: &Subject) -> Result<(Vec<Candidate>, Trained), ExperimentError> {
        let (model, trained) = match subject {
            Subject::Baseline { .. } => {
                let key = self.source.key().clone();
                let trained = Trained { key, step: 0, training_loss: None, held_out: None, labels: None };
                (self.source.model(), trained)
            }
            Subject::Trained { cell, checkpoint } => {
                if let Some(given) = self.given.of(cell) {
                    return self.given_candidates(subject, given);
                }
                let dir = RunDir::open_finished(&self.run_folder(cell))?;
                let checkpoints = dir.list_checkpoints()?;
                let train = &self.setup.train;
                let (wanted, kept) = (train.checkpoints.len(), kept_checkpoints(train));
                let at = checkpoint.checked_sub(wanted - kept);
                let found = at.and_then(|at| checkpoints.get(at)).cloned();
                let (step, model) = found.ok_or_else(|| {
                    let (cell, found) = (cell.to_string(), checkpoints.len());
                    ExperimentError::TooShort { cell, found, wanted: kept }
                })?;
                let last = checkpoints.last().map_or(step, |(step, _)| *step);
                let before = checkpoint.checked_sub(1).map_or(0, |previous| match at {
                    Some(at @ 1..) => checkpoints[at - 1].0,
                    _ => trainer::step_at(train.checkpoints[previous], last),
                });
                let training_loss = Some(mean_loss(&dir, before, step)?);
                let held_out = dir.read_evaluations()?.into_iter().find(|metrics| metrics.step == step);
                let labels = FittedLabels::of(&dir, step)?;
                (model, Trained { key: self.run_key(cell), step, training_loss, held_out, labels })
            }
        };
        Ok((self.samples_of(subject, &model, None, trained.step), trained))
    }

    /// Returns the policy and the folders of a subject that was trained elsewhere. It has no earlier checkpoints.
    fn given_candidates(
        &self,
        subject: &Subject,
        given: &Given,
    ) -> Result<(Vec<Candidate>, Trained), ExperimentError> {
        if !self.is_final(subject) {
            let wanted = self.setup.train.checkpoints.len();
            return Err(ExperimentError::TooShort { cell: given.cell.to_string(), found: 1, wanted });
        }
        let key = given.key.clone();
        let trained = Trained { key, step: 0, training_loss: None, held_out: None, labels: None };
        let candidates = match &given.files {
            GivenFiles::Model(folder) => self.samples_of(subject, folder, None, trained.step),
            GivenFiles::Answers(file) => {
                self.samples_of(subject, &self.source.model(), Some(file), trained.step)
            }
        };
        Ok((candidates, trained))
    }

    /// Returns each sample of a subject, whose answers may be in a file.
    fn samples_of(
        &self,
        subject: &Subject,
        model: &Path,
        answered: Option<&Path>,
        step: u64,
    ) -> Vec<Candidate> {
        let trained = self.trained.borrow();
        let loaded = trained.as_ref().filter(|(folder, _)| folder == model).map(|(_, policy)| policy.clone());
        let candidate = |sample: u64| Candidate {
            model: model.to_owned(),
            loaded: loaded.clone(),
            answered: answered.map(Path::to_owned),
            model_id: model_id(subject, step, sample),
            seed: subject.seed(),
            sample,
            answers: self.store.answers(&self.answers_key(subject, sample)),
            scores: self.store.scores(&self.scores_key(subject, sample)),
        };
        self.samples().map(candidate).collect()
    }

    /// Trains the cell of a subject, unless it is in the store.
    fn train(
        &self,
        subject: &Subject,
        cell: &Cell,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        if decide(context, || self.needs_no_training(subject, cell))? {
            return Ok(());
        }
        // Training needs the memory.
        self.trained.take();
        let folder = self.run_folder(cell);
        tracing::info!("training {cell}");
        let (records, held_out) = (self.source.records(cell.seed), self.source.held_out(cell.seed));
        let recipe =
            self.setup.run_recipe(cell, &self.source.model(), &records, held_out.as_deref(), &folder);
        let report = trainer::run(&recipe, Start::FreshOrResume, context)?;
        match report.outcome {
            Outcome::Finished => {
                let last = report.dir.list_checkpoints()?.pop().map(|(_, folder)| folder);
                *self.trained.borrow_mut() = last.zip(report.policy.map(Rc::new));
                Ok(())
            }
            Outcome::Stopped(_) => Err(ExperimentError::Stopped),
        }
    }

    /// Returns whether a subject's policy is in the store.
    fn is_made(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Baseline { .. } => true,
            Subject::Trained { cell, .. } => self.is_trained(cell),
        }
    }

    /// Returns whether a cell needs no training: its run is in the store, or it was trained elsewhere.
    pub(crate) fn is_trained(&self, cell: &Cell) -> bool {
        self.given.of(cell).is_some() || self.finished(cell).is_some()
    }

    /// Opens the training run of a cell, if it is in the store.
    pub(crate) fn finished(&self, cell: &Cell) -> Option<RunDir> {
        RunDir::open_finished(&self.run_folder(cell)).ok()
    }

    /// Returns the folder of a cell's training run; `None` for a policy that was trained elsewhere.
    pub(crate) fn training_folder(&self, cell: &Cell) -> Option<PathBuf> {
        self.given.of(cell).is_none().then(|| self.run_folder(cell))
    }

    /// Returns the folder of a cell's training run.
    pub(crate) fn run_folder(&self, cell: &Cell) -> PathBuf {
        self.store.run(&self.run_key(cell))
    }

    /// Returns whether a subject's evaluation is in the store.
    pub fn is_evaluated(&self, subject: &Subject) -> bool {
        self.samples()
            .all(|sample| scores_file(&self.store.scores(&self.scores_key(subject, sample))).exists())
    }

    /// Returns whether a subject is evaluated or has failed.
    pub(crate) fn is_settled(&self, subject: &Subject) -> bool {
        let is_evaluated = self.is_made(subject) && self.is_evaluated(subject);
        is_evaluated || matches!(self.failure(subject), Ok(Some(_)))
    }

    /// Returns the indices of the sampled answers.
    fn samples(&self) -> std::ops::Range<u64> {
        0..u64::from(self.setup.answers.samples.get())
    }
}

/// The results of a subject's training.
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

/// Returns the model's name in FastChat's files.
fn model_id(subject: &Subject, step: u64, sample: u64) -> String {
    let id = match subject {
        Subject::Baseline { seed } => format!("sft-seed-{seed}"),
        Subject::Trained { cell, .. } => {
            let mut id = format!("{}-{}", cell.loss.name(), file_name(&cell.annotator));
            if let Some(slice) = &cell.slice {
                id += &format!("-where-{}", file_name(&slice_name(slice)));
            }
            if cell.fraction.get() != 1.0 {
                id += &format!("-{}pct", percent(cell.fraction.get()));
            }
            if cell.flip_rate.get() != 0.0 {
                id += &format!("-{}pct-flipped", percent(cell.flip_rate.get()));
            }
            if let Some(smoothing) = cell.label_smoothing {
                id += &format!("-epsilon-{}", file_name(&smoothing.to_string()));
            }
            if let Some(reduction) = cell.logp_reduction {
                id += &format!("-{}", reduction_name(reduction));
            }
            if let Some(rate) = cell.learning_rate {
                id += &format!("-rate-{rate:e}");
            }
            if let Some(epochs) = cell.epochs {
                id += &format!("-{epochs}-epochs");
            }
            format!("{id}-beta-{}-seed-{}-step-{step}", cell.beta.get(), cell.seed)
        }
    };
    if sample == 0 { id } else { format!("{id}-sample-{sample}") }
}

/// Returns the mean training loss of the steps after `before` up to `step`.
fn mean_loss(dir: &RunDir, before: u64, step: u64) -> Result<f64, ExperimentError> {
    let metrics = dir.read_metrics()?;
    let losses: Vec<f64> =
        metrics.iter().filter(|m| before < m.step && m.step <= step).map(|m| m.loss).collect();
    Ok(losses.iter().sum::<f64>() / losses.len().max(1) as f64)
}
