//! What reaches a chat template, and what happens to pairs that it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pref_data::{
    ChatSettings, Format, Identical, Pair, ReadOptions, SharedTurns, SkippedExample, TokenizeOptions,
    Tokenizer, annotator_view, preview_pair, read_records_with, tokenize_pairs,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const SHOWS_ALL: &str = "{{ tools | tojson }}|{{ documents[0].title }}|{{ mode }}|\
    {% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.name }}{% for c in m.tool_calls %}{{ c.id }}{% endfor %}{% endfor %}\
    {% if add_generation_prompt %}<assistant>{% endif %}";
const CHAT: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

fn folder(template: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tiny.join(name), folder.path().join(name)).expect("copied");
    }
    fs::write(folder.path().join("chat_template.jinja"), template).expect("written");
    folder
}

fn pairs(rows: &[Value]) -> Vec<Pair> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pairs.jsonl");
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n")).expect("written");
    let (records, _) = read_records_with(&path, &ReadOptions::new(Format::Pairs)).expect("records");
    annotator_view(&records, "human").expect("pairs").0
}

fn row(chosen: &str, rejected: &str) -> Value {
    json!({
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    })
}

fn with(mut row: Value, key: &str, value: Value) -> Value {
    row[key] = value;
    row
}

/// The rendered prompt and chosen response of the only pair.
fn rendered(folder: &Path, settings: &ChatSettings, row: Value) -> String {
    let tokenizer = Tokenizer::open(folder, settings).expect("a tokenizer");
    let pair = &pairs(&[row])[0];
    let preview = preview_pair(pair, &tokenizer, &TokenizeOptions::new(4096)).expect("rendered");
    preview.prompt + &preview.chosen
}

#[test]
fn tools_documents_variables_and_keys_reach_the_template() {
    let folder = folder(SHOWS_ALL);
    let mut row = row("a", "b");
    row["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    row["documents"] = json!([{"title": "T", "text": "t"}]);
    row["chat_template_kwargs"] = json!({"mode": "row"});
    row["prompt"][0]["name"] = json!("Ann");
    row["chosen"][0]["tool_calls"] = json!([{"id": "call-7", "type": "function", "function": {"name": "f"}}]);
    let variables = Map::from_iter([("mode".to_owned(), json!("recipe"))]);
    let settings = ChatSettings { variables, ..ChatSettings::default() };
    let text = rendered(folder.path(), &settings, row.clone());
    assert_eq!(
        text,
        "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]|T|row|<user>qAnn<assistant>acall-7"
    );
    // Without variables of the row those of the recipe count.
    row.as_object_mut().expect("an object").remove("chat_template_kwargs");
    assert!(rendered(folder.path(), &settings, row).contains("|T|recipe|"));
}

#[test]
fn a_key_that_no_template_reads_is_named_once() {
    let folder = folder(CHAT);
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("a tokenizer");
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let rows = [with(row("a", "b"), "tools", tools.clone()), with(row("c", "d"), "tools", tools)];
    let (_, report) = tokenize_pairs(&pairs(&rows), &tokenizer, &TokenizeOptions::new(64)).expect("tokens");
    assert_eq!(report.unseen, ["tools"]);
}

#[test]
fn a_key_that_the_template_reads_in_a_message_without_content_is_not_named() {
    let reads_calls = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\
        {% for c in m.tool_calls %}{{ c.id }}{% endfor %}{% endfor %}";
    let folder = folder(reads_calls);
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("a tokenizer");
    let mut row = row("a", "b");
    let call = json!({"role": "assistant", "tool_calls": [{"id": "call-7"}]});
    row["prompt"].as_array_mut().expect("messages").push(call);
    let (_, report) = tokenize_pairs(&pairs(&[row]), &tokenizer, &TokenizeOptions::new(64)).expect("tokens");
    assert_eq!(report.unseen, Vec::<String>::new());
}

#[test]
fn pairs_with_tools_take_the_template_named_tool_use() {
    let folder = folder("default:{% for m in messages %}{{ m.content }}{% endfor %}");
    let named = folder.path().join("additional_chat_templates");
    fs::create_dir(&named).expect("created");
    fs::write(named.join("tool_use.jinja"), "tools:{% for m in messages %}{{ m.content }}{% endfor %}")
        .expect("written");
    let settings = ChatSettings::default();
    assert_eq!(rendered(folder.path(), &settings, row("a", "b")), "default:qa");
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(rendered(folder.path(), &settings, with(row("a", "b"), "tools", tools)), "tools:qa");
}

#[test]
fn text_parts_are_text_or_parts_as_the_template_reads_them() {
    let parts = json!([{"type": "text", "text": "q1"}, {"type": "text", "text": "q2"}]);
    let mut row = row("a", "b");
    row["prompt"][0]["content"] = parts;
    let joined = rendered(folder(CHAT).path(), &ChatSettings::default(), row.clone());
    assert!(joined.starts_with("<user>q1") && !joined.contains("type"), "{joined}");
    let looping = "{% for m in messages %}{% if m.content is string %}{{ m.content }}\
        {% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}";
    assert_eq!(rendered(folder(looping).path(), &ChatSettings::default(), row), "[q1][q2]a");
}

#[test]
fn parts_that_are_images_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pairs.jsonl");
    let mut row = row("a", "b");
    row["prompt"][0]["content"] = json!([{"type": "image", "image": "x.png"}]);
    fs::write(&path, row.to_string()).expect("written");
    let error = read_records_with(&path, &ReadOptions::new(Format::Pairs)).expect_err("an image");
    let message = error.to_string();
    assert!(message.contains("line 1: field `prompt[0].content[0].type`"), "{message}");
    assert!(message.contains("\"image\""), "{message}");
}

