//! Checkpoints: a Hugging Face folder with the training state.
//!
//! Writes are atomic: a checkpoint is written to a hidden sibling folder, which is renamed at the end. Only the newest
//! two checkpoints keep the optimizer's state, three fp32 numbers per parameter. If the state is sharded, each rank
//! writes its shard into the folder that rank 0 creates and renames. Any number of ranks can resume from the shards.

use std::fs;
use std::path::{Path, PathBuf};

use distributed::{Layout, ProcessGroup, Rank, Run, Shard};
use policy_model::{Companions, UNFINISHED, write_tensors};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::TrainError;
use crate::run_inputs::{AcceptedChange, Provenance, RunInputs};
use crate::seen::{Seen, SeenFile};
use crate::state::{SavedState, TrainerState};

/// The folder of the training state.
const STATE_FOLDER: &str = "trainer";
/// The folder of low-rank adapters in peft's format, if adapters are trained. The checkpoint's weights have them
/// merged.
pub(crate) const ADAPTER: &str = "adapter";
/// The number of checkpoints that keep the optimizer's state.
const STATES_KEPT: usize = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    step: u64,
    total_steps: u64,
    elements: i64,
    /// The bits of β-DPO's running mean margin, which a decimal number might round; absent for other losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    margin_mean: Option<u64>,
    /// The evaluations so far, for early stopping; absent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evaluations: Option<SeenFile>,
    /// The shards of the state; absent if the state is in one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shards: Option<Shards>,
    /// The inputs of the run; absent in checkpoints of earlier versions and of runs without a recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inputs: Option<RunInputs>,
    /// Changes of the inputs that a user accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    accepted_changes: Vec<AcceptedChange>,
}

/// The layout of the stored shards: the number of parts, and the length of the pieces that alternate among them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shards {
    parts: u16,
    piece: i64,
    /// Elements and length of the pieces of each region, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    regions: Vec<(i64, i64)>,
}

impl Shards {
    fn of(layout: &Layout) -> Option<Self> {
        let shards = layout.regions().iter().map(|region| (region.shard.elements, region.shard.piece));
        let regions: Vec<(i64, i64)> = shards.collect();
        let (_, piece) = *regions.first().filter(|_| !layout.is_whole())?;
        let regions = if regions.len() > 1 { regions } else { Vec::new() };
        Some(Self { parts: layout.rank().world_size() as u16, piece, regions })
    }

    /// Whether they can be read: pieces have elements, and regions are the whole state.
    fn are_valid(&self, elements: i64) -> bool {
        let mut pieces = self.regions.iter().map(|(_, piece)| *piece).chain([self.piece]);
        let sum = self
            .regions
            .iter()
            .try_fold(0_i64, |sum, &(length, _)| sum.checked_add(length).filter(|_| length > 0));
        self.parts > 0 && pieces.all(|piece| piece > 0) && (self.regions.is_empty() || sum == Some(elements))
    }
}

impl StateFile {
    /// Returns the layout of each stored part.
    fn layouts(&self) -> Vec<Layout> {
        let elements = self.elements;
        let Some(Shards { parts, piece, regions }) = &self.shards else {
            return vec![Layout::whole(elements)];
        };
        let of_rank = |rank: Rank| match regions.as_slice() {
            [] => Layout::single(Shard { rank, elements, piece: *piece }),
            regions => {
                Layout::of_shards(regions.iter().map(|&(elements, piece)| Shard { rank, elements, piece }))
            }
        };
        ranks_of(*parts).map(of_rank).collect()
    }
}

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
    let (avg, avg_sq) = (&snapshot.optimizer.exp_avg, &snapshot.optimizer.exp_avg_sq);
    let named = [("master", snapshot.master), ("exp_avg", avg), ("exp_avg_sq", avg_sq)]
        .map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
    let (state, name) = (partial.join(STATE_FOLDER), part_name(snapshot.layout.rank()));
    files::fault::point("trainer.checkpoint.part");
    write_tensors(&state.join(&name), &named, Kind::Float)?;
    seal(&state, &name.replace(".safetensors", ".b3"), &name)
}

