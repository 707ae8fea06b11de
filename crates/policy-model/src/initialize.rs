//! Initial parameters, drawn from named streams instead of libtorch's global generator.

use rand::RngExt;
use seeds::{Seeds, Stream};
use tch::{Device, Kind, Tensor};

use crate::config::ModelConfig;
use crate::error::PolicyError;
use crate::switches::NormKind;
use crate::weights;

pub(crate) fn parameters(
    config: &ModelConfig,
    seeds: &Seeds,
    kind: Kind,
    device: Device,
) -> Result<Vec<(String, Tensor)>, PolicyError> {
    weights::check_kind(kind)?;
    let shapes = config.parameter_shapes();
    shapes
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product::<i64>() as usize;
            let values = match name.rsplit_once('.') {
                Some((_, "bias")) => vec![0.0; count],
                _ if shape.len() == 1 || name.ends_with("_norm.weight") => {
                    vec![if config.switches.norm == NormKind::RmsOnePlus { 0.0 } else { 1.0 }; count]
                }
                _ => normal(&mut seeds.stream(&name), config.initializer_range, count),
            };
            let tensor = Tensor::f_from_slice(&values)
                .and_then(|flat| flat.f_view(shape.as_slice()))
                .and_then(|tensor| tensor.f_to_kind(kind))
                .and_then(|tensor| tensor.f_to_device(device))
                .map_err(PolicyError::torch(format!("allocate `{name}`")))?;
            Ok((name, tensor))
        })
        .collect()
}

/// Draws `count` values from N(0, `deviation`²) by the Box–Muller transform, two from each pair of uniform draws.
fn normal(stream: &mut Stream, deviation: f64, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 − u is in (0, 1], so that its logarithm is finite.
        let radius = deviation * (-2.0 * (1.0 - stream.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * stream.random::<f64>()).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(count);
    values
}
