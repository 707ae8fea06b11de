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
    /// The names whose tokens are those of `special_tokens_map.json`.
    of_map: Vec<&'static str>,
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

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";

/// The names under which transformers hands special tokens to a chat template.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Adds the special tokens of `special_tokens_map.json`, as transformers does: they take the place of those of
/// `tokenizer_config.json`, unless that has an `added_tokens_decoder`. Differences are announced. Returns the
/// names that it has changed.
fn merge(
    named: &mut BTreeMap<&'static str, String>,
    map: &BTreeMap<String, Value>,
    is_ignored: bool,
    folder: &Path,
) -> Vec<&'static str> {
    let mut of_map = Vec::new();
    for name in NAMES {
        let Some(value) = map.get(name) else { continue };
        let (new, of_config) = (token_text(value), named.get(name).cloned());
        if new == of_config {
            continue;
        }
        let (winner, loser) = if is_ignored { (CONFIG, MAP) } else { (MAP, CONFIG) };
        if of_config.is_some() || is_ignored {
            let in_words = |token: &Option<String>| token.as_deref().unwrap_or("none").to_owned();
            tracing::warn!(
                folder = %folder.display(),
                "`{name}` is {} in {CONFIG} and {} in {MAP}: {winner} counts and {loser} does not, as in transformers",
                in_words(&of_config),
                in_words(&new)
            );
        }
        if is_ignored {
            continue;
        }
        match new {
            Some(token) => named.insert(name, token),
            None => named.remove(name),
        };
        of_map.push(name);
    }
    of_map
}

impl FolderConfig {
    /// Reads the files of a folder. `padding` is the token that `tokenizer.json` pads with.
    pub(super) fn read(folder: &Path, padding: Option<&str>) -> Result<Self, DataError> {
        let path = folder.join(CONFIG);
        let file: TokenizerConfig = read_json(folder, CONFIG)?.unwrap_or_default();
        let mut named = BTreeMap::new();
        for name in NAMES {
            if let Some(token) = file.special.get(name).and_then(token_text) {
                named.insert(name, token);
            }
        }
        let map: BTreeMap<String, Value> = read_json(folder, MAP)?.unwrap_or_default();
        let is_ignored = file.special.contains_key("added_tokens_decoder");
        let of_map = merge(&mut named, &map, is_ignored, folder);
        let is_named = file.special.contains_key("pad_token") || !is_ignored && map.contains_key("pad_token");
        if let Some(token) = padding.filter(|_| !is_named) {
            named.insert("pad_token", token.to_owned());
        }
        let mut templates = template_files(folder)?;
        if templates.is_empty() {
            templates = file.chat_template.map_or_else(BTreeMap::new, ChatTemplates::by_name);
        }
        let model: ModelOnly = read_json(folder, "config.json")?.unwrap_or_default();
        Ok(Self {
            path,
            named,
            of_map,
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
                    path: if self.of_map.contains(&name) {
                        self.path.with_file_name(MAP)
                    } else {
                        self.path.clone()
                    },
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

/// Reads the ids at which `generate` of transformers stops: those of `generation_config.json`, or of `config.json` without that
/// file.
fn read_stop_tokens(folder: &Path) -> Result<Vec<u32>, DataError> {
    let of = |file: Option<EosOnly>| match file.and_then(|file| file.eos_token_id) {
        Some(OneOrMany::One(id)) => vec![id],
        Some(OneOrMany::Many(ids)) => ids,
        None => Vec::new(),
    };
    let of_generation: Option<EosOnly> = read_json(folder, "generation_config.json")?;
    let of_model: Option<EosOnly> = read_json(folder, "config.json")?;
    Ok(of(if of_generation.is_some() { of_generation } else { of_model }))
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

/// Reads `tokenizer.json`, which must be there.
pub(super) fn read_tokenizer(folder: &Path) -> Result<Vec<u8>, DataError> {
    /// The files from which transformers makes a `tokenizer.json`.
    const SOURCES: [&str; 5] =
        ["tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json"];
    let name = Path::new("tokenizer.json");
    if !folder.is_dir() {
        let failed = |source| DataError::Io { action: "read", path: folder.join(name), source };
        return files::read_inside(folder, name).map_err(failed);
    }
    if let Some(json) = read_optional(folder, name)? {
        return Ok(json);
    }
    let remedy = if SOURCES.iter().any(|source| folder.join(source).exists()) {
        "make it: python -c \"from transformers import AutoTokenizer as T; T.from_pretrained('DIR').save_pretrained('DIR')\""
    } else if folder.join("adapter_config.json").exists() {
        "copy the tokenizer's files from the folder of the base model"
    } else {
        "copy the tokenizer's files from the folder of the model that this one comes from"
    };
    Err(DataError::NoTokenizer { folder: folder.to_owned(), remedy })
}

pub(super) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, DataError> {
    String::from_utf8(bytes)
        .map_err(|source| DataError::TokenizerFile { path: path.to_owned(), source: source.into() })
}
