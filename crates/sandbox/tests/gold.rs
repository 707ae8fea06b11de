//! What answers are worth.

use pref_data::Message;
use sandbox::{
    Attempt, CATEGORIES, HIGHEST, LOWEST, Mixture, assess, category_of, demonstrations, gold_quality,
    ideal_answer, questions, reference_turns,
};
use seeds::Seeds;

/// Conversations (user turns only; the answers between them do not count), ideal answer, distractor.
const EXAMPLES: [(&[&str], &str, &str); 16] = [
    (&["Describe the sea with salt."], "The sea is deep and full of salt.", "The sea is nice."),
    (
        &["Describe the sea with salt.", "Again, now with ice."],
        "The sea is deep and full of ice.",
        "The sea is nice.",
    ),
    (&["You are a pirate. Greet Ann."], "I say ahoy, Ann, from my ship.", "I say hello from my room."),
    (
        &["You are a pirate. Greet Ann.", "Now you are a king."],
        "I say hail, Ann, from my hall.",
        "I say hello from my room.",
    ),
    (&["Rank Tom over Eva over Gus. Who is top?"], "It is Tom, as Tom is over Eva.", "It is Eva."),
    (
        &["Rank Tom over Eva over Gus. Who is top?", "Who is last?"],
        "It is Gus, as Eva is over Gus.",
        "It is Eva.",
    ),
    (&["Count 3 hats and 5 cups."], "There are 8, from 3 and 5.", "There are 9."),
    (&["Count 3 hats and 5 cups.", "Now 9 eggs and 9 keys."], "There are 18, from 9 and 9.", "There are 19."),
    (&["Code a plus b as f."], "def f(a, b): return a + b.", "def foo(a, b): return a - b."),
    (
        &["Code a plus b as f.", "Now times as g."],
        "def g(a, b): return a * b.",
        "def foo(a, b): return a / b.",
    ),
    (&["Note: Tom, Rome, cat, 7. The town?"], "The town of Tom is Rome.", "The town is cat."),
    (&["Note: Tom, Rome, cat, 7. The town?", "And the age?"], "The age of Tom is 7.", "The age is Rome."),
    (&["Explain the gold of Tom."], "It is Au, a metal.", "It is Fe."),
    (&["Explain the gold of Tom.", "And the neon?"], "It is Ne, a gas.", "It is Ar."),
    (&["Tell Ann who wrote Faust."], "Dear Ann, it is by Goethe.", "It is by Homer."),
    (
        &["Tell Ann who wrote Faust.", "And the land of Emma?"],
        "Dear Ann, it is from England.",
        "It is from Germany.",
    ),
];

fn conversation(user: &[&str]) -> Vec<Message> {
    let mut messages = Vec::new();
    for (index, turn) in user.iter().enumerate() {
        if index > 0 {
            messages.push(Message::assistant("I am not sure."));
        }
        messages.push(Message::user(*turn));
    }
    messages
}

#[test]
fn ideal_answers_have_quality_ten_and_distractors_a_low_one() {
    for (index, (user, ideal, distractor)) in EXAMPLES.iter().enumerate() {
        let prompt = conversation(user);
        assert_eq!(category_of(&prompt), Some(CATEGORIES[index / 2]), "{user:?}");
        assert_eq!(gold_quality(&prompt, ideal), HIGHEST, "{user:?} {ideal}");
        assert_eq!(ideal_answer(&prompt).as_deref(), Some(*ideal), "{user:?}");
        // A wrong, bare answer in good form: 1 + form + length.
        assert_eq!(gold_quality(&prompt, distractor), 3.75, "{user:?} {distractor}");
        let assessed = assess(&prompt, distractor);
        assert_eq!((assessed.attempt, assessed.core, assessed.constraint), (Attempt::Answered, false, false));
    }
}

#[test]
fn each_part_of_the_formula_counts_by_its_weight() {
    let prompt = conversation(&["Count 3 hats and 5 cups."]);
    for (answer, quality) in [
        ("There are 8, from 3 and 5.", 10.0),
        ("there are 8, FROM 3 and 5.", 10.0),
        ("Sure, there are 8, from 3 and 5.", 10.0),
        ("There are 8.", 7.75),
        ("There are 9, from 3 and 5.", 6.0),
        ("There are 8, from 3 and 6.", 7.75),
        ("There are 8, from 3 and 5", 9.25),
        ("Um, there are 8, from 3 and 5.", 9.25),
        ("There are 8, from 3 and 5. I hope this helps.", 9.375),
        ("There are 8, from 3 and 5. I hope this helps. Just ask me for more.", 8.75),
        ("Um, there are 9. I hope this helps. Just ask me for more", 1.0),
        ("I am not sure.", 1.5),
        ("I am not sure. There are 8, from 3 and 5.", 9.375),
    ] {
        assert_eq!(gold_quality(&prompt, answer), quality, "{answer:?}");
    }
}

