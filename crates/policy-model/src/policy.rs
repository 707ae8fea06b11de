//! A policy: parameters and the decoder over them.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::attention::{Grid, Masks, NoCache, Packed, PackedRows, Rows};
use crate::decoder::Decoder;
use crate::layered::{Keep, Layered};
use crate::lora::Adapters;
use crate::{ModelConfig, PolicyError, initialise, weights};

/// A decoder-only language model.
///
/// Parameters are shared, not copied: tensors given to [`Policy::from_parameters`] are the ones that the forward pass
/// reads and that gradients flow to.
#[derive(Debug)]
pub struct Policy {
    config: ModelConfig,
    parameters: Vec<(String, Tensor)>,
    adapters: Option<Adapters>,
    decoder: Decoder,
    kind: Kind,
    device: Device,
}

/// Bytes of one vocabulary-wide temporary in [`Policy::token_logps`] without gradients. Two live at once, and glibc
/// returns blocks beyond 32 MB to the system at once, so that each would be paged in afresh.
const LOGIT_BYTES: i64 = 16 << 20;

impl Policy {
    /// Reads a Hugging Face folder: `config.json` and one or several safetensors files in F32, F16 or BF16.
    ///
    /// # Errors
    /// Anything wrong with the configuration or the weights; the message names the file and the tensor.
    pub fn load(dir: &Path, kind: Kind, device: Device) -> Result<Self, PolicyError> {
        let config = ModelConfig::from_folder(dir)?;
        let parameters = weights::read(dir, &config, kind, device)?;
        Self::build(config, parameters, None, &dir.display().to_string())
    }

    /// Looks at the folder of a model as [`Policy::load`] does, without reading a weight: its configuration, after a check
    /// that the weights files hold all of its parameters in their shapes.
    ///
    /// # Errors
    /// As [`Policy::load`], but for what only the weights themselves tell.
    pub fn inspect(dir: &Path) -> Result<ModelConfig, PolicyError> {
        let config = ModelConfig::from_folder(dir)?;
        weights::check_headers(dir, &config)?;
        Ok(config)
    }

    /// The kind that the folder of a model stores its weights in, in which [`Policy::load`] reads them fastest; `None` where it is
    /// not one for all.
    ///
    /// # Errors
    /// As [`Policy::inspect`], where files cannot be read.
    pub fn stored_kind(dir: &Path) -> Result<Option<Kind>, PolicyError> {
        weights::stored_kind(dir)
    }

    /// A freshly initialised policy: matrices from N(0, `initializer_range`²), norms 1, biases 0.
    ///
    /// Each matrix draws from the stream named after it, so that the values depend on nothing else.
    ///
    /// # Errors
    /// Weights cannot be held in `kind`, or libtorch has no memory for them.
    pub fn initialise(
        config: ModelConfig,
        seeds: &seeds::Seeds,
        kind: Kind,
        device: Device,
    ) -> Result<Self, PolicyError> {
        let parameters = initialise::parameters(&config, seeds, kind, device)?;
        Self::build(config, parameters, None, "initialised parameters")
    }

    /// A policy over these very tensors, which may be views of one flat buffer and may require gradients.
    ///
    /// The order does not matter; [`Policy::parameters`] returns them in checkpoint order.
    ///
    /// # Errors
    /// A parameter is missing, unknown or of the wrong shape, or they differ in kind or device.
    pub fn from_parameters(
        config: ModelConfig,
        parameters: Vec<(String, Tensor)>,
    ) -> Result<Self, PolicyError> {
        Self::build(config, parameters, None, "given parameters")
    }

