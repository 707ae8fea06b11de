//! The folder of one run, and the observer that fills it.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use files::Lock;
use files::json_lines::{self, JsonLinesError, Log};
use policy_model::Companions;
use pref_data::TokenPair;
use serde::de::DeserializeOwned;
use tch::Kind;

use crate::checkpoint;
use crate::context::{ANNOUNCED, Context};
use crate::diagnostics::Diagnostics;
use crate::engine::Observer;
use crate::error::TrainError;
use crate::held_out::HeldOutMetrics;
use crate::metrics::StepMetrics;
use crate::pair_deltas::{self, DeltaLog, PairDelta, TrainedPair};
use crate::run_inputs::{AcceptedChange, Provenance, RunInputs, RunRecord};
use crate::state::TrainerState;
use crate::stopping::HeldOutMetric;
use crate::tensorboard::EventWriter;

/// How a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the beginning, in a folder without a run.
    Fresh,
    /// From the newest checkpoint, or from the beginning if there is none.
    Resume,
    /// As [`Resume`](Self::Resume), also if inputs of the run have changed; the checkpoints record the change.
    ResumeChanged,
    /// As [`Resume`](Self::Resume), for callers that start and resume runs alike.
    FreshOrResume,
}

/// The folder of one run: `recipe.toml`, `metrics.jsonl`, `eval.jsonl`, `pair_deltas.parquet`, TensorBoard events,
/// `checkpoints/`, `model/`.
#[derive(Clone, Debug)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// Opens the folder of the run of `recipe` (its resolved TOML), and creates it if necessary.
    ///
    /// A run that ended before its first step does not count: the folder is taken over.
    ///
    /// # Errors
    ///
    /// [`TrainError::OtherRun`] if the folder holds a run of another recipe, or a run of this recipe and `start` is
    /// [`Start::Fresh`].
    pub fn open(root: &Path, recipe: &str, start: Start) -> Result<Self, TrainError> {
        let dir = Self::at(root);
        // Before the lock: an error does not wait for the run that holds the folder.
        dir.holds_run(recipe, start)?;
        let _lock = dir.lock()?;
        if !dir.holds_run(recipe, start)? {
            if start == Start::Resume || start == Start::ResumeChanged {
                tracing::info!("nothing to resume in {}: the run starts from the beginning", root.display());
            }
            files::write(&dir.recipe(), recipe.as_bytes())
                .map_err(TrainError::io("cannot write", dir.recipe()))?;
        }
        Ok(dir)
    }

    /// Checks that the folder belongs to this run; writes nothing.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open) with the same folder.
    pub(crate) fn holds_run(&self, recipe: &str, start: Start) -> Result<bool, TrainError> {
        let (root, path) = (&self.root, self.recipe());
        match fs::read_to_string(&path) {
            Ok(_) if !self.has_steps()? => Ok(false),
            Ok(existing) => {
                if let Some(difference) = first_difference(&existing, recipe) {
                    return Err(TrainError::OtherRun { path: root.into(), difference });
                }
                if start == Start::Fresh {
                    let difference = "the recipe is the same: pass --resume to continue it".to_owned();
                    return Err(TrainError::OtherRun { path: root.into(), difference });
                }
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(TrainError::io("cannot read", path)(error)),
        }
    }

    /// Returns whether the run has made a step: it has metrics, a checkpoint or a model.
    fn has_steps(&self) -> Result<bool, TrainError> {
        let has_metrics = fs::metadata(self.metrics()).is_ok_and(|metrics| metrics.len() > 0);
        Ok(has_metrics || self.is_finished() || !self.list_checkpoints()?.is_empty())
    }

    /// Compares the inputs of a run with those that its newest checkpoint records, and returns what the next checkpoint
    /// records.
    ///
    /// # Errors
    ///
    /// [`TrainError::InputsChanged`], unless `start` is [`Start::ResumeChanged`].
    pub(crate) fn compare_inputs(&self, inputs: RunInputs, start: Start) -> Result<Provenance, TrainError> {
        let recorded = checkpoint::recorded_inputs(&self.checkpoints())?;
        let Some((step, Provenance { inputs: there, mut accepted })) = recorded else {
            return Ok(Provenance { inputs: Some(inputs), accepted: Vec::new() });
        };
        let Some(there) = there else {
            tracing::info!(target: ANNOUNCED, "the checkpoint of step {step} records no inputs: they are not compared");
            return Ok(Provenance { inputs: Some(inputs), accepted });
        };
        let changed = inputs.changed_from(&there);
        if !changed.is_empty() {
            let names = changed.join(", ");
            if start != Start::ResumeChanged {
                return Err(TrainError::InputsChanged { path: self.root.clone(), step, changed: names });
            }
            tracing::warn!("the run continues after step {step} with another {names}");
            accepted.push(AcceptedChange { step, changed });
        }
        Ok(Provenance { inputs: Some(inputs), accepted })
    }

    /// Writes what determined the run.
    pub(crate) fn record(&self, record: &RunRecord) -> Result<(), TrainError> {
        let path = self.provenance();
        let failed = || TrainError::io("cannot write", &path);
        let json = serde_json::to_string_pretty(record).map_err(|source| failed()(source.into()))?;
        files::write(&path, format!("{json}\n").as_bytes()).map_err(failed())
    }

    /// Returns the folder at `root` without reading it.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Opens the folder of a finished run.
    ///
    /// # Errors
    ///
    /// [`TrainError::NotFinished`].
    pub fn open_finished(root: &Path) -> Result<Self, TrainError> {
        let dir = Self::at(root);
        if dir.is_finished() {
            return Ok(dir);
        }
        Err(TrainError::NotFinished { path: root.into() })
    }

    /// Returns the path of the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The fully resolved recipe.
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.toml")
    }

    /// What determined the run: version, digests of recipe, data, model, reference, tokenizer and chat template, and the
    /// machine with its threads and libtorch.
    pub fn provenance(&self) -> PathBuf {
        self.root.join("run.json")
    }

    /// One JSON object per optimizer step.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The checkpoints, one folder per step.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Returns the checkpoints with their steps, in order.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn list_checkpoints(&self) -> Result<Vec<(u64, PathBuf)>, TrainError> {
        checkpoint::list(&self.checkpoints())
    }

    /// The trained model, a Hugging Face folder. It exists once the run is finished.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// Low-rank adapters in peft's format, if adapters are trained. [`model`](Self::model) has them merged.
    pub fn adapter(&self) -> PathBuf {
        self.root.join(checkpoint::ADAPTER)
    }

    /// One JSON object per evaluation on held-out pairs, if the recipe has any.
    pub fn evaluations(&self) -> PathBuf {
        self.root.join("eval.jsonl")
    }

    /// Reads all evaluations on held-out pairs; empty if the recipe has none.
    ///
    /// # Errors
    ///
    /// If a line is not an evaluation.
    pub fn read_evaluations(&self) -> Result<Vec<HeldOutMetrics>, TrainError> {
        let path = self.evaluations();
        if path.exists() { Ok(json_lines::read(&path)?) } else { Ok(Vec::new()) }
    }

    /// Returns the checkpoint with the best evaluation, the earliest of equal ones; `None` if none of those that are there
    /// was evaluated.
    ///
    /// # Errors
    ///
    /// If evaluations or checkpoints cannot be read.
    pub fn best_checkpoint(&self, metric: HeldOutMetric) -> Result<Option<(u64, PathBuf)>, TrainError> {
        let evaluations = self.read_evaluations()?;
        let mut best: Option<(f64, u64, PathBuf)> = None;
        for (step, path) in self.list_checkpoints()? {
            let Some(found) = evaluations.iter().rev().find(|metrics| metrics.step == step) else { continue };
            let gain = metric.gain(found);
            if !gain.is_nan() && best.as_ref().is_none_or(|(best, ..)| gain > *best) {
                best = Some((gain, step, path));
            }
        }
        Ok(best.map(|(_, step, path)| (step, path)))
    }

    /// Reads each pair's Δ at every step that trained on it; `None` if the run did not record them.
    ///
    /// # Errors
    ///
    /// If the file has other content.
    pub fn read_pair_deltas(&self) -> Result<Option<Vec<TrainedPair>>, TrainError> {
        pair_deltas::read(&self.root)
    }

    /// Returns whether the run is finished.
    pub fn is_finished(&self) -> bool {
        self.model().join("config.json").exists()
    }

    /// Reads the metrics of all steps.
    ///
    /// # Errors
    ///
    /// If the file is missing or a line is not a step.
    pub fn read_metrics(&self) -> Result<Vec<StepMetrics>, TrainError> {
        Ok(json_lines::read(&self.metrics())?)
    }

    /// Reads the metrics of the first and the last step.
    ///
    /// # Errors
    ///
    /// As for [`read_metrics`](Self::read_metrics).
    pub fn first_and_last_metrics(&self) -> Result<(Option<StepMetrics>, Option<StepMetrics>), TrainError> {
        let steps = self.read_metrics()?;
        Ok((steps.first().cloned(), steps.last().cloned()))
    }

    /// Locks the folder, and creates it if necessary. Blocks while another process holds the lock.
    pub(crate) fn lock(&self) -> Result<Lock, TrainError> {
        fs::create_dir_all(&self.root).map_err(TrainError::io("cannot create", &self.root))?;
        let waiting = || tracing::info!(target: ANNOUNCED, "waiting for another process that uses {}", self.root.display());
        Ok(Lock::exclusive(&self.root.join(".lock"), waiting)?)
    }

    /// Removes metrics after `step`: a killed run may have logged steps after its last checkpoint. A run that starts
    /// over repeats the evaluation before the first step.
    fn truncate(&self, step: u64) -> Result<(), TrainError> {
        let path = self.metrics();
        let kept = truncate(&path, |metrics: &StepMetrics| metrics.step <= step)?;
        let last = kept.map(|rows| rows.last().map_or(0, |row| row.step));
        if let Some(last) = last.filter(|last| *last < step) {
            return Err(TrainError::LostMetrics { path, last, step });
        }
        truncate(&self.evaluations(), |metrics: &HeldOutMetrics| metrics.step <= step && step > 0)?;
        Ok(())
    }

    /// Writes the checksums of the files of a run after its last step, which replace those of single lines.
    pub(crate) fn seal(&self) -> Result<(), TrainError> {
        let is_there = |name: &String| self.root.join(name).is_file();
        let names: Vec<String> = SEALED.map(str::to_owned).into_iter().filter(is_there).collect();
        files::seal_files(&self.root, files::MANIFEST, &names)
            .map_err(TrainError::io("cannot write the checksums of", &self.root))
    }

    /// Removes the checksums of single lines.
    pub(crate) fn clear_line_checks(&self) -> Result<(), TrainError> {
        [self.metrics(), self.evaluations()]
            .iter()
            .try_for_each(|path| checkpoint::remove(&json_lines::checks_of(path)))
    }
}

