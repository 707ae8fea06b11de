//! Annotating against a server with the failures of real ones.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annotate::{
    AnnotateError, AnnotatorStatistics, Aspect, AspectCalls, Fallback, LlmAnnotator, Policies, PositionBias,
    PromptTemplate, Proportion, Question, RatingQuestion, Unlabelled, agreement_table, annotate, bias_table,
    plan, read_log, write_log,
};
use llm_client::{
    Alternative, BoxFuture, ChatRequest, ChatSampling, Client, Endpoint, EndpointKind, Failure, Limits,
    Prices, Reply, RetryPolicy, Secret, Settings, TokenLogprob, TokioClock, Transport,
};
use pref_data::{AgreementMatrix, Label, PreferenceRecord, Text, read_records, write_records};
use report::table::Format;
use seeds::Seeds;
use serde_json::Value;
use test_support::{MockBehaviour, MockFault, MockServer};

const KEY: &str = "sk-secret";

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
        question: Question::Pairwise(
            PromptTemplate::new("{prompt}\n{response_a}\n{response_b}\n[[A]] or [[B]]?").expect("whole"),
        ),
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

/// Returns the number of the record in a question, and which of its responses is shown first.
fn question(body: &Value) -> (usize, usize) {
    let text = body["messages"][0]["content"].as_str().expect("a question");
    let number = |after: &str| {
        let digits = text.split_once(after).expect("the question names it").1;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().expect("a number")
    };
    (number("question "), number("answer "))
}

