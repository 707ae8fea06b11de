//! On-disk cache of the reference's log-probabilities, shared by runs of the same model and data.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use distributed::{ProcessGroup, hash_model, hash_sequences};
use policy_model::{ModelConfig, Policy, model_folders};
use pref_data::{Layout, Padding, TokenPair};
use pref_loss::LdAlpha;
use tch::Kind;

use super::SequenceLogps;
use super::source::ReferenceSource;
use crate::context::Progress;
use crate::error::TrainError;
use crate::recipe::Recipe;
use crate::scoring::{Head, Scoring};
use crate::sequences::sequences;

/// A recipe's reference and its digest.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceModel {
    source: ReferenceSource,
    digest: blake3::Hash,
    /// The digest of the weights below the policy's adapters, if they are part of the reference.
    below: Option<blake3::Hash>,
}

impl ReferenceModel {
    /// Hashes all files of the folder; keeps no weights in memory.
    pub(crate) fn read(recipe: &Recipe) -> Result<Self, TrainError> {
        let source = ReferenceSource::of(recipe)?;
        let hash = |folder: &Path| {
            let mut hasher = blake3::Hasher::new();
            hash_model(&model_folders(folder)?, &mut hasher)?;
            Ok::<_, TrainError>(hasher.finalize())
        };
        let in_memory = |files: blake3::Hash| match recipe.model.quantization {
            Some(quantization) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(quantization.name().as_bytes()).update(files.as_bytes());
                hasher.finalize()
            }
            None => files,
        };
        if let ReferenceSource::Folder(folder) = &source {
            // A folder without a model is an error before anything is computed.
            ModelConfig::from_folder(folder)?;
            let digest = in_memory(hash(folder)?);
            return Ok(Self { source, digest, below: None });
        }
        let below = hash(&recipe.policy_folder()?)?;
        let digest = match recipe.lora.init.as_ref().filter(|_| source == ReferenceSource::Start) {
            // Unlike those of a folder, these adapters are not merged.
            Some(adapters) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(b"adapters").update(below.as_bytes());
                hash_model(&[adapters.into()], &mut hasher)?;
                hasher.finalize()
            }
            None => below,
        };
        Ok(Self { source, digest: in_memory(digest), below: Some(below) })
    }

    /// Returns the digest of the weights below the policy's adapters, if they are part of the reference.
    pub(crate) fn digest_of_policy(&self) -> Option<String> {
        self.below.map(short)
    }

    /// Returns the digest of its files, and of the form of its weights in memory.
    pub(super) fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// Returns the reference for computation in `kind`. `policy` is that before training; if the reference has its weights, no
    /// second model is loaded.
    pub(crate) fn load(
        &self,
        policy: &Policy,
        kind: Kind,
        group: &ProcessGroup,
    ) -> Result<Policy, TrainError> {
        self.source.load(policy, kind, group)
    }

    /// Returns the first 16 hexadecimal digits of the digest of its files, as [`distributed::digest_of_model`] computes
    /// them.
    pub(crate) fn short_digest(&self) -> String {
        short(self.digest)
    }
}

fn short(hash: blake3::Hash) -> String {
    hash.to_hex()[..16].to_owned()
}

/// One pass of a recipe's reference over all pairs of the data, and the file of its result.
pub(crate) struct ReferencePass {
    reference: ReferenceModel,
    kind: Kind,
    scoring: Scoring,
    /// The weight of length-desensitized log-probabilities.
    ld_alpha: Option<LdAlpha>,
    canonical: Vec<TokenPair>,
    file: PathBuf,
    may_read: bool,
}

impl ReferencePass {
    /// Describes the pass over `all_tokens`. Its file is in the folder `cache`, or by default in the recipe's output
    /// folder.
    pub(crate) fn new(
        recipe: &Recipe,
        reference: ReferenceModel,
        kind: Kind,
        (scoring, ld_alpha): (Scoring, Option<LdAlpha>),
        all_tokens: &[TokenPair],
        cache: Option<&Path>,
    ) -> Self {
        let canonical = canonical(all_tokens);
        let key = cache_key(&reference, kind, (scoring, ld_alpha), &canonical);
        let cache = cache.unwrap_or(&recipe.output.dir).join("reference");
        let file = cache.join(format!("{key}.logps"));
        let may_read = recipe.speed.reference_cache;
        Self { reference, kind, scoring, ld_alpha, canonical, file, may_read }
    }

