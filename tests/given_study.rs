//! The research questions on a given model, preferences, questions and judge.

mod bench;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use bench::Bench;
use experiment::results::read_parquet;
use pref_data::{Label, PreferenceRecord, Text, write_records};
use test_support::{MockBehaviour, MockServer, bench_questions, rates_by_length};

const KEY: &str = "sk-study-secret";
const QUESTIONS: usize = 4;
/// The number of policies: SFT, and DPO and IPO on the labels of two annotators.
const POLICIES: usize = 5;
const CALLS: usize = POLICIES * QUESTIONS * 2;

/// A folder with a small model, records labeled by two annotators, four questions, and a recipe with a judge at `url`.
fn study(url: &str) -> Bench {
    let bench = Bench::new();
    let record = |k: usize| {
        let prefers = |first: bool| Label::Prefers(usize::from(!first));
        let letter = |of: usize| ["a", "b", "c"][of % 3];
        PreferenceRecord {
            id: format!("record {k}"),
            prompt: Text::Plain(format!("Say {} .", letter(k))),
            responses: [letter(k), letter(k + 1)].map(|said| Text::Plain(format!("{said} ."))).into(),
            labels: [("human", k.is_multiple_of(2)), ("gpt-4-turbo", true)]
                .map(|(annotator, first)| (annotator.to_owned(), prefers(first)))
                .into(),
            domain: None,
            context: Default::default(),
        }
    };
    write_records(bench.path("records.jsonl"), &(0..12).map(record).collect::<Vec<_>>()).unwrap();
    fs::create_dir(bench.path("mt_bench")).unwrap();
    fs::write(bench.path("mt_bench/question.jsonl"), bench_questions(QUESTIONS)).unwrap();
    let recipe = format!(
        r#"
        [study]
        bench = "mt_bench"
        questions = {QUESTIONS}
        seeds = 1
        [judge]
        kind = "endpoint"
        base_url = "{url}"
        model = "lab/judge-1"
        api_key_env = "STUDY_TEST_KEY"
        [answers]
        max_new_tokens = 6
        batch = 3
        [model]
        path = "model"
        dtype = "float32"
        [data]
        path = "records.jsonl"
        format = "sandbox"
        [train]
        epochs = 1
        batch_size = 4
        learning_rate = 0.02
        checkpoints = [0.5, 1.0]
        [output]
        dir = "out"
        "#
    );
    fs::write(bench.path("study.toml"), recipe).unwrap();
    bench
}

fn rq(program: &str, bench: &Bench, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(["--recipe", "study.toml"])
        .args(arguments)
        .env("STUDY_TEST_KEY", KEY)
        .env("RUST_LOG", "info")
        .current_dir(bench.folder.path())
        .output()
        .unwrap()
}

#[track_caller]
fn succeeds(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(!stdout.contains(KEY) && !stderr.contains(KEY), "no key is printed");
    (stdout, stderr)
}

const RQ1: &str = env!("CARGO_BIN_EXE_rq1");
const RQ4: &str = env!("CARGO_BIN_EXE_rq4");
const STUDY: &str = env!("CARGO_BIN_EXE_study");

