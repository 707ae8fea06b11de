//! Low-rank adapters: a small trained update beside weights that stay as they are.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use seeds::Seeds;
use tch::{Device, Kind, TchError, Tensor};

use crate::{ModelConfig, Policy, PolicyError, weights};

/// What low-rank adapters look like (Hu et al. 2021, arXiv 2106.09685): a projection `W` becomes `W + alpha / rank · B·A`,
/// with `A` `[rank, in]` and `B` `[out, rank]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// The update's scale is `alpha / rank`.
    pub alpha: f64,
    /// Which projections have adapters, in every layer.
    pub targets: Vec<Projection>,
}

/// A linear layer of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// `self_attn.q_proj`
    Q,
    /// `self_attn.k_proj`
    K,
    /// `self_attn.v_proj`
    V,
    /// `self_attn.o_proj`
    O,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

/// The adapters of a policy, which [`Policy::with_adapters`] takes over.
#[derive(Debug)]
pub struct Adapters {
    lora: Lora,
    parameters: Vec<(String, Tensor)>,
}

/// The update of one weight.
#[derive(Debug)]
pub(crate) struct LowRank {
    a: Tensor,
    b: Tensor,
    scale: f64,
}

const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

impl Projection {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Its name in a checkpoint, as `q_proj`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Projection {
    type Err = String;

    /// # Errors
    /// What is no projection's name, with the names that there are.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|projection| projection.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{name} is no projection of these models; there are {names}")
        })
    }
}

impl Lora {
    /// Names and shapes of the adapters' parameters in a model of this shape: of each target in the order of the forward
    /// pass `A`, then `B`, as in `model.layers.0.self_attn.q_proj.lora_A.weight`.
    pub fn parameter_shapes(&self, config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
        let rank = self.rank as i64;
        let mut shapes = Vec::new();
        for (name, shape) in config.parameter_shapes() {
            let Some(module) = name.strip_suffix(".weight") else { continue };
            let projection = module.rsplit('.').next().unwrap_or_default();
            if self.targets.iter().any(|target| target.name() == projection) {
                shapes.push((format!("{module}{A}"), vec![rank, shape[1]]));
                shapes.push((format!("{module}{B}"), vec![shape[0], rank]));
            }
        }
        shapes
    }

    /// Number of trained values in a model of this shape.
    pub fn parameter_count(&self, config: &ModelConfig) -> u64 {
        self.parameter_shapes(config).iter().map(|(_, shape)| shape.iter().product::<i64>() as u64).sum()
    }

    /// Fresh adapters in fp32: `A` uniform in ±1/√in as peft draws it, `B` zero, so that nothing has changed yet. Each
    /// matrix draws from the stream that is named after it.
    pub fn initialise(&self, config: &ModelConfig, seeds: &Seeds, device: Device) -> Vec<(String, Tensor)> {
        let fresh = |(name, shape): (String, Vec<i64>)| {
            let mut values = vec![0.0; shape.iter().product::<i64>() as usize];
            if name.ends_with(A) {
                let (bound, mut stream) = ((shape[1] as f64).sqrt().recip(), seeds.stream(&name));
                values.fill_with(|| (bound * (2.0 * stream.random::<f64>() - 1.0)) as f32);
            }
            (name, Tensor::from_slice(&values).view(shape.as_slice()).to_device(device))
        };
        self.parameter_shapes(config).into_iter().map(fresh).collect()
    }
}

impl Adapters {
    /// What they look like.
    pub fn lora(&self) -> &Lora {
        &self.lora
    }

    /// Their parameters by name, in the order of [`Lora::parameter_shapes`].
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The update of the weight of `module`, as `model.layers.0.self_attn.q_proj`.
    pub(crate) fn of(&self, module: &str) -> Option<LowRank> {
        let find = |matrix: &str| {
            let is_it = |name: &str| name.strip_prefix(module) == Some(matrix);
            self.parameters.iter().find(|(name, _)| is_it(name)).map(|(_, tensor)| tensor.shallow_clone())
        };
        Some(LowRank { a: find(A)?, b: find(B)?, scale: self.lora.alpha / self.lora.rank as f64 })
    }

