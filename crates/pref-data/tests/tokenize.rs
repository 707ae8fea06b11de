//! Token ids against TRL's `DPOTrainer` (`fixtures/trl_tokens.py`), truncation, and dialogues.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pref_data::{
    DataError, Format, Message, Pair, Preset, Text, TokenPair, TokenizeOptions, Tokenizer, Truncation, Votes,
    annotator_view, read_records, tokenize_dialogue, tokenize_pairs,
};
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use test_support::{real_data, real_model};

#[derive(Deserialize)]
struct TinyFixture {
    pairs: Vec<serde_json::Map<String, serde_json::Value>>,
    expected: Expected,
}

#[derive(Deserialize)]
struct RealFixture {
    expected: Expected,
}

/// By `max_length` and id.
type Expected = BTreeMap<usize, BTreeMap<String, Ids>>;

#[derive(Debug, PartialEq, Deserialize)]
struct Ids {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
}

fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn fixture<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&fs::read(fixture_path(name)).expect("the fixture")).expect("a fixture")
}

fn tiny() -> Tokenizer {
    Tokenizer::from_folder(fixture_path("tiny")).expect("the tiny folder")
}

fn keep_start(max_length: usize) -> TokenizeOptions {
    TokenizeOptions::new(max_length)
}

fn by_id(pairs: Vec<TokenPair>) -> BTreeMap<String, Ids> {
    let ids = |pair: TokenPair| Ids { prompt: pair.prompt, chosen: pair.chosen, rejected: pair.rejected };
    pairs.into_iter().map(|pair| (pair.id.clone(), ids(pair))).collect()
}

fn plain(id: &str, prompt: &str, chosen: &str, rejected: &str) -> Pair {
    let text = |text: &str| Text::Plain(text.to_owned());
    Pair {
        id: id.to_owned(),
        prompt: text(prompt),
        chosen: text(chosen),
        rejected: text(rejected),
        domain: None,
        context: Default::default(),
        annotator: String::new(),
        votes: Votes::default(),
        flipped: false,
    }
}

#[test]
fn ids_and_truncation_are_trls() {
    let fixture: TinyFixture = fixture("trl_tiny.json");
    let pairs: Vec<Pair> =
        fixture.pairs.into_iter().map(|row| serde_json::from_value(row.into()).expect("a pair")).collect();
    assert_eq!(fixture.expected.len(), 3);
    for (max_length, expected) in fixture.expected {
        let (tokens, report) = tokenize_pairs(&pairs, &tiny(), &keep_start(max_length)).expect("tokenised");
        assert_eq!(report.pairs_out, expected.len());
        assert_eq!(report.dropped.len(), pairs.len() - expected.len());
        assert!(report.boundary_mismatches > 0, "the fixture has merges across the boundary");
        assert_eq!(by_id(tokens), expected, "max_length {max_length}");
    }
}

/// Ids of texts by transformers, with several settings of Llama tokenizers (`fixtures/llama_prepend.py`).
#[derive(Deserialize)]
struct PrependFixture {
    tokenizer: serde_json::Value,
    texts: Vec<String>,
    cases: Vec<PrependCase>,
}

#[derive(Deserialize)]
struct PrependCase {
    config: serde_json::Value,
    ids: Vec<Vec<u32>>,
}

#[test]
fn spaces_before_texts_are_those_of_transformers_for_llama_tokenizers() {
    let PrependFixture { tokenizer, texts, cases } = fixture("llama_prepend.json");
    assert_eq!(cases.len(), 18);
    let distinct: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.ids).collect();
    assert!(distinct.len() > 2, "the settings matter");
    for PrependCase { config, ids } in &cases {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let put = |name: &str, json: &serde_json::Value| {
            fs::write(folder.path().join(name), json.to_string()).expect("written");
        };
        put("tokenizer.json", &tokenizer);
        put("tokenizer_config.json", config);
        let tokenizer = Tokenizer::from_folder(folder.path()).expect("a tokenizer");
        for (text, expected) in texts.iter().zip(ids) {
            assert_eq!(tokenizer.encode(text).expect("ids"), *expected, "{config}: {text:?}");
        }
    }
}

#[derive(Deserialize)]
struct OldFixture {
    template: String,
    pairs: Vec<serde_json::Map<String, serde_json::Value>>,
    cases: Vec<OldCase>,
}

#[derive(Deserialize)]
struct OldCase {
    max_length: usize,
    max_prompt_length: usize,
    truncation: Truncation,
    expected: BTreeMap<String, Ids>,
}

