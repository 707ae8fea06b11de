//! Rotary position embeddings: rotate pairs of query and key dimensions by angles proportional to the position.

use std::path::Path;

use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use crate::error::PolicyError;

/// Base and scaling of the rotary angles.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Scaling of the series for contexts longer than in pretraining.
    pub scaling: RopeScaling,
}

/// Scaling of rotary frequencies after pretraining.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Divides all frequencies by `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1: divides the frequencies of long wavelengths by `factor`, keeps short ones, and interpolates between.
    Llama3 {
        /// Divisor of the slowest frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are scaled fully.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length of pretraining.
        original_max_position_embeddings: f64,
    },
}

const KNOWN_TYPES: &str = "default, linear, llama3";

impl Rope {
    /// Reads `rope_parameters`, or `rope_theta` and `rope_scaling` in files from before transformers 5.
    pub(crate) fn parse(
        raw: &Map<String, Value>,
        max_positions: usize,
        path: &Path,
    ) -> Result<Self, PolicyError> {
        let object = |key: &str| match raw.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(PolicyError::invalid_field(path, key, other, "an object or null")),
        };
        let parameters = match object("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => object("rope_scaling")?,
        };
        let number = |key: &str, default: Option<f64>| {
            let value = parameters.and_then(|p| p.get(key)).or_else(|| raw.get(key)).filter(|v| !v.is_null());
            match (value.map(|v| (v, v.as_f64())), default) {
                (Some((_, Some(number))), _) if number.is_finite() && number > 0.0 => Ok(number),
                (None, Some(default)) => Ok(default),
                (value, _) => Err(PolicyError::invalid_field(
                    path,
                    key,
                    value.map_or(&Value::Null, |v| v.0),
                    "a positive number",
                )),
            }
        };
        let kind =
            parameters.and_then(|p| p.get("rope_type").or_else(|| p.get("type"))).and_then(Value::as_str);
        let scaling = match kind.unwrap_or("default") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: number("factor", None)? },
            "llama3" => RopeScaling::Llama3 {
                factor: number("factor", None)?,
                low_freq_factor: number("low_freq_factor", None)?,
                high_freq_factor: number("high_freq_factor", None)?,
                original_max_position_embeddings: number(
                    "original_max_position_embeddings",
                    Some(max_positions as f64),
                )?,
            },
            other => {
                return Err(PolicyError::UnsupportedRope {
                    path: path.to_owned(),
                    found: other.to_owned(),
                    known: KNOWN_TYPES.to_owned(),
                });
            }
        };
        Ok(Self { theta: number("rope_theta", Some(10_000.0))?, scaling })
    }

    /// Returns radians per position for each of the `head_dim / 2` pairs of dimensions, in fp32 like transformers.
    fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|pair| self.scale(1.0 / (self.theta as f32).powf((2 * pair) as f32 / head_dim as f32)))
            .collect()
    }

    fn scale(&self, frequency: f32) -> f32 {
        match self.scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor as f32,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let wavelength = std::f64::consts::TAU as f32 / frequency;
                let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
                let (context, factor) = (original_max_position_embeddings as f32, factor as f32);
                if wavelength > context / low {
                    frequency / factor
                } else if wavelength < context / high {
                    frequency
                } else {
                    let kept = (context / wavelength - low) / (high - low);
                    (1.0 - kept) * frequency / factor + kept * frequency
                }
            }
        }
    }
}

/// The frequencies that map positions to rotations.
#[derive(Debug)]
pub(crate) struct RotaryEmbedding {
    /// `[head_dim]`: the frequencies, repeated twice.
    frequencies: Tensor,
    /// `[head_dim]`: −1 for the first half, 1 for the second.
    signs: Tensor,
    half: i64,
}

impl RotaryEmbedding {
    pub(crate) fn new(rope: &Rope, head_dim: usize, device: Device) -> Self {
        let half = rope.frequencies(head_dim);
        let signs: Vec<f32> = (0..head_dim).map(|i| if i < head_dim / 2 { -1.0 } else { 1.0 }).collect();
        Self {
            frequencies: Tensor::from_slice(&[half.as_slice(), half.as_slice()].concat()).to_device(device),
            signs: Tensor::from_slice(&signs).to_device(device),
            half: (head_dim / 2) as i64,
        }
    }

    /// Returns the rotations at `positions [N]`: angles in fp32, tables in `kind`.
    pub(crate) fn at(&self, positions: &Tensor, kind: Kind) -> Rotation {
        let angles = positions.unsqueeze(-1).unsqueeze(-1) * &self.frequencies;
        Rotation {
            cos: angles.cos().to_kind(kind),
            sin: (angles.sin() * &self.signs).to_kind(kind),
            half: self.half,
        }
    }
}

/// Cosines and signed sines `[N, 1, head_dim]`.
#[derive(Debug)]
pub(crate) struct Rotation {
    cos: Tensor,
    sin: Tensor,
    half: i64,
}

impl Rotation {
    /// Returns cosines and signed sines.
    pub(crate) fn tables(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }

    /// Rotates the heads `x [N, heads, head_dim]`.
    ///
    /// The usual form is `x·cos + [−x₂, x₁]·sin`. With the sign folded into the sines, the second term needs only the halves
    /// swapped, which is one `roll` where no kernel supports the operands.
    pub(crate) fn rotate(&self, x: &Tensor) -> Result<Tensor, PolicyError> {
        let rotated = torch_ext::rotate(x, &self.cos, &self.sin)?;
        Ok(rotated.unwrap_or_else(|| (x * &self.cos).addcmul(&x.roll(self.half, -1), &self.sin)))
    }
}
