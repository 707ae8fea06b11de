//! Examples of supervised training: rows with one response, labeled or not.

use super::*;
use crate::record::UnpairedRecord;

fn examples(content: &str) -> Result<(Vec<UnpairedRecord>, Vec<String>), DataError> {
    let (_folder, path) = file("data.jsonl", content);
    let (examples, report) = read_demonstrations(path, &ReadOptions::new(Format::Pairs))?;
    let Preferences::Unpaired(records) = examples else { panic!("the rows have one response") };
    Ok((records, report.notes.iter().map(Note::to_string).collect()))
}

const READ: &str = "reads demonstrations, which have no label: 1 record";

#[test]
fn a_conversation_is_a_prompt_and_its_last_answer() {
    let row = r#"{"prompt_id": "7", "prompt": "2 + 2?", "messages": [{"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"}, {"role": "user", "content": "+ 1?"},
        {"role": "assistant", "content": "5"}]}"#
        .replace('\n', " ");
    let (records, notes) = examples(&row).expect("a row of UltraChat");
    let prompt = [Message::user("2 + 2?"), Message::assistant("4"), Message::user("+ 1?")];
    assert_eq!(records[0].prompt, Text::Chat(prompt.to_vec()));
    assert_eq!(records[0].completion, Text::Chat(vec![Message::assistant("5")]));
    assert!(records[0].is_desirable);
    assert_eq!(notes, [READ, "reads `messages` as the prompt"]);

    let (_, notes) = examples(&row.replacen("2 + 2?", "Add.", 1)).expect("another prompt");
    assert!(notes[2].contains("without the text of `prompt`, which is left aside"), "{notes:?}");
}

#[test]
fn instructions_with_outputs_are_read() {
    let row = r#"{"instruction": "Add.", "input": "2 and 2", "output": "4"}"#;
    let (records, notes) = examples(row).expect("a row of Alpaca");
    assert_eq!(records[0].prompt, Text::Plain("Add.\n2 and 2".to_owned()));
    assert_eq!(records[0].completion, Text::Plain("4".to_owned()));
    assert!(notes.contains(&"reads `output` as the response".to_owned()), "{notes:?}");
}

#[test]
fn labels_are_kept_and_pairs_stay_pairs() {
    let rows = "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": false}\n\
                {\"prompt\": \"a\", \"completion\": \"c\"}";
    let (records, _) = examples(rows).expect("unpaired preferences, and a demonstration");
    assert_eq!(records.iter().map(|record| record.is_desirable).collect::<Vec<_>>(), [false, true]);

    let (_folder, path) = file("data.jsonl", r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#);
    let (examples, _) = read_demonstrations(path, &ReadOptions::new(Format::Pairs)).expect("a pair");
    assert!(matches!(examples, Preferences::Paired(records) if records.len() == 1));
}

#[test]
fn what_may_be_another_response_is_refused() {
    let refused = |row: &str| examples(row).expect_err("nothing is guessed").to_string();
    let two = refused(r#"{"instruction": "Add.", "output": "4", "response": "5"}"#);
    assert!(two.contains("field `output` also holds a response, next to `response`"), "{two}");
    let open = refused(r#"{"messages": [{"role": "user", "content": "2 + 2?"}]}"#);
    assert!(open.contains("field `messages`") && open.contains("assistant"), "{open}");
    let usual = r#"{"prompt": "a", "completion": "b", "response": "c", "output": "b"}"#;
    assert_eq!(examples(usual).expect("the usual name").0[0].completion, Text::Plain("b".to_owned()));
}

#[test]
fn other_readers_refuse_demonstrations() {
    let row = r#"{"prompt": "a", "completion": "b"}"#;
    assert!(problem(row, Format::Pairs).contains("field `chosen` is missing"));
    let (_folder, path) = file("data.jsonl", row);
    let error = read_preferences(path, &ReadOptions::new(Format::Pairs)).expect_err("no label");
    assert!(error.to_string().contains("field `chosen` is missing"), "{error}");
}

#[test]
fn record_batches_are_read_as_files_are() {
    let rows = "{\"id\": \"a\", \"prompt\": \"2 + 2 =\", \"chosen\": \" 4\", \"rejected\": \" 5\"}\n\
                {\"id\": \"b\", \"prompt\": \"3 + 3 =\", \"chosen\": \" 6\", \"rejected\": \" 7\"}";
    let records = read(rows, Format::Pairs).expect("pairs");
    let (pairs, _) = crate::annotator_view(&records, DEFAULT_ANNOTATOR).expect("labeled");
    let batch = crate::pair_batch(&pairs).expect("text");
    let options = ReadOptions::new(Format::Pairs);
    let halves = [batch.slice(0, 1), batch.slice(1, 1)];
    assert_eq!(read_record_batches("frame", &halves, &options).expect("the same pairs").0, records);

    let no_prompt = batch.project(&[0, 2, 3]).expect("three columns");
    let error = read_record_batches("frame", &[no_prompt], &options).expect_err("no prompt").to_string();
    assert!(error.starts_with("frame, row 1: field `prompt`"), "{error}");
    let error = read_record_batches("frame", &[], &options).expect_err("no rows").to_string();
    assert!(error.starts_with("frame: holds no records"), "{error}");
}
