//! The recipe of a study: the trainer's tables, and what is varied.

use std::path::Path;

use pref_data::{FlipRate, Fraction};
use pref_loss::Beta;
use serde::{Deserialize, Serialize};
use trainer::recipe::{
    Complaint, DataSection, DistributedSection, Format, LoraSection, LossKind, LossSection, ModelSection,
    OutputSection, Recipe, RecipeError, RecipeRoot, SpeedSection, TrainSection, parse_toml, read_toml, seed,
    to_toml,
};

use crate::cell::Cell;

/// What `model.path` and `data.path` say where the offline world supplies both.
pub const SANDBOX: &str = "sandbox";

/// A study: one recipe for every training run in it, and what the runs differ in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRecipe {
    /// The master seed.
    #[serde(default, with = "seed")]
    pub seed: u64,
    /// What is varied.
    pub study: StudySection,
    /// Who rates answers.
    pub judge: JudgeSection,
    /// The offline world, where `data.format = "sandbox"`.
    #[serde(default)]
    pub sandbox: SandboxSection,
    /// The policy that all runs start from.
    pub model: ModelSection,
    /// The preferences; annotator, fraction and flip rate are the study's to set.
    pub data: DataSection,
    /// The loss; kind and β are the study's to set.
    #[serde(default)]
    pub loss: LossSection,
    /// How policies are trained.
    #[serde(default)]
    pub train: TrainSection,
    /// Switches of the fast paths.
    #[serde(default)]
    pub speed: SpeedSection,
    /// Low-rank adapters.
    #[serde(default)]
    pub lora: LoraSection,
    /// Several processes.
    #[serde(default)]
    pub distributed: DistributedSection,
    /// Where results go.
    pub output: OutputSection,
}

/// What is varied. Where a list is absent each research question has its own, as in the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudySection {
    /// Benchmark questions, ten a category at 80.
    #[serde(default = "eighty")]
    pub questions: usize,
    /// Replicates: data, labels, order, generation and judge are drawn anew in each.
    #[serde(default = "two")]
    pub seeds: u64,
    /// Whose labels are compared.
    #[serde(default = "human_and_gpt4")]
    pub annotators: Vec<String>,
    /// Shares of the pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<Fraction>>,
    /// Shares of swapped labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip_rates: Option<Vec<FlipRate>>,
    /// Values of β.
    #[serde(default = "tenth")]
    pub betas: Vec<Beta>,
    /// Losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub losses: Option<Vec<LossKind>>,
}

/// Who rates answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeSection {
    /// What kind of judge.
    pub kind: JudgeKind,
    /// The endpoint of an LLM judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The name of an LLM judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// What kind of judge rates answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JudgeKind {
    /// The sandbox's two judges, beside its gold quality.
    Sandbox,
}

/// The offline world: see the crate `sandbox`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxSection {
    /// Dialogues that the policy is fine-tuned on.
    pub demonstrations: usize,
    /// Optimiser steps of supervised fine-tuning after which the weak sampling policy is taken, as a share.
    pub weak_after: f64,
    /// Dialogues of high quality that the strong sampling policy is fine-tuned on further.
    pub strong_demonstrations: usize,
    /// Learning rate of supervised fine-tuning.
    pub sft_learning_rate: f64,
    /// Dialogues an optimiser step of supervised fine-tuning.
    pub sft_batch_size: usize,
    /// Preference pairs a replicate.
    pub pairs: usize,
    /// Questions beside the benchmark's on which gold quality is taken.
    pub further_questions: usize,
    /// The longest answer, in tokens.
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
            further_questions: 1_000,
            max_new_tokens: 48,
        }
    }
}

/// A recipe that ships with the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// The offline world: minutes on two cores.
    Sandbox,
}

impl Preset {
    /// Its text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Sandbox => include_str!("../../../recipes/sandbox.toml"),
        }
    }

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
        }
    }
}

impl StudyRecipe {
    /// Reads a recipe file, `overrides` (`section.key=value`) applied.
    ///
    /// # Errors
    ///
    /// What is wrong with file or overrides, and where.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        read_toml(path, overrides)
    }

    /// A recipe that ships with the programs, `overrides` applied.
    ///
    /// # Errors
    ///
    /// What is wrong with the overrides.
    pub fn preset(preset: Preset, overrides: &[String]) -> Result<Self, RecipeError> {
        parse_toml(&format!("preset {}", preset.name()), preset.text(), overrides)
    }

    /// The recipe of one cell: `model` and `data` are what the study starts from, `output` is the cell's folder.
    pub fn of_cell(&self, cell: &Cell, model: &Path, data: &Path, output: &Path) -> Recipe {
        let mut recipe = Recipe {
            seed: cell.seed,
            model: self.model.clone(),
            data: self.data.clone(),
            loss: self.loss,
            train: self.train.clone(),
            speed: self.speed,
            lora: self.lora.clone(),
            distributed: self.distributed,
            output: self.output.clone(),
        };
        recipe.model.path = model.display().to_string();
        recipe.data.path = data.display().to_string();
        recipe.data.annotator.clone_from(&cell.annotator);
        recipe.model.reference = None;
        recipe.data.fraction = cell.fraction;
        recipe.data.flip_rate = cell.flip_rate;
        recipe.loss = self.loss_of(cell);
        recipe.output.dir = output.to_owned();
        recipe
    }
}

