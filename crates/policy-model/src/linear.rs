//! Linear layers: weight, bias, adapter, and the kernel of their product.

use tch::Tensor;
use torch_ext::{decode_linear, max_decode_rows};

use crate::dropout::AdapterDropout;
use crate::error::PolicyError;
use crate::lora::LowRank;
use crate::routing::Routing;

#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) low_rank: Option<LowRank>,
}

impl Linear {
    /// Returns the weight if there is neither a bias nor an adapter.
    pub(crate) fn plain_weight(&self) -> Option<&Tensor> {
        (self.bias.is_none() && self.low_rank.is_none()).then_some(&self.weight)
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: LinearPass<'_>) -> Result<Tensor, PolicyError> {
        let Some(low_rank) = &self.low_rank else {
            return pass.kernel.linear(x, &self.weight, self.bias.as_ref());
        };
        // A trained length scales the product, but not the bias.
        let bias_last = self.bias.as_ref().filter(|_| low_rank.has_magnitude());
        let bias_first = self.bias.as_ref().filter(|_| !low_rank.has_magnitude());
        let projected = pass.kernel.linear(x, &self.weight, bias_first)?;
        let updated = low_rank.add_to(projected, x, &self.weight, pass.dropout);
        Ok(match bias_last {
            Some(bias) => updated + bias,
            None => updated,
        })
    }
}

/// What the products of a pass have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearPass<'a> {
    pub(crate) kernel: LinearKernel,
    /// The dropout of the tokens of the operand; `None` outside of training.
    pub(crate) dropout: Option<&'a AdapterDropout>,
    /// The record of routers, and the layer.
    pub(crate) routing: Option<(&'a Routing, usize)>,
}

/// The kernel of products with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinearKernel {
    /// libtorch's, in training and scoring alike, so that an unchanged policy is bitwise equal to its reference.
    Libtorch,
    /// For few rows, at memory bandwidth and without a gradient; libtorch's for more rows.
    Decoding,
}

impl LinearKernel {
    /// `x · weightᵀ + bias`.
    pub(crate) fn linear(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Tensor, PolicyError> {
        if self == Self::Decoding
            && x.size()[0] <= max_decode_rows(weight.kind())
            && let Some(product) = decode_linear(x, weight)?
        {
            return Ok(match bias {
                Some(bias) => product + bias,
                None => product,
            });
        }
        Ok(x.linear(weight, bias))
    }
}
