//! What a run compares between its ranks and announces before it trains.

use distributed::{Fact, ProcessGroup, Sharding};
use pref_data::{Dialogue, FlipRate};
use pref_loss::LabelSmoothing;
use tch::{Device, Kind};

use crate::context::ANNOUNCED;
use crate::diagnostics;
use crate::error::TrainError;
use crate::input::Input;
use crate::objective::Loss;
use crate::recipe::{LossKind, LossSection, Recipe};
use crate::run_dir::RunDir;
use crate::run_inputs::RunInputs;
use crate::sequences::{sequences, sequences_of_completions};

/// The file of a run that lists the effect of noise on each pair.
const NOISE_LOG: &str = "noise.jsonl";

/// Logs what is unusual about the loss and the data, and writes the log of label noise.
pub(crate) fn announce(
    recipe: &Recipe,
    input: &Input,
    loss: Option<&Loss>,
    batch_size: usize,
    dir: &RunDir,
    group: &ProcessGroup,
) -> Result<(), TrainError> {
    warn_of_smoothing(&recipe.loss);
    if let Some(steps) = recipe.train.max_steps {
        tracing::info!(target: ANNOUNCED, "train.max_steps = {steps} is the length of the run; train.epochs is not used");
    }
    let of_beta = diagnostics::beta_of_means(recipe.loss.kind, recipe.loss.beta);
    let warnings = input.warnings(loss, batch_size);
    of_beta.iter().chain(&warnings).for_each(|warning| tracing::warn!("{warning}"));
    if recipe.data.iter().any(|source| source.flip_rate != FlipRate::NONE) {
        tracing::info!("noise: {}", input.noise);
        if group.is_main() {
            input.noise.write(dir.root().join(NOISE_LOG))?;
        }
    }
    Ok(())
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

/// Reports what `distributed.zero` changes, or that it changes nothing.
pub(crate) fn report_sharding(sharding: Sharding, group: &ProcessGroup) {
    match (sharding, group.is_distributed()) {
        (Sharding::Gradients | Sharding::Parameters, false) => {
            tracing::info!(target: ANNOUNCED, "distributed.zero has no effect: one process holds all of the state");
        }
        (Sharding::Parameters, true) => {
            tracing::info!("distributed.zero = 3: the backward pass gathers and recomputes each layer");
        }
        _ => {}
    }
}

/// Facts that must agree on all ranks, so that their gradients add up to the gradient of one run.
pub(crate) fn facts(
    recipe: &Recipe,
    input: &Input,
    inputs: &RunInputs,
    kind: Kind,
    device: Device,
) -> Result<Vec<Fact>, TrainError> {
    let fact = |what, value, remedy| Fact { what, value, remedy };
    let copy_model = "copy the folder of model.path from rank 0";
    let copy_data = "copy the file of data.path (and data.eval_path) and the tokenizer from rank 0";
    let unpaired = sequences_of_completions(&input.unpaired);
    let pairs = input.all_tokens.iter().chain(&input.pairs).chain(&input.held_out.pairs);
    let dialogues = input.held_out.dialogues.iter().map(Dialogue::ids);
    let device = if device == Device::Cpu { "the CPU" } else { "a GPU" };
    Ok(vec![
        fact(
            "version of this program",
            env!("CARGO_PKG_VERSION").to_owned(),
            "start the same build everywhere",
        ),
        fact("recipe", recipe.to_toml(), "start all ranks with the same recipe and the same --set"),
        fact(
            "kind of computation",
            format!("{kind:?} on {device}"),
            "train on machines of one kind, or set model.dtype and model.device to values that all support",
        ),
        fact("model", inputs.model.clone(), copy_model),
        fact(
            "adapters",
            inputs.adapters.clone().unwrap_or_default(),
            "copy the folder of lora.init from rank 0",
        ),
        fact(
            "reference model",
            inputs.reference.clone().unwrap_or_default(),
            "copy the folder of model.reference from rank 0",
        ),
        Fact::of_sequences("set of examples", sequences(pairs).chain(unpaired).chain(dialogues), copy_data),
    ])
}
