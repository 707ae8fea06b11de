//! Saving a folder that transformers opens.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Value, json};
use tch::{Device, Kind, TchError, Tensor};

use crate::error::PolicyError;
use crate::policy::Policy;
use crate::weights::{INDEX_FILE, SINGLE_FILE, check_kind};

/// Larger weights are split into shards, as by `save_pretrained` of transformers.
const SHARD_BYTES: u64 = 5_000_000_000;

const GENERATION_CONFIG: &str = "generation_config.json";

/// The folder of named chat templates.
const TEMPLATES: &str = "additional_chat_templates";

/// The model card.
const CARD: &str = "README.md";

const TEMPLATE: &str = "chat_template.jinja";
const PROCESSOR_TEMPLATE: &str = "chat_template.json";

/// The possible files of a tokenizer.
const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    TEMPLATE,
    PROCESSOR_TEMPLATE,
];

/// The files of a saved model besides its configuration and weights.
#[derive(Clone, Copy, Debug)]
pub struct Companions<'a> {
    /// The folder from which the tokenizer files are copied.
    pub folder: &'a Path,
    /// The chat template that replaces those of the folder.
    pub template: Option<&'a str>,
    /// The text of `README.md`, the model card; `None` for no card.
    pub card: Option<&'a str>,
}

impl<'a> From<&'a Path> for Companions<'a> {
    fn from(folder: &'a Path) -> Self {
        Self { folder, template: None, card: None }
    }
}

impl Policy {
    /// Writes a Hugging Face folder at `dir`: `config.json`, weights in `kind`, `generation_config.json`, and the tokenizer's
    /// files from the folder `companions`. Merges adapters into the weights.
    ///
    /// The write is atomic: it fills a temporary folder next to `dir` and renames it, which replaces an existing `dir`. Unknown
    /// keys of `config.json` are preserved.
    ///
    /// # Errors
    /// `kind` is not a kind of weights, or a file cannot be written. The temporary folder is then removed.
    pub fn save(&self, dir: &Path, kind: Kind, companions: Option<&Path>) -> Result<(), PolicyError> {
        self.save_sharded(dir, kind, companions.map(Companions::from), SHARD_BYTES)
    }

    /// Writes a Hugging Face folder as [`save`](Self::save), with the chat template of `companions` if it has one.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_with(&self, dir: &Path, kind: Kind, companions: Companions<'_>) -> Result<(), PolicyError> {
        self.save_sharded(dir, kind, Some(companions), SHARD_BYTES)
    }

    fn save_sharded(
        &self,
        dir: &Path,
        kind: Kind,
        companions: Option<Companions<'_>>,
        shard_bytes: u64,
    ) -> Result<(), PolicyError> {
        let dtype = dtype(kind)?;
        replace_folder(dir, |folder| {
            write_json(&folder.join("config.json"), &self.config_json(kind))?;
            self.write_weights(folder, kind, dtype, shard_bytes)?;
            let copied = companions.map(|from| copy(from.folder, GENERATION_CONFIG, folder)).transpose()?;
            if copied != Some(true) {
                write_json(&folder.join(GENERATION_CONFIG), &self.generation_json())?;
            }
            let Some(companions) = companions else { return Ok(()) };
            if let Some(text) = companions.card {
                let path = folder.join(CARD);
                files::write(&path, text.as_bytes()).map_err(PolicyError::io("write", &path))?;
            }
            copy_tokenizer(companions, folder)
        })
    }

    fn config_json(&self, kind: Kind) -> Value {
        let mut raw = self.config().raw().clone();
        let name = match kind {
            Kind::BFloat16 => "bfloat16",
            Kind::Half => "float16",
            _ => "float32",
        };
        // Keeps the spelling of the file; a file without either gets the current one.
        let old = raw.contains_key("torch_dtype");
        if old {
            raw.insert("torch_dtype".to_owned(), json!(name));
        }
        if !old || raw.contains_key("dtype") {
            raw.insert("dtype".to_owned(), json!(name));
        }
        raw.entry("architectures").or_insert_with(|| json!([self.config().family.architecture()]));
        Value::Object(raw)
    }

    fn generation_json(&self) -> Value {
        let ids = ["bos_token_id", "eos_token_id", "pad_token_id"];
        let known = ids.into_iter().filter_map(|key| {
            let value = self.config().raw().get(key).filter(|value| !value.is_null())?;
            Some((key.to_owned(), value.clone()))
        });
        Value::Object(known.collect())
    }

    fn write_weights(
        &self,
        folder: &Path,
        kind: Kind,
        dtype: Dtype,
        shard_bytes: u64,
    ) -> Result<(), PolicyError> {
        let shapes = self.config().parameter_shapes();
        let shards = shards(&shapes, kind.elt_size_in_bytes() as u64, shard_bytes);
        let file_name = |number: usize| match shards.len() {
            1 => SINGLE_FILE.to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let mut weight_map = BTreeMap::new();
        let mut files = (0..).zip(&shards);
        let mut file: Option<TensorFile> = None;
        self.for_each_parameter(|name, weight| {
            if file.as_ref().is_none_or(TensorFile::is_full) {
                let (number, shapes) = files.next().expect("the shards have all parameters");
                weight_map.extend(shapes.iter().map(|(tensor, _)| (tensor.clone(), file_name(number))));
                file.take().map_or(Ok(()), TensorFile::finish)?;
                let infos = shapes.iter().map(|(name, shape)| (name.clone(), shape.clone(), kind, dtype));
                file = Some(TensorFile::create(&folder.join(file_name(number)), infos)?);
            }
            let merged = self.merged(name, weight).map_err(PolicyError::torch(format!("copy `{name}`")))?;
            file.as_mut().map_or(Ok(()), |file| file.write(name, &merged, kind))
        })?;
        file.map_or(Ok(()), TensorFile::finish)?;
        if shards.len() == 1 {
            return Ok(());
        }
        let count = self.config().parameter_count();
        let metadata =
            json!({ "total_parameters": count, "total_size": count * kind.elt_size_in_bytes() as u64 });
        write_json(&folder.join(INDEX_FILE), &json!({ "metadata": metadata, "weight_map": weight_map }))
    }
}

