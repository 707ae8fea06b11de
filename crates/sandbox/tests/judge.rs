//! Sandbox judges speak like LLM judges and mean gold quality.

use mtbench::{
    Draw, Judge, JudgeRequest, Mode, PairVerdict, Question, Rival, parse_pair_verdict, parse_rating,
};
use pref_data::Message;
use sandbox::{Mixture, SandboxJudge, demonstrate_answer, gold_quality, questions};
use seeds::Seeds;

fn request<'a>(question: &'a Question, answers: &'a [String], turn: u8) -> JudgeRequest<'a> {
    JudgeRequest {
        question,
        model: "m",
        answers,
        rival: None,
        turn,
        system_prompt: String::new(),
        user_prompt: String::new(),
        draw: Draw::default(),
    }
}

/// Two answers to each question, with the gold quality of each.
fn answered(mixture: Mixture) -> Vec<(Question, Vec<String>, [f64; 2])> {
    let mut rng = Seeds::new(7).stream("answers");
    questions(&Seeds::new(0))
        .into_iter()
        .map(|question| {
            let mut dialogue = Vec::new();
            let mut answers = Vec::new();
            let mut gold = [0.0; 2];
            for (turn, quality) in question.turns.iter().zip(&mut gold) {
                dialogue.push(Message::user(turn));
                let answer = demonstrate_answer(&dialogue, mixture, &mut rng).expect("its own question");
                *quality = gold_quality(&dialogue, &answer);
                dialogue.push(Message::assistant(&answer));
                answers.push(answer);
            }
            (question, answers, gold)
        })
        .collect()
}

#[test]
fn both_parsers_read_the_rating() {
    let seeds = Seeds::new(0);
    for judge in [SandboxJudge::unbiased(&seeds), SandboxJudge::sharing_taste(&seeds)] {
        for (question, answers, _) in answered(Mixture::Ordinary) {
            for turn in [1, 2] {
                let request = request(&question, &answers[..usize::from(turn)], turn);
                let text = judge.judge(&request).expect("never fails");
                let meant = f64::from(judge.rating(&request));
                assert!(text.ends_with("]]"), "{text}");
                for mode in [Mode::FastChat, Mode::Strict] {
                    let rating = parse_rating(&text, mode).expect("a number").expect("a rating");
                    assert_eq!(rating.value(), meant, "{mode:?}: {text}");
                }
            }
        }
    }
}

#[test]
fn the_unbiased_judge_is_unbiased() {
    let judge = SandboxJudge::unbiased(&Seeds::new(0));
    let mut total = 0.0;
    for (question, answers, gold) in answered(Mixture::Ordinary) {
        for (turn, gold) in [1, 2].into_iter().zip(gold) {
            let rating = f64::from(judge.rating(&request(&question, &answers[..usize::from(turn)], turn)));
            // Noise of 0.5, four times over, and half a point of rounding.
            assert!((rating - gold).abs() <= 2.5, "{rating} {gold} {answers:?}");
            total += rating - gold;
        }
    }
    assert!((total / 160.0).abs() < 0.2, "mean error {}", total / 160.0);
}

#[test]
fn the_judge_that_shares_gpt_4s_taste_pays_for_padding() {
    let seeds = Seeds::new(0);
    let judges = [SandboxJudge::unbiased(&seeds), SandboxJudge::sharing_taste(&seeds)];
    assert_eq!(judges[0].name(), "sandbox-judge");
    assert_eq!(judges[1].name(), "sandbox-judge-gpt-4-taste");
    let mut gain = [0.0; 2];
    for question in questions(&seeds) {
        let plain = ["I am not sure.".to_owned()];
        let padded = ["I am not sure. I hope this helps. Just ask me for more.".to_owned()];
        for (judge, gain) in judges.iter().zip(&mut gain) {
            let rate = |answers| f64::from(judge.rating(&request(&question, answers, 1)));
            *gain += (rate(&padded) - rate(&plain)) / 80.0;
        }
    }
    assert!(gain[0].abs() < 0.3, "{gain:?}");
    assert!((2.5..3.5).contains(&gain[1]), "twice 1.5 points: {gain:?}");
}

#[test]
fn verdicts_are_deterministic_given_the_seed() {
    let all = answered(Mixture::Ordinary);
    let ratings = |judge: SandboxJudge, model: &str| -> Vec<String> {
        all.iter()
            .map(|(question, answers, _)| {
                let request = JudgeRequest { model, ..request(question, answers, 2) };
                judge.judge(&request).expect("never fails")
            })
            .collect()
    };
    let first = ratings(SandboxJudge::unbiased(&Seeds::new(0)), "a");
    assert_eq!(first, ratings(SandboxJudge::unbiased(&Seeds::new(0)), "b"));
    assert_ne!(first, ratings(SandboxJudge::unbiased(&Seeds::new(1)), "a"));
}

#[test]
fn missing_answers_get_the_lowest_rating() {
    let judge = SandboxJudge::unbiased(&Seeds::new(0));
    let question = &questions(&Seeds::new(0))[0];
    for turn in [0, 1, 2, 9] {
        assert!(judge.rating(&request(question, &[], turn)) <= 3, "turn {turn}");
    }
}

#[test]
fn of_two_answers_the_better_one_wins_in_both_orders() {
    let judge = SandboxJudge::unbiased(&Seeds::new(3));
    let (mut decided, mut tied) = (0, 0);
    let (one, two) = (answered(Mixture::Ordinary), answered(Mixture::Strong));
    for ((question, first, _), (_, second, _)) in one.iter().zip(&two) {
        for turn in [1_u8, 2] {
            let (first, second) = (&first[..usize::from(turn)], &second[..usize::from(turn)]);
            let says = |a, b| {
                let rival = Some(Rival { model: "b", answers: b });
                let said = judge.judge(&JudgeRequest { rival, ..request(question, a, turn) }).unwrap();
                parse_pair_verdict(&said, Mode::Strict).expect("a verdict")
            };
            let ratings = [first, second].map(|answers| judge.rating(&request(question, answers, turn)));
            let expected = match ratings {
                [a, b] if a > b => (PairVerdict::A, PairVerdict::B),
                [a, b] if a < b => (PairVerdict::B, PairVerdict::A),
                _ => (PairVerdict::Tie, PairVerdict::Tie),
            };
            assert_eq!((says(first, second), says(second, first)), expected);
            if ratings[0] == ratings[1] { tied += 1 } else { decided += 1 }
        }
    }
    assert!(decided > 20 && tied > 0, "{decided} decided, {tied} tied");
}

#[test]
fn draws_differ() {
    let judge = SandboxJudge::unbiased(&Seeds::new(3));
    let mut differ = 0;
    for (question, answers, _) in answered(Mixture::Ordinary) {
        let rating = |repeat| {
            let draw = Draw { repeat, again: 0 };
            judge.rating(&JudgeRequest { draw, ..request(&question, &answers[..1], 1) })
        };
        assert_eq!(rating(1), rating(1));
        differ += usize::from(rating(0) != rating(1));
    }
    assert!(differ > 5, "{differ}");
}
