//! The recipe of a study: the sections of a setup, and what the questions vary.

mod map;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use experiment::setup::{
    AnswersSection, JudgeKind, JudgeSection, PaceSection, SANDBOX, SandboxSection, StoreSection,
};
use experiment::{GOLD, GivenPolicy, Setup};
use hub::{Hub, HubError};
use pref_data::{Date, FlipRate, Fraction, LabelSource};
use pref_loss::Beta;
use serde::{Deserialize, Serialize};
use toml::Table;
use trainer::recipe::{
    Complaint, DataSection, DistributedSection, Format, LoraSection, LossKind, LossSection, ModelSection,
    OptimizerSection, OutputSection, RecipeError, RecipeRoot, SpeedSection, TrainSection, WatchSection,
    parse_toml, read_toml, seed, to_toml,
};

pub use map::MapSection;

/// The recipe of a study: what all runs share, and what the questions vary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRecipe {
    /// The master seed.
    #[serde(default, with = "seed")]
    pub seed: u64,
    /// What the questions vary.
    pub study: StudySection,
    /// The judge of the answers.
    pub judge: JudgeSection,
    /// How the policies answer.
    #[serde(default)]
    pub answers: AnswersSection,
    /// The sandbox, if `model.path = "sandbox"`.
    #[serde(default)]
    pub sandbox: SandboxSection,
    /// The policy that all runs start from.
    pub model: ModelSection,
    /// The preferences; the study sets annotator, fraction and flip rate.
    pub data: DataSection,
    /// The loss; the study sets kind and β.
    #[serde(default)]
    pub loss: LossSection,
    /// The training of each policy.
    #[serde(default)]
    pub train: TrainSection,
    /// The optimizer.
    #[serde(default, skip_serializing_if = "OptimizerSection::is_default")]
    pub optimizer: OptimizerSection,
    /// Switches of the fast paths.
    #[serde(default)]
    pub speed: SpeedSection,
    /// Evaluation during training; the sandbox supplies held-out preferences itself.
    #[serde(default)]
    pub watch: WatchSection,
    /// Low-rank adapters.
    #[serde(default)]
    pub lora: LoraSection,
    /// Several processes.
    #[serde(default)]
    pub distributed: DistributedSection,
    /// The folder of results.
    pub output: OutputSection,
    /// What the store keeps of finished runs.
    #[serde(default, skip_serializing_if = "StoreSection::is_default")]
    pub store: StoreSection,
}

/// What the questions vary. Each question has its own default for an absent list, as in the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudySection {
    /// The benchmark's folder with FastChat's layout, as `mtbench fetch` creates it; the sandbox has its own questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bench: Option<PathBuf>,
    /// Number of benchmark questions.
    #[serde(default = "eighty")]
    pub questions: usize,
    /// Number of replicates. Each draws data, labels, order, generation and judge anew.
    #[serde(default = "two")]
    pub seeds: u64,
    /// The annotators to compare.
    #[serde(default = "human_and_gpt4")]
    pub annotators: Vec<String>,
    /// The paper's data set, whose printed numbers are shown next to the results.
    #[serde(default, skip_serializing_if = "PaperSet::is_gair")]
    pub paper_set: PaperSet,
    /// Shares of the pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<Fraction>>,
    /// Shares of flipped labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip_rates: Option<Vec<FlipRate>>,
    /// Values of β, and of `orpo`'s λ.
    #[serde(default = "tenth")]
    pub betas: Vec<Beta>,
    /// Values of β of single losses, in place of those of `betas`: `{ simpo = [2.0, 2.5] }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub loss_betas: BTreeMap<LossKind, Vec<Beta>>,
    /// Losses: any of `loss.kind` but `sft`, which is the baseline. Their other keys are those of `loss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub losses: Option<Vec<LossKind>>,
    /// Values of β in the sweep.
    #[serde(default = "eleven")]
    pub sweep_betas: Vec<Beta>,
    /// Mixtures of the first two annotators' labels, such as `75% human, 25% gpt-4-turbo` [default: in steps of a quarter].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixtures: Option<Vec<String>>,
    /// Epochs of the question on too many epochs.
    #[serde(default = "ten")]
    pub long_epochs: NonZeroU64,
    /// The largest difference that does not matter, in points: effects within it count as none [default: 0.2]. The
    /// default is about three standard deviations of a mean that is judged again; FastChat reports a range of 0.16 over five
    /// runs.
    #[serde(default)]
    pub margin: Margin,
    /// People's ratings of some answers, which correct the judges: a file as `agreement collect` prints it, or `gold` for the
    /// sandbox's true quality in place of people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratings: Option<PathBuf>,
    /// The number of questions that `gold` rates, drawn within categories [default: a quarter].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rated_questions: Option<usize>,
    /// The axes of the conditions map.
    #[serde(default, skip_serializing_if = "MapSection::is_default")]
    pub map: MapSection,
    /// Policies that were trained elsewhere, each in place of training a cell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<GivenPolicy>,
}