    /// Returns the number of scored sequences: two per pair.
    pub(crate) fn sequences(&self) -> usize {
        2 * self.canonical.len()
    }

    /// Reads the cached log-probabilities. A damaged or foreign file is ignored.
    pub(crate) fn cached(&self) -> Option<SequenceLogps> {
        if !self.may_read {
            return None;
        }
        let bytes = fs::read(&self.file).ok()?;
        let logps = SequenceLogps::from_bytes(&bytes);
        if logps.is_none() {
            tracing::warn!("{} is damaged: its log-probabilities are computed again", self.file.display());
        }
        logps.filter(|logps| logps.chosen.len() == self.canonical.len())
    }

    /// Returns the log-probabilities, read by rank 0 or computed by all ranks and cached. `policy` is that before training.
    pub(crate) fn table(
        self,
        policy: &Policy,
        group: &ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<ReferenceTable, TrainError> {
        let own = if group.is_main() { self.cached() } else { None };
        let own = own.map_or(Vec::new(), |logps| logps.to_bytes());
        let cached = group.broadcast_from_rank0(own)?;
        let logps = match SequenceLogps::from_bytes(&cached) {
            Some(logps) => logps,
            None => {
                let reference = self.reference.load(policy, self.kind, group)?;
                self.compute(&reference, group, progress)?
            }
        };
        let mut by_tokens = BTreeMap::new();
        let is_weighted = self.ld_alpha.is_some();
        for (i, pair) in self.canonical.into_iter().enumerate() {
            let plain = plain_tokens(is_weighted, &pair);
            by_tokens.insert((pair.prompt.clone(), pair.chosen, plain), logps.chosen[i]);
            by_tokens.insert((pair.prompt, pair.rejected, plain), logps.rejected[i]);
        }
        Ok(ReferenceTable { by_tokens, is_weighted })
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
        let (pairs, scoring) = (&self.canonical, (self.scoring, self.ld_alpha));
        let logps = SequenceLogps::compute_weighted(group, reference, pairs, scoring, advance)?;
        progress.end();
        if !group.is_main() {
            return Ok(logps);
        }
        files::write(&self.file, &logps.to_bytes()).map_err(TrainError::io("cannot write", &self.file))?;
        Ok(logps)
    }
}

impl SequenceLogps {
    /// Encodes all chosen, then all rejected.
    fn to_bytes(&self) -> Vec<u8> {
        encode(&[&*self.chosen, &self.rejected].concat())
    }

    /// Decodes the output of [`to_bytes`](Self::to_bytes); `None` if it is damaged.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut chosen = decode(bytes)?;
        let rejected = chosen.split_off(chosen.len() / 2);
        (chosen.len() == rejected.len()).then_some(Self { chosen, rejected })
    }
}

/// Encodes log-probabilities as little-endian f64, followed by their hash.
pub(super) fn encode(logps: &[f64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = logps.iter().flat_map(|logp| logp.to_le_bytes()).collect();
    bytes.extend(blake3::hash(&bytes).as_bytes());
    bytes
}

/// Decodes the output of [`encode`]; `None` if it is damaged.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<f64>> {
    let (bytes, hash) = bytes.split_last_chunk::<{ blake3::OUT_LEN }>()?;
    if blake3::hash(bytes) != *hash {
        return None;
    }
    let (numbers, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| numbers.iter().map(|&number| f64::from_le_bytes(number)).collect())
}

/// Reference log-probabilities of all responses of the data, by the response's tokens.
///
/// They are computed over *all* pairs in a canonical order, independent of fraction and noise. Runs with the same model
/// and data therefore share them bit for bit.
pub(crate) struct ReferenceTable {
    /// By prompt, response and the number of its plain tokens.
    by_tokens: BTreeMap<(Vec<u32>, Vec<u32>, usize), f64>,
    is_weighted: bool,
}

/// Returns the number of tokens before which a length-desensitized log-probability is a plain sum; 0 for plain sums,
/// which do not depend on the partner.
fn plain_tokens(is_weighted: bool, pair: &TokenPair) -> usize {
    if is_weighted { pair.chosen.len().min(pair.rejected.len()) } else { 0 }
}

