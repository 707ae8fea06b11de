//! Retries, limits, costs and the cache, on a scripted transport and a simulated clock.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroU64};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use llm_client::{
    Answered, BoxFuture, ChatMessage, ChatRequest, ChatSampling, Client, Clock, Error, Failure, LEDGER,
    Limits, Prices, Recovery, Reply, RequestKey, RetryPolicy, Settings, Source, Transport, Usage,
    read_ledger,
};
use seeds::Seeds;

/// Time that passes only in `sleep`.
#[derive(Default)]
struct SleptClock(Mutex<Duration>);

impl Clock for SleptClock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }
    fn unix_seconds(&self) -> f64 {
        self.now().as_secs_f64()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        *self.0.lock().unwrap() += duration;
        Box::pin(std::future::ready(()))
    }
}

/// Fails as scripted, then answers.
#[derive(Clone, Default)]
struct Script {
    failures: Arc<Mutex<VecDeque<Failure>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn new(failures: impl IntoIterator<Item = Failure>) -> Self {
        Self { failures: Arc::new(Mutex::new(failures.into_iter().collect())), asked: Arc::default() }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Transport for Script {
    fn address(&self) -> &str {
        "http://script"
    }
    fn send<'a>(&'a self, request: &'a ChatRequest) -> BoxFuture<'a, Result<Reply, Failure>> {
        let text = request.messages.last().unwrap().content.clone();
        self.asked.lock().unwrap().push(text.clone());
        let failure = self.failures.lock().unwrap().pop_front();
        Box::pin(async move {
            // Other calls run meanwhile, as with a server.
            tokio::task::yield_now().await;
            let usage = Some(Usage { prompt_tokens: 100, completion_tokens: 10 });
            failure.map_or(Ok(Reply { text, usage, ..Reply::default() }), Err)
        })
    }
}

fn settings() -> Settings {
    Settings {
        limits: Limits::concurrent(NonZeroU32::new(4).unwrap()),
        retry: RetryPolicy::PATIENT,
        prices: Prices::listed(),
        max_cost: None,
    }
}

fn client(script: &Script, settings: Settings, folder: Option<&Path>) -> (Client, Arc<SleptClock>) {
    let clock = Arc::new(SleptClock::default());
    let jitter = Seeds::new(5).stream("retry-jitter");
    (Client::new(script.clone(), settings, folder, clock.clone(), jitter).unwrap(), clock)
}

fn request(text: &str) -> ChatRequest {
    ChatRequest {
        model: "gpt-4".to_owned(),
        messages: vec![ChatMessage::user(text)],
        sampling: ChatSampling::greedy(100),
        repeat: 0,
    }
}

fn ask_all(client: &Client, texts: &[&str]) -> Vec<Result<Answered, Error>> {
    let mut outcomes: Vec<Option<Result<Answered, Error>>> = texts.iter().map(|_| None).collect();
    client
        .run_each(
            texts.len(),
            &AtomicBool::new(false),
            |index| async move { client.chat(&request(texts[index])).await },
            |index, outcome| {
                let goes_on = !matches!(outcome, Err(Error::Budget { .. }));
                outcomes[index] = Some(outcome);
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        )
        .unwrap();
    outcomes.into_iter().flatten().collect()
}

fn rate_limited(seconds: u64) -> Failure {
    Failure::RateLimited { retry_after: Some(Duration::from_secs(seconds)), message: String::new() }
}

#[test]
fn transient_failures_are_retried_after_at_least_the_requested_wait() {
    let server = || Failure::Server { status: 500, retry_after: None, message: String::new() };
    let script = Script::new([
        rate_limited(7),
        server(),
        Failure::Timeout { limit: Duration::from_secs(2) },
        Failure::CutBody,
    ]);
    let (client, clock) = client(&script, settings(), None);
    let outcomes = ask_all(&client, &["a"]);
    assert_eq!(outcomes[0].as_ref().unwrap().reply.text, "a");
    assert_eq!(script.asked(), 5);
    let slept = clock.now().as_secs_f64();
    assert!((7.0 + 0.5 + 1.0 + 2.0..=7.5 + 1.0 + 2.0 + 4.0).contains(&slept), "{slept}");
    let totals = client.totals();
    assert_eq!((totals.answered, totals.unanswered), (1, 2), "a timeout and a cut body may be billed");
}

#[test]
fn permanent_failures_are_reported_at_once() {
    for failure in [
        Failure::QuotaExhausted { message: "no money".to_owned() },
        Failure::ContextOverflow { message: "too long".to_owned() },
        Failure::Refused { status: 401, message: "no key".to_owned() },
    ] {
        let script = Script::new([failure.clone()]);
        let (client, clock) = client(&script, settings(), None);
        let error = ask_all(&client, &["a"]).remove(0).unwrap_err();
        assert!(matches!(&error, Error::Call { attempts: 1, source, .. } if *source == failure), "{error}");
        assert_eq!((script.asked(), clock.now()), (1, Duration::ZERO));
    }
    let script = Script::new(vec![Failure::CutBody; 20]);
    let (client, _) = client(&script, settings(), None);
    let error = ask_all(&client, &["a"]).remove(0).unwrap_err();
    assert_eq!(error.to_string(), "gpt-4 gave no answer in 8 attempts");
    assert_eq!(script.asked(), 8);
}

#[test]
fn an_answer_is_paid_once_across_processes() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::default();
    let (first, _) = client(&script, settings(), Some(folder.path()));
    let outcomes = ask_all(&first, &["a", "b", "a", "a"]);
    assert_eq!(script.asked(), 2, "equal requests at the same time share an answer");
    assert_eq!(outcomes.iter().filter(|o| o.as_ref().unwrap().source == Source::Endpoint).count(), 2);
    let clock: Arc<SleptClock> = Arc::default();
    let jitter = Seeds::new(5).stream("x");
    let second = Client::new(script.clone(), settings(), Some(folder.path()), clock, jitter.clone());
    assert!(matches!(second, Err(Error::Locked { .. })), "one process at a time");
    drop(first);
    let (next, _) = client(&script, settings(), Some(folder.path()));
    assert_eq!(next.cached(&request("a")).unwrap().unwrap().text, "a");
    assert_eq!(ask_all(&next, &["b", "c"])[0].as_ref().unwrap().source, Source::Cache);
    assert_eq!(script.asked(), 3);
    let mut again = request("a");
    again.repeat = 1;
    assert_eq!(next.cached(&again).unwrap(), None, "a second opinion is not the first");

    let rows = read_ledger(&folder.path().join(LEDGER)).unwrap();
    let costs: Vec<Option<f64>> = rows.iter().map(|row| row.usd).collect();
    assert_eq!(costs, [Some(0.0036); 3], "100 tokens at 30 and 10 at 60 USD a million");
    assert_eq!(next.totals().answered, 1);
}

#[test]
fn after_a_kill_the_ledger_knows_what_was_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LEDGER);
    let script = Script::default();
    let (first, _) = client(&script, settings(), Some(folder.path()));
    ask_all(&first, &["a", "b", "c"]);
    drop(first);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "a line before each call and one after it");
    let of = |text: &str| RequestKey::new("http://script", &request(text)).as_str().to_owned();
    let row = |text: &str, sent: bool| {
        let is = |line: &&&str| line.contains(&of(text)) && line.contains("\"sent\"") == sent;
        format!("{}\n", lines.iter().find(is).unwrap())
    };
    // Killed during the call of b, and between the reply of c and its row.
    let killed = row("a", true) + &row("a", false) + &row("b", true) + &row("c", true);
    files::json_lines::Log::replace(&path, killed.as_bytes()).unwrap();
    let reply = |text: &str| folder.path().join(format!("replies/{}/{}.json", &of(text)[..2], of(text)));
    std::fs::remove_file(reply("b")).unwrap();
    let in_flight: Vec<String> = read_ledger(&path).unwrap().into_iter().map(|row| row.outcome).collect();
    assert_eq!(in_flight, ["answered", "sent", "sent"]);

    let (next, _) = client(&script, settings(), Some(folder.path()));
    assert_eq!(next.recovery(), Recovery { interrupted: 1, booked: 1, lost: 0 });
    assert_eq!(ask_all(&next, &["a", "b", "c"]).len(), 3);
    assert_eq!(script.asked(), 4, "only b is asked again");
    drop(next);
    let rows = read_ledger(&path).unwrap();
    let outcomes: Vec<&str> = rows.iter().map(|row| row.outcome.as_str()).collect();
    assert_eq!(outcomes, ["answered", "interrupted", "answered", "answered"]);
    assert!((rows[1].usd.unwrap() - 0.00627).abs() < 1e-12, "the upper bound, since its tokens are unknown");
    assert_eq!(rows[2].usd, Some(0.0036), "booked from the reply");

    // Without its ledger, and without one of its replies.
    std::fs::remove_file(&path).unwrap();
    let (third, _) = client(&script, settings(), Some(folder.path()));
    assert_eq!(third.recovery(), Recovery { interrupted: 0, booked: 3, lost: 0 });
    drop(third);
    std::fs::remove_file(reply("a")).unwrap();
    let (last, _) = client(&script, settings(), Some(folder.path()));
    assert_eq!(last.recovery(), Recovery { interrupted: 0, booked: 0, lost: 1 });
}

