//! The moments of AdamW, in fp32 or in eight bits.

use distributed::Layout;
use tch::{Device, Kind, Tensor};
use torch_ext::{dequantize_moment, dynamic_blocks, quantize_moment};

use crate::error::TrainError;
use crate::span::Span;

/// The names of both moments in checkpoints.
pub(crate) const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// The form of the moments in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentKind {
    /// fp32: 8 bytes a weight for both.
    #[default]
    Float,
    /// A dynamic code of eight bits, with an fp32 scale for 256 numbers
    /// ([Dettmers et al. 2022](https://arxiv.org/abs/2110.02861)): 2.03 bytes a weight for both.
    EightBit,
}

impl MomentKind {
    /// Returns the memory of both moments of so many weights, in bytes; blocks that end early aside.
    pub fn bytes(self, weights: u64) -> u64 {
        match self {
            Self::Float => 8 * weights,
            Self::EightBit => 2 * (weights + 4 * dynamic_blocks(weights as i64) as u64),
        }
    }
}

/// A moment of the weights that a rank updates.
#[derive(Debug)]
pub(crate) enum Moment {
    /// `[n]`
    Float(Tensor),
    /// Codes `[n]`, and the scales of all blocks.
    EightBit { codes: Tensor, scales: Tensor },
}

impl Moment {
    /// Returns the moments before the first update, of both kinds zeros.
    pub(crate) fn zeros(kind: MomentKind, blocks: &Blocks, device: Device) -> Result<[Self; 2], TrainError> {
        let Blocks { elements, count, .. } = *blocks;
        let zeros = || {
            Ok::<_, TrainError>(match kind {
                MomentKind::Float => Self::Float(torch_ext::untouched_zeros(elements, device)?),
                MomentKind::EightBit => Self::EightBit {
                    codes: Tensor::zeros([elements], (Kind::Uint8, device)),
                    scales: Tensor::zeros([count], (Kind::Float, device)),
                },
            })
        };
        Ok([zeros()?, zeros()?])
    }

    /// Returns its tensors, with their names in a checkpoint, where it is called `name`.
    pub(crate) fn tensors(&self, name: &str) -> Vec<(String, Tensor)> {
        match self {
            Self::Float(moment) => vec![(name.to_owned(), moment.shallow_clone())],
            Self::EightBit { codes, scales } => vec![
                (name.to_owned(), codes.shallow_clone()),
                (format!("{name}_scales"), scales.shallow_clone()),
            ],
        }
    }

    /// Copies the values of a moment of the same form.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        for ((_, to), (_, from)) in self.tensors("").iter().zip(other.tensors("")) {
            to.shallow_clone().copy_(&from);
        }
    }

    /// Returns the moment in fp32; `is_signed` for the first one.
    pub(crate) fn to_float(&self, blocks: &Blocks, is_signed: bool) -> Result<Tensor, TrainError> {
        let (codes, scales) = match self {
            Self::Float(moment) => return Ok(moment.shallow_clone()),
            Self::EightBit { codes, scales } => (codes, scales),
        };
        let float = Tensor::zeros([blocks.elements], (Kind::Float, codes.device()));
        for run in &blocks.runs {
            let codes = codes.narrow(0, run.start, run.length);
            let scales = scales.narrow(0, run.first_block, run.blocks());
            float.narrow(0, run.start, run.length).copy_(&dequantize_moment(&codes, &scales, is_signed)?);
        }
        Ok(float)
    }

    /// Returns a moment in eight bits from its values in fp32.
    pub(crate) fn quantized(float: &Tensor, blocks: &Blocks, is_signed: bool) -> Result<Self, TrainError> {
        let codes = Tensor::zeros([blocks.elements], (Kind::Uint8, float.device()));
        let scales = Tensor::zeros([blocks.count], (Kind::Float, float.device()));
        for run in &blocks.runs {
            let (of_run, of_blocks) = quantize_moment(&float.narrow(0, run.start, run.length), is_signed)?;
            codes.narrow(0, run.start, run.length).copy_(&of_run);
            scales.narrow(0, run.first_block, run.blocks()).copy_(&of_blocks);
        }
        Ok(Self::EightBit { codes, scales })
    }
}

/// Consecutive elements of one parameter, which no other run shares a block with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BlockRun {
    pub(crate) start: i64,
    pub(crate) length: i64,
    /// The index of its first block.
    pub(crate) first_block: i64,
    /// The index of its parameter.
    pub(crate) span: usize,
}

impl BlockRun {
    pub(crate) fn blocks(&self) -> i64 {
        dynamic_blocks(self.length)
    }
}

/// The blocks of a rank's elements: those of each parameter begin anew, and so do those of each piece that ranks exchange.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Blocks {
    pub(crate) runs: Vec<BlockRun>,
    elements: i64,
    count: i64,
}

impl Blocks {
    /// Returns the blocks of the part of a flat buffer of `spans` that `layout` describes.
    pub(crate) fn new(spans: &[Span], layout: &Layout) -> Self {
        let (mut runs, mut count) = (Vec::new(), 0);
        for (index, span) in spans.iter().enumerate() {
            for run in layout.runs(span.offset, span.length()) {
                let run =
                    BlockRun { start: run.in_shard, length: run.length, first_block: count, span: index };
                count += run.blocks();
                runs.push(run);
            }
        }
        Self { runs, elements: layout.length(), count }
    }

    /// Returns the number of blocks.
    pub(crate) fn count(&self) -> i64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use distributed::{Rank, Shard};

    use super::*;

    fn spans() -> Vec<Span> {
        let span = |offset, length| Span { name: "a.weight".to_owned(), offset, shape: vec![length] };
        vec![span(0, 300), span(300, 5), span(305, 1000)]
    }

    #[test]
    fn blocks_begin_with_parameters_and_pieces() {
        let whole = Blocks::new(&spans(), &Layout::whole(1305));
        let runs: Vec<_> = whole.runs.iter().map(|run| (run.start, run.length, run.first_block)).collect();
        assert_eq!(runs, [(0, 300, 0), (300, 5, 2), (305, 1000, 3)]);
        assert_eq!(whole.count, 7);
        let second = Rank::new(1, 2).unwrap();
        let part = Blocks::new(&spans(), &Layout::single(Shard { rank: second, elements: 1305, piece: 400 }));
        let runs: Vec<_> = part.runs.iter().map(|run| (run.start, run.length, run.first_block)).collect();
        // Pieces 400 to 800, and 1200 to 1305.
        assert_eq!(runs, [(0, 400, 0), (400, 105, 2)]);
    }

    #[test]
    fn a_moment_in_eight_bits_is_the_same_after_a_round_trip_through_fp32() {
        let blocks = Blocks::new(&spans(), &Layout::whole(1305));
        let float = (Tensor::arange(1305, (Kind::Float, Device::Cpu)) * 0.7).sin();
        let quantized = Moment::quantized(&float, &blocks, true).unwrap();
        let again = quantized.to_float(&blocks, true).unwrap();
        let error = (&again - &float).abs().max().double_value(&[]);
        assert!(error < 0.01, "{error}");
        let Moment::EightBit { codes, scales } = &quantized else { panic!("in eight bits") };
        assert_eq!((codes.size(), scales.size()), (vec![1305], vec![7]));
    }
}