impl StudyRecipe {
    /// The first line in which `other` describes another study; `None` where results of both may stand on one page.
    ///
    /// Where results go and how many threads compute them does not count, nor do the lists of values at which each
    /// question may be asked with its own: volumes, flip rates and losses stand beside every score.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let [here, there] = [self, other].map(|recipe| {
            let mut recipe = recipe.clone();
            recipe.output.dir.clone_from(&self.output.dir);
            recipe.train.threads = 0;
            let StudySection { volumes, flip_rates, losses, .. } = &mut recipe.study;
            (*volumes, *flip_rates, *losses) = (None, None, None);
            to_toml(&recipe)
        });
        let pair = here.lines().zip(there.lines()).find(|(a, b)| a != b);
        match pair {
            Some((here, there)) => Some(format!("there `{there}`, here `{here}`")),
            None => (here != there).then(|| "one recipe has more lines than the other".to_owned()),
        }
    }

    /// The loss of one cell. A key that only some losses look at is left at its default for the others, so that one
    /// DPO run serves studies that differ in cDPO's ε or IPO's reduction.
    fn loss_of(&self, cell: &Cell) -> LossSection {
        let mut loss = LossSection { kind: cell.loss, beta: cell.beta, ..LossSection::default() };
        if cell.loss.smooths_labels() {
            loss.label_smoothing = self.loss.label_smoothing;
        }
        if cell.loss == LossKind::Ipo {
            loss.logp_reduction = self.loss.logp_reduction;
        }
        loss
    }
}

impl RecipeRoot for StudyRecipe {
    fn finish(&mut self) -> Result<(), Complaint> {
        self.study.check().map_err(|complaint| complaint.within("study"))?;
        self.data.check().map_err(|complaint| complaint.within("data"))?;
        self.train.check().map_err(|complaint| complaint.within("train"))?;
        self.lora.check().map_err(|complaint| complaint.within("lora"))?;
        self.distributed.check().map_err(|complaint| complaint.within("distributed"))?;
        self.output.check().map_err(|complaint| complaint.within("output"))?;
        for &kind in self.study.losses.iter().flatten() {
            let loss = LossSection { kind, ..LossSection::default() };
            loss.check().map_err(|complaint| complaint.within("loss"))?;
        }
        if self.train.checkpoints.last() != Some(&1.0) {
            let reason = "must end with 1.0 in a study: the trained model is what is scored";
            return Err(Complaint::invalid("checkpoints", reason).within("train"));
        }
        let is_sandbox =
            self.data.format == Format::Sandbox && self.data.path == SANDBOX && self.model.path == SANDBOX;
        if !is_sandbox {
            let way_out = "set model.path and data.path to \"sandbox\" and data.format = \"sandbox\"; one run on your own \
                           model and data is what pref-train does";
            return Err(Complaint::unsupported("path", "a study of another world than the sandbox", way_out)
                .within("data"));
        }
        Ok(())
    }
}

impl StudySection {
    fn check(&self) -> Result<(), Complaint> {
        let filled = |key: &str, is_empty: bool| match is_empty {
            true => Err(Complaint::invalid(key, "is empty; name at least one value")),
            false => Ok(()),
        };
        filled("annotators", self.annotators.is_empty())?;
        filled("betas", self.betas.is_empty())?;
        filled("volumes", self.volumes.as_ref().is_some_and(Vec::is_empty))?;
        filled("flip_rates", self.flip_rates.as_ref().is_some_and(Vec::is_empty))?;
        filled("losses", self.losses.as_ref().is_some_and(Vec::is_empty))?;
        if self.losses.as_ref().is_some_and(|losses| losses.contains(&LossKind::Sft)) {
            return Err(Complaint::invalid(
                "losses",
                "must not name `sft`: the supervised policy is every table's baseline",
            ));
        }
        if self.seeds == 0 {
            return Err(Complaint::invalid("seeds", "must be at least 1"));
        }
        if self.questions < 2 {
            return Err(Complaint::invalid(
                "questions",
                "must be at least 2: an interval needs two questions",
            ));
        }
        Ok(())
    }
}

fn eighty() -> usize {
    80
}

fn two() -> u64 {
    2
}

fn tenth() -> Vec<Beta> {
    vec![LossSection::default().beta]
}

fn human_and_gpt4() -> Vec<String> {
    vec!["human".into(), "gpt-4-turbo".into()]
}
