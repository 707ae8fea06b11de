//! Calls over HTTP to a server with real failures.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use llm_client::{
    ChatMessage, ChatRequest, ChatSampling, Client, Endpoint, EndpointKind, Error, Failure, Limits, Prices,
    RetryPolicy, Secret, Settings, TokioClock,
};
use seeds::Seeds;
use serde_json::{Value, json};
use test_support::{MockBehaviour, MockFault, MockServer};

/// Time after which a call that hangs fails.
const TIMEOUT: Duration = Duration::from_secs(5);

fn echo(body: &Value) -> String {
    body["messages"][1]["content"].as_str().unwrap_or("").to_owned()
}

fn client(server: &MockServer, retry: RetryPolicy, key: Option<&str>, folder: Option<&Path>) -> Client {
    let key = key.map(|key| Secret::new(key).unwrap());
    let endpoint = Endpoint::new(&server.base_url(), EndpointKind::OpenAi, key, TIMEOUT).unwrap();
    let settings = Settings {
        limits: Limits::concurrent(NonZeroU32::new(32).unwrap()),
        retry,
        prices: Prices::listed(),
        max_cost: None,
    };
    let jitter = Seeds::new(1).stream("retry-jitter");
    Client::new(endpoint, settings, folder, Arc::new(TokioClock::start()), jitter).unwrap()
}

fn request(text: &str) -> ChatRequest {
    ChatRequest {
        model: "mock".to_owned(),
        messages: vec![ChatMessage::system("Be brief."), ChatMessage::user(text)],
        sampling: ChatSampling::greedy(64),
        repeat: 0,
    }
}

fn ask(client: &Client, texts: &[String]) -> Vec<(usize, Result<String, Error>)> {
    let mut heard = Vec::new();
    let job = |index: usize| async move { Ok(client.chat(&request(&texts[index])).await?.reply.text) };
    client
        .run_each(texts.len(), &AtomicBool::new(false), job, |index, outcome| {
            heard.push((index, outcome));
            ControlFlow::Continue(())
        })
        .unwrap();
    heard
}

fn ask_one(client: &Client) -> Result<String, Error> {
    ask(client, &["Hello – 😀".to_owned()]).remove(0).1
}

#[test]
fn requests_have_openais_documented_form() {
    let server =
        MockServer::start(MockBehaviour { key: Some("sk-1".to_owned()), ..MockBehaviour::perfect() }, echo);
    let client = client(&server, RetryPolicy::NEVER, Some("sk-1"), None);
    assert_eq!(ask_one(&client).unwrap(), "Hello – 😀");
    let calls = server.calls();
    assert_eq!(calls[0].path, "/v1/chat/completions");
    let expected = json!({
        "model": "mock",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello – 😀"}],
        "temperature": 0.0,
        "max_tokens": 64,
    });
    assert_eq!(calls[0].body, expected);
    assert_eq!(client.totals().usage.completion_tokens, 3);
}

#[test]
fn a_flaky_server_answers_160_calls_each_paid_once() {
    let server = MockServer::start(MockBehaviour::flaky(3), echo);
    let folder = tempfile::tempdir().unwrap();
    let client = client(&server, RetryPolicy::PATIENT, None, Some(folder.path()));
    let texts: Vec<String> = (0..160).map(|i| format!("question {i}")).collect();
    let mut heard = ask(&client, &texts);
    heard.sort_by_key(|(index, _)| *index);
    assert_eq!(heard.len(), 160);
    for (index, outcome) in heard {
        assert_eq!(outcome.unwrap(), texts[index]);
    }
    assert_eq!(server.paid(), 160, "each is paid once");
    assert!(server.calls().len() > 160, "some had to be asked again");
    assert!(server.most_at_a_time() <= 32);
}

