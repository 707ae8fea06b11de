//! Safetensors checkpoints: one file, or shards behind an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::config::{ModelConfig, read_required};
use crate::error::PolicyError;

pub(crate) const SINGLE_FILE: &str = "model.safetensors";
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
pub(crate) const HEAD: &str = "lm_head.weight";
/// Rotary frequencies, which old checkpoints contain; the configuration determines them.
const FREQUENCIES: &str = ".rotary_emb.inv_freq";
/// The largest header in bytes, as in the crate safetensors.
const MAX_HEADER: u64 = 100_000_000;
const EMBEDDING: &str = "model.embed_tokens.weight";

/// Reads all parameters of `config` from `dir`, converted to `kind` on `device`.
///
/// At most one tensor is in memory twice at a time.
pub(crate) fn read(
    dir: &Path,
    config: &ModelConfig,
    kind: Kind,
    device: Device,
) -> Result<Vec<(String, Tensor)>, PolicyError> {
    let mut parameters = Vec::new();
    visit::<PolicyError>(dir, config, (kind, device), |name, tensor| {
        parameters.push((name, tensor));
        Ok(())
    })?;
    Ok(parameters)
}

/// Calls `visit` for each parameter of `config` in `dir`, converted to this kind on this device, in the order of the files.
pub(crate) fn visit<E: From<PolicyError>>(
    dir: &Path,
    config: &ModelConfig,
    (kind, device): (Kind, Device),
    mut visit: impl FnMut(String, Tensor) -> Result<(), E>,
) -> Result<(), E> {
    check_kind(kind)?;
    let (mut tied_head, mut embedding) = (None, None);
    for file in files(dir)? {
        let path = &file.path;
        files::check_file(path).map_err(PolicyError::io("read", path))?;
        let of_index = |name: &str| file.holds(name);
        visit_file(path, (kind, device), of_index, |name, tensor| {
            if name.ends_with(FREQUENCIES) {
                return Ok(());
            }
            if name == HEAD && config.tie_word_embeddings {
                tied_head = Some((path.clone(), tensor));
                return Ok(());
            }
            if name == EMBEDDING && config.tie_word_embeddings {
                embedding = Some(tensor.shallow_clone());
            }
            visit(name, tensor)
        })?;
    }
    if let Some((path, head)) = tied_head {
        // Some writers store a tied head twice, which is valid if both are equal.
        if embedding.is_some_and(|embedding| embedding.size() != head.size() || !embedding.equal(&head)) {
            return Err(PolicyError::TiedHeadDiffers { path }.into());
        }
    }
    Ok(())
}

/// Reads every tensor of a safetensors file, converted to `kind` on `device`.
pub(crate) fn read_file(
    path: &Path,
    kind: Kind,
    device: Device,
) -> Result<Vec<(String, Tensor)>, PolicyError> {
    let mut tensors = Vec::new();
    visit_file::<PolicyError>(
        path,
        (kind, device),
        |_| true,
        |name, tensor| {
            tensors.push((name, tensor));
            Ok(())
        },
    )?;
    Ok(tensors)
}

/// Calls `visit` for each wanted tensor of a file, and warns of the others.
fn visit_file<E: From<PolicyError>>(
    path: &Path,
    (kind, device): (Kind, Device),
    is_wanted: impl Fn(&str) -> bool,
    mut visit: impl FnMut(String, Tensor) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = WeightsFile::open(path)?;
    for (name, info) in file.tensors.clone() {
        if !is_wanted(&name) {
            tracing::warn!(file = %path.display(), tensor = %name, "the index does not map this tensor here: not read");
            continue;
        }
        let tensor = file.read(&name, &info)?;
        let convert = || {
            let tensor = tensor.f_to_kind(kind)?;
            let broken = count_broken(&tensor)?;
            Ok((tensor.f_to_device(device)?, broken))
        };
        let (tensor, count) = convert().map_err(PolicyError::torch(format!("load `{name}`")))?;
        if count > 0 {
            return Err(PolicyError::NotFinite { origin: path.display().to_string(), name, count }.into());
        }
        visit(name, tensor)?;
    }
    Ok(())
}

/// Returns the number of elements that are not finite.
fn count_broken(tensor: &Tensor) -> Result<i64, tch::TchError> {
    // A sum is finite only if all its terms are, and needs one pass over memory instead of four. Finite terms may overflow it, so
    // that only the count is proof.
    if f64::try_from(tensor.f_sum(Kind::Float)?)?.is_finite() {
        return Ok(0);
    }
    i64::try_from(tensor.f_isfinite()?.f_logical_not()?.f_sum(Kind::Int64)?)
}

