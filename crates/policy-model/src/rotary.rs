//! Rotary position embeddings: rotate pairs of query and key dimensions by angles proportional to the position.

use std::f64::consts::TAU;

use tch::{Device, Kind, Tensor};

use crate::error::PolicyError;
use crate::rope::{Rope, RopeScaling};

/// The frequencies that map positions to rotations.
#[derive(Debug)]
pub(crate) struct RotaryEmbedding {
    frequencies: Frequencies,
    /// `[rotary_dim]`: −1 for the first element of each pair, 1 for the second.
    signs: Tensor,
    pairs: Pairs,
    /// Factor of cosines and sines.
    attention_factor: f64,
}

/// `[rotary_dim]` frequencies, the same for both elements of a pair.
#[derive(Debug)]
enum Frequencies {
    Fixed(Tensor),
    /// Those of short rows, and of rows longer than `context`.
    ByLength {
        short: Tensor,
        long: Tensor,
        context: f64,
    },
    /// Of a base that grows with the length of a row beyond `context`.
    Dynamic {
        theta: f64,
        factor: f64,
        context: f64,
        exponents: Tensor,
    },
}

/// Which dimensions of a head are rotated with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pairs {
    /// The two halves of the head.
    Halves,
    /// The two halves of the first dimensions; the others are kept.
    PartialHalves { rotary_dim: i64, rest: i64 },
    /// Neighbors.
    Interleaved,
}

impl Rope {
    /// Returns radians per position for each pair of dimensions, in fp32 like transformers. Those of `RopeScaling::LongRope` are
    /// divided by `divisors`.
    fn frequencies(&self, divisors: Option<&[f32]>) -> Vec<f32> {
        let pairs = self.rotary_dim / 2;
        let plain = |pair: usize| (self.theta as f32).powf((2 * pair) as f32 / self.rotary_dim as f32);
        let one = |pair: usize| match divisors {
            Some(divisors) => 1.0 / (divisors[pair] * plain(pair)),
            None => self.scale(1.0 / plain(pair), pair),
        };
        (0..pairs).map(one).collect()
    }

    fn scale(&self, frequency: f32, pair: usize) -> f32 {
        match &self.scaling {
            RopeScaling::Linear { factor } => frequency / *factor as f32,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let wavelength = TAU as f32 / frequency;
                let (low, high) = (*low_freq_factor as f32, *high_freq_factor as f32);
                let (context, factor) = (*original_max_position_embeddings as f32, *factor as f32);
                if wavelength > context / low {
                    frequency / factor
                } else if wavelength < context / high {
                    frequency
                } else {
                    let kept = (context / wavelength - low) / (high - low);
                    (1.0 - kept) * frequency / factor + kept * frequency
                }
            }
            RopeScaling::Yarn { factor, .. } => {
                let kept = 1.0 - self.yarn_ramp(pair);
                frequency / *factor as f32 * (1.0 - kept) + frequency * kept
            }
            RopeScaling::None | RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. } => frequency,
        }
    }

    /// Returns how far the frequency of `pair` is divided: 0 for fast ones, 1 for slow ones.
    fn yarn_ramp(&self, pair: usize) -> f32 {
        let RopeScaling::Yarn {
            beta_fast,
            beta_slow,
            original_max_position_embeddings: context,
            truncate,
            ..
        } = self.scaling
        else {
            return 0.0;
        };
        let dim = self.rotary_dim as f64;
        let of_rotations =
            |rotations: f64| dim * (context / (rotations * TAU)).ln() / (2.0 * self.theta.ln());
        let (low, high) = (of_rotations(beta_fast), of_rotations(beta_slow));
        let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // Equal bounds would divide by zero.
        let high = if low == high { high + 0.001 } else { high };
        ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0)
    }
}

