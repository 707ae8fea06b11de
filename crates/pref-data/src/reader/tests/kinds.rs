//! Every kind of file (`fixtures/kinds.py`), samples, and round trips.

use std::num::NonZeroUsize;

use seeds::Seeds;

use super::*;
use crate::{annotator_view, write_pairs};

fn kinds(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kinds").join(name)
}

#[test]
fn every_kind_of_file_gives_the_same_pairs() {
    let records = read_records(kinds("file.arrow"), Format::Pairs).expect("an Arrow file");
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(records[1].prompt, plain("He said, \"no"));
    assert_eq!(records[1].responses, [plain(" two\nlines, one comma"), plain(" Grüße 你好")]);
    assert_eq!((records[2].domain.as_deref(), records[1].domain.as_deref()), (Some("math"), None));
    // No prompt is given, so it is what both responses begin with.
    assert_eq!(records[2].prompt, plain("It is"));
    for name in ["stream.arrow", "lz4.feather", "zstd.feather", "pairs.csv"] {
        assert_eq!(read_records(kinds(name), Format::Pairs).expect(name), records, "{name}");
    }
}

#[test]
fn csv_columns_of_numbers_are_numbers() {
    let records = read_records(kinds("shp.csv"), Format::Shp(ScoreRatio::PAPER)).expect("SHP as CSV");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].labels["human"], Label::Prefers(1));
    assert_eq!(records[0].domain.as_deref(), Some("askculinary"));
    let error = read_records("gair.csv", Format::Gair).expect_err("structs are not for CSV");
    assert!(matches!(error, DataError::UnknownExtension { .. }), "{error}");
}

#[test]
fn bad_csv_is_refused_with_line_and_column() {
    let said = |content: &[u8]| {
        let (_folder, path) = file("data.csv", "");
        fs::write(&path, content).expect("written");
        let error = read_records(&path, Format::Pairs).expect_err("a bad file").to_string();
        error.split_once("data.csv").expect("the file's name").1.to_owned()
    };
    let header = "prompt,chosen,rejected\n";
    let short = said(format!("{header}p,a,b\np,a\n").as_bytes());
    assert!(short.starts_with(", line 3: has 2 cells, but the first row names 3; every row"), "{short}");
    let missing = said(format!("{header}\"two\nlines\",a,b\np,,b\n").as_bytes());
    assert_eq!(missing, ", line 4: field `chosen` is missing; add it");
    let latin = said(&[header.as_bytes(), b"p,caf\xe9,b\n"].concat());
    assert!(latin.starts_with(", line 2: field `chosen` is not UTF-8 from byte 4 on"), "{latin}");
    let names = said(b"prompt,ch\xe9sen,rejected\np,a,b\n");
    assert!(names.starts_with(", line 1: "), "{names}");
    assert_eq!(said(b""), ": holds no records; check that it was written completely");

    let (_folder, path) = file("data.csv", &format!("{header}p,a\np,a,b\n"));
    let options = ReadOptions { skip_bad: 1, ..ReadOptions::new(Format::Pairs) };
    let (records, report) = read_records_with(&path, &options).expect("one bad row");
    assert_eq!((records.len(), report.skipped.len()), (1, 1));
}

#[test]
fn damaged_arrow_is_an_error() {
    let bytes = fs::read(kinds("file.arrow")).expect("a fixture");
    let (_folder, path) = file("data.arrow", "");
    for cut in [0, 3, 8, 300, bytes.len() - 9] {
        fs::write(&path, &bytes[..cut]).expect("written");
        let error = read_records(&path, Format::Pairs).expect_err("cut off").to_string();
        assert!(error.contains("data.arrow"), "{error}");
    }
}

