//! Most sections of a recipe.

use std::num::NonZeroU64;
use std::path::PathBuf;

use distributed::{Exchange, Sharding};
use pref_data::{Layout, Padding};
use serde::{Deserialize, Serialize};

use super::error::{in_range, require};
use super::stopping::{EarlyStoppingSection, NEEDS_HELD_OUT};
use super::values::{DeviceChoice, Dtype, Epochs, OptimizerKind, Quantization, Scheduler};
use super::{Complaint, LoraSection};
use crate::moments::MomentKind;
use crate::schedule::{Decay, DecayShape};
use crate::scoring::{Activations, Head, Scoring};
use crate::settings::Length;

/// The policy and its reference model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// The model to train: a Hugging Face folder, or an id on the Hub (`owner/name@revision`).
    pub path: String,
    /// The reference model, as for `path`; or `"base"` or `"adapter"`: the policy without or with the adapters of `path` or of
    /// `lora.init`. Default: the policy before training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The data type of the policy's computation.
    #[serde(default)]
    pub dtype: Dtype,
    /// The device: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default)]
    pub device: DeviceChoice,
    /// `"nf4"` keeps the weights below adapters in four bits, with double quantization (`QLoRA`). A layer is dequantized while it
    /// computes, and computed again in the backward pass, as with `train.gradient_checkpointing`. The saved model has the
    /// dequantized weights with the adapters merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
}

impl ModelSection {
    /// # Errors
    /// A [`Complaint`] if weights are to be quantized and trained.
    pub fn check_quantization(&self, lora: &LoraSection) -> Result<(), Complaint> {
        let reason = "is for the frozen weights below adapters; set lora.rank, or remove the key";
        require(self.quantization.is_none() || lora.trains_adapters(), "quantization", reason)
    }

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
    /// Number of passes over the data, above 0. A fraction ends within a pass.
    pub epochs: Epochs,
    /// Number of optimizer steps, at least 1, in place of `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<NonZeroU64>,
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
    /// Learning-rate schedule after the warm-up; `wsd` is warmup-stable-decay.
    pub scheduler: Scheduler,
    /// Share of the steps with the final decay, in (0, 1], for `scheduler = "wsd"` only [default: 0.1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_ratio: Option<f64>,
    /// Curve of that decay [default: `"cosine"`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_type: Option<DecayShape>,
    /// `AdamW`'s decay rates β₁ and β₂, each in [0, 1).
    pub betas: [f64; 2],
    /// `AdamW`'s ε, above 0.
    pub eps: f64,
    /// `AdamW`'s weight decay, at least 0.
    pub weight_decay: f64,
    /// Maximum gradient norm, to which longer gradients are clipped. 0 disables clipping.
    pub max_grad_norm: f64,
    /// Weight of the loss that balances the experts of a mixture, at least 0. Default: that of `config.json`, as in TRL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_aux_loss_coef: Option<f64>,
    /// Fractions of the steps after which a checkpoint is written, in (0, 1] and ascending.
    pub checkpoints: Vec<f64>,
    /// Number of the newest checkpoints that are kept; 0 keeps all.
    pub keep_last: usize,
    /// Whether the backward pass recomputes each layer's activations, which saves memory and costs time.
    pub gradient_checkpointing: bool,
    /// Number of libtorch threads; 0 is libtorch's default.
    pub threads: usize,
    /// Early stopping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStoppingSection>,
}

impl Default for TrainSection {
    fn default() -> Self {
        Self {
            epochs: Epochs::DEFAULT,
            max_steps: None,
            batch_size: 16,
            micro_batch_size: 4,
            micro_batch_tokens: 0,
            learning_rate: 5e-7,
            warmup_ratio: 0.1,
            scheduler: Scheduler::Linear,
            decay_ratio: None,
            decay_type: None,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            router_aux_loss_coef: None,
            checkpoints: vec![0.25, 0.5, 0.75, 1.0],
            keep_last: 0,
            gradient_checkpointing: false,
            threads: 0,
            early_stopping: None,
        }
    }
}

/// The share of the steps with the final decay of `wsd`.
const DECAY_RATIO: f64 = 0.1;

