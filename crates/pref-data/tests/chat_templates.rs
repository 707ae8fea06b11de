//! Chat templates against transformers' own rendering (`fixtures/chat_templates.py`).

use std::fs;
use std::path::Path;

use pref_data::{ChatSettings, DataError, Date, Message, RenderMode, Tokenizer};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Fixture {
    now: i64,
    special: serde_json::Map<String, Value>,
    conversations: serde_json::Map<String, Value>,
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    source: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    conversation: String,
    complete: Rendered,
    await_answer: Rendered,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rendered {
    Text(String),
    Error(String),
}

/// A folder whose vocabulary is that of `tiny`, with the given template and special tokens.
fn folder_with(template: Option<&str>, special: &serde_json::Map<String, Value>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/tokenizer.json");
    fs::copy(tiny, folder.path().join("tokenizer.json")).expect("copied");
    let config = serde_json::to_vec(special).expect("JSON");
    fs::write(folder.path().join("tokenizer_config.json"), config).expect("written");
    if let Some(template) = template {
        fs::write(folder.path().join("chat_template.jinja"), template).expect("written");
    }
    folder
}

/// An error's message with those of its causes.
fn chain(error: &DataError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What differs from transformers, one line a case.
fn differences(fixture: &Fixture) -> Vec<String> {
    let settings = ChatSettings { date: Date::At(fixture.now), ..ChatSettings::default() };
    let mut out = Vec::new();
    for template in &fixture.templates {
        let folder = folder_with(Some(&template.source), &fixture.special);
        let tokenizer = Tokenizer::open(folder.path(), &settings);
        let tokenizer = match tokenizer {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                out.push(format!("{}: {error}", template.name));
                continue;
            }
        };
        for case in &template.cases {
            let messages = fixture.conversations[&case.conversation].clone();
            let messages: Vec<Message> = serde_json::from_value(messages).expect("messages");
            for (mode, expected) in
                [(RenderMode::Complete, &case.complete), (RenderMode::AwaitAnswer, &case.await_answer)]
            {
                let same = match (tokenizer.render_chat(&messages, mode), expected) {
                    (Ok(ours), Rendered::Text(theirs)) if ours == *theirs => continue,
                    // What a template raises itself must be in our message; Jinja's own errors are worded otherwise.
                    (Err(ours), Rendered::Error(theirs)) => {
                        !template.source.contains(theirs.as_str()) || chain(&ours).contains(theirs.as_str())
                    }
                    (ours, theirs) => {
                        out.push(format!(
                            "{}, {}: {ours:?}\n      not {theirs:?}",
                            template.name, case.conversation
                        ));
                        continue;
                    }
                };
                if !same {
                    out.push(format!("{}, {}: the raised message is lost", template.name, case.conversation));
                }
            }
        }
    }
    out
}

/// The committed fixture, or the one that `CHAT_TEMPLATES_FIXTURE` names: `chat_templates.py --all` writes one of every
/// template that TRL ships.
fn fixture() -> Fixture {
    let path = std::env::var("CHAT_TEMPLATES_FIXTURE")
        .map(std::path::PathBuf::from)
        .unwrap_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat_templates.json"));
    serde_json::from_slice(&fs::read(path).expect("the fixture")).expect("a fixture")
}

#[test]
fn templates_render_as_in_transformers() {
    let fixture = fixture();
    assert!(fixture.templates.len() >= 12, "the fixture is whole");
    let differences = differences(&fixture);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_date_that_is_not_given_is_an_error_that_names_the_key() {
    let folder = folder_with(Some("{{ strftime_now('%d %b %Y') }}"), &serde_json::Map::new());
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("it parses");
    let error =
        tokenizer.render_chat(&[Message::user("hi")], RenderMode::Complete).expect_err("there is no date");
    assert!(error.to_string().contains("set data.date"), "{error}");
}

#[test]
fn what_a_template_raises_reaches_the_user() {
    let folder = folder_with(Some("{{ raise_exception('No system role!') }}"), &serde_json::Map::new());
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("it parses");
    let error = tokenizer.render_chat(&[Message::user("hi")], RenderMode::Complete).expect_err("it raises");
    assert!(chain(&error).contains("line 1: No system role!"), "{error}");
}

#[test]
fn a_missing_or_broken_template_is_an_error() {
    let folder = folder_with(None, &serde_json::Map::new());
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("a template is optional");
    let error = tokenizer.render_chat(&[Message::user("hi")], RenderMode::Complete).expect_err("no template");
    assert!(matches!(error, DataError::NoTemplate { .. }));
    assert!(error.to_string().contains("put chat_template.jinja into the folder"), "{error}");

    for broken in ["{% for %}", "{%}", "a {%}{% if x %}"] {
        let folder = folder_with(Some(broken), &serde_json::Map::new());
        assert!(matches!(Tokenizer::from_folder(folder.path()), Err(DataError::Template { .. })), "{broken}");
    }
}

#[test]
fn the_template_may_stand_in_the_configuration_alone_or_by_name() {
    let one =
        json!({"chat_template": "one {{ eos_token }}", "eos_token": {"content": "</s>", "lstrip": false}});
    let named = json!({"chat_template": [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "named"},
    ]});
    for (config, expected) in [(one, "one </s>"), (named, "named")] {
        let Value::Object(config) = config else { unreachable!("they are objects") };
        let folder = folder_with(None, &config);
        let tokenizer = Tokenizer::from_folder(folder.path()).expect("a folder");
        assert_eq!(
            tokenizer.render_chat(&[Message::user("hi")], RenderMode::Complete).expect("rendered"),
            expected
        );
        fs::write(folder.path().join("chat_template.jinja"), "file").expect("written");
        let tokenizer = Tokenizer::from_folder(folder.path()).expect("a folder");
        assert_eq!(
            tokenizer.render_chat(&[Message::user("hi")], RenderMode::Complete).expect("rendered"),
            "file"
        );
    }
}

#[test]
fn data_date_none_takes_the_branch_without_a_date() {
    let source = "{% if strftime_now is defined %}{{ strftime_now('%F') }}{% else %}26 Jul 2024{% endif %}";
    let folder = folder_with(Some(source), &serde_json::Map::new());
    for (date, expected) in [(Date::Absent, "26 Jul 2024"), (Date::At(1_732_365_296), "2024-11-23")] {
        let settings = ChatSettings { date, ..ChatSettings::default() };
        let tokenizer = Tokenizer::open(folder.path(), &settings).expect("a folder");
        let text = tokenizer.render_chat(&[Message::user("hi")], RenderMode::Complete).expect("rendered");
        assert_eq!(text, expected);
    }
}
