//! The small files beside `tokenizer.json`: special tokens, template, stop tokens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;

use crate::error::DataError;

/// A special token and its id.
pub(super) type Special = (String, u32);

/// What a folder says about its tokenizer besides `tokenizer.json`.
pub(super) struct FolderConfig {
    path: PathBuf,
    named: BTreeMap<&'static str, String>,
    class: Option<String>,
    model_type: Option<String>,
    legacy: Option<bool>,
    add_prefix_space: Option<bool>,
    /// `chat_control_tokens`.
    pub(super) control_tokens: Option<Vec<String>>,
    /// Chat templates, by name.
    pub(super) templates: BTreeMap<String, String>,
    pub(super) stop_tokens: Vec<u32>,
}

/// The special tokens of a folder.
#[derive(Clone, Debug)]
pub(super) struct SpecialTokens {
    pub(super) bos: Option<Special>,
    pub(super) eos: Option<Special>,
    pub(super) pad: Option<Special>,
    /// All named ones, by the name under which a chat template knows them.
    pub(super) variables: BTreeMap<&'static str, String>,
}

/// The names under which transformers hands special tokens to a chat template.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl FolderConfig {
    pub(super) fn read(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join("tokenizer_config.json");
        let file: TokenizerConfig = read_json(folder, "tokenizer_config.json")?.unwrap_or_default();
        let mut named = BTreeMap::new();
        for name in NAMES {
            if let Some(token) = file.special.get(name).and_then(token_text) {
                named.insert(name, token);
            }
        }
        let mut templates = template_files(folder)?;
        if templates.is_empty() {
            templates = file.chat_template.map_or_else(BTreeMap::new, ChatTemplates::by_name);
        }
        let model: ModelOnly = read_json(folder, "config.json")?.unwrap_or_default();
        Ok(Self {
            path,
            named,
            class: file.tokenizer_class,
            model_type: model.model_type,
            legacy: file.legacy,
            add_prefix_space: file.add_prefix_space,
            control_tokens: file.chat_control_tokens,
            templates,
            stop_tokens: read_stop_tokens(folder)?,
        })
    }

    /// The named special tokens with their ids.
    pub(super) fn special_tokens(
        &self,
        tokenizer: &tokenizers::Tokenizer,
    ) -> Result<SpecialTokens, DataError> {
        let find = |name: &'static str| {
            let Some(token) = self.named.get(name) else {
                return Ok(None);
            };
            match tokenizer.token_to_id(token) {
                Some(id) => Ok(Some((token.clone(), id))),
                None => Err(DataError::UnknownSpecialToken {
                    path: self.path.clone(),
                    name,
                    token: token.clone(),
                }),
            }
        };
        Ok(SpecialTokens {
            bos: find("bos_token")?,
            eos: find("eos_token")?,
            pad: find("pad_token")?,
            variables: self.named.clone(),
        })
    }

    /// Where a space is put before text, if transformers' `LlamaTokenizer` replaces the normalizer and the pre-tokenizer
    /// of `tokenizer.json`: not for byte-level vocabularies, nor for models that have another class.
    pub(super) fn llama_prepend_scheme(&self, json: &[u8]) -> Option<PrependScheme> {
        let class = self.class.as_deref()?;
        let is_llama = class.trim_end_matches("Fast") == "LlamaTokenizer";
        let of_model = self.model_type.as_deref().is_none_or(|model| model == "llama");
        let file: Value = serde_json::from_slice(json).ok()?;
        let is_bpe = file["model"]["type"] == "BPE";
        let byte_level =
            ["pre_tokenizer", "decoder"].iter().any(|part| file[part].to_string().contains("\"ByteLevel\""));
        if !is_llama || !of_model || !is_bpe || byte_level {
            return None;
        }
        Some(match (self.add_prefix_space, self.legacy) {
            (Some(false), _) => PrependScheme::Never,
            (_, Some(true)) => PrependScheme::Always,
            _ => PrependScheme::First,
        })
    }
}

/// The bytes of a file that a user names.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    fs::read(path).map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })
}

/// `tokenizer_config.json`, read leniently: other programs write it.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    chat_template: Option<ChatTemplates>,
    #[serde(default)]
    tokenizer_class: Option<String>,
    #[serde(default)]
    legacy: Option<bool>,
    #[serde(default)]
    add_prefix_space: Option<bool>,
    #[serde(default)]
    chat_control_tokens: Option<Vec<String>>,
    #[serde(flatten)]
    special: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ChatTemplates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl ChatTemplates {
    fn by_name(self) -> BTreeMap<String, String> {
        match self {
            Self::One(template) => BTreeMap::from([("default".to_owned(), template)]),
            Self::Named(templates) => {
                templates.into_iter().map(|NamedTemplate { name, template }| (name, template)).collect()
            }
        }
    }
}

/// `chat_template.jinja`, named `default`, and the files of `additional_chat_templates`, named as they are.
fn template_files(folder: &Path) -> Result<BTreeMap<String, String>, DataError> {
    let mut files = vec![("default".to_owned(), PathBuf::from("chat_template.jinja"))];
    let additional = Path::new("additional_chat_templates");
    let named = folder.join(additional);
    if named.is_dir() {
        let failed = |source| DataError::Io { action: "read", path: named.clone(), source };
        for entry in fs::read_dir(&named).map_err(failed)? {
            let path = additional.join(entry.map_err(failed)?.file_name());
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            if let (Some(name), Some("jinja")) = (name, path.extension().and_then(|ending| ending.to_str())) {
                files.push((name, path));
            }
        }
    }
    let mut templates = BTreeMap::new();
    for (name, path) in files {
        if let Some(bytes) = read_optional(folder, &path)? {
            templates.insert(name, utf8(&folder.join(path), bytes)?);
        }
    }
    Ok(templates)
}

#[derive(Default, Deserialize)]
struct ModelOnly {
    #[serde(default)]
    model_type: Option<String>,
}

#[derive(Default, Deserialize)]
struct EosOnly {
    #[serde(default)]
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

fn read_stop_tokens(folder: &Path) -> Result<Vec<u32>, DataError> {
    for name in ["generation_config.json", "config.json"] {
        let file: EosOnly = read_json(folder, name)?.unwrap_or_default();
        match file.eos_token_id {
            Some(OneOrMany::One(id)) => return Ok(vec![id]),
            Some(OneOrMany::Many(ids)) => return Ok(ids),
            None => {}
        }
    }
    Ok(Vec::new())
}

/// A token is written as a string or as an object with its text in `content`.
fn token_text(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("content")?.as_str());
    text.map(str::to_owned)
}

fn read_json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, DataError> {
    let Some(bytes) = read_optional(folder, Path::new(name))? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&bytes)
        .map_err(|source| DataError::TokenizerFile { path: folder.join(name), source: source.into() })?;
    Ok(Some(value))
}

fn read_optional(folder: &Path, name: &Path) -> Result<Option<Vec<u8>>, DataError> {
    let failed = |source| DataError::Io { action: "read", path: folder.join(name), source };
    files::read_inside_if_present(folder, name).map_err(failed)
}

/// Reads a file of the folder that must be there.
pub(super) fn read_required(folder: &Path, name: &str) -> Result<Vec<u8>, DataError> {
    let failed = |source| DataError::Io { action: "read", path: folder.join(name), source };
    files::read_inside(folder, name).map_err(failed)
}

pub(super) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, DataError> {
    String::from_utf8(bytes)
        .map_err(|source| DataError::TokenizerFile { path: path.to_owned(), source: source.into() })
}
