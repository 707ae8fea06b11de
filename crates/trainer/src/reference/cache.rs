//! The reference's log-probabilities on disk, where every run of the same model and data finds them.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use distributed::{ProcessGroup, hash_model, hash_sequences};
use policy_model::{ModelConfig, Policy};
use pref_data::TokenPair;
use tch::Kind;

use super::SequenceLogps;
use crate::context::Progress;
use crate::error::TrainError;
use crate::recipe::Recipe;
use crate::run_dir::write_atomically;
use crate::scoring::Scoring;
use crate::sequences::sequences;

/// A recipe's reference: its folder, and what tells it from others.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceModel {
    folder: PathBuf,
    digest: blake3::Hash,
}

impl ReferenceModel {
    /// Reads all of its files, but keeps no weight.
    pub(crate) fn read(recipe: &Recipe) -> Result<Self, TrainError> {
        let folder = PathBuf::from(recipe.model.reference.as_ref().unwrap_or(&recipe.model.path));
        if folder != Path::new(&recipe.model.path) {
            // A folder that holds no model is told as such, before anything is computed.
            ModelConfig::from_folder(&folder)?;
        }
        let mut hasher = blake3::Hasher::new();
        hash_model(&folder, &mut hasher)?;
        Ok(Self { folder, digest: hasher.finalize() })
    }
}

/// One pass of a reference over all pairs of the data, as a recipe asks for it, and the file that keeps it.
pub(crate) struct ReferencePass {
    reference: ReferenceModel,
    kind: Kind,
    scoring: Scoring,
    canonical: Vec<TokenPair>,
    file: PathBuf,
    may_read: bool,
}

impl ReferencePass {
    /// The pass over `all_tokens`, kept below the folder `cache`, or else below the recipe's output folder.
    pub(crate) fn new(
        recipe: &Recipe,
        reference: ReferenceModel,
        kind: Kind,
        scoring: Scoring,
        all_tokens: &[TokenPair],
        cache: Option<&Path>,
    ) -> Self {
        let canonical = canonical(all_tokens);
        let key = cache_key(&reference, kind, scoring, &canonical);
        let cache = cache.unwrap_or(&recipe.output.dir).join("reference");
        let file = cache.join(format!("{key}.logps"));
        Self { reference, kind, scoring, canonical, file, may_read: recipe.speed.reference_cache }
    }

    /// How many sequences it scores: two a pair.
    pub(crate) fn sequences(&self) -> usize {
        2 * self.canonical.len()
    }

    /// What an earlier run kept. A damaged or foreign file is as good as none.
    pub(crate) fn cached(&self) -> Option<SequenceLogps> {
        if !self.may_read {
            return None;
        }
        SequenceLogps::from_bytes(&fs::read(&self.file).ok()?)
            .filter(|logps| logps.chosen.len() == self.canonical.len())
    }

    /// The log-probabilities, found by rank 0 or computed by all ranks and kept. `policy` comes from the folder `model`, without adapters: where that
    /// is the reference's too, nothing is loaded twice.
    pub(crate) fn table(
        self,
        policy: &Policy,
        model: &Path,
        group: &ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<ReferenceTable, TrainError> {
        let own = if group.is_main() { self.cached() } else { None };
        let own = own.map_or(Vec::new(), |logps| logps.to_bytes());
        let cached = group.broadcast_from_rank0(own)?;
        let logps = match SequenceLogps::from_bytes(&cached) {
            Some(logps) => logps,
            None if self.reference.folder == model => {
                self.compute(&policy.to_kind(self.kind)?, group, progress)?
            }
            None => {
                let reference = Policy::load(&self.reference.folder, self.kind, policy.device())?;
                self.compute(&reference, group, progress)?
            }
        };
        let mut by_tokens = BTreeMap::new();
        for (i, pair) in self.canonical.into_iter().enumerate() {
            by_tokens.insert((pair.prompt.clone(), pair.chosen), logps.chosen[i]);
            by_tokens.insert((pair.prompt, pair.rejected), logps.rejected[i]);
        }
        Ok(ReferenceTable { by_tokens })
    }

    fn compute(
        &self,
        reference: &Policy,
        group: &ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<SequenceLogps, TrainError> {
        progress.begin("reference log-probabilities", self.canonical.len() as u64);
        let advance = |done: usize| {
            progress.advance(done as u64, "");
            ControlFlow::Continue(())
        };
        let (pairs, scoring) = (&self.canonical, self.scoring);
        let logps = SequenceLogps::compute_together(group, reference, pairs, scoring, advance)?;
        progress.end();
        if !group.is_main() {
            return Ok(logps);
        }
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder).map_err(TrainError::io("cannot create", folder))?;
        }
        write_atomically(&self.file, &logps.to_bytes())?;
        Ok(logps)
    }
}

