//! Low-rank adapters: a small trained update of frozen weights.

use tch::{Kind, TchError, Tensor};

use crate::config::ModelConfig;
use crate::dropout::{AdapterDropout, ModuleDropout};
use crate::error::PolicyError;
use crate::targets::{Pattern, Targets, is_end};

/// The configuration of low-rank adapters ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)): a projection `W` becomes
/// `W + scale · B·A`, with `A` `[rank, in]` and `B` `[out, rank]`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Lora {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Modules with another rank; the first match counts.
    pub rank_pattern: Vec<(Pattern, usize)>,
    /// Modules with another numerator of the scale; the first match counts.
    pub alpha_pattern: Vec<(Pattern, f64)>,
    /// The probability with which an element of an adapter's input is dropped in training, in [0, 1).
    pub dropout: f64,
    /// The projections with adapters.
    pub targets: Targets,
    /// The denominator of the scale.
    pub scaling: Scaling,
    /// Whether each row of an adapted weight has a trained length (`DoRA`,
    /// [Liu et al. 2024](https://arxiv.org/abs/2402.09353)).
    pub use_dora: bool,
    /// Modules that are trained in full instead, such as `lm_head` and `embed_tokens`, by the end of their name.
    pub modules_to_save: Vec<String>,
}

/// The scale of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scaling {
    /// `alpha / rank`
    #[default]
    Rank,
    /// `alpha / √rank` (rank-stabilized, [Kalajdzievski 2023](https://arxiv.org/abs/2312.03732)).
    RootRank,
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
    dropout: Option<ModuleDropout>,
    /// `[out]`: the lengths of the weight's rows, if they are trained.
    magnitude: Option<Tensor>,
}

pub(crate) const A: &str = ".lora_A.weight";
pub(crate) const B: &str = ".lora_B.weight";
pub(crate) const MAGNITUDE: &str = ".lora_magnitude_vector";

impl Lora {
    /// Creates adapters of the targets with the scale `alpha / rank`, and nothing else.
    pub fn new(rank: usize, alpha: f64, targets: Targets) -> Self {
        Self {
            rank,
            alpha,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            dropout: 0.0,
            targets,
            scaling: Scaling::Rank,
            use_dora: false,
            modules_to_save: Vec::new(),
        }
    }

    /// Returns the rank of the adapter of `module`, such as `model.layers.0.self_attn.q_proj`.
    pub fn rank_of(&self, module: &str) -> usize {
        first_match(&self.rank_pattern, module).unwrap_or(self.rank)
    }

    /// Returns the scale of the update of `module`.
    pub fn scale_of(&self, module: &str) -> f64 {
        let rank = self.rank_of(module) as f64;
        let alpha = first_match(&self.alpha_pattern, module).unwrap_or(self.alpha);
        match self.scaling {
            Scaling::Rank => alpha / rank,
            Scaling::RootRank => alpha / rank.sqrt(),
        }
    }

    /// Checks that each pattern of ranks and scales matches a target, and that no target matches two of different values.
    ///
    /// Folders of peft need not pass this: there the first match counts.
    ///
    /// # Errors
    /// [`PolicyError::BadAdapters`].
    pub fn check_patterns(&self, config: &ModelConfig) -> Result<(), PolicyError> {
        let targets = self.targets.modules(config);
        check_patterns("rank_pattern", &self.rank_pattern, &targets)
            .and_then(|()| check_patterns("alpha_pattern", &self.alpha_pattern, &targets))
            .map_err(|problem| PolicyError::BadAdapters { problem })
    }

