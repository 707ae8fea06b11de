//! The files of a checkpoint's training state: one for what all ranks share, and one for each shard.

use std::path::Path;

use distributed::{Layout, Rank, Run, Shard};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;
use crate::moments::{MOMENTS, Moment, MomentKind};
use crate::run_inputs::{AcceptedChange, RunInputs};
use crate::seen::{Seen, SeenFile};
use crate::state::{SavedState, StateShape};

/// The folder of the training state.
pub(super) const STATE_FOLDER: &str = "trainer";
/// The name of the master weights in a state.
pub(super) const MASTER: &str = "master";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateFile {
    pub(super) step: u64,
    pub(super) total_steps: u64,
    pub(super) elements: i64,
    /// The bits of β-DPO's running mean margin, which a decimal number might round; absent for other losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) margin_mean: Option<u64>,
    /// The evaluations so far, for early stopping; absent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) evaluations: Option<SeenFile>,
    /// The shards of the state; absent if the state is in one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shards: Option<Shards>,
    /// The inputs of the run; absent in checkpoints of earlier versions and of runs without a recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) inputs: Option<RunInputs>,
    /// Changes of the inputs that a user accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) accepted_changes: Vec<AcceptedChange>,
}

/// The layout of the stored shards: the number of parts, and the length of the pieces that alternate among them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shards {
    parts: u16,
    piece: i64,
    /// Elements and length of the pieces of each region, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    regions: Vec<(i64, i64)>,
}

impl Shards {
    pub(super) fn of(layout: &Layout) -> Option<Self> {
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

/// Returns the file name of a rank's shard.
pub(super) fn part_name(rank: Rank) -> String {
    match rank.world_size() {
        1 => "optimizer.safetensors".to_owned(),
        parts => format!("optimizer-{:05}-of-{parts:05}.safetensors", rank.index() + 1),
    }
}

pub(super) fn ranks_of(world_size: u16) -> impl Iterator<Item = Rank> {
    (0..world_size).filter_map(move |index| Rank::new(index, world_size).ok())
}

/// Reads a rank's elements from a checkpoint's state, which may have any number of shards.
pub(super) fn read_state(checkpoint: &Path, shape: StateShape<'_>) -> Result<SavedState, TrainError> {
    let damaged = |why: String| TrainError::DamagedCheckpoint { path: checkpoint.into(), why };
    let path = checkpoint.join(STATE_FOLDER).join("state.json");
    let json = files::read_checked(&path).map_err(|error| damaged(described("state.json", &error)))?;
    let file: StateFile = serde_json::from_slice(&json).map_err(|e| damaged(format!("state.json: {e}")))?;
    let elements = shape.layout.elements();
    if file.elements != elements {
        return Err(damaged(format!("it has {} parameters, the model {elements}", file.elements)));
    }
    if file.shards.as_ref().is_some_and(|shards| !shards.are_valid(elements)) {
        return Err(damaged("state.json: `shards` do not cover the state".to_owned()));
    }
    let margin_mean = file.margin_mean.map(f64::from_bits);
    let seen = file.evaluations.as_ref().map_or(Seen::default(), SeenFile::seen);
    let mut state = SavedState { margin_mean, seen, ..SavedState::zeros(file.step, shape)? };
    let mut moments = MomentReader::new(shape);
    for part in file.layouts() {
        let common = common_runs(&part, shape.layout);
        if common.is_empty() {
            continue;
        }
        let name = part_name(part.rank());
        let path = checkpoint.join(STATE_FOLDER).join(&name);
        files::check_file(&path).map_err(|error| damaged(described(&name, &error)))?;
        let tensors = Tensor::read_safetensors(path).map_err(|error| damaged(format!("{name}: {error}")))?;
        let tensor = |wanted: &str, length: i64, kind: Kind| {
            let found = tensors.iter().find(|(n, _)| n == wanted).map(|(_, tensor)| tensor);
            let tensor = found.ok_or_else(|| damaged(format!("{name} lacks `{wanted}`")))?;
            let (size, found) = (tensor.size(), tensor.kind());
            if size != [length] || found != kind {
                return Err(damaged(format!("`{wanted}` of {name} has shape {size:?} and kind {found:?}")));
            }
            Ok(tensor.shallow_clone())
        };
        let master = tensor(MASTER, part.length(), Kind::Float)?;
        for &(from, Run { in_shard, length, .. }) in &common {
            state.master.narrow(0, in_shard, length).copy_(&master.narrow(0, from, length));
        }
        moments.read(&part, &common, tensor)?;
    }
    moments.finish(&mut state.moments)?;
    Ok(state)
}

/// The runs that a rank has in common with a stored part, each with its position in that part.
fn common_runs(part: &Layout, own: &Layout) -> Vec<(i64, Run)> {
    let runs = part.all_runs().flat_map(|there| {
        let here = own.runs(there.in_flat, there.length);
        here.map(move |run| (there.in_shard + run.in_flat - there.in_flat, run))
    });
    runs.collect()
}

/// Collects the moments of a rank from stored parts. Moments in eight bits are copied as they are from a part with the rank's own
/// elements. Other blocks of other parts have other scales, so that these moments are rounded again.
struct MomentReader<'a> {
    shape: StateShape<'a>,
    float: Option<[Tensor; 2]>,
    copied: Option<[Moment; 2]>,
}

impl<'a> MomentReader<'a> {
    fn new(shape: StateShape<'a>) -> Self {
        Self { shape, float: None, copied: None }
    }

