//! Master weights in one flat fp32 buffer, and the policy that computes with them.

use std::borrow::Borrow;
use std::num::NonZeroU32;

use policy_model::{LayerwiseBackward, Lora, ModelConfig, Policy};
use seeds::Seeds;
use tch::{Device, Kind, Tensor};
use torch_ext::distributed::Rank;

use crate::TrainError;
use crate::distributed::{Buckets, Exchange, Shard, World};
use crate::optimizer::AdamW;

/// Where one parameter lies in the flat buffer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) offset: i64,
    pub(crate) shape: Vec<i64>,
}

impl Span {
    pub(crate) fn length(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Matrices are decayed, norms and biases are not: the groups that transformers' Trainer makes.
    pub(crate) fn is_decayed(&self) -> bool {
        self.shape.len() > 1
    }

    fn view(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.offset, self.length()).view(self.shape.as_slice())
    }
}

/// What of a policy is trained.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Trained {
    /// All its weights.
    #[default]
    All,
    /// Low-rank adapters, over weights that stay as they are.
    Adapters(Lora),
}

impl Trained {
    /// How many numbers are trained of a model of this shape.
    pub fn parameter_count(&self, config: &ModelConfig) -> u64 {
        match self {
            Self::All => config.parameter_count(),
            Self::Adapters(lora) => lora.parameter_count(config),
        }
    }
}

/// The weights under training.
///
/// Updates happen on `master`, fp32 in one dimension. The policy computes with leaves that require gradients: views of
/// `master` itself when it computes in fp32 and this process holds all of it, of a second flat buffer otherwise. At a learning
/// rate of 5e-7 a bfloat16 weight would not move at all, since the step is below half a unit in its last place.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// The weights of `shard`.
    pub(crate) master: Tensor,
    pub(crate) shard: Shard,
    pub(crate) gradients: GradientBuffer,
    pub(crate) policy: Policy,
    trained: Trained,
    /// The flat buffer behind the leaves when they are not views of `master`.
    compute: Option<Tensor>,
    /// The summed gradient of `shard`, where that is a part.
    part: Option<Tensor>,
}

/// Where gradients gather: one flat fp32 buffer, and the leaves that they come from.
#[derive(Debug)]
pub(crate) struct GradientBuffer {
    pub(crate) flat: Tensor,
    pub(crate) spans: Vec<Span>,
    /// Of every span the leaf, and the part of `flat` where its gradient gathers, in its shape.
    leaves: Vec<Tensor>,
    sums: Vec<Tensor>,
    /// The embedding's and the head's place among the spans, where they are trained.
    embedding: Option<usize>,
    lm_head: Option<usize>,
}

/// The embedding's name in a checkpoint; where the head is tied to it, the head has none of its own.
const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

impl Parameters {
    /// Takes over what is `trained` of `policy` and computes in `kind`. Fresh adapters draw from `seeds`. Of several ranks, each
    /// updates its part of the weights where `holder` names it, in buckets of so many elements.
    ///
    /// Weights below adapters are shared with `policy` where it is of this kind already. A policy that is handed over is dropped
    /// once its weights are copied, before room is made for what training adds.
    pub(crate) fn new(
        given: impl Borrow<Policy>,
        trained: Trained,
        kind: Kind,
        seeds: &Seeds,
        holder: Option<(Rank, NonZeroU32)>,
    ) -> Result<Self, TrainError> {
        let _guard = tch::no_grad_guard();
        let policy = given.borrow();
        let fresh = match &trained {
            Trained::All => None,
            Trained::Adapters(lora) => Some(lora.initialize(policy.config(), seeds, policy.device())),
        };
        let weights = fresh.as_deref().unwrap_or(policy.parameters());
        let spans = spans(weights);
        let device = policy.device();
        let elements = spans.last().map_or(0, |last| last.offset + last.length());
        let shard = holder.map_or(Shard::whole(elements), |(rank, bucket)| Shard::of(rank, elements, bucket));
        let mut master = torch_ext::untouched_zeros(shard.padded(), device)?;
        for (span, (_, tensor)) in spans.iter().zip(weights) {
            span.view(&master).copy_(tensor);
        }
        let compute = (kind != Kind::Float || holder.is_some()).then(|| master.to_kind(kind));
        if holder.is_some() {
            let pieces = master.view([shard.buckets(), -1, shard.piece]);
            master = pieces.select(1, shard.rank.index() as i64).reshape(-1).copy();
        }
        let flat = compute.as_ref().unwrap_or(&master);
        let leaf = |span: &Span| span.view(flat).detach().set_requires_grad(true);
        let leaves: Vec<Tensor> = spans.iter().map(leaf).collect();
        let named = spans.iter().zip(&leaves).map(|(s, t)| (s.name.clone(), t.shallow_clone())).collect();
        let policy = match &trained {
            Trained::All => Policy::from_parameters(policy.config().clone(), named)?,
            Trained::Adapters(lora) => policy.to_kind(kind)?.with_adapters(lora.clone(), named)?,
        };
        drop((given, fresh));
        // Gone by now, as a reference may be, but not yet from the process.
        torch_ext::release_free_memory();
        let part = holder.map(|_| torch_ext::untouched_zeros(shard.length(), device)).transpose()?;
        let flat = torch_ext::untouched_zeros(shard.padded(), device)?;
        let gradients = GradientBuffer::new(flat, spans, leaves);
        Ok(Self { gradients, master, shard, policy, trained, compute, part })
    }