    fn share(&self) -> Self {
        let parameters = self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        Self { lora: self.lora.clone(), parameters: parameters.collect() }
    }
}

impl LowRank {
    /// What the update adds to the projection of `x` `[N, in]`: `[N, out]`, computed in the adapters' kind.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let narrow = x.to_kind(self.a.kind()).linear(&self.a, None::<&Tensor>) * self.scale;
        narrow.linear(&self.b, None::<&Tensor>).to_kind(x.kind())
    }

    /// `weight` `[out, in]` with the update in it, in fp32.
    fn merged(&self, weight: &Tensor) -> Result<Tensor, TchError> {
        let [a, b] = [&self.a, &self.b].map(|matrix| matrix.f_detach()?.f_to_kind(Kind::Float));
        weight.f_detach()?.f_to_kind(Kind::Float)?.f_add(&(b?.f_matmul(&a?)? * self.scale))
    }
}

impl Policy {
    /// This policy with adapters over its weights, which it shares: `parameters` are the ones that the forward pass reads
    /// and that gradients flow to. Adapters that it had are left out.
    ///
    /// The adapters may be of another kind than the weights. Their part is then computed in theirs.
    ///
    /// # Errors
    /// A parameter is missing, unknown or of the wrong shape; they differ in kind, or lie elsewhere than the weights.
    pub fn with_adapters(&self, lora: Lora, parameters: Vec<(String, Tensor)>) -> Result<Self, PolicyError> {
        self.adapted(lora, parameters, "given adapters")
    }

    pub(crate) fn adapted(
        &self,
        lora: Lora,
        parameters: Vec<(String, Tensor)>,
        origin: &str,
    ) -> Result<Self, PolicyError> {
        let shapes = lora.parameter_shapes(self.config());
        let parameters = weights::arrange(shapes, parameters, origin)?;
        let kind = parameters.first().map_or(self.kind(), |(_, first)| first.kind());
        weights::check_alike(&parameters, kind, self.device())?;
        self.share(Some(Adapters { lora, parameters }))
    }

    /// This policy with its adapters off, over the same weights.
    ///
    /// # Errors
    /// None that a policy with adapters could still meet.
    pub fn without_adapters(&self) -> Result<Self, PolicyError> {
        self.share(None)
    }

    /// This policy in `kind`, which shares the weights where they are of that kind already.
    ///
    /// # Errors
    /// `kind` is no kind of weights, or libtorch has no memory for them.
    pub fn to_kind(&self, kind: Kind) -> Result<Self, PolicyError> {
        weights::check_kind(kind)?;
        let convert = |(name, tensor): &(String, Tensor)| {
            let converted =
                tensor.f_to_kind(kind).map_err(PolicyError::torch(format!("convert `{name}`")))?;
            Ok((name.clone(), converted))
        };
        let parameters = self.parameters().iter().map(convert).collect::<Result<_, _>>()?;
        Self::build(self.config().clone(), parameters, self.adapters().map(Adapters::share), "this policy")
    }

    fn share(&self, adapters: Option<Adapters>) -> Result<Self, PolicyError> {
        let parameters =
            self.parameters().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        Self::build(self.config().clone(), parameters.collect(), adapters, "this policy")
    }

    /// The weight of this name with its adapter's update in it.
    pub(crate) fn merged(&self, name: &str, weight: &Tensor) -> Result<Tensor, TchError> {
        let module = name.strip_suffix(".weight");
        match self.adapters().zip(module).and_then(|(adapters, module)| adapters.of(module)) {
            Some(low_rank) => low_rank.merged(weight),
            None => Ok(weight.shallow_clone()),
        }
    }
}