fn failure(behaviour: MockBehaviour, key: Option<&str>) -> Failure {
    let server = MockServer::start(behaviour, echo);
    match ask_one(&client(&server, RetryPolicy::NEVER, key, None)) {
        Err(Error::Call { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

fn always(fault: MockFault) -> MockBehaviour {
    MockBehaviour { faults: vec![(1000, fault)], ..MockBehaviour::perfect() }
}

#[test]
fn failures_are_classified() {
    let status = |code: u16, body: &str| status(code, "", body);
    let limited = failure(always(MockFault::rate_limit(Some(3))), None);
    assert_eq!(limited.retry_after(), Some(Duration::from_secs(3)));
    assert_eq!(limited.kind(), "rate_limited");
    let quota = r#"{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}"#;
    for (fault, kind) in [
        (status(429, quota), "quota_exhausted"),
        (
            status(400, r#"{"error": {"message": "…", "code": "context_length_exceeded"}}"#),
            "context_overflow",
        ),
        (status(404, r#"{"error": "model 'mock' not found"}"#), "refused"),
        (status(503, "<html>"), "server_error"),
        (status(200, "{\"choices\": [{\"mess"), "cut_body"),
        (status(200, "{\"choices\": []}"), "malformed"),
        (status(200, "<html>all is well</html>"), "malformed"),
        (MockFault::CutBody, "cut_body"),
        (MockFault::Hang, "timeout"),
    ] {
        assert_eq!(failure(always(fault.clone()), None).kind(), kind, "{fault:?}");
    }
    let nobody = MockServer::start(MockBehaviour::perfect(), echo);
    let client = client(&nobody, RetryPolicy::NEVER, None, None);
    drop(nobody);
    let error = ask_one(&client).unwrap_err();
    assert!(matches!(&error, Error::Call { source: Failure::Unreachable { .. }, .. }), "{error:?}");
}

#[test]
fn a_key_that_the_server_repeats_is_masked() {
    let behaviour = MockBehaviour { key: Some("sk-right".to_owned()), ..MockBehaviour::perfect() };
    let failure = failure(behaviour, Some("sk-wrong"));
    assert_eq!(failure.to_string(), "HTTP status 401: Incorrect API key provided: Bearer ***");
    assert!(!format!("{failure:?}").contains("sk-wrong"));
}

fn status(status: u16, headers: &str, body: &str) -> MockFault {
    MockFault::Status(status, headers.to_owned(), body.to_owned())
}

#[test]
fn no_redirect_carries_key_or_prompt_to_another_server() {
    let other = MockServer::start(MockBehaviour::perfect(), echo);
    for code in [301, 302, 307, 308] {
        let location = format!("location: {}/chat/completions\r\n", other.base_url());
        let failure = failure(always(status(code, &location, "")), Some("sk-1"));
        assert!(matches!(&failure, Failure::Refused { status, .. } if *status == code), "{failure}");
        assert!(failure.to_string().contains("key and prompts are not sent there"), "{failure}");
    }
    assert_eq!(other.calls().len(), 0);
}

#[test]
fn an_endless_answer_is_cut_and_not_asked_for_again() {
    let server = MockServer::start(always(status(200, "", &" ".repeat(17 << 20))), echo);
    let error = ask_one(&client(&server, RetryPolicy::PATIENT, None, None)).unwrap_err();
    let Error::Call { attempts: 1, source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(source, Failure::TooLarge { limit } if *limit == 16 << 20), "{source}");
}

#[test]
fn counts_that_cannot_be_are_unknown_and_the_answer_is_kept() {
    let message = r#""choices": [{"message": {"role": "assistant", "content": "[[7]]"}}]"#;
    for usage in ["", r#", "usage": null"#, r#", "usage": {"prompt_tokens": -35, "completion_tokens": 1}"#] {
        let body = format!("{{{message}{usage}}}");
        let server = MockServer::start(always(status(200, "", &body)), echo);
        let client = client(&server, RetryPolicy::NEVER, None, None);
        assert_eq!(ask_one(&client).unwrap(), "[[7]]", "{usage}");
        assert_eq!((client.totals().answered, client.totals().unpriced), (1, 1));
    }
}

#[test]
fn an_error_page_is_shown_short_and_without_escapes() {
    let page = format!("\u{1b}[2J\u{202e}{}", "x".repeat(100_000));
    let shown = failure(always(status(404, "", &page)), None).to_string();
    assert!(shown.starts_with("HTTP status 404: \\u{1b}[2J\\u{202e}xxx") && shown.len() < 500, "{shown}");
}