/// A margin of equivalence, in points above 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Margin(f64);

impl Margin {
    /// Returns the margin in points.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for Margin {
    /// Returns 0.2 points: about three standard deviations of a mean that is judged again (FastChat reports a range of
    /// 0.16 over five runs of GPT-4 on the same answers, which is a standard deviation of about 0.07).
    fn default() -> Self {
        Self(0.2)
    }
}

impl TryFrom<f64> for Margin {
    type Error = String;

    fn try_from(points: f64) -> Result<Self, String> {
        match points > 0.0 && points.is_finite() {
            true => Ok(Self(points)),
            false => Err(format!(
                "{points} is not a margin; write the points of a difference that does not matter, such as 0.2"
            )),
        }
    }
}

impl From<Margin> for f64 {
    fn from(margin: Margin) -> Self {
        margin.0
    }
}

/// A data set of the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaperSet {
    /// GAIR's preference-dissection: Tables 1 to 9. Also the value for other data.
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

    /// Returns the number of the table that prints this set's counterpart of `table`, and the prefix of its columns.
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

/// A recipe that is part of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// The sandbox: minutes on two cores.
    Sandbox,
    /// A model of 135M parameters on GAIR's preferences with a local judge: hours on two cores.
    Laptop,
    /// The paper's setting: Zephyr 7B, GAIR's preferences, GPT-4 as judge.
    Paper,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 3] = [Self::Sandbox, Self::Laptop, Self::Paper];

    /// Returns its text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Sandbox => include_str!("../../../recipes/sandbox.toml"),
            Self::Laptop => include_str!("../../../recipes/laptop.toml"),
            Self::Paper => include_str!("../../../recipes/paper.toml"),
        }
    }

    /// Returns its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Laptop => "laptop",
            Self::Paper => "paper",
        }
    }
}

impl StudyRecipe {
    /// Reads a recipe file and applies `overrides` (`section.key=value`).
    ///
    /// # Errors
    ///
    /// If file or overrides are invalid.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        read_toml(path, overrides)
    }

    /// Returns a preset with `overrides` applied.
    ///
    /// # Errors
    ///
    /// If the overrides are invalid.
    pub fn preset(preset: Preset, overrides: &[String]) -> Result<Self, RecipeError> {
        parse_toml(&format!("preset {}", preset.name()), preset.text(), overrides)
    }

    /// Returns whether model, preferences and judges are the sandbox's.
    pub fn is_sandbox(&self) -> bool {
        self.model.path == SANDBOX
    }

    /// Downloads what ids on the Hub name, and replaces them by local paths.
    ///
    /// # Errors
    ///
    /// If a file cannot be downloaded.
    pub fn fetch(&mut self, hub: &Hub) -> Result<(), HubError> {
        if self.is_sandbox() {
            return Ok(());
        }
        self.model.fetch(hub)?;
        self.data.fetch(hub)
    }

    /// Returns the setup of the study's experiment.
    pub fn setup(&self) -> Setup {
        let recipe = self.clone();
        Setup {
            seed: recipe.seed,
            bench: recipe.study.bench,
            questions: recipe.study.questions,
            seeds: recipe.study.seeds,
            policies: recipe.study.policies,
            judge: recipe.judge,
            answers: recipe.answers,
            sandbox: recipe.sandbox,
            model: recipe.model,
            data: recipe.data,
            loss: recipe.loss,
            train: recipe.train,
            optimizer: recipe.optimizer,
            speed: recipe.speed,
            watch: recipe.watch,
            lora: recipe.lora,
            distributed: recipe.distributed,
            output: recipe.output,
            store: recipe.store,
        }
    }

    /// Returns the first difference of two recipes; `None` if one report may show the results of both.
    ///
    /// The comparison ignores the output folder, threads, what the store keeps, the pace of the judge, ratings, and the
    /// lists of values that a question may override, since every score names its values.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let [here, there] = [self, other].map(|recipe| {
            let mut recipe = recipe.clone();
            recipe.output.dir.clone_from(&self.output.dir);
            recipe.train.threads = 0;
            recipe.store = StoreSection::default();
            recipe.judge.pace = PaceSection::default();
            if let Some(second) = &mut recipe.judge.second {
                second.pace = PaceSection::default();
            }
            let study = &mut recipe.study;
            (study.volumes, study.flip_rates, study.losses, study.mixtures) = (None, None, None, None);
            (study.sweep_betas, study.long_epochs, study.map) = (eleven(), ten(), MapSection::default());
            (study.ratings, study.rated_questions) = (None, None);
            to_toml(&recipe)
        });
        let pair = here.lines().zip(there.lines()).find(|(a, b)| a != b);
        match pair {
            Some((here, there)) => Some(format!("there `{there}`, here `{here}`")),
            None => (here != there).then(|| "one recipe has more lines than the other".to_owned()),
        }
    }
}

