//! Log-probabilities of a batch's tokens, and the backward pass from their coefficients to the weights.
//!
//! Losses of sequences are functions of a few sums, with derivatives in closed form. A step therefore has three parts.
//! A forward pass computes the tokens' log-probabilities, the loss works on plain numbers, and a backward pass starts
//! with one coefficient per token.

use policy_model::{
    AdapterDropout, AttentionMask, Checkpointing, LayerwiseBackward, ModelConfig, PackedRow, PackedRows,
    Policy, Routing, Rows, on_device,
};
use pref_data::{Layout, Padding, TokenBatch};
use pref_loss::{ChunkedHead, ScoredTokens};
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::router_loss::RouterLoss;

/// Options of the forward pass; they affect log-probabilities and gradients by rounding only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scoring {
    /// Whether a pair's prompt is computed once.
    pub layout: Layout,
    /// Whether linear layers see padding. Without it, a pair's result does not depend on the rest of its batch, and an
    /// untrained policy equals its reference bit for bit. With thread replicas, which train small policies, they are
    /// equal up to rounding.
    pub padding: Padding,
    /// How logits become log-probabilities.
    pub head: Head,
    /// The activations that are kept for the backward pass.
    pub activations: Activations,
}

impl Scoring {
    /// All optimizations, which are a recipe's default.
    pub const FAST: Self = Self {
        layout: Layout::SharedPrompt,
        padding: Padding::None,
        head: Head::Chunked,
        activations: Activations::Kept,
    };

    /// Switches to layerwise backward, which several ranks use to exchange gradients layer by layer.
    pub(crate) fn by_layer(self) -> Self {
        let activations = match self.activations {
            Activations::Kept => Activations::KeptByLayer,
            others => others,
        };
        Self { activations, ..self }
    }
}

/// The activations that a forward pass keeps for the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// All activations.
    Kept,
    /// All activations, with one graph per layer (layerwise backward). A layer's gradients are complete, and can be
    /// exchanged, before those of the layers below are computed. Gradients equal those of [`Kept`](Self::Kept) bitwise.
    KeptByLayer,
    /// The input of every layer; the rest is recomputed (gradient checkpointing). It needs less memory and a second
    /// forward pass.
    Recomputed,
}

/// How the LM head computes log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// In tiles that are recomputed in the backward pass, without ever holding all logits ([`ChunkedHead`]).
    Chunked,
    /// All logits at once, under autograd.
    Full,
}

impl Head {
    /// Returns the head that this model can have: tiles compute neither biases nor soft caps.
    pub(crate) fn of(self, config: &ModelConfig) -> Self {
        if config.has_plain_head() { self } else { Self::Full }
    }
}

/// A batch after its forward pass.
#[derive(Debug)]
pub(crate) struct ForwardPass<'a> {
    batch: &'a TokenBatch,
    /// The log-probability of each scored token, in nats.
    logps: Vec<f32>,
    tape: Tape<'a>,
}

/// The operands of the backward pass.
#[derive(Debug)]
struct Tape<'a> {
    /// `[N]` i64 and `[N, hidden]`: tokens and their embeddings, a leaf at which the graph ends.
    ids: Tensor,
    embedded: Tensor,
    /// The layers, if the graph of the hidden states does not contain them.
    layers: Option<LayerwiseBackward<'a>>,
    head: HeadTape,
    router: Option<RouterLoss>,
}

#[derive(Debug)]
enum HeadTape {
    Chunked { hidden: Tensor, tokens: ScoredTokens },
    Full { hidden: Tensor, logps: Tensor },
}

impl<'a> ForwardPass<'a> {
    /// Runs `policy` on `batch`, with a graph to its weights unless the caller has disabled gradients.
    pub(crate) fn forward(
        policy: &'a Policy,
        batch: &'a TokenBatch,
        head: Head,
        activations: Activations,
    ) -> Result<Self, TrainError> {
        Self::with_dropout(policy, batch, head, activations, None)
    }

    /// Like [`forward`](Self::forward), with dropout of adapters.
    pub(crate) fn with_dropout(
        policy: &'a Policy,
        batch: &'a TokenBatch,
        head: Head,
        activations: Activations,
        dropout: Option<AdapterDropout>,
    ) -> Result<Self, TrainError> {
        Self::run(policy, batch, head, activations, (dropout, None))
    }

