//! Annotating against a server that fails as real ones do.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annotate::{
    AnnotateError, AnnotatorStatistics, Fallback, LlmAnnotator, Policies, PositionBias, PromptTemplate,
    Proportion, Unlabelled, agreement_table, annotate, bias_table, read_log, write_log,
};
use llm_client::{
    ChatSampling, Client, Endpoint, EndpointKind, Limits, Prices, RetryPolicy, Secret, Settings, TokioClock,
};
use pref_data::{AgreementMatrix, Label, PreferenceRecord, Text, read_records, write_records};
use report::table::Format;
use seeds::Seeds;
use serde_json::Value;
use test_support::{MockBehaviour, MockFault, MockServer};

const KEY: &str = "sk-that-nobody-may-see";

fn record(index: usize, responses: usize) -> PreferenceRecord {
    let text = |text: String| Text::Plain(text);
    PreferenceRecord {
        id: index.to_string(),
        prompt: text(format!("question {index}")),
        responses: (0..responses)
            .map(|i| text(format!("answer {i} to {index}{}", " and more".repeat(i))))
            .collect(),
        labels: [("human".to_owned(), Label::Prefers(index % 2))].into(),
        domain: None,
        context: Default::default(),
    }
}

fn annotator() -> LlmAnnotator {
    LlmAnnotator {
        name: "llm".to_owned(),
        model: "m".to_owned(),
        template: PromptTemplate::new("{prompt}\n{response_a}\n{response_b}\n[[A]] or [[B]]?")
            .expect("whole"),
        sampling: ChatSampling::greedy(64),
        policies: Policies::default(),
    }
}

fn client(server: &MockServer, folder: Option<&Path>, timeout: Duration) -> Client {
    let retry = RetryPolicy {
        attempts: 8,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_secs(2),
    };
    let concurrency = NonZeroU32::new(8).expect("not zero");
    let settings =
        Settings { limits: Limits::concurrent(concurrency), retry, prices: Prices::listed(), max_cost: None };
    let key = Secret::new(KEY).expect("a key");
    let endpoint =
        Endpoint::new(&server.base_url(), EndpointKind::OpenAi, Some(key), timeout).expect("an address");
    let jitter = Seeds::new(0).stream("retry-jitter");
    Client::new(endpoint, settings, folder, Arc::new(TokioClock::start()), jitter).expect("a client")
}

/// The number of the record that a question is about, and which of its responses stands first.
fn question(body: &Value) -> (usize, usize) {
    let text = body["messages"][0]["content"].as_str().expect("a question");
    let number = |after: &str| {
        let digits = text.split_once(after).expect("the question names it").1;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().expect("a number")
    };
    (number("question "), number("answer "))
}

/// Prefers the second response, unless the record's number says otherwise: every tenth record gets junk, every seventh
/// whatever stands first.
fn says(body: &Value) -> String {
    let (index, first) = question(body);
    match index {
        index if index % 10 == 0 => "I would rather not say {{[[".to_owned(),
        index if index % 7 == 0 => "[[A]]".to_owned(),
        _ if first == 1 => "Surely [[B]]? No. [[A]]".to_owned(),
        _ => "[[B]]".to_owned(),
    }
}

#[test]
fn every_record_ends_labelled_or_listed() {
    let mut behaviour = MockBehaviour::flaky(7);
    behaviour.latency = Duration::from_millis(2);
    behaviour.key = Some(KEY.to_owned());
    for (share, _) in &mut behaviour.faults {
        *share *= 3;
    }
    let server = MockServer::start(behaviour, says);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = client(&server, Some(folder.path()), Duration::from_secs(3));
    let mut records: Vec<_> = (1..=60).map(|index| record(index, 2)).collect();
    records.push(record(61, 3));
    let mut heard = 0;
    let never = AtomicBool::new(false);
    let report =
        annotate(&mut records, &annotator(), &client, &never, |done| heard = done).expect("annotated");
    assert_eq!((heard, report.annotations.len()), (61, 61));
    for (record, annotation) in records.iter().zip(&report.annotations) {
        let index: usize = record.id.parse().expect("a number");
        let label = record.labels.get("llm").copied();
        assert_eq!((&annotation.id, annotation.judgement.label), (&record.id, label));
        let expected = match index {
            61 => Err(Unlabelled::NotAPair),
            index if index % 10 == 0 => Err(Unlabelled::Refusal),
            index if index % 7 == 0 => Ok(Label::Tie),
            _ => Ok(Label::Prefers(1)),
        };
        assert_eq!(label.ok_or_else(|| annotation.judgement.unlabelled.clone().expect("a reason")), expected);
    }
    assert_eq!(report.to_string(), "of 61 records 46 decided, 8 ties, 1 not a pair, 6 refused");
    // Every answer was paid for once: two questions a pair, twice where the first answer held no verdict.
    assert_eq!(server.paid(), 54 * 2 + 6 * 4);
    assert!(server.calls().len() > server.paid(), "the server did fail");
    // A second time nothing is asked: what has a label keeps it, what has none is answered from the folder.
    let calls = server.calls().len();
    let again = annotate(&mut records, &annotator(), &client, &never, |_| {}).expect("annotated");
    assert_eq!((again.labelled_before, again.annotations.len(), server.calls().len()), (54, 7, calls));
    assert!(nothing_shows_the_key(folder.path()));
    assert!(!format!("{client:?} {report:?}").contains(KEY));
}

fn nothing_shows_the_key(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("the client's folder").all(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return nothing_shows_the_key(&path);
        }
        !String::from_utf8_lossy(&std::fs::read(path).expect("a file")).contains(KEY)
    })
}

