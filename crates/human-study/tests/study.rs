//! From answers to sheets, and from raters' files to ratings and a table.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use human_study::{
    Comparison, Error, Key, Rating, StudyReport, StudySheets, parse_ratings, ratings_csv, read_ratings,
};
use seeds::Seeds;
use stats::Choice;
use support::{answers, comparison, questions, raters};

fn sheets(count: u64) -> StudySheets {
    comparison(count).sheets(&raters(), &Seeds::new(1)).unwrap()
}

/// Returns a rater's file that prefers answers of `dpo` on odd items and rates the others as equal.
fn hand_in(dir: &Path, sheets: &StudySheets, rater: usize) -> PathBuf {
    let sheet = &sheets.sheets[rater];
    let mut text = "study,rater,item,choice\n".to_owned();
    for item in &sheet.items {
        let place: u64 = item.item.parse().unwrap();
        let first_is_dpo = item.answers[0][0].contains("dpo");
        let choice = match (place % 2, first_is_dpo) {
            (0, _) => "=",
            (_, true) => "1",
            (_, false) => "2",
        };
        text += &format!("{},\"{}\",{},{choice}\n", sheet.study, sheet.rater, item.item);
    }
    let path = dir.join(format!("{rater}.csv"));
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn every_rater_sees_every_item_once_with_sides_balanced_and_turns_in_order() {
    let StudySheets { sheets, key } = sheets(10);
    assert_eq!(key.raters().count(), 3);
    let orders: Vec<Vec<&str>> = sheets
        .iter()
        .map(|sheet| {
            assert_eq!(sheet.items.len(), 20);
            let firsts = sheet.items.iter().filter(|item| item.answers[0][0].contains("dpo")).count();
            assert_eq!(firsts, 10, "each model is first on half of the items");
            for pair in sheet.items.chunks(2) {
                assert_eq!((pair[0].prompts.len(), pair[1].prompts.len()), (1, 2));
                assert_eq!(pair[0].prompts[0], pair[1].prompts[0], "turn 2 follows its own turn 1");
                assert_eq!(pair[0].answers[0][0], pair[1].answers[0][0], "on the same side");
            }
            sheet.items.iter().map(|item| item.prompts[0].as_str()).collect()
        })
        .collect();
    assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    assert_eq!(self::sheets(10).sheets, sheets, "the same seeds give the same sheets");
    let other = comparison(10).sheets(&raters(), &Seeds::new(2)).unwrap();
    assert_ne!(other.sheets[0].study, sheets[0].study);
    let longer = comparison(11).sheets(&raters(), &Seeds::new(1)).unwrap();
    assert_ne!(longer.sheets[0].study, sheets[0].study);
}

#[test]
fn files_name_no_model_and_convert_to_ratings() {
    let dir = tempfile::tempdir().unwrap();
    let StudySheets { sheets, key } = sheets(10);
    let nameless = |text: &str| !text.contains("model_1") && !text.contains("sft-7b");
    let study = StudySheets { sheets, key };
    let written = study.write(dir.path()).unwrap();
    let names: Vec<_> = written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names[0], "key.json");
    assert_eq!(names[5..], ["sheet-cid--dr-.html", "sheet-cid--dr-.csv"]);
    for path in &written[1..] {
        assert!(nameless(&fs::read_to_string(path).unwrap()), "{}", path.display());
    }
    assert!(study.write(dir.path()).is_ok(), "the same sheets may be written again");
    let other = comparison(10).sheets(&raters(), &Seeds::new(2)).unwrap();
    assert!(matches!(other.write(dir.path()), Err(Error::Key { .. })), "a key is not overwritten");

    let key = Key::read(&written[0]).unwrap();
    let files: Vec<PathBuf> = (0..3).map(|rater| hand_in(dir.path(), &study, rater)).collect();
    let ratings = key.unblind(&files).unwrap();
    assert_eq!(ratings.len(), 60);
    // Odd places are first turns: all prefer dpo, the first model, in either position.
    for rating in &ratings {
        let expected = if rating.item.ends_with("-1") { Choice::Model1 } else { Choice::Equal };
        assert_eq!(rating.choice, expected, "{rating:?}");
    }
    let report = StudyReport::new(&ratings, [&key.models[0], &key.models[1]], 0.95).unwrap();
    assert_eq!((report.wins_model_1, report.wins_model_2, report.ties), (10, 0, 10));
    assert_eq!(report.fleiss_kappa, Some(1.0));
    assert_eq!(report.question_test.unwrap().p_value, 2.0 / 1024.0);
    assert_eq!(parse_ratings(Path::new("r"), &ratings_csv(&ratings)).unwrap(), ratings);
}