impl ReferenceTable {
    /// Returns the log-probabilities of `pairs`, which must be among the table's pairs.
    pub(crate) fn of(&self, pairs: &[TokenPair]) -> SequenceLogps {
        let find = |pair: &TokenPair, response: &[u32]| {
            self.by_tokens[&(pair.prompt.clone(), response.to_vec(), plain_tokens(self.is_weighted, pair))]
        };
        SequenceLogps {
            chosen: pairs.iter().map(|pair| find(pair, &pair.chosen)).collect(),
            rejected: pairs.iter().map(|pair| find(pair, &pair.rejected)).collect(),
        }
    }
}

/// Returns the pairs without their labels: the response whose tokens sort first is the chosen one.
fn canonical(pairs: &[TokenPair]) -> Vec<TokenPair> {
    let mut canonical = pairs.to_vec();
    for pair in &mut canonical {
        if pair.rejected < pair.chosen {
            std::mem::swap(&mut pair.chosen, &mut pair.rejected);
        }
    }
    canonical
}

/// Returns the cache key: a hash of everything that determines the log-probabilities.
fn cache_key(
    reference: &ReferenceModel,
    kind: Kind,
    (scoring, ld_alpha): (Scoring, Option<LdAlpha>),
    pairs: &[TokenPair],
) -> String {
    let mut hasher = blake3::Hasher::new();
    // Activations kept for a backward pass do not affect log-probabilities.
    let Scoring { layout, padding, head, activations: _ } = scoring;
    let [kind, layout, head] = [kind_name(kind), layout_name(layout), head_name(head)];
    let padding = padding_name(padding);
    hasher.update(format!("reference log-probabilities v4 {kind} {layout} {padding} {head}").as_bytes());
    hasher.update(reference.digest.as_bytes());
    if let Some(alpha) = ld_alpha {
        hasher.update(b"ld_alpha").update(&alpha.get().to_le_bytes());
    }
    hash_sequences(sequences(pairs), &mut hasher);
    hasher.finalize().to_hex()[..32].to_owned()
}

// The names below are part of each cache key: they do not change when types are renamed.

pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "Float",
        Kind::BFloat16 => "BFloat16",
        Kind::Half => "Half",
        Kind::Double => "Double",
        _ => "other",
    }
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Separate => "Separate",
        Layout::SharedPrompt => "SharedPrompt",
    }
}

pub(super) fn padding_name(padding: Padding) -> String {
    match padding {
        Padding::None => "None".to_owned(),
        Padding::Right(id) => format!("Right({id})"),
    }
}

pub(super) fn head_name(head: Head) -> &'static str {
    match head {
        Head::Chunked => "Chunked",
        Head::Full => "Full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::Activations;

    /// The key of the layout on users' disks: a changed key would discard hours of computation.
    #[test]
    fn the_key_of_a_sample_is_frozen() {
        let reference =
            ReferenceModel { source: ReferenceSource::Below, digest: blake3::hash(b"weights"), below: None };
        let pairs = [TokenPair {
            id: "a".to_owned(),
            prompt: vec![1, 2],
            chosen: vec![3],
            rejected: vec![4, 5],
            flipped: false,
        }];
        let scoring = Scoring {
            layout: Layout::SharedPrompt,
            padding: Padding::None,
            head: Head::Chunked,
            activations: Activations::Kept,
        };
        let key = |kind, scoring| cache_key(&reference, kind, (scoring, None), &pairs);
        assert_eq!(key(Kind::Float, scoring), "76f8b89a29e10382697d2d7ad64437c6");
        let padded =
            Scoring { layout: Layout::Separate, padding: Padding::Right(7), head: Head::Full, ..scoring };
        assert_eq!(key(Kind::BFloat16, padded), "1b8a1b1c6b7b9e97a88a535723334907");
        let recomputed = Scoring { activations: Activations::Recomputed, ..scoring };
        assert_eq!(key(Kind::Float, recomputed), key(Kind::Float, scoring));
        let desensitized =
            |alpha| cache_key(&reference, Kind::Float, (scoring, LdAlpha::new(alpha).ok()), &pairs);
        assert_ne!(desensitized(0.5), key(Kind::Float, scoring));
        assert_ne!(desensitized(0.5), desensitized(0.25));
    }
}