    fn read(
        &mut self,
        part: &Layout,
        common: &[(i64, Run)],
        tensor: impl Fn(&str, i64, Kind) -> Result<Tensor, TrainError>,
    ) -> Result<(), TrainError> {
        let stored = StateShape { layout: part, ..self.shape };
        let read = |name: &str| {
            Ok::<_, TrainError>(match self.shape.moments {
                MomentKind::Float => Moment::Float(tensor(name, part.length(), Kind::Float)?),
                MomentKind::EightBit => Moment::EightBit {
                    codes: tensor(name, part.length(), Kind::Uint8)?,
                    scales: tensor(&format!("{name}_scales"), stored.blocks().count(), Kind::Float)?,
                },
            })
        };
        let moments = [read(MOMENTS[0])?, read(MOMENTS[1])?];
        if self.shape.moments == MomentKind::EightBit && part == self.shape.layout {
            self.copied = Some(moments);
            return Ok(());
        }
        let zeros = || Tensor::zeros([self.shape.layout.length()], (Kind::Float, Device::Cpu));
        let float = self.float.get_or_insert_with(|| [zeros(), zeros()]);
        for (at, moment) in moments.iter().enumerate() {
            let values = moment.to_float(&stored.blocks(), at == 0)?;
            for &(from, Run { in_shard, length, .. }) in common {
                float[at].narrow(0, in_shard, length).copy_(&values.narrow(0, from, length));
            }
        }
        Ok(())
    }