impl RecipeRoot for StudyRecipe {
    fn prepare(table: &mut Table) -> Result<(), Complaint> {
        if !table.contains_key("study") {
            let reason = "is missing; add [study] and [judge], or train this recipe of one run with `pref-train --recipe FILE`";
            return Err(Complaint::invalid("study", reason));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Complaint> {
        self.study.check().map_err(|complaint| complaint.within("study"))?;
        self.data.check().map_err(|complaint| complaint.within("data"))?;
        let mixing = [("weight", self.data.weight.is_some()), ("count", self.data.count.is_some())];
        if let Some((key, _)) = mixing.into_iter().find(|(_, is_set)| *is_set) {
            let reason = "is for training alone; remove it, and set study.volumes for shares of the pairs";
            return Err(Complaint::invalid(key, reason).within("data"));
        }
        self.check_dates()?;
        self.train.check().map_err(|complaint| complaint.within("train"))?;
        self.train.check_of_study().map_err(|complaint| complaint.within("train"))?;
        self.lora.check().map_err(|complaint| complaint.within("lora"))?;
        if self.lora.init.is_some() {
            let reason = "has no place in a study, whose policies start from model.path; remove the key";
            return Err(Complaint::invalid("init", reason).within("lora"));
        }
        self.model.check_quantization(&self.lora).map_err(|complaint| complaint.within("model"))?;
        self.distributed.check(&self.lora).map_err(|complaint| complaint.within("distributed"))?;
        self.output.check().map_err(|complaint| complaint.within("output"))?;
        for &kind in self.study.losses.iter().flatten() {
            let loss = self.loss.of_kind(kind, self.loss.beta);
            loss.check().map_err(|complaint| complaint.within("loss"))?;
        }
        if self.train.checkpoints.last() != Some(&1.0) {
            let reason = "must end with 1.0 in a study, which scores the trained model";
            return Err(Complaint::invalid("checkpoints", reason).within("train"));
        }
        self.judge.check().map_err(|complaint| complaint.within("judge"))?;
        if self.model.reference.is_some() {
            let reason = "is model.path in a study; remove the key";
            return Err(Complaint::invalid("reference", reason).within("model"));
        }
        self.model.clone().finish().map_err(|complaint| complaint.within("model"))?;
        self.check_source()?;
        let has_held_out =
            if self.is_sandbox() { self.sandbox.held_out > 0 } else { self.data.has_held_out() };
        self.watch.check(has_held_out).map_err(|complaint| complaint.within("watch"))
    }
}

impl StudyRecipe {
    /// Checks that dates are days or `none`. `today` would give a resumed study other results than its first part.
    fn check_dates(&self) -> Result<(), Complaint> {
        for (section, date) in [("data", &self.data.date), ("answers", &self.answers.date)] {
            if date.as_deref().is_some_and(|date| Date::parse(date).is_none()) {
                let reason = "must be a day such as \"2026-11-29\" or \"none\" in a study";
                return Err(Complaint::invalid("date", reason).within(section));
            }
        }
        Ok(())
    }

    /// Checks that all or none of the sections are the sandbox's.
    fn check_source(&self) -> Result<(), Complaint> {
        let of_sandbox = [
            (self.model.path == SANDBOX, "model", "path"),
            (self.data.path == SANDBOX, "data", "path"),
            (self.data.path == SANDBOX && self.data.format == Format::Sandbox, "data", "format"),
            (self.judge.kind == JudgeKind::Sandbox, "judge", "kind"),
        ];
        let is_sandbox = self.is_sandbox();
        if let Some((_, section, key)) = of_sandbox.into_iter().find(|(is, ..)| *is != is_sandbox) {
            let reason = if is_sandbox {
                "must be \"sandbox\" if model.path is: only its preferences and judges fit its model"
            } else {
                "must not be \"sandbox\" unless model.path is too: its preferences and judges fit its own model only"
            };
            return Err(Complaint::invalid(key, reason).within(section));
        }
        match (is_sandbox, &self.study.bench) {
            (true, Some(_)) => {
                let reason = "has no effect in the sandbox, which has its own questions; remove the key";
                Err(Complaint::invalid("bench", reason).within("study"))
            }
            (false, None) => {
                let reason = "is missing; name a folder with MT-Bench's question.jsonl, as `mtbench fetch --data DIR` creates it";
                Err(Complaint::invalid("bench", reason).within("study"))
            }
            (false, _) if self.study.rates_by_gold() => {
                let reason = "is \"gold\", which only the sandbox has; name a file of ratings";
                Err(Complaint::invalid("ratings", reason).within("study"))
            }
            (true, None) if self.data.has_held_out() => {
                let reason = "has no effect in the sandbox, where sandbox.held_out sets the number of pairs; remove the key";
                let key = if self.data.eval_path.is_some() { "eval_path" } else { "held_out" };
                Err(Complaint::invalid(key, reason).within("data"))
            }
            (true, None)
                if self.answers
                    != (AnswersSection { samples: self.answers.samples, ..AnswersSection::default() }) =>
            {
                let reason = "has no effect in the sandbox except for samples; set sandbox.max_new_tokens";
                Err(Complaint::invalid("answers", reason))
            }
            _ => Ok(()),
        }
    }
}

impl StudySection {
    /// Returns the mixtures of labels.
    pub(crate) fn mixtures(&self) -> Vec<String> {
        match (&self.mixtures, self.annotators.as_slice()) {
            (Some(mixtures), _) => mixtures.clone(),
            (None, [one, other, ..]) => {
                [25, 50, 75].map(|share| format!("{}% {one}, {share}% {other}", 100 - share)).into()
            }
            (None, _) => Vec::new(),
        }
    }

    /// Returns the values of β of a loss.
    pub fn betas_of(&self, loss: LossKind) -> &[Beta] {
        self.loss_betas.get(&loss).unwrap_or(&self.betas)
    }

    /// Returns the losses of the recipe, or else `default`.
    pub fn losses_or<'a>(&'a self, default: &'a [LossKind]) -> &'a [LossKind] {
        self.losses.as_deref().unwrap_or(default)
    }

    /// Returns the shares of pairs of the recipe, or else `default`.
    pub fn volumes_or(&self, default: &[f64]) -> Vec<Fraction> {
        let default = || default.iter().filter_map(|&share| Fraction::new(share).ok()).collect();
        self.volumes.clone().unwrap_or_else(default)
    }

    /// Returns the shares of flipped labels of the recipe, or else `default`.
    pub fn flip_rates_or(&self, default: &[f64]) -> Vec<FlipRate> {
        let default = || default.iter().filter_map(|&rate| FlipRate::new(rate).ok()).collect();
        self.flip_rates.clone().unwrap_or_else(default)
    }

    /// Returns whether the sandbox's true quality takes the place of people's ratings.
    pub(crate) fn rates_by_gold(&self) -> bool {
        self.ratings.as_deref() == Some(Path::new(GOLD))
    }

    /// Returns the number of questions that gold rates.
    pub(crate) fn gold_rates(&self) -> usize {
        self.rated_questions.unwrap_or(self.questions / 4)
    }

    fn check(&self) -> Result<(), Complaint> {
        let filled = |key: &str, is_empty: bool| match is_empty {
            true => Err(Complaint::invalid(key, "is empty; name at least one value")),
            false => Ok(()),
        };
        filled("annotators", self.annotators.is_empty())?;
        filled("betas", self.betas.is_empty())?;
        filled("loss_betas", self.loss_betas.values().any(Vec::is_empty))?;
        filled("sweep_betas", self.sweep_betas.is_empty())?;
        filled("volumes", self.volumes.as_ref().is_some_and(Vec::is_empty))?;
        filled("flip_rates", self.flip_rates.as_ref().is_some_and(Vec::is_empty))?;
        for mixture in self.mixtures.iter().flatten() {
            match LabelSource::try_from(mixture.clone()) {
                Ok(LabelSource::Mixture(_)) => {}
                Ok(_) => {
                    let reason =
                        format!("`{mixture}` is not a mixture; write it as `75% human, 25% gpt-4-turbo`");
                    return Err(Complaint::invalid("mixtures", reason));
                }
                Err(error) => return Err(Complaint::invalid("mixtures", error.to_string())),
            }
        }
        filled("losses", self.losses.as_ref().is_some_and(Vec::is_empty))?;
        if self.losses.as_ref().is_some_and(|losses| losses.contains(&LossKind::Sft)) {
            return Err(Complaint::invalid(
                "losses",
                "must not contain `sft`: the supervised policy is the baseline of every table",
            ));
        }
        if let Some(rated) = self.rated_questions {
            if !self.rates_by_gold() {
                let reason = "applies only to study.ratings = \"gold\"; choose that or remove the key";
                return Err(Complaint::invalid("rated_questions", reason));
            }
            if rated < 2 || rated + 2 > self.questions {
                let reason = format!("is {rated} of {}; rate at least two, and leave two", self.questions);
                return Err(Complaint::invalid("rated_questions", reason));
            }
        }
        self.map.check().map_err(|complaint| complaint.within("map"))?;
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
mod tests;