impl SequenceLogps {
    /// The file's bytes: all chosen, then all rejected, as little-endian f64, and their hash.
    fn to_bytes(&self) -> Vec<u8> {
        let logps = self.chosen.iter().chain(&self.rejected);
        let mut bytes: Vec<u8> = logps.flat_map(|logp| logp.to_le_bytes()).collect();
        bytes.extend(blake3::hash(&bytes).as_bytes());
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) wrote; none where it is damaged.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (bytes, hash) = bytes.split_last_chunk::<{ blake3::OUT_LEN }>()?;
        if blake3::hash(bytes) != *hash {
            return None;
        }
        let (numbers, rest) = bytes.as_chunks::<8>();
        let logps: Vec<f64> = numbers.iter().map(|&number| f64::from_le_bytes(number)).collect();
        let (chosen, rejected) = logps.split_at(logps.len() / 2);
        (rest.is_empty() && chosen.len() == rejected.len())
            .then(|| Self { chosen: chosen.to_vec(), rejected: rejected.to_vec() })
    }
}

/// Reference log-probabilities of every response of the data, found by the response's tokens.
///
/// They are taken over *all* pairs of the data in a canonical order, whatever fraction and noise the run selects, so
/// that runs that share model and data share them to the last bit.
pub(crate) struct ReferenceTable {
    by_tokens: BTreeMap<(Vec<u32>, Vec<u32>), f64>,
}

impl ReferenceTable {
    /// Of `pairs`, which are among those that the table was made of.
    pub(crate) fn of(&self, pairs: &[TokenPair]) -> SequenceLogps {
        let find = |prompt: &[u32], response: &[u32]| self.by_tokens[&(prompt.to_vec(), response.to_vec())];
        SequenceLogps {
            chosen: pairs.iter().map(|p| find(&p.prompt, &p.chosen)).collect(),
            rejected: pairs.iter().map(|p| find(&p.prompt, &p.rejected)).collect(),
        }
    }
}

/// The pairs without regard to who won: the response whose tokens sort first stands as chosen.
fn canonical(pairs: &[TokenPair]) -> Vec<TokenPair> {
    let mut canonical = pairs.to_vec();
    for pair in &mut canonical {
        if pair.rejected < pair.chosen {
            std::mem::swap(&mut pair.chosen, &mut pair.rejected);
        }
    }
    canonical
}

/// Addresses reference log-probabilities by everything that determines them.
fn cache_key(reference: &ReferenceModel, kind: Kind, scoring: Scoring, pairs: &[TokenPair]) -> String {
    let mut hasher = blake3::Hasher::new();
    // What is kept for a backward pass is no matter of log-probabilities.
    let Scoring { layout, padding, head, activations: _ } = scoring;
    hasher.update(
        format!("reference log-probabilities v4 {kind:?} {layout:?} {padding:?} {head:?}").as_bytes(),
    );
    hasher.update(reference.digest.as_bytes());
    hash_sequences(sequences(pairs), &mut hasher);
    hasher.finalize().to_hex()[..32].to_owned()
}
