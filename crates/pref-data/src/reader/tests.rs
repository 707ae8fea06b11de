//! Reading files: records of good ones and errors of bad ones.

mod damage;
mod demonstrations;
mod kinds;
mod preference_sets;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;
use test_support::real_data;

use super::*;
use crate::message::Message;
use crate::record::{DEFAULT_ANNOTATOR, Label, Text};
use crate::text::shared_start;
use crate::writer::write_records;

fn file(name: &str, content: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, content).expect("written");
    (folder, path)
}

fn read(content: &str, format: Format) -> Result<Vec<PreferenceRecord>, DataError> {
    let (_folder, path) = file("data.jsonl", content);
    read_records(path, format)
}

/// Returns the error of a bad file after the file's name.
fn problem(content: &str, format: Format) -> String {
    let error = read(content, format).expect_err("the file is bad").to_string();
    error.split_once("data.jsonl").expect("the message names the file").1.to_owned()
}

/// Takes good rows one by one.
struct Each<F>(F);

impl<F: FnMut(&Place, Row) -> Result<(), DataError>> Rows for Each<F> {
    fn row(&mut self, place: &Place, row: Result<Row, DataError>) -> Result<(), DataError> {
        self.0(place, row?)
    }
}

/// Returns the messages of an error and of its causes, as programs print them.
fn chain(error: &DataError) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said += &format!(": {error}");
        cause = error.source();
    }
    said
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet").join(name)
}

fn plain(text: &str) -> Text {
    Text::Plain(text.to_owned())
}

#[test]
fn pairs_of_text_are_read() {
    let lines = r#"{"prompt": "p", "chosen": "a", "rejected": "b", "domain": "maths", "score": 3}

{"prompt": null, "chosen": "It is good.", "rejected": "It is bad.", "id": "x"}
{"chosen": "Grün", "rejected": "Grün\u00fc", "prompt": "n", "id": 12}
"#;
    let records = read(lines, Format::Pairs).expect("good pairs");
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["1", "x", "12"]);
    assert_eq!(records[0].domain.as_deref(), Some("maths"));
    assert_eq!(records[0].labels, [("human".to_owned(), Label::Prefers(0))].into());
    // The shared beginning without the space that the next word's token begins with.
    assert_eq!(records[1].prompt, plain("It is"));
    assert_eq!(records[1].responses, [plain(" good."), plain(" bad.")]);
}