/// Checks that the weights files of `dir` have the parameters of `config`, from the files' headers.
pub(crate) fn check_headers(dir: &Path, config: &ModelConfig) -> Result<(), PolicyError> {
    let mut found = BTreeMap::new();
    for part in files(dir)? {
        let file = WeightsFile::open(&part.path)?;
        for (name, info) in file.tensors.iter().filter(|(name, _)| part.holds(name)) {
            kind_of(info, &part.path, name)?;
            if name.ends_with(FREQUENCIES) || name == HEAD && config.tie_word_embeddings {
                continue;
            }
            found.insert(name.clone(), info.shape.iter().map(|&size| size as i64).collect());
        }
    }
    check_shapes(&config.parameter_shapes(), &found, &dir.display().to_string())
}

/// Returns the kind of all stored tensors of `dir`; `None` if there are several.
pub(crate) fn stored_kind(dir: &Path) -> Result<Option<Kind>, PolicyError> {
    let mut kinds = Vec::new();
    for part in files(dir)? {
        let file = WeightsFile::open(&part.path)?;
        for (name, info) in file.tensors.iter().filter(|(name, _)| part.holds(name)) {
            kinds.push(kind_of(info, &part.path, name)?);
        }
    }
    let first = kinds.first().copied();
    Ok(first.filter(|first| kinds.iter().all(|kind| kind == first)))
}

/// Checks that `parameters` are exactly those of `shapes`, and returns them in that order.
pub(crate) fn arrange(
    shapes: Vec<(String, Vec<i64>)>,
    parameters: Vec<(String, Tensor)>,
    origin: &str,
) -> Result<Vec<(String, Tensor)>, PolicyError> {
    let found = parameters.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
    check_shapes(&shapes, &found, origin)?;
    let mut given: BTreeMap<String, Tensor> = parameters.into_iter().collect();
    Ok(shapes.into_iter().filter_map(|(name, _)| given.remove_entry(&name)).collect())
}

/// Checks that the `found` tensors are exactly the `expected` ones, in their shapes.
fn check_shapes(
    expected: &[(String, Vec<i64>)],
    found: &BTreeMap<String, Vec<i64>>,
    origin: &str,
) -> Result<(), PolicyError> {
    let origin = || origin.to_owned();
    let missing: Vec<&String> =
        expected.iter().map(|(name, _)| name).filter(|name| !found.contains_key(*name)).collect();
    if let Some(&first) = missing.first() {
        return Err(PolicyError::MissingTensors {
            origin: origin(),
            count: missing.len(),
            first: first.clone(),
        });
    }
    for (name, expected) in expected {
        if found[name] != *expected {
            let (found, expected) = (found[name].clone(), expected.clone());
            return Err(PolicyError::TensorShape { origin: origin(), name: name.clone(), found, expected });
        }
    }
    let known: BTreeSet<&String> = expected.iter().map(|(name, _)| name).collect();
    let unknown: Vec<&String> = found.keys().filter(|name| !known.contains(name)).collect();
    match unknown.first() {
        None => Ok(()),
        Some(&first) => Err(PolicyError::UnexpectedTensors {
            origin: origin(),
            count: unknown.len(),
            first: first.clone(),
        }),
    }
}

/// Returns the kind of a stored tensor.
fn kind_of(info: &TensorInfo, path: &Path, name: &str) -> Result<Kind, PolicyError> {
    match info.dtype {
        Dtype::F32 => Ok(Kind::Float),
        Dtype::F16 => Ok(Kind::Half),
        Dtype::BF16 => Ok(Kind::BFloat16),
        dtype => {
            let (path, name) = (path.to_owned(), name.to_owned());
            Err(PolicyError::UnsupportedDtype { path, name, dtype: format!("{dtype:?}") })
        }
    }
}

/// Checks that all parameters are of this kind and on this device.
pub(crate) fn check_alike(
    parameters: &[(String, Tensor)],
    kind: Kind,
    device: Device,
) -> Result<(), PolicyError> {
    match parameters.iter().find(|(_, tensor)| (tensor.kind(), tensor.device()) != (kind, device)) {
        None => Ok(()),
        Some((name, tensor)) => Err(PolicyError::MixedParameters {
            name: name.clone(),
            found: format!("{:?} on {:?}", tensor.kind(), tensor.device()),
            expected: format!("{kind:?} on {device:?}"),
        }),
    }
}

pub(crate) fn check_kind(kind: Kind) -> Result<(), PolicyError> {
    match kind {
        Kind::Float | Kind::BFloat16 | Kind::Half => Ok(()),
        kind => Err(PolicyError::UnsupportedKind { kind }),
    }
}

