//! What ranks must have alike, and how it is compared: as short texts.

use std::fs;
use std::path::{Path, PathBuf};

use pref_data::TokenPair;
use tch::{Device, Tensor};

use crate::TrainError;

/// Something that must be the same on all ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What, as in "another … than rank 0".
    pub what: &'static str,
    /// Its value: text of several lines, of which the first that differs is told, or a digest.
    pub value: String,
    /// What to do where it differs.
    pub remedy: &'static str,
}

impl Fact {
    /// The configuration and weights of the model in `folder`.
    ///
    /// # Errors
    ///
    /// Where a file of it cannot be read.
    pub fn of_model(folder: &Path, remedy: &'static str) -> Result<Self, TrainError> {
        Ok(Self { what: "model", value: digest_of_files(folder)?, remedy })
    }

    /// The tokens of pairs, in their order.
    pub fn of_pairs<'a>(pairs: impl IntoIterator<Item = &'a TokenPair>, remedy: &'static str) -> Self {
        let mut hasher = blake3::Hasher::new();
        for pair in pairs {
            hash_pair(pair, &mut hasher);
        }
        Self { what: "set of pairs", value: short(&hasher), remedy }
    }

    /// How `here` differs from rank 0's `there`.
    pub(crate) fn difference(here: &str, there: &str) -> String {
        let lines = here.lines().zip(there.lines()).find(|(here, there)| here != there);
        match lines {
            Some((here, there)) => format!("here `{here}`, there `{there}`"),
            None => "one has more lines than the other".to_owned(),
        }
    }
}

/// Facts as bytes, for the way from rank to rank: each text behind its length.
pub(crate) fn to_bytes(facts: &[Fact]) -> Vec<u8> {
    let values = facts.iter().map(|fact| fact.value.as_bytes());
    values
        .flat_map(|value| (value.len() as u64).to_le_bytes().into_iter().chain(value.iter().copied()))
        .collect()
}

/// The texts that [`to_bytes`] wrote.
pub(crate) fn from_bytes(mut bytes: &[u8]) -> Vec<String> {
    let mut values = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let length = (u64::from_le_bytes(*length) as usize).min(rest.len());
        let (value, rest) = rest.split_at(length);
        values.push(String::from_utf8_lossy(value).into_owned());
        bytes = rest;
    }
    values
}

/// A digest of a model folder's configuration and weights.
pub(crate) fn digest_of_files(folder: &Path) -> Result<String, TrainError> {
    let mut hasher = blake3::Hasher::new();
    hash_model(folder, &mut hasher)?;
    Ok(short(&hasher))
}

/// A digest of a tensor's numbers, as they lie in memory.
pub(crate) fn digest_of_tensor(tensor: &Tensor) -> Result<String, TrainError> {
    const ELEMENTS: i64 = 1 << 22;
    let mut hasher = blake3::Hasher::new();
    for part in tensor.detach().view(-1).split(ELEMENTS, 0) {
        let part = part.to_device(Device::Cpu).contiguous();
        let mut copied = vec![0u8; part.numel() * part.kind().elt_size_in_bytes()];
        part.f_copy_data_u8(&mut copied, part.numel())
            .map_err(|source| TrainError::Torch { what: "reading weights", source })?;
        hasher.update(&copied);
    }
    Ok(short(&hasher))
}

/// Feeds a model folder's configuration and weights to `hasher`.
pub(crate) fn hash_model(folder: &Path, hasher: &mut blake3::Hasher) -> Result<(), TrainError> {
    let entries = fs::read_dir(folder).map_err(TrainError::io("cannot read", folder))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.map_err(TrainError::io("cannot read", folder))?.path();
        let is_weights = path.extension().is_some_and(|e| e == "safetensors");
        if is_weights || path.file_name().is_some_and(|n| n == "config.json") {
            files.push(path);
        }
    }
    files.sort();
    for path in files {
        let file = fs::File::open(&path).map_err(TrainError::io("cannot read", &path))?;
        hasher.update_reader(file).map_err(TrainError::io("cannot read", &path))?;
    }
    Ok(())
}

/// Feeds a pair's tokens to `hasher`.
pub(crate) fn hash_pair(pair: &TokenPair, hasher: &mut blake3::Hasher) {
    for ids in [&pair.prompt, &pair.chosen, &pair.rejected] {
        hasher.update(&(ids.len() as u64).to_le_bytes());
        for id in ids {
            hasher.update(&id.to_le_bytes());
        }
    }
}

fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_differences_are_shown() {
        let fact = |value: &str| Fact { what: "recipe", value: value.to_owned(), remedy: "" };
        let facts = [fact("seed = 0\nβ = 1\n"), fact(""), fact("x")];
        assert_eq!(from_bytes(&to_bytes(&facts)), ["seed = 0\nβ = 1\n", "", "x"]);
        assert_eq!(Fact::difference("a\nb", "a\nc"), "here `b`, there `c`");
        assert!(Fact::difference("a\nb", "a").contains("more lines"));
    }

    #[test]
    fn digests_see_every_number() {
        let tensor = Tensor::from_slice(&[1f32, 2.0, 3.0]);
        let other = Tensor::from_slice(&[1f32, 2.0, f32::from_bits(3f32.to_bits() + 1)]);
        let digest = |t: &Tensor| digest_of_tensor(t).unwrap();
        assert_eq!(digest(&tensor), digest(&tensor.copy()));
        assert_ne!(digest(&tensor), digest(&other));
        assert_ne!(digest(&tensor.to_kind(tch::Kind::BFloat16)), digest(&tensor));
    }
}
