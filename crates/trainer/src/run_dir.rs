//! The folder of one run, and the observer that fills it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tch::Kind;

use crate::checkpoint;
use crate::context::Context;
use crate::engine::{Observer, TrainerState};
use crate::error::TrainError;
use crate::held_out::HeldOutMetrics;
use crate::metrics::StepMetrics;
use crate::pair_deltas::{self, DeltaLog, PairDelta, TrainedPair};
use crate::tensorboard::EventWriter;
use crate::watch::Watch;

/// Whether a run begins or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// In a folder that holds no run yet.
    Fresh,
    /// From the newest checkpoint; from the beginning where the run had not written one yet.
    Resume,
    /// Whichever fits the folder.
    FreshOrResume,
}

/// The folder of one run: `recipe.toml`, `metrics.jsonl`, `eval.jsonl`, `pair_deltas.parquet`, TensorBoard events,
/// `checkpoints/`, `model/`.
#[derive(Clone, Debug)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// Opens the folder of the run that `recipe` (its resolved TOML) describes, creating it if need be.
    ///
    /// # Errors
    ///
    /// [`TrainError::OtherRun`] where the folder holds another recipe's run, or holds this one and `start` is
    /// [`Start::Fresh`]; [`TrainError::NothingToResume`] where there is no run and `start` is [`Start::Resume`].
    pub fn open(root: &Path, recipe: &str, start: Start) -> Result<Self, TrainError> {
        let dir = Self::at(root);
        if !dir.holds_run(recipe, start)? {
            fs::create_dir_all(root).map_err(TrainError::io("cannot create", root))?;
            write_atomically(&dir.recipe(), recipe.as_bytes())?;
        }
        Ok(dir)
    }

    /// Whether the folder holds this run already, or can take it; nothing is written.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) for the same folder.
    pub(crate) fn holds_run(&self, recipe: &str, start: Start) -> Result<bool, TrainError> {
        let (root, path) = (&self.root, self.recipe());
        match fs::read_to_string(&path) {
            Ok(existing) => {
                if let Some(difference) = first_difference(&existing, recipe) {
                    return Err(TrainError::OtherRun { path: root.into(), difference });
                }
                if start == Start::Fresh {
                    let difference = "it is this very recipe: pass --resume to go on with it".to_owned();
                    return Err(TrainError::OtherRun { path: root.into(), difference });
                }
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if start == Start::Resume {
                    let why = "there is no recipe.toml; start without --resume".to_owned();
                    return Err(TrainError::NothingToResume { path: root.into(), why });
                }
                Ok(false)
            }
            Err(error) => Err(TrainError::io("cannot read", path)(error)),
        }
    }

    /// The folder at `root`, whatever lies there.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Opens the folder of a run that came to its end.
    ///
    /// # Errors
    ///
    /// [`TrainError::NothingToResume`] where there is none.
    pub fn open_finished(root: &Path) -> Result<Self, TrainError> {
        let dir = Self::at(root);
        if dir.is_finished() {
            return Ok(dir);
        }
        let why = "there is no finished model".to_owned();
        Err(TrainError::NothingToResume { path: root.into(), why })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The fully resolved recipe.
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.toml")
    }

    /// One JSON object an optimiser step.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The checkpoints that lie there with their steps, in order.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be read.
    pub fn list_checkpoints(&self) -> Result<Vec<(u64, PathBuf)>, TrainError> {
        checkpoint::list(&self.checkpoints())
    }

    /// The trained model, a Hugging Face folder; there once the run is finished.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// Low-rank adapters as peft keeps them, where they were trained; merged into [`model`](Self::model) too.
    pub fn adapter(&self) -> PathBuf {
        self.root.join(checkpoint::ADAPTER)
    }

    /// One JSON object an evaluation on held-out pairs; there where the recipe names some.
    pub fn evaluations(&self) -> PathBuf {
        self.root.join("eval.jsonl")
    }

    /// Reads all evaluations on held-out pairs, of which there are none where the recipe names no pairs.
    ///
    /// # Errors
    ///
    /// Where a line is no evaluation.
    pub fn read_evaluations(&self) -> Result<Vec<HeldOutMetrics>, TrainError> {
        let path = self.evaluations();
        if path.exists() { read_lines(&path) } else { Ok(Vec::new()) }
    }

    /// Reads each pair's Δ at every step that trained on it; `None` where the run did not keep them.
    ///
    /// # Errors
    ///
    /// Where the file holds something else.
    pub fn read_pair_deltas(&self) -> Result<Option<Vec<TrainedPair>>, TrainError> {
        pair_deltas::read(&self.root)
    }

    /// Whether the run has come to its end.
    pub fn is_finished(&self) -> bool {
        self.model().join("config.json").exists()
    }

    /// Reads the metrics of all steps.
    ///
    /// # Errors
    ///
    /// Where the file is missing or a line is not a step.
    pub fn read_metrics(&self) -> Result<Vec<StepMetrics>, TrainError> {
        read_lines(&self.metrics())
    }

    /// The metrics of the first and the last step.
    ///
    /// # Errors
    ///
    /// As [`read_metrics`](Self::read_metrics).
    pub fn first_and_last_metrics(&self) -> Result<(Option<StepMetrics>, Option<StepMetrics>), TrainError> {
        let steps = self.read_metrics()?;
        Ok((steps.first().cloned(), steps.last().cloned()))
    }

    /// Keeps other processes from working in the folder until the returned file is dropped; waits for one that does.
    pub(crate) fn lock(&self) -> Result<File, TrainError> {
        let path = self.root.join(".lock");
        let failed = || TrainError::io("cannot lock", &path);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!("waiting for another process that works in {}", self.root.display());
                file.lock().map_err(failed())?;
            }
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
        }
        Ok(file)
    }

    /// Forgets what was measured after `step`: a killed run may have logged steps that its last checkpoint does not hold. A
    /// run that begins again measures its policy again before the first step.
    fn truncate(&self, step: u64) -> Result<(), TrainError> {
        truncate(&self.metrics(), |metrics: &StepMetrics| metrics.step <= step)?;
        truncate(&self.evaluations(), |metrics: &HeldOutMetrics| metrics.step <= step && step > 0)
    }
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, TrainError> {
    let file = File::open(path).map_err(TrainError::io("cannot read", path))?;
    let mut rows = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(TrainError::io("cannot read", path))?;
        rows.push(serde_json::from_str(&line).map_err(|e| TrainError::io("cannot read", path)(e.into()))?);
    }
    Ok(rows)
}