fn dtype(kind: Kind) -> Result<Dtype, PolicyError> {
    check_kind(kind)?;
    Ok(match kind {
        Kind::BFloat16 => Dtype::BF16,
        Kind::Half => Dtype::F16,
        _ => Dtype::F32,
    })
}

/// Names and shapes of tensors.
type Shapes = [(String, Vec<i64>)];

/// Splits parameters into shards of at most `limit` bytes; a larger tensor is a shard of its own.
fn shards(parameters: &Shapes, element: u64, limit: u64) -> Vec<&Shapes> {
    let mut shards = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, (_, shape)) in parameters.iter().enumerate() {
        let size = shape.iter().product::<i64>() as u64 * element;
        if index > start && bytes + size > limit {
            shards.push(&parameters[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    shards.push(&parameters[start..]);
    shards
}

/// The prefix of the temporary folders of [`Policy::save`], next to the target. A killed process leaves one behind; it may be
/// removed while no process saves there.
pub const UNFINISHED: &str = ".model-";

/// Fills a temporary folder and replaces `dir` by it.
pub(crate) fn replace_folder(
    dir: &Path,
    fill: impl FnOnce(&Path) -> Result<(), PolicyError>,
) -> Result<(), PolicyError> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(PolicyError::io("create", parent))?;
    let temporary = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(UNFINISHED);
        open_to_others(&mut builder);
        builder.tempdir_in(parent).map_err(PolicyError::io("create a temporary folder in", parent))
    };
    let new = temporary()?;
    fill(new.path())?;
    files::seal(new.path()).map_err(PolicyError::io("write the checksums of", dir))?;
    files::fault::point("policy.save.filled");
    let put = || std::fs::rename(new.path(), dir).map_err(PolicyError::io("write", dir));
    if dir.exists() {
        // A folder cannot be renamed onto one that is not empty: this renames the old one first, and back on failure.
        let old = temporary()?;
        let aside = old.path().join("replaced");
        std::fs::rename(dir, &aside).map_err(PolicyError::io("replace", dir))?;
        if let Err(error) = put() {
            std::fs::rename(&aside, dir).map_err(PolicyError::io("restore", dir))?;
            return Err(error);
        }
    } else {
        put()?;
    }
    // The folder has its final name, so that nothing is left to remove.
    let _: PathBuf = new.keep();
    files::sync_dir(parent).map_err(PolicyError::io("sync", parent))
}

/// Makes a temporary folder readable: it is private by default, and becomes a model.
#[cfg(unix)]
fn open_to_others(builder: &mut tempfile::Builder<'_, '_>) {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(std::fs::Permissions::from_mode(0o777));
}

#[cfg(not(unix))]
fn open_to_others(_: &mut tempfile::Builder<'_, '_>) {}

pub(crate) fn write_json(path: &Path, json: &Value) -> Result<(), PolicyError> {
    files::write(path, format!("{json:#}\n").as_bytes()).map_err(PolicyError::io("write", path))
}

/// Copies the tokenizer files. A template that replaces those of the folder is written instead of their files.
fn copy_tokenizer(companions: Companions<'_>, to: &Path) -> Result<(), PolicyError> {
    let Companions { folder, template, card: _ } = companions;
    for name in TOKENIZER_FILES {
        let is_replaced = template.is_some() && [TEMPLATE, PROCESSOR_TEMPLATE].contains(&name);
        if !is_replaced {
            copy(folder, name, to)?;
        }
    }
    match template {
        Some(text) => {
            let path = to.join(TEMPLATE);
            files::write(&path, text.as_bytes()).map_err(PolicyError::io("write", &path))
        }
        None => {
            let named = folder.join(TEMPLATES);
            if named.is_dir() { copy_dir(folder, &named, to) } else { Ok(()) }
        }
    }
}

fn copy_dir(folder: &Path, named: &Path, to: &Path) -> Result<(), PolicyError> {
    for entry in std::fs::read_dir(named).map_err(PolicyError::io("read", named))? {
        let entry = entry.map_err(PolicyError::io("read", named))?;
        if entry.path().is_file() {
            copy(folder, Path::new(TEMPLATES).join(entry.file_name()), to)?;
        }
    }
    Ok(())
}

/// Copies the file `name` between folders; returns whether there is one.
fn copy(from: &Path, name: impl AsRef<Path>, to: &Path) -> Result<bool, PolicyError> {
    let name = name.as_ref();
    let bytes =
        files::read_inside_if_present(from, name).map_err(PolicyError::io("read", &from.join(name)))?;
    let Some(bytes) = bytes else { return Ok(false) };
    let target = to.join(name);
    files::write(&target, &bytes).map_err(PolicyError::io("write", &target))?;
    Ok(true)
}

/// Elements per converted chunk, so that no tensor is copied as a whole.
const ELEMENTS_A_WRITE: usize = 4 << 20;

/// Writes tensors of any kind to one safetensors file, in `kind`, in order.
///
/// # Errors
///
/// [`PolicyError::Io`] where the file cannot be written; [`PolicyError::UnsupportedKind`] for a kind that weights cannot have.
pub fn write_tensors(path: &Path, tensors: &[(String, Tensor)], kind: Kind) -> Result<(), PolicyError> {
    let dtype = dtype(kind)?;
    let infos = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.size(), kind, dtype));
    let mut file = TensorFile::create(path, infos)?;
    for (name, tensor) in tensors {
        file.write(name, tensor, kind)?;
    }
    file.finish()
}