fn server(behaviour: MockBehaviour) -> MockServer {
    MockServer::start(MockBehaviour { key: Some(KEY.to_owned()), ..behaviour }, rates_by_length)
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn a_split_of_the_data_chooses_beta() {
    let server = server(MockBehaviour::perfect());
    let sweep = ["--tables", "sweep", "--set", "study.sweep_betas=[0.1, 0.5]"];
    let cross_fitted = study(&server.base_url());
    // Cross-fitting needs a question in each of five folds.
    fs::write(cross_fitted.path("mt_bench/question.jsonl"), bench_questions(8)).unwrap();
    let eight = [&sweep[..], &["--set", "study.questions=8"]].concat();
    let (tables, _) = succeeds(&rq(STUDY, &cross_fitted, &eight));
    assert!(tables.contains("(tuned, cross-fitted over questions)"), "{tables}");

    let split = study(&server.base_url());
    // Four records have the same prompt, and are held out together.
    let settings = [&sweep[..], &["--set", "data.held_out=3"]].concat();
    let (tables, _) = succeeds(&rq(STUDY, &split, &settings));
    assert!(tables.contains("(tuned on held-out pairs)") && !tables.contains("cross-fitted"), "{tables}");
    let runs: Vec<_> = fs::read_dir(split.path("out/store/runs")).unwrap().flatten().collect();
    assert_eq!(runs.len(), 4 * 2);
    for run in runs {
        let evaluated = fs::read_to_string(run.path().join("eval.jsonl")).unwrap();
        assert_eq!(evaluated.lines().count(), 3, "before training, and at two checkpoints: {evaluated}");
        let steps = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        assert_eq!(steps.lines().count(), 2, "eight of twelve records, in batches of four");
    }
    let (described, _) = succeeds(
        &Command::new(STUDY)
            .args(["describe", "--recipe", "study.toml", "--set", "data.held_out=3", "--format", "csv"])
            .current_dir(split.folder.path())
            .output()
            .unwrap(),
    );
    assert!(described.contains("records.jsonl,8,4,"), "{described}");
}

#[test]
fn a_given_model_is_trained_and_judged_once() {
    let server = server(MockBehaviour::perfect());
    let bench = study(&server.base_url());
    let (plan, _) = succeeds(&rq(RQ1, &bench, &["--plan"]));
    assert!(plan.contains("0 of 4 training runs and 0 of 5 evaluations"), "{plan}");
    assert!(plan.contains(&format!("{CALLS} calls of judge-1, of unknown price")), "{plan}");
    assert!(
        plan.contains("measured for some seconds") && plan.contains("One GPU of 80 GB: a cell needs"),
        "{plan}"
    );
    assert!(!plan.contains("--group-size"), "one process has no groups: {plan}");
    assert!(plan.contains("for the 4 remaining training runs"), "{plan}");
    assert!(!bench.path("out").exists() && server.calls().is_empty(), "a plan computes nothing");

    let (table, log) = succeeds(&rq(RQ1, &bench, &[]));
    assert!(table.contains("judge-1") && table.contains("with 4 questions"), "{table}");
    let words = table.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("points under judge-1, depending") && words.contains("2 turns × 1 seed."),
        "{table}"
    );
    assert!(
        !table.contains("gold") && !table.contains("held-out questions"),
        "there is no ground truth: {table}"
    );
    // Equal answers of two policies are judged by the same call.
    let paid = server.paid();
    assert!((2 * QUESTIONS..=CALLS).contains(&paid), "{paid}");
    assert!(log.contains(&format!("judging costs: judge-1: {paid} answered calls")), "{log}");
    for file in ["tables/table-1.md", "figures/figure-1.svg", "results.parquet", "report.html"] {
        assert!(bench.path("out").join(file).exists(), "{file} is missing");
    }
    let page = fs::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("judged by judge-1") && !page.contains("ran in the sandbox"));

    let (again, log) = succeeds(&rq(RQ1, &bench, &[]));
    assert_eq!(again, table);
    assert!(!log.contains("training") && !log.contains("judging"), "{log}");
    assert_eq!(server.paid(), paid);

    // The first of two checkpoints of each run is new; cached training and judgments are reused.
    let (table_5, _) = succeeds(&rq(RQ4, &bench, &[]));
    assert!(table_5.contains("50%") && !table_5.contains("Gold"), "{table_5}");
    let after_rq4 = server.paid();
    assert!(after_rq4 <= paid + 4 * QUESTIONS * 2);

    // Another judge rates the same answers.
    let answers = entries(&bench.path("out/store/answers"));
    let (other, log) = succeeds(&rq(RQ1, &bench, &["--set", "judge.model=lab/judge-2"]));
    assert!(
        other.contains("judge-2") && !log.contains("training") && !log.contains("answers, turns"),
        "{log}"
    );
    assert_eq!(server.paid(), after_rq4 + paid);
    assert_eq!(entries(&bench.path("out/store/answers")), answers);
}