    pub(crate) fn device(&self) -> Device {
        self.master.device()
    }

    /// The weights that are trained as the policy computes with them, in one dimension.
    pub(crate) fn computing(&self) -> &Tensor {
        self.compute.as_ref().unwrap_or(&self.master)
    }

    /// Runs `body`, which adds up this rank's gradient, and sums it over all ranks. What it tells of spans whose gradient is whole
    /// begins to travel meanwhile.
    pub(crate) fn sum_gradient<R>(
        &self,
        world: &World,
        exchange: Exchange,
        body: impl FnOnce(&mut dyn FnMut(&Span)) -> Result<R, TrainError>,
    ) -> Result<R, TrainError> {
        let buckets = Buckets::new(&self.gradients.flat, self.part.as_ref(), self.shard, exchange);
        world.sum_gradient(buckets, |whole| body(&mut |span: &Span| whole(span.offset, span.length())))
    }

    /// What of the gradient that was summed belongs to `master`, and the Euclidean norm of the whole.
    pub(crate) fn summed_gradient(&self, world: &World) -> Result<(Tensor, f64), TrainError> {
        let Some(part) = &self.part else {
            return Ok((self.gradients.flat.shallow_clone(), self.gradients.norm()?));
        };
        let pieces = std::iter::repeat_n(self.shard.piece, self.shard.buckets() as usize);
        let mut squared = [squared_norm(part, pieces)?];
        world.sum(&mut squared)?;
        Ok((part.shallow_clone(), squared[0].sqrt()))
    }

    /// An update of `master` with `gradient`, multiplied by `clip`, and of the weights that compute, here and on the other ranks.
    pub(crate) fn update(
        &mut self,
        optimizer: &mut AdamW,
        world: &World,
        gradient: &Tensor,
        (learning_rate, clip): (f64, f64),
    ) -> Result<(), TrainError> {
        let Some(compute) = self.compute.as_ref().filter(|_| !self.shard.is_whole()) else {
            return optimizer.update(&self.master, gradient, self.compute.as_ref(), learning_rate, clip);
        };
        let update = optimizer.begin(learning_rate, clip);
        // What fills up the last pieces is no element of an update, and zero everywhere.
        let copy = (compute.kind() != Kind::Float)
            .then(|| Tensor::zeros([self.shard.length()], (compute.kind(), compute.device())));
        world.gather(self.shard, compute, copy.as_ref().unwrap_or(&self.master), |elements| {
            update.elements(elements, &self.master, gradient, copy.as_ref())
        })
    }

    /// Brings the compute weights up to date with `master`, on this rank and on the others.
    pub(crate) fn refresh(&mut self, world: &World) -> Result<(), TrainError> {
        let Some(compute) = &mut self.compute else { return Ok(()) };
        if self.shard.is_whole() {
            compute.copy_(&self.master);
            return Ok(());
        }
        world.gather(self.shard, compute, &self.master.to_kind(compute.kind()), |_| Ok(()))
    }

