//! Low-rank adapters: a small trained update of frozen weights.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use seeds::Seeds;
use tch::{Device, Kind, TchError, Tensor};

use crate::config::ModelConfig;

/// The configuration of low-rank adapters ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)): a projection `W` becomes `W + alpha / rank · B·A`,
/// with `A` `[rank, in]` and `B` `[out, rank]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// The update's scale is `alpha / rank`.
    pub alpha: f64,
    /// The projections with adapters, in every layer.
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

/// The adapters of a policy, set by [`Policy::with_adapters`](crate::Policy::with_adapters).
#[derive(Debug)]
pub struct Adapters {
    pub(crate) lora: Lora,
    pub(crate) parameters: Vec<(String, Tensor)>,
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
    /// All projections, in the order of the forward pass.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Returns its name in a checkpoint, such as `q_proj`.
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
    /// An unknown name; the message lists the known ones.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|projection| projection.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{name} is unknown; known projections: {names}")
        })
    }
}

impl Lora {
    /// Returns the names and shapes of the adapters' parameters for a model: for each target, in the order of the forward pass,
    /// `A`, then `B`, such as `model.layers.0.self_attn.q_proj.lora_A.weight`.
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

    /// Returns the number of trained parameters for a model.
    pub fn parameter_count(&self, config: &ModelConfig) -> u64 {
        self.parameter_shapes(config).iter().map(|(_, shape)| shape.iter().product::<i64>() as u64).sum()
    }

    /// Returns initial adapters in fp32: `A` uniform in ±1/√in as in peft, `B` zero, so that the policy is unchanged. Each matrix
    /// draws from the stream of its name.
    pub fn initialize(&self, config: &ModelConfig, seeds: &Seeds, device: Device) -> Vec<(String, Tensor)> {
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
    /// Returns the configuration.
    pub fn lora(&self) -> &Lora {
        &self.lora
    }

    /// Returns the parameters with their names, in the order of [`Lora::parameter_shapes`].
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Returns the update of the weight of `module`, such as `model.layers.0.self_attn.q_proj`.
    pub(crate) fn of(&self, module: &str) -> Option<LowRank> {
        let find = |matrix: &str| {
            let is_it = |name: &str| name.strip_prefix(module) == Some(matrix);
            self.parameters.iter().find(|(name, _)| is_it(name)).map(|(_, tensor)| tensor.shallow_clone())
        };
        Some(LowRank { a: find(A)?, b: find(B)?, scale: self.lora.alpha / self.lora.rank as f64 })
    }

    pub(crate) fn share(&self) -> Self {
        let parameters = self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        Self { lora: self.lora.clone(), parameters: parameters.collect() }
    }
}

impl LowRank {
    /// Applies the update to `x` `[N, in]`, in the adapters' kind: `[N, out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let projected = x.to_kind(self.a.kind()).linear(&self.a, None::<&Tensor>) * self.scale;
        projected.linear(&self.b, None::<&Tensor>).to_kind(x.kind())
    }

    /// Returns `weight` `[out, in]` with the update merged, in fp32.
    pub(crate) fn merged(&self, weight: &Tensor) -> Result<Tensor, TchError> {
        let [a, b] = [&self.a, &self.b].map(|matrix| matrix.f_detach()?.f_to_kind(Kind::Float));
        weight.f_detach()?.f_to_kind(Kind::Float)?.f_add(&(b?.f_matmul(&a?)? * self.scale))
    }
}