/// Prefers the second response, except that every tenth record gets no verdict and every seventh prefers the response
/// shown first.
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
fn every_record_ends_with_a_label_or_a_reason() {
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
    let mut progress = 0;
    let never = AtomicBool::new(false);
    let report =
        annotate(&mut records, &annotator(), &client, &never, |done| progress = done).expect("annotated");
    assert_eq!((progress, report.annotations.len()), (61, 61));
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
    assert_eq!(
        report.to_string(),
        "of 61 records 46 decided, 8 ties, 1 not a pair, 6 refused\n\
         8 of 54 (14.8%) judgements changed with the order, 12 of 120 (10.0%) answers had no verdict"
    );
    // Every answer was paid for once: two questions a pair, twice where the first answer held no verdict.
    assert_eq!(server.paid(), 54 * 2 + 6 * 4);
    assert!(server.calls().len() > server.paid(), "the server did fail");
    // A second run asks nothing: labels are kept, and the folder has the other answers.
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
fn a_stopped_run_resumes_without_paying_twice() {
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
    assert_eq!(records, fresh(), "no label is added before all are there");
    assert!((20..80).contains(&server.paid()));
    drop(stopping);
    let client = client(&server, Some(folder.path()), Duration::from_secs(5));
    annotate(&mut records, &annotator(), &client, &AtomicBool::new(false), |_| {}).expect("annotated");
    assert_eq!(server.paid(), 36 * 2 + 4 * 4);
}

#[test]
fn a_wrong_key_stops_all_calls() {
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
fn a_call_that_fails_after_all_attempts_is_listed() {
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
    assert_eq!(report.to_string().lines().next(), Some("of 1 records 0 decided, 0 ties, 1 failed"));
}

#[test]
fn policies_label_undecided_records() {
    let server = MockServer::start(MockBehaviour::perfect(), says);
    let client = client(&server, None, Duration::from_secs(5));
    let mut records = vec![record(7, 2), record(10, 2)];
    let asked = NonZeroU32::MIN;
    let policies =
        Policies { disagreement: Fallback::Unlabelled, refusal: Fallback::Tie, asked, ..Policies::default() };
    let annotator = LlmAnnotator { policies, ..annotator() };
    let report =
        annotate(&mut records, &annotator, &client, &AtomicBool::new(false), |_| {}).expect("annotated");
    assert_eq!(report.annotations[0].judgement.unlabelled, Some(Unlabelled::Disagreement));
    assert_eq!(records[1].labels["llm"], Label::Tie);
    assert_eq!(server.calls().len(), 4);
}

/// Rates each answer by the number of its words, and gives a rating too much for honesty to the first one.
fn rates(body: &Value) -> String {
    let text = body["messages"][0]["content"].as_str().expect("a question");
    let answers = text.split("=== Answer ").skip(1).map(|answer| answer.split("===").nth(1).expect("a text"));
    let lengths: Vec<usize> = answers.map(|answer| answer.split_whitespace().count()).collect();
    let shortest = lengths.iter().min().expect("answers");
    let rating = |at: usize, more: usize| 1 + (lengths[at] - shortest) / 2 + more;
    let line = |name: &str, at: usize, rating: usize| {
        if text.contains(name) { format!("Answer {}, {name}: [[{rating}]]\n", at + 1) } else { String::new() }
    };
    (0..lengths.len())
        .map(|at| {
            line("helpfulness", at, rating(at, 0)) + &line("honesty", at, rating(at, usize::from(at == 0)))
        })
        .collect()
}

#[test]
fn ratings_by_aspect_label_any_number_of_responses() {
    let aspects: Vec<Aspect> =
        ["helpfulness", "honesty"].map(|name| Aspect::named(name).expect("built in")).to_vec();
    for (calls, expected) in [(AspectCalls::Each, 4), (AspectCalls::Together, 2)] {
        let server = MockServer::start(MockBehaviour::perfect(), rates);
        let client = client(&server, None, Duration::from_secs(5));
        let question = Question::Ratings(RatingQuestion::new(aspects.clone(), calls));
        let annotator = LlmAnnotator { question, ..annotator() };
        let mut records = vec![record(1, 3), record(2, 2)];
        let planned = plan(&records, &annotator, &client).expect("a plan");
        assert_eq!((planned.records, planned.calls, planned.not_pairs), (2, 2 * expected, 0));
        let report =
            annotate(&mut records, &annotator, &client, &AtomicBool::new(false), |_| {}).expect("annotated");
        assert_eq!(server.paid(), planned.calls);
        assert_eq!(
            (records[0].labels["llm"], records[1].labels["llm"]),
            (Label::Prefers(2), Label::Prefers(1))
        );
        // The place in the order adds a rating to the first and the last response, which are first once each.
        assert_eq!(report.annotations[0].judgement.ratings, [1.25, 2.0, 3.25]);
        assert_eq!(report.annotations[0].judgement.games.len(), expected);
    }
}

#[test]
fn a_plan_counts_calls_and_their_price() {
    let server = MockServer::start(MockBehaviour::perfect(), says);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = client(&server, Some(folder.path()), Duration::from_secs(5));
    let annotator = LlmAnnotator { model: "gpt-4o-mini".to_owned(), ..annotator() };
    let mut records = vec![record(1, 2), record(2, 2), record(3, 3), record(4, 2)];
    records[3].labels.insert("llm".to_owned(), Label::Tie);
    let planned = plan(&records, &annotator, &client).expect("a plan");
    assert_eq!((planned.records, planned.labelled_before, planned.not_pairs), (2, 1, 1));
    assert_eq!((planned.calls, planned.estimate.cached), (4, 0));
    let most = planned.estimate.most_usd.expect("a listed model");
    assert!(most > 0.0 && planned.estimate.likely_usd.expect("listed") <= most);
    assert_eq!(server.calls().len(), 0, "a plan asks nothing");
    annotate(&mut records[..1], &annotator, &client, &AtomicBool::new(false), |_| {}).expect("annotated");
    assert!(client.totals().usd <= most / 2.0);
    records[0].labels.remove("llm");
    assert_eq!(plan(&records, &annotator, &client).expect("a plan").estimate.cached, 2);
}

/// Answers `[[A]]` with a probability that depends on the order.
struct Unsure;

impl Transport for Unsure {
    fn address(&self) -> &str {
        "http://unsure"
    }

    fn send<'a>(&'a self, request: &'a ChatRequest) -> BoxFuture<'a, Result<Reply, Failure>> {
        assert_eq!(request.sampling.top_logprobs, Some(5));
        let text = &request.messages[0].content;
        let first_is_shown_first = text.find("answer 0 ") < text.find("answer 1 ");
        let p: f64 = if first_is_shown_first { 0.9 } else { 0.6 };
        let token = |text: &str, p: f64| Alternative { token: text.to_owned(), logprob: p.ln() };
        let top = vec![token("A", p), token("B", 1.0 - p)];
        let plain = |text: &str| TokenLogprob { token: text.to_owned(), logprob: 0.0, top: Vec::new() };
        let logprobs = vec![plain("[["), TokenLogprob { top, ..plain("A") }, plain("]]")];
        let fingerprint = Some("fp_7".to_owned());
        let reply = Reply { text: "[[A]]".to_owned(), logprobs, fingerprint, ..Reply::default() };
        Box::pin(std::future::ready(Ok(reply)))
    }
}

#[test]
fn log_probabilities_decide_where_the_verdict_depends_on_the_order() {
    let settings = Settings {
        limits: Limits::concurrent(NonZeroU32::MIN),
        retry: RetryPolicy::NEVER,
        prices: Prices::listed(),
        max_cost: None,
    };
    let jitter = Seeds::new(0).stream("retry-jitter");
    let client =
        Client::new(Unsure, settings, None, Arc::new(TokioClock::start()), jitter).expect("a client");
    let sampling = ChatSampling { top_logprobs: Some(5), ..ChatSampling::greedy(64) };
    let annotator = LlmAnnotator { sampling, ..annotator() };
    let mut records = vec![record(1, 2)];
    let report =
        annotate(&mut records, &annotator, &client, &AtomicBool::new(false), |_| {}).expect("annotated");
    assert_eq!(records[0].labels["llm"], Label::Prefers(0));
    let judgement = &report.annotations[0].judgement;
    assert!((judgement.probability.expect("both orders") - 0.65).abs() < 1e-12 && judgement.order_dependent);
    assert_eq!(judgement.games[1].fingerprint.as_deref(), Some("fp_7"));
    assert_eq!(report.served(), [("fp_7".to_owned(), 2)].into());
    let mut changed = report.clone();
    changed.annotations[0].judgement.games[0].fingerprint = Some("fp_8".to_owned());
    assert_eq!(changed.served().len(), 2);
    assert!(report.to_string().ends_with("\n1 labels are mean probabilities of both orders"));
}

#[test]
fn logs_and_records_round_trip_and_are_counted() {
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

    // 16 records prefer the second, longer response; 7 and 14 the response shown first; 10 and 20 have no verdict.
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
    let Err(AnnotateError::Log(error)) = read_log(&log) else { panic!("no log") };
    assert!(error.to_string().contains("log.jsonl, line 1: "), "{error}");
}
