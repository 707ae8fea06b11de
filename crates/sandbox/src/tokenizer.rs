//! The world's tokenizer as a Hugging Face folder.

use std::path::Path;

use seeds::Seeds;
use serde_json::{Value, json};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, PostProcessorWrapper, TokenizerBuilder};

use crate::Error;
use crate::behavior::Mixture;
use crate::dialogue::demonstrations;

/// Ends an answer; the policy's end-of-sequence token, id 0.
pub const END: &str = "<|end|>";
/// Starts a user message, id 1.
pub const USER: &str = "<|user|>";
/// Starts a model message, id 2.
pub const ASSISTANT: &str = "<|assistant|>";
/// Fills short rows of a batch, id 3.
pub const PAD: &str = "<|pad|>";

/// Special tokens, in the order of their ids.
pub(crate) const SPECIAL: [&str; 4] = [END, USER, ASSISTANT, PAD];

/// The most tokens that the tokenizer may have.
pub const MAX_VOCAB_SIZE: usize = 512;

/// Dialogues that the tokenizer is trained on: more change no merge that matters.
const DIALOGUES: usize = 6_000;
/// Longest conversation in tokens that the tokenizer's settings announce, the policy's context.
pub(crate) const MAX_LENGTH: usize = 256;

/// One marker before each message, one after each answer; anything that is not the assistant's is the user's.
const CHAT_TEMPLATE: &str = "{%- for message in messages -%}\
{%- if message['role'] == 'assistant' -%}{{ '<|assistant|>' + message['content'] + '<|end|>' }}\
{%- else -%}{{ '<|user|>' + message['content'] }}{%- endif -%}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}";

/// Trains the tokenizer on demonstrations and writes its files into `dir`, which is created where it is missing.
///
/// A byte-level BPE of at most [`MAX_VOCAB_SIZE`] tokens over the bytes of this world; other bytes are dropped.
/// Files: `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `chat_template.jinja`. The same seeds
/// give the same bytes. Returns the number of tokens, an argument of `model_config`.
///
/// # Errors
///
/// [`Error::TrainTokenizer`] if training fails, [`Error::Write`] if a file cannot be written.
pub fn write_tokenizer_folder(dir: &Path, seeds: &Seeds) -> Result<usize, Error> {
    let (tokenizer, vocab_size) =
        train(seeds).map_err(|source| Error::TrainTokenizer { dialogues: DIALOGUES, source })?;
    write(dir, "tokenizer.json", &tokenizer)?;
    write(dir, "tokenizer_config.json", &pretty(&tokenizer_config()))?;
    write(dir, "special_tokens_map.json", &pretty(&special_tokens_map()))?;
    write(dir, "chat_template.jinja", CHAT_TEMPLATE)?;
    Ok(vocab_size)
}

fn train(seeds: &Seeds) -> Result<(String, usize), Box<dyn std::error::Error + Send + Sync>> {
    let texts: Vec<String> = demonstrations(&seeds.child("tokenizer"), DIALOGUES, Mixture::Ordinary)
        .into_iter()
        .flatten()
        .map(|message| message.content().into_owned())
        .collect();
    let mut trainer = BpeTrainer::builder()
        .vocab_size(MAX_VOCAB_SIZE)
        .show_progress(false)
        .special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)).to_vec())
        .build();
    let byte_level = ByteLevel::new(false, false, true);
    let mut tokenizer =
        TokenizerBuilder::<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, ByteLevelDecoder>::new()
            .with_model(BPE::default())
            .with_normalizer(None)
            .with_pre_tokenizer(Some(byte_level))
            .with_post_processor(None)
            .with_decoder(Some(byte_level))
            .build()?;
    tokenizer.train(&mut trainer, texts.iter())?;
    Ok((tokenizer.to_string(true)?, tokenizer.get_vocab_size(true)))
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": null,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [USER, ASSISTANT],
        "add_bos_token": false,
        "add_eos_token": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": MAX_LENGTH,
        "padding_side": "right",
        "chat_template": CHAT_TEMPLATE,
    })
}

fn special_tokens_map() -> Value {
    json!({
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [USER, ASSISTANT],
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = dir.join(name);
    files::write(&path, text.as_bytes()).map_err(|source| Error::Write { path, source })
}
