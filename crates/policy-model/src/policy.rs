//! A policy: parameters and the decoder over them.

use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::adapter_folder::base_folder;
use crate::attention::{Masks, NoCache, Packed, PackedRows, Padded, Rows};
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::error::PolicyError;
use crate::layer_source::{LayerSource, Supply, layer_of};
use crate::layerwise::{Checkpointing, LayerwiseBackward};
use crate::lora::Adapters;
use crate::{initialize, weights};

/// A decoder-only language model.
///
/// Parameters are shared, not copied: the forward pass reads the tensors of [`Policy::from_parameters`], and gradients flow to
/// them.
#[derive(Debug)]
pub struct Policy {
    config: ModelConfig,
    parameters: Vec<(String, Tensor)>,
    adapters: Option<Adapters>,
    supply: Option<Supply>,
    decoder: Decoder,
    kind: Kind,
    device: Device,
}

/// Bytes of one vocabulary-wide temporary in [`Policy::token_logps`] without gradients. Two exist at a time, and glibc returns
/// larger blocks than 32 MB to the system on release, so that each would fault its pages in again.
const LOGIT_BYTES: i64 = 16 << 20;

impl Policy {
    /// Reads a Hugging Face folder: `config.json` and one or several safetensors files in F32, F16 or BF16. In a folder of peft's
    /// adapters, reads the base model that it names, and merges them.
    ///
    /// # Errors
    /// An error in the configuration or the weights; the message names the file and the tensor.
    pub fn load(dir: &Path, kind: Kind, device: Device) -> Result<Self, PolicyError> {
        let base = base_folder(dir)?;
        let folder = base.as_deref().unwrap_or(dir);
        let config = ModelConfig::from_folder(folder)?;
        let parameters = weights::read(folder, &config, kind, device)?;
        let policy = Self::build(config, parameters, None, &folder.display().to_string())?;
        if base.is_some() { policy.load_adapters(dir)?.merge() } else { Ok(policy) }
    }

    /// Reads the configuration of a model folder, and checks that the weights files have all parameters in their shapes, without
    /// reading a weight.
    ///
    /// # Errors
    /// As [`Policy::load`], except for errors in the values of weights.
    pub fn inspect(dir: &Path) -> Result<ModelConfig, PolicyError> {
        let base = base_folder(dir)?;
        let dir = base.as_deref().unwrap_or(dir);
        let config = ModelConfig::from_folder(dir)?;
        weights::check_headers(dir, &config)?;
        Ok(config)
    }

    /// Calls `visit` for each parameter of a model folder, in the order of the files. One is in memory at a time, but all of them for
    /// a folder of peft's adapters, which are merged.
    ///
    /// # Errors
    /// As [`Policy::load`]; the first error of `visit`.
    pub fn read_parameters<E: From<PolicyError>>(
        dir: &Path,
        kind: Kind,
        device: Device,
        mut visit: impl FnMut(String, Tensor) -> Result<(), E>,
    ) -> Result<(), E> {
        let config = Self::inspect(dir)?;
        if base_folder(dir)?.is_some() {
            let merged = Self::load(dir, kind, device)?;
            return merged
                .parameters()
                .iter()
                .try_for_each(|(name, weight)| visit(name.clone(), weight.shallow_clone()));
        }
        weights::visit(dir, &config, (kind, device), visit)
    }

    /// Returns the kind of the stored weights of a model folder, in which [`Policy::load`] is fastest; `None` if there are several.
    ///
    /// # Errors
    /// The weights files cannot be read.
    pub fn stored_kind(dir: &Path) -> Result<Option<Kind>, PolicyError> {
        weights::stored_kind(base_folder(dir)?.as_deref().unwrap_or(dir))
    }

