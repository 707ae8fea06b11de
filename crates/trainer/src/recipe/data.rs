//! The table of a recipe that says which preferences are learned from.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::{SystemTime, UNIX_EPOCH};

use pref_data::{
    AgreementSlice, ChatSettings, DEFAULT_ANNOTATOR, Date, FlipRate, Fraction, Identical, LabelSource, Noise,
    NoiseModel, Odds, PairColumns, Preset as Conventions, ReadOptions, Sample, ScoreRatio, Selection,
    SharedTurns, TokenizeOptions, Truncation,
};
use seeds::Seeds;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Complaint;
use super::sections::require;
use super::values::{Format, NoiseKind, Preset, all};
use crate::engine::Order;

/// The preferences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// A file, a folder of files, a pattern (`data/train-*.parquet`), or an id on the Hub:
    /// `owner/name@revision:data/train-*.parquet`.
    pub path: String,
    /// How the file is laid out.
    #[serde(default)]
    pub format: Format,
    /// The columns of a file of pairs that have other names than those that are recognized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<PairColumns>,
    /// Which pairs of SHP are kept, by their ratio of votes; the paper's where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_ratio: Option<ScoreRatio>,
    /// Up to so many rows at fault are left out.
    #[serde(default)]
    pub skip_bad: usize,
    /// How many records are drawn from the file; all where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<NonZeroUsize>,
    /// Held-out preferences, in the same format and with the same annotators: measured at each checkpoint and not trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_path: Option<String>,
    /// Whose labels are learned from: an annotator, a vote (`majority of A, B, C`) or a mixture (`70% A, 30% B`).
    #[serde(default = "human")]
    pub annotator: String,
    /// Keeps the records on which two annotators agree (`A = B`) or do not (`A != B`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<AgreementSlice>,
    /// The share of the pairs that is trained on.
    #[serde(default = "all")]
    pub fraction: Fraction,
    /// Which pairs make that share; the preset's choice where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// The share of the labels that is swapped.
    #[serde(default = "unflipped")]
    pub flip_rate: FlipRate,
    /// Which labels noise takes.
    #[serde(default)]
    pub noise: NoiseKind,
    /// How much sooner noise takes each annotator's labels; 1 where it is not given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub noise_odds: BTreeMap<String, Odds>,
    /// The longest prompt with response, in tokens.
    #[serde(default = "max_length")]
    pub max_length: usize,
    /// The tokens of a prompt that stay where it is too long with its response, for `preset = "trl-0.7.10"`; 512 where it
    /// is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prompt_length: Option<usize>,
    /// What gives way where a sequence is longer.
    #[serde(default = "keep_start")]
    pub truncation: Truncation,
    /// Whether each epoch sees the pairs in another order.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Whose conventions tokenizing follows.
    #[serde(default)]
    pub preset: Preset,
    /// The date that a chat template prints: a day (`2026-11-29`), `today`, or `none` for the template's branch without
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The chat template instead of the model's: a file, or the name of one of the model's templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Variables of the chat template, such as `enable_thinking`; those of a row overrule them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub chat_template_kwargs: Map<String, Value>,
    /// Whether control tokens within the text of messages are encoded as text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sanitize_control_tokens: bool,
    /// What turns are that both responses begin with: `prompt`, or `score` as TRL has it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared_turns: SharedTurns,
    /// What happens to pairs whose two responses have the same tokens: `keep` or `drop`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub identical: Identical,
}

/// What the alignment-handbook gave TRL 0.7.10 as the limit on prompts.
const HANDBOOK_PROMPT_LENGTH: usize = 512;

impl DataSection {
    /// The order in which an epoch sees the pairs.
    pub fn order(&self) -> Order {
        if self.shuffle { Order::Shuffled } else { Order::AsGiven }
    }

    /// How the file is read; a sample is drawn with `seeds`.
    pub fn reading(&self, seeds: &Seeds) -> ReadOptions {
        let format = match self.format {
            Format::Pairs => pref_data::Format::Pairs,
            Format::HhRlhf => pref_data::Format::HhRlhf,
            Format::Gair => pref_data::Format::Gair,
            Format::Ultrafeedback => pref_data::Format::Ultrafeedback,
            Format::Shp => pref_data::Format::Shp(self.score_ratio.unwrap_or(ScoreRatio::PAPER)),
            Format::Sandbox => pref_data::Format::Records,
        };
        ReadOptions {
            format,
            columns: self.columns.clone(),
            skip_bad: self.skip_bad,
            sample: self.sample.map(|records| Sample { records, seeds: *seeds }),
        }
    }

    /// Whose labels are learned from.
    ///
    /// # Errors
    /// A [`Complaint`] about `annotator`.
    pub fn labels(&self) -> Result<LabelSource, Complaint> {
        LabelSource::try_from(self.annotator.clone())
            .map_err(|error| Complaint::invalid("annotator", error.to_string()))
    }