/// A weights file of a folder.
struct Part {
    path: PathBuf,
    /// The tensors that the index has in this file; `None` without an index.
    names: Option<BTreeSet<String>>,
}

impl Part {
    /// Whether the tensor of this name is read from this file. Others are left from an earlier save.
    fn holds(&self, name: &str) -> bool {
        self.names.as_ref().is_none_or(|names| names.contains(name))
    }
}

/// Returns the weights files of a folder: the single one if it exists, otherwise those of the index, each once.
fn files(dir: &Path) -> Result<Vec<Part>, PolicyError> {
    let (single, index) = (dir.join(SINGLE_FILE), dir.join(INDEX_FILE));
    if single.exists() {
        return Ok(vec![Part { path: inside(dir, SINGLE_FILE)?, names: None }]);
    }
    if !index.exists() {
        let pickled =
            dir.join("pytorch_model.bin").exists() || dir.join("pytorch_model.bin.index.json").exists();
        let hint = match pickled {
            true => {
                "; pytorch_model.bin is not supported, convert it: python -c \"from transformers import \
                 AutoModelForCausalLM as M; M.from_pretrained('DIR', dtype='auto').save_pretrained('OUT')\""
            }
            false => "",
        };
        return Err(PolicyError::MissingWeights { path: dir.to_owned(), hint });
    }
    let text = read_required(dir, INDEX_FILE)?;
    let json: Value =
        serde_json::from_slice(&text).map_err(|source| PolicyError::Json { path: index.clone(), source })?;
    let bad = |problem: String| PolicyError::BadIndex { path: index.clone(), problem };
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| bad("it has no `weight_map` from tensor names to files".to_owned()))?;
    let mut shards: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (name, file) in map {
        // A shard is next to its index: any other path is a mistake or an attack.
        match file.as_str().filter(|file| Path::new(file).file_name() == Some(file.as_ref())) {
            Some(file) => shards.entry(inside(dir, file)?).or_default().insert(name.clone()),
            None => return Err(bad(format!("`{name}` is mapped to {file}, which is not a file name"))),
        };
    }
    Ok(shards.into_iter().map(|(path, names)| Part { path, names: Some(names) }).collect())
}

fn inside(dir: &Path, name: &str) -> Result<PathBuf, PolicyError> {
    files::file_inside(dir, name).map_err(PolicyError::io("read", &dir.join(name)))
}

/// An open safetensors file whose header matches the file's length.
struct WeightsFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: BTreeMap<String, TensorInfo>,
    /// A reused buffer for the bytes of a tensor.
    bytes: Vec<u8>,
}

impl WeightsFile {
    fn open(path: &Path) -> Result<Self, PolicyError> {
        let mut file = File::open(path).map_err(PolicyError::io("open", path))?;
        let found = file.metadata().map_err(PolicyError::io("read", path))?.len();
        let cut_short = |expected: u64| PolicyError::Truncated { path: path.to_owned(), expected, found };
        if found < 8 {
            return Err(cut_short(8));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(PolicyError::io("read", path))?;
        let data_start = u64::from_le_bytes(length).saturating_add(8);
        if data_start > found {
            return Err(cut_short(data_start));
        }
        if data_start > MAX_HEADER {
            let (path, source) = (path.to_owned(), SafeTensorError::HeaderTooLarge);
            return Err(PolicyError::BadSafetensors { path, source });
        }
        let mut header = vec![0; (data_start - 8) as usize];
        file.read_exact(&mut header).map_err(PolicyError::io("read", path))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|source| PolicyError::BadSafetensors {
                path: path.to_owned(),
                source: SafeTensorError::InvalidHeaderDeserialization(source),
            })?;
        let expected = data_start.saturating_add(metadata.data_len() as u64);
        if expected != found {
            return Err(cut_short(expected));
        }
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.to_owned(), file, data_start, tensors, bytes: Vec::new() })
    }

    fn read(&mut self, name: &str, info: &TensorInfo) -> Result<Tensor, PolicyError> {
        let kind = kind_of(info, &self.path, name)?;
        let (start, end) = info.data_offsets;
        if self.bytes.len() < end - start {
            self.bytes.resize(end - start, 0);
        }
        let bytes = &mut self.bytes[..end - start];
        self.file
            .seek(SeekFrom::Start(self.data_start + start as u64))
            .and_then(|_| self.file.read_exact(bytes))
            .map_err(PolicyError::io("read", &self.path))?;
        let shape: Vec<i64> = info.shape.iter().map(|&size| size as i64).collect();
        Tensor::f_from_data_size(bytes, &shape, kind).map_err(PolicyError::torch(format!("load `{name}`")))
    }
}