    /// Creates a policy with random parameters: matrices from N(0, `initializer_range`²), norms 1, biases 0.
    ///
    /// Each matrix draws from the stream of its name, so that its values do not depend on other matrices.
    ///
    /// # Errors
    /// `kind` is not a kind of weights, or memory is exhausted.
    pub fn initialize(
        config: ModelConfig,
        seeds: &seeds::Seeds,
        kind: Kind,
        device: Device,
    ) -> Result<Self, PolicyError> {
        let parameters = initialize::parameters(&config, seeds, kind, device)?;
        Self::build(config, parameters, None, "initialized parameters")
    }

    /// Creates a policy that shares these tensors, which may be views of one flat buffer and may require gradients.
    ///
    /// They may have any order; [`Policy::parameters`] returns them in checkpoint order.
    ///
    /// # Errors
    /// A parameter is missing, unknown or of the wrong shape, or they differ in kind or device.
    pub fn from_parameters(
        config: ModelConfig,
        parameters: Vec<(String, Tensor)>,
    ) -> Result<Self, PolicyError> {
        Self::build(config, parameters, None, "given parameters")
    }

    /// Creates a policy whose layers `source` supplies while they compute. `parameters` are all others.
    ///
    /// # Errors
    /// As [`Policy::from_parameters`].
    pub fn with_layer_source(
        config: ModelConfig,
        parameters: Vec<(String, Tensor)>,
        source: Arc<dyn LayerSource>,
    ) -> Result<Self, PolicyError> {
        let kind = parameters.first().map_or(Kind::Float, |(_, first)| first.kind());
        Self::assemble(config, parameters, None, Some(Supply { source, kind }), "given parameters")
    }

    /// Returns the source of the layers, if they are not in memory.
    pub fn layer_source(&self) -> Option<&Arc<dyn LayerSource>> {
        self.supply.as_ref().map(|supply| &supply.source)
    }

    pub(crate) fn supply(&self) -> Option<&Supply> {
        self.supply.as_ref()
    }

    /// Calls `visit` for each parameter, in the order of [`ModelConfig::parameter_shapes`]. Layers of a source are in memory one
    /// at a time; of several ranks, the others call this or [`Policy::finish_passes`].
    ///
    /// # Errors
    /// The first error of `visit` or of the source.
    pub fn for_each_parameter<E: From<PolicyError>>(
        &self,
        mut visit: impl FnMut(&str, &Tensor) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(supply) = &self.supply else {
            return self.parameters.iter().try_for_each(|(name, tensor)| visit(name, tensor));
        };
        supply.source.begin_forward()?;
        let mut others = self.parameters.iter();
        let mut layer = (None, Vec::new());
        for (name, _) in self.config.parameter_shapes() {
            let index = layer_of(&name);
            if index.is_some() && index != layer.0 {
                drop(std::mem::take(&mut layer.1));
                layer = (index, index.map_or(Ok(Vec::new()), |index| supply.parameters(index))?);
            }
            let found = match index {
                None => others.next(),
                Some(_) => layer.1.iter().find(|(found, _)| *found == name),
            };
            let (_, tensor) = found.expect("a source supplies all weights of a layer");
            visit(&name, tensor)?;
        }
        Ok(())
    }

    /// Takes part in the passes of other ranks over layers that the ranks share, until none has more work. Does nothing for
    /// layers in memory.
    ///
    /// # Errors
    /// If another rank fails.
    pub fn finish_passes(&self) -> Result<(), PolicyError> {
        self.supply.as_ref().map_or(Ok(()), |supply| supply.source.finish_passes())
    }

    /// Returns all parameters in memory with their checkpoint names, in the order of [`ModelConfig::parameter_shapes`]: without
    /// the layers of a [source](Policy::layer_source). A tied embedding occurs once. Adapters are not included.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Returns the low-rank adapters, if any.
    pub fn adapters(&self) -> Option<&Adapters> {
        self.adapters.as_ref()
    }

    /// Returns the architecture.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns this policy with another weight of the loss that balances experts.
    #[must_use]
    pub fn with_router_loss(mut self, coefficient: f64) -> Self {
        self.config.router_aux_loss_coef = coefficient;
        self
    }

