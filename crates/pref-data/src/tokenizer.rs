//! A Hugging Face folder's tokenizer, chat template and special tokens.

mod config;
mod strftime;
mod template;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokenizers::processors::template::TemplateProcessing;

use crate::error::DataError;
use crate::message::Message;
use config::{FolderConfig, SpecialTokens};
use template::ChatTemplate;

/// Tells a chat template what day it is.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Whether a rendered conversation ends where it ends or opens the assistant's next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenderMode {
    /// The messages and nothing more.
    Complete,
    /// The messages and the generation prompt, after which the model answers.
    AwaitAnswer,
}

/// The tokenizer of a Hugging Face model folder, with its chat template and special tokens.
#[derive(Clone)]
pub struct Tokenizer {
    folder: PathBuf,
    inner: tokenizers::Tokenizer,
    template: Option<ChatTemplate>,
    special: SpecialTokens,
    stop_tokens: Vec<u32>,
    /// A hash of `tokenizer.json`.
    vocabulary: blake3::Hash,
    /// The special tokens at which a text falls apart, so that its pieces can be encoded one by one; none where pieces
    /// would have other ids than the whole.
    separators: Arc<[(String, u32)]>,
}

impl Tokenizer {
    /// Reads the tokenizer of the model folder `folder`.
    ///
    /// - `tokenizer.json` must be there; truncation and padding that it asks for are switched off.
    /// - `tokenizer_config.json` names special tokens, each as a string or an object with `content`;
    ///   `add_bos_token` and `add_eos_token` overrule the post-processor of `tokenizer.json`, as in transformers.
    /// - The chat template is `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`, a string or a
    ///   list of named ones of which `default` is taken.
    /// - [Stop tokens](Self::stop_tokens) are `eos_token_id` of `generation_config.json`, or where that file or its
    ///   key is missing of `config.json`, with the tokenizer's own end-of-sequence token.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`] where `tokenizer.json` cannot be read, [`DataError::TokenizerFile`] for a file that cannot
    /// be understood, [`DataError::UnknownSpecialToken`] for one that the vocabulary lacks, [`DataError::Template`]
    /// for a template that does not parse.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, DataError> {
        let folder = folder.as_ref().to_owned();
        let path = folder.join("tokenizer.json");
        let json = config::read(&path)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&json)
            .map_err(|source| DataError::TokenizerFile { path: path.clone(), source })?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|source| DataError::TokenizerFile { path, source })?;
        let config = FolderConfig::read(&folder)?;
        let special = config.special_tokens(&inner)?;
        if let Some(ends) = config.added_ends(inner.get_post_processor().is_some(), &special) {
            let processor = post_processor(&ends).map_err(|source| DataError::TokenizerFile {
                path: folder.join("tokenizer_config.json"),
                source,
            })?;
            inner.with_post_processor(Some(processor));
        }
        let mut stop_tokens = config.stop_tokens.clone();
        if let Some((_, id)) = &special.eos
            && !stop_tokens.contains(id)
        {
            stop_tokens.push(*id);
        }
        let template = match &config.template {
            Some(source) => Some(ChatTemplate::new(&folder, source, &special.variables, None)?),
            None => None,
        };
        let vocabulary = blake3::hash(&json);
        let separators = separators(&inner, &json);
        Ok(Self { folder, inner, template, special, stop_tokens, vocabulary, separators })
    }

    /// Gives the chat template a clock, for those that print today's date (`strftime_now`); times are UTC.
    ///
    /// Without one such a template fails, since a prompt that changes overnight cannot be reproduced unnoticed. A
    /// clock that always tells the same time fixes the date of a study.
    ///
    /// # Errors
    ///
    /// [`DataError::Template`] where the template does not parse.
    pub fn with_clock(
        mut self,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, DataError> {
        if let Some(template) = &self.template {
            let clock: Clock = Arc::new(clock);
            self.template = Some(ChatTemplate::new(
                &self.folder,
                template.source(),
                &self.special.variables,
                Some(clock),
            )?);
        }
        Ok(self)
    }

    /// The ids of `text`, without the special tokens that the post-processor would add. Special tokens that are
    /// spelled out in the text become their ids.
    ///
    /// # Errors
    ///
    /// [`DataError::Encode`] where the tokenizer has no way to write some character.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.encode_with(text, false)
    }

    /// As [`encode`](Self::encode), with the pieces between special tokens looked up in `known` first: the texts of a pair
    /// share most of theirs.
    pub(crate) fn encode_pieces(
        &self,
        text: &str,
        known: &mut Vec<(String, Vec<u32>)>,
    ) -> Result<Vec<u32>, DataError> {
        if self.separators.is_empty() {
            return self.encode(text);
        }
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let next = self.separators.iter().filter_map(|(token, id)| {
                // The first that comes, and of several there the longest.
                Some((rest.find(token.as_str())?, std::cmp::Reverse(token.len()), *id))
            });
            let next = next.min();
            let piece = &rest[..next.map_or(rest.len(), |(at, ..)| at)];
            match known.iter().find(|(text, _)| text == piece) {
                Some((_, piece_ids)) => ids.extend_from_slice(piece_ids),
                None => {
                    let piece_ids = self.encode(piece)?;
                    ids.extend_from_slice(&piece_ids);
                    known.push((piece.to_owned(), piece_ids));
                }
            }
            let Some((at, std::cmp::Reverse(length), id)) = next else { break };
            ids.push(id);
            rest = &rest[at + length..];
        }
        Ok(ids)
    }

    /// The ids of `text` as a document of its own: with the special tokens that the post-processor adds, such as a
    /// beginning-of-sequence token.
    ///
    /// # Errors
    ///
    /// [`DataError::Encode`] where the tokenizer has no way to write some character.
    pub fn encode_document(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.encode_with(text, true)
    }

    /// The text of `ids`, special tokens left out. Ids outside the vocabulary give nothing.
    ///
    /// # Errors
    ///
    /// [`DataError::Decode`] where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.inner
            .decode(ids, true)
            .map_err(|source| DataError::Decode { folder: self.folder.clone(), source })
    }

    /// The conversation as text, as transformers' `apply_chat_template` renders it.
    ///
    /// # Errors
    ///
    /// [`DataError::NoTemplate`] where the folder has none, [`DataError::Template`] where it fails: what it raises
    /// with `raise_exception` is in the message.
    pub fn render_chat(&self, messages: &[Message], mode: RenderMode) -> Result<String, DataError> {
        let template =
            self.template.as_ref().ok_or_else(|| DataError::NoTemplate { folder: self.folder.clone() })?;
        template
            .render(messages, mode)
            .map_err(|source| DataError::Template { folder: self.folder.clone(), source })
    }

    /// Whether the folder has a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// A hash of everything that decides which tokens a text or a conversation becomes.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.vocabulary.as_bytes());
        let source = self.template.as_ref().map_or("", ChatTemplate::source);
        // What a template prints of the date shows in any conversation.
        let shown = self.render_chat(&[Message::user("")], RenderMode::AwaitAnswer).unwrap_or_default();
        let ends = self.encode_document("").unwrap_or_default();
        for part in [source, &shown, &format!("{:?} {ends:?}", self.special)] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether the chat template speaks of system turns, or is `ChatML`, which has all kinds of turns alike.
    pub(crate) fn knows_system_turns(&self) -> bool {
        let source = self.template.as_ref().map_or("", ChatTemplate::source);
        source.contains("system") || source.contains("<|im_start|>")
    }

    /// The ids at which generation stops; empty only where the folder names none at all.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// The end-of-sequence token's id.
    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos.as_ref().map(|(_, id)| *id)
    }

    /// The end-of-sequence token as text.
    pub fn eos_token(&self) -> Option<&str> {
        self.special.eos.as_ref().map(|(token, _)| token.as_str())
    }

    /// The beginning-of-sequence token's id.
    pub fn bos_id(&self) -> Option<u32> {
        self.special.bos.as_ref().map(|(_, id)| *id)
    }

    /// The id that fills up rows: the padding token's, else the end-of-sequence token's, else 0. Padding is never
    /// scored nor seen, so any id does.
    pub fn pad_id(&self) -> u32 {
        let pad = self.special.pad.as_ref().or(self.special.eos.as_ref());
        pad.map_or(0, |(_, id)| *id)
    }

    /// One more than the largest id of the vocabulary, added tokens included. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// The model folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, DataError> {
        let encoding = self.inner.encode_fast(text, add_special_tokens);
        let encoding =
            encoding.map_err(|source| DataError::Encode { folder: self.folder.clone(), source })?;
        Ok(encoding.get_ids().to_vec())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("folder", &self.folder)
            .field("special", &self.special)
            .field("stop_tokens", &self.stop_tokens)
            .finish_non_exhaustive()
    }
}

