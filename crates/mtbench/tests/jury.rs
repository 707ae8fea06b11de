//! Judging a folder: resuming, repeats, re-asks, failures, and judges behind an endpoint.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error as StdError;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use llm_client::{
    ChatSampling, Client, Endpoint, EndpointKind, Limits, Prices, RetryPolicy, Settings, TokioClock,
};
use mtbench::{
    Answer, BenchDir, Choice, EndpointJudge, EndpointResponder, Error, FixedStamp, Games, JUDGE_FAILED,
    Judge, JudgeProgress, JudgePrompts, JudgeRequest, Judged, Judgment, Jury, Mode, PairGrading, Pool,
    Question, Rating, Scores, SingleGrading, answer_questions,
};
use seeds::Seeds;
use serde_json::Value;
use test_support::{MockBehaviour, MockFault, MockServer};

/// Returns scripted replies in order.
struct Scripted(RefCell<VecDeque<Option<String>>>, RefCell<Vec<(u32, u32)>>);

impl Scripted {
    fn new(says: &[Option<&str>]) -> Self {
        Self(RefCell::new(says.iter().map(|said| said.map(str::to_owned)).collect()), RefCell::default())
    }

    fn asked(&self) -> usize {
        self.1.borrow().len()
    }
}

impl Judge for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }
    fn judge(&self, request: &JudgeRequest<'_>) -> Result<String, Box<dyn StdError + Send + Sync>> {
        self.1.borrow_mut().push((request.draw.repeat, request.draw.again));
        let said = self.0.borrow_mut().pop_front().expect("a scripted reply is left");
        said.ok_or_else(|| "the line is dead".into())
    }
}

fn questions(count: u64) -> Vec<Question> {
    let question = |question_id| Question {
        question_id,
        category: "writing".to_owned(),
        turns: vec![format!("first {question_id}"), format!("second {question_id}")],
        reference: None,
        required_temperature: None,
    };
    (1..=count).map(question).collect()
}

fn answers(model: &str, questions: &[Question], said: &str) -> Vec<Answer> {
    let answer = |question: &Question| Answer {
        question_id: question.question_id,
        answer_id: Some("a".to_owned()),
        model_id: model.to_owned(),
        choices: vec![Choice::new(question.turns.iter().map(|turn| format!("{said} to {turn}")).collect())],
        tstamp: Some(0.0),
        extra: serde_json::Map::new(),
    };
    questions.iter().map(answer).collect()
}

fn stamp() -> FixedStamp {
    FixedStamp { prefix: "id".to_owned(), tstamp: 1.5 }
}

fn single(
    bench: &BenchDir,
    jury: &Jury<'_>,
    questions: &[Question],
    answers: &[Answer],
) -> Result<Judged<Judgment>, Error> {
    let prompts = JudgePrompts::fastchat();
    let grading = SingleGrading { questions, prompts: &prompts, references: &[] };
    jury.single(bench, &grading, answers, &mut stamp(), &mut |_| ())
}

fn jury(judge: &dyn Judge) -> Jury<'_> {
    Jury { judge, mode: Mode::Strict, repeats: 1, reasks: 0 }
}

fn scores(bench: &BenchDir) -> Vec<(u64, u8, Option<f64>)> {
    let rows = bench.judgments("scripted").unwrap();
    rows.iter().map(|row| (row.question_id, row.turn, row.score().map(Rating::value))).collect()
}

