//! Norms of all families.

use tch::{Kind, Tensor};

use crate::error::PolicyError;
use crate::switches::NormKind;

#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) eps: f64,
    pub(crate) kind: NormKind,
}

impl Norm {
    /// Normalizes over the last dimension, in fp32.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, PolicyError> {
        match self.kind {
            NormKind::Rms => {
                Ok(torch_ext::rms_norm(x, &self.weight, self.eps)?.unwrap_or_else(|| self.rounded_first(x)))
            }
            NormKind::RmsRoundedLast => self.rounded_last(x, &self.weight),
            // An unrounded sum, as in transformers.
            NormKind::RmsOnePlus => self.rounded_last(x, &(self.weight.to_kind(Kind::Float) + 1.0)),
            NormKind::Layer | NormKind::LayerWithoutBias => Ok(self.layer_norm(x)),
        }
    }

    /// Root-mean-square norm, rounded before the product with the weight as in transformers' Llama.
    fn rounded_first(&self, x: &Tensor) -> Tensor {
        let width = self.weight.size();
        if x.kind() == Kind::Float {
            return x.rms_norm(width, Some(&self.weight), self.eps);
        }
        let normed = x.to_kind(Kind::Float).rms_norm(width, None::<&Tensor>, self.eps);
        normed.to_kind(x.kind()) * &self.weight
    }

    /// Root-mean-square norm, rounded once.
    fn rounded_last(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, PolicyError> {
        let wide = x.to_kind(Kind::Float);
        let weight = weight.to_kind(Kind::Float);
        let normed = torch_ext::rms_norm(&wide, &weight, self.eps)?
            .unwrap_or_else(|| wide.rms_norm(weight.size(), Some(&weight), self.eps));
        Ok(normed.to_kind(x.kind()))
    }

    fn layer_norm(&self, x: &Tensor) -> Tensor {
        let cudnn_enabled = true;
        let shape = self.weight.size();
        if shape.len() == 1 {
            return x.layer_norm(shape, Some(&self.weight), self.bias.as_ref(), self.eps, cudnn_enabled);
        }
        // One weight per head, and each head is normalized by itself.
        let width = &shape[shape.len() - 1..];
        let wide = x.to_kind(Kind::Float);
        let normed = wide.layer_norm(width, None::<&Tensor>, None::<&Tensor>, self.eps, cudnn_enabled);
        (normed * self.weight.to_kind(Kind::Float)).to_kind(x.kind())
    }
}
