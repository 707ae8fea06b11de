//! Bad rows, damaged files, and folders.

use super::*;

const GOOD: &str = r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#;

fn skipping(path: &Path, skip_bad: usize) -> Result<(Vec<PreferenceRecord>, ReadReport), DataError> {
    read_records_with(path, &ReadOptions { skip_bad, ..ReadOptions::new(Format::Pairs) })
}

#[test]
fn bad_rows_are_skipped_up_to_a_limit_and_reported() {
    let empty = r#"{"prompt": "p", "chosen": "", "rejected": "b"}"#;
    let mut content = format!("{GOOD}\n{{\"prompt\": 3}}\n{{not json\n{empty}\n").into_bytes();
    content.extend(b"{\"prompt\": \"\xff\"}\n");
    let (_folder, path) = file("data.jsonl", "");
    fs::write(&path, content).expect("written");
    let (records, report) = skipping(&path, 4).expect("four bad rows");
    assert_eq!((records.len(), report.records, report.filtered), (1, 1, 0));
    let said: Vec<String> = report.skipped.iter().map(ToString::to_string).collect();
    let expected = [
        "line 2: field `chosen` is missing",
        "line 3: key must be a string (column 2)",
        "line 4: field `chosen` is empty",
        "line 5: field `prompt`: invalid unicode code point (column",
    ];
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "{said}");
    }
    let error = skipping(&path, 3).expect_err("one too many").to_string();
    assert_eq!(error, said[3]);
}

#[test]
fn damaged_files_are_errors_even_where_rows_may_be_skipped() {
    let (folder, path) = file("data.jsonl.gz", "");
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    for line in 0..2_000 {
        writeln!(gzip, r#"{{"prompt": "p{line}", "chosen": "a", "rejected": "b"}}"#).expect("in memory");
    }
    let bytes = gzip.finish().expect("in memory");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    let error = skipping(&path, 10).expect_err("cut off").to_string();
    assert!(error.contains("data.jsonl.gz, line ") && error.contains("fetch it again"), "{error}");

    let parquet = folder.path().join("data.parquet");
    let mut bytes = fs::read(fixture("text.parquet")).expect("a fixture");
    bytes[4..200].fill(0);
    fs::write(&parquet, &bytes).expect("written");
    let error = skipping(&parquet, 10).expect_err("a damaged page").to_string();
    assert!(error.contains("data.parquet, row 1 or a few rows later: "), "{error}");
    fs::write(&parquet, &bytes[..100]).expect("written");
    assert!(skipping(&parquet, 10).expect_err("no footer").to_string().contains("data.parquet: "));
}

#[test]
fn files_of_a_folder_are_read_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nothing = skipping(folder.path(), 0).expect_err("empty").to_string();
    assert!(nothing.contains("holds no records"), "{nothing}");
    let put = |name: &str, content: &str| fs::write(folder.path().join(name), content).expect("written");
    put("b.jsonl", GOOD);
    put("a.jsonl", &format!("{GOOD}\n{}", GOOD.replace("\"p\"", "\"p\", \"id\": \"mine\"")));
    put("README.md", "not a set");
    let (records, _) = skipping(folder.path(), 0).expect("two files");
    assert_eq!(
        records.iter().map(|record| &*record.id).collect::<Vec<_>>(),
        ["a.jsonl:1", "mine", "b.jsonl:1"]
    );
    let (records, _) = skipping(&folder.path().join("b*.jsonl"), 0).expect("one file");
    assert_eq!(records[0].id, "b.jsonl:1");
    let nothing = skipping(&folder.path().join("c*.jsonl"), 0).expect_err("none fits").to_string();
    assert!(nothing.contains("holds no records"), "{nothing}");
}

#[test]
fn columns_may_have_other_names() {
    let columns = |prompt: &str, chosen: &str, rejected: &str| {
        let [prompt, chosen, rejected] = [prompt, chosen, rejected].map(|name| Some(name.to_owned()));
        Some(PairColumns { prompt, chosen, rejected, ..PairColumns::default() })
    };
    let options =
        ReadOptions { columns: columns("q", "rejected", "chosen"), ..ReadOptions::new(Format::Pairs) };
    let (_folder, path) = file("data.jsonl", &GOOD.replace("prompt", "q"));
    let (records, _) = read_records_with(&path, &options).expect("a good pair");
    assert_eq!(records[0].prompt, plain("p"));
    assert_eq!(records[0].responses, [plain("b"), plain("a")]);
    let options =
        ReadOptions { columns: columns("domain", "chosen", "prompt"), ..ReadOptions::new(Format::Pairs) };
    let options = ReadOptions { skip_bad: 1, ..options };
    let (records, report) =
        read_records_with(fixture("text.parquet"), &options).expect("one row has a domain");
    assert_eq!(records[0].prompt, plain("math"));
    assert_eq!(records[0].responses, [plain(" 4"), plain("2 + 2 =")]);
    assert_eq!(report.skipped.len() + records.len(), 2);
}