impl RotaryEmbedding {
    pub(crate) fn new(rope: &Rope, head_dim: usize, device: Device) -> Self {
        let both = |half: &[f32]| {
            let both: Vec<f32> = match rope.interleaved {
                true => half.iter().flat_map(|&x| [x, x]).collect(),
                false => [half, half].concat(),
            };
            Tensor::from_slice(&both).to_device(device)
        };
        let mut attention_factor = 1.0;
        let frequencies = match &rope.scaling {
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings: context,
                attention_factor: factor,
            } => {
                attention_factor = *factor;
                let [short, long] = [short_factor, long_factor].map(|by| both(&rope.frequencies(Some(by))));
                Frequencies::ByLength { short, long, context: *context }
            }
            RopeScaling::Dynamic { factor, max_position_embeddings } => {
                let exponents: Vec<f32> =
                    (0..rope.rotary_dim / 2).map(|pair| (2 * pair) as f32 / rope.rotary_dim as f32).collect();
                let (theta, factor, context) = (rope.theta, *factor, *max_position_embeddings);
                Frequencies::Dynamic { theta, factor, context, exponents: both(&exponents) }
            }
            scaling => {
                if let RopeScaling::Yarn { attention_factor: factor, .. } = scaling {
                    attention_factor = *factor;
                }
                Frequencies::Fixed(both(&rope.frequencies(None)))
            }
        };
        let dim = rope.rotary_dim;
        let is_first = |i: usize| if rope.interleaved { i.is_multiple_of(2) } else { i < dim / 2 };
        let signs: Vec<f32> = (0..dim).map(|i| if is_first(i) { -1.0 } else { 1.0 }).collect();
        let pairs = match (rope.interleaved, head_dim - dim) {
            (true, _) => Pairs::Interleaved,
            (false, 0) => Pairs::Halves,
            (false, rest) => Pairs::PartialHalves { rotary_dim: dim as i64, rest: rest as i64 },
        };
        Self { frequencies, signs: Tensor::from_slice(&signs).to_device(device), pairs, attention_factor }
    }

    /// Returns the rotations at `positions [N]`: angles in fp32, tables in `kind`. Positions are those of rows one after the other,
    /// each from 0 on, or with `is_decoding` of one new token per row.
    pub(crate) fn at(&self, positions: &Tensor, kind: Kind, is_decoding: bool) -> Rotation {
        let by_token = |x: &Tensor| x.unsqueeze(-1).unsqueeze(-1);
        let angles = match &self.frequencies {
            Frequencies::Fixed(frequencies) => by_token(positions) * frequencies,
            Frequencies::ByLength { short, long, context } => {
                let is_long = by_token(&row_lengths(positions, is_decoding)).gt(*context);
                by_token(positions) * long.where_self(&is_long, short)
            }
            Frequencies::Dynamic { theta, factor, context, exponents } => {
                let lengths = row_lengths(positions, is_decoding).to_kind(Kind::Float).clamp_min(*context);
                let dim = exponents.size()[0] as f64;
                let grown: Tensor = lengths * *factor / *context - (*factor - 1.0);
                let bases = grown.pow_tensor_scalar(dim / (dim - 2.0)) * *theta;
                by_token(positions) * by_token(&bases).pow(exponents).reciprocal()
            }
        };
        let (mut cos, mut sin) = (angles.cos(), angles.sin() * &self.signs);
        if self.attention_factor != 1.0 {
            (cos, sin) = (cos * self.attention_factor, sin * self.attention_factor);
        }
        Rotation { cos: cos.to_kind(kind), sin: sin.to_kind(kind), pairs: self.pairs }
    }
}

/// Returns the length of each token's row, `[N]`: one more than the highest position, since rows begin with position 0.
fn row_lengths(positions: &Tensor, is_decoding: bool) -> Tensor {
    let lengths = positions + 1;
    if is_decoding {
        return lengths;
    }
    let is_start = positions.eq(0);
    let _ = is_start.get(0).fill_(1);
    let row = is_start.cumsum(0, Kind::Int64) - 1;
    // From the last token back, the running maximum falls from row to row, so that it is that of the rest of the own row.
    let apart = row.shallow_clone() * MAX_ROW;
    let (of_rest, _) = (lengths - &apart).flip([0]).cummax(0);
    let of_rest = of_rest.flip([0]) + apart;
    of_rest.index_select(0, &is_start.nonzero().view(-1).index_select(0, &row))
}

/// More positions than a row has.
const MAX_ROW: i64 = 1 << 40;

/// Cosines and signed sines `[N, 1, rotary_dim]`.
#[derive(Debug)]
pub(crate) struct Rotation {
    cos: Tensor,
    sin: Tensor,
    pairs: Pairs,
}

impl Rotation {
    /// Returns cosines and signed sines of whole heads, whose halves are rotated.
    pub(crate) fn tables(&self) -> Option<(&Tensor, &Tensor)> {
        (self.pairs == Pairs::Halves).then_some((&self.cos, &self.sin))
    }

    /// Rotates the heads `x [N, heads, head_dim]`.
    pub(crate) fn rotate(&self, x: &Tensor) -> Result<Tensor, PolicyError> {
        match self.pairs {
            Pairs::Halves => self.rotate_halves(x),
            Pairs::PartialHalves { rotary_dim, rest } => {
                let rotated = self.rotate_halves(&x.narrow(-1, 0, rotary_dim).contiguous())?;
                Ok(Tensor::cat(&[rotated, x.narrow(-1, rotary_dim, rest)], -1))
            }
            Pairs::Interleaved => {
                let shape = x.size();
                // As transformers, which rounds once.
                let wide = x.to_kind(Kind::Float);
                let swapped = wide.unflatten(-1, [shape[2] / 2, 2]).flip([-1]).view(shape.as_slice());
                Ok((wide * &self.cos + swapped * &self.sin).to_kind(x.kind()))
            }
        }
    }

    /// The usual form is `x·cos + [−x₂, x₁]·sin`. With the sign folded into the sines, the second term needs only the halves
    /// swapped, which is one `roll` where no kernel supports the operands.
    fn rotate_halves(&self, x: &Tensor) -> Result<Tensor, PolicyError> {
        let half = self.cos.size()[2] / 2;
        let rotated = torch_ext::rotate(x, &self.cos, &self.sin)?;
        Ok(rotated.unwrap_or_else(|| (x * &self.cos).addcmul(&x.roll(half, -1), &self.sin)))
    }
}
