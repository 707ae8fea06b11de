//! The setup of an experiment: what all its runs share.

use std::num::{NonZeroU16, NonZeroU64};
use std::path::{Path, PathBuf};

use pref_data::{ChatSettings, Date};
use pref_loss::{LabelSmoothing, LogpReduction};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trainer::recipe::{
    CheckpointsSection, DataSection, DistributedSection, LoraSection, LossKind, LossSection, ModelSection,
    OptimizerSection, OutputSection, Recipe, Smoothing, SpeedSection, TrainSection, WatchSection,
};

use crate::cell::Cell;
use crate::given_policy::GivenPolicy;

mod judge;

pub(crate) use judge::JudgeIdentity;
pub use judge::{JudgeKind, JudgeSection, PaceSection};

/// The value of `model.path` and `data.path` in a setup of the sandbox.
pub const SANDBOX: &str = "sandbox";

/// What all runs of an experiment share; a [`Cell`] says what one run changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The master seed.
    pub seed: u64,
    /// The folder of the benchmark, with FastChat's layout; `None` in the sandbox, which has its own questions.
    pub bench: Option<PathBuf>,
    /// Number of benchmark questions.
    pub questions: usize,
    /// Number of replicates. Each draws data, labels, order, generation and judge anew.
    pub seeds: u64,
    /// Policies that were trained elsewhere, in place of training their cells.
    pub policies: Vec<GivenPolicy>,
    /// The judges of the answers.
    pub judge: JudgeSection,
    /// How the policies answer.
    pub answers: AnswersSection,
    /// The settings of the sandbox.
    pub sandbox: SandboxSection,
    /// The policy that all runs start from.
    pub model: ModelSection,
    /// The preferences; a cell sets annotator, slice, fraction and flip rate.
    pub data: DataSection,
    /// The loss; a cell sets kind and β.
    pub loss: LossSection,
    /// The training of each policy.
    pub train: TrainSection,
    /// The optimizer.
    pub optimizer: OptimizerSection,
    /// Switches of the fast paths.
    pub speed: SpeedSection,
    /// Evaluation during training; the sandbox supplies held-out preferences itself.
    pub watch: WatchSection,
    /// Low-rank adapters.
    pub lora: LoraSection,
    /// Several processes.
    pub distributed: DistributedSection,
    /// The folder of results.
    pub output: OutputSection,
    /// What the store keeps of finished runs.
    pub store: StoreSection,
}

/// What the store keeps of finished runs; no score depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// `"all"`, or `"scores"` to remove the weights of a run once its policies have answered. A table that later needs
    /// another checkpoint of the run trains it again.
    pub keep: Keep,
}

impl StoreSection {
    /// Returns whether all keys have their default values.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What the store keeps of a finished run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Everything.
    #[default]
    All,
    /// Metrics, answers and scores, without weights.
    Scores,
}

/// How the policies answer the benchmark. Only `samples` applies to the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnswersSection {
    /// Maximum length of an answer, in tokens.
    pub max_new_tokens: u32,
    /// Questions per batch; answers are written after each batch.
    pub batch: NonZeroU16,
    /// The system message of every dialogue; FastChat's template for Zephyr has an empty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The date that a chat template prints: a day (`2026-11-29`), or `none`; by default `data.date`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Variables of the chat template, in addition to `data.chat_template_kwargs`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub chat_template_kwargs: Map<String, Value>,
    /// Sampled answers per seed and question. Each has its own random stream; categories at temperature 0 repeat theirs.
    #[serde(skip_serializing_if = "is_one")]
    pub samples: NonZeroU16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it a reference")]
fn is_one(samples: &NonZeroU16) -> bool {
    samples.get() == 1
}

impl Default for AnswersSection {
    fn default() -> Self {
        Self {
            max_new_tokens: mtbench::ANSWER_TOKENS,
            batch: NonZeroU16::new(32).expect("not 0"),
            system: None,
            date: None,
            chat_template_kwargs: Map::new(),
            samples: NonZeroU16::MIN,
        }
    }
}

