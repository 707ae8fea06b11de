//! A Hugging Face folder's tokenizer, chat template and special tokens.

mod chat;
mod config;
mod control;
mod guard;

use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::metaspace::Metaspace;
use tokenizers::{Model, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use crate::error::DataError;
use crate::message::{Message, TemplateContext};
pub use chat::ChatSettings;
use chat::ChatTemplates;
pub(crate) use chat::Rendering;
use config::{FolderConfig, SpecialTokens};
use control::{ControlTokens, Piece};

/// The end of a rendered conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenderMode {
    /// Ends with the last message.
    Complete,
    /// Ends with the generation prompt, after which the model answers.
    AwaitAnswer,
}

/// The tokenizer of a Hugging Face model folder, with its chat template and special tokens.
#[derive(Clone)]
pub struct Tokenizer {
    folder: PathBuf,
    inner: tokenizers::Tokenizer,
    templates: Arc<ChatTemplates>,
    /// Special tokens, and added tokens that the template spells out.
    control: Arc<ControlTokens>,
    added: Arc<[String]>,
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
    /// - `tokenizer_config.json` names special tokens, each as a string or an object with `content`. Those of
    ///   `special_tokens_map.json` take their place, unless `tokenizer_config.json` has an `added_tokens_decoder`. Without a
    ///   padding token in either, that of `tokenizer.json` counts. Differences between the files are announced. `add_bos_token` and
    ///   `add_eos_token` do not count, since transformers 5.23 ignores them where `tokenizer.json` is there. Of the class
    ///   `LlamaTokenizer` it also replaces the normalizer and the pre-tokenizer; `legacy` then decides where a space is
    ///   put before a text.
    /// - Chat templates are `chat_template.jinja` and those in `additional_chat_templates`, else `chat_template` of
    ///   `tokenizer_config.json`, a string or a list of named ones. With tools the one named `tool_use` is taken if it is
    ///   there, else `default`.
    /// - [Stop tokens](Self::stop_tokens) are `eos_token_id` of `generation_config.json`, or of `config.json` without that
    ///   file, with the tokenizer's own end-of-sequence token.
    ///
    /// # Errors
    ///
    /// [`DataError::NoTokenizer`] without `tokenizer.json`, [`DataError::Io`] where it cannot be read, [`DataError::TokenizerFile`] for a file that cannot
    /// be understood, [`DataError::UnknownSpecialToken`] for one that the vocabulary lacks, [`DataError::Template`]
    /// for a template that does not parse.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, DataError> {
        Self::open(folder, &ChatSettings::default())
    }

    /// As [`from_folder`](Self::from_folder), with settings for the chat template.
    ///
    /// # Errors
    ///
    /// As [`from_folder`](Self::from_folder), and [`DataError::Io`] where the template's file cannot be read.
    pub fn open(folder: impl AsRef<Path>, settings: &ChatSettings) -> Result<Self, DataError> {
        Self::open_folder(folder.as_ref().to_owned(), settings)
    }

    /// Not generic: otherwise each dependent crate would compile the parser of `tokenizer.json` again.
    fn open_folder(folder: PathBuf, settings: &ChatSettings) -> Result<Self, DataError> {
        let path = folder.join("tokenizer.json");
        let json = config::read_tokenizer(&folder)?;
        let load = || tokenizers::Tokenizer::from_bytes(&json);
        let mut inner = guard::check(&json)
            .and_then(|()| guard::caught(load))
            .map_err(|source| DataError::TokenizerFile { path: path.clone(), source })?;
        let padding = inner.get_padding().map(|padding| padding.pad_token.clone());
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|source| DataError::TokenizerFile { path, source })?;
        let config = FolderConfig::read(&folder, padding.as_deref())?;
        let special = config.special_tokens(&inner)?;
        if let Some(prepend) = config.llama_prepend_scheme(&json) {
            inner.with_normalizer(None::<NormalizerWrapper>);
            inner.with_pre_tokenizer(Some(Metaspace::new('▁', prepend, false)));
        }
        let mut stop_tokens = config.stop_tokens.clone();
        if let Some((token, id)) = &special.eos
            && !stop_tokens.contains(id)
        {
            if !stop_tokens.is_empty() {
                let folder = folder.display();
                tracing::warn!(%folder, "generation also stops at {token:?}, the tokenizer's `eos_token`, and not only at {stop_tokens:?} as in transformers");
            }
            stop_tokens.push(*id);
        }
        let templates = ChatTemplates::new(&folder, config.templates, &special.variables, settings)?;
        let vocabulary = blake3::hash(&json);
        let separators = separators(&inner, &json);
        let literal =
            templates.default_template().map_or_else(String::new, |template| template.literal_text());
        let added = inner.get_added_tokens_decoder();
        let chat_control = config.control_tokens;
        let is_control = |token: &&tokenizers::AddedToken| {
            let in_template = || match &chat_control {
                Some(listed) => listed.contains(&token.content),
                None => literal.contains(&token.content) && !token.content.chars().all(char::is_whitespace),
            };
            token.special || in_template()
        };
        let control = added.values().filter(is_control).map(|token| token.content.clone()).collect();
        let added = added.into_values().map(|token| token.content).collect();
        Ok(Self {
            folder,
            inner,
            templates: Arc::new(templates),
            control: Arc::new(ControlTokens::new(control)),
            added,
            special,
            stop_tokens,
            vocabulary,
            separators,
        })
    }

    /// Returns the ids of `text`, without the special tokens that the post-processor would add. Special tokens that are
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

    /// Returns the ids of `text` as a document: with the special tokens that the post-processor adds, such as a
    /// beginning-of-sequence token.
    ///
    /// # Errors
    ///
    /// [`DataError::Encode`] where the tokenizer has no way to write some character.
    pub fn encode_document(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.encode_with(text, true)
    }

    /// Returns the text of `ids` without special tokens. Ids outside the vocabulary are ignored.
    ///
    /// # Errors
    ///
    /// [`DataError::Decode`] where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        guard::caught(|| self.inner.decode(ids, true))
            .map_err(|source| DataError::Decode { folder: self.folder.clone(), source })
    }

    /// Renders the conversation as transformers' `apply_chat_template` does.
    ///
    /// # Errors
    ///
    /// [`DataError::NoTemplate`] where the folder has none, [`DataError::Template`] where it fails: what it raises
    /// with `raise_exception` is in the message.
    pub fn render_chat(&self, messages: &[Message], mode: RenderMode) -> Result<String, DataError> {
        let rendering = self.render(&[messages], &TemplateContext::default(), mode)?;
        Ok(control::without_markers(&rendering.text))
    }

    /// Renders the conversation of all parts in their order. Control tokens of messages are marked if they must be encoded
    /// as text.
    pub(crate) fn render(
        &self,
        messages: &[&[Message]],
        context: &TemplateContext,
        mode: RenderMode,
    ) -> Result<Rendering, DataError> {
        let count = Cell::new(0);
        let mark = |text: &str| self.control.mark(text, true, &count);
        let keep = |_: &str| None;
        let mark: &dyn Fn(&str) -> Option<String> =
            if self.templates.settings().sanitize_control_tokens { &mark } else { &keep };
        self.templates.render(&self.folder, messages, context, mode, mark)
    }

    /// Returns the number of control tokens in the texts of messages and of their context.
    pub(crate) fn control_tokens_in(&self, messages: &[Message], context: &TemplateContext) -> usize {
        let count = Cell::new(0);
        let mut look = |text: &str| drop(self.control.mark(text, false, &count));
        for message in messages {
            match message.plain_content() {
                Some(content) => look(content),
                None => chat::texts(&message.fields().into(), &mut look),
            }
        }
        for value in [&context.tools, &context.chat_template_kwargs, &context.documents].into_iter().flatten()
        {
            chat::texts(value, &mut look);
        }
        count.get()
    }

    /// Returns the ids of a rendered conversation, as [`encode_pieces`](Self::encode_pieces) gives them.
    pub(crate) fn encode_rendered(
        &self,
        text: &str,
        known: &mut Vec<(String, Vec<u32>)>,
    ) -> Result<Vec<u32>, DataError> {
        if !self.templates.settings().sanitize_control_tokens {
            return self.encode_pieces(text, known);
        }
        let newline = self.encode("\n")?;
        let mut ids = Vec::new();
        for (index, piece) in self.control.pieces(text, &self.added).into_iter().enumerate() {
            match piece {
                Piece::Template(text) if index == 0 => ids.extend(self.encode(text)?),
                Piece::Template("") => {}
                Piece::Template(text) => {
                    ids.extend(self.encode_after(text, &newline, |text| self.encode(text))?)
                }
                Piece::Text(token) => {
                    let encoded =
                        self.encode_after(token, &newline, |text| self.encode_without_added(text))?;
                    if self.inner.token_to_id(token).is_some_and(|id| encoded.contains(&id)) {
                        return Err(DataError::CannotSanitize {
                            folder: self.folder.clone(),
                            token: token.to_owned(),
                        });
                    }
                    ids.extend(encoded);
                }
            }
        }
        Ok(ids)
    }

    /// Returns the ids of a text within a conversation. The text is encoded after a line end, so that the tokenizer adds no
    /// space before it.
    fn encode_after(
        &self,
        text: &str,
        newline: &[u32],
        encode: impl Fn(&str) -> Result<Vec<u32>, DataError>,
    ) -> Result<Vec<u32>, DataError> {
        let ids = encode(&format!("\n{text}"))?;
        match ids.strip_prefix(newline) {
            Some(rest) => Ok(rest.to_vec()),
            None => encode(text),
        }
    }

    /// Returns the ids of a text whose added tokens are encoded as text.
    fn encode_without_added(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encode = || {
            let mut pre_tokenized = PreTokenizedString::from(text);
            if let Some(normalizer) = self.inner.get_normalizer() {
                pre_tokenized.normalize(|piece| normalizer.normalize(piece))?;
            }
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut pre_tokenized)?;
            }
            let model = self.inner.get_model();
            let mut ids = Vec::new();
            for (piece, ..) in pre_tokenized.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                ids.extend(model.tokenize(piece)?.into_iter().map(|token| token.id));
            }
            Ok(ids)
        };
        guard::caught(encode).map_err(|source| DataError::Encode { folder: self.folder.clone(), source })
    }

    /// Returns whether control tokens in the text of messages are encoded as text.
    pub(crate) fn sanitizes(&self) -> bool {
        self.templates.settings().sanitize_control_tokens
    }

    /// Returns whether a document of `text` begins with the beginning-of-sequence token twice: once as its text spells it, and
    /// once as the post-processor adds it.
    pub(crate) fn doubles_bos(&self, text: &str) -> bool {
        let Some((token, id)) = &self.special.bos else { return false };
        text.trim_start().starts_with(token.as_str())
            && self.encode_document("").is_ok_and(|ids| ids.first() == Some(id))
    }

    /// Returns the text of `ids` with special tokens.
    ///
    /// # Errors
    ///
    /// [`DataError::Decode`] where the tokenizer's decoder fails.
    pub(crate) fn decode_with_special(&self, ids: &[u32]) -> Result<String, DataError> {
        let failed = |source| DataError::Decode { folder: self.folder.clone(), source };
        guard::caught(|| self.inner.decode(ids, false)).map_err(failed)
    }

    /// Returns whether the folder has a chat template.
    pub fn has_chat_template(&self) -> bool {
        !self.templates.is_empty()
    }

    /// Returns the chat template that replaces the folder's, if any. A model trained with it is saved with it.
    pub fn replacing_template(&self) -> Option<&str> {
        self.templates.replacement()
    }

    /// Returns a hash of everything that determines the tokens of a text or a conversation.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.vocabulary.as_bytes());
        let ends = self.encode_document("").unwrap_or_default();
        let pre_tokenizer = serde_json::to_string(&self.inner.get_pre_tokenizer()).unwrap_or_default();
        for part in [format!("{:?} {ends:?}", self.special), pre_tokenizer] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        self.templates.hash_into(&mut hasher);
        *hasher.finalize().as_bytes()
    }

    /// Returns whether the chat template handles system turns, or is `ChatML`, which renders all roles alike.
    pub(crate) fn knows_system_turns(&self) -> bool {
        let source = self.templates.default_source();
        source.contains("system") || source.contains("<|im_start|>")
    }

    /// Returns the ids at which generation stops; none if the folder names none.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// Returns the id of the end-of-sequence token.
    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos.as_ref().map(|(_, id)| *id)
    }

    /// Returns the end-of-sequence token as text.
    pub fn eos_token(&self) -> Option<&str> {
        self.special.eos.as_ref().map(|(token, _)| token.as_str())
    }

    /// Returns the id of the beginning-of-sequence token.
    pub fn bos_id(&self) -> Option<u32> {
        self.special.bos.as_ref().map(|(_, id)| *id)
    }

    /// Returns the id of padding: that of the padding token, else of the end-of-sequence token, else 0. Padding is masked,
    /// so its id affects no result.
    pub fn pad_id(&self) -> u32 {
        let pad = self.special.pad.as_ref().or(self.special.eos.as_ref());
        pad.map_or(0, |(_, id)| *id)
    }

    /// Returns the token of an id; `None` for an id outside of the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Returns one more than the largest id of the vocabulary, added tokens included. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// Returns the model folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, DataError> {
        let encoding = guard::caught(|| self.inner.encode_fast(text, add_special_tokens));
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

/// Returns the special tokens at which `tokenizers` splits a text first, if it encodes the pieces independently.
///
/// The pieces depend on each other if a token takes adjacent spaces, if it is matched in normalized text, or if the first
/// piece is encoded differently.
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
