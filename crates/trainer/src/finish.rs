//! The end of a run: its model and the checksums of its files.

use policy_model::{Companions, Policy};
use tch::{Device, Kind};

use crate::card::Card;
use crate::checkpoint;
use crate::engine::Trainer;
use crate::error::TrainError;
use crate::pair_deltas;
use crate::run_dir::{Parts, Recording};

/// Completes the folder of a run after its last step. Returns whether the model is that of the last step.
pub(crate) fn finish(
    parts: &Parts<'_>,
    trainer: &Trainer<'_>,
    policy: &Policy,
    recording: Recording,
    card: Option<Card<'_>>,
) -> Result<bool, TrainError> {
    // Removes checkpoints of interruptions, so that the folder does not depend on them.
    let mut steps = trainer.checkpoint_steps();
    steps.push(trainer.steps());
    checkpoint::retain(&parts.dir.checkpoints(), &steps)?;
    let best = match recording.best {
        Some(metric) => parts.dir.best_checkpoint(metric)?,
        None => None,
    };
    let best = best.filter(|(step, _)| *step < trainer.steps());
    if recording.deltas {
        pair_deltas::write(parts.dir.root(), parts.pairs)?;
    }
    let adapter = parts.dir.adapter();
    match &best {
        _ if policy.adapters().is_none() => {}
        Some((_, checkpoint)) => checkpoint::copy_folder(&checkpoint.join(checkpoint::ADAPTER), &adapter)?,
        None => {
            let base = checkpoint::base_name(parts.base);
            policy.save_adapters(&adapter, Kind::Float, &base)?;
        }
    }
    parts.dir.seal()?;
    let (model, end) = (parts.dir.model(), trainer.steps());
    let step = best.as_ref().map_or(end, |(step, _)| *step);
    let card = card.map(|card| card.text(parts.dir, step)).transpose()?;
    let companions = Companions { card: card.as_deref(), ..parts.companions };
    match &best {
        Some((step, checkpoint)) => {
            tracing::info!(step, "the model is that of the best checkpoint");
            // Stored in the kind in which it is saved again, so no bit changes.
            let best = Policy::load(checkpoint, parts.save, Device::Cpu)?;
            best.save_with(&model, parts.save, companions)?;
        }
        None => policy.save_with(&model, parts.save, companions)?,
    }
    // From here on the run is finished; until here it could resume.
    checkpoint::drop_states(&parts.dir.checkpoints(), 0)?;
    parts.dir.clear_line_checks()?;
    pair_deltas::clear(parts.dir.root())?;
    Ok(best.is_none())
}