/// The settings of the sandbox; see the crate `sandbox`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxSection {
    /// Dialogues of supervised fine-tuning.
    pub demonstrations: usize,
    /// Share of supervised fine-tuning after which the weak sampling policy is saved.
    pub weak_after: f64,
    /// High-quality dialogues on which the strong sampling policy is fine-tuned further.
    pub strong_demonstrations: usize,
    /// Learning rate of supervised fine-tuning.
    pub sft_learning_rate: f64,
    /// Batch size of supervised fine-tuning.
    pub sft_batch_size: usize,
    /// Preference pairs per replicate.
    pub pairs: usize,
    /// Held-out pairs per replicate.
    pub held_out: usize,
    /// Held-out questions, on which gold quality is computed.
    pub further_questions: usize,
    /// Maximum length of an answer, in tokens.
    pub max_new_tokens: usize,
}

impl Default for SandboxSection {
    fn default() -> Self {
        Self {
            demonstrations: 48_000,
            weak_after: 0.25,
            strong_demonstrations: 6_400,
            sft_learning_rate: 4e-3,
            sft_batch_size: 32,
            pairs: 1_500,
            held_out: 200,
            further_questions: 1_000,
            max_new_tokens: 48,
        }
    }
}

impl Setup {
    /// Returns whether model, preferences and judges are the sandbox's.
    pub fn is_sandbox(&self) -> bool {
        self.model.path == SANDBOX
    }

    /// Returns the settings of the chat template with which policies answer.
    pub fn answer_chat(&self) -> ChatSettings {
        let mut chat = self.data.chat();
        if let Some(date) = &self.answers.date {
            chat.date = Date::parse(date).unwrap_or_default();
        }
        chat.variables.extend(self.answers.chat_template_kwargs.clone());
        chat
    }

    /// Returns the index of the last checkpoint, which is the trained model.
    pub fn last_checkpoint(&self) -> usize {
        self.train.checkpoints.len() - 1
    }

    /// Returns the number of passes of a cell over its pairs. A study's recipe has a whole number of them.
    pub(crate) fn epochs_of(&self, cell: &Cell) -> u64 {
        cell.epochs.map_or(self.train.epochs.get() as u64, NonZeroU64::get)
    }

    /// Returns the recipe of one cell's training run, which writes to `output`.
    pub fn run_recipe(
        &self,
        cell: &Cell,
        model: &Path,
        data: &Path,
        held_out: Option<&Path>,
        output: &Path,
    ) -> Recipe {
        let mut from = self.data.clone();
        from.path = data.display().to_string();
        from.eval_path = held_out.map(|path| path.display().to_string());
        from.annotator.clone_from(&cell.annotator);
        if cell.slice.is_some() {
            from.slice.clone_from(&cell.slice);
        }
        from.fraction = cell.fraction;
        from.flip_rate = cell.flip_rate;
        let mut recipe = Recipe {
            seed: cell.seed,
            model: self.model.clone(),
            data: vec![from],
            loss: self.loss.clone(),
            train: self.train.clone(),
            optimizer: self.optimizer,
            checkpoints: CheckpointsSection::default(),
            speed: self.speed,
            watch: self.watch.clone(),
            lora: self.lora.clone(),
            distributed: self.distributed,
            output: self.output.clone(),
        };
        recipe.model.path = model.display().to_string();
        recipe.model.reference = None;
        recipe.loss = self.loss_of(cell);
        if let Some(learning_rate) = cell.learning_rate {
            recipe.train.learning_rate = learning_rate;
        }
        if let Some(epochs) = cell.epochs {
            recipe.train.epochs = epochs.into();
        }
        // A run may resume with another number of threads.
        recipe.train.threads = 0;
        recipe.output.dir = output.to_owned();
        recipe
    }

    /// Returns cDPO's ε of one cell.
    pub(crate) fn smoothing_of(&self, cell: &Cell) -> LabelSmoothing {
        cell.label_smoothing.unwrap_or(self.loss.label_smoothing).at(cell.flip_rate)
    }

    /// Returns IPO's reduction of log-probabilities of one cell.
    pub(crate) fn reduction_of(&self, cell: &Cell) -> LogpReduction {
        cell.logp_reduction.unwrap_or(self.loss.logp_reduction)
    }

    /// Returns the loss of one cell.
    fn loss_of(&self, cell: &Cell) -> LossSection {
        let mut loss = self.loss.of_kind(cell.loss, cell.beta);
        if cell.loss.smooths_labels() {
            loss.label_smoothing = Smoothing::Fixed(self.smoothing_of(cell));
        }
        if cell.loss == LossKind::Ipo {
            loss.logp_reduction = self.reduction_of(cell);
        }
        loss
    }
}
