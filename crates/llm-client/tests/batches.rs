//! Calls in batches, against a server that behaves as OpenAI documents its Batch API.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use llm_client::{
    BatchSettings, ChatMessage, ChatRequest, ChatSampling, Client, Endpoint, EndpointKind, Error, LEDGER,
    Limits, Prices, RetryPolicy, Secret, Settings, Source, TokioClock, read_ledger,
};
use seeds::Seeds;
use serde_json::Value;
use test_support::{BatchFate, MockBatchBehaviour, MockBatchServer};

const KEY: &str = "sk-batch";

/// USD of a call of the mock server in a batch: 100 and 10 tokens of gpt-4 at half the price.
const CALL_USD: f64 = 0.5 * (100.0 * 30.0 + 10.0 * 60.0) / 1e6;

fn echo(body: &Value) -> String {
    format!("{} says {}", body["model"], body["messages"][0]["content"])
}

fn server(fates: Vec<BatchFate>, polls: usize) -> MockBatchServer {
    MockBatchServer::start(MockBatchBehaviour { fates, polls, key: Some(KEY.to_owned()) }, echo)
}

fn quick() -> BatchSettings {
    let (first_poll, longest_poll) = (Duration::from_millis(1), Duration::from_millis(4));
    BatchSettings { first_poll, longest_poll, ..BatchSettings::default() }
}

fn direct(server: &MockBatchServer, folder: &Path, max_cost: Option<f64>) -> (Client, Endpoint) {
    let endpoint = || {
        let key = Some(Secret::new(KEY).unwrap());
        Endpoint::new(&server.base_url(), EndpointKind::OpenAi, key, Duration::from_secs(5)).unwrap()
    };
    let settings = Settings {
        limits: Limits::concurrent(NonZeroU32::new(2).unwrap()),
        retry: RetryPolicy {
            attempts: 3,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(2),
        },
        prices: Prices::listed(),
        max_cost,
    };
    let jitter = Seeds::new(1).stream("retry-jitter");
    let clock = Arc::new(TokioClock::start());
    (Client::new(endpoint(), settings, Some(folder), clock, jitter).unwrap(), endpoint())
}

fn client(server: &MockBatchServer, folder: &Path, max_cost: Option<f64>, settings: BatchSettings) -> Client {
    let (client, endpoint) = direct(server, folder, max_cost);
    client.with_batches(endpoint.batches().unwrap(), settings).unwrap()
}

fn request(model: &str, text: &str) -> ChatRequest {
    ChatRequest {
        model: model.to_owned(),
        messages: vec![ChatMessage::user(text)],
        sampling: ChatSampling::greedy(64),
        repeat: 0,
    }
}

fn numbers(n: usize) -> Vec<ChatRequest> {
    (0..n).map(|number| request("gpt-4", &format!("number {number}"))).collect()
}

type Heard = Vec<Option<Result<(String, Source), Error>>>;