/// The files of a finished run that other programs read back.
const SEALED: [&str; 6] =
    ["recipe.toml", "run.json", "noise.jsonl", "metrics.jsonl", "eval.jsonl", "pair_deltas.parquet"];

/// Truncates a file before the first row that does not satisfy `holds`, or that a crash has left without a checksum.
/// Returns the rows that are kept; `None` without a file.
fn truncate<T: DeserializeOwned>(
    path: &Path,
    holds: impl Fn(&T) -> bool,
) -> Result<Option<Vec<T>>, TrainError> {
    if !path.exists() {
        return Ok(None);
    }
    let (mut rows, mut text) = (Vec::new(), String::new());
    for row in json_lines::checked::<T>(path)? {
        match row {
            Ok((row, line)) if holds(&row) => {
                text += &line;
                text.push('\n');
                rows.push(row);
            }
            Err(error @ JsonLinesError::Damaged { .. }) => return Err(error.into()),
            _ => break,
        }
    }
    Log::replace(path, text.as_bytes()).map_err(TrainError::io("cannot write", path))?;
    Ok(Some(rows))
}

/// The files and records of a training run besides its weights.
pub(crate) struct Parts<'a> {
    pub(crate) dir: &'a RunDir,
    /// The tokenizer files.
    pub(crate) companions: Companions<'a>,
    /// The model below trained adapters.
    pub(crate) base: &'a Path,
    /// The kind of saved weights.
    pub(crate) save: Kind,
    /// The training pairs; none in supervised training.
    pub(crate) pairs: &'a [TokenPair],
    /// The record of the run's inputs in checkpoints.
    pub(crate) provenance: &'a Provenance,
}

