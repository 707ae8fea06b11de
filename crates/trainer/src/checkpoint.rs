//! Checkpoints: a Hugging Face folder, and beside the weights what training needs to go on.
//!
//! A checkpoint appears whole or not at all: it is written into a hidden sibling folder that is renamed at the end.
//! The optimiser's state (three fp32 numbers a parameter) is kept in the newest two checkpoints only.

use std::fs;
use std::path::{Path, PathBuf};

use policy_model::{UNFINISHED, write_tensors};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::TrainError;
use crate::distributed::World;
use crate::engine::Snapshot;

/// Holds what training needs beside the weights.
const STATE_FOLDER: &str = "trainer";
/// Holds low-rank adapters as peft does, where they are what is trained; the weights beside them have them merged in.
pub(crate) const ADAPTER: &str = "adapter";
/// Checkpoints that keep the optimiser's state.
const STATES_KEPT: usize = 2;

/// What training needs to go on from a checkpoint.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) step: u64,
    pub(crate) master: Tensor,
    pub(crate) exp_avg: Tensor,
    pub(crate) exp_avg_sq: Tensor,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    step: u64,
    total_steps: u64,
    elements: i64,
}

/// Writes `folder/step-N`; `companions` holds the tokenizer files that make it a whole Hugging Face folder.
pub(crate) fn write(
    folder: &Path,
    snapshot: &Snapshot<'_>,
    kind: Kind,
    companions: &Path,
) -> Result<PathBuf, TrainError> {
    let target = folder.join(format!("step-{}", snapshot.step));
    let partial = folder.join(format!(".step-{}.partial", snapshot.step));
    fs::create_dir_all(folder).map_err(TrainError::io("cannot create", folder))?;
    remove(&partial)?;
    let written = fill(&partial, snapshot, kind, companions).and_then(|()| {
        remove(&target)?;
        fs::rename(&partial, &target).map_err(TrainError::io("cannot create", &target))
    });
    if written.is_err() {
        // The disk may be full: leave nothing half-written behind, and report what went wrong first.
        let _ = remove(&partial);
    }
    written?;
    drop_states(folder, STATES_KEPT)?;
    Ok(target)
}

/// What an adapter's configuration names as the model below it, so that it is found from any folder.
pub(crate) fn base_name(model: &Path) -> String {
    std::path::absolute(model).unwrap_or_else(|_| model.to_owned()).display().to_string()
}

fn fill(partial: &Path, snapshot: &Snapshot<'_>, kind: Kind, companions: &Path) -> Result<(), TrainError> {
    snapshot.policy.save(partial, kind, Some(companions))?;
    if snapshot.policy.adapters().is_some() {
        snapshot.policy.save_adapters(&partial.join(ADAPTER), Kind::Float, &base_name(companions))?;
    }
    let state = partial.join(STATE_FOLDER);
    fs::create_dir_all(&state).map_err(TrainError::io("cannot create", &state))?;
    let tensors = state.join("optimizer.safetensors");
    let (avg, avg_sq) = (&snapshot.optimizer.exp_avg, &snapshot.optimizer.exp_avg_sq);
    let named = [("master", snapshot.master), ("exp_avg", avg), ("exp_avg_sq", avg_sq)]
        .map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
    write_tensors(&tensors, &named, Kind::Float)?;
    let file = StateFile {
        step: snapshot.step,
        total_steps: snapshot.total_steps,
        elements: snapshot.master.size()[0],
    };
    let path = state.join("state.json");
    let json = serde_json::to_vec_pretty(&file)
        .map_err(|source| TrainError::io("cannot write", &path)(source.into()))?;
    fs::write(&path, json).map_err(TrainError::io("cannot write", &path))
}

