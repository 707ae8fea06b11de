//! The words that keys of a recipe take.

use std::fmt;

use pref_data::Fraction;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

/// What the policy computes in. Master weights, log-softmax and sums are float32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 8 bits of precision.
    #[default]
    Bfloat16,
    /// 24 bits of precision.
    Float32,
}

impl Dtype {
    /// libtorch's name for it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Bfloat16 => Kind::BFloat16,
            Self::Float32 => Kind::Float,
        }
    }
}

/// Where a run computes: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU that libtorch sees, or else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by its index.
    Cuda(usize),
}

impl DeviceChoice {
    /// The device of a process on its own.
    pub fn resolve(self) -> Device {
        match self {
            Self::Auto => Device::cuda_if_available(),
            Self::Cpu => Device::Cpu,
            Self::Cuda(index) => Device::Cuda(index),
        }
    }

    /// The device of one of several processes on a machine: where they compute on GPUs, each on that of its number.
    pub fn of_rank(self, local_rank: usize) -> Device {
        match self.resolve() {
            Device::Cuda(_) => Device::Cuda(local_rank),
            other => other,
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Self::Cuda).ok_or_else(
                    || format!("is \"{text}\"; it takes \"auto\", \"cpu\", \"cuda\" or \"cuda:N\""),
                )
            }
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(device: DeviceChoice) -> Self {
        device.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// How the file of preferences is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSONL or parquet with `prompt`, `chosen`, `rejected`.
    #[default]
    Pairs,
    /// GAIR's preference dissection: pairs with the labels of many annotators.
    Gair,
    /// UltraFeedback as published, with ratings: each respect that completions are rated in is an annotator.
    Ultrafeedback,
    /// Stanford Human Preferences.
    Shp,
    /// Anthropic's hh-rlhf: two transcripts that differ in the last answer.
    HhRlhf,
    /// Records labelled by several annotators, as the sandbox and `annotate` write them.
    #[serde(alias = "records")]
    Sandbox,
}

/// Which labels noise takes: see [`NoiseModel`](pref_data::NoiseModel).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseKind {
    /// Any alike.
    #[default]
    Uniform,
    /// Some annotators' sooner than others', as `noise_odds` says.
    ByAnnotator,
    /// Those of pairs whose rejected response is the longer one sooner.
    LengthBiased,
    /// Those on which the annotators are most divided first.
    AmbiguousFirst,
    /// The same, left out instead of swapped.
    TiesDropped,
}

/// Whose conventions tokenising follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    /// Today's.
    #[default]
    #[serde(rename = "modern")]
    Modern,
    /// Those of TRL 0.7.10 and the alignment-handbook, of the time of the paper.
    #[serde(rename = "trl-0.7.10")]
    Trl0710,
}

/// What a run minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossKind {
    /// Cross entropy of the chosen responses, without a reference.
    Sft,
    /// Direct preference optimisation.
    #[default]
    Dpo,
    /// Conservative DPO, with label smoothing.
    Cdpo,
    /// Identity preference optimisation.
    Ipo,
    /// Robust DPO, unbiased where a known share of the labels is flipped.
    Robust,
    /// The hinge loss of SLiC.
    Hinge,
    /// Kahneman–Tversky optimisation: each response by itself, good or bad.
    Kto,
}

impl LossKind {
    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Dpo => "dpo",
            Self::Cdpo => "cdpo",
            Self::Ipo => "ipo",
            Self::Robust => "robust",
            Self::Hinge => "hinge",
            Self::Kto => "kto",
        }
    }

    /// Whether it looks at `label_smoothing`.
    pub fn smooths_labels(self) -> bool {
        matches!(self, Self::Cdpo | Self::Robust)
    }
}

/// All of the data, as serde's default.
pub(super) fn all() -> Fraction {
    Fraction::ALL
}

/// (De)serialises a seed, for `#[serde(with = "seed")]`: as an integer, or above 2⁶³ − 1, where TOML's integers end, as a
/// string of digits.
pub mod seed {
    use std::fmt;

    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    /// # Errors
    /// Those of `serializer`.
    pub fn serialize<S: Serializer>(seed: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(*seed) {
            Ok(seed) => serializer.serialize_i64(seed),
            Err(_) => serializer.collect_str(seed),
        }
    }

    /// # Errors
    /// Those of `deserializer`, and one for what is no whole number of at most 64 bits.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(SeedVisitor)
    }

    struct SeedVisitor;

    impl Visitor<'_> for SeedVisitor {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("u64")
        }

        fn visit_u64<E: Error>(self, seed: u64) -> Result<u64, E> {
            Ok(seed)
        }

        fn visit_i64<E: Error>(self, seed: i64) -> Result<u64, E> {
            u64::try_from(seed).map_err(|_| E::invalid_value(Unexpected::Signed(seed), &self))
        }

        fn visit_str<E: Error>(self, seed: &str) -> Result<u64, E> {
            seed.parse().map_err(|_| E::invalid_value(Unexpected::Str(seed), &self))
        }
    }
}
