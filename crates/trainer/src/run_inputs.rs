//! The inputs of a run as digests: a run resumes only with the same ones.

use std::fs;
use std::path::{Path, PathBuf};

use pref_data::{Pair, UnpairedRecord};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::TrainError;
use crate::machine::Machine;
use crate::recipe::Recipe;

/// Digests of everything that a run reads, and its number of steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunInputs {
    /// The texts and labels of all pairs, held-out ones included.
    pub(crate) data: String,
    /// The texts and labels of each source, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<String>,
    /// The configuration and weights of the model.
    pub(crate) model: String,
    /// The configuration and weights of the adapters from which training starts; absent without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) adapters: Option<String>,
    /// The configuration and weights of the reference; absent in supervised training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<String>,
    /// The tokenizer files, without the chat template.
    pub(crate) tokenizer: String,
    /// The chat templates.
    pub(crate) template: String,
    /// The number of optimizer steps of the whole run.
    pub(crate) total_steps: u64,
}

/// What determined a run, as `run.json` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRecord {
    /// The version of the program.
    pub(crate) version: String,
    /// The digest of the resolved recipe without `output.dir`.
    pub(crate) recipe: String,
    pub(crate) inputs: RunInputs,
    /// Changes of the inputs that a user accepted, in order.
    pub(crate) accepted_changes: Vec<AcceptedChange>,
    /// The machine of the latest start.
    pub(crate) machine: Machine,
}

impl RunRecord {
    /// Creates the record of a run of `recipe`.
    pub(crate) fn new(
        recipe: &Recipe,
        inputs: RunInputs,
        accepted: Vec<AcceptedChange>,
        machine: Machine,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut recipe = recipe.clone();
        recipe.output.dir = PathBuf::new();
        hasher.update(recipe.to_toml().as_bytes());
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: short(&hasher),
            inputs,
            accepted_changes: accepted,
            machine,
        }
    }
}

/// Changed inputs that a user accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptedChange {
    /// The step after which the run continued with other inputs.
    pub(crate) step: u64,
    /// The names of the changed inputs.
    pub(crate) changed: Vec<String>,
}

/// What a checkpoint records of a run's inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// The inputs; `None` for a run without a recipe.
    pub(crate) inputs: Option<RunInputs>,
    /// Earlier changes, in order.
    pub(crate) accepted: Vec<AcceptedChange>,
}

impl RunInputs {
    /// Returns the names of the inputs that differ from those that are `recorded`, with the values of numbers.
    pub(crate) fn changed_from(&self, recorded: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        let mut compare = |name: &str, is_same: bool| {
            if !is_same {
                changed.push(name.to_owned());
            }
        };
        compare("data", self.data == recorded.data);
        compare("model", self.model == recorded.model);
        compare("lora.init", self.adapters == recorded.adapters);
        compare("reference", self.reference == recorded.reference);
        compare("tokenizer", self.tokenizer == recorded.tokenizer);
        compare("chat template", self.template == recorded.template);
        let (here, there) = (self.total_steps, recorded.total_steps);
        compare(&format!("total steps ({here} instead of {there})"), here == there);
        changed
    }
}

/// Feeds the texts and labels of `pairs` to `hasher`.
pub(crate) fn hash_pairs(pairs: &[Pair], hasher: &mut blake3::Hasher) {
    for pair in pairs {
        let row = (&pair.id, &pair.prompt, &pair.chosen, &pair.rejected, &pair.context, pair.flipped);
        serde_json::to_writer(&mut *hasher, &row).expect("a hasher accepts any bytes, and text is JSON");
        hasher.update(b"\n");
    }
}

/// Feeds the texts and labels of unpaired preferences to `hasher`.
pub(crate) fn hash_unpaired(records: &[UnpairedRecord], hasher: &mut blake3::Hasher) {
    for record in records {
        let row = (&record.id, &record.prompt, &record.completion, &record.context, record.is_desirable);
        serde_json::to_writer(&mut *hasher, &row).expect("a hasher accepts any bytes, and text is JSON");
        hasher.update(b"\n");
    }
}