/// The special tokens that `tokenizers` cuts a text at before it does anything else, if it encodes what lies between them
/// without looking beyond: not where a token takes spaces with it or is matched in normalised text, and not where the first
/// piece of a text is treated in a way of its own.
fn separators(inner: &tokenizers::Tokenizer, json: &[u8]) -> Arc<[(String, u32)]> {
    let first_differs = serde_json::from_slice::<serde_json::Value>(json)
        .map_or(true, |value| value["pre_tokenizer"].to_string().contains("\"first\""));
    let added = inner.get_added_tokens_decoder();
    let is_plain = |token: &tokenizers::AddedToken| {
        !token.normalized && !token.lstrip && !token.rstrip && !token.single_word && !token.content.is_empty()
    };
    if first_differs || !added.values().all(is_plain) {
        return Arc::default();
    }
    let mut separators: Vec<(String, u32)> =
        added.into_iter().map(|(id, token)| (token.content, id)).collect();
    separators.sort_unstable();
    separators.into()
}

/// A post-processor that puts the given tokens at a text's ends.
fn post_processor(ends: &config::AddedEnds) -> Result<TemplateProcessing, crate::error::BoxedError> {
    let mut parts = vec!["$A".to_owned()];
    let mut tokens = Vec::new();
    if let Some((bos, id)) = &ends.bos {
        parts.insert(0, bos.clone());
        tokens.push((bos.clone(), *id));
    }
    if let Some((eos, id)) = &ends.eos {
        parts.push(eos.clone());
        tokens.push((eos.clone(), *id));
    }
    let processor = TemplateProcessing::builder().try_single(parts)?.special_tokens(tokens).build()?;
    Ok(processor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_have_the_ids_of_the_whole(parts in prop::collection::vec(
            prop_oneof![".{0,8}", Just("</s>".to_owned()), Just("<|user|>".to_owned()), Just("<|us".to_owned()), Just("<s> ".to_owned())],
            0..8,
        )) {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
            let tokenizer = Tokenizer::from_folder(folder).expect("the tiny folder");
            prop_assert!(!tokenizer.separators.is_empty());
            let text = parts.concat();
            let mut known = Vec::new();
            for _ in 0..2 {
                let pieces = tokenizer.encode_pieces(&text, &mut known).expect("bytes are in the vocabulary");
                prop_assert_eq!(pieces, tokenizer.encode(&text).expect("bytes are in the vocabulary"));
            }
        }
    }
}
