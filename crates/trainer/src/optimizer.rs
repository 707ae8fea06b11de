//! AdamW over one flat buffer of fp32 master weights.

use std::ops::Range;

use distributed::Layout;
use tch::Tensor;
use torch_ext::{AdamWUpdate, fused_adamw};

use crate::error::TrainError;
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
}

/// AdamW (Loshchilov & Hutter 2019, Algorithm 2) with accessible state. Updates equal those of `torch.optim.AdamW`.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    /// First moments, fp32, one per master weight that this rank updates.
    pub exp_avg: Tensor,
    /// Second moments, fp32, one per master weight that this rank updates.
    pub exp_avg_sq: Tensor,
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
}

impl AdamW {
    /// Creates an optimizer for the part of a flat buffer of `spans` that `layout` describes, on `device`.
    pub(crate) fn new(
        settings: AdamWSettings,
        spans: &[Span],
        layout: &Layout,
        device: tch::Device,
    ) -> Result<Self, TrainError> {
        let zeros = || torch_ext::untouched_zeros(layout.length(), device);
        let inside = segments(spans, &settings).into_iter().flat_map(|segment| {
            let runs = layout.runs(segment.start, segment.length);
            runs.map(move |run| Segment { start: run.in_shard, length: run.length, ..segment })
        });
        Ok(Self { settings, exp_avg: zeros()?, exp_avg_sq: zeros()?, step: 0, segments: merged(inside) })
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
        let AdamW {
            settings: AdamWSettings { betas, eps, weight_decay },
            exp_avg,
            exp_avg_sq,
            step,
            segments,
        } = self.optimizer;
        for segment in segments {
            let start = segment.start.max(elements.start);
            let length = elements.end.min(segment.start + segment.length) - start;
            if length <= 0 {
                continue;
            }
            let part = |t: &Tensor| t.narrow(0, start, length);
            fused_adamw(
                &mut part(weights),
                &mut part(gradient),
                &mut part(exp_avg),
                &mut part(exp_avg_sq),
                copy.map(part).as_mut(),
                &AdamWUpdate {
                    learning_rate: self.learning_rate,
                    betas: *betas,
                    eps: *eps,
                    weight_decay: if segment.decayed { *weight_decay } else { 0.0 },
                    step: *step,
                    gradient_scale: self.clip,
                },
            )?;
        }
        Ok(())
    }
}

/// Returns the spans with their decay; without weight decay the whole buffer is one segment.
fn segments(spans: &[Span], settings: &AdamWSettings) -> Vec<Segment> {
    let decays = settings.weight_decay != 0.0;
    let segment = |span: &Span| Segment {
        start: span.offset,
        length: span.length(),
        decayed: decays && span.is_decayed(),
    };
    merged(spans.iter().map(segment))
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
        let settings = AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.5 };
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
        let settings = AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.5 };
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
        let settings = AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.1 };
        let decayed: Vec<_> =
            segments(&spans, &settings).iter().map(|s| (s.start, s.length, s.decayed)).collect();
        assert_eq!(decayed, [(0, 8, true), (8, 4, false), (12, 4, true)]);
    }
}
