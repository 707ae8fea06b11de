//! Checkpoints: a Hugging Face folder with the training state.
//!
//! Writes are atomic: a checkpoint is written to a hidden sibling folder, which is renamed at the end. Only the newest
//! two checkpoints keep the optimizer's state, three fp32 numbers per parameter. If the state is sharded, each rank
//! writes its shard into the folder that rank 0 creates and renames. Any number of ranks can resume from the shards.

use std::fs;
use std::path::{Path, PathBuf};

use distributed::{ProcessGroup, Rank};
use policy_model::{Companions, UNFINISHED, write_tensors_as_they_are};
use tch::Kind;

use crate::error::TrainError;
use crate::moments::MOMENTS;
use crate::run_inputs::Provenance;
use crate::seen::SeenFile;
use crate::state::{SavedState, StateShape, TrainerState};

mod state;

use state::{MASTER, STATE_FOLDER, Shards, StateFile, part_name, ranks_of, read_state};

/// The folder of low-rank adapters in peft's format, if adapters are trained. The checkpoint's weights have them
/// merged.
pub(crate) const ADAPTER: &str = "adapter";
/// The number of checkpoints that keep the optimizer's state.
const STATES_KEPT: usize = 2;

/// Writes `folder/step-N`; `companions` contains the tokenizer files of a complete Hugging Face folder, `base` the model below
/// adapters.
pub(crate) fn write(
    folder: &Path,
    snapshot: &TrainerState<'_>,
    kind: Kind,
    (companions, base): (Companions<'_>, &Path),
    provenance: &Provenance,
) -> Result<PathBuf, TrainError> {
    let target = folder.join(format!("step-{}", snapshot.step));
    let partial = folder.join(format!(".step-{}.partial", snapshot.step));
    fs::create_dir_all(folder).map_err(TrainError::io("cannot create", folder))?;
    remove(&partial)?;
    let written = fill(&partial, snapshot, kind, (companions, base), provenance).and_then(|()| {
        snapshot.policy.finish_passes()?;
        if !snapshot.layout.is_whole() {
            // The other ranks write into this folder, which now exists.
            snapshot.group.barrier()?;
            write_part(&partial, snapshot)?;
            snapshot.group.barrier()?;
            require_all_parts(&partial, snapshot.layout.rank())?;
        }
        files::fault::point("trainer.checkpoint.filled");
        remove(&target)?;
        fs::rename(&partial, &target).map_err(TrainError::io("cannot create", &target))?;
        files::fault::point("trainer.checkpoint.renamed");
        files::fault::torn(
            "trainer.checkpoint.torn",
            &target.join(STATE_FOLDER).join(part_name(snapshot.layout.rank())),
            u64::MAX,
        );
        files::sync_dir(folder).map_err(TrainError::io("cannot sync", folder))?;
        Ok(())
    });
    if written.is_err() {
        // The disk may be full: remove the partial folder and report the first error.
        let _ = remove(&partial);
    }
    written?;
    drop_states(folder, STATES_KEPT)?;
    Ok(target)
}

/// Writes this rank's shard of the state into the folder that rank 0 [creates](write).
pub(crate) fn write_along(folder: &Path, snapshot: &TrainerState<'_>) -> Result<(), TrainError> {
    snapshot.policy.finish_passes()?;
    if snapshot.layout.is_whole() {
        return Ok(());
    }
    snapshot.group.barrier()?;
    let partial = folder.join(format!(".step-{}.partial", snapshot.step));
    if !partial.exists() {
        return Err(TrainError::NotShared { path: folder.into(), rank: snapshot.layout.rank().index() });
    }
    write_part(&partial, snapshot)?;
    Ok(snapshot.group.barrier()?)
}

/// Checks that all ranks see the same folder, into which each writes its shard.
pub(crate) fn require_shared(folder: &Path, group: &ProcessGroup) -> Result<(), TrainError> {
    let made = group.compute_on_rank0::<TrainError>(|| {
        fs::create_dir_all(folder).map_err(TrainError::io("cannot create", folder))?;
        let name = format!("{UNFINISHED}seen-by-all-{}", std::process::id());
        fs::write(folder.join(&name), "").map_err(TrainError::io("cannot write", folder.join(&name)))?;
        Ok(name.into_bytes())
    })?;
    let path = folder.join(String::from_utf8_lossy(&made).as_ref());
    let is_missing = !path.exists();
    let is_missed = group.any(is_missing);
    if group.is_main() {
        remove(&path)?;
    }
    match is_missed? {
        true if is_missing => Err(TrainError::NotShared { path: folder.into(), rank: group.rank().index() }),
        // The rank that does not see the folder returns the error.
        true => Ok(group.barrier()?),
        false => Ok(()),
    }
}

/// Returns the base model of an adapter's configuration, as a path that is valid from any folder.
pub(crate) fn base_name(model: &Path) -> String {
    std::path::absolute(model).unwrap_or_else(|_| model.to_owned()).display().to_string()
}

fn fill(
    partial: &Path,
    snapshot: &TrainerState<'_>,
    kind: Kind,
    (companions, base): (Companions<'_>, &Path),
    provenance: &Provenance,
) -> Result<(), TrainError> {
    snapshot.policy.save_with(partial, kind, companions)?;
    files::fault::point("trainer.checkpoint.model");
    if snapshot.policy.adapters().is_some() {
        snapshot.policy.save_adapters(&partial.join(ADAPTER), Kind::Float, &base_name(base))?;
    }
    let state = partial.join(STATE_FOLDER);
    fs::create_dir_all(&state).map_err(TrainError::io("cannot create", &state))?;
    let file = StateFile {
        step: snapshot.step,
        total_steps: snapshot.total_steps,
        elements: snapshot.layout.elements(),
        margin_mean: snapshot.margin_mean.map(f64::to_bits),
        evaluations: snapshot.seen.map(SeenFile::of),
        shards: Shards::of(&snapshot.layout),
        inputs: provenance.inputs.clone(),
        accepted_changes: provenance.accepted.clone(),
    };
    let path = state.join("state.json");
    let json = serde_json::to_vec_pretty(&file)
        .map_err(|source| TrainError::io("cannot write", &path)(source.into()))?;
    files::write(&path, &json).map_err(TrainError::io("cannot write", &path))?;
    if snapshot.layout.is_whole() {
        write_part(partial, snapshot)?;
    }
    seal(&state, files::MANIFEST, "state.json")
}

/// Writes the checksum of one file of a state's folder. Each rank has its own list, because each writes its own shard.
fn seal(state: &Path, manifest: &str, name: &str) -> Result<(), TrainError> {
    files::seal_files(state, manifest, &[name.to_owned()])
        .map_err(TrainError::io("cannot write the checksums of", state))
}

fn write_part(partial: &Path, snapshot: &TrainerState<'_>) -> Result<(), TrainError> {
    let mut named = vec![(MASTER.to_owned(), snapshot.master.shallow_clone())];
    for (name, moment) in MOMENTS.iter().zip(&snapshot.optimizer.moments) {
        named.extend(moment.tensors(name));
    }
    let (state, name) = (partial.join(STATE_FOLDER), part_name(snapshot.layout.rank()));
    files::fault::point("trainer.checkpoint.part");
    write_tensors_as_they_are(&state.join(&name), &named)?;
    seal(&state, &name.replace(".safetensors", ".b3"), &name)
}

fn require_all_parts(partial: &Path, own: Rank) -> Result<(), TrainError> {
    for rank in ranks_of(own.world_size() as u16) {
        if !partial.join(STATE_FOLDER).join(part_name(rank)).exists() {
            return Err(TrainError::NotShared { path: partial.into(), rank: rank.index() });
        }
    }
    Ok(())
}

/// Returns the checkpoints in `folder`, ordered by step.
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

/// Reads the run's inputs, and the step, from the newest checkpoint with a readable `state.json`.
pub(crate) fn recorded_inputs(folder: &Path) -> Result<Option<(u64, Provenance)>, TrainError> {
    for (step, path) in list(folder)?.into_iter().rev() {
        let Ok(json) = files::read_checked(&path.join(STATE_FOLDER).join("state.json")) else { continue };
        if let Ok(file) = serde_json::from_slice::<StateFile>(&json) {
            return Ok(Some((step, Provenance { inputs: file.inputs, accepted: file.accepted_changes })));
        }
    }
    Ok(None)
}

/// Restores this rank's part of the state from the newest checkpoint with an intact state; damaged ones are skipped with a
/// warning. If ranks hold the whole state, rank 0 of `group` reads and broadcasts it.
pub(crate) fn newest_state(
    folder: &Path,
    shape: StateShape<'_>,
    group: &ProcessGroup,
) -> Result<Option<SavedState>, TrainError> {
    let layout = shape.layout;
    let steps = group.compute_on_rank0(|| {
        let with_state = list(folder)?.into_iter().filter(|(_, path)| path.join(STATE_FOLDER).exists());
        Ok::<_, TrainError>(with_state.rev().flat_map(|(step, _)| step.to_le_bytes()).collect())
    })?;
    let (steps, _) = steps.as_chunks::<8>();
    for step in steps.iter().map(|step| u64::from_le_bytes(*step)) {
        let path = folder.join(format!("step-{step}"));
        if !layout.is_whole() && !path.exists() {
            return Err(TrainError::NotShared { path, rank: layout.rank().index() });
        }
        let read = if layout.is_whole() && !group.is_main() {
            SavedState::zeros(step, shape)
        } else {
            read_state(&path, shape)
        };
        let failed = group.any(read.is_err())?;
        match read {
            Ok(mut state) if !failed => {
                if layout.is_whole() {
                    let mean = state.margin_mean.map_or(Vec::new(), |mean| mean.to_le_bytes().to_vec());
                    let mean = group.broadcast_from_rank0(mean)?;
                    state.margin_mean = mean.first_chunk().map(|bytes| f64::from_le_bytes(*bytes));
                    let seen = serde_json::to_vec(&SeenFile::of(state.seen)).unwrap_or_default();
                    let seen = group.broadcast_from_rank0(seen)?;
                    state.seen =
                        serde_json::from_slice(&seen).map_or(state.seen, |file: SeenFile| file.seen());
                    group.broadcast_tensor_from_rank0(&state.master)?;
                    for (_, tensor) in state.moments.iter().flat_map(|moment| moment.tensors("")) {
                        group.broadcast_tensor_from_rank0(&tensor)?;
                    }
                }
                return Ok(Some(state));
            }
            Ok(_) => tracing::warn!(
                "another rank cannot read {}; falling back to the previous checkpoint",
                path.display()
            ),
            Err(error) => tracing::warn!("{error}; falling back to the previous checkpoint"),
        }
    }
    Ok(None)
}

/// Removes the optimizer's state from all but the newest `keep` checkpoints.
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

/// Removes all but the newest `keep` checkpoints and that of step `best`; 0 keeps all.
pub(crate) fn keep_last(folder: &Path, keep: usize, best: Option<u64>) -> Result<(), TrainError> {
    if keep == 0 {
        return Ok(());
    }
    for (step, path) in list(folder)?.iter().rev().skip(keep) {
        if best != Some(*step) {
            remove(path)?;
        }
    }
    Ok(())
}

/// Replaces the folder `to` by a copy of the files of `from`, which has no folders.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<(), TrainError> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let partial = to.with_file_name(format!("{UNFINISHED}{name}"));
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(TrainError::io("cannot create", &partial))?;
    for entry in fs::read_dir(from).map_err(TrainError::io("cannot read", from))? {
        let path = entry.map_err(TrainError::io("cannot read", from))?.path();
        let target = partial.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &target).map_err(TrainError::io("cannot copy", &path))?;
    }
    remove(to)?;
    fs::rename(&partial, to).map_err(TrainError::io("cannot create", to))
}

/// Removes the checkpoints of all other steps than `steps`.
pub(crate) fn retain(folder: &Path, steps: &[u64]) -> Result<(), TrainError> {
    for (step, path) in list(folder)? {
        if !steps.contains(&step) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes unfinished files of killed writers from `folder`. The run's lock excludes other writers.
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

/// Whether a file is a temporary one of an atomic write: `.metrics.jsonl.aeFcmy`, as `atomic-write-file` names them.
fn is_unfinished_file(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|name| name.rsplit_once('.'));
    parts.is_some_and(|(file, random)| {
        file.contains('.') && random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

pub(crate) fn remove(path: &Path) -> Result<(), TrainError> {
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
    fn only_unfinished_files_of_killed_writers_are_removed() {
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