#[test]
fn a_second_judge_rates_the_same_answers_without_further_costs_of_the_first() {
    let server = server(MockBehaviour::perfect());
    let bench = study(&server.base_url());
    let (alone, _) = succeeds(&rq(RQ1, &bench, &[]));
    assert!(!alone.contains("Agreement of the judges"), "{alone}");
    let paid = server.paid();
    let harsh =
        MockServer::start(MockBehaviour { key: Some(KEY.to_owned()), ..MockBehaviour::perfect() }, |body| {
            rates_by_length(body).replace("[[10]]", "[[9]]")
        });
    let second = format!(
        "judge.second={{kind=\"endpoint\", base_url=\"{}\", model=\"lab/judge-2\", api_key_env=\"STUDY_TEST_KEY\"}}",
        harsh.base_url()
    );
    let (plan, _) = succeeds(&rq(RQ1, &bench, &["--set", &second, "--plan"]));
    for judge in ["judge-1", "judge-2"] {
        assert!(plan.contains(&format!("{CALLS} calls of {judge}")), "each judge has its own costs: {plan}");
    }
    let (both, log) = succeeds(&rq(RQ1, &bench, &["--set", &second]));
    assert!(!log.contains("training") && !log.contains("answers, turns"), "{log}");
    assert_eq!((server.paid(), harsh.paid()), (paid, paid), "only the second judge is called");
    assert!(both.contains("Agreement of the judges") && both.contains("judge-1, judge-2"), "{both}");
    let rows = read_parquet(&bench.path("out/results.parquet")).unwrap();
    let of = |judge: &str| rows.iter().filter(|row| row.scorer == judge).count();
    assert_eq!((of("judge-1"), of("judge-2")), (CALLS, CALLS));
    let page = fs::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("judged by judge-1 and judge-2"));

    for (setting, words) in [
        (second.replace("lab/judge-2", "other/judge-1"), "judge.second.name"),
        (second.replace("endpoint", "sandbox"), "judge.second"),
        (second.replace('}', ", references=\"mine.jsonl\"}"), "judge.second.references"),
    ] {
        let output = rq(RQ1, &bench, &["--set", &setting]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{setting}: {stderr}");
        assert!(stderr.contains(words), "{setting}: {stderr}");
    }
}

#[test]
fn shards_train_and_answer_and_one_run_judges() {
    let server = server(MockBehaviour::perfect());
    let bench = study(&server.base_url());
    for part in ["1/2", "2/2"] {
        let (printed, _) = succeeds(&rq(RQ1, &bench, &["--shard", part]));
        assert!(printed.is_empty(), "{printed}");
    }
    assert_eq!((server.paid(), entries(&bench.path("out/store/answers"))), (0, POLICIES));
    let (table, log) = succeeds(&rq(RQ1, &bench, &[]));
    assert!(table.contains("judge-1") && !log.contains("training"), "{log}");
    assert!(server.paid() > 0);
}

/// Rows of a table in CSV by their first column.
fn csv_row<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let row = table.lines().find(|line| line.trim_start().starts_with(first));
    row.unwrap_or_else(|| panic!("`{first}` is missing in {table}")).split(',').collect()
}

