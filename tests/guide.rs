//! Runs the guide: its five lines in a copy of the recipe that docs/guide.md names, and its commands.

mod bench;

use std::fs;
use std::process::{Command, Output};

use bench::Bench;
use test_support::{MockBehaviour, MockServer, bench_questions, rates_by_length};

const GUIDE: &str = include_str!("../docs/guide.md");
const RECIPE: &str = include_str!("../recipes/laptop.toml");
/// The recipe section of each line in the guide's block, in order.
const SECTIONS: [&str; 5] = ["study", "judge", "model", "data", "data"];
const QUESTIONS: usize = 4;
/// Overrides that shorten the study from hours to seconds and set the test's judge; they are not in the guide.
const SMALL: [&str; 8] = [
    "study.questions=4",
    "study.seeds=1",
    "answers.max_new_tokens=6",
    "data.sample=64",
    "data.held_out=8",
    "train.batch_size=4",
    "train.learning_rate=0.02",
    "model.dtype=float32",
];

/// Returns the lines of the fenced blocks in this language, in order.
fn fenced(language: &str) -> Vec<&'static str> {
    let blocks = GUIDE.split("```").skip(1).step_by(2);
    let of_language = blocks.filter_map(|block| block.split_once('\n')).filter(|(name, _)| *name == language);
    of_language.flat_map(|(_, lines)| lines.lines()).collect()
}

/// Returns the guide's recipe with the guide's lines in place of its own lines for the same keys.
fn edited() -> String {
    let mut lines: Vec<String> = RECIPE.lines().map(str::to_owned).collect();
    let changes = fenced("toml");
    assert_eq!(changes.len(), SECTIONS.len(), "the guide has five lines");
    for (change, section) in changes.into_iter().zip(SECTIONS) {
        let key = change.split('=').next().unwrap().trim();
        let begin = lines.iter().position(|line| *line == format!("[{section}]")).unwrap();
        let length = lines[begin + 1..].iter().take_while(|line| !line.starts_with('[')).count();
        let is_of_key = |line: &&mut String| line.split('=').next().is_some_and(|name| name.trim() == key);
        let line = lines[begin + 1..=begin + length].iter_mut().find(is_of_key);
        *line.unwrap_or_else(|| panic!("the recipe has no {section}.{key} to change")) = change.to_owned();
    }
    lines.join("\n")
}

/// Creates the folder that the guide assumes: a model, pairs, MT-Bench's questions and the edited recipe.
fn folder() -> Bench {
    let bench = Bench::new();
    fs::rename(bench.path("model"), bench.path("my-model")).unwrap();
    let words = ["a", "b", "c"];
    let pairs: Vec<(String, String, String)> = (0..64)
        .map(|k| {
            let said = |of: usize| format!("{} .", words[of % 3]);
            (format!("Say {} {} {k} .", words[k % 3], words[k / 3 % 3]), said(k), said(k + 1))
        })
        .collect();
    let pairs: Vec<(&str, &str, &str)> =
        pairs.iter().map(|(p, c, r)| (p.as_str(), c.as_str(), r.as_str())).collect();
    bench.write_pairs(&pairs);
    fs::create_dir_all(bench.path("data/mt_bench")).unwrap();
    fs::write(bench.path("data/mt_bench/question.jsonl"), bench_questions(QUESTIONS)).unwrap();
    fs::write(bench.path("my-study.toml"), edited()).unwrap();
    bench
}

/// Runs a command line of the guide, which starts with `study`.
fn run(bench: &Bench, line: &str, base_url: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_study"));
    command.args(line.split_whitespace().skip(1)).current_dir(bench.folder.path());
    if line.ends_with("--design") {
        command.args(["--studies", "20"]);
    }
    for set in SMALL.iter().map(|set| (*set).to_owned()).chain([format!("judge.base_url={base_url}")]) {
        command.args(["--set", &set]);
    }
    command.output().unwrap()
}

#[test]
fn the_guide_produces_a_report() {
    let judge = MockServer::start(MockBehaviour::perfect(), rates_by_length);
    let bench = folder();
    let commands: Vec<&str> = fenced("sh").into_iter().filter(|line| line.starts_with("study ")).collect();
    assert_eq!(commands.len(), 3, "a design, a plan and a run");
    for line in commands {
        let output = run(&bench, line, &judge.base_url());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{line}: {stderr}");
        if line.ends_with("--design") {
            assert!(judge.calls().is_empty() && !bench.path("runs").exists(), "a design computes nothing");
            assert!(stdout.starts_with("What a study of"), "{stdout}");
        } else if line.ends_with("--plan") {
            assert!(judge.calls().is_empty() && !bench.path("runs").exists(), "a plan computes nothing");
            assert!(stdout.contains("calls of qwen2.5:7b"), "{stdout}");
        } else {
            for table in ["Table 1.", "Table 3.", "Table 4.", "Table 5."] {
                assert!(stdout.contains(table), "{table} is missing: {stdout}");
            }
            assert!(stdout.contains("not distinguishable with this design"), "{stdout}");
        }
    }
    let out = bench.path("runs/laptop");
    for file in
        ["report.html", "results.parquet", "tables/table-3.csv", "tables/table-4.tex", "tables/table-5.md"]
    {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
}

#[test]
fn files_and_tables_named_in_the_guide_exist() {
    let known = study::questions::ALL.iter().flat_map(|question| question.about().tables.iter().copied());
    let known: Vec<&str> = known.collect();
    for asked in GUIDE.split("--tables ").skip(1) {
        let list = asked.split(|c: char| !(c.is_alphanumeric() || c == ',')).next().unwrap();
        for table in list.split(',') {
            assert!(known.contains(&table), "there is no table {table}");
        }
    }
    assert!(fenced("sh").contains(&"cp recipes/laptop.toml my-study.toml"));
}