#[test]
fn valid_judgments_are_kept_and_failed_or_stale_ones_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let bench = BenchDir::new(folder.path());
    let asked = questions(2);
    let mut said = answers("m", &asked, "x");
    let first = Scripted::new(&[Some("[[1]]"), None, Some("[[3]]"), Some("no verdict")]);
    let judged = single(&bench, &jury(&first), &asked, &said).unwrap();
    assert_eq!((judged.kept, judged.made, judged.without_verdict), (0, 3, 1));
    assert_eq!((judged.calls, judged.failed.clone()), (4, BTreeMap::from([("other", 1)])));
    assert_eq!(judged.rows, bench.judgments("scripted").unwrap(), "the rows of the file are returned");
    assert_eq!(scores(&bench), [(1, 1, Some(1.0)), (2, 1, None), (1, 2, Some(3.0)), (2, 2, None)]);
    assert_eq!(bench.judgments("scripted").unwrap()[1].judgment, JUDGE_FAILED);

    // A failed call is repeated; a reply without a verdict is a result of the judge.
    let second = Scripted::new(&[Some("[[2]]")]);
    let judged = single(&bench, &jury(&second), &asked, &said).unwrap();
    assert_eq!((judged.kept, judged.made), (3, 1));
    assert_eq!(scores(&bench)[1], (2, 1, Some(2.0)));

    // Another answer to the first turn of question 1: both of its turns show it.
    said[0].choices[0].turns[0].push('!');
    let third = Scripted::new(&[Some("[[9]]"), Some("[[8]]")]);
    let judged = single(&bench, &jury(&third), &asked, &said).unwrap();
    assert_eq!((judged.kept, judged.made), (2, 2));
    assert_eq!(scores(&bench), [(1, 1, Some(9.0)), (2, 1, Some(2.0)), (1, 2, Some(8.0)), (2, 2, None)]);

    let before = std::fs::read(bench.judgment_file("scripted").unwrap()).unwrap();
    let fourth = Scripted::new(&[]);
    assert_eq!(single(&bench, &jury(&fourth), &asked, &said).unwrap().kept, 4);
    assert_eq!(std::fs::read(bench.judgment_file("scripted").unwrap()).unwrap(), before);

    // Another model's judgments are added to the file.
    let fifth = Scripted::new(&[Some("[[5]]"); 4]);
    single(&bench, &jury(&fifth), &asked, &answers("other", &asked, "y")).unwrap();
    assert_eq!(bench.judgments("scripted").unwrap().len(), 8);
}

#[test]
fn a_reply_without_a_verdict_is_requested_again() {
    let folder = tempfile::tempdir().unwrap();
    let bench = BenchDir::new(folder.path());
    let asked = questions(1);
    let judge =
        Scripted::new(&[Some("?"), Some("[[11]]"), Some("[[7]]"), Some("?"), Some("??"), Some("???")]);
    let jury = Jury { reasks: 2, ..jury(&judge) };
    let judged = single(&bench, &jury, &asked, &answers("m", &asked, "x")).unwrap();
    assert_eq!((judged.made, judged.without_verdict), (2, 1));
    assert_eq!(scores(&bench), [(1, 1, Some(7.0)), (1, 2, None)]);
    assert_eq!(bench.judgments("scripted").unwrap()[1].judgment, "???");
    assert_eq!(*judge.1.borrow(), [(0, 0), (0, 1), (0, 2), (0, 0), (0, 1), (0, 2)]);
}

#[test]
fn repeated_judgments_are_pooled_and_a_later_run_adds_missing_ones() {
    let folder = tempfile::tempdir().unwrap();
    let bench = BenchDir::new(folder.path());
    let asked = questions(1);
    let said = answers("m", &asked, "x");
    single(&bench, &jury(&Scripted::new(&[Some("[[2]]"), Some("[[4]]")])), &asked, &said).unwrap();
    let more = Scripted::new(&[Some("[[9]]"), Some("[[3]]"), Some("[[5]]"), Some("no")]);
    let judged = single(&bench, &Jury { repeats: 3, ..jury(&more) }, &asked, &said).unwrap();
    assert_eq!((judged.kept, judged.made, more.asked()), (2, 4, 4));
    let rows = bench.judgments("scripted").unwrap();
    let pooled = |pool| {
        let scores = Scores::pooled(&asked, &rows, "m", Mode::Strict, pool);
        scores.rows().iter().map(|row| row.score).collect::<Vec<f64>>()
    };
    assert_eq!(pooled(Pool::Median), [3.0, 4.5], "of 2, 9, 3 and of 4, 5");
    assert_eq!(pooled(Pool::Mean), [14.0 / 3.0, 4.5]);
    let text = std::fs::read_to_string(bench.judgment_file("scripted").unwrap()).unwrap();
    assert_eq!(text.matches("\"repeat\": 2").count(), 2);
    assert!(!text.lines().next().unwrap().contains("repeat"), "first judgments are FastChat's lines");
}

