//! Annotators agree with the truth to the degree that was planted, raters with each other.

use std::collections::BTreeMap;

use pref_data::{Label, Message, PreferenceRecord, Text};
use sandbox::{
    Annotator, Candidate, Mixture, RaterChoice, WeakLlm, agreement, demonstrate_answer, gold_quality,
    label_all, raters, training_prompts,
};
use seeds::Seeds;

fn records(n: usize) -> Vec<PreferenceRecord> {
    let seeds = Seeds::new(4);
    let mut rng = seeds.stream("responses");
    training_prompts(&seeds, n)
        .into_iter()
        .enumerate()
        .map(|(index, prompt)| {
            let other = if index % 2 == 0 { Mixture::Ordinary } else { Mixture::Strong };
            let mut answer = |mixture| {
                let text = demonstrate_answer(&prompt.messages, mixture, &mut rng).expect("its own prompt");
                Text::Plain(text)
            };
            PreferenceRecord {
                id: prompt.id.clone(),
                responses: vec![answer(Mixture::Ordinary), answer(other)],
                prompt: Text::Chat(prompt.messages.clone()),
                labels: BTreeMap::new(),
                domain: Some(prompt.category.to_owned()),
                context: Default::default(),
            }
        })
        .collect()
}

fn count_prompt() -> Text {
    Text::Chat(vec![Message::user("Count 3 hats and 5 cups.")])
}

fn record(responses: &[&str]) -> PreferenceRecord {
    PreferenceRecord {
        id: "r".into(),
        prompt: count_prompt(),
        responses: responses.iter().map(|text| Text::Plain((*text).into())).collect(),
        labels: BTreeMap::new(),
        domain: None,
        context: Default::default(),
    }
}

#[test]
fn gold_prefers_the_better_response_and_calls_equal_ones_a_tie() {
    let label =
        |responses: &[&str]| Annotator::Gold.label(&record(responses), &mut Seeds::new(0).stream("x"));
    assert_eq!(label(&["There are 9.", "There are 8."]), Label::Prefers(1));
    assert_eq!(label(&["There are 8.", "There are 9.", "There are 7."]), Label::Prefers(0));
    assert_eq!(label(&["There are 9.", "There are 7."]), Label::Tie);
    let chat = PreferenceRecord {
        responses: ["There are 9.", "There are 8."]
            .map(|text| Text::Chat(vec![Message::assistant(text)]))
            .into(),
        prompt: Text::Plain("Count 3 hats and 5 cups.".into()),
        ..record(&[])
    };
    assert_eq!(Annotator::Gold.label(&chat, &mut Seeds::new(0).stream("x")), Label::Prefers(1));
}

#[test]
fn agreement_with_gold_decreases_with_reliability() {
    let mut records = records(4_000);
    label_all(&mut records, &Seeds::new(0));
    let table = agreement(&records);
    let share = |annotator: Annotator| {
        let row =
            table.iter().find(|row| row.annotator == annotator.name()).expect("every annotator has a row");
        assert!(row.n > 3_000, "{row:?}");
        row.share
    };
    let [human, gpt_4, medium, small] = [
        Annotator::Human,
        Annotator::Gpt4Turbo,
        Annotator::WeakLlm(WeakLlm::Medium),
        Annotator::WeakLlm(WeakLlm::Small),
    ]
    .map(share);
    assert_eq!(share(Annotator::Gold), 1.0);
    // The standard error of a share is 0.008 at most.
    assert!((0.70..0.80).contains(&human), "human {human}");
    assert!(
        gpt_4 > human,
        "gpt-4-turbo {gpt_4}, human {human}: it agrees more with the truth than people do"
    );
    assert!(human > medium && medium > small && small > 0.52, "{human} {medium} {small}");
}

#[test]
fn labels_depend_only_on_record_index_and_annotator() {
    let mut all = records(60);
    let mut again = all.clone();
    let mut few = all[..20].to_vec();
    label_all(&mut all, &Seeds::new(1));
    label_all(&mut again, &Seeds::new(1));
    assert_eq!(all, again);
    label_all(&mut few, &Seeds::new(1));
    assert_eq!(all[..20], few[..]);
    let before = all.clone();
    label_all(&mut all, &Seeds::new(2));
    assert_ne!(all, before, "other seeds, other noise");
    for record in &all {
        assert_eq!(record.labels.len(), Annotator::all().len());
        assert!(Annotator::all().iter().all(|annotator| record.labels.contains_key(annotator.name())));
    }
}

#[test]
fn gpt_4_turbo_likes_padding_that_the_truth_dislikes() {
    let pair = record(&[
        "There are 8, from 3 and 5.",
        "There are 8, from 3 and 5. I hope this helps. Just ask me for more.",
    ]);
    let prompt = [Message::user("Count 3 hats and 5 cups.")];
    assert!(gold_quality(&prompt, "There are 8. I hope this helps.") < gold_quality(&prompt, "There are 8."));
    let share = |annotator: Annotator| {
        let seeds = Seeds::new(0);
        let padded = (0..2_000)
            .filter(|index| annotator.label(&pair, &mut seeds.indexed("x", *index)) == Label::Prefers(1))
            .count();
        padded as f64 / 2_000.0
    };
    assert_eq!(share(Annotator::Gold), 0.0);
    // sigmoid((2 * 1.5 - 1.25) / 1.2) = 0.811, give or take three standard errors.
    assert!((share(Annotator::Gpt4Turbo) - 0.811).abs() < 0.027);
    assert!(share(Annotator::Human) < 0.5);
}

#[test]
fn agreement_over_no_records_is_zero() {
    let table = agreement(&[]);
    assert_eq!(table.len(), Annotator::all().len());
    assert!(table.iter().all(|row| row.n == 0 && row.share == 0.0));
}

#[test]
fn raters_agree_about_as_much_as_people() {
    let records = records(1_600);
    let raters = raters(&Seeds::new(0));
    let mut ratings = Vec::new();
    let mut equal = 0;
    for record in &records {
        let (Text::Chat(prompt), [Text::Plain(one), Text::Plain(two)]) =
            (&record.prompt, &record.responses[..])
        else {
            panic!("records are made so above");
        };
        let candidate = |answer| Candidate { prompt, answer };
        let choices = raters.each_ref().map(|rater| rater.rate(candidate(one), candidate(two)));
        assert_eq!(choices, raters.each_ref().map(|rater| rater.rate(candidate(one), candidate(two))));
        equal += choices.iter().filter(|choice| **choice == RaterChoice::Equal).count();
        ratings.push(choices.map(|choice| match choice {
            RaterChoice::Model1 => stats::Choice::Model1,
            RaterChoice::Model2 => stats::Choice::Model2,
            RaterChoice::Equal => stats::Choice::Equal,
        }));
    }
    let kappa = stats::fleiss_kappa(&stats::choice_counts(&ratings)).expect("three raters each");
    let kappa = kappa.kappa.value().expect("more than one category");
    assert!((0.4..0.7).contains(&kappa), "kappa {kappa}");
    let ties = equal as f64 / (3 * records.len()) as f64;
    assert!((0.05..0.35).contains(&ties), "ties {ties}");
}