/// Writes metrics, events and checkpoints of a run to its folder.
pub(crate) struct Recorder<'a, 'c> {
    parts: &'a Parts<'a>,
    context: &'a mut Context<'c>,
    keep_last: usize,
    recording: Recording,
    metrics: Log,
    /// Opened for the first evaluation.
    evaluations: Option<Log>,
    events: EventWriter<BufWriter<File>>,
    deltas: Option<DeltaLog>,
    diagnostics: Option<Diagnostics>,
}

/// Optional records of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recording {
    /// Whether each pair's Δ is recorded.
    pub(crate) deltas: bool,
    /// β, and whether the loss's gradient vanishes as margins grow; `None` without diagnostics of margins.
    pub(crate) margins: Option<(f64, bool)>,
    /// The metric that chooses the model; `None` for the model of the last step.
    pub(crate) best: Option<HeldOutMetric>,
}

impl<'a, 'c> Recorder<'a, 'c> {
    /// Continues after `step`, 0 for a new run.
    pub(crate) fn open(
        parts: &'a Parts<'a>,
        step: u64,
        context: &'a mut Context<'c>,
        keep_last: usize,
        recording: Recording,
    ) -> Result<Self, TrainError> {
        let dir = parts.dir;
        files::unseal(&dir.root).map_err(TrainError::io("cannot change", &dir.root))?;
        dir.truncate(step)?;
        let path = dir.metrics();
        let metrics = Log::open(&path).map_err(TrainError::io("cannot write", path))?;
        let now = context.clock.unix_seconds();
        // One event file per start: TensorBoard joins them, and later files override repeated steps.
        let path = dir.root.join(format!("events.out.tfevents.{now:.0}.step-{step}"));
        let file = File::options().create(true).append(true).open(&path);
        let file = BufWriter::new(file.map_err(TrainError::io("cannot write", &path))?);
        let events = EventWriter::new(file, now).map_err(TrainError::io("cannot write", &path))?;
        let deltas = recording.deltas.then(|| DeltaLog::open(&dir.root, step)).transpose()?;
        let diagnostics = recording.margins.map(|(beta, saturates)| Diagnostics::new(beta, saturates));
        let evaluations = None;
        Ok(Self { parts, context, keep_last, recording, metrics, evaluations, events, deltas, diagnostics })
    }

