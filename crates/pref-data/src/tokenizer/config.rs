//! The small files beside `tokenizer.json`: special tokens, template, stop tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::DataError;

/// A special token and its id.
pub(super) type Special = (String, u32);

/// What a folder says about its tokenizer besides `tokenizer.json`.
pub(super) struct FolderConfig {
    path: PathBuf,
    named: BTreeMap<&'static str, String>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
    pub(super) template: Option<String>,
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

/// Tokens that a document gets at its ends.
pub(super) struct AddedEnds {
    pub(super) bos: Option<Special>,
    pub(super) eos: Option<Special>,
}

/// The names under which transformers hands special tokens to a chat template.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl FolderConfig {
    pub(super) fn read(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join("tokenizer_config.json");
        let file: TokenizerConfig = read_json(&path)?.unwrap_or_default();
        let mut named = BTreeMap::new();
        for name in NAMES {
            if let Some(token) = file.special.get(name).and_then(token_text) {
                named.insert(name, token);
            }
        }
        let template_file = folder.join("chat_template.jinja");
        let template = match read_optional(&template_file)? {
            Some(bytes) => Some(utf8(&template_file, bytes)?),
            None => file.chat_template.and_then(ChatTemplates::default_one),
        };
        Ok(Self {
            path,
            named,
            add_bos: file.add_bos_token,
            add_eos: file.add_eos_token,
            template,
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

    /// What goes to a document's ends where the configuration decides that instead of `tokenizer.json`.
    pub(super) fn added_ends(&self, has_post_processor: bool, special: &SpecialTokens) -> Option<AddedEnds> {
        if has_post_processor && self.add_bos.is_none() && self.add_eos.is_none() {
            return None;
        }
        let wanted =
            |flag: Option<bool>, token: &Option<Special>| token.clone().filter(|_| flag == Some(true));
        Some(AddedEnds { bos: wanted(self.add_bos, &special.bos), eos: wanted(self.add_eos, &special.eos) })
    }
}

/// The bytes of a file that must be there.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    fs::read(path).map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })
}

/// `tokenizer_config.json`, read leniently: other programs write it.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    chat_template: Option<ChatTemplates>,
    #[serde(default)]
    add_bos_token: Option<bool>,
    #[serde(default)]
    add_eos_token: Option<bool>,
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
    fn default_one(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Named(templates) => {
                let default = templates.into_iter().find(|named| named.name == "default");
                default.map(|named| named.template)
            }
        }
    }
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
        let file: EosOnly = read_json(&folder.join(name))?.unwrap_or_default();
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

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DataError> {
    let Some(bytes) = read_optional(path)? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&bytes)
        .map_err(|source| DataError::TokenizerFile { path: path.to_owned(), source: source.into() })?;
    Ok(Some(value))
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, DataError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataError::Io { action: "read", path: path.to_owned(), source }),
    }
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, DataError> {
    String::from_utf8(bytes)
        .map_err(|source| DataError::TokenizerFile { path: path.to_owned(), source: source.into() })
}