#[test]
fn a_plan_has_memory_time_and_price_by_the_size_of_a_group() {
    let server = server(MockBehaviour::perfect());
    let bench = study(&server.base_url());
    let prices = "[models.\"lab/judge-1\"]\nprompt = 10.0\ncompletion = 20.0\n";
    fs::write(bench.path("prices.toml"), prices).unwrap();
    let priced = ["--set", "judge.pace.prices=prices.toml", "--format", "csv", "--plan"];
    let with = |more: &[&str]| rq(RQ1, &bench, &[&priced[..], more].concat());
    let (plan, _) = succeeds(&with(&["--nproc-per-node", "8", "--set", "judge.pace.max_cost=1"]));
    assert_eq!(
        csv_row(&plan, "What"),
        ["What", "--group-size 1", "--group-size 2", "--group-size 4", "--group-size 8"]
    );
    assert_eq!(csv_row(&plan, "cells at the same time")[1..], ["8", "4", "2", "1"]);
    assert_eq!(csv_row(&plan, "fits 80 GB")[1..], ["yes"; 4]);
    for part in
        ["master weights", "gradients", "Adam's moments", "activations", "LM head", "training", "judging"]
    {
        assert_eq!(csv_row(&plan, part).len(), 5, "{plan}");
    }
    // 40 calls of 1,500 and 300 tokens at 10 and 20 USD per million: 0.84 USD.
    let (exceeds, within) =
        (with(&["--set", "judge.pace.max_cost=0.83"]), with(&["--set", "judge.pace.max_cost=0.85"]));
    let words = String::from_utf8_lossy(&exceeds.stderr).into_owned();
    assert_eq!(exceeds.status.code(), Some(2), "{words}");
    assert!(words.contains("40 calls of judge-1 cost about 0.84 USD"), "{words}");
    assert!(words.contains("judge.pace.max_cost = 0.83"), "{words}");
    succeeds(&within);
    let uneven = with(&["--nproc-per-node", "8", "--group-size", "3"]);
    assert_eq!(uneven.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&uneven.stderr).contains("give one of 1, 2, 4, 8"), "{uneven:?}");
    assert!(!bench.path("out").exists() && server.calls().is_empty(), "a plan computes nothing");
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn groups_train_and_answer_and_one_process_judges() {
    let server = server(MockBehaviour::perfect());
    let bench = study(&server.base_url());
    let (alone, _) = succeeds(&rq(RQ1, &bench, &["--set", "output.dir=alone"]));
    let paid = server.paid();
    let keep = ["--set", "store.keep=scores"];
    let (together, log) = succeeds(&rq(RQ1, &bench, &[&keep[..], &["--nproc-per-node", "2"]].concat()));
    assert!(log.contains("rank 1 of 2") && !log.contains("[rank 0] judging"), "{log}");
    assert_eq!(together, alone, "the answers are the same");
    assert_eq!(server.paid(), 2 * paid, "one process judges each answer once");
    assert_eq!(entries(&bench.path("out/store/begun")), 0);
    assert_eq!(weights(&bench.path("out/store/runs")), 0, "weights are dropped");
    assert!(weights(&bench.path("alone/store/runs")) > 0);
    // Earlier checkpoints need the weights again; the others are not judged again.
    let (_, log) = succeeds(&rq(RQ4, &bench, &[&keep[..], &["--nproc-per-node", "2"]].concat()));
    assert!(log.contains("is trained again: its weights were dropped"), "{log}");
    let verified =
        Command::new(env!("CARGO_BIN_EXE_study")).arg("verify").arg(bench.path("out")).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// Returns the number of files of weights below a folder.
fn weights(folder: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        count += if path.is_dir() {
            weights(&path)
        } else {
            usize::from(path.extension().is_some_and(|ending| ending == "safetensors"))
        };
    }
    count
}

#[test]
fn a_run_resumes_with_another_number_of_threads() {
    let server = server(MockBehaviour::perfect());
    let bench = study(&server.base_url());
    succeeds(&rq(RQ1, &bench, &["--shard", "1/2", "--set", "train.threads=1"]));
    // The files of a run that ends before its first checkpoint.
    let runs: Vec<_> =
        fs::read_dir(bench.path("out/store/runs")).unwrap().map(|run| run.unwrap().path()).collect();
    for run in &runs {
        for entry in fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => fs::remove_dir_all(entry).unwrap(),
                false if entry.ends_with("recipe.toml") => (),
                false => fs::remove_file(entry).unwrap(),
            }
        }
    }
    let (plan, _) = succeeds(&rq(RQ1, &bench, &["--plan", "--set", "train.threads=2"]));
    assert!(plan.contains("0 of 4 training runs"), "{plan}");
    let (table, log) = succeeds(&rq(RQ1, &bench, &["--set", "train.threads=2"]));
    assert!(!runs.is_empty() && log.matches("training ").count() >= 4, "{log}");
    assert!(table.contains("judge-1") && !table.contains("Failed"), "{table}");
}

