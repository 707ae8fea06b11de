//! Ids, columns, folders, unpaired preferences and bad rows.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use pref_data::{
    DataError, Format, PairColumns, PreferenceRecord, Preferences, ReadOptions, ReadReport, ScoreRatio,
    UnpairedRecord, read_preferences, read_records_with,
};
use serde_json::json;
use tempfile::TempDir;

fn put(file: &str, content: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(file);
    fs::write(&path, content).expect("written");
    (folder, path)
}

fn pairs(path: &Path) -> Result<(Vec<PreferenceRecord>, ReadReport), DataError> {
    read_records_with(path, &ReadOptions::new(Format::Pairs))
}

fn notes(report: &ReadReport) -> Vec<String> {
    report.notes.iter().map(ToString::to_string).collect()
}

fn texts(record: &PreferenceRecord) -> [String; 3] {
    [&record.prompt, &record.responses[0], &record.responses[1]]
        .map(|text| serde_json::to_string(text).expect("JSON"))
}

const USER: &str = r#"[{"role":"user","content":"q"}]"#;
const SYSTEM_USER: &str = r#"[{"role":"system","content":"s"},{"role":"user","content":"q"}]"#;
const GOOD: &str = r#"[{"role":"assistant","content":"a"}]"#;
const PLAIN: [&str; 3] = ["\"q\"", "\"a\"", "\"b\""];

#[test]
fn ids_are_labels_of_any_type_and_repeated_ids_get_a_number() {
    let row = |id: &str| format!("{{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"{id}}}\n");
    let ids = ["1.0", "\"a\"", "true", "\"a\"", "null", "\"\"", "[1]", "\"a\"", "\"a:2\""];
    let content: String = ids.iter().map(|id| row(&format!(", \"id\": {id}, \"domain\": {id}"))).collect();
    let (_folder, path) = put("ids.jsonl", content.as_bytes());
    let (records, report) = pairs(&path).expect("ids are labels");
    let read: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(read, ["1.0", "a", "true", "a:2", "5", "6", "[1]", "a:3", "a:2:2"]);
    assert_eq!(notes(&report), ["repeated ids: 3, first `a` at line 4; the repeated ids get a number"]);
    assert_eq!((records[0].domain.as_deref(), records[4].domain.as_deref()), (Some("1.0"), None));
}

#[test]
fn gzip_is_recognized_by_its_content() {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all("\u{feff}prompt\tchosen\trejected\nq\ta\tb\n".as_bytes()).expect("in memory");
    let bytes = gzip.finish().expect("in memory");
    for name in ["data.tsv.gz", "data.tsv"] {
        let (_folder, path) = put(name, &bytes);
        assert_eq!(texts(&pairs(&path).expect(name).0[0]), PLAIN, "{name}");
    }
}