#[test]
fn an_answer_without_token_counts_is_kept_and_costs_the_bound() {
    #[derive(Clone)]
    struct Uncounted;
    impl Transport for Uncounted {
        fn address(&self) -> &str {
            "http://uncounted"
        }
        fn send<'a>(&'a self, _: &'a ChatRequest) -> BoxFuture<'a, Result<Reply, Failure>> {
            let reply = Reply { text: "7".to_owned(), ..Reply::default() };
            Box::pin(std::future::ready(Ok(reply)))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SleptClock::default());
    let jitter = Seeds::new(5).stream("retry-jitter");
    let limits = Limits {
        tokens_per_minute: NonZeroU64::new(60_000),
        ..Limits::concurrent(NonZeroU32::new(4).unwrap())
    };
    let settings = Settings { limits, max_cost: Some(0.01), ..settings() };
    let client = Client::new(Uncounted, settings, Some(folder.path()), clock, jitter).unwrap();
    assert_eq!(ask_all(&client, &["a"])[0].as_ref().unwrap().reply.text, "7");
    let totals = client.totals();
    assert_eq!((totals.answered, totals.usage), (1, Usage::default()));
    assert!((totals.usd - 0.00627).abs() < 1e-12, "{}", totals.usd);
    assert_eq!(read_ledger(&folder.path().join(LEDGER)).unwrap()[0].usage, None);
}

#[test]
fn a_call_ends_after_half_an_hour_of_attempts() {
    let script = Script::new(vec![rate_limited(59); 1000]);
    let retry = RetryPolicy { attempts: 1000, ..RetryPolicy::PATIENT };
    let (client, clock) = client(&script, Settings { retry, ..settings() }, None);
    assert!(matches!(ask_all(&client, &["a"])[0], Err(Error::Call { .. })));
    let minutes = clock.now().as_secs_f64() / 60.0;
    assert!((28.0..=30.0).contains(&minutes), "{minutes}");
}

#[test]
fn the_limit_on_costs_holds_before_the_next_call() {
    let script = Script::default();
    // A call costs 0.0036 USD and can cost (1 + 8) · 30e-6 + 100 · 60e-6 = 0.00627.
    let (client, _) = client(&script, Settings { max_cost: Some(0.02), ..settings() }, None);
    assert!((client.most_cost(&request("a")).unwrap() - 0.00627).abs() < 1e-12);
    let texts: Vec<String> = (0..9).map(|i| i.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let outcomes = ask_all(&client, &texts);
    let refused = outcomes.iter().filter(|o| matches!(o, Err(Error::Budget { .. }))).count();
    assert!(refused >= 1);
    assert_eq!(script.asked(), 4, "four are 0.0144; a fifth could end at 0.02067");
    assert!(client.totals().usd <= 0.02);

    let unknown = Settings { max_cost: Some(1.0), prices: Prices::default(), ..settings() };
    let (unpriced, _) = self::client(&script, unknown, None);
    assert!(matches!(ask_all(&unpriced, &["x"])[0], Err(Error::NoPrice { .. })));
    assert_eq!(script.asked(), 4);
}

#[test]
fn rate_limits_are_kept() {
    let script = Script::default();
    let limits = Limits {
        requests_per_minute: NonZeroU32::new(60),
        tokens_per_minute: NonZeroU64::new(3_300),
        ..Limits::concurrent(NonZeroU32::MIN)
    };
    let (client, clock) = client(&script, Settings { limits, ..settings() }, None);
    let texts: Vec<String> = (0..31).map(|i| i.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(ask_all(&client, &texts).iter().filter(|o| o.is_ok()).count(), 31);
    let seconds = clock.now().as_secs_f64();
    // 110 tokens a call at 55 a second are two seconds a call, twice what 60 requests a minute allow.
    assert!((seconds - 60.0).abs() < 1e-6, "{seconds}");
}

#[test]
fn a_signal_ends_waiting_and_keeps_paid_answers() {
    let script = Script::new([rate_limited(30)]);
    let (client, _) = client(&script, settings(), None);
    let stop = AtomicBool::new(false);
    let mut outcomes = Vec::new();
    let client = &client;
    client
        .run_each(
            100,
            &stop,
            |index| async move { client.chat(&request(&index.to_string())).await },
            |_, outcome| {
                stop.store(outcomes.len() == 5, Ordering::Relaxed);
                outcomes.push(outcome);
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    assert!((6..=10).contains(&outcomes.len()), "{}", outcomes.len());
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count() as u64, client.totals().answered);
}