    /// Returns the kind of the weights and of computation.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the device of the weights.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the hidden states after the final norm, with a graph if gradients are enabled. They include the scale of the logits
    /// of families that have one.
    ///
    /// # Shapes
    /// `rows` `[B, T]`; returns `[B, T, hidden_size]` in the policy's kind.
    ///
    /// # Errors
    /// [`PolicyError::Kernel`] where a kernel fails or parameters no longer fit each other.
    ///
    /// # Panics
    /// If the shapes in `rows` differ, or an id is outside the vocabulary ([`ModelConfig::check_tokens`] checks that).
    pub fn hidden_states(&self, rows: &Rows) -> Result<Tensor, PolicyError> {
        let shape = rows.ids.size();
        let hidden = self.padded_hidden_states(&self.embed(&rows.ids.reshape(-1)), rows, None)?;
        Ok(hidden.view([shape[0], shape[1], -1]))
    }

    /// As [`Policy::packed_hidden_states`], for padded rows.
    ///
    /// # Shapes
    /// `embedded` `[B·T, hidden_size]`, `selected` `[M]`; returns `[M, hidden_size]` in the policy's kind.
    ///
    /// # Errors
    /// As [`Policy::hidden_states`].
    ///
    /// # Panics
    /// As [`Policy::hidden_states`], and if a selected index is not below `B·T`.
    pub fn padded_hidden_states(
        &self,
        embedded: &Tensor,
        rows: &Rows,
        selected: Option<&Tensor>,
    ) -> Result<Tensor, PolicyError> {
        let (positions, mut backend) = self.padded(rows);
        self.decoder.forward(embedded, &positions, &mut backend, selected)
    }

