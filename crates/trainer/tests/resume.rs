//! A run resumes with the inputs that its checkpoints record, and with no others unless the user accepts them.

mod clock;
#[expect(dead_code, reason = "this test uses the bench, and starts no ranks")]
mod ranks;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use clock::Ticking;
use distributed::ProcessGroup;
use ranks::Bench;
use serde_json::Value;
use trainer::recipe::Recipe;
use trainer::{Cluster, Context, NoClock, Outcome, Silent, Start, TrainError, plan, run};

fn recipe(bench: &Bench, changes: &[&str]) -> Result<Recipe, TrainError> {
    let path = |name: &str| bench.path(name).display().to_string();
    let mut overrides = vec![
        format!("model.path={}", path("model")),
        format!("data.path={}", path("pairs.jsonl")),
        format!("data.eval_path={}", path("held-out.jsonl")),
        format!("output.dir={}", path("out")),
        "watch.answers=0".to_owned(),
    ];
    overrides.extend(changes.iter().map(|change| (*change).to_owned()));
    Ok(Recipe::load(&bench.path("recipe.toml"), &overrides)?)
}

/// Trains in the bench's folder; with `stop`, only the first step.
fn train(bench: &Bench, start: Start, stop: bool, changes: &[&str]) -> Result<Outcome, TrainError> {
    let recipe = recipe(bench, changes)?;
    let (stop, mut progress) = (AtomicBool::new(stop), Silent);
    let group = ProcessGroup::single();
    let mut context = Context { clock: &NoClock, progress: &mut progress, stop: &stop, group, cache: None };
    Ok(run(&recipe, start, &mut context)?.outcome)
}

fn state(bench: &Bench, step: u64) -> Value {
    let path = bench.path(&format!("out/checkpoints/step-{step}/trainer/state.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Replaces `from` by `to` in a file of the bench.
fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} lacks {from}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn changed_inputs_are_named_and_accepted_only_on_request() {
    let bench = Bench::new();
    assert_eq!(train(&bench, Start::Fresh, true, &[]).unwrap(), Outcome::Stopped(1));
    let recorded = state(&bench, 1)["inputs"].clone();
    assert!(recorded["data"].is_string() && recorded["reference"] == recorded["model"], "{recorded}");

    // The same inputs resume.
    assert_eq!(train(&bench, Start::Resume, true, &[]).unwrap(), Outcome::Stopped(2));

    // A response changes, and one pair more changes the number of steps.
    let pairs = bench.path("pairs.jsonl");
    let before = fs::read(&pairs).unwrap();
    bench.write_pairs("pairs.jsonl", 30);
    edit(&bench.path("model/tokenizer_config.json"), "{", "{\"note\": 1,");
    let refused = train(&bench, Start::Resume, false, &[]).unwrap_err();
    assert!(refused.is_bad_input(), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("another data, tokenizer, total steps (8 instead of 6) up to step 2"), "{text}");
    assert!(text.contains("--accept-changes"), "{text}");

    // The model changes, and with it the reference.
    fs::write(&pairs, before).unwrap();
    edit(&bench.path("model/tokenizer_config.json"), "{\"note\": 1,", "{");
    assert_eq!(train(&bench, Start::Resume, true, &[]).unwrap(), Outcome::Stopped(3));
    edit(&bench.path("model/config.json"), "{", "{\"note\": 1,");
    let text = train(&bench, Start::Resume, false, &[]).unwrap_err().to_string();
    assert!(text.contains("another model, reference up to step 3"), "{text}");

    assert_eq!(train(&bench, Start::ResumeChanged, true, &[]).unwrap(), Outcome::Stopped(4));
    let accepted = state(&bench, 4)["accepted_changes"].clone();
    assert_eq!(accepted, serde_json::json!([{"step": 3, "changed": ["model", "reference"]}]));
    // From the next checkpoint on, the new inputs are the run's.
    assert_eq!(train(&bench, Start::Resume, false, &[]).unwrap(), Outcome::Finished);
}

#[test]
fn a_checkpoint_without_recorded_inputs_resumes() {
    let bench = Bench::new();
    assert_eq!(train(&bench, Start::Fresh, true, &[]).unwrap(), Outcome::Stopped(1));
    let path = bench.path("out/checkpoints/step-1/trainer/state.json");
    let mut former = state(&bench, 1);
    former.as_object_mut().unwrap().remove("inputs");
    fs::write(&path, former.to_string()).unwrap();
    bench.write_pairs("held-out.jsonl", 6);
    assert_eq!(train(&bench, Start::Resume, false, &[]).unwrap(), Outcome::Finished);
}

#[test]
fn a_loss_without_a_reference_loads_and_scores_none() {
    let bench = Bench::new();
    let missing = format!("model.reference={}", bench.path("missing").display());
    let with_reference = train(&bench, Start::Fresh, false, &[&missing]).unwrap_err();
    assert!(with_reference.is_bad_input(), "{with_reference}");
    let sum = "loss.terms=[{ kind = \"cpo\" }, { kind = \"sft\" }]";
    for keys in [&["loss.kind=simpo"][..], &["loss.kind=orpo"], &["loss.kind=cpo"], &["loss.kind=sum", sum]] {
        let folder = format!("output.dir={}", bench.path(keys[0]).display());
        let changes = [&[&*missing, &folder], keys].concat();
        let planned = recipe(&bench, &changes).unwrap();
        let clock = Ticking::default();
        let planned = plan(&planned, Start::Fresh, Cluster::a100s(1), &clock).unwrap();
        assert_eq!((planned.reference, planned.time.reference), (None, 0.0));
        assert_eq!(planned.on_cluster.reference, 0.0);
        assert_eq!(train(&bench, Start::Fresh, true, &changes).unwrap(), Outcome::Stopped(1));
        assert_eq!(train(&bench, Start::Resume, false, &changes).unwrap(), Outcome::Finished);
        let out = bench.path(keys[0]);
        assert!(!out.join("reference").exists() && out.join("eval.jsonl").exists());
    }
}

#[test]
fn an_interrupted_run_keeps_the_running_mean_of_dynamic_beta() {
    let bench = Bench::new();
    let run = |folder: &str, stops: usize| {
        let out = format!("output.dir={}", bench.path(folder).display());
        let changes =
            ["loss.kind=dpo", "loss.dynamic_beta={ alpha = 2.0 }", "train.learning_rate=1e-2", &out];
        for stop in 0..stops {
            let start = if stop == 0 { Start::Fresh } else { Start::Resume };
            assert!(matches!(train(&bench, start, true, &changes).unwrap(), Outcome::Stopped(_)));
        }
        let start = if stops == 0 { Start::Fresh } else { Start::Resume };
        assert_eq!(train(&bench, start, false, &changes).unwrap(), Outcome::Finished);
        fs::read_to_string(bench.path(folder).join("metrics.jsonl")).unwrap()
    };
    let whole = run("whole", 0);
    assert_eq!(run("interrupted", 3), whole);
    let betas: Vec<f64> = whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["beta"].as_f64().unwrap())
        .collect();
    assert!(betas.windows(2).any(|pair| pair[0] != pair[1]), "{betas:?}");
}