#[test]
fn samples_nest_keep_their_order_and_are_counted() {
    let line = |index| format!("{{\"prompt\": \"{index}\", \"chosen\": \"a\", \"rejected\": \"b\"}}\n");
    let (_folder, path) = file("data.jsonl", &(0..100).map(line).collect::<String>());
    let sample = |records, seed| {
        let records = NonZeroUsize::new(records).expect("not zero");
        let sample = Some(Sample { records, seeds: Seeds::new(seed) });
        let options = ReadOptions { sample, ..ReadOptions::new(Format::Pairs) };
        let (records, report) = read_records_with(&path, &options).expect("a good file");
        assert_eq!((report.records, report.unsampled), (records.len(), 100 - records.len()));
        records.iter().map(|record| record.id.parse().expect("a number")).collect::<Vec<usize>>()
    };
    let (few, many) = (sample(10, 0), sample(40, 0));
    assert_eq!((few.len(), many.len()), (10, 40));
    assert!(few.iter().all(|id| many.contains(id)) && many.is_sorted());
    assert_ne!(few, sample(10, 1));
    assert_eq!(sample(1000, 0).len(), 100);
    // Frozen: a change here silently changes every study that samples.
    assert_eq!(few, FROZEN);
}

const FROZEN: [usize; 10] = [10, 22, 50, 55, 59, 67, 68, 89, 99, 100];

#[test]
fn every_format_round_trips_as_records() {
    let formats = [
        (fixture("gair.parquet"), Format::Gair),
        (fixture("ultrafeedback.parquet"), Format::Ultrafeedback),
        (fixture("shp.parquet"), Format::Shp(ScoreRatio::PAPER)),
        (fixture("conversations.parquet"), Format::Pairs),
        (kinds("file.arrow"), Format::Pairs),
    ];
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (path, format) in formats {
        let records = read_records(&path, format).expect("a good file");
        for name in ["records.jsonl", "records.jsonl.gz"] {
            write_records(folder.path().join(name), &records).expect("written");
            assert_eq!(
                read_records(folder.path().join(name), Format::Records).expect(name),
                records,
                "{name}"
            );
        }
    }
}

fn any_pairs() -> impl Strategy<Value = Vec<PreferenceRecord>> {
    let plain = (".{1,9}", ".{1,9}", ".{1,9}")
        .prop_map(|(prompt, a, b)| (Text::Plain(prompt), [Text::Plain(a), Text::Plain(b)].to_vec()));
    let answer = |content: &str| Text::Chat(vec![Message::assistant(content)]);
    let chat = (".{1,9}", ".{1,9}", ".{1,9}").prop_map(move |(prompt, a, b)| {
        (Text::Chat(vec![Message::user(prompt)]), [answer(&a), answer(&b)].to_vec())
    });
    let row = prop_oneof![Just(false), Just(true)].prop_flat_map(move |is_chat| {
        let text = if is_chat { chat.clone().boxed() } else { plain.clone().boxed() };
        prop::collection::vec((text, prop::option::of(".{1,5}")), 1..5)
    });
    row.prop_map(|rows| {
        let rows = rows.into_iter().enumerate();
        let record = rows.map(|(index, ((prompt, responses), domain))| PreferenceRecord {
            id: format!("r{index}"),
            prompt,
            responses,
            labels: [(DEFAULT_ANNOTATOR.to_owned(), Label::Prefers(0))].into(),
            domain,
            context: Default::default(),
        });
        record.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pairs_round_trip_in_every_kind_of_file(records in any_pairs()) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pairs = annotator_view(&records, DEFAULT_ANNOTATOR).expect("labelled").0;
        let is_chat = matches!(records[0].prompt, Text::Chat(_));
        for ending in ["jsonl", "jsonl.gz", "parquet", "arrow", "feather", "csv"] {
            let path = folder.path().join(format!("pairs.{ending}"));
            if ending == "csv" && is_chat {
                let refused = matches!(write_pairs(&path, &pairs), Err(DataError::MixedForms { .. }));
                prop_assert!(refused);
                continue;
            }
            write_pairs(&path, &pairs).expect("good pairs");
            prop_assert_eq!(&read_records(&path, Format::Pairs).expect("good pairs"), &records, "{}", ending);
        }
    }
}