#[test]
fn columns_of_other_names_must_be_there() {
    let named = |prompt: &str| PairColumns { prompt: Some(prompt.to_owned()), ..PairColumns::default() };
    let read = |name: &str, content: &str, columns: PairColumns| {
        let (_folder, path) = put(name, content.as_bytes());
        let options = ReadOptions { columns: Some(columns), ..ReadOptions::new(Format::Pairs) };
        let read = read_records_with(&path, &options);
        read.map(|(records, _)| texts(&records[0])).map_err(|error| error.to_string())
    };
    let row = r#"{"ask": "q", "chosen": "a", "rejected": "b"}"#;
    assert_eq!(read("a.jsonl", row, named("ask")).expect("the column is there"), PLAIN);
    let error = read("a.jsonl", row, named("aks")).expect_err("no such column");
    assert!(
        error.ends_with(
            "line 1: field `aks` is not there, but data.columns names it; the columns are `ask`, `chosen`, `rejected`"
        ),
        "{error}"
    );
    let error = read("a.csv", "ask,chosen,rejected\nq,a,b\n", named("aks")).expect_err("no such column");
    assert!(
        error.ends_with(
            "a.csv: data.columns names `aks`, which is not there; the columns are `ask`, `chosen`, `rejected`"
        ),
        "{error}"
    );
    let swapped = PairColumns {
        chosen: Some("rejected".to_owned()),
        rejected: Some("chosen".to_owned()),
        ..named("ask")
    };
    assert_eq!(read("a.jsonl", row, swapped).expect("the columns are there"), ["\"q\"", "\"b\"", "\"a\""]);
    let with_system = PairColumns { system: Some("s".to_owned()), ..named("ask") };
    let error = read("a.jsonl", row, with_system.clone()).expect_err("no system message anywhere");
    assert!(error.contains("names `s`"), "{error}");
    let rows = format!("{row}\n{}", r#"{"s": "s", "ask": "q", "chosen": "a", "rejected": "b"}"#);
    assert_eq!(read("a.jsonl", &rows, with_system).expect("one row has it"), PLAIN);
}

#[test]
fn tools_and_template_arguments_reach_the_record() {
    let row = json!({
        "prompt": "q", "chosen": "a", "rejected": "b", "tools": [{"name": "f"}],
        "chat_template_kwargs": {"enable_thinking": false}, "documents": null,
    });
    let (_folder, path) = put("tools.jsonl", row.to_string().as_bytes());
    let context = &pairs(&path).expect("a pair").0[0].context;
    assert_eq!(context.tools, Some(json!([{"name": "f"}])));
    assert_eq!(context.chat_template_kwargs, Some(json!({"enable_thinking": false})));
    assert_eq!(context.documents, None);
}

#[test]
fn equal_responses_and_shared_turns_are_counted() {
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let [user, first, second] = [turn("user", "q"), turn("assistant", "a"), turn("assistant", "b")];
    let rows = [
        json!({"prompt": "q", "chosen": "a", "rejected": "a"}),
        json!({"chosen": [user, first], "rejected": [user, first]}),
        json!({"prompt": [user], "chosen": [first, user, first], "rejected": [first, user, second]}),
        json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
    ];
    let (_folder, path) = put("rows.json", json!(rows).to_string().as_bytes());
    let (records, report) = pairs(&path).expect("four pairs");
    assert_eq!((records.len(), report.identical, report.shared_turns), (4, 2, 1));
}

fn read_unpaired(path: &Path) -> Result<(Vec<UnpairedRecord>, ReadReport), DataError> {
    match read_preferences(path, &ReadOptions::new(Format::Pairs))? {
        (Preferences::Unpaired(records), report) => Ok((records, report)),
        (Preferences::Paired(records), _) => panic!("{records:?}"),
    }
}

#[test]
fn unpaired_preferences_are_read() {
    let rows = [
        json!({"prompt": "q", "completion": "a", "label": true}),
        json!({"prompt": "q", "completion": [{"role": "assistant", "content": "a"}], "label": 0}),
        json!({"question": "q", "system": "s", "completion": "a", "label": "False", "id": "x"}),
    ];
    let content = rows.map(|row| row.to_string()).join("\n");
    let (_folder, path) = put("unpaired.jsonl", content.as_bytes());
    let (records, report) = read_unpaired(&path).expect("three rows");
    let json = |text| serde_json::to_string(text).expect("JSON");
    let read: Vec<_> = records
        .iter()
        .map(|record| (json(&record.prompt), json(&record.completion), record.is_desirable))
        .collect();
    let expected = [("\"q\"", "\"a\"", true), (USER, GOOD, false), (SYSTEM_USER, GOOD, false)];
    assert_eq!(
        read,
        expected.map(|(prompt, completion, label)| (prompt.to_owned(), completion.to_owned(), label))
    );
    assert_eq!(records[2].id, "x");
    assert_eq!(notes(&report).len(), 4);
    assert_eq!(notes(&report)[0], "reads unpaired preferences: 1 desirable, 2 undesirable");
    let good = &content[..=content.find('\n').expect("three lines")];
    for (row, expected) in [
        (json!({"prompt": "q", "completion": "a"}), "field `label` is missing; the columns are"),
        (
            json!({"prompt": "q", "completion": "a", "label": 3}),
            "field `label` is \"3\"; it must be true or false",
        ),
        (json!({"completion": "a", "label": true}), "field `prompt` is missing; the columns are"),
        (json!({"prompt": "q", "completion": "", "label": true}), "field `completion` is empty"),
        (
            json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
            "line 2: field `chosen` belongs to pairs, but earlier rows are unpaired preferences",
        ),
    ] {
        let (_folder, path) = put("unpaired.jsonl", format!("{good}{row}").as_bytes());
        let error = read_unpaired(&path).expect_err("a bad row").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_unpaired_row_after_pairs_is_an_error() {
    let rows = [
        json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
        json!({"prompt": "q", "completion": "a", "label": true}),
    ];
    let (_folder, path) = put("mixed.jsonl", rows.map(|row| row.to_string()).join("\n").as_bytes());
    let error =
        read_preferences(&path, &ReadOptions::new(Format::Pairs)).expect_err("two layouts").to_string();
    let expected = "line 2: field `completion` belongs to unpaired preferences, but earlier rows are pairs";
    assert!(error.contains(expected), "{error}");
    let error = pairs(&path).expect_err("pairs only").to_string();
    assert!(error.contains("only loss.kind = \"kto\" can use"), "{error}");
}

#[test]
fn rows_of_a_folder_of_unpaired_files_are_named_by_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["a.jsonl", "b.jsonl"] {
        let row = json!({"prompt": "q", "completion": "a", "label": true}).to_string();
        fs::write(folder.path().join(name), row).expect("written");
    }
    let (records, report) = read_unpaired(folder.path()).expect("two rows");
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["a.jsonl:1", "b.jsonl:1"]);
    assert!(report.places.of("b.jsonl:1").expect("a place").to_string().ends_with("b.jsonl, line 1"));
}

#[test]
fn a_dataset_dict_is_read_by_its_train_split() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    let row = |text: &str| json!({"prompt": "q", "chosen": text, "rejected": "b"}).to_string();
    let put = |name: &str, content: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, content).expect("written");
    };
    put("dataset_dict.json", r#"{"splits": ["test", "train"]}"#);
    for split in ["test", "train"] {
        put(&format!("{split}/data-00000-of-00002.jsonl"), &row(split));
        put(&format!("{split}/data-00001-of-00002.jsonl"), &row("more"));
        let files =
            json!([{"filename": "data-00000-of-00002.jsonl"}, {"filename": "data-00001-of-00002.jsonl"}]);
        put(&format!("{split}/state.json"), &json!({"_data_files": files}).to_string());
        put(&format!("{split}/cache-1.jsonl"), &row("a cache repeats rows"));
        put(&format!("{split}/dataset_info.json"), "{\n}");
    }
    let (records, report) = pairs(root).expect("a dataset");
    assert_eq!(records.len(), 2);
    assert_eq!(texts(&records[0])[1], "\"train\"");
    assert_eq!(
        notes(&report),
        [
            "reads the split `train` and leaves `test` aside; give a split's folder to read it",
            "reads `data-00000-of-00002.jsonl`, `data-00001-of-00002.jsonl`",
            "leaves `cache-1.jsonl` aside",
        ]
    );
    put("dataset_dict.json", r#"{"splits": ["a", "b"]}"#);
    let error = pairs(root).expect_err("no train").to_string();
    assert!(
        error.ends_with("holds the splits `a`, `b`, none of them `train`; give the folder of one"),
        "{error}"
    );
}

#[test]
fn a_folder_of_several_kinds_is_read_and_the_rest_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, content: &str| fs::write(folder.path().join(name), content).expect("written");
    put("a.json", r#"[{"prompt": "q", "chosen": "a", "rejected": "b"}]"#);
    put("b.csv", "prompt,chosen,rejected\nq,a,b\n");
    put("README.md", "about");
    put("dataset_infos.json", "{\n}");
    put(".hidden.jsonl", "{}");
    fs::create_dir(folder.path().join("old")).expect("created");
    let (records, report) = pairs(folder.path()).expect("two files");
    assert_eq!(records.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["a.json:1", "b.csv:2"]);
    assert_eq!(notes(&report), ["reads `a.json`, `b.csv`", "leaves `README.md`, `old/` aside"]);
    fs::remove_file(folder.path().join("a.json")).expect("removed");
    fs::remove_file(folder.path().join("b.csv")).expect("removed");
    let error = pairs(folder.path()).expect_err("nothing to read").to_string();
    assert!(error.ends_with(": holds no records that can be read; it holds `README.md`, `old/`"), "{error}");
}

#[test]
fn shp_is_read_under_any_name() {
    let row = json!({
        "post_id": "p", "history": "h", "c_root_id_A": "a", "c_root_id_B": "b", "human_ref_A": "x", "human_ref_B": "y",
        "labels": 1, "score_ratio": 5.0, "domain": "askphysics_train", "seconds_difference": f64::NAN,
    });
    for (name, content) in [("shp.json", json!([row]).to_string()), ("shp.ndjson", row.to_string())] {
        let (_folder, path) = put(name, content.as_bytes());
        let options = ReadOptions::new(Format::Shp(ScoreRatio::PAPER));
        let (records, _) = read_records_with(&path, &options).expect(name);
        assert_eq!((records[0].id.as_str(), records[0].domain.as_deref()), ("p-a-b", Some("askphysics")));
    }
}

#[test]
fn bad_rows_are_skipped_with_file_and_line() {
    let content = "[{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"},\n {\"prompt\": 1},\n 7]";
    let (_folder, path) = put("rows.json", content.as_bytes());
    let options = ReadOptions { skip_bad: 2, ..ReadOptions::new(Format::Pairs) };
    let (records, report) = read_records_with(&path, &options).expect("one good row");
    assert_eq!(records.len(), 1);
    let skipped: Vec<String> = report.skipped.iter().map(ToString::to_string).collect();
    assert!(skipped[0].contains("rows.json, line 2, row 2: field `chosen` is missing"), "{skipped:?}");
    assert!(
        skipped[1].contains("rows.json, line 3, row 3: invalid type: integer `7`, expected an object"),
        "{skipped:?}"
    );
    // Where all rows are bad, the first is named.
    let (_folder, path) = put("rows.jsonl", b"{\"prompt\": 1}\n");
    let error = read_records_with(&path, &options).expect_err("no good row").to_string();
    assert!(error.contains("line 1: field `chosen` is missing"), "{error}");
}

#[test]
fn a_row_of_too_many_values_is_refused_before_it_fills_the_memory() {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(b"{\"prompt\": [0").expect("in memory");
    for _ in 0..40 {
        gzip.write_all(&b",0".repeat(1 << 16)).expect("in memory");
    }
    gzip.write_all(b"]}\n").expect("in memory");
    let bytes = gzip.finish().expect("in memory");
    assert!(bytes.len() < 20_000, "{}", bytes.len());
    let (_folder, path) = put("bomb.jsonl.gz", &bytes);
    let error = pairs(&path).expect_err("2.6 million values").to_string();
    assert!(error.contains("line 1: has more than 1048576 values"), "{error}");
}
