//! AdamW over one flat buffer of fp32 master weights.

use std::ops::Range;

use distributed::Layout;
use tch::Tensor;
use torch_ext::{AdamWUpdate, Moment8bit, dynamic_blocks, fused_adamw, fused_adamw_8bit};

use crate::error::TrainError;
use crate::moments::{Blocks, Moment, MomentKind};
use crate::span::Span;

/// The hyperparameters of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// Decay rates β₁, β₂ of the moments.
    pub betas: (f64, f64),
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; as in transformers, it does not apply to norms and biases.
    pub weight_decay: f64,
    /// The form of the moments.
    pub moments: MomentKind,
}

/// AdamW (Loshchilov & Hutter 2019, Algorithm 2). With moments in fp32, updates equal those of `torch.optim.AdamW`.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    /// The first and the second moment of each master weight that this rank updates.
    pub(crate) moments: [Moment; 2],
    /// The number of updates so far.
    pub step: u64,
    segments: Vec<Segment>,
}

/// Consecutive elements with the same weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    start: i64,
    length: i64,
    decayed: bool,
    /// The index of its first block of a moment; unused in fp32.
    first_block: i64,
}

impl AdamW {
    /// Creates an optimizer for the part of a flat buffer of `spans` that `layout` describes, on `device`.
    pub(crate) fn new(
        settings: AdamWSettings,
        spans: &[Span],
        layout: &Layout,
        device: tch::Device,
    ) -> Result<Self, TrainError> {
        let blocks = Blocks::new(spans, layout);
        let moments = Moment::zeros(settings.moments, &blocks, device)?;
        let decays = settings.weight_decay != 0.0;
        let inside = blocks.runs.iter().map(|run| Segment {
            start: run.start,
            length: run.length,
            decayed: decays && spans[run.span].is_decayed(),
            first_block: run.first_block,
        });
        let segments = match settings.moments {
            MomentKind::Float => merged(inside),
            MomentKind::EightBit => inside.collect(),
        };
        Ok(Self { settings, moments, step: 0, segments })
    }

    /// Returns the form of the moments.
    pub(crate) fn kind(&self) -> MomentKind {
        self.settings.moments
    }

    /// Updates `weights` in place with `gradient`, which is first multiplied by `clip`; both are fp32 with one
    /// dimension. `copy` gets the new weights in its kind.
    pub(crate) fn update(
        &mut self,
        weights: &Tensor,
        gradient: &Tensor,
        copy: Option<&Tensor>,
        learning_rate: f64,
        clip: f64,
    ) -> Result<(), TrainError> {
        self.begin(learning_rate, clip).apply(0..weights.size()[0], weights, gradient, copy)
    }

    /// Starts an update whose elements the caller passes in parts, each element once.
    pub(crate) fn begin(&mut self, learning_rate: f64, clip: f64) -> PendingStep<'_> {
        self.step += 1;
        PendingStep { optimizer: self, learning_rate, clip }
    }
}

/// An update that is applied in parts.
#[derive(Debug)]
pub(crate) struct PendingStep<'a> {
    optimizer: &'a AdamW,
    learning_rate: f64,
    clip: f64,
}

impl PendingStep<'_> {
    /// Updates these elements like [`AdamW::update`].
    pub(crate) fn apply(
        &self,
        elements: Range<i64>,
        weights: &Tensor,
        gradient: &Tensor,
        copy: Option<&Tensor>,
    ) -> Result<(), TrainError> {
        let AdamW { settings, moments: [first, second], step, segments, .. } = self.optimizer;
        for segment in segments {
            let start = segment.start.max(elements.start);
            let length = elements.end.min(segment.start + segment.length) - start;
            if length <= 0 {
                continue;
            }
            let part = |t: &Tensor| t.narrow(0, start, length);
            let (mut weights, mut gradient) = (part(weights), part(gradient));
            let mut copy = copy.map(part);
            let update = AdamWUpdate {
                learning_rate: self.learning_rate,
                betas: settings.betas,
                eps: settings.eps,
                weight_decay: if segment.decayed { settings.weight_decay } else { 0.0 },
                step: *step,
                gradient_scale: self.clip,
            };
            match (first, second) {
                (Moment::Float(exp_avg), Moment::Float(exp_avg_sq)) => {
                    let (mut first, mut second) = (part(exp_avg), part(exp_avg_sq));
                    fused_adamw(
                        &mut weights,
                        &mut gradient,
                        &mut first,
                        &mut second,
                        copy.as_mut(),
                        &update,
                    )?;
                }
                (first, second) => {
                    // Parts end where pieces do, and so do the runs of blocks.
                    debug_assert_eq!((start, length), (segment.start, segment.length));
                    let [mut first, mut second] = [first, second].map(|moment| segment.in_eight_bits(moment));
                    let moments = [first.borrowed(), second.borrowed()];
                    fused_adamw_8bit(&mut weights, &gradient, moments, copy.as_mut(), &update)?;
                }
            }
        }
        Ok(())
    }
}

/// A part of a moment in eight bits.
struct Quantized {
    codes: Tensor,
    scales: Tensor,
}

impl Quantized {
    fn borrowed(&mut self) -> Moment8bit<'_> {
        Moment8bit { codes: &mut self.codes, scales: &mut self.scales }
    }
}

impl Segment {
    fn in_eight_bits(&self, moment: &Moment) -> Quantized {
        let Moment::EightBit { codes, scales } = moment else {
            unreachable!("both moments have the same form")
        };
        Quantized {
            codes: codes.narrow(0, self.start, self.length),
            scales: scales.narrow(0, self.first_block, dynamic_blocks(self.length)),
        }
    }
}