#[test]
fn what_was_stopped_goes_on_without_paying_twice() {
    let server = MockServer::start(MockBehaviour::perfect(), says);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fresh = || (1..=40).map(|index| record(index, 2)).collect::<Vec<_>>();
    let mut records = fresh();
    let stop = AtomicBool::new(false);
    let stopping = client(&server, Some(folder.path()), Duration::from_secs(5));
    let stopped = annotate(&mut records, &annotator(), &stopping, &stop, |done| {
        stop.store(done >= 10, Ordering::Relaxed);
    });
    assert!(matches!(stopped, Err(AnnotateError::Client(llm_client::Error::Stopped))));
    assert_eq!(records, fresh(), "nothing is entered by halves");
    assert!((20..80).contains(&server.paid()));
    drop(stopping);
    let client = client(&server, Some(folder.path()), Duration::from_secs(5));
    annotate(&mut records, &annotator(), &client, &AtomicBool::new(false), |_| {}).expect("annotated");
    assert_eq!(server.paid(), 36 * 2 + 4 * 4);
}

#[test]
fn what_nobody_can_help_stops_everything() {
    let behaviour = MockBehaviour { key: Some("another".to_owned()), ..MockBehaviour::perfect() };
    let server = MockServer::start(behaviour, says);
    let client = client(&server, None, Duration::from_secs(5));
    let mut records: Vec<_> = (1..=40).map(|index| record(index, 2)).collect();
    let error = annotate(&mut records, &annotator(), &client, &AtomicBool::new(false), |_| {})
        .expect_err("the key is wrong");
    assert!(error.is_bad_input() && !format!("{error} {error:?}").contains(KEY), "{error}");
    assert!(server.calls().len() <= 16, "the others were not asked: {}", server.calls().len());
}

#[test]
fn a_call_that_fails_for_good_is_listed() {
    let always = MockFault::Status(500, String::new(), "out of sorts".to_owned());
    let behaviour = MockBehaviour { faults: vec![(1000, always)], ..MockBehaviour::perfect() };
    let server = MockServer::start(behaviour, says);
    let client = client(&server, None, Duration::from_secs(5));
    let mut records = vec![record(1, 2)];
    let report =
        annotate(&mut records, &annotator(), &client, &AtomicBool::new(false), |_| {}).expect("listed");
    let (id, why) = report.unlabelled().next().expect("one record");
    let Unlabelled::Failed(said) = why else { panic!("{why:?}") };
    assert!(id == "1" && said.contains("8 attempts") && said.contains("out of sorts"), "{said}");
    assert_eq!(report.to_string(), "of 1 records 0 decided, 0 ties, 1 failed");
}

#[test]
fn policies_decide_what_the_model_does_not() {
    let server = MockServer::start(MockBehaviour::perfect(), says);
    let client = client(&server, None, Duration::from_secs(5));
    let mut records = vec![record(7, 2), record(10, 2)];
    let asked = NonZeroU32::MIN;
    let policies = Policies { disagreement: Fallback::Unlabelled, refusal: Fallback::Tie, asked };
    let annotator = LlmAnnotator { policies, ..annotator() };
    let report =
        annotate(&mut records, &annotator, &client, &AtomicBool::new(false), |_| {}).expect("annotated");
    assert_eq!(report.annotations[0].judgement.unlabelled, Some(Unlabelled::Disagreement));
    assert_eq!(records[1].labels["llm"], Label::Tie);
    assert_eq!(server.calls().len(), 4);
}

#[test]
fn the_log_and_the_records_are_read_again_and_counted() {
    let server = MockServer::start(MockBehaviour::perfect(), says);
    let client = client(&server, None, Duration::from_secs(5));
    let mut records: Vec<_> = (1..=20).map(|index| record(index, 2)).collect();
    let report =
        annotate(&mut records, &annotator(), &client, &AtomicBool::new(false), |_| {}).expect("annotated");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (log, file) = (folder.path().join("log.jsonl"), folder.path().join("records.jsonl"));
    write_log(&log, &report.annotations).expect("written");
    write_records(&file, &records).expect("written");
    assert_eq!(read_log(&log).expect("a log"), report.annotations);
    assert_eq!(read_records(&file, pref_data::Format::Records).expect("records"), records);

    // 16 records are decided for the second, longer response; 7 and 14 for what stands first; 10 and 20 not at all.
    let bias = PositionBias::of(&report.annotations);
    assert_eq!(bias.first, Proportion { successes: 16 + 4, trials: 36 });
    assert_eq!(bias.consistent, Proportion { successes: 16, trials: 18 });
    assert_eq!(bias.unreadable, 4);
    let statistics = AnnotatorStatistics::of(&records);
    assert_eq!(statistics[1].annotator, "llm");
    assert_eq!((statistics[1].labels, statistics[1].ties), (18, 2));
    assert_eq!(statistics[1].prefers_longer, Proportion { successes: 16, trials: 16 });
    assert_eq!(statistics[1].prefers_first, Proportion { successes: 0, trials: 16 });
    assert_eq!(statistics[0].prefers_first, Proportion { successes: 10, trials: 20 });

    let table = bias_table(&statistics, Some(("llm", bias))).render(Format::Text);
    assert!(table.contains("55.6") && table.contains("88.9"), "{table}");
    let table = agreement_table(&AgreementMatrix::of(&records), "llm").render(Format::Csv);
    assert!(table.starts_with("With,Records,\"Same label, %\",Kappa\nhuman,18,"), "{table}");

    std::fs::write(&log, "{\"id\": 3}\n").expect("written");
    assert!(matches!(read_log(&log), Err(AnnotateError::Log { line: 1, .. })));
}
