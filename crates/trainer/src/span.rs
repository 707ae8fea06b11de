//! The position of a parameter in a flat buffer.

use tch::Tensor;

/// The position of one parameter in a flat buffer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) offset: i64,
    pub(crate) shape: Vec<i64>,
}

impl Span {
    /// Returns the spans of `parameters`, one after the other.
    pub(crate) fn of_all(parameters: &[(String, Tensor)]) -> Vec<Self> {
        let mut offset = 0;
        let span = |(name, tensor): &(String, Tensor)| {
            let span = Self { name: name.clone(), offset, shape: tensor.size() };
            offset += span.length();
            span
        };
        parameters.iter().map(span).collect()
    }

    /// The number of elements.
    pub(crate) fn length(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Whether weight decay applies: to matrices, but not to norms, of which some have a weight per head, and biases, as in transformers' Trainer.
    pub(crate) fn is_decayed(&self) -> bool {
        self.shape.len() > 1 && !self.name.ends_with("_norm.weight")
    }

    /// Returns a view of the parameter in `flat`, in its shape.
    pub(crate) fn view(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.offset, self.length()).view(self.shape.as_slice())
    }
}
