//! A comparison of two small models.

use human_study::Comparison;
use mtbench::{Answer, Question};

pub(crate) fn questions(count: u64) -> Vec<Question> {
    let question = |id: u64| Question {
        question_id: 81 + id,
        category: ["writing", "coding"][(id % 2) as usize].to_owned(),
        turns: vec![format!("What is {id}, and \"why\"?"), "Shorter, please.".to_owned()],
        reference: None,
        required_temperature: None,
    };
    (0..count).map(question).collect()
}

/// Answers that contain their model's name, for the tests; the page does not show models.
pub(crate) fn answers(model: &str, count: u64) -> Vec<Answer> {
    let answer = |id: u64| {
        let turns =
            [format!("=1+1, says {model}\n```\ncode, {id}\n```"), format!("</script> {model} <b>{id}</b>")];
        let line = serde_json::json!({
            "question_id": 81 + id, "answer_id": "a", "model_id": model,
            "choices": [{"index": 0, "turns": turns}], "tstamp": 0.0
        });
        serde_json::from_value(line).unwrap()
    };
    (0..count).map(answer).collect()
}

pub(crate) fn comparison(count: u64) -> Comparison {
    Comparison::new(&questions(count), &answers("dpo", count), &answers("sft", count)).unwrap()
}

pub(crate) fn raters() -> Vec<String> {
    ["Ann", "Bob", "Cid, Dr."].map(str::to_owned).to_vec()
}
