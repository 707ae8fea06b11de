//! The recipe of a study: the trainer's tables, and what is varied.

use std::num::{NonZeroU16, NonZeroU64};
use std::path::{Path, PathBuf};

use hub::{Hub, HubError};
use pref_data::{FlipRate, Fraction, LabelSource};
use pref_loss::Beta;
use serde::{Deserialize, Serialize};
use trainer::recipe::{
    Complaint, DataSection, DistributedSection, Format, LoraSection, LossKind, LossSection, ModelSection,
    OutputSection, Recipe, RecipeError, RecipeRoot, SpeedSection, TrainSection, WatchSection, parse_toml,
    read_toml, seed, to_toml,
};

use crate::cell::Cell;

mod judge;

pub use judge::{JudgeKind, JudgeSection, PaceSection};

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
    /// How the policies answer.
    #[serde(default)]
    pub answers: AnswersSection,
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
    /// What is measured on the way; the sandbox supplies held-out preferences itself.
    #[serde(default)]
    pub watch: WatchSection,
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
    /// The benchmark's folder, laid out as FastChat's and as `mtbench fetch` leaves it; the sandbox has its own questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bench: Option<PathBuf>,
    /// Benchmark questions, ten a category at 80.
    #[serde(default = "eighty")]
    pub questions: usize,
    /// Replicates: data, labels, order, generation and judge are drawn anew in each.
    #[serde(default = "two")]
    pub seeds: u64,
    /// Whose labels are compared.
    #[serde(default = "human_and_gpt4")]
    pub annotators: Vec<String>,
    /// Which of the paper's sets the preferences are, whose printed numbers stand beside ours.
    #[serde(default, skip_serializing_if = "PaperSet::is_gair")]
    pub paper_set: PaperSet,
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
    /// Values among which the sweep looks for the best β.
    #[serde(default = "eleven")]
    pub sweep_betas: Vec<Beta>,
    /// Mixtures of the first two annotators' labels, such as `75% human, 25% gpt-4-turbo`; quarters where they are not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixtures: Option<Vec<String>>,
    /// Passes over the pairs where training is to be overdone.
    #[serde(default = "ten")]
    pub long_epochs: NonZeroU64,
}

/// A set of preferences of the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaperSet {
    /// GAIR's preference-dissection: Tables 1 to 9. Also where the preferences are none of the paper's.
    #[default]
    Gair,
    /// UltraFeedback: Tables 10 to 14.
    UltraFeedback,
    /// SHP: Tables 10 to 14.
    Shp,
}

impl PaperSet {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it a reference")]
    fn is_gair(&self) -> bool {
        *self == Self::Gair
    }

    /// The number of the table that prints volumes, noise or algorithms (`table` 3, 4 or 1) of this set, and how its columns begin.
    pub(crate) fn printed(self, table: usize) -> (usize, Option<&'static str>) {
        let of_appendix = match table {
            1 => 10,
            3 => 13,
            4 => 14,
            other => other,
        };
        match self {
            Self::Gair => (table, None),
            Self::UltraFeedback => (of_appendix, Some("UltraFeedback")),
            Self::Shp => (of_appendix, Some("SHP")),
        }
    }
}

/// How the policies answer the benchmark, where they are not the sandbox's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnswersSection {
    /// The longest answer, in tokens.
    pub max_new_tokens: u32,
    /// Questions answered at a time; who is stopped loses no more.
    pub batch: NonZeroU16,
    /// What stands before every dialogue, if anything; an empty system message is what FastChat puts before Zephyr's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

