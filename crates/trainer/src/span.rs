//! The position of a parameter in a flat buffer.

use policy_model::layer_of;
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
        Self::of_shapes(parameters.iter().map(|(name, tensor)| (name.clone(), tensor.size())))
    }

    /// Returns the spans of parameters of these shapes, one after the other.
    pub(crate) fn of_shapes(shapes: impl IntoIterator<Item = (String, Vec<i64>)>) -> Vec<Self> {
        let mut offset = 0;
        let span = |(name, shape)| {
            let span = Self { name, offset, shape };
            offset += span.length();
            span
        };
        shapes.into_iter().map(span).collect()
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

/// The parts of a flat buffer that are exchanged on their own: each layer, and the weights before and after the layers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Regions {
    pub(crate) lengths: Vec<i64>,
    /// The layer of each region.
    pub(crate) layers: Vec<Option<usize>>,
}

impl Regions {
    /// Divides consecutive spans by layer.
    pub(crate) fn of(spans: &[Span]) -> Self {
        let (mut lengths, mut layers): (Vec<i64>, Vec<Option<usize>>) = Default::default();
        for span in spans {
            let layer = layer_of(&span.name);
            match lengths.last_mut().filter(|_| layers.last() == Some(&layer)) {
                Some(length) => *length += span.length(),
                None => {
                    lengths.push(span.length());
                    layers.push(layer);
                }
            }
        }
        Self { lengths, layers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_layers_and_what_surrounds_them() {
        let shapes = [
            ("model.embed_tokens.weight", 6),
            ("model.layers.0.a.weight", 2),
            ("model.layers.0.b.weight", 3),
            ("model.layers.1.a.weight", 2),
            ("model.norm.weight", 1),
            ("lm_head.weight", 6),
        ];
        let spans = Span::of_shapes(shapes.map(|(name, length)| (name.to_owned(), vec![length])));
        let regions = Regions::of(&spans);
        assert_eq!(regions.lengths, [6, 5, 2, 7]);
        assert_eq!(regions.layers, [None, Some(0), Some(1), None]);
        assert_eq!(Regions::of(&spans[1..4]).layers, [Some(0), Some(1)]);
    }
}
