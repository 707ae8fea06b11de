//! Most sections of a recipe.

use std::path::PathBuf;

use distributed::{Exchange, Sharding};
use policy_model::{Lora, Projection};
use pref_data::{Layout, Padding};
use serde::{Deserialize, Serialize};

use super::values::{DeviceChoice, Dtype};
use super::{Complaint, Origin, RecipeError};
use crate::parameters::Trained;
use crate::schedule::Decay;
use crate::scoring::{Activations, Head, Scoring};

/// The policy and its reference model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// The model to train: a Hugging Face folder, or an id on the Hub (`owner/name@revision`).
    pub path: String,
    /// The reference model, as for `path`. Default: `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The data type of the policy's computation.
    #[serde(default)]
    pub dtype: Dtype,
    /// The device: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default)]
    pub device: DeviceChoice,
}

impl ModelSection {
    /// Fills in the reference and validates the section.
    ///
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn finish(&mut self) -> Result<(), Complaint> {
        require(!self.path.is_empty(), "path", "is empty; set it to a Hugging Face folder")?;
        let reference = self.reference.get_or_insert_with(|| self.path.clone());
        require(
            !reference.is_empty(),
            "reference",
            "is empty; set it to a Hugging Face folder or remove the key",
        )?;
        let is_there = !matches!(self.device, DeviceChoice::Cuda(_)) || tch::Cuda::is_available();
        require(
            is_there,
            "device",
            format!("is \"{}\", but libtorch finds no GPU; use \"auto\" or \"cpu\"", self.device),
        )
    }
}

/// Optimization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// Number of passes over the data, at least 1.
    pub epochs: u64,
    /// Number of pairs per optimizer step, or of unpaired preferences; at least 1.
    pub batch_size: usize,
    /// Number of pairs per forward pass, at least 1. It affects memory, and results by rounding only.
    pub micro_batch_size: usize,
    /// Number of tokens per forward pass, in place of `micro_batch_size`; pairs are distributed evenly. 0 disables it.
    pub micro_batch_tokens: usize,
    /// Maximum learning rate, above 0.
    pub learning_rate: f64,
    /// Share of the steps with linear warm-up, in [0, 1].
    pub warmup_ratio: f64,
    /// Learning-rate schedule after the warm-up.
    pub scheduler: Decay,
    /// `AdamW`'s decay rates β₁ and β₂, each in [0, 1).
    pub betas: [f64; 2],
    /// `AdamW`'s ε, above 0.
    pub eps: f64,
    /// `AdamW`'s weight decay, at least 0.
    pub weight_decay: f64,
    /// Maximum gradient norm, to which longer gradients are clipped. 0 disables clipping.
    pub max_grad_norm: f64,
    /// Fractions of the steps after which a checkpoint is written, in (0, 1] and ascending.
    pub checkpoints: Vec<f64>,
    /// Number of the newest checkpoints that are kept; 0 keeps all.
    pub keep_last: usize,
    /// Whether the backward pass recomputes each layer's activations, which saves memory and costs time.
    pub gradient_checkpointing: bool,
    /// Number of libtorch threads; 0 is libtorch's default.
    pub threads: usize,
}

impl Default for TrainSection {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 16,
            micro_batch_size: 4,
            micro_batch_tokens: 0,
            learning_rate: 5e-7,
            warmup_ratio: 0.1,
            scheduler: Decay::Linear,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            checkpoints: vec![0.25, 0.5, 0.75, 1.0],
            keep_last: 0,
            gradient_checkpointing: false,
            threads: 0,
        }
    }
}

impl TrainSection {
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self) -> Result<(), Complaint> {
        require(self.epochs > 0, "epochs", "is 0; give at least 1")?;
        require(self.batch_size > 0, "batch_size", "is 0; give at least 1")?;
        require(self.micro_batch_size > 0, "micro_batch_size", "is 0; give at least 1")?;
        in_range("learning_rate", self.learning_rate, |rate| rate > 0.0, "above 0")?;
        in_range("warmup_ratio", self.warmup_ratio, |share| (0.0..=1.0).contains(&share), "in [0, 1]")?;
        for beta in self.betas {
            in_range("betas", beta, |beta| (0.0..1.0).contains(&beta), "in [0, 1)")?;
        }
        in_range("eps", self.eps, |eps| eps > 0.0, "above 0")?;
        in_range("weight_decay", self.weight_decay, |decay| decay >= 0.0, "at least 0")?;
        in_range("max_grad_norm", self.max_grad_norm, |norm| norm >= 0.0, "at least 0; 0 disables clipping")?;
        for &fraction in &self.checkpoints {
            in_range("checkpoints", fraction, |fraction| fraction > 0.0 && fraction <= 1.0, "in (0, 1]")?;
        }
        let ascends = self.checkpoints.is_sorted_by(|a, b| a < b);
        require(
            ascends,
            "checkpoints",
            format!("are {:?}; list them in ascending order, each once", self.checkpoints),
        )?;
        require(
            i32::try_from(self.threads).is_ok(),
            "threads",
            format!("is {}; 0 leaves the choice to libtorch", self.threads),
        )?;
        Ok(())
    }

    /// Sets the number of libtorch's threads for this process.
    pub fn take_threads(&self) {
        if self.threads > 0 {
            // A valid section fits.
            tch::set_num_threads(self.threads as i32);
        }
    }
}