/// The checkpoints of `folder` in order of their steps.
pub(crate) fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrainError::io("cannot read", folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(TrainError::io("cannot read", folder))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|n| n.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The state of the newest checkpoint that has one and is whole; a damaged one is passed over with a warning. Rank 0 of `world`
/// reads it, and the others hear it from there.
pub(crate) fn newest_state(folder: &Path, elements: i64, world: &World) -> Result<Option<State>, TrainError> {
    let found = if world.leads() { newest_whole_state(folder, elements)? } else { None };
    let step = found.as_ref().map_or(Vec::new(), |state| state.step.to_le_bytes().to_vec());
    let step = world.hear_leader(|| Ok(step))?;
    let Ok(step) = <[u8; 8]>::try_from(step) else { return Ok(None) };
    let state = found.unwrap_or_else(|| {
        let zeros = || Tensor::zeros([elements], (Kind::Float, Device::Cpu));
        let step = u64::from_le_bytes(step);
        State { step, master: zeros(), exp_avg: zeros(), exp_avg_sq: zeros() }
    });
    for tensor in [&state.master, &state.exp_avg, &state.exp_avg_sq] {
        world.copy_from_leader(tensor)?;
    }
    Ok(Some(state))
}

fn newest_whole_state(folder: &Path, elements: i64) -> Result<Option<State>, TrainError> {
    for (_, path) in list(folder)?.into_iter().rev() {
        if !path.join(STATE_FOLDER).exists() {
            continue;
        }
        match read_state(&path, elements) {
            Ok(state) => return Ok(Some(state)),
            Err(error) => tracing::warn!("{error}; falling back to the checkpoint before"),
        }
    }
    Ok(None)
}

fn read_state(checkpoint: &Path, elements: i64) -> Result<State, TrainError> {
    let damaged = |why: String| TrainError::DamagedCheckpoint { path: checkpoint.into(), why };
    let path = checkpoint.join(STATE_FOLDER).join("state.json");
    let json = fs::read(&path).map_err(|e| damaged(format!("state.json: {e}")))?;
    let file: StateFile = serde_json::from_slice(&json).map_err(|e| damaged(format!("state.json: {e}")))?;
    if file.elements != elements {
        return Err(damaged(format!("it has {} parameters, the model {elements}", file.elements)));
    }
    let path = checkpoint.join(STATE_FOLDER).join("optimizer.safetensors");
    let tensors =
        Tensor::read_safetensors(&path).map_err(|e| damaged(format!("optimizer.safetensors: {e}")))?;
    let take = |name: &str| {
        let tensor = tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t.shallow_clone());
        let tensor = tensor.ok_or_else(|| damaged(format!("optimizer.safetensors lacks `{name}`")))?;
        if tensor.size() != [elements] || tensor.kind() != Kind::Float {
            return Err(damaged(format!(
                "`{name}` has shape {:?} and kind {:?}",
                tensor.size(),
                tensor.kind()
            )));
        }
        Ok(tensor)
    };
    Ok(State {
        step: file.step,
        master: take("master")?,
        exp_avg: take("exp_avg")?,
        exp_avg_sq: take("exp_avg_sq")?,
    })
}

/// Removes the optimiser's state from all but the newest `keep` checkpoints.
pub(crate) fn drop_states(folder: &Path, keep: usize) -> Result<(), TrainError> {
    let with_state: Vec<PathBuf> = list(folder)?
        .into_iter()
        .map(|(_, path)| path.join(STATE_FOLDER))
        .filter(|state| state.exists())
        .collect();
    for state in with_state.iter().rev().skip(keep) {
        remove(state)?;
    }
    Ok(())
}

/// Removes all but the newest `keep` checkpoints; 0 keeps all.
pub(crate) fn keep_last(folder: &Path, keep: usize) -> Result<(), TrainError> {
    if keep == 0 {
        return Ok(());
    }
    for (_, path) in list(folder)?.iter().rev().skip(keep) {
        remove(path)?;
    }
    Ok(())
}

/// Removes the checkpoints of all steps but `steps`.
pub(crate) fn retain(folder: &Path, steps: &[u64]) -> Result<(), TrainError> {
    for (step, path) in list(folder)? {
        if !steps.contains(&step) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes what writers left in `folder` that were killed. Nobody else may write there: the run's lock is held.
pub(crate) fn clear_unfinished(folder: &Path) -> Result<(), TrainError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(TrainError::io("cannot read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(UNFINISHED) || name.starts_with(".step-") || is_unfinished_file(&name) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Whether a file is one that was to take the place of another: `.metrics.jsonl.aeFcmy`, as `atomic-write-file` names them.
fn is_unfinished_file(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|name| name.rsplit_once('.'));
    parts.is_some_and(|(file, random)| {
        file.contains('.') && random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn remove(path: &Path) -> Result<(), TrainError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::io("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_left_goes_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let unfinished = [".metrics.jsonl.aeFcmy", ".pair_deltas.jsonl.zULn0w", ".model-x", ".step-3"];
        let others = [".lock", "metrics.jsonl", ".hidden.toml", "model.tar.abcdef"];
        for name in unfinished.iter().chain(&others) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        clear_unfinished(folder.path()).unwrap();
        let is_there = |name: &&&str| folder.path().join(name).exists();
        assert_eq!(unfinished.iter().filter(is_there).count(), 0);
        assert_eq!(others.iter().filter(is_there).count(), others.len());
    }
}
