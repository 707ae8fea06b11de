//! Policies with adapters and in other kinds, over shared weights.

use tch::{Kind, TchError, Tensor};

use crate::error::PolicyError;
use crate::layer_source::Supply;
use crate::lora::{Adapters, Lora};
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
        let shapes = lora.parameter_shapes(self.config());
        let parameters = weights::arrange(shapes, parameters, origin)?;
        let kind = parameters.first().map_or(self.kind(), |(_, first)| first.kind());
        weights::check_alike(&parameters, kind, self.device())?;
        self.share(Some(Adapters { lora, parameters }))
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

    /// Returns the weight of this name with its adapter merged.
    pub(crate) fn merged(&self, name: &str, weight: &Tensor) -> Result<Tensor, TchError> {
        let module = name.strip_suffix(".weight");
        match self.adapters().zip(module).and_then(|(adapters, module)| adapters.of(module)) {
            Some(low_rank) => low_rank.merged(weight),
            None => Ok(weight.shallow_clone()),
        }
    }
}
