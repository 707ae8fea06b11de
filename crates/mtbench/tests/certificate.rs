//! A judge against people, on votes whose counts follow from their construction.

use mtbench::{Answer, Certificate, PairJudgment, Vote, certify};
use serde_json::json;

/// Returns an answer of `words` words in each of two turns.
fn answer(model: &str, question: u64, words: usize) -> Answer {
    let text = "word ".repeat(words);
    serde_json::from_value(json!({
        "question_id": question, "answer_id": "x", "model_id": model, "tstamp": 0.0,
        "choices": [{"index": 0, "turns": [text, text]}],
    }))
    .unwrap()
}

fn judgment(question: u64, winners: [&str; 2]) -> PairJudgment {
    serde_json::from_value(json!({
        "question_id": question, "model_1": "long", "model_2": "short", "g1_winner": winners[0],
        "g2_winner": winners[1], "judge": ["qwen", "pair-v2"], "turn": 1,
    }))
    .unwrap()
}

fn vote(question: u64, person: &str, winner: &str) -> Vote {
    serde_json::from_value(json!({
        "question_id": question, "model_a": "short", "model_b": "long", "winner": winner, "judge": person, "turn": 1,
    }))
    .unwrap()
}

/// Ten questions. The judge prefers `long` on eight and contradicts itself on two; people prefer `long` on four.
fn certificate() -> Certificate {
    let answers: Vec<Answer> =
        (0..10).flat_map(|question| [answer("long", question, 9), answer("short", question, 3)]).collect();
    let judgments: Vec<PairJudgment> = (0..10)
        .map(|question| match question {
            0..8 => judgment(question, ["model_1", "model_1"]),
            8 => judgment(question, ["model_1", "model_2"]),
            _ => judgment(question, ["model_2", "model_1"]),
        })
        .collect();
    let people = |question: u64| match question {
        0..4 => "model_b",
        4..8 => "model_a",
        _ => "tie",
    };
    let mut votes: Vec<Vote> = (0..10)
        .flat_map(|question| ["ann", "expert_2"].map(|person| vote(question, person, people(question))))
        .collect();
    votes.push(vote(0, "author_1", "model_a"));
    votes.push(vote(77, "ann", "model_a"));
    certify("qwen", &votes, &judgments, &answers).unwrap()
}

#[test]
fn agreement_position_and_length_are_counted() {
    let found = certificate();
    let share = |share: mtbench::Share| (share.events, (share.share.unwrap().value * 1000.0).round());
    assert_eq!(share(found.agreement[0]), (20, 600.0), "12 of 20: four questions and two ties");
    assert_eq!(share(found.agreement[1]), (16, 500.0));
    assert_eq!(share(found.people[0]), (10, 1000.0));
    assert_eq!(share(found.consistent), (10, 800.0));
    assert_eq!(share(found.first_position), (2, 500.0));
    assert_eq!(share(found.longer_by_judge), (8, 1000.0));
    assert_eq!(share(found.longer_by_people), (17 - 1, 500.0));
    let bias = found.length_bias.unwrap();
    assert_eq!(bias.value, 0.5, "the judge prefers the longer answer on four of eight questions more");
    assert!(bias.p_value() < 0.05);
    assert_eq!(found.unmatched, 1);
    let [now, more] = found.half_widths().unwrap();
    assert!((more / now - (20.0_f64 / 100.0).sqrt()).abs() < 1e-12);
}

#[test]
fn the_table_states_votes_and_the_benefit_of_more() {
    let text = certificate().table().render_within(80);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for words in ["qwen against people", "80 more votes would narrow", "1 votes are on pairs", "+50.0 ["] {
        assert!(text.contains(words), "{words:?} is missing in: {text}");
    }
}

#[test]
fn without_votes_every_share_is_missing() {
    let found = certify("qwen", &[], &[], &[]).unwrap();
    assert!(
        found.agreement[0].share.is_none() && found.length_bias.is_none() && found.half_widths().is_none()
    );
    assert!(found.table().render_within(80).contains("fewer than two questions"));
}