    /// All parameters under their checkpoint names, in the order of [`ModelConfig::parameter_shapes`]; a tied
    /// embedding stands there once. Adapters have their own list.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The low-rank adapters over the parameters, if there are any.
    pub fn adapters(&self) -> Option<&Adapters> {
        self.adapters.as_ref()
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The kind of weights and computation.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where the weights lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Hidden states after the final norm, with gradients where the caller has them enabled.
    ///
    /// # Shapes
    /// `rows` `[B, T]`; returns `[B, T, hidden_size]` in the policy's kind.
    ///
    /// # Panics
    /// Where the shapes in `rows` differ or an id is outside the vocabulary
    /// ([`ModelConfig::check_tokens`] checks that where data enters).
    pub fn hidden_states(&self, rows: &Rows) -> Tensor {
        let shape = rows.ids.size();
        let hidden = self.padded_hidden_states(&self.embed(&rows.ids.reshape(-1)), rows, None);
        hidden.view([shape[0], shape[1], -1])
    }

    /// As [`Policy::packed_hidden_states`] of rows of one width.
    ///
    /// # Shapes
    /// `embedded` `[B·T, hidden_size]`, `wanted` `[M]`; returns `[M, hidden_size]` in the policy's kind.
    ///
    /// # Panics
    /// As [`Policy::hidden_states`], and where no token has a number that is wanted.
    pub fn padded_hidden_states(&self, embedded: &Tensor, rows: &Rows, wanted: Option<&Tensor>) -> Tensor {
        let (positions, mut mixing) = self.grid(rows);
        self.decoder.forward(embedded, &positions, &mut mixing, wanted)
    }

    /// As [`Policy::padded_hidden_states`], to be differentiated one layer at a time.
    ///
    /// # Panics
    /// As [`Policy::padded_hidden_states`].
    pub fn padded_layered(
        &self,
        embedded: &Tensor,
        rows: &Rows,
        wanted: Option<&Tensor>,
        keep: Keep,
    ) -> Layered<'_> {
        let (positions, mixing) = self.grid(rows);
        Layered::new(&self.decoder, embedded, &positions, Box::new(mixing), wanted, keep)
    }

    /// Hidden states after the final norm of rows without padding, with gradients where the caller has them enabled.
    ///
    /// `embedded` is what [`Policy::embed`] makes of the rows' ids. A trainer may hand in a leaf of its own instead, so
    /// that the gradient of the embedding stays `[N, hidden_size]` until it is added to the table's.
    ///
    /// `wanted` are the tokens whose states are asked for, by their places among the `N`, in any order and as often as one likes;
    /// `M = N`, all in their order, where it is none. What the last layer computes for others alone is left out.
    ///
    /// # Shapes
    /// `embedded` `[N, hidden_size]`, `wanted` `[M]` i64; returns `[M, hidden_size]` in the policy's kind.
    ///
    /// # Panics
    /// Where the rows do not have `N` tokens, or a place is not below `N`.
    pub fn packed_hidden_states(
        &self,
        embedded: &Tensor,
        rows: &PackedRows,
        wanted: Option<&Tensor>,
    ) -> Tensor {
        let mut mixing = Packed::new(rows, self.decoder.window(), embedded.kind());
        self.decoder.forward(embedded, &rows.positions, &mut mixing, wanted)
    }