#[test]
fn fastchats_exception_follows_the_write_of_finished_judgments() {
    let folder = tempfile::tempdir().unwrap();
    let bench = BenchDir::new(folder.path());
    let asked = questions(1);
    let judge = Scripted::new(&[Some("[[08]]"), Some("[[7]]")]);
    let jury = Jury { mode: Mode::FastChat, reasks: 3, ..jury(&judge) };
    let error = single(&bench, &jury, &asked, &answers("m", &asked, "x")).unwrap_err();
    assert!(matches!(error, Error::Rating { question_id: 1, turn: 1, .. }), "{error}");
    assert_eq!(scores(&bench), [(1, 2, Some(7.0))]);
}

fn client(server: &MockServer, folder: Option<&Path>, max_cost: Option<f64>, retry: RetryPolicy) -> Client {
    let endpoint =
        Endpoint::new(&server.base_url(), EndpointKind::OpenAi, None, Duration::from_secs(5)).unwrap();
    let limits = Limits::concurrent(NonZeroU32::new(32).unwrap());
    let settings = Settings { limits, retry, prices: Prices::listed(), max_cost };
    let jitter = Seeds::new(1).stream("retry-jitter");
    Client::new(endpoint, settings, folder, Arc::new(TokioClock::start()), jitter).unwrap()
}

/// Rates by the prompt's length, so that every prompt has a unique rating.
fn rate(body: &Value) -> String {
    let prompt = body["messages"][1]["content"].as_str().unwrap();
    format!("Fine. Rating: [[{}]]", prompt.len() % 10 + 1)
}

fn ask(
    client: &Client,
    bench: &BenchDir,
    asked: &[Question],
    progress: &mut Vec<JudgeProgress>,
) -> Judged<Judgment> {
    let sampling = ChatSampling::greedy(mtbench::JUDGMENT_TOKENS);
    let stop = AtomicBool::new(false);
    let judge = EndpointJudge { name: "gpt-4", model: "gpt-4", sampling: &sampling, client, stop: &stop };
    let prompts = JudgePrompts::fastchat();
    let grading = SingleGrading { questions: asked, prompts: &prompts, references: &[] };
    let said = answers("m", asked, "x");
    jury(&judge).single(bench, &grading, &said, &mut stamp(), &mut |now| progress.push(now)).unwrap()
}

#[test]
fn a_flaky_endpoint_is_paid_once_for_each_of_160_judgments() {
    let server = MockServer::start(MockBehaviour::flaky(17), rate);
    let folder = tempfile::tempdir().unwrap();
    let bench = BenchDir::new(folder.path());
    let client = client(&server, Some(&folder.path().join("calls")), None, RetryPolicy::PATIENT);
    let mut progress = Vec::new();
    let judged = ask(&client, &bench, &questions(80), &mut progress);
    assert_eq!((judged.made, judged.without_verdict, server.paid()), (160, 0, 160));
    assert_eq!(progress.len(), 161);
    assert!(progress.windows(2).all(|pair| pair[1].done == pair[0].done + 1));
    for row in bench.judgments("gpt-4").unwrap() {
        let right = i64::try_from(row.user_prompt.len() % 10 + 1).unwrap();
        assert_eq!(row.score(), Some(Rating::Whole(right)), "every judgment belongs to its prompt");
    }
    let kept = ask(&client, &bench, &questions(80), &mut progress);
    assert_eq!((kept.kept, kept.made, server.paid()), (160, 0, 160));
}

#[test]
fn an_exhausted_budget_stops_cleanly_and_the_next_run_resumes() {
    let server = MockServer::start(MockBehaviour::perfect(), rate);
    let folder = tempfile::tempdir().unwrap();
    let bench = BenchDir::new(folder.path());
    let calls = folder.path().join("calls");
    let mut progress = Vec::new();
    let poor = client(&server, Some(&calls), Some(0.25), RetryPolicy::NEVER);
    let judged = ask(&poor, &bench, &questions(20), &mut progress);
    let said = judged.stopped.unwrap().to_string();
    assert!(said.contains("stopped before the next call") && said.contains("of 0.25 USD"), "{said}");
    assert!((1..40).contains(&judged.made), "{}", judged.made);
    assert_eq!(judged.made, server.paid());
    assert!(poor.totals().usd <= 0.25);
    drop(poor);
    let rich = client(&server, Some(&calls), None, RetryPolicy::NEVER);
    let judged = ask(&rich, &bench, &questions(20), &mut progress);
    assert_eq!((judged.made + judged.kept, server.paid()), (40, 40));
}