    /// Which pairs make the share that is trained on.
    pub fn selection(&self) -> Selection {
        let of_preset = match self.preset {
            Preset::Modern => Selection::Random,
            Preset::Trl0710 => Selection::FirstRows,
        };
        self.selection.unwrap_or(of_preset)
    }

    /// What is done to the labels.
    pub fn noise(&self) -> Noise {
        let model = match self.noise {
            NoiseKind::Uniform => NoiseModel::Uniform,
            NoiseKind::ByAnnotator => NoiseModel::ByAnnotator(self.noise_odds.clone()),
            NoiseKind::LengthBiased => NoiseModel::LengthBiased,
            NoiseKind::AmbiguousFirst => NoiseModel::AmbiguousFirst,
            NoiseKind::TiesDropped => NoiseModel::TiesDropped,
        };
        Noise { model, rate: self.flip_rate }
    }

    /// How conversations are rendered. `today` is the day of the call, unless [`fix_date`](Self::fix_date) put a day in
    /// its place.
    pub fn chat(&self) -> ChatSettings {
        let date = match self.date.as_deref() {
            None => Date::Unset,
            Some(TODAY) => Date::parse(&Date::day(seconds(SystemTime::now()))).unwrap_or_default(),
            Some(day) => Date::parse(day).unwrap_or_default(),
        };
        ChatSettings {
            template: self.chat_template.clone(),
            date,
            variables: self.chat_template_kwargs.clone(),
            sanitize_control_tokens: self.sanitize_control_tokens,
        }
    }

    /// Puts the day of `now`, in UTC, in the place of `today`, so that the resolved recipe records it.
    pub fn fix_date(&mut self, now: SystemTime) {
        if self.date.as_deref() == Some(TODAY) {
            self.date = Some(Date::day(seconds(now)));
        }
    }

    /// How pairs are tokenized.
    pub fn tokenizing(&self) -> TokenizeOptions {
        let preset = match self.preset {
            Preset::Modern => Conventions::Modern,
            Preset::Trl0710 => Conventions::Trl0710 { max_prompt_length: self.prompt_length() },
        };
        TokenizeOptions {
            max_length: self.max_length,
            truncation: self.truncation,
            preset,
            shared_turns: self.shared_turns,
            identical: self.identical,
            skip_bad: self.skip_bad,
        }
    }

    /// # Errors
    /// A [`Complaint`] about the first key at fault.
    pub fn check(&self) -> Result<(), Complaint> {
        require(!self.path.is_empty(), "path", "is empty; name a file of preferences")?;
        let is_used = self.format == Format::Shp || self.score_ratio.is_none();
        require(
            is_used,
            "score_ratio",
            "only counts for data.format = \"shp\"; choose that or remove the key",
        )?;
        let is_used = self.format == Format::Pairs || self.columns.is_none();
        require(
            is_used,
            "columns",
            "only counts for data.format = \"pairs\"; choose that or remove the key",
        )?;
        let is_path = self.eval_path.as_ref().is_none_or(|path| !path.is_empty());
        require(is_path, "eval_path", "is empty; name a file of preferences or remove the key")?;
        self.labels()?;
        let is_used = self.noise == NoiseKind::ByAnnotator || self.noise_odds.is_empty();
        let unused = "only count for data.noise = \"by-annotator\"; choose that or remove the key";
        require(is_used, "noise_odds", unused)?;
        require(
            self.max_length >= 2,
            "max_length",
            "must leave room for a prompt and a response: at least 2",
        )?;
        let is_date = self.date.as_ref().is_none_or(|date| date == TODAY || Date::parse(date).is_some());
        let wanted = "must be a day such as \"2026-11-29\", \"today\", or \"none\"";
        require(is_date, "date", wanted)?;
        let is_used = self.preset == Preset::Trl0710 || self.max_prompt_length.is_none();
        let unused = "only counts for data.preset = \"trl-0.7.10\"; choose that or remove the key";
        require(is_used, "max_prompt_length", unused)?;
        let fits = self.preset == Preset::Modern || (1..self.max_length).contains(&self.prompt_length());
        let wanted = format!("is {}; it must be from 1 to below data.max_length", self.prompt_length());
        require(fits, "max_prompt_length", wanted)
    }

    fn prompt_length(&self) -> usize {
        self.max_prompt_length.unwrap_or(HANDBOOK_PROMPT_LENGTH)
    }
}

/// Stands for the day on which a run starts.
const TODAY: &str = "today";

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn human() -> String {
    DEFAULT_ANNOTATOR.to_owned()
}

fn unflipped() -> FlipRate {
    FlipRate::NONE
}

fn max_length() -> usize {
    1024
}

fn keep_start() -> Truncation {
    Truncation::KeepStart
}

fn yes() -> bool {
    true
}
