//! The tokenizer folder: small, faithful, the same bytes for the same seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use sandbox::{
    ASSISTANT, END, Error, MAX_VOCAB_SIZE, Mixture, PAD, Size, USER, demonstrations, further_questions,
    model_config, questions, training_prompts, write_tokenizer_folder,
};
use seeds::Seeds;
use tokenizers::Tokenizer;

/// Tokens of the longest answer a policy may have to write.
const LONGEST_ANSWER: usize = 48;

/// One folder for the tests that only read it.
static FOLDER: LazyLock<(tempfile::TempDir, usize)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let size = write_tokenizer_folder(folder.path(), &Seeds::new(0)).expect("written");
    (folder, size)
});

fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(FOLDER.0.path().join("tokenizer.json")).expect("a tokenizer")
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(dir)
        .expect("the folder exists")
        .map(|entry| {
            let entry = entry.expect("a readable entry");
            let name = entry.file_name().into_string().expect("plain names");
            (name, fs::read(entry.path()).expect("a readable file"))
        })
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_no_other_files() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let two = root.path().join("deeper/two");
    let seeds = Seeds::new(0);
    let size = write_tokenizer_folder(&two, &seeds).expect("written");
    let once = contents(&two);
    write_tokenizer_folder(&two, &seeds).expect("written over");
    assert_eq!(contents(&two), once);
    assert_eq!(contents(FOLDER.0.path()), once);
    let names: Vec<String> = once.into_keys().collect();
    assert_eq!(
        names,
        ["chat_template.jinja", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    );
    assert!(size <= MAX_VOCAB_SIZE, "{size}");

    let blocked = two.join("tokenizer.json").join("below-a-file");
    assert!(
        matches!(write_tokenizer_folder(&blocked, &seeds), Err(Error::Write { path, .. }) if path == blocked.join("tokenizer.json"))
    );
}

#[test]
fn every_text_round_trips_and_is_short() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.get_vocab_size(true), FOLDER.1);
    for (id, token) in [(0, END), (1, USER), (2, ASSISTANT), (3, PAD)] {
        assert_eq!(tokenizer.token_to_id(token), Some(id));
    }
    let length = |text: &str| {
        let ids = tokenizer.encode(text, false).expect("encodes").get_ids().to_vec();
        assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), text);
        ids.len()
    };
    let other = Seeds::new(99);
    let dialogues = demonstrations(&other, 2_000, Mixture::Ordinary);
    let mut answers = Vec::new();
    for message in dialogues.iter().flatten() {
        let tokens = length(&message.content());
        if message.role() == "assistant" {
            answers.push(tokens);
        }
    }
    assert!(answers.iter().all(|tokens| *tokens < LONGEST_ANSWER), "{:?}", answers.iter().max());
    for question in questions(&other).into_iter().chain(further_questions(&other, 500)) {
        question.turns.iter().for_each(|turn| assert!(length(turn) < 24));
    }
    let prompts = training_prompts(&other, 800);
    let first: Vec<usize> = prompts
        .iter()
        .filter(|prompt| prompt.messages.len() == 1)
        .map(|prompt| length(&prompt.messages[0].content()))
        .collect();
    let mean = first.iter().sum::<usize>() as f64 / first.len() as f64;
    assert!(mean < 11.0, "a first turn takes {mean} tokens");
}

#[test]
fn markers_are_single_tokens_inside_a_rendered_conversation() {
    let tokenizer = tokenizer();
    let rendered = "<|user|>Count 3 hats and 5 cups.<|assistant|>There are 8.<|end|>";
    let encoding = tokenizer.encode(rendered, false).expect("encodes");
    let ids = encoding.get_ids();
    assert_eq!((ids[0], ids[ids.len() - 1]), (1, 0));
    assert_eq!(ids.iter().filter(|id| **id == 2).count(), 1);
    assert_eq!(tokenizer.decode(ids, false).expect("decodes"), rendered);
}

#[test]
fn policies_have_the_announced_sizes() {
    for (size, expected) in [(Size::Small, 133_000.0), (Size::Medium, 271_000.0)] {
        let config = model_config(size, 512);
        let get = |key: &str| config[key].as_u64().expect("a number");
        let (d, ffn, layers) = (get("hidden_size"), get("intermediate_size"), get("num_hidden_layers"));
        let parameters = 512 * d + layers * (4 * d * d + 3 * d * ffn + 2 * d) + d;
        let ratio = parameters as f64 / expected;
        assert!((0.98..1.02).contains(&ratio), "{size:?}: {parameters}");
        assert_eq!(get("head_dim") * get("num_attention_heads"), d);
        assert_eq!(get("eos_token_id"), 0);
        assert_eq!(get("pad_token_id"), 3);
    }
}