    /// Like [`with_dropout`](Self::with_dropout), for a backward pass that includes the loss of routers.
    pub(crate) fn training(
        policy: &'a Policy,
        batch: &'a TokenBatch,
        head: Head,
        activations: Activations,
        dropout: Option<AdapterDropout>,
    ) -> Result<Self, TrainError> {
        let router = RouterLoss::new(policy.config(), batch, policy.device());
        Self::run(policy, batch, head, activations, (dropout, router))
    }

    fn run(
        policy: &'a Policy,
        batch: &'a TokenBatch,
        head: Head,
        activations: Activations,
        (dropout, router): (Option<AdapterDropout>, Option<RouterLoss>),
    ) -> Result<Self, TrainError> {
        let device = policy.device();
        let on_device = |data: &[i64]| on_device(data, device);
        let ids = on_device(&batch.ids);
        let embedded = tch::no_grad(|| policy.embed(&ids)).set_requires_grad(true);
        let (hidden, layers) = {
            let routing = router.as_ref().map(|router| router.routing.clone());
            hidden_states(policy, batch, (&ids, &embedded), activations, (dropout, routing))?
        };
        let targets = on_device(&batch.targets);
        let head = match head.of(policy.config()) {
            Head::Chunked => {
                let tokens = ChunkedHead::new(policy.lm_head())?.forward(&hidden, &targets)?;
                HeadTape::Chunked { hidden, tokens }
            }
            Head::Full => {
                let logps = policy.token_logps(&hidden, &targets);
                HeadTape::Full { hidden, logps }
            }
        };
        let logps = on_cpu(match &head {
            HeadTape::Chunked { tokens, .. } => tokens.logps(),
            HeadTape::Full { logps, .. } => logps,
        });
        Ok(Self { batch, logps, tape: Tape { ids, embedded, layers, head, router } })
    }

    /// Returns the log-probability of each scored token, in nats.
    pub(crate) fn logps(&self) -> &[f32] {
        &self.logps
    }

    /// Returns the sums over each sequence, in nats; for pairs all chosen, then all rejected. Sums are in f64 and in
    /// token order, so that they depend on the sequence only.
    pub(crate) fn sequence_logps(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.batch.sequences];
        for (&logp, &sequence) in self.logps.iter().zip(&self.batch.sequence) {
            sums[sequence as usize] += f64::from(logp);
        }
        sums
    }

    /// Like [`sequence_logps`](Self::sequence_logps), with a weight per token; `None` for plain sums.
    pub(crate) fn weighted_logps(&self, weights: Option<&[f64]>) -> Vec<f64> {
        let Some(weights) = weights else { return self.sequence_logps() };
        let mut sums = vec![0.0; self.batch.sequences];
        for ((&logp, &sequence), weight) in self.logps.iter().zip(&self.batch.sequence).zip(weights) {
            sums[sequence as usize] += weight * f64::from(logp);
        }
        sums
    }

    /// Splits a number per scored token by sequence.
    pub(crate) fn by_sequence(&self, numbers: &[f32]) -> Vec<Vec<f64>> {
        let mut parts = vec![Vec::new(); self.batch.sequences];
        for (&number, &sequence) in numbers.iter().zip(&self.batch.sequence) {
            parts[sequence as usize].push(f64::from(number));
        }
        parts
    }

    /// Returns log Σ π² over the vocabulary at each scored token, in nats.
    pub(crate) fn log_collisions(&self, policy: &Policy) -> Result<Vec<f32>, TrainError> {
        let (HeadTape::Chunked { hidden, .. } | HeadTape::Full { hidden, .. }) = &self.tape.head;
        if !policy.config().has_plain_head() {
            let log_softmax = tch::no_grad(|| policy.logits(hidden).log_softmax(-1, Kind::Float));
            return Ok(on_cpu(&(log_softmax * 2.0).logsumexp(-1, false)));
        }
        Ok(on_cpu(&ChunkedHead::new(policy.lm_head())?.log_collisions(hidden)?))
    }

    /// Returns the loss of the routers with its weight, or 0. The backward pass adds `scale` times its gradient.
    pub(crate) fn router_loss(&mut self, scale: f64) -> f64 {
        self.tape.router.as_mut().map_or(0.0, |router| router.evaluate(scale))
    }

    /// Adds the gradient of `Σ coefficient · logp` to `gradients`, with one coefficient per sequence.
    pub(crate) fn backward(
        self,
        coefficients: &[f64],
        gradients: &mut Gradients<'_>,
    ) -> Result<(), TrainError> {
        self.backward_weighted(coefficients, None, gradients)
    }

    /// Like [`backward`](Self::backward), for the sums of [`weighted_logps`](Self::weighted_logps).
    pub(crate) fn backward_weighted(
        self,
        coefficients: &[f64],
        weights: Option<&[f64]>,
        gradients: &mut Gradients<'_>,
    ) -> Result<(), TrainError> {
        let of_sequence = self.batch.sequence.iter().map(|&sequence| coefficients[sequence as usize]);
        let per_token: Vec<f32> = match weights {
            None => of_sequence.map(|coefficient| coefficient as f32).collect(),
            Some(weights) => {
                of_sequence.zip(weights).map(|(coefficient, weight)| (coefficient * weight) as f32).collect()
            }
        };
        let Tape { ids, embedded, layers, head, router } = self.tape;
        let per_token = on_device(&per_token, ids.device());
        let (output, gradient) = match head {
            HeadTape::Chunked { hidden, tokens } => {
                let gradient = match gradients.lm_head()? {
                    Some(mut weight) => tokens.backward_into(&per_token, &mut weight)?,
                    None => tokens.backward_hidden(&per_token)?,
                };
                let gradient = gradient.to_kind(hidden.kind());
                (hidden, gradient)
            }
            HeadTape::Full { logps, .. } => (logps, per_token),
        };
        let from = [&output, &gradient];
        match (layers, &router) {
            (None, None) => gradients.backward(from, &embedded, &ids),
            (None, Some(router)) => {
                let [output, gradient] = router.joined(router.layers(), from);
                gradients.backward([&output, &gradient], &embedded, &ids)
            }
            (Some(layers), router) => gradients.backward_by_layer(from, layers, router.as_ref(), &ids),
        }
    }
}