#[test]
fn the_old_preset_is_trl_0_7_10s() {
    let fixture: OldFixture = fixture("trl_0_7_10.json");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture_path("tiny").join(name), folder.path().join(name)).expect("copied");
    }
    fs::write(folder.path().join("chat_template.jinja"), &fixture.template).expect("written");
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("a folder");
    let pairs: Vec<Pair> =
        fixture.pairs.into_iter().map(|row| serde_json::from_value(row.into()).expect("a pair")).collect();
    assert_eq!(fixture.cases.len(), 6);
    for OldCase { max_length, max_prompt_length, truncation, expected } in fixture.cases {
        let options = TokenizeOptions {
            truncation,
            preset: Preset::Trl0710 { max_prompt_length },
            ..keep_start(max_length)
        };
        let (tokens, report) = tokenize_pairs(&pairs, &tokenizer, &options).expect("tokenised");
        assert_eq!((report.pairs_out, report.dropped.len()), (pairs.len(), 0));
        assert_eq!(by_id(tokens), expected, "{max_length}, {max_prompt_length}, {truncation:?}");
    }
    for max_prompt_length in [0, 24] {
        let preset = Preset::Trl0710 { max_prompt_length };
        let error = tokenize_pairs(&pairs, &tokenizer, &TokenizeOptions { preset, ..keep_start(24) });
        assert!(matches!(error, Err(DataError::MaxPromptLength { .. })));
    }
}

#[test]
fn real_pairs_have_trls_ids() {
    let Some(model) = real_model("real_pairs_have_trls_ids") else { return };
    let Some(data) = real_data("real_pairs_have_trls_ids") else { return };
    let fixture: RealFixture = fixture("trl_hh_rlhf.json");
    let tokenizer = Tokenizer::from_folder(model).expect("the model folder");
    let records =
        read_records(data.join("hh-rlhf/harmless-base-test.jsonl.gz"), Format::HhRlhf).expect("read");
    assert_eq!(records.len(), 2312);
    let (pairs, _) = annotator_view(&records[..32], "human").expect("labelled");
    for (max_length, expected) in fixture.expected {
        let (tokens, _) = tokenize_pairs(&pairs, &tokenizer, &keep_start(max_length)).expect("tokenised");
        assert_eq!(by_id(tokens), expected, "max_length {max_length}");
    }
}

#[test]
fn all_of_hh_rlhf_tokenises() {
    let Some(model) = real_model("all_of_hh_rlhf_tokenises") else { return };
    let Some(data) = real_data("all_of_hh_rlhf_tokenises") else { return };
    let tokenizer = Tokenizer::from_folder(model).expect("the model folder");
    let records =
        read_records(data.join("hh-rlhf/harmless-base-test.jsonl.gz"), Format::HhRlhf).expect("read");
    let (pairs, _) = annotator_view(&records, "human").expect("labelled");
    let (tokens, report) = tokenize_pairs(&pairs, &tokenizer, &keep_start(1024)).expect("tokenised");
    assert_eq!(tokens.len() + report.dropped.len(), 2312);
    for (pair, tokens) in pairs.iter().filter(|p| !report.dropped.contains(&p.id)).zip(&tokens) {
        let (Text::Plain(prompt), Text::Plain(chosen)) = (&pair.prompt, &pair.chosen) else {
            panic!("hh-rlhf is plain text")
        };
        let whole = [&tokens.prompt[..], &tokens.chosen].concat();
        let text = tokenizer.decode(&whole).expect("decoded");
        let expected = [prompt.as_str(), chosen].concat();
        assert!(expected.starts_with(&text.replace('\u{fffd}', "")), "pair {}", pair.id);
    }
}