/// Merges neighbors with the same decay.
fn merged(segments: impl Iterator<Item = Segment>) -> Vec<Segment> {
    let mut merged: Vec<Segment> = Vec::new();
    for segment in segments {
        match merged.last_mut() {
            Some(last) if last.decayed == segment.decayed && last.start + last.length == segment.start => {
                last.length += segment.length;
            }
            _ => merged.push(segment),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use distributed::Shard;
    use tch::Kind;

    use super::*;

    fn span(name: &str, offset: i64, shape: &[i64]) -> Span {
        Span { name: name.into(), offset, shape: shape.to_vec() }
    }

    #[test]
    fn segments_differ_only_in_weight_decay() {
        let spans = [span("a.weight", 0, &[2, 1]), span("a.bias", 2, &[2]), span("b.weight", 4, &[1, 2])];
        let settings =
            AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.5, moments: MomentKind::Float };
        let weights = Tensor::from_slice(&[1f32; 6]);
        let mut adam = AdamW::new(settings, &spans, &Layout::whole(6), tch::Device::Cpu).unwrap();
        adam.update(&weights, &Tensor::from_slice(&[3f32; 6]), None, 0.1, 0.5).unwrap();
        // The first update moves every weight by the learning rate, after a decay of 0.1 · 0.5 of it.
        let expected = [0.85, 0.85, 0.9, 0.9, 0.85, 0.85];
        for (got, expected) in Vec::<f32>::try_from(&weights).unwrap().iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} instead of {expected}");
        }
        assert_eq!(adam.step, 1);
    }

    #[test]
    fn an_update_in_parts_matches_the_whole_update() {
        let spans = [span("a.weight", 0, &[2, 1]), span("a.bias", 2, &[2]), span("b.weight", 4, &[1, 3])];
        let settings =
            AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.5, moments: MomentKind::Float };
        let options = (Kind::Float, tch::Device::Cpu);
        // The expected elements; in a shard, -1 for elements of other ranks.
        let updated = |shard: Shard| {
            let part = |flat: Tensor| {
                let part = Tensor::full([shard.length()], 9.0, options);
                for run in shard.all_runs() {
                    part.narrow(0, run.in_shard, run.length).copy_(&flat.narrow(0, run.in_flat, run.length));
                }
                part
            };
            let mut adam = AdamW::new(settings, &spans, &Layout::single(shard), tch::Device::Cpu).unwrap();
            let weights = part(Tensor::ones([7], options));
            adam.update(&weights, &part(Tensor::arange(7, options)), None, 0.1, 0.5).unwrap();
            let flat = Tensor::full([7], -1.0, options);
            for run in shard.all_runs() {
                flat.narrow(0, run.in_flat, run.length).copy_(&weights.narrow(0, run.in_shard, run.length));
            }
            let filled = weights.eq(9.0).sum(Kind::Int64).int64_value(&[]);
            assert_eq!(filled, shard.length() - shard.all_runs().map(|run| run.length).sum::<i64>());
            Vec::<f32>::try_from(&flat).unwrap()
        };
        let whole = updated(Shard::whole(7));
        let rank = |r: u16| distributed::Rank::new(r, 2).unwrap();
        let parts = [0, 1].map(|r| updated(Shard { rank: rank(r), elements: 7, piece: 2 }));
        for (at, whole) in whole.iter().enumerate() {
            let of_parts: Vec<f32> =
                parts.iter().map(|part| part[at]).filter(|&value| value != -1.0).collect();
            assert_eq!(of_parts, [*whole], "element {at}");
        }
    }

    #[test]
    fn norms_and_biases_are_not_decayed() {
        let spans = [
            span("model.embed_tokens.weight", 0, &[4, 2]),
            span("model.layers.0.self_attn.q_proj.bias", 8, &[2]),
            span("model.layers.0.input_layernorm.weight", 10, &[2]),
            span("model.layers.0.mlp.up_proj.weight", 12, &[2, 2]),
        ];
        let settings =
            AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.1, moments: MomentKind::Float };
        let adam = AdamW::new(settings, &spans, &Layout::whole(16), tch::Device::Cpu).unwrap();
        let decayed: Vec<_> = adam.segments.iter().map(|s| (s.start, s.length, s.decayed)).collect();
        assert_eq!(decayed, [(0, 8, true), (8, 4, false), (12, 4, true)]);
    }

    #[test]
    fn moments_in_eight_bits_are_updated_alike_in_parts_of_pieces() {
        let spans =
            [span("a.weight", 0, &[300, 2]), span("a.bias", 600, &[7]), span("b.weight", 607, &[500])];
        let settings = AdamWSettings {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.5,
            moments: MomentKind::EightBit,
        };
        let rank = distributed::Rank::new(1, 2).unwrap();
        let layout = Layout::single(Shard { rank, elements: 1107, piece: 320 });
        let numbers = (Tensor::arange(layout.length(), (Kind::Float, tch::Device::Cpu)) * 0.7).sin();
        let after = |parts: &[Range<i64>]| {
            let mut adam = AdamW::new(settings, &spans, &layout, tch::Device::Cpu).unwrap();
            let weights = numbers.copy();
            for step in 1..=3 {
                let pending = adam.begin(0.1, 0.5);
                for part in parts {
                    pending.apply(part.clone(), &weights, &(&numbers * f64::from(step)), None).unwrap();
                }
            }
            weights
        };
        let pieces = [0..320, 320..layout.length()];
        let whole = 0..layout.length();
        assert_eq!(after(&pieces), after(std::slice::from_ref(&whole)));
    }
}
