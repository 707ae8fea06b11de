//! What the recorded comparisons share: weights and tokens that depend on names only, and log-probabilities of packed rows.

use policy_model::{ModelConfig, PackedRows, Policy};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Gradients are sums over tokens and layers, so that they are compared relative to their norm.
pub(crate) const GRADIENT_FP32: f64 = 1e-4;

/// Returns numbers in [−1, 1) that depend on the name only, as `uniform` of the script.
pub(crate) fn uniform(name: &str, count: usize) -> Vec<f64> {
    let fnv = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    let mut state = name.bytes().fold(0xCBF2_9CE4_8422_2325, fnv);
    let draw = |_| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    (0..count).map(draw).collect()
}

/// Returns the weights that the script computes for a model, as leaves.
pub(crate) fn weights(config: &ModelConfig) -> Vec<(String, Tensor)> {
    let is_gemma = config.family.model_type().starts_with("gemma");
    let weight = |(name, shape): (String, Vec<i64>)| {
        let of_norm = if is_gemma { 0.0 } else { 1.0 };
        let (center, scale) = match () {
            () if name.ends_with("bias") => (0.0, 0.3),
            () if name.contains("norm") => (of_norm, 0.4),
            () => (0.0, 0.35),
        };
        let values = uniform(&name, shape.iter().product::<i64>() as usize);
        let values: Vec<f32> = values.into_iter().map(|x| (center + scale * x) as f32).collect();
        (name, Tensor::from_slice(&values).view(shape.as_slice()).set_requires_grad(true))
    };
    config.parameter_shapes().into_iter().map(weight).collect()
}

pub(crate) fn policy(config: &Value) -> Policy {
    let config = ModelConfig::from_json(config.clone()).unwrap();
    let weights = weights(&config);
    Policy::from_parameters(config, weights).unwrap()
}

pub(crate) fn ids(name: &str, count: usize, policy: &Policy) -> Vec<u32> {
    let vocab = policy.config().vocab_size as f64;
    uniform(name, count).into_iter().map(|x| (3.0 + (x + 1.0) / 2.0 * (vocab - 3.0)) as u32).collect()
}

pub(crate) fn slices(rows: &[Vec<u32>]) -> Vec<&[u32]> {
    rows.iter().map(Vec::as_slice).collect()
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

pub(crate) fn indices(values: &[i64]) -> Tensor {
    Tensor::from_slice(values)
}

/// Returns the largest difference; NaN counts as infinite.
pub(crate) fn largest_difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |largest, d| if d <= largest { largest } else { d.max(f64::MIN_POSITIVE) })
}

/// Returns the token log-probabilities of packed sequences, in order.
pub(crate) fn packed_logps(policy: &Policy, sequences: &[Vec<u32>]) -> Tensor {
    let rows = PackedRows::causal(&slices(sequences), Device::Cpu);
    let (before, targets) = scored(sequences);
    let embedded = policy.embed(&rows.ids);
    let hidden = policy.packed_hidden_states(&embedded, &rows, Some(&before)).unwrap();
    policy.token_logps(&hidden, &targets)
}

/// Returns the indices of the tokens before scored ones, and the scored ids, of packed sequences.
pub(crate) fn scored(sequences: &[Vec<u32>]) -> (Tensor, Tensor) {
    let (mut before, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
    for ids in sequences {
        before.extend((0..ids.len() - 1).map(|at| (start + at) as i64));
        targets.extend(ids[1..].iter().map(|&id| i64::from(id)));
        start += ids.len();
    }
    (indices(&before), indices(&targets))
}