#[test]
fn degenerate_answers_have_low_quality() {
    for (user, ideal, _) in EXAMPLES {
        let prompt = conversation(user);
        let echo = user[user.len() - 1];
        let everything = (user.join(" ") + " " + ideal).replace(['.', ',', '?'], "");
        for text in
            ["", " ", ".", "...", "um", "Um, ", "Sure, ", "I hope this helps.", "a a a a a a a a", echo]
        {
            assert_eq!(gold_quality(&prompt, text), LOWEST, "{user:?} {text:?}");
        }
        assert_eq!(gold_quality(&prompt, &everything), LOWEST, "{everything:?}");
        let sentence = ideal.trim_end_matches('.');
        assert_eq!(gold_quality(&prompt, &format!("{sentence} {sentence}.")), LOWEST, "{sentence}");

        let repeated = format!("{ideal} ").repeat(8);
        assert!(gold_quality(&prompt, &repeated) <= 4.0, "eight times over: {repeated}");
        let padded = format!("{ideal}{}", " I hope this helps.".repeat(9));
        assert!(gold_quality(&prompt, &padded) <= 3.0, "mostly padding: {padded}");
    }
}

#[test]
fn listing_every_answer_is_wrong() {
    let prompt = conversation(&["Count 3 hats and 5 cups."]);
    let hedge: String = (2..=18).map(|sum| format!("There are {sum}. ")).collect();
    assert_eq!(gold_quality(&prompt, &hedge), LOWEST);
    let prompt = conversation(&["Rank Tom over Eva over Gus. Who is top?"]);
    let hedge = "It is Eva. It is Gus. It is Tom, as Tom is over Eva.";
    assert!(gold_quality(&prompt, hedge) < 4.0, "only the first claim counts");
}

#[test]
fn prompts_outside_of_the_world_give_quality_one() {
    for user in [
        &["What is love?"][..],
        &["Describe the sea with salt"],
        &["Describe the ocean with salt."],
        &["Count 3 hats and 500 cups."],
        &["Count 3 hats and 5 cups.", "Why?"],
        &["Count 3 hats and 5 cups.", "Now 9 eggs and 9 keys.", "Now 9 eggs and 9 keys."],
        &[],
    ] {
        let prompt = conversation(user);
        assert_eq!(category_of(&prompt), None, "{user:?}");
        assert_eq!(ideal_answer(&prompt), None, "{user:?}");
        for answer in ["There are 8, from 3 and 5.", "I am not sure.", "\u{fffd}é{x}"] {
            assert_eq!(gold_quality(&prompt, answer), LOWEST, "{user:?} {answer}");
        }
    }
    let answered = [Message::user("Count 3 hats and 5 cups."), Message::assistant("There are 8.")];
    assert_eq!(gold_quality(&answered, "There are 8, from 3 and 5."), LOWEST, "nothing waits for an answer");
}

#[test]
fn demonstrations_cover_the_scale_of_quality() {
    let mut lowest = HIGHEST;
    let mut highest = LOWEST;
    for dialogue in demonstrations(&Seeds::new(3), 4_000, Mixture::Ordinary) {
        for turn in [1, 3] {
            let quality = gold_quality(&dialogue[..turn], &dialogue[turn].content());
            assert!((LOWEST..=HIGHEST).contains(&quality), "{quality}: {dialogue:?}");
            assert_ne!(
                assess(&dialogue[..turn], &dialogue[turn].content()).attempt,
                Attempt::Neither,
                "{dialogue:?}"
            );
            lowest = quality.min(lowest);
            highest = quality.max(highest);
        }
    }
    assert_eq!((lowest, highest), (LOWEST, HIGHEST));
}

#[test]
fn references_have_quality_ten() {
    for question in questions(&Seeds::new(0)) {
        let answers = reference_turns(&question).expect("its own question");
        let mut prompt = vec![Message::user(&question.turns[0])];
        assert_eq!(gold_quality(&prompt, &answers[0]), HIGHEST);
        prompt.extend([Message::assistant("Um"), Message::user(&question.turns[1])]);
        assert_eq!(gold_quality(&prompt, &answers[1]), HIGHEST);
    }
}