    /// Writes what was read.
    fn finish(self, moments: &mut [Moment; 2]) -> Result<(), TrainError> {
        if let Some(copied) = self.copied {
            *moments = copied;
        } else if let Some(float) = self.float {
            for (at, (moment, float)) in moments.iter_mut().zip(float).enumerate() {
                *moment = match self.shape.moments {
                    MomentKind::Float => Moment::Float(float),
                    MomentKind::EightBit => Moment::quantized(&float, &self.shape.blocks(), at == 0)?,
                };
            }
        }
        Ok(())
    }
}

/// Describes an unreadable file, without the remedy for files that have no copy.
pub(super) fn described(name: &str, error: &std::io::Error) -> String {
    let damage = error.get_ref().and_then(|inner| inner.downcast_ref::<files::Damage>());
    damage.map_or_else(|| format!("{name}: {error}"), |damage| format!("{name} {}", damage.problem))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use policy_model::write_tensors_as_they_are;

    use super::*;
    use crate::span::Span;

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

    /// The shape of a state in fp32, which does not depend on the parameters.
    fn float_shape(layout: &Layout) -> StateShape<'_> {
        StateShape { layout, spans: &[], moments: MomentKind::Float }
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
            let path = checkpoint.join(STATE_FOLDER).join(part_name(layout.rank()));
            write_tensors_as_they_are(&path, &named).unwrap();
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
                    let state = read_state(&checkpoint, float_shape(&shard)).unwrap();
                    assert_eq!(state.step, 3);
                    let [Moment::Float(avg), Moment::Float(avg_sq)] = &state.moments else {
                        panic!("in fp32")
                    };
                    for (tensor, first) in [(&state.master, 0.0), (avg, 100.0), (avg_sq, 200.0)] {
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

    fn in_eight_bits<'a>(layout: &'a Layout, spans: &'a [Span]) -> StateShape<'a> {
        StateShape { layout, spans, moments: MomentKind::EightBit }
    }

    #[test]
    fn moments_in_eight_bits_are_read_as_they_are_or_rounded_again() {
        let folder = tempfile::tempdir().unwrap();
        let span = |offset, length| Span { name: "a.weight".to_owned(), offset, shape: vec![length] };
        let spans = [span(0, 300), span(300, 5), span(305, 695)];
        let shapes = [(1, 1000), (2, 320), (3, 256)];
        let shapes = shapes.map(|(parts, piece)| Shards { parts, piece, regions: Vec::new() });
        let values = [0.7, 0.3].map(|factor| {
            (Tensor::arange(1000, (Kind::Float, Device::Cpu)) * factor).sin().square() * factor
        });
        let of_layout = |flat: &Tensor, layout: &Layout| {
            let part = Tensor::zeros([layout.length()], (Kind::Float, Device::Cpu));
            for Run { in_shard, in_flat, length } in layout.all_runs() {
                part.narrow(0, in_shard, length).copy_(&flat.narrow(0, in_flat, length));
            }
            part
        };
        for (written, shards) in shapes.iter().enumerate() {
            let checkpoint = folder.path().join(written.to_string());
            fs::create_dir_all(checkpoint.join(STATE_FOLDER)).unwrap();
            let file = state_file(1000, shards.clone());
            fs::write(checkpoint.join("trainer/state.json"), serde_json::to_vec(&file).unwrap()).unwrap();
            let quantized = |layout: &Layout, at: usize| {
                Moment::quantized(
                    &of_layout(&values[at], layout),
                    &in_eight_bits(layout, &spans).blocks(),
                    at == 0,
                )
                .unwrap()
            };
            for layout in file.layouts() {
                let mut named = vec![(MASTER.to_owned(), of_layout(&values[0], &layout))];
                named.extend(quantized(&layout, 0).tensors(MOMENTS[0]));
                named.extend(quantized(&layout, 1).tensors(MOMENTS[1]));
                let path = checkpoint.join(STATE_FOLDER).join(part_name(layout.rank()));
                write_tensors_as_they_are(&path, &named).unwrap();
            }
            for (read, shards) in shapes.iter().enumerate() {
                for layout in state_file(1000, shards.clone()).layouts() {
                    let state = read_state(&checkpoint, in_eight_bits(&layout, &spans)).unwrap();
                    for (at, moment) in state.moments.iter().enumerate() {
                        if read == written {
                            for (found, expected) in
                                moment.tensors("").iter().zip(quantized(&layout, at).tensors(""))
                            {
                                assert_eq!(found.1, expected.1);
                            }
                        }
                        let found =
                            moment.to_float(&in_eight_bits(&layout, &spans).blocks(), at == 0).unwrap();
                        let error = (found - of_layout(&values[at], &layout)).abs().max().double_value(&[]);
                        assert!(error < 0.02, "{error} of moment {at}");
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
        read_state(folder.path(), float_shape(&layout)).unwrap();
        for name in ["state.json", "optimizer.safetensors"] {
            let intact = fs::read(state.join(name)).unwrap();
            for bit in 0..8 * intact.len() {
                let mut flipped = intact.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(state.join(name), &flipped).unwrap();
                let error = read_state(folder.path(), float_shape(&layout)).unwrap_err().to_string();
                assert!(error.contains(&format!("{name} differs from its checksum")), "{error}");
            }
            fs::write(state.join(name), &intact).unwrap();
        }
    }

    #[test]
    fn a_missing_shard_or_another_model_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        write_state(folder.path(), 10, Shards { parts: 2, piece: 5, regions: Vec::new() });
        let error = |elements| {
            read_state(folder.path(), float_shape(&Layout::whole(elements))).unwrap_err().to_string()
        };
        assert!(error(11).contains("10 parameters, the model 11"), "{}", error(11));
        fs::remove_file(folder.path().join("trainer/optimizer-00002-of-00002.safetensors")).unwrap();
        assert!(error(10).contains("optimizer-00002-of-00002"), "{}", error(10));
    }
}
