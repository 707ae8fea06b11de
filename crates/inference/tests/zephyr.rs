//! The published chat template of Zephyr renders the benchmark's questions as FastChat does.

use std::fs;
use std::path::Path;

use inference::{LoadedPolicy, chat_messages};
use mtbench::Conversation;
use pref_data::{RenderMode, Tokenizer};
use serde_json::{Value, json};

fn read(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A folder with Zephyr's template and end of text, as its authors publish them, or without the template.
fn folder(template: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pref-data/tests/fixtures/tiny/tokenizer.json");
    fs::copy(tiny, folder.path().join("tokenizer.json")).unwrap();
    let config = json!({"eos_token": "</s>", "chat_template": template});
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn both_turns_render_as_in_fastchat() {
    let templates = read("pref-data/tests/fixtures/chat_templates.json");
    let zephyr = templates["templates"].as_array().unwrap().iter().find(|t| t["name"] == "zephyr").unwrap();
    let folder = folder(Some(zephyr["source"].as_str().unwrap()));
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let expected = read("mtbench/tests/fixtures/zephyr.json");
    let text = |turn: usize, side: usize| expected["turns"][turn][side].as_str();
    for turn in 1..=2 {
        let conversation = Conversation {
            question_id: 81,
            turn,
            user: (0..usize::from(turn)).map(|at| text(at, 0).unwrap()).collect(),
            assistant: (0..usize::from(turn) - 1).map(|at| text(at, 1).unwrap()).collect(),
            temperature: 0.0,
        };
        // FastChat keeps the empty system block of its template.
        let messages = chat_messages(&conversation, Some(""));
        let ours = tokenizer.render_chat(&messages, RenderMode::AwaitAnswer).unwrap();
        assert_eq!(Some(ours.as_str()), expected["prompts"][usize::from(turn) - 1].as_str());
    }
}

#[test]
fn a_folder_without_a_chat_template_is_refused() {
    let folder = folder(None);
    let error = LoadedPolicy::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("has no chat template"), "{error}");
    assert!(error.is_bad_input());
}