    fn scalars(&mut self, step: u64, series: &[(&str, f64)]) -> Result<(), TrainError> {
        let now = self.context.clock.unix_seconds();
        self.events
            .scalars(step, now, series)
            .and_then(|()| self.events.flush())
            .map_err(TrainError::io("cannot write the TensorBoard events of", &self.parts.dir.root))
    }
}

impl Observer for Recorder<'_, '_> {
    fn seconds(&self) -> f64 {
        self.context.clock.seconds()
    }

    fn on_step(&mut self, metrics: &StepMetrics, deltas: &[PairDelta], _: u64) -> Result<(), TrainError> {
        let failed = || TrainError::io("cannot write", self.parts.dir.metrics());
        self.metrics.append(metrics).map_err(failed())?;
        files::fault::point("trainer.metrics");
        // The last row is longer.
        files::fault::torn("trainer.metrics.torn", &self.parts.dir.metrics(), 80);
        self.scalars(metrics.step, &metrics.series())?;
        if let Some(log) = &mut self.deltas {
            log.write(metrics.step, metrics.epoch, deltas)?;
        }
        if let Some(warning) = self.diagnostics.as_mut().and_then(|diagnostics| diagnostics.check(metrics)) {
            tracing::warn!("{warning}");
        }
        let mut note = format!("loss {:.4}", metrics.loss);
        if let Some(p) = &metrics.preference {
            note += &format!(", margin {:.3}, accuracy {:.2}", p.margin, p.accuracy);
        }
        self.context.progress.advance(metrics.step, &note);
        Ok(())
    }

