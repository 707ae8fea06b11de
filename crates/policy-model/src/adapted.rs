//! Policies with adapters and in other kinds, over shared weights.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use seeds::Seeds;
use tch::{Kind, TchError, Tensor};

use crate::error::PolicyError;
use crate::layer_source::Supply;
use crate::lora::{self, Adapters, Lora};
use crate::policy::Policy;
use crate::weights;

impl Policy {
    /// Returns a policy with these adapters over the shared weights, instead of earlier adapters. The forward pass reads
    /// `parameters`, and gradients flow to them.
    ///
    /// The adapters may have another kind than the weights, in which their part is computed.
    ///
    /// # Errors
    /// A parameter is missing, unknown or of the wrong shape, or they differ in kind or from the device of the weights.
    pub fn with_adapters(&self, lora: Lora, parameters: Vec<(String, Tensor)>) -> Result<Self, PolicyError> {
        self.adapted(lora, parameters, "given adapters")
    }

    pub(crate) fn adapted(
        &self,
        lora: Lora,
        parameters: Vec<(String, Tensor)>,
        origin: &str,
    ) -> Result<Self, PolicyError> {
        lora.fits(self.config())?;
        let shapes = lora.parameter_shapes(self.config());
        let parameters = weights::arrange(shapes, parameters, origin)?;
        let kind = parameters.first().map_or(self.kind(), |(_, first)| first.kind());
        weights::check_alike(&parameters, kind, self.device())?;
        self.share(Some(Adapters { lora, parameters }))
    }

    /// Returns initial adapters in fp32: `A` uniform in ±1/√in as in peft and `B` zero, lengths of rows and modules that are trained
    /// in full as they are, so that the policy is unchanged. Each `A` draws from the stream of its name.
    ///
    /// # Errors
    /// The model lacks a target or a module.
    pub fn initial_adapters(&self, lora: &Lora, seeds: &Seeds) -> Result<Vec<(String, Tensor)>, PolicyError> {
        lora.fits(self.config())?;
        let shapes = lora.parameter_shapes(self.config());
        let given = self.weights_of(&shapes)?;
        let weight = |name: &str| given[name].detach().to_kind(Kind::Float);
        let fresh = |(name, shape): (String, Vec<i64>)| {
            let mut values = vec![0.0; shape.iter().product::<i64>() as usize];
            if name.ends_with(lora::A) {
                let (bound, mut stream) = ((shape[1] as f64).sqrt().recip(), seeds.stream(&name));
                values.fill_with(|| (bound * (2.0 * stream.random::<f64>() - 1.0)) as f32);
            } else if let Some(module) = name.strip_suffix(lora::MAGNITUDE) {
                let lengths = weight(&format!("{module}.weight")).norm_scalaropt_dim(2.0, [1], false);
                return (name, lengths);
            } else if !name.ends_with(lora::B) {
                let copied = weight(&name).copy();
                return (name, copied);
            }
            (name, Tensor::from_slice(&values).view(shape.as_slice()).to_device(self.device()))
        };
        Ok(shapes.into_iter().map(fresh).collect())
    }

    /// Returns the weights from which adapters of these names start.
    fn weights_of(&self, adapters: &[(String, Vec<i64>)]) -> Result<BTreeMap<String, Tensor>, PolicyError> {
        let drawn = |name: &str| name.ends_with(lora::A) || name.ends_with(lora::B);
        let wanted: BTreeSet<String> = adapters
            .iter()
            .filter(|(name, _)| !drawn(name))
            .map(|(name, _)| match name.strip_suffix(lora::MAGNITUDE) {
                Some(module) => format!("{module}.weight"),
                None => name.clone(),
            })
            .collect();
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        self.for_each_parameter(|name, weight| {
            if wanted.contains(name) {
                found.insert(name.to_owned(), weight.shallow_clone());
            }
            Ok::<_, PolicyError>(())
        })?;
        Ok(found)
    }

    /// Returns this policy without adapters, over the shared weights.
    ///
    /// # Errors
    /// None for a policy that has adapters.
    pub fn without_adapters(&self) -> Result<Self, PolicyError> {
        self.share(None)
    }

    /// Returns this policy in `kind`. Weights that already have this kind are shared.
    ///
    /// # Errors
    /// `kind` is not a kind of weights, or memory is exhausted.
    pub fn to_kind(&self, kind: Kind) -> Result<Self, PolicyError> {
        weights::check_kind(kind)?;
        let convert = |(name, tensor): &(String, Tensor)| {
            let converted =
                tensor.f_to_kind(kind).map_err(PolicyError::torch(format!("convert `{name}`")))?;
            Ok((name.clone(), converted))
        };
        let parameters = self.parameters().iter().map(convert).collect::<Result<_, PolicyError>>()?;
        let supply = self.supply().map(|supply| Supply { kind, ..supply.clone() });
        let adapters = self.adapters().map(Adapters::share);
        Self::assemble(self.config().clone(), parameters, adapters, supply, "this policy")
    }

    fn share(&self, adapters: Option<Adapters>) -> Result<Self, PolicyError> {
        let parameters =
            self.parameters().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        let (config, supply) = (self.config().clone(), self.supply().cloned());
        Self::assemble(config, parameters.collect(), adapters, supply, "this policy")
    }

    /// Returns this policy with its adapters merged into weights of its kind.
    pub(crate) fn merge(&self) -> Result<Self, PolicyError> {
        let merged = |(name, weight): &(String, Tensor)| {
            let merged = self.merged(name, weight).and_then(|merged| merged.f_to_kind(self.kind()));
            Ok((name.clone(), merged.map_err(PolicyError::torch(format!("merge `{name}`")))?))
        };
        let parameters = self.parameters().iter().map(merged).collect::<Result<_, PolicyError>>()?;
        Self::build(self.config().clone(), parameters, None, "merged adapters")
    }

    /// Returns the weight of this name with its adapter merged.
    pub(crate) fn merged(&self, name: &str, weight: &Tensor) -> Result<Tensor, TchError> {
        if let Some(own) = self.adapters().and_then(|adapters| adapters.replaced(name)) {
            return own.f_detach();
        }
        let module = name.strip_suffix(".weight");
        match self.adapters().zip(module).and_then(|(adapters, module)| adapters.of(module)) {
            Some(low_rank) => low_rank.merged(weight),
            None => Ok(weight.shallow_clone()),
        }
    }
}