/// The hidden states of the scored tokens, and the layers if they are to be recomputed.
fn hidden_states<'a>(
    policy: &'a Policy,
    batch: &TokenBatch,
    (ids, embedded): (&Tensor, &Tensor),
    activations: Activations,
    (dropout, routing): (Option<AdapterDropout>, Option<Routing>),
) -> Result<(Tensor, Option<LayerwiseBackward<'a>>), TrainError> {
    let on_device = |data: &[i64]| on_device(data, policy.device());
    let scored = on_device(&batch.scored);
    let layerwise = |layers: LayerwiseBackward<'a>| (layers.hidden_states().shallow_clone(), Some(layers));
    let checkpointing = match activations {
        Activations::Kept => None,
        Activations::KeptByLayer => Some(Checkpointing::Off),
        Activations::Recomputed => Some(Checkpointing::PerLayer),
    };
    match batch.padding {
        Padding::None => {
            let rows = batch.rows.iter();
            let rows = rows.map(|r| PackedRow { prefix: r.trunk, continuations: r.branches.clone() });
            let (ids, positions) = (ids.shallow_clone(), on_device(&batch.positions));
            let rows = PackedRows { ids, positions, rows: rows.collect(), dropout, routing };
            Ok(match checkpointing {
                None => (policy.packed_hidden_states(embedded, &rows, Some(&scored))?, None),
                Some(kind) => layerwise(policy.packed_layerwise(embedded, &rows, Some(&scored), kind)?),
            })
        }
        Padding::Right(_) => {
            let shape = [batch.rows.len() as i64, batch.width as i64];
            let grid = |data: &[i64]| on_device(data).view(shape);
            let mask = match batch.layout {
                Layout::Separate => AttentionMask::Causal,
                Layout::SharedPrompt => AttentionMask::SharedPrefix(grid(&batch.branches)),
            };
            let rows =
                Rows { ids: ids.view(shape), positions: grid(&batch.positions), mask, dropout, routing };
            Ok(match checkpointing {
                None => (policy.padded_hidden_states(embedded, &rows, Some(&scored))?, None),
                Some(kind) => layerwise(policy.padded_layerwise(embedded, &rows, Some(&scored), kind)?),
            })
        }
    }
}

fn on_cpu(values: &Tensor) -> Vec<f32> {
    let values = values.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut copied = vec![0f32; values.numel()];
    values.copy_data(&mut copied, values.numel());
    copied
}