    /// As [`Policy::packed_hidden_states`], to be differentiated one layer at a time.
    ///
    /// # Panics
    /// As [`Policy::packed_hidden_states`].
    pub fn packed_layered(
        &self,
        embedded: &Tensor,
        rows: &PackedRows,
        wanted: Option<&Tensor>,
        keep: Keep,
    ) -> Layered<'_> {
        let mixing = Packed::new(rows, self.decoder.window(), embedded.kind());
        Layered::new(&self.decoder, embedded, &rows.positions, Box::new(mixing), wanted, keep)
    }

    /// The embeddings of tokens.
    ///
    /// # Shapes
    /// `ids` `[N]` i64; returns `[N, hidden_size]` in the policy's kind.
    ///
    /// # Panics
    /// Where an id is outside the vocabulary.
    pub fn embed(&self, ids: &Tensor) -> Tensor {
        self.decoder.embed(ids)
    }

    /// The weight of the LM head, `[vocab_size, hidden_size]`: `lm_head.weight`, or the embedding where they are tied.
    pub fn lm_head(&self) -> &Tensor {
        self.decoder.lm_head()
    }

    /// Logits of hidden states.
    ///
    /// # Shapes
    /// `hidden` `[N, hidden_size]`; returns `[N, vocab_size]` in the policy's kind.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(self.decoder.lm_head(), None::<&Tensor>)
    }

    /// Log-probabilities (nats) of tokens, from a log-softmax in fp32 whatever the policy's kind.
    ///
    /// Where no gradient is tracked, rows are taken a few at a time, so that temporaries stay near 32 MB whatever `N`
    /// and the vocabulary.
    ///
    /// # Shapes
    /// `hidden` `[N, hidden_size]`: the states *before* the tokens; `targets` `[N]` i64: the tokens. Returns `[N]`
    /// Float.
    pub fn token_logps(&self, hidden: &Tensor, targets: &Tensor) -> Tensor {
        // A view inherits whether gradients are being tracked here and now, which tch has no other way to ask.
        let head = self.decoder.lm_head();
        let tracked = (hidden.requires_grad() || head.requires_grad()) && {
            let either = if head.requires_grad() { head } else { hidden };
            either.view_as(either).requires_grad()
        };
        let rows = hidden.size()[0];
        let chunk = (LOGIT_BYTES / (4 * self.config.vocab_size as i64)).max(1);
        if tracked || rows <= chunk {
            return self.chunk_logps(hidden, targets);
        }
        let starts = (0..rows).step_by(chunk as usize);
        let chunks: Vec<Tensor> = starts
            .map(|start| {
                let length = chunk.min(rows - start);
                self.chunk_logps(&hidden.narrow(0, start, length), &targets.narrow(0, start, length))
            })
            .collect();
        Tensor::cat(&chunks, 0)
    }

    /// Log-probabilities (nats) of sequences: sums over their tokens, accumulated in f64.
    ///
    /// # Shapes
    /// `hidden` `[N, hidden_size]` and `targets` `[N]` as in [`Policy::token_logps`]; `sequence` `[N]` i64 says to
    /// which of the `sequences` sequences each token belongs. Returns `[sequences]` Double.
    pub fn sequence_logps(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        sequence: &Tensor,
        sequences: usize,
    ) -> Tensor {
        let logps = self.token_logps(hidden, targets).to_kind(Kind::Double);
        Tensor::zeros([sequences as i64], (Kind::Double, self.device)).index_add(0, sequence, &logps)
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Positions `[N]` of rows of one width, and how their tokens see each other.
    fn grid(&self, rows: &Rows) -> (Tensor, Grid<NoCache>) {
        let masks = Masks::of_rows(rows, self.decoder.window());
        let positions = rows.positions.expand_as(&rows.ids).reshape(-1);
        (positions, Grid { rows: rows.ids.size()[0], masks, cache: NoCache })
    }

    fn chunk_logps(&self, hidden: &Tensor, targets: &Tensor) -> Tensor {
        let logps = self.logits(hidden).log_softmax(-1, Kind::Float);
        logps.gather(1, &targets.unsqueeze(-1), false).squeeze_dim(-1)
    }

    pub(crate) fn build(
        config: ModelConfig,
        parameters: Vec<(String, Tensor)>,
        adapters: Option<Adapters>,
        origin: &str,
    ) -> Result<Self, PolicyError> {
        let parameters = weights::arrange(config.parameter_shapes(), parameters, origin)?;
        let (_, first) = &parameters[0];
        let (kind, device) = (first.kind(), first.device());
        weights::check_kind(kind)?;
        weights::check_alike(&parameters, kind, device)?;
        let decoder = Decoder::new(&config, &parameters, adapters.as_ref(), device);
        Ok(Self { config, parameters, adapters, decoder, kind, device })
    }
}

/// Whether `device` multiplies bfloat16 matrices in hardware.
///
/// Where it does not, bfloat16 compute is slower than float32 and less exact, and callers are better off with
/// [`Kind::Float`].
pub fn native_bf16(device: Device) -> bool {
    match device {
        Device::Cpu => cpu_has_bf16(),
        _ => true,
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bf16() -> bool {
    // Every processor with AMX tiles has the AVX-512 instructions too.
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_bf16() -> bool {
    std::arch::is_aarch64_feature_detected!("bf16")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_bf16() -> bool {
    false
}
