//! End-to-end tests of `pref-train`. Bad input gives a clear error and exit status 2, and leaves no partial files; a
//! signal ends a run with a checkpoint.

mod bench;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bench::Bench;
use policy_model::{ModelConfig, Policy};
use sandbox::Size;
use seeds::Seeds;
use tch::{Device, Kind, Tensor};

fn train(bench: &Bench, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pref-train"))
        .args(["--recipe", "recipe.toml"])
        .args(arguments)
        .current_dir(bench.folder.path())
        .output()
        .unwrap()
}

/// Asserts exit status 2, these words on stderr, and no output folder.
fn refuses(bench: &Bench, arguments: &[&str], words: &[&str]) {
    let output = train(bench, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is missing in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(!bench.path("out").exists(), "bad input writes no files");
}

/// A run that a test interrupts.
#[cfg(unix)]
const LONG: &str = "train.epochs=1000000";

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn good_input_trains() {
    let bench = Bench::new();
    let output = train(&bench, &[]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("loss 0.6931"), "{stdout}");
    assert!(!output.stderr.contains(&0x1b), "no colors without a terminal");
    assert!(bench.path("out/model/config.json").exists());
    assert!(bench.path("out/model/tokenizer.json").exists(), "the model folder is complete");
    let again = train(&bench, &[]);
    assert_eq!(again.status.code(), Some(2), "a finished run is not overwritten");
    assert!(train(&bench, &["--resume"]).status.success(), "resuming it does nothing");
}

/// Returns the lines of a plan without alignment.
fn plan_lines(bench: &Bench, arguments: &[&str]) -> Vec<String> {
    let output = train(bench, &[&["--plan"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_plan_counts_and_writes_nothing() {
    let bench = Bench::new();
    let long = "a .".repeat(40);
    bench.write_pairs(&[("Say a .", "a .", "b ."), ("Say b .", &long, "a ."), (&long, "c .", "a .")]);
    let lines = plan_lines(&bench, &["--set", "data.max_length=40", "--set", "data.flip_rate=1.0"]);
    let has =
        |wanted: &str| assert!(lines.iter().any(|line| line.starts_with(wanted)), "{wanted}: {lines:#?}");
    has("pairs read 3");
    has("pairs dropped 1 no room for a response in 40 tokens");
    has("texts truncated 1 0 prompts at their beginning, 1 responses");
    has("pairs used 2 2 with a swapped label");
    // The truncated response fills the limit after its prompt, and the flip made it the rejected one.
    has("prompt, mean tokens 5.0 at most 5");
    has("chosen response, mean tokens 4.0 at most 4");
    has("rejected response, mean tokens 19.5 at most 35");
    assert!(!bench.path("out").exists(), "a plan writes nothing");
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn a_plan_matches_the_run() {
    let bench = Bench::new();
    let lines = plan_lines(&bench, &["--set", "train.epochs=3", "--set", "train.checkpoints=[0.5, 1.0]"]);
    let has = |lines: &[String], wanted: &str| {
        assert!(lines.iter().any(|l| l.starts_with(wanted)), "{wanted}: {lines:#?}")
    };
    has(&lines, "pairs used 3 0 with a swapped label");
    has(&lines, "optimiser steps 6 2 an epoch, 3 epochs");
    has(&lines, "checkpoints 2 after steps 3, 6");
    has(&lines, "reference log-probabilities 6 to be scored");
    let model = Policy::load(&bench.path("model"), Kind::Float, Device::Cpu).unwrap();
    let mentions = |lines: &[String], wanted: &str| {
        assert!(lines.iter().any(|l| l.contains(wanted)), "{wanted}: {lines:#?}")
    };
    mentions(&lines, "On 8 GPUs");
    let spread = plan_lines(&bench, &["--nnodes", "3", "--nproc-per-node", "8"]);
    mentions(&spread, "On 24 GPUs");
    mentions(&spread, "50 GB/s");
    mentions(&spread, "each of 24 processes");
    for zero in 0..4 {
        has(&spread, &format!("memory with zero = {zero}, MB"));
    }
    has(&lines, &format!("parameters {}", model.config().parameter_count()));

    assert!(train(&bench, &[]).status.success());
    refuses_plan(&bench, &[], &["pass --resume"]);
    has(&plan_lines(&bench, &["--resume"]), "reference log-probabilities 6 in the cache");
}

/// Asserts that a plan has the same error as a run.
fn refuses_plan(bench: &Bench, arguments: &[&str], words: &[&str]) {
    let (plan, run) = (train(bench, &[&["--plan"], arguments].concat()), train(bench, arguments));
    let words_of = |output: &std::process::Output| {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        stderr.lines().rfind(|line| line.starts_with("error:")).map(str::to_owned)
    };
    assert_eq!(plan.status.code(), Some(2), "{plan:?}");
    assert_eq!(words_of(&plan), words_of(&run));
    let said = words_of(&plan).unwrap();
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(plan.stdout.is_empty(), "{plan:?}");
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn published_preference_sets_are_read_unmodified() {
    let bench = Bench::new();
    let gair = r#"{"query": "Say a .", "response_1": {"content": "a ."}, "response_2": {"content": "b ."},
        "preference_labels": {"human": "response_1", "gpt-4-1106-preview": "response_2"}}"#;
    let rated = |text: &str, score: f64| format!(r#"{{"response": "{text}", "overall_score": {score}}}"#);
    let completions = [rated("a .", 2.0), rated("b .", 5.0), rated("c .", 1.5)].join(", ");
    let ultrafeedback = format!(r#"{{"instruction": "Say b .", "completions": [{completions}]}}"#);
    let shp = |id: &str, ratio: f64| {
        format!(
            r#"{{"post_id": "{id}", "c_root_id_A": "x", "c_root_id_B": "y", "history": "Say a .", "human_ref_A": "a .",
            "human_ref_B": "b .", "labels": 0, "score_ratio": {ratio}}}"#
        )
    };
    let shp = format!("{}\n{}", shp("p", 2.0).replace('\n', ""), shp("q", 3.0).replace('\n', ""));
    let plan = |content: &str, format: &str, setting: &str, wanted: &str| {
        fs::write(bench.path("set.jsonl"), content).unwrap();
        let format = format!("data.format={format}");
        let lines = plan_lines(&bench, &["--set", "data.path=set.jsonl", "--set", &format, "--set", setting]);
        assert!(lines.iter().any(|line| line.starts_with(wanted)), "{format}, {setting}: {lines:#?}");
    };
    plan(&gair.replace('\n', ""), "gair", "data.annotator=gpt-4-1106-preview", "pairs read 1");
    plan(&ultrafeedback, "ultrafeedback", "data.annotator=overall_score", "pairs read 2");
    plan(&shp, "shp", "data.fraction=1.0", "pairs read 1");
    plan(&shp, "shp", "data.score_ratio=>= 2", "pairs read 2");
}

#[test]
fn a_plan_has_the_errors_of_a_run() {
    let bench = Bench::new();
    refuses_plan(&bench, &["--set", "model.path=nowhere"], &["nowhere"]);
    refuses_plan(&bench, &["--set", "model.reference=nowhere"], &["nowhere"]);
    refuses_plan(&bench, &["--set", "data.annotator=gpt-5"], &["gpt-5", "human"]);
    truncate(&bench.path("model/model.safetensors"));
    refuses_plan(&bench, &[], &["model.safetensors"]);
}

fn stderr_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn resume_without_a_run_starts_from_the_beginning() {
    let bench = Bench::new();
    assert!(plan_lines(&bench, &["--resume"]).contains(&"pairs read 3".to_owned()));
    let output = train(&bench, &["--resume"]);
    assert!(output.status.success(), "{output:?}");
    assert!(stderr_of(&output).contains("nothing to resume in out"), "{output:?}");
    assert!(bench.path("out/model/config.json").exists());
}

#[test]
fn a_run_that_fails_before_its_first_step_does_not_block_the_next() {
    let bench = Bench::new();
    fs::create_dir(bench.path("damaged")).unwrap();
    for entry in fs::read_dir(bench.path("model")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, bench.path("damaged").join(path.file_name().unwrap())).unwrap();
    }
    truncate(&bench.path("damaged/model.safetensors"));
    let output = train(&bench, &["--set", "model.reference=damaged"]);
    assert!(!output.status.success() && bench.path("out/recipe.toml").exists(), "{output:?}");
    let output = train(&bench, &[]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    let recipe = fs::read_to_string(bench.path("out/recipe.toml")).unwrap();
    assert!(!recipe.contains("damaged"), "{recipe}");
}

/// Writes a model whose embedding has fewer rows than its tokenizer has tokens.
fn write_small_embedding(bench: &Bench) {
    let config = ModelConfig::from_json(sandbox::model_config(Size::Small, 8)).unwrap();
    let policy = Policy::initialize(config, &Seeds::new(1), Kind::Float, Device::Cpu).unwrap();
    policy.save(&bench.path("small"), Kind::Float, Some(&bench.path("tokenizer"))).unwrap();
}

#[test]
fn token_ids_beyond_the_embedding_are_refused_before_anything_is_written() {
    let bench = Bench::new();
    write_small_embedding(&bench);
    let words = ["token", "has the id", "small", "has 8 rows", "tokens"];
    refuses_plan(&bench, &["--set", "model.path=small"], &words);
    refuses_plan(&bench, &["--set", "model.reference=small"], &words);
    assert!(!bench.path("out").exists());
    let sft = train(&bench, &["--set", "model.reference=small", "--set", "loss.kind=sft"]);
    assert!(sft.status.success(), "supervised training has no reference: {}", stderr_of(&sft));
}

#[test]
fn sequences_beyond_the_context_give_a_warning() {
    let bench = Bench::new();
    assert!(!stderr_of(&train(&bench, &[])).contains("max_position_embeddings"));
    let path = bench.path("model/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = 3.into();
    fs::write(&path, config.to_string()).unwrap();
    let output = train(&bench, &["--set", "output.dir=short"]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert!(
        stderr_of(&output).contains("3 of 3 pairs are longer than the model's context of 3 tokens"),
        "{output:?}"
    );
}

#[test]
fn kto_on_a_single_prompt_gives_a_warning() {
    let bench = Bench::new();
    let kto = |out: &str| {
        let output = train(&bench, &["--set", "loss.kind=kto", "--set", &format!("output.dir={out}")]);
        assert!(output.status.success(), "{}", stderr_of(&output));
        stderr_of(&output)
    };
    assert!(!kto("several").contains("baseline"));
    bench.write_pairs(&[("Say a .", "a .", "b ."), ("Say a .", "a .", "c .")]);
    assert!(kto("one").contains("all 2 pairs have the same prompt, so that its baseline is its own"));
}

#[test]
fn unpaired_preferences_train_with_kto_only() {
    let bench = Bench::new();
    let row = |prompt: &str, completion: &str, label: bool| {
        serde_json::json!({"prompt": prompt, "completion": completion, "label": label}).to_string() + "\n"
    };
    let rows = |first: bool| {
        [row("Say a .", "a .", first), row("Say b .", "c .", false), row("Say c .", "c .", true)].concat()
    };
    fs::write(bench.path("pairs.jsonl"), rows(true)).unwrap();
    refuses(&bench, &[], &["pairs.jsonl, line 1: field `completion`", "only loss.kind = \"kto\" can use"]);
    let kto = ["--set", "loss.kind=kto"];
    refuses(
        &bench,
        &[&kto[..], &["--set", "data.identical=drop"]].concat(),
        &["data.identical applies to pairs"],
    );
    let preview = train(&bench, &[&kto[..], &["--preview", "2", "--format", "json"]].concat());
    assert!(stderr_of(&preview).contains("reads unpaired preferences: 2 desirable, 1 undesirable"));
    let preview: serde_json::Value = serde_json::from_slice(&preview.stdout).unwrap();
    let shown = &preview["completions"];
    assert_eq!(shown.as_array().unwrap().len(), 2);
    assert_eq!((&shown[1]["id"], &shown[1]["label"]), (&"2".into(), &false.into()));
    assert_eq!(shown[1]["truncated"], serde_json::json!({"prompt": 0, "completion": 0}));
    let lines = plan_lines(&bench, &kto);
    for wanted in [
        "completions used 3",
        "desirable completion, mean tokens",
        "reference log-probabilities 6 to be scored",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(wanted)), "{wanted}: {lines:#?}");
    }
    let weights = [&kto[..], &["--set", "loss.undesirable_weight=2.0"]].concat();
    let output = train(&bench, &weights);
    assert!(output.status.success(), "{}", stderr_of(&output));
    let metrics = fs::read_to_string(bench.path("out/metrics.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let (desirable, undesirable) = (&first["counts/chosen"], &first["counts/rejected"]);
    assert!(desirable.is_number() && undesirable.is_number() && first["kl"].is_number(), "{first}");
    assert!(fs::read_to_string(bench.path("out/recipe.toml")).unwrap().contains("undesirable_weight = 2.0"));
}

#[cfg(unix)]
#[test]
fn a_run_on_unpaired_preferences_resumes_with_the_same_labels_only() {
    let bench = Bench::new();
    let rows = |label: bool| {
        let row = serde_json::json!({"prompt": "Say a .", "completion": "a .", "label": label});
        let other = serde_json::json!({"prompt": "Say b .", "completion": "c .", "label": false});
        format!("{row}\n{other}\n")
    };
    fs::write(bench.path("pairs.jsonl"), rows(true)).unwrap();
    let kto = ["--set", "loss.kind=kto"];
    assert_eq!(interrupted(&bench, "TERM", &kto), Some(143));
    fs::write(bench.path("pairs.jsonl"), rows(false)).unwrap();
    refuses_plan(
        &bench,
        &[&kto[..], &["--set", LONG, "--resume"]].concat(),
        &["was trained with another data"],
    );
}

#[cfg(unix)]
#[test]
fn a_plan_compares_the_inputs_of_a_run_that_it_would_resume() {
    let bench = Bench::new();
    assert_eq!(interrupted(&bench, "TERM", &[]), Some(143));
    let resume = ["--set", LONG, "--resume"];
    let same = train(&bench, &[&["--plan"], &resume[..]].concat());
    assert!(same.status.success(), "{}", stderr_of(&same));
    bench.write_pairs(&[("Say a .", "a .", "b ."), ("Say b .", "c .", "a ."), ("Say c .", "c .", "b .")]);
    refuses_plan(&bench, &resume, &["was trained with another data"]);
    let accepted = train(&bench, &[&["--plan", "--accept-changes"], &resume[..]].concat());
    assert!(accepted.status.success(), "{}", stderr_of(&accepted));
    assert!(stderr_of(&accepted).contains("with another data"));
}

#[test]
fn a_template_that_replaces_the_models_is_saved_with_the_trained_model() {
    let bench = Bench::new();
    let template = "{% for m in messages %}{{ m.content }} {% endfor %}";
    fs::write(bench.path("own.jinja"), template).unwrap();
    let row = |content: &str| {
        let prompt = serde_json::json!([{"role": "user", "content": format!("Say {content} .")}]);
        serde_json::json!({"prompt": prompt, "chosen": "a .", "rejected": "b ."}).to_string() + "\n"
    };
    fs::write(bench.path("pairs.jsonl"), row("a") + &row("b")).unwrap();
    let own = ["--set", "data.chat_template=own.jinja"];
    let output = train(&bench, &own);
    assert!(output.status.success(), "{}", stderr_of(&output));
    let saved = |folder: &str| fs::read_to_string(bench.path(folder).join("chat_template.jinja")).unwrap();
    assert_eq!(saved("out/model"), template);
    assert_ne!(saved("model"), template, "the model itself is left alone");
    let checkpoints = fs::read_dir(bench.path("out/checkpoints")).unwrap();
    for checkpoint in checkpoints {
        let folder = checkpoint.unwrap().path();
        if folder.join("chat_template.jinja").exists() {
            assert_eq!(fs::read_to_string(folder.join("chat_template.jinja")).unwrap(), template);
        }
    }
}

#[test]
fn records_that_the_template_refuses_are_named_by_file_and_line_and_skipped_on_request() {
    let bench = Bench::new();
    fs::write(
        bench.path("model/chat_template.jinja"),
        "{% for m in messages %}\n{% if m.role == 'system' %}{{ raise_exception('No system role!') }}{% endif %}\
         {{ m.content }} {% endfor %}",
    )
    .unwrap();
    let row = |id: &str, role: &str| {
        let prompt =
            serde_json::json!([{"role": role, "content": "Say a ."}, {"role": "user", "content": "b ."}]);
        serde_json::json!({"id": id, "prompt": prompt, "chosen": "a .", "rejected": "b ."}).to_string() + "\n"
    };
    let rows = row("first", "user") + "\n" + &row("second", "system") + &row("third", "user");
    fs::write(bench.path("pairs.jsonl"), rows).unwrap();
    let named = "pairs.jsonl, line 3: record `second`: the chat template of";
    refuses_plan(&bench, &[], &[named, "line 2: No system role!"]);
    let skipping = ["--set", "data.skip_bad=1"];
    let preview = train(&bench, &[&skipping[..], &["--preview", "3", "--format", "json"]].concat());
    assert!(stderr_of(&preview).contains(&format!("skipped: {named}")), "{}", stderr_of(&preview));
    let shown: serde_json::Value = serde_json::from_slice(&preview.stdout).unwrap();
    let ids: Vec<_> = shown["pairs"].as_array().unwrap().iter().map(|pair| pair["id"].clone()).collect();
    assert_eq!(ids, ["first", "third"]);
    let lines = plan_lines(&bench, &skipping);
    assert!(lines.iter().any(|line| line == "pairs read 3 1 skipped that cannot be rendered"), "{lines:#?}");
    let output = train(&bench, &skipping);
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert!(stderr_of(&output).contains(&format!("skipped: {named}")), "{}", stderr_of(&output));
    assert!(stderr_of(&output).contains("2 of 3 pairs tokenized. 1 pair skipped that cannot be rendered"));
}

#[test]
fn the_number_of_processes_is_at_least_one() {
    let bench = Bench::new();
    refuses(&bench, &["--nproc-per-node", "0"], &["--nproc-per-node", "1.."]);
    assert!(train(&bench, &["--nproc-per-node", "1"]).status.success());
}

#[test]
fn smoothing_beyond_one_half_gives_a_warning() {
    let warning = |smoothing: &str| {
        let bench = Bench::new();
        let smoothing = format!("loss.label_smoothing={smoothing}");
        let output = train(&bench, &["--set", "loss.kind=cdpo", "--set", &smoothing]);
        assert!(output.status.success());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        stderr
            .lines()
            .find(|line| line.contains("WARN") && line.contains("label_smoothing"))
            .map(str::to_owned)
    };
    assert_eq!(warning("0.4"), None);
    assert!(warning("0.5").unwrap().contains("the labels are random"));
    assert!(warning("0.6").unwrap().contains("prefer the rejected"));
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_not_an_error() {
    let bench = Bench::new();
    let script = format!(
        "set -o pipefail; '{}' --recipe recipe.toml --plan 2>log | true",
        env!("CARGO_BIN_EXE_pref-train")
    );
    let output =
        Command::new("bash").args(["-c", &script]).current_dir(bench.folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", fs::read_to_string(bench.path("log")).unwrap());
}

#[test]
fn unknown_recipe_keys_name_the_nearest_known_one() {
    let bench = Bench::new();
    refuses(&bench, &["--set", "train.learning_rat=1e-4"], &["learning_rat", "learning_rate"]);
    refuses(&bench, &["--set", "los.beta=0.1"], &["los", "loss"]);
    refuses(&bench, &["--set", "loss.beta=-1"], &["beta"]);
    refuses(&bench, &["--set", "distributed.zero=4"], &["zero", "not supported"]);
    let adapters = ["--set", "distributed.zero=3", "--set", "lora.rank=4"];
    refuses(&bench, &adapters, &["zero = 3", "lora.rank", "set it to 2"]);
}

#[test]
fn invalid_models_are_refused() {
    let bench = Bench::new();
    refuses(&bench, &["--set", "model.path=nowhere"], &["nowhere"]);

    let weights = bench.path("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::remove_file(&weights).unwrap();
    refuses(&bench, &[], &["model", "safetensors"]);
    fs::write(&weights, &whole).unwrap();
    truncate(&weights);
    refuses(&bench, &[], &["model.safetensors"]);
    fs::write(&weights, &whole).unwrap();

    let config = bench.path("model/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"llama\"", "\"mamba\"")).unwrap();
    refuses(&bench, &[], &["mamba", "qwen3"]);
}

#[test]
fn nan_weights_are_refused() {
    let bench = Bench::new();
    let path = bench.path("model");
    let policy = Policy::load(&path, Kind::Float, Device::Cpu).unwrap();
    let parameters: Vec<(String, Tensor)> = policy
        .parameters()
        .iter()
        .map(|(name, tensor)| {
            let mut tensor = tensor.copy();
            if name.contains("layers.1.mlp.up_proj") {
                let _ = tensor.fill_(f64::NAN);
            }
            (name.clone(), tensor)
        })
        .collect();
    // The writer of the workspace rejects NaN: the file is modified directly.
    let named: Vec<(&str, &Tensor)> = parameters.iter().map(|(n, t)| (n.as_str(), t)).collect();
    Tensor::write_safetensors(&named, path.join("model.safetensors")).unwrap();
    refuses(&bench, &[], &["layers.1.mlp.up_proj", "NaN"]);
}

#[test]
fn invalid_data_is_refused() {
    let bench = Bench::new();
    refuses(&bench, &["--set", "data.path=nothing.jsonl"], &["nothing.jsonl"]);
    bench.write_pairs(&[("Say a .", "a .", "b ."), ("Say b .", "", "a .")]);
    refuses(&bench, &[], &["pairs.jsonl", "line 2", "chosen", "empty"]);
    fs::write(
        bench.path("pairs.jsonl"),
        "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n{\"prompt\": \n",
    )
    .unwrap();
    refuses(&bench, &[], &["pairs.jsonl", "line 2"]);
}

#[test]
fn an_unknown_annotator_lists_the_known_ones() {
    let bench = Bench::new();
    refuses(&bench, &["--set", "data.annotator=gpt-5"], &["gpt-5", "human"]);
}

/// A file-size limit simulates a full disk: writes beyond it fail in the same way, without root.
#[test]
fn a_full_disk_leaves_no_partial_files() {
    let bench = Bench::new();
    // 100 KiB suffice for metrics and recipe, but not for a checkpoint of 0.13M parameters.
    let script = format!(
        "trap '' XFSZ; ulimit -f 100; exec '{}' --recipe recipe.toml",
        env!("CARGO_BIN_EXE_pref-train")
    );
    let output =
        Command::new("bash").args(["-c", &script]).current_dir(bench.folder.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write"), "{stderr}");
    assert!(!bench.path("out/model").exists());
    let left = fs::read_dir(bench.path("out/checkpoints")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "no partial checkpoint remains");
    // With enough space the same run resumes and finishes.
    let output = train(&bench, &["--resume"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a run that would take hours, sends it `signal` after its first steps, and returns its exit status.
#[cfg(unix)]
fn interrupted(bench: &Bench, signal: &str, arguments: &[&str]) -> Option<i32> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pref-train"))
        .args(["--recipe", "recipe.toml", "--set", LONG])
        .args(arguments)
        .current_dir(bench.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let steps = || fs::read_to_string(bench.path("out/metrics.jsonl")).map_or(0, |text| text.lines().count());
    while steps() < 3 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait().unwrap().code()
}

#[cfg(unix)]
#[test]
fn signals_leave_a_checkpoint_and_their_own_exit_status() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let bench = Bench::new();
        assert_eq!(interrupted(&bench, signal, &[]), Some(status), "SIG{signal}");
        let checkpoints: Vec<_> = fs::read_dir(bench.path("out/checkpoints")).unwrap().collect();
        assert_eq!(checkpoints.len(), 1, "one complete checkpoint");
        assert!(!bench.path("out/model").exists(), "the run is not finished");
    }
}