    fn on_evaluation(&mut self, metrics: &HeldOutMetrics) -> Result<(), TrainError> {
        let path = self.parts.dir.evaluations();
        let log = match &mut self.evaluations {
            Some(log) => log,
            none => none.insert(Log::open(&path).map_err(TrainError::io("cannot write", &path))?),
        };
        log.append(metrics).map_err(TrainError::io("cannot write", path))?;
        self.scalars(metrics.step, &metrics.series())?;
        // At debug level: one line per step would flood the log of a study with many runs.
        tracing::debug!("{metrics}");
        self.context.progress.advance(metrics.step, &metrics.to_string());
        Ok(())
    }

    fn on_checkpoint(&mut self, snapshot: &TrainerState<'_>) -> Result<(), TrainError> {
        let folder = self.parts.dir.checkpoints();
        let Parts { save, companions, base, provenance, .. } = *self.parts;
        // A run resumes from the checkpoint with the rows up to it.
        let logs = [Some(&self.metrics), self.evaluations.as_ref(), self.deltas.as_ref().map(DeltaLog::log)];
        let synced = logs.into_iter().flatten().try_for_each(Log::sync);
        synced.map_err(TrainError::io("cannot sync the logs of", self.parts.dir.root()))?;
        let path = checkpoint::write(&folder, snapshot, save, (companions, base), provenance)?;
        let best = match self.recording.best {
            Some(metric) if self.keep_last > 0 => self.parts.dir.best_checkpoint(metric)?,
            _ => None,
        };
        checkpoint::keep_last(&folder, self.keep_last, best.map(|(step, _)| step))?;
        tracing::debug!(step = snapshot.step, path = %path.display(), "checkpoint");
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.context.wants_stop()
    }
}

/// The observer of the other ranks: writes only their shard of the state.
pub(crate) struct Follower<'a, 'c> {
    pub(crate) dir: &'a RunDir,
    pub(crate) context: &'a Context<'c>,
}

impl Observer for Follower<'_, '_> {
    fn seconds(&self) -> f64 {
        self.context.clock.seconds()
    }

    fn on_step(&mut self, _: &StepMetrics, _: &[PairDelta], _: u64) -> Result<(), TrainError> {
        Ok(())
    }

    fn on_checkpoint(&mut self, snapshot: &TrainerState<'_>) -> Result<(), TrainError> {
        checkpoint::write_along(&self.dir.checkpoints(), snapshot)
    }

    fn wants_stop(&self) -> bool {
        self.context.wants_stop()
    }
}

/// Returns the first difference between two recipes. `distributed.zero` belongs to the machines, not to the run: a run resumes
/// at any stage, as with any number of processes.
fn first_difference(existing: &str, wanted: &str) -> Option<String> {
    let is_stage = |line: &str| line.starts_with("zero = ");
    let is_same = |(a, b): &(&str, &str)| a == b || is_stage(a) && is_stage(b);
    let difference = existing.lines().zip(wanted.lines()).find(|pair| !is_same(pair));
    match difference {
        Some((there, here)) => Some(format!("there `{there}`, here `{here}`")),
        None if existing.lines().count() == wanted.lines().count() => None,
        None => Some("one recipe has more lines than the other".to_owned()),
    }
}