    /// A policy for saving, without gradients: what is trained is in fp32, or in the kind that computes where no rank holds all
    /// of it. All ranks call it.
    pub(crate) fn master_policy(&self, world: &World) -> Result<Policy, TrainError> {
        let _guard = tch::no_grad_guard();
        let weights = match (&self.compute, &self.trained) {
            (Some(compute), Trained::All) if !self.shard.is_whole() => compute.detach(),
            // Adapters are small, and kept in fp32 wherever they are kept.
            (Some(_), Trained::Adapters(_)) if !self.shard.is_whole() => {
                let whole = Tensor::zeros([self.shard.padded()], (Kind::Float, self.device()));
                world.gather(self.shard, &whole, &self.master, |_| Ok(()))?;
                whole
            }
            _ => self.master.shallow_clone(),
        };
        self.policy_of(self.gradients.spans.iter().map(|span| span.view(&weights)))
    }

    /// A policy of these values of what is trained, in their order.
    fn policy_of(&self, trained: impl Iterator<Item = Tensor>) -> Result<Policy, TrainError> {
        let names = self.gradients.spans.iter().map(|span| span.name.clone());
        let parameters = names.zip(trained).collect();
        Ok(match &self.trained {
            Trained::All => Policy::from_parameters(self.policy.config().clone(), parameters)?,
            Trained::Adapters(lora) => self.policy.with_adapters(lora.clone(), parameters)?,
        })
    }

    /// The policy and where its gradient gathers, once more: the same weights, and `gathered` for all that
    /// [`GradientBuffer::flat`] is.
    pub(crate) fn lane(&self, gathered: Tensor) -> Result<Lane, TrainError> {
        let GradientBuffer { spans, leaves, .. } = &self.gradients;
        let leaves: Vec<Tensor> = leaves.iter().map(Tensor::shallow_clone).collect();
        let policy = self.policy_of(leaves.iter().map(Tensor::shallow_clone))?;
        Ok(Lane { policy, gradients: GradientBuffer::new(gathered, spans.clone(), leaves) })
    }
}

/// A policy and where its gradient gathers.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) policy: Policy,
    pub(crate) gradients: GradientBuffer,
}

/// Where each of `parameters` lies in a flat buffer: one behind the other.
fn spans(parameters: &[(String, Tensor)]) -> Vec<Span> {
    let mut offset = 0;
    let span = |(name, tensor): &(String, Tensor)| {
        let span = Span { name: name.clone(), offset, shape: tensor.size() };
        offset += span.length();
        span
    };
    parameters.iter().map(span).collect()
}

impl GradientBuffer {
    /// The gradients of `leaves` gather in `flat`, each where its span is.
    fn new(flat: Tensor, spans: Vec<Span>, leaves: Vec<Tensor>) -> Self {
        let place = |name: &str| spans.iter().position(|span| span.name == name);
        let embedding = place(EMBEDDING);
        let lm_head = place(LM_HEAD).or(embedding);
        let sums = spans.iter().map(|span| span.view(&flat)).collect();
        Self { flat, spans, leaves, sums, embedding, lm_head }
    }

    /// Adds all of `other`, which forgets it.
    pub(crate) fn take_in(&self, other: &mut Self) -> Result<(), TrainError> {
        torch_ext::accumulate(&mut self.flat.shallow_clone(), &other.flat)?;
        other.zero();
        Ok(())
    }

    /// Forgets everything.
    pub(crate) fn zero(&mut self) {
        let _ = self.flat.zero_();
    }

    /// The Euclidean norm of the whole gradient.
    fn norm(&self) -> Result<f64, TrainError> {
        Ok(squared_norm(&self.flat, self.spans.iter().map(|span| span.length()))?.sqrt())
    }
}

/// The sum of squares of a flat buffer, summed in f64 over parts of these lengths at most.
fn squared_norm(flat: &Tensor, lengths: impl Iterator<Item = i64>) -> Result<f64, TrainError> {
    if let Some(sum) = torch_ext::squared_norm(flat)? {
        return Ok(sum);
    }
    // By libtorch on other devices.
    let _guard = tch::no_grad_guard();
    let lengths: Vec<i64> = lengths.collect();
    let norms: Vec<Tensor> = flat.split_with_sizes(lengths, 0).iter().map(Tensor::norm).collect();
    Ok(Tensor::stack(&norms, 0).to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]))
}