impl TrainSection {
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self) -> Result<(), Complaint> {
        require(self.batch_size > 0, "batch_size", "is 0; give at least 1")?;
        require(self.micro_batch_size > 0, "micro_batch_size", "is 0; give at least 1")?;
        in_range("learning_rate", self.learning_rate, |rate| rate > 0.0, "above 0")?;
        in_range("warmup_ratio", self.warmup_ratio, |share| (0.0..=1.0).contains(&share), "in [0, 1]")?;
        self.check_decay()?;
        for beta in self.betas {
            in_range("betas", beta, |beta| (0.0..1.0).contains(&beta), "in [0, 1)")?;
        }
        in_range("eps", self.eps, |eps| eps > 0.0, "above 0")?;
        in_range("weight_decay", self.weight_decay, |decay| decay >= 0.0, "at least 0")?;
        in_range("max_grad_norm", self.max_grad_norm, |norm| norm >= 0.0, "at least 0; 0 disables clipping")?;
        let router = self.router_aux_loss_coef.unwrap_or(0.0);
        in_range("router_aux_loss_coef", router, |weight| weight >= 0.0, "at least 0; 0 disables the loss")?;
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

    /// # Errors
    /// A [`Complaint`] about early stopping, such as that without held-out preferences.
    pub fn check_stopping(&self, has_held_out: bool) -> Result<(), Complaint> {
        let Some(section) = self.early_stopping else { return Ok(()) };
        let checked = require(has_held_out, "patience", NEEDS_HELD_OUT).and_then(|()| section.check());
        checked.map_err(|complaint| complaint.within("early_stopping"))
    }

    /// Checks that training lasts for whole epochs, by which a study's tables and `results.parquet` name policies.
    ///
    /// # Errors
    /// A [`Complaint`] about the first other key of the length.
    pub fn check_of_study(&self) -> Result<(), Complaint> {
        if self.max_steps.is_some() {
            let reason =
                "has no place in a study, whose policies differ in epochs; remove it and set train.epochs";
            return Err(Complaint::invalid("max_steps", reason));
        }
        if self.early_stopping.is_some() {
            let reason = "has no place in a study, which compares policies of equal training; remove it";
            return Err(Complaint::invalid("early_stopping", reason));
        }
        if self.epochs.whole().is_none() {
            let reason = format!("is {}; it must be a whole number in a study", self.epochs);
            return Err(Complaint::invalid("epochs", reason));
        }
        Ok(())
    }

    fn check_decay(&self) -> Result<(), Complaint> {
        let given = [("decay_ratio", self.decay_ratio.is_some()), ("decay_type", self.decay_type.is_some())];
        for (key, is_given) in given {
            let unused = "applies only to train.scheduler = \"wsd\"; choose that or remove the key";
            require(self.scheduler == Scheduler::Wsd || !is_given, key, unused)?;
        }
        let Some(share) = self.decay_ratio else { return Ok(()) };
        in_range("decay_ratio", share, |share| share > 0.0 && share <= 1.0, "in (0, 1]")?;
        let sum = share + self.warmup_ratio;
        let reason = format!("and train.warmup_ratio add up to {sum}; together they are at most 1");
        require(sum <= 1.0, "decay_ratio", reason)
    }

    /// Returns the length of training.
    pub fn length(&self) -> Length {
        match self.max_steps {
            Some(steps) => Length::Steps(steps.get()),
            None => Length::Epochs(self.epochs.get()),
        }
    }

    /// Returns the learning rate after the warm-up.
    pub fn decay(&self) -> Decay {
        match self.scheduler {
            Scheduler::Linear => Decay::Linear,
            Scheduler::Cosine => Decay::Cosine,
            Scheduler::Constant => Decay::Constant,
            Scheduler::Wsd => Decay::Stable {
                share: self.decay_ratio.unwrap_or(DECAY_RATIO),
                shape: self.decay_type.unwrap_or_default(),
            },
        }
    }

    /// Sets the number of libtorch's threads for this process.
    pub fn take_threads(&self) {
        if self.threads > 0 {
            // A valid section fits.
            tch::set_num_threads(self.threads as i32);
        }
    }
}

/// The optimizer. Its hyperparameters are keys of `[train]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSection {
    /// `"adamw"`, or `"adamw8bit"` with moments in eight bits and a scale for 256 of them, as in bitsandbytes: 2 bytes a
    /// weight in place of 8.
    pub kind: OptimizerKind,
}

impl OptimizerSection {
    /// Returns whether all keys have their default values.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the form of the moments.
    pub fn moments(self) -> MomentKind {
        match self.kind {
            OptimizerKind::Adamw => MomentKind::Float,
            OptimizerKind::Adamw8bit => MomentKind::EightBit,
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
        if self.zero == 3 && lora.trains_adapters() {
            let what = "3 with lora.rank above 0 or lora.init, where most weights are not trained";
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