#[test]
fn pairs_keep_their_order_and_the_report_reads_well() {
    let pairs = [
        plain("a", "The answer", " is four.", " is that"),
        plain("b", "The ans", "wer", "wering"),
        plain("c", "the lazy dog jumps over the lazy dog jumps", " x", " y"),
    ];
    let (tokens, report) = tokenize_pairs(&pairs, &tiny(), &keep_start(5)).expect("tokenised");
    assert_eq!(tokens.iter().map(|pair| pair.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        report.to_string(),
        "2 of 3 pairs tokenized. Tokens: prompt 2 to 3 (median 2, 90% at most 3), chosen 2 to 2 (median 2, 90% at \
         most 2), rejected 2 to 3 (median 2, 90% at most 3). To max_length 5, 0 prompts and 3 responses were cut and \
         1 pair dropped (c). In 1 pair the end of the prompt has other tokens once a response follows."
    );
}

#[test]
fn what_cannot_be_tokenised_says_which_pair() {
    let tokenizer = tiny();
    let mixed = Pair { prompt: Text::Chat(vec![Message::user("hi")]), ..plain("m", "", "a", "b") };
    let error = tokenize_pairs(&[mixed], &tokenizer, &keep_start(9)).expect_err("mixed");
    assert!(matches!(error, DataError::MixedForms { id } if id == "m"));
    let error = tokenize_pairs(&[], &tokenizer, &keep_start(1)).expect_err("no room");
    assert!(matches!(error, DataError::MaxLength { max_length: 1 }));

    let bare = tempfile::tempdir().expect("a folder");
    fs::copy(fixture_path("tiny/tokenizer.json"), bare.path().join("tokenizer.json")).expect("copied");
    let tokenizer = Tokenizer::from_folder(bare.path()).expect("a folder without a configuration");
    let error = tokenize_pairs(&[plain("p", "a", "b", "c")], &tokenizer, &keep_start(9)).expect_err("no end");
    assert!(matches!(error, DataError::NoEosToken { .. }));

    // Without a post-processor nothing is put before an empty prompt.
    let json = fs::read_to_string(fixture_path("tiny/tokenizer.json")).expect("read");
    let mut json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    json["post_processor"] = serde_json::Value::Null;
    fs::write(bare.path().join("tokenizer.json"), json.to_string()).expect("written");
    fs::write(bare.path().join("tokenizer_config.json"), r#"{"eos_token": "</s>"}"#).expect("written");
    let tokenizer = Tokenizer::from_folder(bare.path()).expect("a folder");
    let error =
        tokenize_pairs(&[plain("p", "", "b", "c")], &tokenizer, &keep_start(9)).expect_err("no prompt");
    assert!(matches!(error, DataError::EmptyPrompt { id } if id == "p"));
}

#[test]
fn the_folder_decides_special_tokens() {
    let tokenizer = tiny();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()), (Some(1), Some(2), 2));
    assert_eq!(tokenizer.stop_tokens(), [2, 3]);
    assert_eq!(tokenizer.vocab_size(), 340);
    let ids = tokenizer.encode("The answer</s>").expect("encoded");
    assert_eq!(ids.last(), Some(&2));
    assert_eq!(tokenizer.decode(&ids).expect("decoded"), "The answer");
    let document = tokenizer.encode_document("The answer</s>").expect("encoded");
    assert_eq!(document, [&[1], &ids[..]].concat());

    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(fixture_path("tiny/tokenizer.json"), folder.path().join("tokenizer.json")).expect("copied");
    let config = |json: &str| {
        fs::write(folder.path().join("tokenizer_config.json"), json).expect("written");
        Tokenizer::from_folder(folder.path())
    };
    // transformers 5.23 ignores these flags where tokenizer.json is there.
    let flags = r#"{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false, "add_eos_token": true}"#;
    assert_eq!(config(flags).expect("a folder").encode_document("The").expect("encoded"), {
        let the = tokenizer.encode("The").expect("encoded");
        [&[1], &the[..]].concat()
    });
    let error = config(r#"{"eos_token": "<end>"}"#).expect_err("not in the vocabulary");
    assert!(matches!(error, DataError::UnknownSpecialToken { name: "eos_token", .. }));
    assert!(matches!(config("{"), Err(DataError::TokenizerFile { .. })));
    let error = Tokenizer::from_folder(folder.path().join("none")).expect_err("no folder");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("secret"), "{}").unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"] {
        let folder = tempfile::tempdir().unwrap();
        for copied in ["tokenizer.json", "tokenizer_config.json"].into_iter().filter(|copied| *copied != name)
        {
            fs::copy(fixture_path("tiny").join(copied), folder.path().join(copied)).unwrap();
        }
        std::os::unix::fs::symlink(elsewhere.path().join("secret"), folder.path().join(name)).unwrap();
        let error = Tokenizer::from_folder(folder.path()).expect_err("refused");
        let source = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(error.to_string().contains(name) && source.contains("symbolic link"), "{error}: {source}");
    }
}