/// Writes tensors to one safetensors file, each in its own kind: one of weights, or `Uint8`.
///
/// # Errors
///
/// As [`write_tensors`].
pub fn write_tensors_as_they_are(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), PolicyError> {
    let info = |(name, tensor): &(String, Tensor)| {
        let kind = tensor.kind();
        let dtype = if kind == Kind::Uint8 { Dtype::U8 } else { dtype(kind)? };
        Ok((name.clone(), tensor.size(), kind, dtype))
    };
    let infos = tensors.iter().map(info).collect::<Result<Vec<_>, PolicyError>>()?;
    let mut file = TensorFile::create(path, infos.into_iter())?;
    for (name, tensor) in tensors {
        file.write(name, tensor, tensor.kind())?;
    }
    file.finish()
}

/// A safetensors file that is written one tensor at a time.
struct TensorFile {
    path: PathBuf,
    file: BufWriter<File>,
    /// The number of tensors that are still to be written.
    left: usize,
}

impl TensorFile {
    /// Writes the header of a file of tensors, with their kinds and the names of these, in this order.
    fn create(
        path: &Path,
        tensors: impl Iterator<Item = (String, Vec<i64>, Kind, Dtype)>,
    ) -> Result<Self, PolicyError> {
        let mut end = 0;
        let infos = tensors.map(|(name, shape, kind, dtype)| {
            let start = end;
            let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
            end += shape.iter().product::<usize>() * kind.elt_size_in_bytes();
            (name, TensorInfo { dtype, shape, data_offsets: (start, end) })
        });
        let infos: Vec<_> = infos.collect();
        let left = infos.len();
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let metadata = Metadata::new(Some(format), infos)
            .map_err(|source| PolicyError::WriteSafetensors { path: path.to_owned(), source })?;
        let mut header = serde_json::to_vec(&metadata)
            .map_err(|source| PolicyError::Json { path: path.to_owned(), source })?;
        // Aligns tensors to eight bytes for readers that map the file.
        header.resize(header.len().next_multiple_of(8), b' ');

        let io = |error| PolicyError::io("write", path)(error);
        let mut file = BufWriter::new(File::create(path).map_err(io)?);
        file.write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&header))
            .map_err(io)?;
        Ok(Self { path: path.to_owned(), file, left })
    }

    fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Writes the next tensor, in the kind of the header.
    fn write(&mut self, name: &str, tensor: &Tensor, kind: Kind) -> Result<(), PolicyError> {
        let failed = || PolicyError::torch(format!("copy `{name}`"));
        let flat = tensor.f_detach().and_then(|tensor| tensor.f_reshape([-1])).map_err(failed())?;
        let elements = flat.size()[0];
        for start in (0..elements).step_by(ELEMENTS_A_WRITE) {
            let part = flat.narrow(0, start, elements.min(start + ELEMENTS_A_WRITE as i64) - start);
            let bytes = bytes(&part, kind).map_err(failed())?;
            self.file.write_all(&bytes).map_err(PolicyError::io("write", &self.path))?;
        }
        self.left -= 1;
        Ok(())
    }

    /// Syncs the complete file.
    fn finish(self) -> Result<(), PolicyError> {
        let Self { path, file, .. } = self;
        let io = |error| PolicyError::io("write", &path)(error);
        let file = file.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)
    }
}

