//! Answering and judging: the order of calls and their records.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    error::Error as StdError,
    num::NonZeroUsize,
    path::Path,
};

use mtbench::{
    Answer, BenchDir, Conversation, Error, FixedStamp, JUDGE_FAILED, Judge, JudgePrompts, JudgeRequest, Mode,
    Question, Rating, Responder, SingleGrading, Verdict, answer_bench, answer_questions, judge_answers,
};

type Outcome<T> = Result<T, Box<dyn StdError + Send + Sync>>;

fn bench() -> BenchDir {
    BenchDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bench"))
}

fn stamp() -> FixedStamp {
    FixedStamp { prefix: "id".to_owned(), tstamp: 1.5 }
}

fn question(question_id: u64, category: &str, turns: &[&str]) -> Question {
    Question {
        question_id,
        category: category.to_owned(),
        turns: turns.iter().map(|&turn| turn.to_owned()).collect(),
        reference: None,
        required_temperature: None,
    }
}

/// Answers with `turn/question` and records the requests.
#[derive(Default)]
struct Echo {
    asked: Vec<String>,
}

impl Responder for Echo {
    fn respond(&mut self, conversations: &[Conversation<'_>]) -> Outcome<Vec<String>> {
        self.asked.extend(conversations.iter().map(|c| {
            format!("{}.{} at {}: {:?} {:?}", c.question_id, c.turn, c.temperature, c.user, c.assistant)
        }));
        Ok(conversations.iter().map(|c| format!("{}/{}", c.turn, c.question_id)).collect())
    }
}

#[test]
fn all_first_turns_come_before_all_second_turns() {
    let questions = [
        question(9, "math", &["a", "b"]),
        question(3, "writing", &["c"]),
        Question { required_temperature: Some(0.25), ..question(5, "coding", &["d", "e"]) },
    ];
    let mut echo = Echo::default();
    let answers = answer_questions(&questions, "echo", &mut echo, &mut stamp(), &[]).unwrap();
    let expected = [
        r#"9.1 at 0: ["a"] []"#,
        r#"3.1 at 0.7: ["c"] []"#,
        r#"5.1 at 0.25: ["d"] []"#,
        r#"9.2 at 0: ["a", "b"] ["1/9"]"#,
        r#"5.2 at 0.25: ["d", "e"] ["1/5"]"#,
    ];
    assert_eq!(echo.asked, expected);
    let turns: Vec<&[String]> = answers.iter().map(Answer::turns).collect();
    assert_eq!(turns, [&["1/9", "2/9"][..], &["1/3"], &["1/5", "2/5"]]);
    let first = &answers[0];
    assert_eq!(
        (first.answer_id.as_deref(), first.model_id.as_str(), first.tstamp),
        (Some("id-9"), "echo", Some(1.5))
    );
}

#[test]
fn complete_answers_are_kept_and_incomplete_ones_repeated() {
    let questions =
        [question(1, "math", &["a", "b"]), question(2, "math", &["c", "d"]), question(3, "math", &["e"])];
    let mut on_file = answer_questions(&questions, "echo", &mut Echo::default(), &mut stamp(), &[]).unwrap();
    on_file[0].choices[0].turns.pop();
    on_file[1].answer_id = Some("older".to_owned());
    let newer = Answer { answer_id: Some("newer".to_owned()), ..on_file[1].clone() };
    let stranger = Answer { model_id: "other".to_owned(), ..on_file[2].clone() };
    let on_file = [on_file[0].clone(), on_file[1].clone(), newer.clone(), stranger];

    let mut echo = Echo::default();
    let answers = answer_questions(&questions, "echo", &mut echo, &mut stamp(), &on_file).unwrap();
    assert_eq!(echo.asked.len(), 3, "two turns of question 1, one of question 3: {:?}", echo.asked);
    assert_eq!(answers[0].turns(), ["1/1", "2/1"]);
    assert_eq!(answers[1], newer);
    assert_eq!(answers[2].model_id, "echo");

    let mut echo = Echo::default();
    assert_eq!(answer_questions(&questions, "echo", &mut echo, &mut stamp(), &answers).unwrap(), answers);
    assert!(echo.asked.is_empty());
}

struct Broken;

impl Responder for Broken {
    fn respond(&mut self, conversations: &[Conversation<'_>]) -> Outcome<Vec<String>> {
        match conversations[0].turn {
            1 => Ok(vec!["one".to_owned(); conversations.len()]),
            _ => Err("out of memory".into()),
        }
    }
}

struct Mute;

impl Responder for Mute {
    fn respond(&mut self, _: &[Conversation<'_>]) -> Outcome<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Answers a number of conversations, then fails.
struct Tiring(usize);

impl Responder for Tiring {
    fn respond(&mut self, conversations: &[Conversation<'_>]) -> Outcome<Vec<String>> {
        self.0 = self.0.checked_sub(conversations.len()).ok_or("out of breath")?;
        Ok(conversations.iter().map(|c| format!("{}/{}", c.turn, c.question_id)).collect())
    }
}

#[test]
fn answered_groups_are_written_and_the_next_run_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let bench = BenchDir::new(folder.path());
    let questions: Vec<Question> = [9, 3, 5, 7, 1].map(|id| question(id, "math", &["a", "b"])).to_vec();
    let pair = NonZeroUsize::new(2).unwrap();
    let run = |breath| {
        let mut responder = Tiring(breath);
        answer_bench(&bench, &questions, "m", pair, &mut responder, &mut stamp()).map(|()| responder.0)
    };
    // Two turns of two questions take four calls; the second group fails in its second turn.
    let broken = run(7).unwrap_err();
    assert!(matches!(broken, Error::Respond { turn: 2, .. }), "{broken}");
    let ids = || bench.answers("m").unwrap().iter().map(|answer| answer.question_id).collect::<Vec<_>>();
    assert_eq!(ids(), [3, 9]);
    assert_eq!(run(100).unwrap(), 100 - 6, "three questions of two turns are left");
    assert_eq!(ids(), [1, 3, 5, 7, 9]);
    assert_eq!(bench.answers("m").unwrap()[0].turns(), ["1/1", "2/1"]);
    assert_eq!(run(0).unwrap(), 0, "no question is repeated");
}

#[test]
fn responder_errors_are_distinguished() {
    let questions = [question(1, "math", &["a", "b"])];
    let broken = answer_questions(&questions, "m", &mut Broken, &mut stamp(), &[]).unwrap_err();
    assert_eq!(broken.to_string(), "model \"m\" could not answer turn 2");
    assert_eq!(broken.source().unwrap().to_string(), "out of memory");
    let mute = answer_questions(&questions, "m", &mut Mute, &mut stamp(), &[]).unwrap_err();
    assert!(matches!(mute, Error::AnswerCount { turn: 1, asked: 1, got: 0, .. }), "{mute}");
    let three = [question(1, "math", &["a", "b", "c"])];
    let refused = answer_questions(&three, "m", &mut Mute, &mut stamp(), &[]).unwrap_err();
    assert!(matches!(refused, Error::Turns { turns: 3, .. }), "{refused}");
}

#[test]
fn prompts_are_formatted_as_in_python_and_braces_in_answers_are_kept() {
    let (bench, prompts) = (bench(), JudgePrompts::fastchat());
    let (questions, answers) = (bench.questions().unwrap(), bench.answers("zebra").unwrap());
    let references = bench.references("gpt-4").unwrap();
    let grading = SingleGrading { questions: &questions, prompts: &prompts, references: &references };
    let calls = grading.calls(&answers).unwrap();
    let expected: Vec<(u64, u8, String, String)> =
        serde_json::from_str(include_str!("fixtures/prompts.json")).unwrap();
    assert_eq!(calls.len(), expected.len());
    for (call, (question_id, turn, name, user_prompt)) in calls.iter().zip(&expected) {
        let request = &call.request;
        assert_eq!(
            (request.question.question_id, request.turn, &call.prompt.name),
            (*question_id, *turn, name)
        );
        assert_eq!(&request.user_prompt, user_prompt);
        assert_eq!(request.system_prompt, call.prompt.system_prompt);
        assert_eq!(request.answers.len(), usize::from(*turn));
        assert!(user_prompt.contains("{question} {0} {{x}}"), "braces in answers are kept");
    }
}

#[test]
fn eighty_questions_make_160_calls() {
    let categories =
        ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"];
    let questions: Vec<Question> =
        (0..80).map(|i| question(81 + i, categories[i as usize / 10], &["first", "second"])).collect();
    let answers = answer_questions(&questions, "echo", &mut Echo::default(), &mut stamp(), &[]).unwrap();
    let prompts = JudgePrompts::fastchat();
    let grading = SingleGrading { questions: &questions, prompts: &prompts, references: &answers };
    let mut by_prompt: BTreeMap<&str, usize> = BTreeMap::new();
    for call in grading.calls(&answers).unwrap() {
        *by_prompt.entry(&call.prompt.name).or_default() += 1;
    }
    let expected = [
        ("single-v1", 50),
        ("single-math-v1", 30),
        ("single-v1-multi-turn", 50),
        ("single-math-v1-multi-turn", 30),
    ];
    assert_eq!(by_prompt, expected.into());
}

/// Returns scripted replies per turn, and fails without one.
struct Scripted {
    says: RefCell<VecDeque<Option<&'static str>>>,
}

impl Scripted {
    fn new(says: &[Option<&'static str>]) -> Self {
        Self { says: RefCell::new(says.iter().copied().collect()) }
    }
}

impl Judge for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn judge(&self, _: &JudgeRequest<'_>) -> Outcome<String> {
        let says = self.says.borrow_mut().pop_front().expect("a scripted reply is left");
        says.map(str::to_owned).ok_or_else(|| "no answer in 16 tries".into())
    }
}

#[test]
fn judgments_record_verdicts_and_failures() {
    let questions = [question(1, "writing", &["a", "b"])];
    let answers = answer_questions(&questions, "echo", &mut Echo::default(), &mut stamp(), &[]).unwrap();
    let prompts = JudgePrompts::fastchat();
    let grading = SingleGrading { questions: &questions, prompts: &prompts, references: &[] };
    let judge = |says: &[Option<&'static str>], mode| {
        judge_answers(&grading, &answers, &Scripted::new(says), mode, &mut stamp())
    };

    let judgments = judge(&[Some("[[9]], no: [[2.5]]"), None], Mode::Strict).unwrap();
    assert_eq!(judgments[0].score(), Some(Rating::Decimal(2.5)));
    assert_eq!(judgments[0].judge, ("scripted".to_owned(), "single-v1".to_owned()).into());
    assert_eq!((judgments[1].verdict, judgments[1].judgment.as_str()), (Verdict::Failed, JUDGE_FAILED));
    assert_eq!((judgments[1].turn, judgments[1].tstamp), (2, Some(1.5)));
    assert_eq!(judgments[1].judge.prompt, "single-v1-multi-turn");
    let reread = judgments[0].clone().reread(Mode::FastChat).unwrap();
    assert_eq!(reread.score(), Some(Rating::Whole(9)));

    let folder = tempfile::tempdir().unwrap();
    let bench = BenchDir::new(folder.path());
    bench.write_judgments("scripted", &judgments).unwrap();
    let text = std::fs::read_to_string(bench.judgment_file("scripted").unwrap()).unwrap();
    assert!(text.contains(r#""judgment": "$ERROR$", "score": -1, "turn": 2, "tstamp": 1.5}"#), "{text}");

    let stopped = judge(&[Some("[[08]]"), None], Mode::FastChat).unwrap_err();
    assert!(matches!(&stopped, Error::Rating { question_id: 1, turn: 1, .. }), "{stopped}");
    assert!(judge(&[Some("[[08]]"), None], Mode::Strict).is_ok());
}

#[test]
fn several_models_are_judged_question_by_question_and_the_last_answer_counts() {
    let questions = [question(1, "writing", &["a"]), question(2, "writing", &["b"])];
    let mut answers = Vec::new();
    for model in ["zebra", "ant", "ant"] {
        let mut of_model =
            answer_questions(&questions, model, &mut Echo::default(), &mut stamp(), &[]).unwrap();
        of_model[0].choices[0].turns[0] = format!("answer number {}", answers.len());
        answers.extend(of_model);
    }
    let prompts = JudgePrompts::fastchat();
    let grading = SingleGrading { questions: &questions, prompts: &prompts, references: &[] };
    let calls = grading.calls(&answers).unwrap();
    let order: Vec<(u64, &str)> =
        calls.iter().map(|c| (c.request.question.question_id, c.request.model)).collect();
    assert_eq!(order, [(1, "ant"), (1, "zebra"), (2, "ant"), (2, "zebra")]);
    assert_eq!(calls[0].request.answers, ["answer number 4"]);
}

#[test]
fn missing_input_is_an_error_before_the_first_call() {
    let questions = [question(1, "writing", &["a", "b"]), question(2, "math", &["c", "d"])];
    let answers = answer_questions(&questions, "echo", &mut Echo::default(), &mut stamp(), &[]).unwrap();
    let prompts = JudgePrompts::fastchat();
    let judge = |answers: &[Answer], references: &[Answer]| {
        let grading = SingleGrading { questions: &questions, prompts: &prompts, references };
        judge_answers(&grading, answers, &Scripted::new(&[]), Mode::Strict, &mut stamp()).unwrap_err()
    };
    let unanswered = judge(&answers[..1], &answers);
    assert!(
        matches!(&unanswered, Error::NoAnswer { question_id: 2, turns: 0, needed: 2, .. }),
        "{unanswered}"
    );
    let mut half = answers.clone();
    half[0].choices[0].turns.pop();
    assert!(matches!(judge(&half, &answers), Error::NoAnswer { question_id: 1, turns: 1, needed: 2, .. }));
    half[0].choices.clear();
    assert!(matches!(judge(&half, &answers), Error::NoAnswer { question_id: 1, turns: 0, .. }));
    let unreferenced = judge(&answers, &[]);
    assert!(
        matches!(&unreferenced, Error::NoReference { question_id: 2, turns: 0, needed: 1, .. }),
        "{unreferenced}"
    );
    let mut short = answers[1].clone();
    short.choices[0].turns.pop();
    assert!(matches!(
        judge(&answers, &[short]),
        Error::NoReference { question_id: 2, turns: 1, needed: 2, .. }
    ));
}

#[test]
fn templates_are_expanded_once_and_errors_name_the_mistake() {
    let prompts = JudgePrompts::fastchat();
    let template = |text: &str| {
        let prompt = mtbench::JudgePrompt { prompt_template: text.to_owned(), ..prompts.all()[0].clone() };
        prompt.fill(&BTreeMap::from([("a", "{b}"), ("b", "x")]))
    };
    assert_eq!(template("{a}{b} {{a}} }}{{").unwrap(), "{b}x {a} }{");
    assert_eq!(template("").unwrap(), "");
    for (text, at) in [("ok {c}", 3), ("{a", 0), ("a}", 1), ("{a!r}", 0), ("{}", 0)] {
        let error = template(text).unwrap_err();
        assert!(matches!(&error, Error::Template { at: place, .. } if *place == at), "{text:?}: {error}");
    }
    assert_eq!(
        template("ok {c}").unwrap_err().to_string(),
        "judge prompt \"pair-v2\", byte 3: no value for {c}; there are: a, b"
    );
    let unknown = prompts.named("single-v2").unwrap_err().to_string();
    assert!(unknown.contains("single-v2") && unknown.contains("single-math-v1"), "{unknown}");
}
