//! Published chat templates against transformers' own rendering.
//!
//! `PREF_REAL_TEMPLATES` names a folder with `rendered.json`: templates, conversations, and what transformers renders
//! or refuses.

#![expect(clippy::print_stderr, reason = "a test that skips says so")]

use std::fs;
use std::path::PathBuf;

use chat_template::{Date, Inputs, Rendered, Template, TemplateError};
use serde_json::{Map, Value};

/// Renders that may differ, each with its reason.
const EXPLAINED: [(&str, &str); 0] = [];

fn fixture() -> Option<Value> {
    let Ok(folder) = std::env::var("PREF_REAL_TEMPLATES") else {
        eprintln!("SKIPPED: PREF_REAL_TEMPLATES is not set, so published templates are not rendered");
        return None;
    };
    let path = PathBuf::from(folder).join("rendered.json");
    let text = fs::read(&path).expect("PREF_REAL_TEMPLATES names a folder with rendered.json");
    Some(serde_json::from_slice(&text).expect("rendered.json is JSON"))
}

fn render(source: &str, inputs: &Inputs, date: Date) -> Result<Rendered, TemplateError> {
    Template::parse(source)?.render(inputs, date)
}

#[test]
fn published_templates_render_as_in_transformers() {
    let Some(fixture) = fixture() else { return };
    let date = Date::At(fixture["now"].as_i64().expect("a time"));
    let variables: Map<String, Value> = fixture["special"].as_object().expect("special tokens").clone();
    let templates = fixture["templates"].as_array().expect("templates");
    let (mut renders, mut differences) = (0, Vec::new());
    for template in templates {
        let (name, source) =
            (template["name"].as_str().expect("a name"), template["source"].as_str().expect("a source"));
        for (conversation, cases) in template["cases"].as_object().expect("cases") {
            for (case, expected) in cases.as_object().expect("two cases") {
                renders += 1;
                let messages = fixture["conversations"][conversation].as_array().expect("messages");
                let messages = messages.iter().map(|message| message.as_object().expect("a message").clone());
                let inputs = Inputs {
                    messages: messages.collect(),
                    add_generation_prompt: case == "await",
                    variables: variables.clone(),
                    ..Inputs::default()
                };
                let ours = render(source, &inputs, date);
                let same = match (&ours, expected["text"].as_str(), expected["error"].as_str()) {
                    (Ok(ours), Some(theirs), _) => ours.text == theirs,
                    (Err(_), None, Some(_)) => true,
                    _ => false,
                };
                if !same && !EXPLAINED.iter().any(|(explained, _)| *explained == name) {
                    differences
                        .push(format!("{name}, {conversation}, {case}: {ours:?}\n      not {expected}"));
                }
            }
        }
    }
    eprintln!("{} templates, {renders} renders, {} differences", templates.len(), differences.len());
    assert!(templates.len() > 100 && renders > 3000, "the fixture is whole");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