#[test]
fn turns_that_both_responses_share_are_prompt_or_scored() {
    let folder = folder(CHAT);
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("a tokenizer");
    let response = |last: &str| {
        json!([
            {"role": "assistant", "content": "one"},
            {"role": "user", "content": "more"},
            {"role": "assistant", "content": last},
        ])
    };
    let row = with(with(row("", ""), "chosen", response("x")), "rejected", response("y"));
    let pairs = pairs(&[row]);
    let prompt = |shared_turns| {
        let options = TokenizeOptions { shared_turns, ..TokenizeOptions::new(4096) };
        let (tokens, report) = tokenize_pairs(&pairs, &tokenizer, &options).expect("tokens");
        let preview = preview_pair(&pairs[0], &tokenizer, &options).expect("a preview");
        assert_eq!(tokens[0], preview.tokens.expect("it has room"));
        (preview.prompt, report.shared_turn_tokens)
    };
    let (text, counted) = prompt(SharedTurns::Prompt);
    assert_eq!(text, "<user>q\n<assistant>one\n<user>more\n<assistant>");
    assert!(counted > 0);
    assert_eq!(prompt(SharedTurns::Score), ("<user>q\n<assistant>".to_owned(), 0));
}

#[test]
fn identical_pairs_are_counted_and_dropped_on_request() {
    let folder = folder(CHAT);
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("a tokenizer");
    let pairs = pairs(&[row("a", "b"), row("same", "same")]);
    for (identical, kept) in [(Identical::Keep, 2), (Identical::Drop, 1)] {
        let options = TokenizeOptions { identical, ..TokenizeOptions::new(64) };
        let (tokens, report) = tokenize_pairs(&pairs, &tokenizer, &options).expect("tokens");
        assert_eq!((tokens.len(), report.identical), (kept, 1));
    }
}

#[test]
fn a_pair_that_the_template_refuses_is_named_and_skipped_on_request() {
    let folder = folder(
        "{% for m in messages %}\n{% if m.role == 'system' %}{{ raise_exception('No system role!') }}{% endif %}\n\
         {{ m.content }}{% endfor %}",
    );
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("a tokenizer");
    let mut bad = with(row("c", "d"), "id", json!("bad-one"));
    bad["prompt"] = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]);
    let pairs = pairs(&[row("a", "b"), bad]);
    let options = TokenizeOptions::new(64);
    let error = tokenize_pairs(&pairs, &tokenizer, &options).expect_err("the template raises");
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let message = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(message.starts_with("record `bad-one`: the chat template of "), "{message}");
    assert!(message.ends_with("line 2: No system role!"), "{message}");
    let options = TokenizeOptions { skip_bad: 1, ..options };
    let (tokens, report) = tokenize_pairs(&pairs, &tokenizer, &options).expect("one is left");
    assert!(report.to_string().contains("1 pair skipped that cannot be rendered"), "{report}");
    let skipped = SkippedExample { id: "bad-one".to_owned(), problem: message };
    assert_eq!((tokens.len(), report.skipped), (1, vec![skipped]));
}

/// A text and its ids by transformers, without and with sanitizing (`fixtures/control_tokens.py`).
#[derive(Deserialize)]
struct ControlTokens {
    text: String,
    ids: BTreeMap<bool, Vec<u32>>,
}

#[test]
fn control_tokens_in_messages_have_the_ids_of_transformers() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let cases = fs::read(fixtures.join("control_tokens.json")).expect("the fixture");
    let cases: Vec<ControlTokens> = serde_json::from_slice(&cases).expect("a fixture");
    assert!(cases.iter().any(|case| case.ids[&false] != case.ids[&true]));
    for sanitize_control_tokens in [false, true] {
        let settings = ChatSettings { sanitize_control_tokens, ..ChatSettings::default() };
        let tokenizer = Tokenizer::open(fixtures.join("tiny"), &settings).expect("a tokenizer");
        for case in &cases {
            let mut row = row(&case.text, "another answer");
            row["prompt"][0]["content"] = json!(case.text);
            let (tokens, report) =
                tokenize_pairs(&pairs(&[row]), &tokenizer, &TokenizeOptions::new(4096)).expect("tokens");
            let ids = [&tokens[0].prompt[..], &tokens[0].chosen].concat();
            assert_eq!(ids, case.ids[&sanitize_control_tokens], "{:?}", case.text);
            let has_tokens = case.ids[&false] != case.ids[&true];
            assert_eq!(report.control_tokens > 0, has_tokens, "{:?}", case.text);
            assert_eq!(report.sanitized, sanitize_control_tokens);
        }
    }
}