/// Keeps the lines of a file before the first that is none or that does not hold.
fn truncate<T: DeserializeOwned>(path: &Path, holds: impl Fn(&T) -> bool) -> Result<(), TrainError> {
    let Ok(file) = File::open(path) else { return Ok(()) };
    let mut kept = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(TrainError::io("cannot read", path))?;
        match serde_json::from_str(&line) {
            Ok(row) if holds(&row) => kept.extend(line.bytes().chain([b'\n'])),
            _ => break,
        }
    }
    write_atomically(path, &kept)
}

/// Writes metrics, events and checkpoints of a run into its folder.
pub(crate) struct Recorder<'a, 'c> {
    pub(crate) dir: &'a RunDir,
    pub(crate) context: &'a mut Context<'c>,
    pub(crate) companions: &'a Path,
    pub(crate) kind: Kind,
    pub(crate) keep_last: usize,
    metrics: BufWriter<File>,
    events: EventWriter<BufWriter<File>>,
    deltas: Option<DeltaLog>,
    watch: Option<Watch>,
}

/// What of a run is recorded beside its metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recording {
    /// Whether each pair's Δ is kept.
    pub(crate) deltas: bool,
    /// β, and whether the loss's gradient vanishes as margins grow, where margins are watched.
    pub(crate) margins: Option<(f64, bool)>,
}