impl Default for AnswersSection {
    fn default() -> Self {
        Self {
            max_new_tokens: mtbench::ANSWER_TOKENS,
            batch: NonZeroU16::new(32).expect("not 0"),
            system: None,
        }
    }
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
    /// Further pairs a replicate, which are measured in training and not trained on.
    pub held_out: usize,
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
            held_out: 200,
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
    /// A real model of 135M parameters on GAIR's preferences, judged by a model on the same machine: hours on two cores.
    Laptop,
    /// The paper's setting: Zephyr 7B, GAIR's preferences, GPT-4 as judge.
    Paper,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sandbox, Self::Laptop, Self::Paper];

    /// Its text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Sandbox => include_str!("../../../recipes/sandbox.toml"),
            Self::Laptop => include_str!("../../../recipes/laptop.toml"),
            Self::Paper => include_str!("../../../recipes/paper.toml"),
        }
    }

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Laptop => "laptop",
            Self::Paper => "paper",
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

    /// Whether model, preferences and judges are the offline world's.
    pub fn is_sandbox(&self) -> bool {
        self.model.path == SANDBOX
    }

    /// Puts local paths in the place of ids on the Hub, after bringing what they name.
    ///
    /// # Errors
    ///
    /// What keeps the files from coming.
    pub fn fetch(&mut self, hub: &Hub) -> Result<(), HubError> {
        if self.is_sandbox() {
            return Ok(());
        }
        self.model.fetch(hub)?;
        self.data.fetch(hub)
    }

    /// The recipe of one cell: `model` and `data` are what the study starts from, `held_out` what it is measured on, `output`
    /// is the cell's folder.
    pub fn of_cell(
        &self,
        cell: &Cell,
        model: &Path,
        data: &Path,
        held_out: Option<&Path>,
        output: &Path,
    ) -> Recipe {
        let mut recipe = Recipe {
            seed: cell.seed,
            model: self.model.clone(),
            data: self.data.clone(),
            loss: self.loss,
            train: self.train.clone(),
            speed: self.speed,
            watch: self.watch.clone(),
            lora: self.lora.clone(),
            distributed: self.distributed,
            output: self.output.clone(),
        };
        recipe.model.path = model.display().to_string();
        recipe.data.path = data.display().to_string();
        recipe.data.eval_path = held_out.map(|path| path.display().to_string());
        recipe.data.annotator.clone_from(&cell.annotator);
        recipe.model.reference = None;
        if cell.slice.is_some() {
            recipe.data.slice.clone_from(&cell.slice);
        }
        recipe.data.fraction = cell.fraction;
        recipe.data.flip_rate = cell.flip_rate;
        recipe.loss = self.loss_of(cell);
        if let Some(epochs) = cell.epochs {
            recipe.train.epochs = epochs.get();
        }
        // How many threads compute a cell is no part of it: a study goes on from half a run with another number.
        recipe.train.threads = 0;
        recipe.output.dir = output.to_owned();
        recipe
    }
}

impl StudyRecipe {
    /// The first line in which `other` describes another study; `None` where results of both may stand on one page.
    ///
    /// Where results go, how many threads compute them and how fast a judge is asked does not count, nor do the lists of values at which each
    /// question may be asked with its own: volumes, flip rates, losses, β and epochs stand beside every score.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let [here, there] = [self, other].map(|recipe| {
            let mut recipe = recipe.clone();
            recipe.output.dir.clone_from(&self.output.dir);
            recipe.train.threads = 0;
            recipe.judge.pace = PaceSection::default();
            if let Some(second) = &mut recipe.judge.second {
                second.pace = PaceSection::default();
            }
            let StudySection { volumes, flip_rates, losses, sweep_betas, mixtures, long_epochs, .. } =
                &mut recipe.study;
            (*volumes, *flip_rates, *losses, *mixtures) = (None, None, None, None);
            (*sweep_betas, *long_epochs) = (eleven(), ten());
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
        self.judge.check().map_err(|complaint| complaint.within("judge"))?;
        if self.model.reference.is_some() {
            let reason = "is the study's to set: the policy that it starts from, model.path; remove the key";
            return Err(Complaint::invalid("reference", reason).within("model"));
        }
        self.model.clone().finish().map_err(|complaint| complaint.within("model"))?;
        self.check_world()?;
        let has_held_out =
            if self.is_sandbox() { self.sandbox.held_out > 0 } else { self.data.eval_path.is_some() };
        self.watch.check(has_held_out).map_err(|complaint| complaint.within("watch"))
    }
}

impl StudyRecipe {
    /// The sandbox is whole or not at all.
    fn check_world(&self) -> Result<(), Complaint> {
        let of_sandbox = [
            (self.model.path == SANDBOX, "model", "path"),
            (self.data.path == SANDBOX, "data", "path"),
            (self.data.path == SANDBOX && self.data.format == Format::Sandbox, "data", "format"),
            (self.judge.kind == JudgeKind::Sandbox, "judge", "kind"),
        ];
        let is_sandbox = self.is_sandbox();
        if let Some((_, section, key)) = of_sandbox.into_iter().find(|(is, ..)| *is != is_sandbox) {
            let reason = if is_sandbox {
                "must be \"sandbox\" where model.path is: no other preferences or judge speak of its model"
            } else {
                "must not be \"sandbox\" unless model.path is too: its preferences and judges speak of its own model only"
            };
            return Err(Complaint::invalid(key, reason).within(section));
        }
        match (is_sandbox, &self.study.bench) {
            (true, Some(_)) => {
                let reason =
                    "only counts for a model of your own: the sandbox has its own questions; remove the key";
                Err(Complaint::invalid("bench", reason).within("study"))
            }
            (false, None) => {
                let reason = "is missing; name a folder with MT-Bench's question.jsonl, as `mtbench fetch --data DIR` makes";
                Err(Complaint::invalid("bench", reason).within("study"))
            }
            (true, None) if self.data.eval_path.is_some() => {
                let reason = "only counts for data of your own: sandbox.held_out says how many pairs it makes; remove the key";
                Err(Complaint::invalid("eval_path", reason).within("data"))
            }
            (true, None) if self.answers != AnswersSection::default() => {
                let reason = "only counts for a model of your own; the sandbox's is sandbox.max_new_tokens";
                Err(Complaint::invalid("answers", reason))
            }
            _ => Ok(()),
        }
    }
}

