//! Nothing is misread in silence: invalid scores, duplicates, unknown columns, incomplete questions.

use std::fs;

use compare::{Options, Source, compare, read_scores};

/// Returns the error of reading `text` as a file `name`, with the folder removed.
fn refusal(name: &str, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let error = read_scores(&[Source { path, arm: None, seed: None }]).unwrap_err();
    error.to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn invalid_scores_are_refused_with_file_and_line() {
    for (name, text, words) in [
        ("s.csv", "arm,question,score\na,1,5\na,2,NaN\n", "s.csv, line 3: `score` is NaN: correct the score"),
        ("s.csv", "arm,question,score\n\na,1,inf\n", "s.csv, line 3: `score` is inf"),
        ("s.csv", "arm,question,score\na,1,\n", "s.csv, line 2: `score` is empty"),
        ("s.csv", "arm,question,score\na,1,good\n", "s.csv, line 2: `score` is \"good\", not a number"),
        ("s.csv", "arm,question,score\n,1,5\n", "s.csv, line 2: `arm` is empty"),
        ("s.csv", "arm,question,score,seed\na,1,5,\n", "s.csv, line 2: `seed` is empty"),
        ("s.csv", "arm,question,score\na,1\n", "s.csv, line 2: has 2 cells, the header has 3"),
        ("s.csv", "arm,arm,score\na,1,2\n", "s.csv, line 1: two columns have the name \"arm\""),
        ("s.csv", "model,q,score\na,1,2\n", "its columns are `model`, `q`, `score`"),
        ("s.csv", "arm,question,score\n", "s.csv: there are no rows"),
        ("s.jsonl", "{\"arm\": \"a\", \"question\": 1, \"score\": NaN}\n", "s.jsonl, line 1: `score` is NaN"),
        (
            "s.jsonl",
            "{\"arm\": \"a\", \"question\": 1, \"score\": null}\n",
            "s.jsonl, line 1: `score` is empty",
        ),
        (
            "s.jsonl",
            "{\"arm\": \"a\", \"question\": 1, \"score\": [1]}\n",
            "s.jsonl, line 1: `score` is not a number",
        ),
        ("s.jsonl", "{\"arm\"\n", "s.jsonl, line 1: is no JSON object"),
        (
            "s.json",
            "[{\"arm\": \"a\", \"question\": 1, \"score\": Infinity}]",
            "s.json, row 1: `score` is NaN",
        ),
        ("s.json", "[{\"arm\": \"a\"},\n1]", "s.json, line 2: is no JSON object: invalid type: integer `1`"),
        (
            "s.jsonl",
            "\n{\"arm\": \"a\", \"question\": 1, \"score\": 5, \"score\": 6}\n",
            "s.jsonl, line 2: is no JSON object: the key \"score\" occurs twice, in column",
        ),
        ("s.txt", "arm", "s.txt: scores are read from .csv"),
        ("s.parquet", "no parquet", "cannot read s.parquet as parquet"),
    ] {
        let error = refusal(name, text);
        assert!(error.contains(words), "{words:?} is missing in: {error}");
    }
}

#[test]
fn duplicates_and_contradictions_are_refused_with_both_places() {
    let error = refusal("s.csv", "arm,question,score\na,1,5\na,1.0,6\n");
    assert!(
        error.starts_with("s.csv, line 3: arm \"a\" has a score on question \"1\" already, in line 2"),
        "{error}"
    );
    let error = refusal("s.csv", "arm,question,score,category\na,1,5,math\nb,1,6,code\n");
    assert!(
        error.contains("line 3: question \"1\" has another category here, \"code\", than before, \"math\""),
        "{error}"
    );
    let row = |hash: &str, id: u8| {
        format!("{{\"doc_id\": {id}, \"filtered_resps\": [\"x\"], \"doc_hash\": \"{hash}\", \"acc\": 1.0}}\n")
    };
    let folder = tempfile::tempdir().unwrap();
    for (arm, hash) in [("a", "x"), ("b", "y")] {
        fs::create_dir(folder.path().join(arm)).unwrap();
        fs::write(folder.path().join(arm).join("samples_t_2026-01-01T00-00-00.jsonl"), row(hash, 0)).unwrap();
    }
    let error =
        read_scores(&[Source { path: folder.path().into(), arm: None, seed: None }]).unwrap_err().to_string();
    assert!(error.contains("question \"t/0\" has another text (`doc_hash`) here"), "{error}");
}

fn scores(text: &str) -> compare::Scores {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.csv");
    fs::write(&path, text).unwrap();
    read_scores(&[Source { path, arm: None, seed: None }]).unwrap()
}

#[test]
fn unknown_columns_are_announced() {
    let read = scores("arm,question,score,model,turn\na,1,5,x,1\n");
    assert!(
        read.notes()[0].ends_with("a table of scores, 1 scores; ignored columns: `model`"),
        "{:?}",
        read.notes()
    );
}

#[test]
fn incomplete_questions_are_left_out_by_name() {
    let mut text = "arm,question,turn,score\n".to_owned();
    for question in 0..5 {
        for (arm, turn) in [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)] {
            if (arm, turn, question) != ("b", 2, 3) {
                text += &format!("{arm},{question},{turn},{}\n", (question * 7 + turn) % 5);
            }
        }
    }
    let read = scores(&text);
    let options = Options { contrasts: vec!["a-b".into()], ..Options::default() };
    let comparison = &compare(&read, &options).unwrap()[0];
    assert_eq!(comparison.questions, 4);
    assert_eq!(comparison.left_out, [("3".to_owned(), "b".to_owned())]);
    assert_eq!(comparison.left_out_note().unwrap(), "1 of 5 questions left out: 3 (no score of b).");
    let all = Options { baseline: Some("a".into()), ..Options::default() };
    let error = compare(&read, &all).unwrap_err().to_string();
    assert!(error.contains("0 of 5 questions have scores of all compared arms"), "{error}");
}

