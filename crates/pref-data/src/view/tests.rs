//! Whose labels make which pairs.

use proptest::prelude::*;

use super::*;
use crate::record::Text;

pub(crate) fn record(id: &str, responses: usize, labels: &[(&str, Label)]) -> PreferenceRecord {
    PreferenceRecord {
        id: id.to_owned(),
        prompt: Text::Plain("q".to_owned()),
        responses: (0..responses).map(|i| Text::Plain(format!("r{i}"))).collect(),
        labels: labels.iter().map(|&(name, label)| (name.to_owned(), label)).collect(),
        domain: None,
        context: Default::default(),
    }
}

fn source(text: &str) -> LabelSource {
    LabelSource::try_from(text.to_owned()).expect("a source of labels")
}

#[test]
fn a_view_takes_one_annotators_labels() {
    let records = [
        record("a", 2, &[("human", Label::Prefers(1)), ("gpt-4", Label::Prefers(0))]),
        record("b", 2, &[("human", Label::Tie)]),
        record("c", 2, &[("gpt-4", Label::Prefers(0))]),
        record("d", 3, &[("human", Label::Prefers(1)), ("gpt-4", Label::Prefers(1))]),
    ];
    let (pairs, report) = annotator_view(&records, "human").expect("human labelled some");
    let seen: Vec<_> = pairs.iter().map(|p| (p.id.as_str(), &p.chosen, &p.rejected)).collect();
    let r = |i: usize| Text::Plain(format!("r{i}"));
    assert_eq!(seen, [("a", &r(1), &r(0)), ("d#0", &r(1), &r(0)), ("d#2", &r(1), &r(2))]);
    assert_eq!(pairs[0].votes, Votes { chosen: 1, rejected: 1 });
    assert_eq!(pairs[2].votes, Votes { chosen: 2, rejected: 0 });
    assert!(pairs.iter().all(|pair| pair.annotator == "human"));
    let expected = ViewReport { records: 4, unlabelled: 1, ties: 1, pairs: 3 };
    assert_eq!(report, expected);
    assert_eq!(report.to_string(), "3 pairs from 4 records (1 without a label of this annotator, 1 tie)");
}

#[test]
fn an_unknown_annotator_is_answered_with_the_known_ones() {
    let records = [record("a", 2, &[("human", Label::Tie), ("gpt-4", Label::Prefers(0))])];
    let nobody = annotator_view(&records[..0], "gold").expect_err("no records");
    assert!(nobody.to_string().ends_with("the annotators here are: none"), "{nobody}");
    let message = annotator_view(&records, "gold").expect_err("gold labelled none").to_string();
    assert_eq!(
        message,
        "no record carries a label of annotator `gold`; the annotators here are: gpt-4, human"
    );
    for text in ["majority of human, gold", "50% human, 50% gold"] {
        let said = label_view(&records, &source(text), &Seeds::new(0)).expect_err(text).to_string();
        assert_eq!(said, message);
    }
}

#[test]
fn gairs_name_of_gpt_4_turbo_is_found() {
    let records = [record("a", 2, &[("gpt-4-1106-preview", Label::Prefers(1))])];
    let (pairs, _) = annotator_view(&records, "gpt-4-turbo").expect("the alias");
    assert_eq!(pairs[0].annotator, "gpt-4-1106-preview");
    // Where a set has that name itself, it is meant.
    let both = [("gpt-4-1106-preview", Label::Prefers(1)), ("gpt-4-turbo", Label::Prefers(0))];
    let (pairs, _) = annotator_view(&[record("a", 2, &both)], "gpt-4-turbo").expect("the name");
    assert_eq!(pairs[0].annotator, "gpt-4-turbo");
}

#[test]
fn a_vote_needs_a_leader() {
    let labels = |labels: [Option<Label>; 3]| {
        let labels = ["a", "b", "c"].into_iter().zip(labels).filter_map(|(name, label)| Some((name, label?)));
        record("r", 2, &labels.collect::<Vec<_>>())
    };
    let (first, second, tie) = (Some(Label::Prefers(0)), Some(Label::Prefers(1)), Some(Label::Tie));
    let cases = [
        ([first, second, second], Some(Label::Prefers(1))),
        ([first, None, None], Some(Label::Prefers(0))),
        ([first, second, None], Some(Label::Tie)),
        ([first, second, tie], Some(Label::Tie)),
        ([first, tie, tie], Some(Label::Tie)),
        ([None, None, None], None),
    ];
    for (given, expected) in cases {
        assert_eq!(majority(&labels(given), &BTreeSet::new()), expected, "{given:?}");
    }
    let of_two = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    assert_eq!(majority(&labels([first, None, second]), &of_two), Some(Label::Prefers(0)));
}

#[test]
fn sources_are_written_as_they_are_read() {
    for text in
        ["human", "majority of all", "majority of a, b", "70% gpt-4-turbo, 30% human", "33.3% a, 66.7% b"]
    {
        assert_eq!(source(text).to_string(), text);
        let json = serde_json::to_string(&source(text)).expect("text");
        assert_eq!(serde_json::from_str::<LabelSource>(&json).expect("a source"), source(text));
    }
    for bad in ["", " ", "majority of a,,b", "70% , 30% b", "x% a", "% a", "70% a, b"] {
        let error = LabelSource::try_from(bad.to_owned()).expect_err(bad).to_string();
        assert!(error.contains("name an annotator, or write"), "{error}");
    }
    for bad in ["70% a, 40% b", "0% a, 100% b", "-10% a, 110% b", "nan% a"] {
        let error = LabelSource::try_from(bad.to_owned()).expect_err(bad).to_string();
        assert!(error.contains("must lie in"), "{error}");
    }
}

proptest! {
    #[test]
    fn mixtures_have_their_shares_and_nest(n in 1usize..60, seed: u64, a in 1u32..100, b in 1u32..100) {
        let both = [("x", Label::Prefers(0)), ("y", Label::Prefers(1))];
        let mut records: Vec<_> = (0..n).map(|i| record(&i.to_string(), 2, &both)).collect();
        records.push(record("other", 2, &[("x", Label::Prefers(0))]));
        let of_x = |percent: u32| {
            let source = source(&format!("{percent}% x, {}% y", 100 - percent));
            let (pairs, report) = label_view(&records, &source, &Seeds::new(seed)).expect("both are known");
            assert_eq!((report.pairs, report.unlabelled), (n, 1));
            let of_x = pairs.into_iter().filter(|pair| pair.annotator == "x");
            of_x.map(|pair| pair.id).collect::<Vec<_>>()
        };
        let (few, many) = (of_x(a.min(b)), of_x(a.max(b)));
        prop_assert_eq!(many.len(), (f64::from(a.max(b)) / 100.0 * n as f64).round() as usize);
        prop_assert!(few.iter().all(|id| many.contains(id)));
    }
}
