//! The `[data]` section.

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
use super::error::{in_range, require};
use super::values::{Format, NoiseKind, Preset, TrainOn, all};
use crate::settings::Order;

/// The preference data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Preference data, or demonstrations for `loss.kind = "sft"`: a file, a folder, a pattern (`data/train-*.parquet`), or an id on the Hub
    /// (`owner/name@revision:data/train-*.parquet`).
    pub path: String,
    /// The file format.
    #[serde(default)]
    pub format: Format,
    /// Column names of a file of pairs, if they differ from the recognized ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<PairColumns>,
    /// Range of the vote ratio of pairs that are used, for `format = "shp"`. Default: the range of the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_ratio: Option<ScoreRatio>,
    /// Maximum number of malformed rows that are skipped; one more is an error.
    #[serde(default)]
    pub skip_bad: usize,
    /// Number of records drawn at random from the file, at least 1. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<NonZeroUsize>,
    /// Held-out preferences in the same format and with the same annotators. They are evaluated at each checkpoint and
    /// not trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_path: Option<String>,
    /// Number of records drawn at random from the data, after `sample`, with all others of the same prompts. They are held
    /// out as those of `eval_path` are, whose place they take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<NonZeroUsize>,
    /// Share of the records, in (0, 1), that is held out in the way of `held_out`, whose place it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<f64>,
    /// Weight of this source in a list of sources, above 0. The sizes are proportional to the weights, and as large as the
    /// sources allow without repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Number of pairs or unpaired preferences of this source, at least 1, in place of a weight. They are drawn at random
    /// from those of `fraction`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<NonZeroUsize>,
    /// The source of the labels: an annotator, a majority vote (`majority of A, B, C`) or a mixture (`70% A, 30% B`).
    #[serde(default = "human")]
    pub annotator: String,
    /// Selects the records on which two annotators agree (`A = B`) or disagree (`A != B`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<AgreementSlice>,
    /// Share of the pairs used for training, in (0, 1].
    #[serde(default = "all")]
    pub fraction: Fraction,
    /// How `fraction` selects pairs. Default: as in `preset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Share of the labels that noise flips, in [0, 1].
    #[serde(default = "unflipped")]
    pub flip_rate: FlipRate,
    /// The noise model, which chooses the labels to flip.
    #[serde(default)]
    pub noise: NoiseKind,
    /// Relative odds of a flip for each annotator's labels, for `noise = "by-annotator"`. Annotators without an entry
    /// have odds 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub noise_odds: BTreeMap<String, Odds>,
    /// Tokens that `loss.kind = "sft"` trains on: those of the demonstrated or chosen `response`, of every `assistant` turn of
    /// its conversation, or `all`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub train_on: TrainOn,
    /// Maximum length of prompt and response together, in tokens; at least 2.
    #[serde(default = "max_length")]
    pub max_length: usize,
    /// Length to which a prompt is truncated if it does not fit with its response, in tokens; from 1 to below
    /// `max_length`. For `preset = "trl-0.7.10"` only; default 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prompt_length: Option<usize>,
    /// Which end of a sequence truncation keeps.
    #[serde(default = "keep_start")]
    pub truncation: Truncation,
    /// Whether the pairs are shuffled in each epoch.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Tokenization conventions: `modern` or `trl-0.7.10`.
    #[serde(default)]
    pub preset: Preset,
    /// The date for the chat template: a day (`2026-11-29`), `today`, or `none` for the template's branch without a
    /// date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Overrides the model's chat template: a file, or the name of one of the model's templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Variables of the chat template, such as `enable_thinking`. Variables of a row take precedence.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub chat_template_kwargs: Map<String, Value>,
    /// Whether control tokens in the text of messages are encoded as plain text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sanitize_control_tokens: bool,
    /// The role of turns that both responses begin with: `prompt` excludes them from the loss, `score` includes them,
    /// as TRL does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared_turns: SharedTurns,
    /// How pairs with two identical responses are handled: `keep` or `drop`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub identical: Identical,
}

/// The limit on prompts that the alignment-handbook passes to TRL 0.7.10.
const HANDBOOK_PROMPT_LENGTH: usize = 512;

impl DataSection {
    /// Returns the order of the pairs in an epoch.
    pub fn order(&self) -> Order {
        if self.shuffle { Order::Shuffled } else { Order::AsGiven }
    }

    /// Returns the options for reading the file; a sample is drawn with `seeds`.
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

    /// Returns whether there are held-out preferences.
    pub fn has_held_out(&self) -> bool {
        self.held_out_key().is_some()
    }