#[test]
fn a_filled_spreadsheet_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let study = sheets(3);
    study.write(dir.path()).unwrap();
    let mut reader = csv::Reader::from_path(dir.path().join("sheet-ann.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| !row[5].starts_with('=')), "no cell is taken for a formula");
    let filled = dir.path().join("filled.csv");
    // As some spreadsheets save it: a byte-order mark and semicolons.
    let mut writer = csv::WriterBuilder::new().delimiter(b';').from_writer("\u{FEFF}".as_bytes().to_vec());
    writer.write_record(&header).unwrap();
    for row in &rows {
        writer.write_record(row.iter().take(7).chain(["="])).unwrap();
    }
    fs::write(&filled, writer.into_inner().unwrap()).unwrap();
    let ratings = study.key.unblind(&[filled]).unwrap();
    assert!(ratings.len() == 6 && ratings.iter().all(|rating| rating.choice == Choice::Equal));
}

#[test]
fn files_that_do_not_match_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let study = sheets(3);
    let good = fs::read_to_string(hand_in(dir.path(), &study, 0)).unwrap();
    let refused = |text: &str| {
        let path = dir.path().join("bad.csv");
        fs::write(&path, text).unwrap();
        let error = study.key.unblind(&[path]).unwrap_err();
        assert!(error.is_bad_input());
        error.to_string()
    };
    let foreign = sheets(4).sheets[0].study.clone();
    for (text, words) in [
        (good.replace(&study.sheets[0].study, &foreign), "line 2: belongs to sheet"),
        (good.replace("\"Ann\"", "\"Eve\""), "\"Eve\" has no sheet in this study; it has Ann, Bob, Cid, Dr."),
        (
            good.replace(",1,1\n", ",7,1\n").replace(",1,2\n", ",7,2\n"),
            "line 2: item \"7\" is none of 1 to 6",
        ),
        (good.replace(",2,=", ",1,="), "line 3: item 1 is rated twice"),
        (good.replace(",2,=", ",2,A"), "line 3: choice \"A\": write 1, 2, = or equal"),
        (good.replace(",2,=", ",2,"), "Ann left 1 items open, the first is item 2"),
        (good.lines().take(3).map(|line| format!("{line}\n")).collect(), "left 4 items open"),
        ("study,rater,item,choice\n".to_owned(), "holds no ratings"),
        ("item,choice\n1,1\n".to_owned(), "there is no column `study`"),
        (String::new(), "there is no column `study`"),
    ] {
        let said = refused(&text);
        assert!(said.contains(words), "`{words}` is missing in: {said}");
    }
    let twice = [hand_in(dir.path(), &study, 0), hand_in(dir.path(), &study, 0)];
    assert!(study.key.unblind(&twice).unwrap_err().to_string().contains("handed in"));
    assert!(study.key.unblind(&[dir.path().join("absent.csv")]).is_err());
    fs::write(dir.path().join("key.json"), "{\"models\": []}").unwrap();
    assert!(matches!(Key::read(&dir.path().join("key.json")), Err(Error::Key { .. })));
}

