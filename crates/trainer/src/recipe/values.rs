//! Enumerated values of recipe keys.

use std::fmt;
use std::num::NonZeroU64;

use pref_data::Fraction;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::{Device, Kind};

/// The data type of the policy's computation. Master weights, log-softmax and sums are always float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// bfloat16, with 8 bits of precision.
    #[default]
    Bfloat16,
    /// float32, with 24 bits of precision.
    Float32,
}

impl Dtype {
    /// Returns libtorch's name of the type.
    pub fn kind(self) -> Kind {
        match self {
            Self::Bfloat16 => Kind::BFloat16,
            Self::Float32 => Kind::Float,
        }
    }
}

/// The form of frozen weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// Four bits each, in the quantiles of a normal distribution, with double quantization.
    Nf4,
}

impl Quantization {
    /// Returns the name in recipes, which is part of the keys of stored log-probabilities.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nf4 => "nf4",
        }
    }
}

/// An optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// `AdamW`, with moments in float32.
    #[default]
    Adamw,
    /// `AdamW`, with moments in eight bits.
    Adamw8bit,
}

/// The device of a run: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU that libtorch finds, or the CPU without one.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this index.
    Cuda(usize),
}

impl DeviceChoice {
    /// Returns the device of a single process.
    pub fn resolve(self) -> Device {
        match self {
            Self::Auto => Device::cuda_if_available(),
            Self::Cpu => Device::Cpu,
            Self::Cuda(index) => Device::Cuda(index),
        }
    }

    /// Returns the device of one of several processes on a machine: on GPUs, the one with the process's local rank.
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

/// The format of a preference file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSONL or parquet with `prompt`, `chosen`, `rejected`.
    #[default]
    Pairs,
    /// GAIR's preference dissection: pairs with labels of many annotators.
    Gair,
    /// UltraFeedback as published, with ratings. Each rated aspect is an annotator.
    Ultrafeedback,
    /// Stanford Human Preferences.
    Shp,
    /// Anthropic's hh-rlhf: two transcripts that differ in the last reply.
    HhRlhf,
    /// Records labeled by several annotators, as the sandbox and `annotate` write them.
    #[serde(alias = "records")]
    Sandbox,
}

/// A number of passes over the data, finite and above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epochs(f64);

impl Epochs {
    /// Three passes.
    pub const DEFAULT: Self = Self(3.0);

    /// Returns the number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Returns the number if it is whole.
    pub fn whole(self) -> Option<NonZeroU64> {
        let whole = self.0 as u64;
        NonZeroU64::new(whole).filter(|_| whole as f64 == self.0)
    }
}

impl From<NonZeroU64> for Epochs {
    fn from(epochs: NonZeroU64) -> Self {
        Self(epochs.get() as f64)
    }
}

impl fmt::Display for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Epochs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A whole number is written as earlier versions wrote it, so that their runs resume.
        match self.whole().map(|whole| i64::try_from(whole.get())) {
            Some(Ok(whole)) => serializer.serialize_i64(whole),
            _ => serializer.serialize_f64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Epochs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let epochs = f64::deserialize(deserializer)?;
        if epochs.is_finite() && epochs > 0.0 {
            return Ok(Self(epochs));
        }
        Err(D::Error::custom(format!("is {epochs}; it must be above 0")))
    }
}

/// The learning-rate schedule after the warm-up, under transformers' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// Linear decay to zero.
    #[default]
    Linear,
    /// Cosine decay to zero over half a period.
    Cosine,
    /// No decay.
    #[serde(alias = "constant_with_warmup")]
    Constant,
    /// No decay until the last steps, which decay to zero.
    #[serde(alias = "warmup_stable_decay")]
    Wsd,
}

/// Which labels noise flips: see [`NoiseModel`](pref_data::NoiseModel).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseKind {
    /// All labels with the same probability.
    #[default]
    Uniform,
    /// Labels with probabilities that depend on the annotator, by `noise_odds`.
    ByAnnotator,
    /// Preferably labels of pairs with a longer rejected response.
    LengthBiased,
    /// Labels with the least agreement among the annotators first.
    AmbiguousFirst,
    /// As `ambiguous-first`, but the pairs are dropped instead of flipped.
    TiesDropped,
}

/// The tokens that supervised training learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainOn {
    /// Those of the response.
    #[default]
    Response,
    /// Those of every turn of the assistant, in the prompt and in the response.
    Assistant,
    /// All but the first, which nothing predicts.
    All,
}

/// The tokenization conventions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    /// The current conventions.
    #[default]
    #[serde(rename = "modern")]
    Modern,
    /// The conventions of TRL 0.7.10 and the alignment-handbook, which the paper used.
    #[serde(rename = "trl-0.7.10")]
    Trl0710,
}

/// All of the data, for serde's default.
pub(super) fn all() -> Fraction {
    Fraction::ALL
}

/// (De)serializes a seed, for `#[serde(with = "seed")]`, as an integer. TOML's integers end at 2⁶³ − 1; a greater seed
/// is a string of digits.
pub mod seed {
    use std::fmt;

    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    /// # Errors
    /// The errors of `serializer`.
    pub fn serialize<S: Serializer>(seed: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(*seed) {
            Ok(seed) => serializer.serialize_i64(seed),
            Err(_) => serializer.collect_str(seed),
        }
    }

    /// # Errors
    /// The errors of `deserializer`, and an error if the value is not an integer from 0 to 2⁶⁴ − 1.
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