    /// Returns the key that holds preferences out.
    pub fn held_out_key(&self) -> Option<&'static str> {
        let keys = [
            ("eval_path", self.eval_path.is_some()),
            ("held_out", self.held_out.is_some()),
            ("split", self.split.is_some()),
        ];
        keys.into_iter().find_map(|(key, is_set)| is_set.then_some(key))
    }

    /// Returns the key that holds preferences out, with its value.
    pub(crate) fn held_out_in_words(&self) -> String {
        match (&self.eval_path, self.held_out, self.split) {
            (Some(path), ..) => format!("data.eval_path = \"{path}\""),
            (_, Some(count), _) => format!("data.held_out = {count}"),
            (.., split) => format!("data.split = {}", split.unwrap_or_default()),
        }
    }

    /// Returns how many of the records in `path` are held out, before whole prompts round it up; `None` without
    /// `held_out` and `split`.
    pub fn held_out_records(&self, records: usize) -> Option<NonZeroUsize> {
        let of_share = |share: f64| NonZeroUsize::new((share * records as f64).round() as usize);
        let of_split = self.split.map(|share| of_share(share).unwrap_or(NonZeroUsize::MIN));
        self.held_out.or(of_split)
    }

    /// Returns the source of the labels.
    ///
    /// # Errors
    /// A [`Complaint`] about `annotator`.
    pub fn labels(&self) -> Result<LabelSource, Complaint> {
        LabelSource::try_from(self.annotator.clone())
            .map_err(|error| Complaint::invalid("annotator", error.to_string()))
    }

    /// Returns how `fraction` selects pairs.
    pub fn selection(&self) -> Selection {
        let of_preset = match self.preset {
            Preset::Modern => Selection::Random,
            Preset::Trl0710 => Selection::FirstRows,
        };
        self.selection.unwrap_or(of_preset)
    }

    /// Returns the noise on the labels.
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

    /// Returns how conversations are rendered. `today` is the day of the call, unless [`fix_date`](Self::fix_date) has
    /// replaced it.
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

    /// Replaces `today` by the day of `now` in UTC, so that the resolved recipe records it.
    pub fn fix_date(&mut self, now: SystemTime) {
        if self.date.as_deref() == Some(TODAY) {
            self.date = Some(Date::day(seconds(now)));
        }
    }

    /// Returns the first key with a value that has a meaning for pairs only. In supervised training, single responses can
    /// be held out.
    pub(crate) fn key_of_pairs(&self, is_supervised: bool) -> Option<&'static str> {
        let keys = [
            ("data.annotator", self.annotator != DEFAULT_ANNOTATOR),
            ("data.held_out", self.held_out.is_some() && !is_supervised),
            ("data.split", self.split.is_some() && !is_supervised),
            ("data.slice", self.slice.is_some()),
            ("data.flip_rate", self.flip_rate != FlipRate::NONE),
            ("data.preset", self.preset != Preset::Modern),
            ("data.shared_turns", !is_default(&self.shared_turns)),
            ("data.identical", !is_default(&self.identical)),
        ];
        keys.into_iter().find_map(|(key, is_set)| is_set.then_some(key))
    }

    /// Returns the tokenization options.
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
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self) -> Result<(), Complaint> {
        require(!self.path.is_empty(), "path", "is empty; set it to a preference file")?;
        let is_used = self.format == Format::Shp || self.score_ratio.is_none();
        require(
            is_used,
            "score_ratio",
            "applies only to data.format = \"shp\"; choose that or remove the key",
        )?;
        let is_used = self.format == Format::Pairs || self.columns.is_none();
        require(
            is_used,
            "columns",
            "applies only to data.format = \"pairs\"; choose that or remove the key",
        )?;
        let is_path = self.eval_path.as_ref().is_none_or(|path| !path.is_empty());
        require(is_path, "eval_path", "is empty; set it to a preference file or remove the key")?;
        let is_one = self.eval_path.is_none() || self.held_out.is_none();
        require(is_one, "held_out", "takes the place of data.eval_path; remove one of them")?;
        let is_one = self.eval_path.is_none() && self.held_out.is_none() || self.split.is_none();
        require(is_one, "split", "takes the place of eval_path and held_out; remove all but one")?;
        if let Some(split) = self.split {
            in_range("split", split, |split| split > 0.0 && split < 1.0, "in (0, 1)")?;
        }
        if let Some(weight) = self.weight {
            in_range("weight", weight, |weight| weight > 0.0, "above 0")?;
            require(self.count.is_none(), "weight", "takes the place of count; remove one of them")?;
        }
        self.labels()?;
        let is_used = self.noise == NoiseKind::ByAnnotator || self.noise_odds.is_empty();
        let unused = "apply only to data.noise = \"by-annotator\"; choose that or remove the key";
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
        let unused = "applies only to data.preset = \"trl-0.7.10\"; choose that or remove the key";
        require(is_used, "max_prompt_length", unused)?;
        let fits = self.preset == Preset::Modern || (1..self.max_length).contains(&self.prompt_length());
        let wanted = format!("is {}; it must be from 1 to below data.max_length", self.prompt_length());
        require(fits, "max_prompt_length", wanted)
    }

    fn prompt_length(&self) -> usize {
        self.max_prompt_length.unwrap_or(HANDBOOK_PROMPT_LENGTH)
    }
}

/// The date that means the day of the run's start.
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
