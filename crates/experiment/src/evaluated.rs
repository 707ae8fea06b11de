//! Evaluated subjects and their scores.

use mtbench::{Answer, BenchDir};
use serde::{Deserialize, Serialize};
use trainer::HeldOutMetrics;
use trainer::recipe::LossKind;

use crate::cell::{Subject, reduction_name, slice_name};
use crate::error::ExperimentError;
use crate::failure::Failure;
use crate::fitted::FittedLabels;
use crate::results::{PolicyRow, ScoreRow};
use crate::setup::Setup;
use crate::store::Key;

/// The scorer of gold quality.
pub const GOLD: &str = "gold";
/// The question set of the benchmark.
pub const BENCHMARK: &str = "mt-bench";
/// The question set of the held-out questions.
pub const FURTHER: &str = "further";

/// One score of one turn of one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// [`BENCHMARK`] or [`FURTHER`].
    pub question_set: String,
    /// The question.
    pub question_id: u64,
    /// Its category.
    pub category: String,
    /// The index of the sampled answer; not in the file, whose folder is that of a sample.
    #[serde(skip)]
    pub sample: u64,
    /// 1 or 2.
    pub turn: u8,
    /// The judge's name, or [`GOLD`].
    pub scorer: String,
    /// The rating; `None` if the judge gave none.
    pub score: Option<f64>,
    /// The variance between the judge's ratings of this turn; `None` for one rating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge_variance: Option<f64>,
    /// Length of the answer.
    pub characters: usize,
}

/// An evaluation in the store.
#[derive(Debug)]
pub struct Evaluation {
    /// Every score.
    pub scores: Vec<Score>,
    pub(crate) bench: BenchDir,
    pub(crate) model_id: String,
}

impl Evaluation {
    /// Returns an evaluation of these scores without answers, for analyses of scores from elsewhere.
    pub fn from_scores(scores: Vec<Score>) -> Self {
        Self { scores, bench: BenchDir::new("no folder"), model_id: String::new() }
    }

    /// Returns the evaluation with the scores of a further sample.
    pub(crate) fn with(mut self, sample: Self) -> Self {
        self.scores.extend(sample.scores);
        self
    }

    /// Returns the mean length of the answers to the benchmark, in characters.
    pub(crate) fn mean_characters(&self) -> Option<f64> {
        let of_benchmark = self.scores.iter().filter(|score| score.question_set == BENCHMARK);
        // Every answer has as many scorers, so each has the same weight.
        let lengths: Vec<f64> = of_benchmark.map(|score| score.characters as f64).collect();
        (!lengths.is_empty()).then(|| lengths.iter().sum::<f64>() / lengths.len() as f64)
    }

    /// Reads the answers to the benchmark's questions.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn answers(&self) -> Result<Vec<Answer>, ExperimentError> {
        Ok(self.bench.answers(&self.model_id)?)
    }
}

/// The results of a grid.
#[derive(Debug, Default)]
pub struct Collected {
    /// The evaluated subjects, in the grid's order.
    pub evaluated: Vec<Evaluated>,
    /// The failed subjects.
    pub failed: Vec<Failure>,
}

/// A subject with its measurements.
#[derive(Debug)]
pub struct Evaluated {
    /// The subject.
    pub subject: Subject,
    /// Its scores and answers.
    pub evaluation: Evaluation,
    /// The address of its training run; of the data source for the baseline.
    pub key: Key,
    /// Optimizer steps of preference training.
    pub step: u64,
    /// Mean training loss over the steps since the previous checkpoint.
    pub training_loss: Option<f64>,
    /// Metrics on held-out pairs at this checkpoint; `None` for the baseline.
    pub held_out: Option<HeldOutMetrics>,
    /// The labels that it fits; `None` for the baseline and for runs without these data.
    pub labels: Option<FittedLabels>,
}

/// The identity of an evaluation: address of its run, seed, step.
pub type EvaluationId = (Key, u64, u64);

impl Evaluated {
    /// Returns its identity within an experiment.
    pub fn id(&self) -> EvaluationId {
        (self.key.clone(), self.subject.seed(), self.step)
    }

    /// Returns the scores as rows of `results.parquet`.
    pub fn rows(&self, setup: &Setup) -> Vec<ScoreRow> {
        let policy = self.policy(setup);
        let row = |score: &Score| ScoreRow {
            cell: policy.cell.clone(),
            annotator: policy.annotator.clone(),
            slice: policy.slice.clone(),
            loss: policy.loss.clone(),
            beta: policy.beta,
            label_smoothing: policy.label_smoothing,
            logp_reduction: policy.logp_reduction.clone(),
            fraction: policy.fraction,
            flip_rate: policy.flip_rate,
            learning_rate: policy.learning_rate,
            epochs: policy.epochs,
            seed: policy.seed,
            step: policy.step,
            progress: policy.progress,
            sample: score.sample,
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

    /// Returns the other measurements as a row of `policies.parquet`.
    pub fn policy(&self, setup: &Setup) -> PolicyRow {
        let sft = PolicyRow {
            cell: self.key.as_str().to_owned(),
            annotator: String::new(),
            slice: String::new(),
            loss: LossKind::Sft.name().to_owned(),
            beta: 0.0,
            label_smoothing: 0.0,
            logp_reduction: String::new(),
            fraction: 1.0,
            flip_rate: 0.0,
            learning_rate: setup.train.learning_rate,
            epochs: 0,
            seed: self.subject.seed(),
            step: self.step,
            progress: 0.0,
            answer_characters: self.evaluation.mean_characters(),
            training_loss: self.training_loss,
            held_out_accuracy: self.held_out.and_then(|metrics| metrics.accuracy()),
            held_out_margin: self.held_out.and_then(|metrics| metrics.margin()),
            kl: self.held_out.and_then(|metrics| metrics.kl),
            kept_pairs: self.labels.map(|labels| labels.kept.pairs),
            kept_preferred: self.labels.map(|labels| labels.kept.preferred),
            flipped_pairs: self.labels.map(|labels| labels.flipped.pairs),
            flipped_preferred: self.labels.map(|labels| labels.flipped.preferred),
        };
        let Subject::Trained { cell, checkpoint } = &self.subject else { return sft };
        let checkpoints = &setup.train.checkpoints;
        let evenly = (checkpoint + 1) as f64 / checkpoints.len() as f64;
        PolicyRow {
            annotator: cell.annotator.clone(),
            slice: cell.slice.as_ref().map_or(String::new(), slice_name),
            loss: cell.loss.name().to_owned(),
            beta: cell.beta.get(),
            label_smoothing: if cell.loss.smooths_labels() { setup.smoothing_of(cell).get() } else { 0.0 },
            logp_reduction: match cell.loss {
                LossKind::Ipo => reduction_name(setup.reduction_of(cell)).to_owned(),
                _ => String::new(),
            },
            fraction: cell.fraction.get(),
            flip_rate: cell.flip_rate.get(),
            learning_rate: cell.learning_rate.unwrap_or(setup.train.learning_rate),
            epochs: setup.epochs_of(cell),
            progress: checkpoints.get(*checkpoint).copied().unwrap_or(evenly),
            ..sft
        }
    }
}