#[test]
fn answers_that_cannot_be_compared_are_refused() {
    let refused = |first: &[mtbench::Answer], second: &[mtbench::Answer]| {
        Comparison::new(&questions(3), first, second).unwrap_err().to_string()
    };
    let (dpo, sft) = (answers("dpo", 3), answers("sft", 3));
    assert!(refused(&dpo[..2], &sft).contains("question 83: the first file has no answer"));
    assert!(refused(&dpo, &sft[1..]).contains("question 81: the second file has no answer"));
    assert!(refused(&answers("dpo", 4), &sft).contains("question 84: is answered, but is not among"));
    assert!(refused(&[], &[]).contains("no question"));
    let mut short = sft.clone();
    short[0].choices[0].turns.pop();
    assert!(refused(&dpo, &short).contains("has 2 turns, answered by 2 and 1"));
    for raters in [&[][..], &[""], &["Ann", "ann"], &["a b", "a-b"], &["--"], &["a\nb"]] {
        let raters: Vec<String> = raters.iter().map(|&name| name.to_owned()).collect();
        assert!(
            matches!(comparison(2).sheets(&raters, &Seeds::new(0)), Err(Error::Rater { .. })),
            "{raters:?}"
        );
    }
}

/// Ratings of three raters who agree on every item.
fn unanimous(wins_model_1: usize, wins_model_2: usize, ties: usize) -> Vec<Rating> {
    let choices = [(Choice::Model1, wins_model_1), (Choice::Model2, wins_model_2), (Choice::Equal, ties)];
    let items = choices.into_iter().flat_map(|(choice, count)| std::iter::repeat_n(choice, count));
    let of_item = |(item, choice): (usize, Choice)| {
        raters().into_iter().map(move |rater| Rating {
            item: item.to_string(),
            rater,
            choice,
            category: None,
            question: None,
        })
    };
    items.enumerate().flat_map(of_item).collect()
}

#[test]
fn table_2_of_the_paper_is_not_significant() {
    let report = StudyReport::new(&unanimous(63, 46, 51), ["GPT4-Turbo", "Human"], 0.95).unwrap();
    let rate = &report.win_rates[0];
    assert_eq!((report.items, report.raters, report.wins_model_1), (160, 3, 63));
    assert!((rate.value.unwrap() - 0.39375).abs() < 1e-12);
    assert!(
        (rate.low.unwrap() - 0.3213875070).abs() < 1e-9 && (rate.high.unwrap() - 0.4710948094).abs() < 1e-9
    );
    assert!((report.sign_test.p_value - 0.1250045413).abs() < 1e-9);
    assert!(report.verdict().contains("not settled (p = 0.125)"), "{}", report.verdict());
    let text: String =
        report.tables().iter().map(|table| table.render(report::table::Format::Text)).collect();
    assert!(text.contains("39.38 [32.14, 47.11]") && text.contains("28.75 ["), "{text}");
    assert!(report.figure().is_none());
    let json = serde_json::to_value(&report).unwrap();
    for field in ["fleiss_kappa", "wins_model_1", "wins_model_2", "ties", "items", "raters"] {
        assert!(json[field].is_number(), "{field} in {json}");
    }
}

#[test]
fn undefined_estimates_have_a_reason() {
    let all_one = StudyReport::new(&unanimous(9, 0, 0), ["a", "b"], 0.95).unwrap();
    assert_eq!(all_one.fleiss_kappa, None);
    assert_eq!(all_one.fleiss.reason.as_deref(), Some("all ratings fall into one category"));
    assert_eq!(all_one.gwet_ac1.value, Some(1.0));
    let mut uneven = unanimous(3, 2, 1);
    uneven.pop();
    let report = StudyReport::new(&uneven, ["a", "b"], 0.95).unwrap();
    assert_eq!(report.fleiss_kappa, None);
    assert!(report.fleiss.reason.as_ref().unwrap().contains("same number of raters"));
    assert_eq!(report.krippendorff_alpha.value, Some(1.0));
    let alone: Vec<Rating> = unanimous(2, 2, 0).into_iter().filter(|rating| rating.rater == "Ann").collect();
    let report = StudyReport::new(&alone, ["a", "b"], 0.95).unwrap();
    assert!(
        report.pairs.is_empty() && report.gwet_ac1.reason.is_some() && report.percent_agreement.is_none()
    );
    let ties = StudyReport::new(&unanimous(0, 0, 4), ["a", "b"], 0.95).unwrap();
    assert_eq!(ties.decisive_win_rate.reason.as_deref(), Some("every item is a tie"));
    assert!(matches!(StudyReport::new(&[], ["a", "b"], 0.95), Err(Error::NoRatings)));
    assert!(matches!(StudyReport::new(&uneven, ["a", "b"], 95.0), Err(Error::Stats { .. })));
}