#[test]
fn dialogues_score_every_answer_with_its_end() {
    let tokenizer = tiny();
    let messages = [
        Message::system("Be brief."),
        Message::user("What is the answer?"),
        Message::assistant("The answer is four."),
        Message::user("bake bread"),
        Message::assistant("mix flour"),
    ];
    let dialogue = tokenize_dialogue(&messages, &tokenizer, 200).expect("tokenised");
    let text = |ids: &[u32]| {
        // Special tokens are left out of a decoded text, so name the one that ends a turn.
        let pieces = ids.iter().map(|&id| match id {
            2 => "</s>".to_owned(),
            3..=5 => format!("<{id}>"),
            id => tokenizer.decode(&[id]).expect("decoded"),
        });
        pieces.collect::<String>()
    };
    let scored: Vec<u32> = dialogue
        .ids()
        .iter()
        .zip(dialogue.scored())
        .filter(|&(_, &scored)| scored)
        .map(|(&id, _)| id)
        .collect();
    assert_eq!(text(&scored), "The answer is four.</s>\nmix flour</s>\n");
    assert_eq!(dialogue.ids()[0], 1);

    let first_only = tokenize_dialogue(&messages, &tokenizer, 30).expect("the first answer is in reach");
    assert_eq!(first_only.ids(), &dialogue.ids()[..30]);
    assert_eq!(first_only.scored(), &dialogue.scored()[..30]);
    let error = tokenize_dialogue(&messages[..2], &tokenizer, 200).expect_err("nobody answers");
    assert!(matches!(error, DataError::NothingScored { .. }));
    let error = tokenize_dialogue(&messages, &tokenizer, 5).expect_err("the answers are out of reach");
    assert!(matches!(error, DataError::NothingScored { max_length: 5 }));
}

#[test]
fn a_template_that_rewrites_the_past_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture_path("tiny").join(name), folder.path().join(name)).expect("copied");
    }
    // Only the last answer is shown.
    let template = "{% for m in messages %}{% if m.role == 'user' or loop.last %}{{ m.content }};{% endif %}{% endfor %}";
    fs::write(folder.path().join("chat_template.jinja"), template).expect("written");
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("a folder");
    let messages = [Message::user("a"), Message::assistant("b"), Message::user("c"), Message::assistant("d")];
    assert!(tokenize_dialogue(&messages[..2], &tokenizer, 99).is_ok());
    let error = tokenize_dialogue(&messages, &tokenizer, 99).expect_err("the first answer vanishes");
    assert!(matches!(error, DataError::UnstableTemplate { message: 1, .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn truncation_empties_nothing_and_loses_no_pair(
        texts in prop::collection::vec(("[a-z ]{0,60}", "[a-z ]{1,60}", "[a-z ]{1,60}"), 1..12),
        max_length in 2usize..60,
        truncation in prop::sample::select(vec![Truncation::KeepStart, Truncation::KeepEnd]),
    ) {
        let pairs: Vec<Pair> =
            texts.iter().enumerate().map(|(n, (p, c, r))| plain(&n.to_string(), p, c, r)).collect();
        let tokenizer = tiny();
        let (whole, _) = tokenize_pairs(&pairs, &tokenizer, &keep_start(10_000)).expect("tokenised");
        let options = TokenizeOptions { truncation, ..keep_start(max_length) };
        let (cut, report) = tokenize_pairs(&pairs, &tokenizer, &options).expect("tokenised");
        prop_assert_eq!(cut.len() + report.dropped.len(), pairs.len());
        prop_assert_eq!((report.pairs_in, report.pairs_out), (pairs.len(), cut.len()));
        let kept = whole.iter().filter(|pair| !report.dropped.contains(&pair.id));
        for (whole, cut) in kept.zip(&cut) {
            prop_assert_eq!(&whole.id, &cut.id);
            prop_assert!(!cut.prompt.is_empty() && !cut.chosen.is_empty() && !cut.rejected.is_empty());
            prop_assert!(cut.prompt.len() + cut.chosen.len().max(cut.rejected.len()) <= max_length);
            match truncation {
                Truncation::KeepStart => {
                    prop_assert_eq!(&whole.prompt, &cut.prompt);
                    prop_assert!(whole.chosen.starts_with(&cut.chosen) && whole.rejected.starts_with(&cut.rejected));
                }
                Truncation::KeepEnd => {
                    prop_assert!(whole.prompt.ends_with(&cut.prompt));
                    prop_assert_eq!((&whole.chosen, &whole.rejected), (&cut.chosen, &cut.rejected));
                }
            }
        }
        for dropped in &report.dropped {
            let pair = whole.iter().find(|pair| pair.id == *dropped).expect("it was there");
            let longer = pair.chosen.len().max(pair.rejected.len());
            let no_room = match truncation {
                Truncation::KeepStart => pair.prompt.len() >= max_length,
                Truncation::KeepEnd => longer >= max_length,
            };
            prop_assert!(no_room);
        }
    }
}