    /// Checks that the model has each of the targets and modules.
    ///
    /// # Errors
    /// What is wrong, with the names that the model has.
    pub fn check(&self, config: &ModelConfig) -> Result<(), String> {
        self.targets.check(config)?;
        for name in &self.modules_to_save {
            let is_table = ["lm_head", "embed_tokens", "model.embed_tokens"].contains(&name.as_str());
            if is_table && config.tie_word_embeddings {
                return Err(format!(
                    "`{name}` is tied to the other table, and cannot be trained beside adapters"
                ));
            }
            let shapes = config.parameter_shapes();
            let mut modules = shapes.iter().filter_map(|(parameter, _)| parameter.rsplit_once('.'));
            if !modules.any(|(module, _)| is_end(module, name)) {
                return Err(format!("the model has no module `{name}`"));
            }
            let mut modules = shapes.iter().filter_map(|(parameter, _)| parameter.rsplit_once('.'));
            let is_expert = |module: &str| module.ends_with(".gate") || module.contains(".experts.");
            if modules.any(|(module, _)| is_end(module, name) && is_expert(module)) {
                return Err(format!(
                    "`{name}` is part of a mixture of experts, which cannot be trained beside adapters"
                ));
            }
            if self.targets.modules(config).iter().any(|module| is_end(module, name)) {
                return Err(format!("`{name}` is a target of adapters and a module that is trained in full"));
            }
        }
        Ok(())
    }

    /// Checks that the model has each of the targets and modules.
    ///
    /// # Errors
    /// [`PolicyError::BadAdapters`].
    pub fn fits(&self, config: &ModelConfig) -> Result<(), PolicyError> {
        self.check(config).map_err(|problem| PolicyError::BadAdapters { problem })
    }

    /// Returns the names and shapes of the adapters' parameters for a model: for each target, in the order of the forward pass,
    /// `A`, then `B`, such as `model.layers.0.self_attn.q_proj.lora_A.weight`, then the magnitude; each parameter of a module
    /// that is trained in full under its own name.
    pub fn parameter_shapes(&self, config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
        let targets = self.targets.modules(config);
        let mut shapes = Vec::new();
        for (name, shape) in config.parameter_shapes() {
            let Some((module, kind)) = name.rsplit_once('.') else { continue };
            if kind == "weight" && targets.iter().any(|target| target == module) {
                let rank = self.rank_of(module) as i64;
                shapes.push((format!("{module}{A}"), vec![rank, shape[1]]));
                shapes.push((format!("{module}{B}"), vec![shape[0], rank]));
                if self.use_dora {
                    shapes.push((format!("{module}{MAGNITUDE}"), vec![shape[0]]));
                }
            } else if self.modules_to_save.iter().any(|saved| is_end(module, saved)) {
                shapes.push((name, shape));
            }
        }
        shapes
    }

    /// Returns the number of trained parameters for a model.
    pub fn parameter_count(&self, config: &ModelConfig) -> u64 {
        self.parameter_shapes(config).iter().map(|(_, shape)| shape.iter().product::<i64>() as u64).sum()
    }

    /// Returns the sum of the widths of all adapters' inputs.
    pub fn input_width(&self, config: &ModelConfig) -> u64 {
        let shapes = self.parameter_shapes(config);
        shapes.iter().filter(|(name, _)| name.ends_with(A)).map(|(_, shape)| shape[1] as u64).sum()
    }

    /// Whether a projection of these names has adapters, such as `q_proj`.
    pub fn adapts(&self, config: &ModelConfig, names: &[&str]) -> bool {
        self.targets.modules(config).iter().any(|module| names.iter().any(|name| is_end(module, name)))
    }
}

fn first_match<T: Copy>(pattern: &[(Pattern, T)], module: &str) -> Option<T> {
    pattern.iter().find(|(pattern, _)| pattern.matches(module)).map(|(_, value)| *value)
}