/// Optimizations of speed and memory that keep the results, apart from rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeedSection {
    /// Whether a pair's prompt is computed once and shared by both responses.
    pub shared_prompt: bool,
    /// Whether linear layers skip padding.
    pub padding_free: bool,
    /// Whether the language-model head computes logits in tiles.
    pub chunked_head: bool,
    /// Whether the reference's log-probabilities are cached on disk for later runs.
    pub reference_cache: bool,
}

impl Default for SpeedSection {
    fn default() -> Self {
        Self { shared_prompt: true, padding_free: true, chunked_head: true, reference_cache: true }
    }
}

impl SpeedSection {
    /// Returns how log-probabilities are computed; padded rows use `pad_id`. Activations are kept.
    pub fn scoring(&self, pad_id: u32) -> Scoring {
        Scoring {
            layout: if self.shared_prompt { Layout::SharedPrompt } else { Layout::Separate },
            padding: if self.padding_free { Padding::None } else { Padding::Right(pad_id) },
            head: if self.chunked_head { Head::Chunked } else { Head::Full },
            activations: Activations::Kept,
        }
    }
}

/// Low-rank adapters (LoRA): a low-rank update of each target projection is trained instead of its weight. Adapters
/// need a learning rate at least ten times higher than full fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSection {
    /// Rank of the adapters; 0 trains all weights.
    pub rank: usize,
    /// Numerator of the adapters' scale alpha / rank, above 0.
    pub alpha: f64,
    /// Projections with adapters, such as `q_proj`; at least one.
    pub targets: Vec<String>,
}

impl Default for LoraSection {
    fn default() -> Self {
        Self { rank: 0, alpha: 16.0, targets: vec!["q_proj".to_owned(), "v_proj".to_owned()] }
    }
}

impl LoraSection {
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self) -> Result<(), Complaint> {
        require(i32::try_from(self.rank).is_ok(), "rank", format!("is {}; 0 trains in full", self.rank))?;
        in_range("alpha", self.alpha, |alpha| alpha > 0.0, "above 0")?;
        require(!self.targets.is_empty(), "targets", "is empty; list at least one projection")?;
        let projections = self.projections()?;
        let is_repeated = |(at, target)| projections[..at].contains(target);
        require(
            !projections.iter().enumerate().any(is_repeated),
            "targets",
            format!("are {:?}; list each once", self.targets),
        )
    }

    /// Returns which weights are trained.
    ///
    /// # Errors
    /// [`RecipeError::Invalid`] if a target is not a projection.
    pub fn build(&self) -> Result<Trained, RecipeError> {
        let at = |complaint: Complaint| complaint.within("lora").at(Origin::Code);
        let targets = self.projections().map_err(at)?;
        Ok(match self.rank {
            0 => Trained::All,
            rank => Trained::Adapters(Lora { rank, alpha: self.alpha, targets }),
        })
    }

    fn projections(&self) -> Result<Vec<Projection>, Complaint> {
        let parse = |target: &String| {
            let refused = |why| Complaint::invalid("targets", format!("are {:?}, but {why}", self.targets));
            target.parse().map_err(|why: String| refused(why))
        };
        self.targets.iter().map(parse).collect()
    }
}

/// Training on several processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistributedSection {
    /// `ZeRO` stage, 0 to 3: what is divided among the processes. At 1 it is master weights and moments, at 2 also gradients,
    /// at 3 also the weights that compute, except for embedding, final norm and head. At 3 layers are recomputed in the
    /// backward pass, as with `train.gradient_checkpointing`. One process divides nothing.
    pub zero: u8,
}

impl Default for DistributedSection {
    fn default() -> Self {
        Self { zero: 1 }
    }
}

impl DistributedSection {
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self, lora: &LoraSection) -> Result<(), Complaint> {
        if self.zero > 3 {
            return Err(Complaint::unsupported("zero", self.zero, "set it to 0, 1, 2 or 3"));
        }
        if self.zero == 3 && lora.rank > 0 {
            let what = "3 with lora.rank above 0, where most weights are not trained";
            return Err(Complaint::unsupported("zero", what, "set it to 2 or less"));
        }
        Ok(())
    }

    /// Returns how processes exchange gradients and weights.
    pub fn exchange(&self) -> Exchange {
        let sharding = match self.zero {
            0 => Sharding::None,
            1 => Sharding::Optimizer,
            2 => Sharding::Gradients,
            _ => Sharding::Parameters,
        };
        Exchange { sharding, ..Exchange::default() }
    }
}

/// Output files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSection {
    /// Output folder of the run.
    pub dir: PathBuf,
}

impl OutputSection {
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self) -> Result<(), Complaint> {
        require(!self.dir.as_os_str().is_empty(), "dir", "is empty; set it to a folder for the run")
    }
}

pub(super) fn require(holds: bool, key: &str, otherwise: impl Into<String>) -> Result<(), Complaint> {
    if holds { Ok(()) } else { Err(Complaint::invalid(key, otherwise)) }
}

/// Infinities and NaN are out of range.
fn in_range(key: &str, value: f64, is_in: impl Fn(f64) -> bool, range: &str) -> Result<(), Complaint> {
    require(value.is_finite() && is_in(value), key, format!("is {value:?}; it must be {range}"))
}