/// Returns digests of the tokenizer files and of the chat templates in a model folder. The text `replacement` is hashed
/// in place of the folder's templates.
///
/// # Errors
///
/// [`TrainError::Io`].
pub(crate) fn digest_tokenizer(
    folder: &Path,
    replacement: Option<&str>,
) -> Result<(String, String), TrainError> {
    /// The files that make a tokenizer, in the order in which they are hashed.
    const FILES: [&str; 8] = [
        "added_tokens.json",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    ];
    let (mut tokenizer, mut template) = (blake3::Hasher::new(), blake3::Hasher::new());
    for name in FILES {
        let Some(mut bytes) = read_if_present(folder, name)? else { continue };
        if name == "tokenizer_config.json"
            && let Ok(Value::Object(mut config)) = serde_json::from_slice(&bytes)
        {
            // Older folders keep the template in this file.
            if let Some(text) = config.shift_remove("chat_template")
                && replacement.is_none()
            {
                template.update(text.to_string().as_bytes());
            }
            bytes = Value::Object(config).to_string().into_bytes();
        }
        hash_file(name, &bytes, &mut tokenizer);
    }
    if let Some(text) = replacement {
        hash_file("replacement", text.as_bytes(), &mut template);
        return Ok((short(&tokenizer), short(&template)));
    }
    for path in template_files(folder)? {
        if let Some(bytes) = read_if_present(folder, &path)? {
            hash_file(&path.file_name().unwrap_or_default().to_string_lossy(), &bytes, &mut template);
        }
    }
    Ok((short(&tokenizer), short(&template)))
}

/// The files of a folder that hold chat templates, in order.
fn template_files(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut files = vec![PathBuf::from("chat_template.jinja"), PathBuf::from("chat_template.json")];
    let named = Path::new("additional_chat_templates");
    let additional = folder.join(named);
    if additional.is_dir() {
        let entries = fs::read_dir(&additional).map_err(TrainError::io("cannot read", &additional))?;
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(TrainError::io("cannot read", &additional))?;
            paths.push(named.join(entry.file_name()));
        }
        paths.sort();
        files.extend(paths);
    }
    Ok(files)
}

fn read_if_present(folder: &Path, name: impl AsRef<Path>) -> Result<Option<Vec<u8>>, TrainError> {
    let name = name.as_ref();
    files::read_inside_if_present(folder, name).map_err(TrainError::io("cannot read", folder.join(name)))
}

/// Hashes a name and a content, each with its length.
fn hash_file(name: &str, content: &[u8], hasher: &mut blake3::Hasher) {
    for bytes in [name.as_bytes(), content] {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
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
    fn a_template_inside_the_tokenizer_configuration_changes_only_the_template() {
        let folder = tempfile::tempdir().unwrap();
        let digest = |config: &str| {
            fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
            digest_tokenizer(folder.path(), None).unwrap()
        };
        let (tokenizer, template) = digest(r#"{"bos_token": "<s>", "chat_template": "a"}"#);
        let (same, other) = digest(r#"{"bos_token": "<s>", "chat_template": "b"}"#);
        assert!(tokenizer == same && template != other);
        let (other, same) = digest(r#"{"bos_token": "<t>", "chat_template": "a"}"#);
        assert!(tokenizer != other && template == same);
        fs::write(folder.path().join("chat_template.jinja"), "c").unwrap();
        let of_folder = digest_tokenizer(folder.path(), None).unwrap();
        assert_ne!(of_folder.1, same);
        let replaced = digest_tokenizer(folder.path(), Some("d")).unwrap();
        assert_eq!(replaced.0, of_folder.0);
        assert_ne!(replaced.1, of_folder.1);
        assert_ne!(replaced.1, digest_tokenizer(folder.path(), Some("e")).unwrap().1);
        fs::write(folder.path().join("chat_template.jinja"), "f").unwrap();
        assert_eq!(digest_tokenizer(folder.path(), Some("d")).unwrap(), replaced);
    }

    #[test]
    fn changed_inputs_are_named_with_both_numbers_of_steps() {
        let before = RunInputs { total_steps: 20, ..RunInputs::default() };
        let after = RunInputs { data: "other".to_owned(), total_steps: 24, ..RunInputs::default() };
        assert_eq!(after.changed_from(&before), ["data", "total steps (24 instead of 20)"]);
        assert!(before.changed_from(&before).is_empty());
    }
}