#[test]
fn a_shared_prompt_of_messages_is_whole_messages() {
    let chat = |answer: &str| {
        format!(r#"[{{"role":"user","content":"why"}},{{"role":"assistant","content":"{answer}"}}]"#)
    };
    let (good, bad) = (chat("because"), chat("be quiet"));
    let prompts = ["", r#""prompt": "why", "#, r#""prompt": [{"role":"user","content":"why"}], "#];
    for prompt in prompts {
        let line = format!(r#"{{{prompt}"chosen": {good}, "rejected": {bad}}}"#);
        let records = read(&line, Format::Pairs).expect("a good pair");
        assert_eq!(records[0].prompt, Text::Chat(vec![Message::user("why")]), "{prompt}");
        assert_eq!(records[0].responses[1], Text::Chat(vec![Message::assistant("be quiet")]));
    }
}

#[test]
fn bad_pairs_are_refused_with_line_and_field() {
    let good = r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#;
    let user = r#"[{"role": "user", "content": "p"}]"#;
    let cases = [
        (
            r#"{"prompt": "p", "chosen": "a""#,
            ", line 2: EOF while parsing an object (column 29); a row must be one whole JSON object",
        ),
        ("[1]", ", line 2: invalid type: sequence, expected an object; a row must be one whole JSON object"),
        (
            r#"{"prompt": "p", "rejected": "b"}"#,
            ", line 2: field `chosen` is missing; the columns are `prompt`, `rejected`; name its column in data.columns",
        ),
        (
            r#"{"prompt": "p", "chosen": null, "rejected": "b"}"#,
            ", line 2: field `chosen` is missing; add it",
        ),
        (
            r#"{"prompt": "p", "chosen": "", "rejected": "b"}"#,
            ", line 2: field `chosen` is empty; fill it or remove the record",
        ),
        (
            r#"{"prompt": "p", "chosen": "a", "rejected": 3}"#,
            ", line 2: field `rejected` is a number; it must be text or a list of messages {role, content}",
        ),
        (
            r#"{"chosen": "a", "rejected": "a b"}"#,
            ", line 2: field `chosen` is empty after the text that both responses begin with; give the prompt in a field `prompt`",
        ),
        (
            &format!(
                r#"{{"prompt": {user}, "chosen": [{{"role": "bot", "content": "a"}}], "rejected": "b"}}"#
            ),
            ", line 2: field `chosen` ends with a message that is not the assistant's; end it with the answer",
        ),
        (
            &format!(r#"{{"prompt": {user}, "chosen": {user}, "rejected": "b"}}"#),
            ", line 2: field `chosen` ends with a message that is not the assistant's; end it with the answer",
        ),
        (
            &format!(
                r#"{{"prompt": {user}, "chosen": [{{"role": "assistant", "content": ""}}], "rejected": "b"}}"#
            ),
            ", line 2: field `chosen[0].content` is empty; fill it or remove the record",
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(problem(&format!("{good}\n{line}\n"), Format::Pairs), expected, "{line}");
    }
    assert_eq!(problem("\n", Format::Pairs), ": holds no records; check that it was written completely");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let error = read_records("nowhere.jsonl", Format::Pairs).expect_err("there is none");
    assert!(chain(&error).starts_with("cannot read nowhere.jsonl: No such file"), "{error}");
    let error = read_records("data.txt", Format::Pairs).expect_err("not our kind");
    assert!(error.to_string().contains("it must be .jsonl, .ndjson, .json, .csv or .tsv"), "{error}");
    let error = read_records("data.parquet", Format::Records).expect_err("not that kind");
    assert!(matches!(error, DataError::UnknownExtension { .. }));

    let (_folder, path) = file("cut.jsonl.gz", "");
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let line = "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n";
    gzip.write_all(line.as_bytes()).expect("compressed");
    let bytes = gzip.finish().expect("compressed");
    fs::write(&path, &bytes).expect("written");
    assert_eq!(read_records(&path, Format::Pairs).expect("whole").len(), 1);
    fs::write(&path, &bytes[..bytes.len() - 12]).expect("written");
    assert!(matches!(read_records(&path, Format::Pairs), Err(DataError::Broken { .. })));

    let (_folder, path) = file("fake.parquet", "not parquet");
    assert!(matches!(read_records(path, Format::Pairs), Err(DataError::Parquet { .. })));
}

#[test]
fn parquet_of_text_and_of_conversations() {
    let records = read_records(fixture("text.parquet"), Format::Pairs).expect("text");
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["7", "9"]);
    assert_eq!((&records[0].prompt, records[0].domain.as_deref()), (&plain("2 + 2 ="), Some("math")));
    assert_eq!(records[1].responses, [plain(" 你好"), plain(" 🙂")]);
    assert_eq!(records[1].domain, None);
    for name in ["zstd.parquet", "gzip.parquet"] {
        assert_eq!(read_records(fixture(name), Format::Pairs).expect(name), records, "{name}");
    }

    let records = read_records(fixture("conversations.parquet"), Format::Pairs).expect("conversations");
    assert_eq!(records[1].id, "2");
    // The columns' order is the messages' order of keys: content, role.
    let only = |text: &Text| match text {
        Text::Chat(messages) if messages.len() == 1 => {
            (messages[0].role().to_owned(), messages[0].content().into_owned())
        }
        other => panic!("one message, not {other:?}"),
    };
    assert_eq!(only(&records[1].prompt), ("user".to_owned(), "who?".to_owned()));
    assert_eq!(only(&records[1].responses[0]), ("assistant".to_owned(), "me".to_owned()));
}

#[test]
fn the_error_of_unreadable_parquet_names_a_way_out() {
    let error = chain(&read_records(fixture("brotli.parquet"), Format::Pairs).expect_err("no brotli"));
    assert!(error.contains("brotli") && error.contains("compression=\"snappy\""), "{error}");
    let error = read_records(fixture("numbers.parquet"), Format::Pairs).expect_err("numbers").to_string();
    assert!(error.contains("row 1: field `chosen` is a number; it must be text or a list"), "{error}");
}

#[test]
fn dialogues_are_split_at_the_last_answer() {
    let line = |chosen: &str, rejected: &str| {
        serde_json::json!({"chosen": chosen, "rejected": rejected}).to_string()
    };
    let same = line("\n\nHuman: q\n\nAssistant: yes", "\n\nHuman: q\n\nAssistant: no");
    let parting = line(
        "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: yes",
        "\n\nHuman: q\n\nAssistant: a\n\nHuman: s\n\nAssistant: no",
    );
    let records = read(&format!("{same}\n{parting}\n"), Format::HhRlhf).expect("good dialogues");
    assert_eq!(records[0].prompt, plain("\n\nHuman: q\n\nAssistant:"));
    assert_eq!(records[0].responses, [plain(" yes"), plain(" no")]);
    assert_eq!(records[1].prompt, plain("\n\nHuman: q\n\nAssistant:"));
    assert_eq!(
        records[1].responses,
        [plain(" a\n\nHuman: r\n\nAssistant: yes"), plain(" a\n\nHuman: s\n\nAssistant: no")]
    );
    let silent = problem(&line("\n\nHuman: q", "x"), Format::HhRlhf);
    assert!(
        silent.starts_with(", line 1: field `chosen` has no \"\\n\\nAssistant:\" to split at"),
        "{silent}"
    );
    let strangers = line("\n\nHuman: q\n\nAssistant: a", "\n\nHuman: r\n\nAssistant: b");
    let strangers = problem(&strangers, Format::HhRlhf);
    assert!(strangers.contains("field `rejected` shares no"), "{strangers}");
    let empty = problem(&line("\n\nHuman: q\n\nAssistant:", "\n\nHuman: q\n\nAssistant: b"), Format::HhRlhf);
    assert_eq!(empty, ", line 1: field `chosen` is empty; fill it or remove the record");
}

#[test]
fn hh_rlhf_is_read_without_loss() {
    let Some(data) = real_data("hh_rlhf_is_read_without_loss") else { return };
    let path = data.join("hh-rlhf/harmless-base-test.jsonl.gz");
    let records = read_records(&path, Format::HhRlhf).expect("hh-rlhf");
    assert_eq!(records.len(), 2312);
    let mut early = Vec::new();
    let each = |place: &Place, row: Row| {
        let (record, prefixes) = hh_rlhf::record(place, &row)?;
        let (Text::Plain(prompt), [Text::Plain(chosen), Text::Plain(rejected)]) =
            (&record.prompt, &record.responses[..])
        else {
            panic!("hh-rlhf is plain text");
        };
        // Prompt and response together are the dialogue.
        assert_eq!([prompt.as_str(), chosen].concat(), row["chosen"].as_str().expect("text"));
        assert_eq!([prompt.as_str(), rejected].concat(), row["rejected"].as_str().expect("text"));
        assert!(prompt.ends_with("\n\nAssistant:"));
        if prefixes == hh_rlhf::Prefixes::Differ {
            early.push(place.number);
        }
        Ok(())
    };
    let wanted = Wanted { format: Format::HhRlhf, columns: None };
    json::read(&path, &wanted, &mut Each(each)).expect("hh-rlhf");
    assert_eq!(early, [1255, 1689, 1951, 1953, 2037]);
}

#[test]
fn bad_records_are_refused_with_line_and_field() {
    let record = |labels: &str, rest: &str| {
        format!(r#"{{"id": "a", "prompt": "p", "responses": ["x", "y"], "labels": {labels}{rest}}}"#)
    };
    let cases = [
        (
            record(r#"{"human": 2}"#, ""),
            "field `labels.human` prefers response 2, but the record has 2, counted from 0; correct the label",
        ),
        (
            record(r#"{"human": "x"}"#, ""),
            "field `labels.human` is text; it must be the index of the preferred response, or \"tie\"",
        ),
        (record("[]", ""), "field `labels` is a list; it must be an object of annotators and their labels"),
        (
            record("{}", r#", "label": 0"#),
            "field `label` is not a field of a record; the fields are id, prompt, responses, labels, domain, tools, \
             chat_template_kwargs and documents",
        ),
        (
            r#"{"id": "a", "prompt": "p", "responses": ["x"], "labels": {}}"#.to_owned(),
            "field `responses` holds 1; a preference needs at least two",
        ),
        (
            r#"{"id": "a", "prompt": "p", "responses": ["x", ""], "labels": {}}"#.to_owned(),
            "field `responses[1]` is empty; fill it or remove the record",
        ),
        (
            r#"{"prompt": "p", "responses": ["x", "y"], "labels": {}}"#.to_owned(),
            "field `id` is missing; add it",
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(problem(&line, Format::Records), format!(", line 1: {expected}"), "{line}");
    }
}

#[test]
fn a_refused_write_keeps_the_old_file() {
    let (_folder, path) = file("data.jsonl", "old");
    let bad = PreferenceRecord {
        id: "a".to_owned(),
        prompt: plain("p"),
        responses: vec![plain("x")],
        labels: Default::default(),
        domain: None,
        context: Default::default(),
    };
    let error = write_records(&path, &[bad]).expect_err("one response");
    assert_eq!(error.to_string(), "record `a`: field `responses` holds 1; a preference needs at least two");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "old");
    assert!(matches!(write_records("x.json", &[]), Err(DataError::UnknownExtension { .. })));
    let error = write_records(path.join("x.jsonl"), &[]).expect_err("a file is no folder");
    assert!(matches!(error, DataError::Io { action: "write", .. }));
}

fn any_text() -> impl Strategy<Value = Text> {
    let message = (0..4usize, ".{0,8}")
        .prop_map(|(role, content)| Message::new(["system", "user", "assistant", "tool"][role], content));
    prop_oneof![
        ".{1,12}".prop_map(Text::Plain),
        (prop::collection::vec(message, 0..3), ".{1,8}").prop_map(|(mut messages, answer)| {
            messages.push(Message::assistant(answer));
            Text::Chat(messages)
        }),
    ]
}

fn any_records() -> impl Strategy<Value = Vec<PreferenceRecord>> {
    let label = |n: usize| prop_oneof![Just(Label::Tie), (0..n).prop_map(Label::Prefers)];
    let record =
        (any_text(), 2..5usize, prop::option::of(".{0,5}")).prop_flat_map(move |(text, n, domain)| {
            let labels = prop::collection::btree_map("[a-z0-9-]{1,6}", label(n), 0..4);
            labels.prop_map(move |labels| PreferenceRecord {
                id: String::new(),
                prompt: text.clone(),
                responses: vec![text.clone(); n],
                labels,
                domain: domain.clone(),
                context: Default::default(),
            })
        });
    prop::collection::vec(record, 1..6).prop_map(|mut records| {
        for (index, record) in records.iter_mut().enumerate() {
            record.id = format!("r{index}");
        }
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn records_round_trip(records in any_records()) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("records.jsonl");
        write_records(&path, &records).expect("good records");
        prop_assert_eq!(read_records(&path, Format::Records).expect("good records"), records);
        prop_assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn no_line_makes_the_reader_panic(line in ".{0,60}", format in 0..3usize) {
        let format = [Format::Pairs, Format::HhRlhf, Format::Records][format];
        prop_assert!(read(&line, format).is_err());
    }

    #[test]
    fn the_shared_prompt_of_text_loses_nothing(start in ".{0,9}", a in ".{1,9}", b in ".{1,9}") {
        let whole = |end: &str| [start.as_str(), end].concat();
        let line = serde_json::json!({"chosen": whole(&a), "rejected": whole(&b)}).to_string();
        if let Ok(records) = read(&line, Format::Pairs) {
            let record = &records[0];
            let (Text::Plain(prompt), Text::Plain(chosen)) = (&record.prompt, &record.responses[0]) else {
                panic!("text stays text");
            };
            prop_assert_eq!([prompt.as_str(), chosen].concat(), whole(&a));
        } else {
            let (a, b) = (whole(&a), whole(&b));
            let is_prompt_empty = ["", " "].contains(&shared_start(&a, &b));
            prop_assert!(is_prompt_empty || a.starts_with(&b) || b.starts_with(&a));
        }
    }
}