#[test]
fn unknown_and_ambiguous_arms_are_refused_with_the_known_ones() {
    let read = scores("arm,question,score\na,1,5\na,2,6\na-b,1,4\na-b,2,3\nb,1,1\nb,2,2\nb-b,1,1\nb-b,2,2\n");
    let refused = |options: Options| compare(&read, &options).unwrap_err().to_string();
    let contrast = |text: &str| Options { contrasts: vec![text.to_owned()], ..Options::default() };
    assert!(refused(contrast("a-x")).contains("is not `A-B` for two arms; the arms are a, a-b, b, b-b"));
    assert!(refused(contrast("a-b-b")).contains("can be split in several ways"));
    assert!(refused(contrast("a-a")).contains("compares an arm with itself"));
    assert_eq!(compare(&read, &contrast("a-b - a")).unwrap()[0].rows[0].contrast, "a-b − a");
    let baseline = Options { baseline: Some("x".into()), ..Options::default() };
    assert!(refused(baseline).contains("there is no arm \"x\"; the arms are a"));
    assert_eq!(compare(&read, &Options::default()).unwrap()[0].rows.len(), 6, "all pairs");
    assert!(
        refused(Options { scorer: Some("gold".into()), ..Options::default() }).contains("no scorer \"gold\"")
    );
    assert!(refused(Options { level: 95.0, ..Options::default() }).contains("cannot compute"));
}

#[test]
fn sources_name_arms_and_seeds() {
    let source = |text: &str| text.parse::<Source>().unwrap();
    let named = |path: &str, arm: Option<&str>, seed: Option<&str>| Source {
        path: path.into(),
        arm: arm.map(str::to_owned),
        seed: seed.map(str::to_owned),
    };
    assert_eq!(source("x.csv"), named("x.csv", None, None));
    assert_eq!(source("dpo=out/x.csv"), named("out/x.csv", Some("dpo"), None));
    assert_eq!(source("dpo@2=out/x.csv"), named("out/x.csv", Some("dpo"), Some("2")));
    assert_eq!(source("org/model@main=x.csv"), named("x.csv", Some("org/model@main"), None));
    // The arm that the caller names takes the place of the file's.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.csv");
    fs::write(&path, "question,score\n1,5\n2,6\n").unwrap();
    let two = ["a", "b"].map(|arm| Source { path: path.clone(), arm: Some(arm.into()), seed: None });
    assert_eq!(read_scores(&two).unwrap().arms(), ["a", "b"]);
}

#[test]
fn a_table_is_at_most_80_columns_wide() {
    let mut text = "arm,question,category,scorer,score\n".to_owned();
    for (arm, gain) in
        [("a policy with a long name of several words", 0), ("another one with as long a name", 2)]
    {
        for question in 0..12 {
            text +=
                &format!("{arm},{question},c{},judge,{}\n", question % 3, (question * 5 + gain) % 9 + gain);
        }
    }
    let table = compare(&scores(&text), &Options::default()).unwrap()[0].table();
    let text = table.render_within(80);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("scored by judge") && text.contains("3 strata"), "{text}");
}