#[test]
fn ratings_files_are_read_strictly() {
    let refused = |text: &str| parse_ratings(Path::new("r.csv"), text).unwrap_err().to_string();
    assert!(refused("item,rater\n1,a\n").contains("no column `choice`"));
    assert!(refused("item,rater,choice\n1,a,left\n").contains("r.csv, line 2: choice \"left\""));
    assert!(
        refused("item,rater,choice\n1,a,equal\n\n1,a,equal\n").contains("line 4: a rated item 1 in line 2")
    );
    assert!(refused("item,rater,choice\n,a,equal\n").contains("line 2: has no item or no rater"));
    assert!(refused("item,rater,choice,category\n1,a,equal,x\n1,b,equal,y\n").contains("another category"));
    assert!(refused("item,rater,choice\n").contains("no ratings"));
    let read = parse_ratings(Path::new("r"), "Choice, item ,rater,mood\r\nmodel_2,7,a,good\r\n").unwrap();
    assert_eq!((read[0].item.as_str(), read[0].choice), ("7", Choice::Model2));
    assert!(matches!(read_ratings(Path::new("absent.csv")), Err(Error::Read { .. })));
}

#[test]
fn rates_by_category_have_a_table_and_a_figure() {
    let mut ratings = unanimous(6, 2, 2);
    for rating in &mut ratings {
        let item: u64 = rating.item.parse().unwrap();
        rating.category = Some(["coding", "writing"][(item % 2) as usize].to_owned());
    }
    let report = StudyReport::new(&ratings, ["dpo", "sft"], 0.95).unwrap();
    let [coding, writing] = &report.categories[..] else { panic!("two categories") };
    assert_eq!((coding.tally.wins_model_1, writing.tally.wins_model_2), (3, 1));
    let svg = report.figure().unwrap();
    assert!(svg.as_str().contains("coding") && svg.as_str().contains("60"));
    assert!(report.page().to_html().contains("Preferences by category"));
}

#[test]
fn no_error_text_repeats_its_cause() {
    use std::error::Error as _;
    let io = || std::io::Error::other("the cause");
    for error in [
        Error::Read { path: "x".into(), source: io() },
        Error::Write { path: "x".into(), source: io() },
        // Transparent: its text and cause are those of the inner error.
        Error::Bench(mtbench::Error::Read { path: "x".into(), source: io() }),
    ] {
        let cause = error.source().expect("it has a cause").to_string();
        assert!(cause == "the cause" && !error.to_string().contains("the cause"), "{error}");
    }
}

#[test]
fn a_model_is_the_name_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    let questions =
        write("q.jsonl", "{\"question_id\": \"a1\", \"category\": \"writing\", \"turns\": [\"Why?\"]}\n");
    let answer = |model: &str| {
        format!(
            "{{\"question_id\": \"a1\", \"model_id\": \"{model}\", \"choices\": [{{\"turns\": [\"x\"]}}]}}\n"
        )
    };
    let first = write("one.jsonl", &answer("alpaca"));
    let second = write("two.jsonl", &answer("alpaca"));
    let comparison = Comparison::read(&questions, &first, &second).unwrap();
    assert_eq!(comparison.models(), &["one".to_owned(), "two".to_owned()]);
    let same_name = write("other/one.jsonl", &answer("zebra"));
    let comparison = Comparison::read(&questions, &first, &same_name).unwrap();
    assert_eq!(comparison.models(), &["alpaca".to_owned(), "zebra".to_owned()]);
    let sheets = comparison.sheets(&["Ann".to_owned()], &Seeds::new(1)).unwrap();
    sheets.write(&folder.path().join("study")).unwrap();
    let key = fs::read_to_string(folder.path().join("study/key.json")).unwrap();
    assert!(key.contains("\"item\": \"a1-1\""), "{key}");
}
