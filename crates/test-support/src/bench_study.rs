//! Questions and judgments of a small study.

use serde_json::{Value, json};

/// The first `count` questions of a small benchmark, as the lines of `question.jsonl`: two turns each, categories in turn.
pub fn bench_questions(count: usize) -> String {
    let question = |id: usize| {
        let category = ["writing", "stem"][id % 2];
        let turns = [format!("Say {id} ."), "Again .".to_owned()];
        json!({"question_id": 81 + id, "category": category, "turns": turns}).to_string() + "\n"
    };
    (0..count).map(question).collect()
}

/// Returns the text of a judge that rates an answer by its length. `body` is the request.
pub fn rates_by_length(body: &Value) -> String {
    let last = body["messages"].as_array().and_then(|messages| messages.last());
    let asked = last.and_then(|message| message["content"].as_str()).unwrap_or_default();
    let answer = asked.rsplit("[The Start").next().unwrap_or_default();
    format!("Rating: [[{}]]", 1 + answer.len() % 10)
}
