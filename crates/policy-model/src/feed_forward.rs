//! The feed-forward block.

use tch::Tensor;

use crate::error::PolicyError;
use crate::linear::{Linear, LinearPass};
use crate::switches::Activation;

#[derive(Debug)]
pub(crate) struct FeedForward {
    pub(crate) input: Input,
    pub(crate) down: Linear,
    pub(crate) activation: Activation,
}

/// The projections of the input.
#[derive(Debug)]
pub(crate) enum Input {
    Gated {
        gate: Linear,
        up: Linear,
    },
    /// Gate and up in one projection.
    GatedFused(Linear),
    Plain(Linear),
}

impl FeedForward {
    /// Applies the block to normed states `[N, hidden]`.
    pub(crate) fn forward(&self, x: &Tensor, pass: LinearPass<'_>) -> Result<Tensor, PolicyError> {
        let inner = match &self.input {
            Input::Gated { gate, up } => {
                let gate = gate.forward(x, pass)?;
                self.gated(&gate, &up.forward(x, pass)?)?
            }
            Input::GatedFused(both) => {
                let both = both.forward(x, pass)?.chunk(2, -1);
                self.gated(&both[0], &both[1])?
            }
            Input::Plain(up) => self.activate(&up.forward(x, pass)?),
        };
        self.down.forward(&inner, pass)
    }

    /// Returns the weights of gate, up and down if a fused kernel may support them: plain, with `SiLU`.
    pub(crate) fn fusable(&self) -> Option<[&Tensor; 3]> {
        match &self.input {
            Input::Gated { gate, up } if self.activation == Activation::Silu => {
                Some([gate.plain_weight()?, up.plain_weight()?, self.down.plain_weight()?])
            }
            _ => None,
        }
    }

    /// `activation(gate) · up`, in one pass where a kernel supports it.
    fn gated(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor, PolicyError> {
        let fused = match self.activation {
            Activation::Silu => torch_ext::swiglu(gate, up)?,
            _ => None,
        };
        Ok(fused.unwrap_or_else(|| self.activate(gate) * up))
    }

    fn activate(&self, x: &Tensor) -> Tensor {
        match self.activation {
            Activation::Silu => x.silu(),
            Activation::Gelu => x.gelu("none"),
            Activation::GeluTanh => x.gelu("tanh"),
            Activation::Relu => x.relu(),
        }
    }
}