impl<'a, 'c> Recorder<'a, 'c> {
    /// Goes on after `step`, 0 for a fresh run.
    pub(crate) fn open(
        dir: &'a RunDir,
        step: u64,
        context: &'a mut Context<'c>,
        companions: &'a Path,
        kind: Kind,
        keep_last: usize,
        recording: Recording,
    ) -> Result<Self, TrainError> {
        dir.truncate(step)?;
        let metrics = append(&dir.metrics())?;
        let now = context.clock.unix_seconds();
        // One event file a start: TensorBoard joins them, later files override repeated steps.
        let path = dir.root.join(format!("events.out.tfevents.{now:.0}.step-{step}"));
        let events = EventWriter::new(append(&path)?, now).map_err(TrainError::io("cannot write", &path))?;
        let deltas = recording.deltas.then(|| DeltaLog::open(&dir.root, step)).transpose()?;
        let watch = recording.margins.map(|(beta, saturates)| Watch::new(beta, saturates));
        Ok(Self { dir, context, companions, kind, keep_last, metrics, events, deltas, watch })
    }

    fn scalars(&mut self, step: u64, series: &[(&str, f64)]) -> Result<(), TrainError> {
        let now = self.context.clock.unix_seconds();
        self.events
            .scalars(step, now, series)
            .and_then(|()| self.events.flush())
            .map_err(TrainError::io("cannot write the TensorBoard events of", &self.dir.root))
    }
}

impl Observer for Recorder<'_, '_> {
    fn seconds(&self) -> f64 {
        self.context.clock.seconds()
    }

    fn on_step(&mut self, metrics: &StepMetrics, deltas: &[PairDelta], _: u64) -> Result<(), TrainError> {
        let path = self.dir.metrics();
        let failed = || TrainError::io("cannot write", path.clone());
        let line = serde_json::to_string(metrics).map_err(|e| failed()(e.into()))?;
        writeln!(self.metrics, "{line}").and_then(|()| self.metrics.flush()).map_err(failed())?;
        files::fault::point("trainer.metrics");
        self.scalars(metrics.step, &metrics.series())?;
        if let Some(log) = &mut self.deltas {
            log.write(metrics.step, metrics.epoch, deltas)?;
        }
        if let Some(warning) = self.watch.as_mut().and_then(|watch| watch.after(metrics)) {
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
        let path = self.dir.evaluations();
        let failed = || TrainError::io("cannot write", path.clone());
        let line = serde_json::to_string(metrics).map_err(|e| failed()(e.into()))?;
        let mut file = append(&path)?;
        writeln!(file, "{line}").and_then(|()| file.flush()).map_err(failed())?;
        self.scalars(metrics.step, &metrics.series())?;
        // A line for each would drown what a study of many runs says.
        tracing::debug!("{metrics}");
        self.context.progress.advance(metrics.step, &metrics.to_string());
        Ok(())
    }

    fn on_checkpoint(&mut self, snapshot: &TrainerState<'_>) -> Result<(), TrainError> {
        let folder = self.dir.checkpoints();
        let path = checkpoint::write(&folder, snapshot, self.kind, self.companions)?;
        checkpoint::keep_last(&folder, self.keep_last)?;
        tracing::debug!(step = snapshot.step, path = %path.display(), "checkpoint");
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.context.wants_stop()
    }
}

/// Trains along with the rank that records, and writes nothing but its part of a state that is shared out.
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

pub(crate) fn append(path: &Path) -> Result<BufWriter<File>, TrainError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    Ok(BufWriter::new(file.map_err(TrainError::io("cannot write", path))?))
}

/// Writes a file whole or not at all.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), TrainError> {
    files::write(path, content).map_err(TrainError::io("cannot write", path))
}

fn first_difference(existing: &str, wanted: &str) -> Option<String> {
    if existing == wanted {
        return None;
    }
    let pair = existing.lines().zip(wanted.lines()).find(|(a, b)| a != b);
    Some(match pair {
        Some((there, here)) => format!("there `{there}`, here `{here}`"),
        None => "one recipe has more lines than the other".to_owned(),
    })
}