impl StudySection {
    /// The mixtures of labels; quarters of the first two annotators' where the recipe names none.
    pub(crate) fn mixtures(&self) -> Vec<String> {
        match (&self.mixtures, self.annotators.as_slice()) {
            (Some(mixtures), _) => mixtures.clone(),
            (None, [one, other, ..]) => {
                [25, 50, 75].map(|share| format!("{}% {one}, {share}% {other}", 100 - share)).into()
            }
            (None, _) => Vec::new(),
        }
    }

    fn check(&self) -> Result<(), Complaint> {
        let filled = |key: &str, is_empty: bool| match is_empty {
            true => Err(Complaint::invalid(key, "is empty; name at least one value")),
            false => Ok(()),
        };
        filled("annotators", self.annotators.is_empty())?;
        filled("betas", self.betas.is_empty())?;
        filled("sweep_betas", self.sweep_betas.is_empty())?;
        filled("volumes", self.volumes.as_ref().is_some_and(Vec::is_empty))?;
        filled("flip_rates", self.flip_rates.as_ref().is_some_and(Vec::is_empty))?;
        for mixture in self.mixtures.iter().flatten() {
            match LabelSource::try_from(mixture.clone()) {
                Ok(LabelSource::Mixture(_)) => {}
                Ok(_) => {
                    let reason =
                        format!("`{mixture}` mixes nobody; write it as `75% human, 25% gpt-4-turbo`");
                    return Err(Complaint::invalid("mixtures", reason));
                }
                Err(error) => return Err(Complaint::invalid("mixtures", error.to_string())),
            }
        }
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

/// The values of the paper's appendix A.1.
fn eleven() -> Vec<Beta> {
    let values = [1e-3, 2.5e-3, 5e-3, 6.25e-3, 1e-2, 5e-2, 1e-1, 1.5e-1, 2e-1, 5e-1, 9e-1];
    values.into_iter().filter_map(|value| Beta::new(value).ok()).collect()
}

fn ten() -> NonZeroU64 {
    NonZeroU64::new(10).expect("not 0")
}

fn human_and_gpt4() -> Vec<String> {
    vec!["human".into(), "gpt-4-turbo".into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_recipe() {
        for preset in Preset::ALL {
            let recipe = StudyRecipe::preset(preset, &[]).unwrap();
            assert_eq!(recipe.is_sandbox(), preset == Preset::Sandbox);
            // What is written down is read back: `questions/` holds recipes as text.
            let again = parse_toml(preset.name(), &to_toml(&recipe), &[]).unwrap();
            assert_eq!(recipe, again);
        }
    }

    #[test]
    fn the_appendix_differs_from_the_paper_in_its_preferences_only() {
        let paper = StudyRecipe::preset(Preset::Paper, &[]).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/paper");
        for (file, format) in [("ultrafeedback.toml", Format::Pairs), ("shp.toml", Format::Shp)] {
            let recipe = StudyRecipe::load(&folder.join(file), &[]).unwrap();
            assert_eq!(recipe.data.format, format, "{file}");
            assert_eq!(recipe.study.annotators, ["human"], "{file}: one source of labels");
            let StudyRecipe { mut study, mut output, mut data, .. } = recipe.clone();
            assert_ne!(study.paper_set, PaperSet::Gair, "{file}");
            study.annotators.clone_from(&paper.study.annotators);
            study.paper_set = PaperSet::Gair;
            output.dir.clone_from(&paper.output.dir);
            assert_eq!((data.max_length, data.preset), (paper.data.max_length, paper.data.preset), "{file}");
            data = paper.data.clone();
            assert_eq!(StudyRecipe { study, output, data, ..recipe }, paper, "{file}");
        }
    }

    #[test]
    fn the_paper_is_asked_for_as_its_appendix_says() {
        let recipe = StudyRecipe::preset(Preset::Paper, &[]).unwrap();
        let train = &recipe.train;
        assert_eq!((train.learning_rate, train.batch_size, train.warmup_ratio), (5e-7, 16, 0.1));
        assert_eq!((train.betas, train.eps, train.scheduler), ([0.9, 0.999], 1e-8, trainer::Decay::Linear));
        assert_eq!(recipe.study.annotators, ["human", "gpt-4-turbo"]);
        assert_eq!(recipe.judge.name(), "gpt-4");
        assert_eq!((recipe.study.seeds, recipe.study.sweep_betas.len()), (4, 11));
    }
}