/// Where the gradient of a micro-batch is added.
pub struct Gradients<'a> {
    buffer: &'a GradientBuffer,
    /// Hears of each span once nothing more of this micro-batch will be added.
    done: &'a mut dyn FnMut(&Span),
}

impl std::fmt::Debug for Gradients<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gradients").field("buffer", &self.buffer).finish_non_exhaustive()
    }
}

impl<'a> Gradients<'a> {
    /// Adds to `buffer`; `done` hears of each span once nothing more of this micro-batch will be added.
    pub(crate) fn new(buffer: &'a GradientBuffer, done: &'a mut dyn FnMut(&Span)) -> Self {
        Self { buffer, done }
    }

    /// Adds the gradient with respect to all weights that are trained; of an output, it is given.
    ///
    /// Embeddings were looked up outside of the graph, into the leaf `embedded` `[N, hidden]` of tokens `ids` `[N]`: so
    /// their gradient has the size of the batch and not of the vocabulary.
    pub(crate) fn backward(
        &mut self,
        output_and_gradient: [&Tensor; 2],
        embedded: &Tensor,
        ids: &Tensor,
    ) -> Result<(), TrainError> {
        let of_embedded = self.take(output_and_gradient, embedded, |_| true)?;
        self.add_embedded(&of_embedded, ids);
        Ok(())
    }

    /// As [`Gradients::backward`], where the output's graph ends above the last of `layers`, which are differentiated one by one.
    pub(crate) fn backward_by_layer(
        &mut self,
        output_and_gradient: [&Tensor; 2],
        layers: LayerwiseBackward<'_>,
        ids: &Tensor,
    ) -> Result<(), TrainError> {
        let of_output =
            self.take(output_and_gradient, layers.output(), |name| !name.starts_with("model.layers."))?;
        let of_embedded = layers.backward::<TrainError>(of_output, |index, output_and_gradient, input| {
            let prefix = format!("model.layers.{index}.");
            self.take(output_and_gradient, input, |name| name.starts_with(&prefix))
        })?;
        self.add_embedded(&of_embedded, ids);
        Ok(())
    }

    /// Adds the gradients with respect to the weights that `is_asked` names, and returns the one with respect to `input`.
    fn take(
        &mut self,
        [output, gradient]: [&Tensor; 2],
        input: &Tensor,
        is_asked: impl Fn(&str) -> bool,
    ) -> Result<Tensor, TrainError> {
        let GradientBuffer { spans, leaves, sums, embedding, .. } = self.buffer;
        let asked: Vec<usize> = (0..spans.len()).filter(|&at| is_asked(&spans[at].name)).collect();
        let leaves: Vec<&Tensor> = asked.iter().map(|&at| &leaves[at]).collect();
        let mut sums: Vec<Tensor> = asked.iter().map(|&at| sums[at].shallow_clone()).collect();
        // Leaves that the graph does not reach, such as a head that works outside of it, have none.
        let of_input = torch_ext::gather_gradients(output, gradient, input, &leaves, &mut sums)?;
        for at in asked {
            // Of tokens' embeddings more is to come.
            if *embedding != Some(at) {
                (self.done)(&spans[at]);
            }
        }
        Ok(of_input.expect("whatever is computed begins with the input"))
    }

    fn add_embedded(&mut self, of_embedded: &Tensor, ids: &Tensor) {
        let Some(embedding) = self.buffer.embedding else { return };
        let _guard = tch::no_grad_guard();
        let span = &self.buffer.spans[embedding];
        let _ =
            self.buffer.sums[embedding].shallow_clone().index_add_(0, ids, &of_embedded.to_kind(Kind::Float));
        (self.done)(span);
    }

    /// The gradient of the LM head's weight, `[vocab, hidden]` fp32, which shares memory with the whole; none where the head
    /// is not trained.
    pub(crate) fn lm_head(&self) -> Option<Tensor> {
        self.buffer.lm_head.map(|head| self.buffer.sums[head].shallow_clone())
    }
}
