//! What a run logs before its first step.

use distributed::{ProcessGroup, Sharding};
use pref_data::FlipRate;
use pref_loss::LabelSmoothing;

use crate::diagnostics;
use crate::error::TrainError;
use crate::input::Input;
use crate::objective::Loss;
use crate::recipe::{LossKind, LossSection, Recipe};
use crate::run_dir::RunDir;

/// The file of a run that lists the effect of noise on each pair.
const NOISE_LOG: &str = "noise.jsonl";

/// Logs the number of flipped labels, and rank 0 writes the effect of noise on each pair, if there is noise.
pub(crate) fn log_noise(
    recipe: &Recipe,
    input: &Input,
    dir: &RunDir,
    group: &ProcessGroup,
) -> Result<(), TrainError> {
    if recipe.data.iter().all(|source| source.flip_rate == FlipRate::NONE) {
        return Ok(());
    }
    tracing::info!("noise: {}", input.noise);
    if group.is_main() {
        input.noise.write(dir.root().join(NOISE_LOG))?;
    }
    Ok(())
}

/// Logs warnings about loss and data.
pub(crate) fn warn(recipe: &Recipe, input: &Input, loss: Option<&Loss>) {
    warn_of_smoothing(&recipe.loss);
    let of_beta = diagnostics::beta_of_means(recipe.loss.kind, recipe.loss.beta);
    let of_input = input.warnings(loss, recipe.train.batch_size);
    of_beta.iter().chain(&of_input).for_each(|warning| tracing::warn!("{warning}"));
}

/// Reports what `distributed.zero` changes, or that it changes nothing.
pub(crate) fn report_sharding(sharding: Sharding, group: &ProcessGroup) {
    match (sharding, group.is_distributed()) {
        (Sharding::Gradients | Sharding::Parameters, false) => {
            tracing::info!("distributed.zero has no effect: one process holds all of the state");
        }
        (Sharding::Parameters, true) => {
            tracing::info!("distributed.zero = 3: the backward pass gathers and recomputes each layer");
        }
        _ => {}
    }
}

/// From ε = ½ on, cDPO no longer learns what the labels say. The loss is still defined, so only a warning shows it.
fn warn_of_smoothing(loss: &LossSection) {
    let smoothing = loss.label_smoothing.fixed().filter(|smoothing| smoothing.is_degenerate());
    let Some(smoothing) = smoothing.map(LabelSmoothing::get).filter(|_| loss.kind == LossKind::Cdpo) else {
        return;
    };
    if smoothing > 0.5 {
        tracing::warn!(
            "loss.label_smoothing = {smoothing}: cDPO assumes that most labels are wrong and learns to prefer the rejected \
             responses"
        );
    } else {
        tracing::warn!(
            "loss.label_smoothing = {smoothing}: cDPO assumes that the labels are random and learns no preference, only \
             to stay at the reference"
        );
    }
}