/// Returns the values of `tensor` in `kind`, row-major, little-endian.
fn bytes(tensor: &Tensor, kind: Kind) -> Result<Vec<u8>, TchError> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(kind)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn large_weights_are_split_and_indexed() {
        let config = ModelConfig::from_json(json!({
            "model_type": "qwen2", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
        }));
        let policy =
            Policy::initialize(config.unwrap(), &seeds::Seeds::new(0), Kind::BFloat16, Device::Cpu).unwrap();
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("model");
        const LIMIT: u64 = 4_000;
        policy.save_sharded(&dir, Kind::BFloat16, None, LIMIT).unwrap();

        assert!(!dir.join(SINGLE_FILE).exists());
        let index: Value = serde_json::from_slice(&std::fs::read(dir.join(INDEX_FILE)).unwrap()).unwrap();
        assert_eq!(index["metadata"]["total_size"], 2 * policy.config().parameter_count());
        let shards: std::collections::BTreeSet<&str> =
            index["weight_map"].as_object().unwrap().values().map(|file| file.as_str().unwrap()).collect();
        assert!(shards.len() > 3, "{shards:?}");
        for shard in shards {
            let tensors = Tensor::read_safetensors(dir.join(shard)).unwrap();
            let bytes: usize = tensors.iter().map(|(_, tensor)| 2 * tensor.numel()).sum();
            assert!(bytes as u64 <= LIMIT, "{shard} has {bytes} bytes");
        }
        let again = Policy::load(&dir, Kind::BFloat16, Device::Cpu).unwrap();
        for ((name, a), (_, b)) in policy.parameters().iter().zip(again.parameters()) {
            assert!(a.equal(b), "{name}");
        }
        assert_eq!(again.config().raw()["architectures"], json!(["Qwen2ForCausalLM"]));
    }
}
