//! Digests of models, tensors and token sequences: what ranks compare, and what caches are addressed by.

use std::fs;
use std::path::{Path, PathBuf};

use tch::{Device, Tensor};

use crate::error::DistributedError;

/// Computes a digest of the configuration and weights of a model, which may be in several folders: adapters and their base.
///
/// # Errors
///
/// [`DistributedError::Read`].
pub fn digest_of_model(folders: &[PathBuf]) -> Result<String, DistributedError> {
    let mut hasher = blake3::Hasher::new();
    hash_model(folders, &mut hasher)?;
    Ok(short(&hasher))
}

/// Computes a digest of a tensor's elements as they are in memory.
///
/// # Errors
///
/// [`DistributedError::Copy`].
pub fn digest_of_tensor(tensor: &Tensor) -> Result<String, DistributedError> {
    const ELEMENTS: i64 = 1 << 22;
    let mut hasher = blake3::Hasher::new();
    for part in tensor.detach().view(-1).split(ELEMENTS, 0) {
        let part = part.to_device(Device::Cpu).contiguous();
        let mut copied = vec![0u8; part.numel() * part.kind().elt_size_in_bytes()];
        part.f_copy_data_u8(&mut copied, part.numel()).map_err(|source| DistributedError::Copy { source })?;
        hasher.update(&copied);
    }
    Ok(short(&hasher))
}

/// Feeds the configuration and weights of a model to `hasher`; see [`digest_of_model`].
///
/// # Errors
///
/// [`DistributedError::Read`].
pub fn hash_model(folders: &[PathBuf], hasher: &mut blake3::Hasher) -> Result<(), DistributedError> {
    folders.iter().try_for_each(|folder| hash_folder(folder, hasher))
}

fn hash_folder(folder: &Path, hasher: &mut blake3::Hasher) -> Result<(), DistributedError> {
    let failed = |path: &Path, source| DistributedError::Read { path: path.to_owned(), source };
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        let is_weights = path.extension().is_some_and(|extension| extension == "safetensors");
        let is_config =
            path.file_name().is_some_and(|name| name == "config.json" || name == "adapter_config.json");
        if is_weights || is_config {
            found.push(path);
        }
    }
    found.sort();
    for path in found {
        let name = path.file_name().unwrap_or_default();
        let read = files::file_inside(folder, name)
            .and_then(fs::File::open)
            .and_then(|file| hasher.update_reader(file).map(drop));
        read.map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// Feeds token sequences to `hasher`, each preceded by its length.
pub fn hash_sequences<'a>(sequences: impl IntoIterator<Item = &'a [u32]>, hasher: &mut blake3::Hasher) {
    for ids in sequences {
        hasher.update(&(ids.len() as u64).to_le_bytes());
        for id in ids {
            hasher.update(&id.to_le_bytes());
        }
    }
}

/// The first 16 hexadecimal digits of a hash.
pub(crate) fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_tensor_depends_on_every_bit_and_on_the_kind() {
        let tensor = Tensor::from_slice(&[1f32, 2.0, 3.0]);
        let other = Tensor::from_slice(&[1f32, 2.0, f32::from_bits(3f32.to_bits() + 1)]);
        let digest = |t: &Tensor| digest_of_tensor(t).unwrap();
        assert_eq!(digest(&tensor), digest(&tensor.copy()));
        assert_ne!(digest(&tensor), digest(&other));
        assert_ne!(digest(&tensor.to_kind(tch::Kind::BFloat16)), digest(&tensor));
    }

    #[test]
    fn the_digest_of_adapters_depends_on_their_base() {
        let root = std::env::temp_dir().join(format!("digest-{}", std::process::id()));
        let [adapters, base] = ["adapters", "base"].map(|name| root.join(name));
        let digest = |files: [(&Path, &str, &str); 3]| {
            for (folder, name, text) in files {
                fs::create_dir_all(folder).unwrap();
                fs::write(folder.join(name), text).unwrap();
            }
            digest_of_model(&[adapters.clone(), base.clone()]).unwrap()
        };
        let files = [
            (&*adapters, "adapter_config.json", "{}"),
            (&*adapters, "adapter_model.safetensors", "a"),
            (&*base, "model.safetensors", "b"),
        ];
        let one = digest(files);
        for at in 0..files.len() {
            let mut others = files;
            others[at].2 = "other";
            assert_ne!(digest(others), one, "{}", files[at].1);
        }
        assert_eq!(digest(files), one);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn sequences_are_delimited() {
        let digest = |sequences: &[&[u32]]| {
            let mut hasher = blake3::Hasher::new();
            hash_sequences(sequences.iter().copied(), &mut hasher);
            short(&hasher)
        };
        assert_ne!(digest(&[&[1, 2], &[3]]), digest(&[&[1], &[2, 3]]));
        assert_eq!(digest(&[&[1, 2], &[3]]), digest(&[&[1, 2], &[3]]));
    }
}