/// Returns the file name of a rank's shard.
fn part_name(rank: Rank) -> String {
    match rank.world_size() {
        1 => "optimizer.safetensors".to_owned(),
        parts => format!("optimizer-{:05}-of-{parts:05}.safetensors", rank.index() + 1),
    }
}

fn require_all_parts(partial: &Path, own: Rank) -> Result<(), TrainError> {
    for rank in ranks_of(own.world_size() as u16) {
        if !partial.join(STATE_FOLDER).join(part_name(rank)).exists() {
            return Err(TrainError::NotShared { path: partial.into(), rank: rank.index() });
        }
    }
    Ok(())
}

fn ranks_of(world_size: u16) -> impl Iterator<Item = Rank> {
    (0..world_size).filter_map(move |index| Rank::new(index, world_size).ok())
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
    layout: &Layout,
    group: &ProcessGroup,
) -> Result<Option<SavedState>, TrainError> {
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
            Ok(SavedState::zeros(step, layout.length()))
        } else {
            read_state(&path, layout)
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
                    for tensor in [&state.master, &state.exp_avg, &state.exp_avg_sq] {
                        group.broadcast_tensor_from_rank0(tensor)?;
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

/// Reads the elements of `layout` from a checkpoint's state, which may have any number of shards.
fn read_state(checkpoint: &Path, layout: &Layout) -> Result<SavedState, TrainError> {
    let damaged = |why: String| TrainError::DamagedCheckpoint { path: checkpoint.into(), why };
    let path = checkpoint.join(STATE_FOLDER).join("state.json");
    let json = files::read_checked(&path).map_err(|error| damaged(described("state.json", &error)))?;
    let file: StateFile = serde_json::from_slice(&json).map_err(|e| damaged(format!("state.json: {e}")))?;
    let elements = layout.elements();
    if file.elements != elements {
        return Err(damaged(format!("it has {} parameters, the model {elements}", file.elements)));
    }
    let margin_mean = file.margin_mean.map(f64::from_bits);
    let seen = file.evaluations.as_ref().map_or(Seen::default(), SeenFile::seen);
    let state = SavedState { margin_mean, seen, ..SavedState::zeros(file.step, layout.length()) };
    if file.shards.as_ref().is_some_and(|shards| !shards.are_valid(elements)) {
        return Err(damaged("state.json: `shards` do not cover the state".to_owned()));
    }
    for part in file.layouts() {
        let common: Vec<(i64, Run)> = part
            .all_runs()
            .flat_map(|there| {
                let here = layout.runs(there.in_flat, there.length);
                here.map(move |run| (there.in_shard + run.in_flat - there.in_flat, run))
            })
            .collect();
        if common.is_empty() {
            continue;
        }
        let name = part_name(part.rank());
        let path = checkpoint.join(STATE_FOLDER).join(&name);
        files::check_file(&path).map_err(|error| damaged(described(&name, &error)))?;
        let tensors = Tensor::read_safetensors(path).map_err(|error| damaged(format!("{name}: {error}")))?;
        for (wanted, target) in
            [("master", &state.master), ("exp_avg", &state.exp_avg), ("exp_avg_sq", &state.exp_avg_sq)]
        {
            let tensor = tensors.iter().find(|(n, _)| n == wanted).map(|(_, t)| t);
            let tensor = tensor.ok_or_else(|| damaged(format!("{name} lacks `{wanted}`")))?;
            let (size, kind) = (tensor.size(), tensor.kind());
            if size != [part.length()] || kind != Kind::Float {
                return Err(damaged(format!("`{wanted}` of {name} has shape {size:?} and kind {kind:?}")));
            }
            for &(from, Run { in_shard, length, .. }) in &common {
                target.narrow(0, in_shard, length).copy_(&tensor.narrow(0, from, length));
            }
        }
    }
    Ok(state)
}

/// Describes an unreadable file, without the remedy for files that have no copy.
fn described(name: &str, error: &std::io::Error) -> String {
    let damage = error.get_ref().and_then(|inner| inner.downcast_ref::<files::Damage>());
    damage.map_or_else(|| format!("{name}: {error}"), |damage| format!("{name} {}", damage.problem))
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
    use tch::Device;

    use super::*;

    fn state_file(elements: i64, shards: Shards) -> StateFile {
        StateFile {
            step: 3,
            total_steps: 9,
            elements,
            margin_mean: None,
            evaluations: None,
            shards: Some(shards),
            inputs: None,
            accepted_changes: Vec::new(),
        }
    }

    /// Writes a state of `elements` weights with this layout. The values are the elements' indices, plus
    /// 0, 100 and 200.
    fn write_state(checkpoint: &Path, elements: i64, shards: Shards) {
        fs::create_dir_all(checkpoint.join(STATE_FOLDER)).unwrap();
        let file = state_file(elements, shards);
        fs::write(checkpoint.join("trainer/state.json"), serde_json::to_vec(&file).unwrap()).unwrap();
        for layout in file.layouts() {
            let named = [("master", 0.0), ("exp_avg", 100.0), ("exp_avg_sq", 200.0)].map(|(name, first)| {
                let part = Tensor::full([layout.length()], -1.0, (Kind::Float, Device::Cpu));
                for Run { in_shard, in_flat, length } in layout.all_runs() {
                    let numbers = Tensor::arange(length, (Kind::Float, Device::Cpu)) + in_flat + first;
                    part.narrow(0, in_shard, length).copy_(&numbers);
                }
                (name.to_owned(), part)
            });
            write_tensors(&checkpoint.join(STATE_FOLDER).join(part_name(layout.rank())), &named, Kind::Float)
                .unwrap();
        }
    }

    #[test]
    fn any_number_of_ranks_reads_any_number_of_shards() {
        let folder = tempfile::tempdir().unwrap();
        let one_region = [(1, 37), (2, 19), (2, 4), (3, 6), (5, 1)];
        let one_region = one_region.map(|(parts, piece)| Shards { parts, piece, regions: Vec::new() });
        let several = [vec![(30, 4), (7, 2)], vec![(1, 1), (1, 1), (35, 9)]];
        let several = several.map(|regions| Shards { parts: 3, piece: 1, regions });
        let layouts: Vec<Shards> = one_region.into_iter().chain(several).collect();
        for (written, shards) in layouts.iter().enumerate() {
            let checkpoint = folder.path().join(written.to_string());
            write_state(&checkpoint, 37, shards.clone());
            for shards in &layouts {
                for shard in state_file(37, shards.clone()).layouts() {
                    let state = read_state(&checkpoint, &shard).unwrap();
                    assert_eq!(state.step, 3);
                    for (tensor, first) in
                        [(&state.master, 0.0), (&state.exp_avg, 100.0), (&state.exp_avg_sq, 200.0)]
                    {
                        let mut expected = vec![0f32; shard.length() as usize];
                        for Run { in_shard, in_flat, length } in shard.all_runs() {
                            for k in 0..length {
                                expected[(in_shard + k) as usize] = first + (in_flat + k) as f32;
                            }
                        }
                        assert_eq!(Vec::<f32>::try_from(tensor).unwrap(), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_state_is_found() {
        let folder = tempfile::tempdir().unwrap();
        write_state(folder.path(), 3, Shards { parts: 1, piece: 3, regions: Vec::new() });
        let state = folder.path().join(STATE_FOLDER);
        files::seal(&state).unwrap();
        let layout = Layout::whole(3);
        read_state(folder.path(), &layout).unwrap();
        for name in ["state.json", "optimizer.safetensors"] {
            let intact = fs::read(state.join(name)).unwrap();
            for bit in 0..8 * intact.len() {
                let mut flipped = intact.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(state.join(name), &flipped).unwrap();
                let error = read_state(folder.path(), &layout).unwrap_err().to_string();
                assert!(error.contains(&format!("{name} differs from its checksum")), "{error}");
            }
            fs::write(state.join(name), &intact).unwrap();
        }
    }

    #[test]
    fn a_missing_shard_or_another_model_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        write_state(folder.path(), 10, Shards { parts: 2, piece: 5, regions: Vec::new() });
        let error = |elements| read_state(folder.path(), &Layout::whole(elements)).unwrap_err().to_string();
        assert!(error(11).contains("10 parameters, the model 11"), "{}", error(11));
        fs::remove_file(folder.path().join("trainer/optimizer-00002-of-00002.safetensors")).unwrap();
        assert!(error(10).contains("optimizer-00002-of-00002"), "{}", error(10));
    }

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