#[test]
fn the_next_run_repeats_failed_calls_of_a_judge() {
    let down = MockServer::start(
        MockBehaviour { key: Some("another".to_owned()), ..MockBehaviour::perfect() },
        rates_by_length,
    );
    let bench = study(&down.base_url());
    let refused = rq(RQ1, &bench, &[]);
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && stderr.contains("judge") && !stderr.contains(KEY), "{stderr}");
    let answered = entries(&bench.path("out/store/answers"));
    assert!(answered > 0, "answers are kept: {stderr}");

    let up = server(MockBehaviour::perfect());
    let url = format!("judge.base_url={}", up.base_url());
    let (table, log) = succeeds(&rq(RQ1, &bench, &["--set", &url]));
    assert!(table.contains("judge-1"), "{log}");
    assert!(up.paid() > 0 && entries(&bench.path("out/store/answers")) == POLICIES);
}

#[test]
fn an_invalid_setup_is_refused_before_training() {
    let server = server(MockBehaviour::perfect());
    let bench = study(&server.base_url());
    for (setting, words) in [
        ("judge.api_key_env=NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE"),
        ("study.bench=nowhere", "mtbench fetch --data nowhere"),
        ("study.questions=5", "the benchmark has 4"),
        ("judge.kind=sandbox", "judge.kind"),
        ("judge.name=../judge", "judge.name"),
        ("judge.pace.timeout=0", "judge.pace.timeout"),
        ("data.path=sandbox", "data.path"),
        ("model.reference=other", "model.reference"),
        ("model.path=nowhere", "nowhere"),
        ("data.path=nowhere.jsonl", "nowhere.jsonl"),
    ] {
        let output = rq(RQ1, &bench, &["--set", setting]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{setting}: {stderr}");
        assert!(stderr.contains(words), "{setting}: {stderr}");
        assert!(!bench.path("out/store/runs").exists(), "{setting} trains nothing");
    }
    assert!(server.calls().is_empty());
}

/// Returns the scores of a policy at the end of training: question, turn, score.
fn scores_of(bench: &Bench, out: &str, loss: &str, annotator: &str) -> Vec<(u64, u8, Option<f64>)> {
    let rows = read_parquet(&bench.path(out).join("results.parquet")).unwrap();
    let of = rows.iter().filter(|row| row.loss == loss && row.annotator == annotator && row.progress == 1.0);
    of.map(|row| (row.question_id, row.turn, row.score)).collect()
}

/// Returns the only file below `folder` whose name starts with `prefix`.
fn find(folder: &Path, prefix: &str) -> Option<std::path::PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() { find(&path, prefix) } else { name.starts_with(prefix).then_some(path) }
    })
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn policies_trained_elsewhere_are_evaluated_in_place_of_their_cells() {
    let server = server(MockBehaviour::perfect());
    let bench = study(&server.base_url());
    succeeds(&rq(RQ1, &bench, &[]));
    let rows = read_parquet(&bench.path("out/results.parquet")).unwrap();
    let dpo = rows.iter().find(|row| row.loss == "dpo" && row.annotator == "human").unwrap();
    let model = format!("out/store/runs/{}/model", dpo.cell);
    let answers = find(&bench.path("out/store/answers"), "ipo-human").unwrap();
    let policy = |loss: &str, seed: u64, path: &str| {
        format!(
            "[[study.policies]]\nannotator = \"human\"\nloss = \"{loss}\"\nseed = {seed}\npath = \"{path}\"\n"
        )
    };
    let recipe = fs::read_to_string(bench.path("study.toml")).unwrap();
    let write = |policies: &[String]| {
        fs::write(bench.path("study.toml"), recipe.clone() + &policies.concat()).unwrap()
    };

    write(&[policy("dpo", 0, &model), policy("ipo", 0, &answers.display().to_string())]);
    let (plan, _) = succeeds(&rq(RQ1, &bench, &["--out", "again", "--plan"]));
    assert!(plan.contains("2 of 4 training runs"), "{plan}");
    let (_, log) = succeeds(&rq(RQ1, &bench, &["--out", "again"]));
    assert!(!log.contains("training DPO on human,") && log.contains("training DPO on gpt-4-turbo,"), "{log}");
    assert_eq!(entries(&bench.path("again/store/runs")), 2);
    for loss in ["dpo", "ipo"] {
        let scores = scores_of(&bench, "again", loss, "human");
        assert_eq!(scores.len(), 2 * QUESTIONS);
        assert_eq!(scores, scores_of(&bench, "out", loss, "human"), "{loss}");
    }
    people_correct_the_judge(&bench);

    // Answers that miss a question, a repeated cell, a missing path, and a seed that the study does not have.
    fs::write(bench.path("one.jsonl"), fs::read_to_string(&answers).unwrap().lines().next().unwrap())
        .unwrap();
    for (policies, words) in [
        (vec![policy("dpo", 0, "one.jsonl")], "one.jsonl has no answer to all 2 turns of question"),
        (vec![policy("dpo", 0, &model), policy("dpo", 0, &model)], "an earlier entry has the same cell"),
        (vec![policy("dpo", 0, "nowhere")], "it is neither a model's folder nor a file of answers"),
        (vec![policy("dpo", 1, &model)], "its seed must be below study.seeds"),
    ] {
        write(&policies);
        let output = rq(RQ1, &bench, &["--out", "refused"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(words), "{words:?} is missing in: {stderr}");
    }
    write(&[policy("dpo", 0, &model), policy("hinge", 0, &model)]);
    let (_, log) = succeeds(&rq(RQ1, &bench, &["--out", "again"]));
    assert!(
        log.contains("hinge on human, β = 0.1, seed 0 is in study.policies, but no cell of this grid"),
        "{log}"
    );
}

/// Makes sheets of two questions, fills them, and corrects the judge by them.
fn people_correct_the_judge(bench: &Bench) {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(bench.folder.path()).output().unwrap();
        succeeds(&output).0
    };
    let agreement = env!("CARGO_BIN_EXE_agreement");
    let arms = ["--arm", "dpo human", "--arm", "sft"];
    let make = ["make", "--from", "again", "--rate", "2", "--raters", "ann", "--out", "rating"];
    run(agreement, &[&make[..], &arms].concat());
    let sheet = fs::read_to_string(bench.path("rating/sheet-ann.csv")).unwrap();
    assert!(!sheet.contains("dpo") && !sheet.contains("sft"), "{sheet}");
    let key: serde_json::Value =
        serde_json::from_slice(&fs::read(bench.path("rating/key.json")).unwrap()).unwrap();
    let sheet = &key["rated"]["ann"];
    let row = |item: usize| format!("{},ann,{item},{}\n", sheet["study"].as_str().unwrap(), 3 + item % 5);
    let rows: String = (1..=sheet["items"].as_array().unwrap().len()).map(row).collect();
    let filled = format!("study,rater,item,score\n{rows}");
    fs::write(bench.path("ann.csv"), filled).unwrap();
    let ratings = run(agreement, &["collect", "--key", "rating/key.json", "ann.csv"]);
    assert_eq!(ratings.lines().count(), 1 + 2 * 2 * 2, "two questions of two turns and two arms: {ratings}");
    fs::write(bench.path("ratings.csv"), ratings).unwrap();
    let compare =
        ["compare", "again", "--contrast", "dpo human-sft", "--ratings", "ratings.csv", "--format", "json"];
    let json: serde_json::Value = serde_json::from_str(&run(env!("CARGO_BIN_EXE_study"), &compare)).unwrap();
    assert_eq!(json[0]["contrast"], "dpo human − sft");
    assert_eq!(json[0]["rated_questions"], 2);
    assert!(json[0]["corrected"]["low"].as_f64().unwrap() <= json[0]["corrected"]["high"].as_f64().unwrap());
}
