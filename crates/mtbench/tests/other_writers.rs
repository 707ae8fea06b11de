//! Files of other writers than FastChat's scripts: read as FastChat reads them, and written back byte for byte.

use std::error::Error as StdError;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use mtbench::{
    Answer, BadLines, BenchDir, Conversation, Error, FixedStamp, Judge, JudgePrompts, JudgeRequest, Judgment,
    Jury, MissingReason, Mode, Pool, Question, Rating, Resampling, Responder, Scores, Shown, SingleGrading,
    Verdict, answer_bench, comparison_table, copy_bench, difference_table, judged_models, missing_table,
    question_label, score_table,
};
use report::table::{Format, Value};
use seeds::Seeds;
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> (TempDir, BenchDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let bench = BenchDir::new(folder.path());
    (folder, bench)
}

fn read(bench: &BenchDir, name: &str) -> String {
    fs::read_to_string(bench.root().join(name)).unwrap()
}

fn stamp() -> FixedStamp {
    FixedStamp { prefix: "new".to_owned(), tstamp: 2.5 }
}

/// Repeats the user's last message, and counts the calls.
#[derive(Default)]
struct Echo(usize);

impl Responder for Echo {
    fn respond(
        &mut self,
        conversations: &[Conversation<'_>],
    ) -> Result<Vec<String>, Box<dyn StdError + Send + Sync>> {
        self.0 += conversations.len();
        Ok(conversations.iter().map(|c| format!("echo of {}", c.user.last().unwrap())).collect())
    }
}

fn answer(bench: &BenchDir, model: &str) -> Result<usize, Error> {
    let mut echo = Echo::default();
    let questions = bench.questions()?;
    answer_bench(bench, &questions, model, NonZeroUsize::MAX, &mut echo, &mut stamp())?;
    Ok(echo.0)
}

const QUESTIONS: &str = "{\"question_id\": 7, \"category\": \"writing\", \"turns\": [\"One?\", \"Two?\"]}\n\
    {\"question_id\": 8, \"category\": \"stem\", \"turns\": [\"Three?\"]}\n";

#[test]
fn questions_of_any_id_with_a_mark_or_notes_are_read() {
    let (_folder, bench) = folder(&[(
        "question.jsonl",
        "\u{feff}{\"question_id\": 7.0, \"category\": \"a\", \"turns\": [\"x\u{2028}y\"], \"reference\": \"note\"}\r\n\
         {\"question_id\": \"328c\", \"category\": \"arena-hard-v0.1\", \"cluster\": \"c\", \"turns\": [{\"content\": \"Hi?\"}]}\n\
         {\"question_id\": -3, \"category\": \"b\", \"turns\": [\"z\"], \"reference\": [\"r\", 1]}\n",
    )]);
    let questions = bench.questions().unwrap();
    let labels: Vec<String> = questions.iter().map(|question| question_label(question.question_id)).collect();
    assert_eq!(labels, ["7", "328c", "-3"]);
    let turns: Vec<&str> = questions.iter().map(|question| question.turns[0].as_str()).collect();
    assert_eq!(turns, ["x\u{2028}y", "Hi?", "z"]);
    assert_eq!(questions[0].reference, Some("note".into()));

    let (_target, copy) = folder(&[]);
    copy_bench(&bench, &copy).unwrap();
    assert_eq!(read(&copy, "question.jsonl"), read(&bench, "question.jsonl"), "no byte changes");
}

#[test]
fn a_duplicate_id_is_reported_verbatim() {
    let line = "{\"question_id\": \"q\", \"category\": \"a\", \"turns\": [\"x\"]}\n";
    let (_folder, bench) = folder(&[("question.jsonl", &line.repeat(2))]);
    let error = bench.questions().unwrap_err().to_string();
    assert!(
        error.ends_with("line 2, field `question_id`: q is already in line 1: keep one of the two"),
        "{error}"
    );
}

#[test]
fn new_answers_carry_the_questions_label() {
    let (_folder, bench) = folder(&[(
        "question.jsonl",
        "{\"question_id\": \"b\", \"category\": \"a\", \"turns\": [{\"content\": \"Hi?\"}]}\n\
         {\"question_id\": \"a\", \"category\": \"a\", \"turns\": [\"Ho?\"]}\n",
    )]);
    assert_eq!(answer(&bench, "m").unwrap(), 2);
    let text = read(&bench, "model_answer/m.jsonl");
    let starts: Vec<&str> = text.lines().map(|line| &line[..46]).collect();
    assert_eq!(
        starts,
        [
            r#"{"question_id": "a", "answer_id": "new-a", "mo"#,
            r#"{"question_id": "b", "answer_id": "new-b", "mo"#
        ],
        "in the order of labels"
    );
}

#[test]
fn a_model_is_the_name_of_its_file() {
    let row = |id: u64, turns: &str| {
        format!(
            "{{\"question_id\": {id}, \"model_id\": \"alpaca\", \"choices\": [{{\"turns\": [{turns}]}}]}}\n"
        )
    };
    let text = row(7, "\"p\", \"q\"") + &row(8, "\"r\"");
    let (_folder, bench) = folder(&[
        ("question.jsonl", QUESTIONS),
        ("model_answer/alpaca_a.jsonl", &text),
        ("model_answer/alpaca_b.jsonl", &text),
    ]);
    assert_eq!(answer(&bench, "alpaca_a").unwrap(), 0, "all is answered");
    assert_eq!(read(&bench, "model_answer/alpaca_a.jsonl"), text);
    let models = bench.models().unwrap();
    let answers: Vec<Answer> = models.iter().flat_map(|model| bench.answers(model).unwrap()).collect();
    let (questions, prompts) = (bench.questions().unwrap(), JudgePrompts::fastchat());
    let grading = SingleGrading { questions: &questions, prompts: &prompts, references: &[] };
    let calls = grading.calls(&answers).unwrap();
    let judged: Vec<(&str, u8)> = calls.iter().map(|call| (call.request.model, call.request.turn)).collect();
    assert_eq!(judged.len(), 6);
    assert_eq!(judged[..2], [("alpaca_a", 1), ("alpaca_b", 1)]);
    assert_eq!(answers[0].answer_id, None);
}

#[test]
fn rows_on_file_keep_their_bytes_when_others_are_added() {
    let complete = "{\"question_id\": 8.0, \"choices\": [{\"index\": 0, \"turns\": [{\"content\": \"r\", \"token_len\": 1}], \
        \"wall_time\": [7.25], \"idxs\": [3]}], \"tstamp\": NaN, \"z\": 1e2}";
    let (_folder, bench) =
        folder(&[("question.jsonl", QUESTIONS), ("model_answer/m.jsonl", &format!("{complete}\n"))]);
    let answers = bench.answers("m").unwrap();
    assert_eq!((answers[0].turns(), answers[0].tstamp), (&["r".to_owned()][..], None));
    assert_eq!(answers[0].choices[0].extra["wall_time"][0], 7.25);
    assert_eq!(answer(&bench, "m").unwrap(), 2, "the two turns of question 7");
    let text = read(&bench, "model_answer/m.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[1]), (2, complete));
    assert!(lines[0].contains("\"answer_id\": \"new-7\""), "{text}");
    assert_eq!(answer(&bench, "m").unwrap(), 0);
    assert_eq!(read(&bench, "model_answer/m.jsonl"), text, "a complete file is not touched");
}

const JUDGMENTS: &str = "\u{feff}{\"question_id\": 7, \"model\": \"m\", \"score\": 5, \"turn\": 1.0}\n\
    {\"question_id\": 7, \"model\": \"m\", \"judge\": \"gpt-4\", \"score\": \"6.5\", \"turn\": 2, \"tstamp\": NaN}\n\
    {\"question_id\": \"x\", \"model\": \"m\", \"judgment\": \"$ERROR$\", \"score\": -1.0, \"turn\": 1, \"tstamp\": \"today\"}\n\
    {\"question_id\": 8, \"model\": \"m\", \"score\": null, \"turn\": 1}\n";

#[test]
fn judgments_are_read_as_in_show_result() {
    let (_folder, bench) =
        folder(&[("question.jsonl", QUESTIONS), ("model_judgment/gpt-4_single.jsonl", JUDGMENTS)]);
    let rows = bench.judgments("gpt-4").unwrap();
    let verdicts: Vec<Verdict> = rows.iter().map(|row| row.verdict).collect();
    let rated = Verdict::Rating;
    let expected =
        [rated(Rating::Whole(5)), rated(Rating::Decimal(6.5)), Verdict::Failed, Verdict::NoVerdict];
    assert_eq!(verdicts, expected);
    for mode in [Mode::FastChat, Mode::Strict] {
        let shown = Shown::read(&bench, "gpt-4", mode, Pool::Median, &[]).unwrap();
        let overall = shown.of("m").unwrap().1.overall();
        assert_eq!((overall.turn_1, overall.turn_2, overall.average), (Some(5.0), Some(6.5), Some(5.75)));
    }
    let shown = Shown::read(&bench, "gpt-4", Mode::Strict, Pool::Median, &[]).unwrap();
    let missing = missing_table(&shown.scores, "gpt-4").render(Format::Csv);
    assert!(missing.contains("m,x,uncategorised,1,judge call failed\n"), "{missing}");
    for (field, line) in [
        ("turn", "{\"question_id\": 7, \"model\": \"m\", \"score\": 5, \"turn\": 0}"),
        ("turn", "{\"question_id\": 7, \"model\": \"m\", \"score\": 5, \"turn\": 1.5}"),
        ("score", "{\"question_id\": 7, \"model\": \"m\", \"score\": [5], \"turn\": 1}"),
        ("question_id", "{\"question_id\": null, \"model\": \"m\", \"score\": 5, \"turn\": 1}"),
    ] {
        let (_folder, bench) = folder(&[("model_judgment/gpt-4_single.jsonl", line)]);
        let error = bench.judgments("gpt-4").unwrap_err();
        assert!(matches!(&error, Error::Line { line: 1, field: named, .. } if named == field), "{error}");
    }
}

#[test]
fn bad_lines_are_skipped_on_request_and_kept() {
    let text = format!("{{\"question_id\": 7, \"model\":\n{}", JUDGMENTS.trim_start_matches('\u{feff}'));
    let (_folder, bench) = folder(&[("model_judgment/gpt-4_single.jsonl", &text)]);
    assert!(matches!(bench.judgments("gpt-4"), Err(Error::Line { line: 1, .. })));
    let bench = bench.with_bad_lines(BadLines::Skip);
    let rows = bench.judgments("gpt-4").unwrap();
    assert_eq!(rows.len(), 4);
    let added = Judgment { model: "other".to_owned(), ..rows[0].clone() };
    assert_eq!(bench.add_judgments("gpt-4", vec![added]).unwrap().len(), 5);
    let written = read(&bench, "model_judgment/gpt-4_single.jsonl");
    assert!(written.starts_with(&text) && written.lines().count() == 6, "{written}");
}

fn judgment(model: &str, question_id: u64, score: i64) -> Judgment {
    Judgment {
        question_id,
        model: model.to_owned(),
        judge: ("gpt-4".to_owned(), "single-v1".to_owned()).into(),
        user_prompt: String::new(),
        judgment: String::new(),
        verdict: Verdict::Rating(Rating::Whole(score)),
        turn: 1,
        tstamp: None,
        extra: serde_json::Map::new(),
    }
}

fn resampling() -> Resampling {
    Resampling { resamples: 200, level: 0.95, seeds: Seeds::new(3) }
}

#[test]
fn scores_and_differences_agree_on_repeated_judgments() {
    let question = |question_id| Question {
        question_id,
        category: "writing".to_owned(),
        turns: vec!["x".to_owned()],
        reference: None,
        required_temperature: None,
    };
    let questions = [question(1), question(2)];
    // Model a has two judgments of question 1: both count in FastChat's mode, the second one in strict mode.
    let rows =
        [("a", 1, 2), ("a", 2, 9), ("a", 1, 6), ("b", 1, 4), ("b", 2, 5)].map(|(m, q, s)| judgment(m, q, s));
    assert_eq!(judged_models(&rows), ["a", "b"]);
    for (mode, average, note) in [
        (
            Mode::FastChat,
            17.0 / 3.0,
            "1 judgments with a later one of the same turn count, too, as in FastChat.",
        ),
        (Mode::Strict, 7.5, "1 judgments with a later one of the same turn are left out."),
    ] {
        let of = |model: &str| (model.to_owned(), Scores::new(&questions, &rows, model, mode));
        let (a, b) = (of("a"), of("b"));
        assert_eq!(a.1.overall().average, Some(average));
        let table = difference_table(&a, &b, "gpt-4", mode, &resampling()).unwrap();
        let Value::Difference { value, .. } = table.rows[0][2] else { panic!("{:?}", table.rows[0]) };
        let shown = a.1.overall().average.unwrap() - b.1.overall().average.unwrap();
        assert!((value - shown).abs() < 1e-12, "{value} and {shown}");
        assert_eq!(table.rows[0][1], Value::Count(2), "turns, not judgments");
        assert!(table.notes.iter().any(|line| line == note), "{:?}", table.notes);
        let scores = score_table(&[a, b], "gpt-4", mode, &resampling()).unwrap();
        assert!(scores.notes.iter().any(|line| line == note), "{:?}", scores.notes);
    }
}

#[test]
fn a_rating_off_the_scale_differs_from_none() {
    let text = "{\"question_id\": 7, \"model\": \"m\", \"judgment\": \"[[70]]\", \"score\": 70, \"turn\": 1}\n\
        {\"question_id\": 7, \"model\": \"m\", \"judgment\": \"[[70]]\", \"score\": -1, \"turn\": 2}\n\
        {\"question_id\": 8, \"model\": \"m\", \"judgment\": \"?\", \"score\": -1, \"turn\": 1}\n";
    let (_folder, bench) =
        folder(&[("question.jsonl", QUESTIONS), ("model_judgment/gpt-4_single.jsonl", text)]);
    let shown = Shown::read(&bench, "gpt-4", Mode::Strict, Pool::Median, &[]).unwrap();
    let reasons: Vec<MissingReason> =
        shown.of("m").unwrap().1.missing().iter().map(|missing| missing.reason).collect();
    use MissingReason::{NoRating, OffScale};
    assert_eq!(reasons, [OffScale, OffScale, NoRating]);
    let table = missing_table(&shown.scores, "gpt-4").render(Format::Text);
    assert!(table.contains("off the scale of 1 to 10"), "{table}");
    let fastchat = Shown::read(&bench, "gpt-4", Mode::FastChat, Pool::Median, &[]).unwrap();
    assert_eq!(fastchat.of("m").unwrap().1.overall().average, Some(70.0), "FastChat has no scale");
}

#[test]
fn models_without_scores_are_compared_by_their_games() {
    let game = |question: u64, one: &str, other: &str| {
        format!(
            "{{\"question_id\": {question}, \"model_1\": \"b\", \"model_2\": \"a\", \"g1_winner\": \"{one}\", \
             \"g2_winner\": \"{other}\", \"turn\": 1.0}}\n"
        )
    };
    let text = game(1, "model_1", "model_1")
        + &game(2, "model_2", "model_2")
        + &game(3, "model_2", "model_2")
        + &game(4, "model_1", "model_2")
        + &game(5, "error", "model_2");
    let (_folder, bench) = folder(&[("model_judgment/gpt-4_pair.jsonl", &text)]);
    let rows = bench.pair_judgments("gpt-4").unwrap();
    let rows: Vec<_> = rows.into_iter().map(|row| row.reread(Mode::Strict)).collect();
    let table = comparison_table(["a", "b"], &rows, "gpt-4", Mode::Strict, &resampling()).unwrap().unwrap();
    let counts: Vec<&Value> = table.rows[..4].iter().map(|row| &row[1]).collect();
    assert_eq!(counts, [2, 1, 1, 1].map(Value::Count).iter().collect::<Vec<_>>(), "won, lost, tied, unknown");
    let Value::Interval { value, low, high, .. } = table.rows[4][1] else { panic!("{:?}", table.rows[4]) };
    assert_eq!(value, 2.5 / 4.0);
    assert!(low < value && value < high);
    let none = comparison_table(["a", "c"], &rows, "gpt-4", Mode::Strict, &resampling()).unwrap();
    assert_eq!(none, None);
}

/// Rates every answer 7.
struct Seven;

impl Judge for Seven {
    fn name(&self) -> &str {
        "gpt-4"
    }
    fn judge(&self, _: &JudgeRequest<'_>) -> Result<String, Box<dyn StdError + Send + Sync>> {
        Ok("[[7]]".to_owned())
    }
}

fn judge(bench: &BenchDir, model: &str, questions: &[Question]) -> usize {
    let (answers, prompts) = (bench.answers(model).unwrap(), JudgePrompts::fastchat());
    let grading = SingleGrading { questions, prompts: &prompts, references: &[] };
    let jury = Jury { judge: &Seven, mode: Mode::Strict, repeats: 1, reasks: 0 };
    jury.single(bench, &grading, &answers, &mut stamp(), &mut |_| ()).unwrap().made
}

#[test]
fn a_judgment_without_its_prompt_is_valid() {
    let published = "{\"question_id\": 8, \"model\": \"m\", \"judge\": [\"gpt-4\", \"single-v1\"], \
        \"user_prompt\": \"p\", \"judgment\": \"[[5]]\", \"score\": 5, \"turn\": 1}\n";
    let answers = "{\"question_id\": 7, \"choices\": [{\"turns\": [\"p\", \"q\"]}]}\n\
        {\"question_id\": 8, \"choices\": [{\"turns\": [\"r\"]}]}\n";
    let (_folder, bench) = folder(&[
        ("question.jsonl", QUESTIONS),
        ("model_answer/m.jsonl", answers),
        ("model_judgment/gpt-4_single.jsonl", published),
    ]);
    assert_eq!(judge(&bench, "m", &bench.questions().unwrap()), 2, "the turns of question 7");
    let text = read(&bench, "model_judgment/gpt-4_single.jsonl");
    assert!(text.starts_with(published) && text.lines().count() == 3, "{text}");
}

#[test]
fn four_judges_of_one_file_lose_no_judgment() {
    let (_folder, bench) = folder(&[]);
    let questions: Vec<Question> = (1..=40)
        .map(|question_id| Question {
            question_id,
            category: "writing".to_owned(),
            turns: vec![format!("Question {question_id}?")],
            reference: None,
            required_temperature: None,
        })
        .collect();
    bench.write_questions(&questions).unwrap();
    let models = ["a", "b", "c", "d"];
    models.iter().for_each(|model| assert_eq!(answer(&bench, model).unwrap(), 40));
    // Each adds its judgments in ten parts, so that reads and writes of the four interleave.
    std::thread::scope(|scope| {
        for model in models {
            let (bench, questions) = (&bench, &questions);
            scope
                .spawn(move || questions.chunks(4).for_each(|part| assert_eq!(judge(bench, model, part), 4)));
        }
    });
    let rows = bench.judgments("gpt-4").unwrap();
    assert_eq!(rows.len(), 160);
    let keys: std::collections::BTreeSet<(&str, u64)> =
        rows.iter().map(|row| (row.model.as_str(), row.question_id)).collect();
    assert_eq!(keys.len(), 160);
}

#[test]
fn lock_folders_are_not_judges() {
    let (_folder, bench) = folder(&[]);
    bench.add_judgments("gpt-4", vec![judgment("m", 1, 5)]).unwrap();
    assert_eq!(bench.judges().unwrap(), ["gpt-4"]);
    assert!(Path::new(&bench.root().join("model_judgment/gpt-4_single.jsonl")).is_file());
}