#[test]
fn a_wrong_key_ends_the_run_and_a_long_prompt_fails_only_its_call() {
    let refuse = MockFault::Status(401, String::new(), r#"{"error": {"message": "no such key"}}"#.to_owned());
    let overflow = r#"{"error": {"message": "…", "code": "context_length_exceeded"}}"#.to_owned();
    let overflow = MockFault::Status(400, String::new(), overflow);
    for (fault, all) in [(refuse, true), (MockFault::rate_limit(Some(3600)), true), (overflow, false)] {
        let server = MockServer::start(
            MockBehaviour { faults: vec![(1000, fault)], ..MockBehaviour::perfect() },
            rate,
        );
        let folder = tempfile::tempdir().unwrap();
        let bench = BenchDir::new(folder.path());
        let client = client(&server, None, None, RetryPolicy::PATIENT);
        let judged = ask(&client, &bench, &questions(40), &mut Vec::new());
        assert_eq!(judged.stopped.is_some(), all);
        let failed = judged.failed.get("context_overflow").copied().unwrap_or_default();
        assert_eq!((judged.made, failed), (0, if all { 0 } else { 80 }), "a failed call is not a judgment");
        assert_eq!(judged.rows.len(), failed, "failed calls are recorded as in FastChat");
        assert_eq!(judged.failed_share(), if all { 0.0 } else { 1.0 });
        assert!(server.calls().len() <= 80);
    }
}

#[test]
fn comparisons_are_made_in_both_orders_over_the_endpoint() {
    // Prefers the first position, unless the second answer is longer.
    let server = MockServer::start(MockBehaviour::perfect(), |body| {
        let prompt = body["messages"][1]["content"].as_str().unwrap();
        format!("[[{}]]", if prompt.contains("longer answer to second") { "C" } else { "A" })
    });
    let folder = tempfile::tempdir().unwrap();
    let bench = BenchDir::new(folder.path());
    let client = client(&server, None, None, RetryPolicy::NEVER);
    let asked = questions(3);
    let mut all = answers("a", &asked, "short answer");
    all.extend(answers("b", &asked, "longer answer"));
    let sampling = ChatSampling::greedy(64);
    let stop = AtomicBool::new(false);
    let judge =
        EndpointJudge { name: "gpt-4", model: "g", sampling: &sampling, client: &client, stop: &stop };
    let prompts = JudgePrompts::fastchat();
    let grading = PairGrading { questions: &asked, prompts: &prompts, references: &[], games: Games::All };
    let judged = jury(&judge).pairs(&bench, &grading, &all, &mut stamp(), &mut |_| ()).unwrap();
    assert_eq!((judged.made, server.calls().len()), (6, 12));
    let winners: BTreeMap<u8, mtbench::Winner> =
        bench.pair_judgments("gpt-4").unwrap().iter().map(|row| (row.turn, row.winner())).collect();
    assert_eq!(winners, BTreeMap::from([(1, mtbench::Winner::Tie), (2, mtbench::Winner::Tie)]));
}

#[test]
fn models_behind_an_endpoint_answer_both_turns() {
    let server = MockServer::start(MockBehaviour { together: 2, ..MockBehaviour::perfect() }, |body| {
        let messages = body["messages"].as_array().unwrap();
        let roles: Vec<&str> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
        format!("{} after {}", messages.last().unwrap()["content"].as_str().unwrap(), roles.join(","))
    });
    let client = client(&server, None, None, RetryPolicy::NEVER);
    let sampling = ChatSampling { seed: Some(7), ..ChatSampling::greedy(mtbench::ANSWER_TOKENS) };
    let stop = AtomicBool::new(false);
    let mut responder =
        EndpointResponder { model: "m", system: None, sampling: &sampling, client: &client, stop: &stop };
    let answers = answer_questions(&questions(5), "m", &mut responder, &mut stamp(), &[]).unwrap();
    assert_eq!(answers[4].turns(), ["first 5 after user", "second 5 after user,assistant,user"]);
    let body = &server.calls()[0].body;
    assert_eq!(
        (&body["temperature"], &body["seed"], &body["max_tokens"]),
        (&0.7.into(), &7.into(), &1024.into())
    );
    assert!(server.most_at_a_time() > 1);
}
