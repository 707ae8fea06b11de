//! Who is asked what.

use std::collections::{BTreeMap, BTreeSet};

use pref_data::Message;
use sandbox::{
    CATEGORIES, Mixture, category_of, demonstrations, further_questions, gold_quality, questions,
    training_prompts,
};
use seeds::Seeds;

#[test]
fn the_benchmark_has_mt_benchs_shape() {
    let questions = questions(&Seeds::new(0));
    let ids: Vec<u64> = questions.iter().map(|question| question.question_id).collect();
    assert_eq!(ids, (81..=160).collect::<Vec<_>>());
    for (index, question) in questions.iter().enumerate() {
        assert_eq!(question.category, CATEGORIES[index / 10]);
        assert_eq!(question.turns.len(), 2);
        assert_eq!(question.required_temperature, Some(0.7));
    }
}

#[test]
fn every_turn_poses_a_task_of_its_category() {
    let seeds = Seeds::new(0);
    for question in questions(&seeds).into_iter().chain(further_questions(&seeds, 1_000)) {
        let first = vec![Message::user(&question.turns[0])];
        let mut second = first.clone();
        second.extend([Message::assistant("?"), Message::user(&question.turns[1])]);
        for prompt in [first, second] {
            assert_eq!(category_of(&prompt), Some(question.category.as_str()), "{prompt:?}");
        }
    }
    for prompt in training_prompts(&seeds, 800) {
        assert_eq!(category_of(&prompt.messages), Some(prompt.category), "{prompt:?}");
    }
}

#[test]
fn no_first_turn_is_shared_between_questions_and_training() {
    let benchmark: BTreeSet<String> = (0..4)
        .flat_map(|seed| questions(&Seeds::new(seed)))
        .map(|question| question.turns[0].clone())
        .collect();
    let further = further_questions(&Seeds::new(1), 1_000);
    let further: BTreeSet<String> = further.iter().map(|question| question.turns[0].clone()).collect();
    let training: BTreeSet<String> = training_prompts(&Seeds::new(2), 4_000)
        .into_iter()
        .map(|prompt| prompt.messages)
        .chain(demonstrations(&Seeds::new(3), 8_000, Mixture::Ordinary))
        .chain(demonstrations(&Seeds::new(3), 8_000, Mixture::Strong))
        .map(|messages| messages[0].content().into_owned())
        .collect();
    assert!(benchmark.is_disjoint(&further));
    assert!(benchmark.is_disjoint(&training));
    assert!(further.is_disjoint(&training));
}

#[test]
fn questions_are_distinct() {
    let seeds = Seeds::new(5);
    let all: Vec<Vec<String>> = questions(&seeds)
        .into_iter()
        .chain(further_questions(&seeds, 4_000))
        .map(|question| question.turns)
        .collect();
    let distinct: BTreeSet<&Vec<String>> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn the_same_seed_gives_the_same_texts() {
    let (seeds, other) = (Seeds::new(9), Seeds::new(10));
    assert_eq!(questions(&seeds), questions(&seeds));
    assert_ne!(questions(&seeds), questions(&other));
    assert_eq!(further_questions(&seeds, 50), further_questions(&seeds, 50));
    assert_eq!(training_prompts(&seeds, 50), training_prompts(&seeds, 50));
    let dialogues = demonstrations(&seeds, 50, Mixture::Ordinary);
    assert_eq!(dialogues, demonstrations(&seeds, 50, Mixture::Ordinary));
    assert_ne!(dialogues, demonstrations(&seeds, 50, Mixture::Strong));
    // A longer set begins with the shorter one, so that volumes nest.
    assert_eq!(dialogues, demonstrations(&seeds, 80, Mixture::Ordinary)[..50]);
    assert_eq!(training_prompts(&seeds, 50), training_prompts(&seeds, 80)[..50]);
    assert_eq!(further_questions(&seeds, 50), further_questions(&seeds, 80)[..50]);
}

#[test]
fn categories_and_turns_are_balanced() {
    let prompts = training_prompts(&Seeds::new(0), 1_600);
    let mut counts: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for prompt in &prompts {
        *counts.entry((prompt.category, prompt.messages.len())).or_default() += 1;
    }
    assert_eq!(counts.len(), 16, "eight categories, one or three messages: {counts:?}");
    assert!(counts.values().all(|count| *count == 100), "{counts:?}");
    let ids: BTreeSet<&String> = prompts.iter().map(|prompt| &prompt.id).collect();
    assert_eq!(ids.len(), prompts.len());
}

#[test]
fn strong_demonstrations_are_better_than_ordinary_ones() {
    let mean = |mixture| {
        let qualities: Vec<f64> = demonstrations(&Seeds::new(0), 8_000, mixture)
            .iter()
            .flat_map(|dialogue| {
                [1, 3].map(|turn| gold_quality(&dialogue[..turn], &dialogue[turn].content()))
            })
            .collect();
        qualities.iter().sum::<f64>() / qualities.len() as f64
    };
    let (ordinary, strong) = (mean(Mixture::Ordinary), mean(Mixture::Strong));
    assert!((4.5..6.5).contains(&ordinary), "{ordinary}");
    assert!((8.0..9.5).contains(&strong), "{strong}");
}

#[test]
fn quality_is_independent_of_the_prompt() {
    // Within a family, one half of the first turns by their own words is answered as well as the other.
    let mut sums: BTreeMap<(usize, bool), (f64, f64)> = BTreeMap::new();
    for (index, dialogue) in demonstrations(&Seeds::new(1), 24_000, Mixture::Ordinary).iter().enumerate() {
        let half = dialogue[0].content().len() % 2 == 0;
        let entry = sums.entry((index % 8, half)).or_default();
        entry.0 += gold_quality(&dialogue[..1], &dialogue[1].content());
        entry.1 += 1.0;
    }
    for family in 0..8 {
        let mean = |half| sums.get(&(family, half)).map(|(sum, n)| (sum / n, *n));
        if let (Some((even, n)), Some((odd, m))) = (mean(true), mean(false)) {
            // Quality's standard deviation is below 3.5; five standard errors.
            let tolerance = 5.0 * 3.5 * (1.0 / n + 1.0 / m).sqrt();
            assert!((even - odd).abs() < tolerance, "family {family}: {even} {odd}");
        }
    }
}