fn check_patterns<T: PartialEq>(key: &str, all: &[(Pattern, T)], targets: &[String]) -> Result<(), String> {
    for (pattern, _) in all {
        if !targets.iter().any(|target| pattern.matches(target)) {
            return Err(format!("{key}: no target of adapters matches \"{pattern}\""));
        }
    }
    for target in targets {
        let mut matching = all.iter().filter(|(pattern, _)| pattern.matches(target));
        let Some((first, value)) = matching.next() else { continue };
        if let Some((other, _)) = matching.find(|(_, other)| other != value) {
            return Err(format!("{key}: `{target}` matches both \"{first}\" and \"{other}\""));
        }
    }
    Ok(())
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
        let find = |part: &str| {
            let is_it = |name: &str| name.strip_prefix(module) == Some(part);
            self.parameters.iter().find(|(name, _)| is_it(name)).map(|(_, tensor)| tensor.shallow_clone())
        };
        Some(LowRank {
            a: find(A)?,
            b: find(B)?,
            scale: self.lora.scale_of(module),
            dropout: ModuleDropout::new(module, self.lora.dropout),
            magnitude: find(MAGNITUDE),
        })
    }

    /// Returns the parameter that is trained in full in place of the one of this name.
    pub(crate) fn replaced(&self, name: &str) -> Option<&Tensor> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, tensor)| tensor)
    }

    pub(crate) fn share(&self) -> Self {
        let parameters = self.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        Self { lora: self.lora.clone(), parameters: parameters.collect() }
    }
}

impl LowRank {
    pub(crate) fn has_magnitude(&self) -> bool {
        self.magnitude.is_some()
    }

    /// Returns `x · weightᵀ` `[N, out]` with the update: `x` `[N, in]`, `weight` `[out, in]`, `projected` the product without it.
    ///
    /// Dropout applies to the input of the update. With trained lengths it also applies where they change the product, as in
    /// peft.
    pub(crate) fn add_to(
        &self,
        projected: Tensor,
        x: &Tensor,
        weight: &Tensor,
        dropout: Option<&AdapterDropout>,
    ) -> Tensor {
        let Some((own, tokens)) = self.dropout.zip(dropout) else {
            let updated = projected + self.forward(x);
            return match &self.magnitude {
                None => updated,
                Some(magnitude) => updated * self.ratio(magnitude, weight).to_kind(x.kind()),
            };
        };
        let dropped = x * own.mask(tokens, x);
        match &self.magnitude {
            None => projected + self.forward(&dropped),
            Some(magnitude) => {
                let ratio = self.ratio(magnitude, weight).to_kind(x.kind());
                let product = dropped.linear(weight, None::<&Tensor>);
                projected + product * (&ratio - 1.0) + self.forward(&dropped) * ratio
            }
        }
    }

    /// Applies the update to `x` `[N, in]`, in the adapters' kind: `[N, out]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let projected = x.to_kind(self.a.kind()).linear(&self.a, None::<&Tensor>) * self.scale;
        projected.linear(&self.b, None::<&Tensor>).to_kind(x.kind())
    }

    /// Returns the trained lengths relative to those of the updated weight's rows, `[out]`. The latter are constants for the
    /// gradient, as in section 4.3 of the paper.
    fn ratio(&self, magnitude: &Tensor, weight: &Tensor) -> Tensor {
        let lengths = tch::no_grad(|| {
            let update = self.b.to_kind(Kind::Float).matmul(&self.a.to_kind(Kind::Float)) * self.scale;
            let lengths = (weight.to_kind(Kind::Float) + update).norm_scalaropt_dim(2.0, [1], false);
            // Rounded as the trained lengths are, which start as these: the ratio then starts as 1.
            lengths.to_kind(magnitude.kind()).to_kind(Kind::Float)
        });
        magnitude.to_kind(Kind::Float) / lengths
    }

    /// Returns `weight` `[out, in]` with the update merged, in fp32.
    pub(crate) fn merged(&self, weight: &Tensor) -> Result<Tensor, TchError> {
        let [a, b] = [&self.a, &self.b].map(|matrix| matrix.f_detach()?.f_to_kind(Kind::Float));
        let merged = weight.f_detach()?.f_to_kind(Kind::Float)?.f_add(&(b?.f_matmul(&a?)? * self.scale))?;
        match &self.magnitude {
            None => Ok(merged),
            Some(magnitude) => merged.f_mul(&self.ratio(&magnitude.f_detach()?, weight).f_unsqueeze(-1)?),
        }
    }
}