    /// As [`Policy::padded_hidden_states`], for a layerwise backward pass.
    ///
    /// # Errors
    /// As [`Policy::hidden_states`].
    ///
    /// # Panics
    /// As [`Policy::padded_hidden_states`].
    pub fn padded_layerwise(
        &self,
        embedded: &Tensor,
        rows: &Rows,
        selected: Option<&Tensor>,
        checkpointing: Checkpointing,
    ) -> Result<LayerwiseBackward<'_>, PolicyError> {
        let (positions, backend) = self.padded(rows);
        let backend = Box::new(backend);
        LayerwiseBackward::new(&self.decoder, embedded, &positions, backend, selected, checkpointing)
    }

    /// Returns the hidden states of packed rows after the final norm, with a graph if gradients are enabled.
    ///
    /// `embedded` is the result of [`Policy::embed`] for the ids of `rows`. A trainer may pass a leaf instead, so that the
    /// gradient of the embedding stays `[N, hidden_size]` until it is added to that of the table.
    ///
    /// `selected` are the indices of the tokens to return, in any order, with repetitions; `None` returns all, `M = N`. The last
    /// layer computes the selected tokens only.
    ///
    /// # Shapes
    /// `embedded` `[N, hidden_size]`, `selected` `[M]` i64; returns `[M, hidden_size]` in the policy's kind.
    ///
    /// # Errors
    /// As [`Policy::hidden_states`]; [`PolicyError::Kernel`] also if `rows` do not have `N` tokens.
    ///
    /// # Panics
    /// If a selected index is not below `N`.
    pub fn packed_hidden_states(
        &self,
        embedded: &Tensor,
        rows: &PackedRows,
        selected: Option<&Tensor>,
    ) -> Result<Tensor, PolicyError> {
        let mut backend = Packed::new(rows, self.decoder.window(), embedded.kind());
        self.decoder.forward(embedded, &rows.positions, &mut backend, selected)
    }

    /// As [`Policy::packed_hidden_states`], for a layerwise backward pass.
    ///
    /// # Errors
    /// As [`Policy::packed_hidden_states`].
    ///
    /// # Panics
    /// As [`Policy::packed_hidden_states`].
    pub fn packed_layerwise(
        &self,
        embedded: &Tensor,
        rows: &PackedRows,
        selected: Option<&Tensor>,
        checkpointing: Checkpointing,
    ) -> Result<LayerwiseBackward<'_>, PolicyError> {
        let backend = Box::new(Packed::new(rows, self.decoder.window(), embedded.kind()));
        LayerwiseBackward::new(&self.decoder, embedded, &rows.positions, backend, selected, checkpointing)
    }

    /// Returns the embeddings of tokens, to which the first layer applies the scale of families that have one.
    ///
    /// # Shapes
    /// `ids` `[N]` i64; returns `[N, hidden_size]` in the policy's kind.
    ///
    /// # Panics
    /// If an id is outside the vocabulary.
    pub fn embed(&self, ids: &Tensor) -> Tensor {
        self.decoder.embed(ids)
    }

    /// Returns the weight of the LM head, `[vocab_size, hidden_size]`: `lm_head.weight`, or the tied embedding.
    /// [`ModelConfig::has_plain_head`] is whether it determines the logits.
    pub fn lm_head(&self) -> &Tensor {
        self.decoder.lm_head()
    }

    /// Returns the logits of hidden states.
    ///
    /// # Shapes
    /// `hidden` `[N, hidden_size]`; returns `[N, vocab_size]` in the policy's kind.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.decoder.logits(hidden)
    }

    /// Returns the log-probabilities (nats) of tokens, from a log-softmax in fp32 for every kind.
    ///
    /// Without gradients it computes a few rows at a time, so that temporaries stay near 32 MB for any `N` and vocabulary.
    ///
    /// # Shapes
    /// `hidden` `[N, hidden_size]`: the states *before* the tokens; `targets` `[N]` i64: the tokens. Returns `[N]`
    /// Float.
    pub fn token_logps(&self, hidden: &Tensor, targets: &Tensor) -> Tensor {
        // A view requires a gradient only while gradients are enabled, which tch cannot query otherwise.
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

    /// Returns the log-probabilities (nats) of sequences: sums over their tokens, in f64.
    ///
    /// # Shapes
    /// `hidden` `[N, hidden_size]` and `targets` `[N]` as in [`Policy::token_logps`]; `sequence` `[N]` i64 is the
    /// sequence of each token, below `sequences`. Returns `[sequences]` Double.
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

    /// Returns the positions `[N]` of padded rows, and their attention.
    fn padded(&self, rows: &Rows) -> (Tensor, Padded<NoCache>) {
        let masks = Masks::of_rows(rows, self.decoder.window());
        let positions = rows.positions.expand_as(&rows.ids).reshape(-1);
        let (dropout, routing) = (rows.dropout.clone(), rows.routing.clone());
        (positions, Padded { rows: rows.ids.size()[0], masks, cache: NoCache, dropout, routing })
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
        Self::assemble(config, parameters, adapters, None, origin)
    }

    pub(crate) fn assemble(
        config: ModelConfig,
        parameters: Vec<(String, Tensor)>,
        adapters: Option<Adapters>,
        supply: Option<Supply>,
        origin: &str,
    ) -> Result<Self, PolicyError> {
        let mut shapes = config.parameter_shapes();
        shapes.retain(|(name, _)| supply.is_none() || layer_of(name).is_none());
        let parameters = weights::arrange(shapes, parameters, origin)?;
        let (_, first) = &parameters[0];
        let (kind, device) = (first.kind(), first.device());
        weights::check_kind(kind)?;
        weights::check_alike(&parameters, kind, device)?;
        let decoder = Decoder::new(&config, &parameters, adapters.as_ref(), supply.as_ref(), device);
        Ok(Self { config, parameters, adapters, supply, decoder, kind, device })
    }
}

/// Returns whether `device` multiplies bfloat16 matrices in hardware.
///
/// If not, bfloat16 is slower than float32 and less exact, so that [`Kind::Float`] is the better choice.
pub fn native_bf16(device: Device) -> bool {
    match device {
        Device::Cpu => cpu_has_bf16(),
        _ => true,
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bf16() -> bool {
    // Every processor with AMX tiles has these AVX-512 instructions, too.
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
