//! AdamW over one flat buffer of fp32 master weights.

use tch::{Kind, Tensor};

use crate::parameters::Span;

/// Elements updated at a time: temporaries stay at 4 MB, inside the cache.
const CHUNK: i64 = 1 << 20;

/// The hyperparameters of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// Decay rates β₁, β₂ of the moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; norms and biases are left out, as transformers does.
    pub weight_decay: f64,
}

/// AdamW (Loshchilov & Hutter 2019, Algorithm 2) with visible state, update for update that of
/// `torch.optim.AdamW`.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    /// First moments, fp32, one an element of the master weights.
    pub exp_avg: Tensor,
    /// Second moments, fp32, one an element of the master weights.
    pub exp_avg_sq: Tensor,
    /// Updates made so far.
    pub step: u64,
    segments: Vec<Segment>,
}

/// A run of elements that share their weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    start: i64,
    length: i64,
    decayed: bool,
}

impl AdamW {
    /// A fresh optimiser for `spans` of a flat buffer on `device`.
    pub(crate) fn new(settings: AdamWSettings, spans: &[Span], device: tch::Device) -> Self {
        let elements = spans.iter().map(Span::length).sum::<i64>();
        let zeros = || Tensor::zeros([elements], (Kind::Float, device));
        Self {
            settings,
            exp_avg: zeros(),
            exp_avg_sq: zeros(),
            step: 0,
            segments: segments(spans, &settings),
        }
    }

    /// One update of `weights` with `gradient` (both fp32, one dimension), the gradient scaled by `clip` first.
    pub(crate) fn update(&mut self, weights: &Tensor, gradient: &Tensor, learning_rate: f64, clip: f64) {
        self.step += 1;
        for segment in &self.segments {
            let mut start = segment.start;
            let end = segment.start + segment.length;
            while start < end {
                let length = CHUNK.min(end - start);
                let part = |t: &Tensor| t.narrow(0, start, length);
                self.update_chunk(
                    &mut part(weights),
                    &part(gradient),
                    &mut part(&self.exp_avg),
                    &mut part(&self.exp_avg_sq),
                    Rates { learning_rate, clip, decayed: segment.decayed },
                );
                start += length;
            }
        }
    }

    fn update_chunk(&self, w: &mut Tensor, g: &Tensor, m: &mut Tensor, v: &mut Tensor, rates: Rates) {
        let AdamWSettings { betas: (beta1, beta2), eps, weight_decay } = self.settings;
        let step = self.step as f64;
        let (correction1, correction2) = (1.0 - beta1.powf(step), 1.0 - beta2.powf(step));
        if rates.decayed {
            let _ = w.g_mul_scalar_(1.0 - rates.learning_rate * weight_decay);
        }
        let clipped;
        let g = if rates.clip == 1.0 {
            g
        } else {
            clipped = g * rates.clip;
            &clipped
        };
        let _ = m.lerp_(g, 1.0 - beta1);
        let _ = v.g_mul_scalar_(beta2).addcmul_(&(g * (1.0 - beta2)), g);
        let mut denominator = v.sqrt();
        let _ = denominator.g_div_scalar_(correction2.sqrt()).g_add_scalar_(eps);
        let mut update = &*m / denominator;
        let _ = update.g_mul_scalar_(-rates.learning_rate / correction1);
        let _ = w.g_add_(&update);
    }
}

/// What changes from one update to the next.
#[derive(Clone, Copy)]
struct Rates {
    learning_rate: f64,
    clip: f64,
    decayed: bool,
}

/// Merges neighbouring spans with the same decay: without weight decay the whole buffer is one segment.
fn segments(spans: &[Span], settings: &AdamWSettings) -> Vec<Segment> {
    let mut merged: Vec<Segment> = Vec::new();
    for span in spans {
        let decayed = settings.weight_decay != 0.0 && span.is_decayed();
        match merged.last_mut() {
            Some(last) if last.decayed == decayed => last.length += span.length(),
            _ => merged.push(Segment { start: span.offset, length: span.length(), decayed }),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, offset: i64, shape: &[i64]) -> Span {
        Span { name: name.into(), offset, shape: shape.to_vec() }
    }

    /// Three updates by `torch.optim.AdamW` (2.13) of w = [1, −2, 3], lr 0.1, betas (0.9, 0.99), eps 1e-8,
    /// `weight_decay` 0.1, gradients [0.5, −1, 2], [−0.25, 0.5, 1], [1, 1, −1]; see `tests/fixtures/adamw.py`.
    const AFTER_THREE: [f64; 3] = [0.780_244_529_247_283_9, -1.843_454_241_752_624_5, 2.680_715_560_913_086];

    #[test]
    fn follows_torch() {
        let spans = [span("model.layers.0.mlp.up_proj.weight", 0, &[3, 1])];
        let settings = AdamWSettings { betas: (0.9, 0.99), eps: 1e-8, weight_decay: 0.1 };
        let weights = Tensor::from_slice(&[1f32, -2.0, 3.0]);
        let mut adam = AdamW::new(settings, &spans, tch::Device::Cpu);
        for g in [[0.5f32, -1.0, 2.0], [-0.25, 0.5, 1.0], [1.0, 1.0, -1.0]] {
            adam.update(&weights, &Tensor::from_slice(&g), 0.1, 1.0);
        }
        let got = Vec::<f32>::try_from(&weights).unwrap();
        for (got, expected) in got.iter().zip(AFTER_THREE) {
            assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} for {expected}");
        }
    }

    #[test]
    fn chunks_do_not_show() {
        let elements = CHUNK + 17;
        let spans = [span("a.weight", 0, &[elements, 1])];
        let settings = AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
        let weights = Tensor::ones([elements], (Kind::Float, tch::Device::Cpu));
        let mut adam = AdamW::new(settings, &spans, tch::Device::Cpu);
        adam.update(&weights, &Tensor::ones_like(&weights), 0.1, 0.5);
        let (low, high) = (weights.min().double_value(&[]), weights.max().double_value(&[]));
        assert_eq!(low, high);
        assert!((low - 0.9).abs() < 1e-6, "the first update moves by the learning rate: {low}");
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