/// Makes the calls in one run. The first error ends it.
fn ask(client: &Client, requests: &[ChatRequest], stop: &AtomicBool) -> Heard {
    let mut heard: Heard = requests.iter().map(|_| None).collect();
    let job = |index: usize| async move {
        let answered = client.chat(&requests[index]).await?;
        Ok((answered.reply.text, answered.source))
    };
    client
        .run_each(requests.len(), stop, job, |index, outcome: Result<_, Error>| {
            let goes_on = outcome.is_ok();
            heard[index] = Some(outcome);
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    heard
}

fn ask_all(client: &Client, requests: &[ChatRequest]) -> Heard {
    ask(client, requests, &AtomicBool::new(false))
}

/// Asserts that each call has its own answer.
fn assert_answers(heard: &Heard, requests: &[ChatRequest]) {
    for (heard, request) in heard.iter().zip(requests) {
        let (text, _) = heard.as_ref().expect("an outcome").as_ref().expect("an answer");
        let expected = format!("\"{}\" says \"{}\"", request.model, request.messages[0].content);
        assert_eq!(*text, expected);
    }
}

fn first_error(heard: Heard) -> Error {
    let mut errors = heard.into_iter().flatten().filter_map(Result::err);
    errors.find(|error| !matches!(error, Error::Stopped)).expect("an error")
}

fn assert_billed_once(server: &MockBatchServer, calls: usize) {
    let billed = server.billed();
    assert_eq!(billed.len(), calls);
    assert!(billed.values().all(|times| *times == 1), "{billed:?}");
}

#[test]
fn many_calls_are_one_batch_at_half_the_price() {
    let server = server(Vec::new(), 2);
    let folder = tempfile::tempdir().unwrap();
    let requests = numbers(300);
    let client_of = || client(&server, folder.path(), None, quick());
    let first = client_of();
    let estimate = first.estimate(&requests).unwrap();
    assert_answers(&ask_all(&first, &requests), &requests);
    assert_eq!((server.batches(), first.totals().answered), (1, 300));
    assert!((first.totals().usd - 300.0 * CALL_USD).abs() < 1e-9, "{:?}", first.totals());
    assert!(first.totals().usd < estimate.most_usd.unwrap());
    assert_billed_once(&server, 300);
    drop(first);
    let ledger = read_ledger(&folder.path().join(LEDGER)).unwrap();
    assert_eq!(ledger.len(), 300);
    assert!(
        ledger.iter().all(|row| row.outcome == "answered" && (row.usd.unwrap() - CALL_USD).abs() < 1e-12)
    );
    let again = client_of();
    let heard = ask_all(&again, &requests);
    assert!(heard.iter().all(|heard| matches!(heard, Some(Ok((_, Source::Cache))))));
    assert_eq!((server.batches(), again.totals().answered), (1, 0));
}

#[test]
fn calls_that_fail_or_expire_are_part_of_the_next_batch() {
    let server = server(vec![BatchFate::FailEvery(3), BatchFate::ExpireAfter(2)], 0);
    let folder = tempfile::tempdir().unwrap();
    let requests = numbers(12);
    let client = client(&server, folder.path(), None, quick());
    assert_answers(&ask_all(&client, &requests), &requests);
    assert_eq!(server.batches(), 3);
    assert_billed_once(&server, 12);
    assert!((client.totals().usd - 12.0 * CALL_USD).abs() < 1e-9);
    let ledger = read_ledger(&folder.path().join(LEDGER)).unwrap();
    let count = |outcome: &str| ledger.iter().filter(|row| row.outcome == outcome).count();
    assert_eq!((count("answered"), count("server_error"), count("not_in_batch")), (12, 4, 2));
}

#[test]
fn a_call_that_always_fails_ends_after_its_attempts() {
    let server = server(vec![BatchFate::ExpireAfter(0); 9], 0);
    let folder = tempfile::tempdir().unwrap();
    let client = client(&server, folder.path(), None, quick());
    let error = first_error(ask_all(&client, &numbers(2)));
    assert!(matches!(error, Error::Call { attempts: 3, .. }), "{error}");
    assert_eq!((server.batches(), client.totals().usd), (3, 0.0));
}

#[test]
fn each_batch_has_one_model_and_a_limited_number_of_calls() {
    let server = server(Vec::new(), 0);
    let folder = tempfile::tempdir().unwrap();
    let models = ["gpt-4", "gpt-4o"];
    let requests: Vec<_> = (0..10).map(|n| request(models[n % 2], &format!("number {n}"))).collect();
    let settings = BatchSettings { most_calls: 3, ..quick() };
    let client = client(&server, folder.path(), None, settings);
    assert_answers(&ask_all(&client, &requests), &requests);
    assert_eq!(server.batches(), 4, "3 + 2 calls of each model");
    assert_billed_once(&server, 10);
}

#[test]
fn the_budget_limits_the_maximum_cost_of_each_batch() {
    let server = server(Vec::new(), 0);
    let folder = tempfile::tempdir().unwrap();
    let requests = numbers(40);
    let most_of_one = client(&server, folder.path(), None, quick()).most_cost(&requests[39]).unwrap();
    let limit = 10.5 * most_of_one;
    let first = client(&server, folder.path(), Some(limit), quick());
    let error = first_error(ask_all(&first, &requests));
    let Error::Budget { spent, next, .. } = error else { panic!("{error}") };
    assert!(spent <= limit && spent + next > limit, "{spent} + {next} against {limit}");
    assert!(server.batches() > 1 && (first.totals().usd - spent).abs() < 1e-9);
    drop(first);
    let rest = client(&server, folder.path(), None, quick());
    assert_answers(&ask_all(&rest, &requests), &requests);
    assert_billed_once(&server, 40);
}

#[test]
fn a_batch_that_is_cancelled_or_refused_ends_the_run_and_keeps_its_answers() {
    let fates = vec![BatchFate::CancelAfter(3), BatchFate::Reject("token_limit_exceeded".to_owned())];
    let server = server(fates, 0);
    let folder = tempfile::tempdir().unwrap();
    let requests = numbers(5);
    let ended = |wanted: &str, problem: &str| {
        let client = client(&server, folder.path(), None, quick());
        let error = first_error(ask_all(&client, &requests));
        let Error::Batch { status, .. } = &error else { panic!("{error}") };
        assert!(status == wanted && error.to_string().contains(problem), "{error}");
    };
    ended("cancelled", "no reason");
    ended("failed", "token_limit_exceeded");
    let client = client(&server, folder.path(), None, quick());
    assert_answers(&ask_all(&client, &requests), &requests);
    assert_eq!(server.batches(), 3);
    assert_billed_once(&server, 5);
}

#[test]
fn a_lost_answer_creates_no_second_batch() {
    let mut fates = vec![BatchFate::Complete; 4];
    fates.push(BatchFate::LoseAnswer);
    let server = server(fates, 0);
    let folder = tempfile::tempdir().unwrap();
    let client = client(&server, folder.path(), None, BatchSettings { most_calls: 2, ..quick() });
    let requests = numbers(12);
    assert_answers(&ask_all(&client, &requests), &requests);
    assert_eq!(server.batches(), 6);
    assert_billed_once(&server, 12);
    assert!(server.requests().iter().any(|request| request.starts_with("GET /v1/batches?")));
}

#[test]
fn a_stopped_run_leaves_its_batch_to_the_next_one_and_to_no_direct_call() {
    let server = server(Vec::new(), 0);
    server.hold();
    let folder = tempfile::tempdir().unwrap();
    let requests = numbers(6);
    let stopped = client(&server, folder.path(), None, quick());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let heard = scope.spawn(|| ask(&stopped, &requests, &stop));
        while server.batches() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        let heard = heard.join().unwrap();
        assert!(heard.iter().all(|heard| matches!(heard, Some(Err(Error::Stopped)))));
    });
    drop(stopped);
    server.release();
    let (direct, _) = direct(&server, folder.path(), None);
    let estimate = direct.estimate(&requests).unwrap();
    assert_eq!((estimate.in_batches, estimate.most_usd), (6, Some(0.0)));
    let error = first_error(ask_all(&direct, &requests));
    assert!(matches!(error, Error::OpenBatch { .. }) && error.is_bad_input(), "{error}");
    drop(direct);
    // The batch of the earlier process is collected first; its calls are not limited by this budget.
    let more = numbers(8);
    let next = client(&server, folder.path(), Some(1.0), quick());
    assert_answers(&ask_all(&next, &more), &more);
    assert_eq!(server.batches(), 2);
    assert_billed_once(&server, 8);
}

#[test]
fn batches_need_a_folder_and_a_sensible_price() {
    let server = server(Vec::new(), 0);
    let folder = tempfile::tempdir().unwrap();
    let (client, endpoint) = direct(&server, folder.path(), None);
    let bad = BatchSettings { price_share: f64::NAN, ..quick() };
    let error = client.with_batches(endpoint.batches().unwrap(), bad).unwrap_err();
    assert!(matches!(error, Error::Setting { .. }) && error.is_bad_input());
    let kind = EndpointKind::Azure { deployment: "d".to_owned(), api_version: "v".to_owned() };
    let azure = Endpoint::new("https://x", kind, None, Duration::from_secs(1)).unwrap();
    assert!(matches!(azure.batches(), Err(Error::Setting { .. })));
}
