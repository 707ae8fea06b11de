//! Small templates against transformers' own rendering (`fixtures/expressions.py`).

use chat_template::{Date, Inputs, Template};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Case {
    source: String,
    variables: Map<String, Value>,
    expected: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Text(String),
    /// Python's message is worded otherwise.
    Error(IgnoredAny),
}

#[test]
fn expressions_have_pythons_results() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("fixtures/expressions.json")).expect("the fixture is JSON");
    assert!(cases.len() > 450, "the fixture is whole");
    let messages = vec![json!({"role": "user", "content": "hi"}).as_object().expect("an object").clone()];
    let mut differences = Vec::new();
    for Case { source, variables, expected } in cases {
        let inputs = Inputs { messages: messages.clone(), variables: variables.clone(), ..Inputs::default() };
        let ours = Template::parse(&source).and_then(|template| template.render(&inputs, Date::At(0)));
        match (&ours, &expected) {
            (Ok(ours), Expected::Text(theirs)) if ours.text == *theirs => {}
            (Err(_), Expected::Error(_)) => {}
            _ => differences.push(format!("{source} with {variables:?}\n  {ours:?}\n  {expected:?}")),
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
