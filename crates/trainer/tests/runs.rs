//! Runs as recipes describe them: their length, their sources, early stopping, the best checkpoint, and their records.

mod clock;
#[expect(dead_code, reason = "this test uses the bench, and starts no ranks")]
mod ranks;
mod supervised;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use clock::Ticking;
use distributed::ProcessGroup;
use policy_model::Policy;
use ranks::Bench;
use serde_json::Value;
use tch::{Device, Kind};
use trainer::recipe::Recipe;
use trainer::{
    Cluster, Context, HeldOutMetric, HeldOutMetrics, NoClock, Outcome, Preview, RunDir, Silent, Start,
    TrainError, TrainedPair, plan, preview, run,
};

/// The keys of a run without held-out preferences, in the folder `out` of the bench.
const PLAIN: &str = "[train]
epochs = 2
batch_size = 8
micro_batch_size = 3
learning_rate = 1e-3
threads = 1
checkpoints = [0.5, 1.0]
";

fn recipe(bench: &Bench, data: &str, changes: &[&str]) -> Result<Recipe, TrainError> {
    let folder = bench.path("");
    let text = format!(
        "[model]\npath = \"{0}/model\"\ndtype = \"float32\"\n{data}{PLAIN}[output]\ndir = \"{0}/out\"\n",
        folder.display().to_string().trim_end_matches('/')
    )
    .replace("@/", &folder.display().to_string());
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    Ok(Recipe::parse("runs.toml", &text, &changes)?)
}

/// Trains; with `stop`, only one step.
fn train(recipe: &Recipe, start: Start, stop: bool) -> Result<Outcome, TrainError> {
    let (stop, mut progress) = (AtomicBool::new(stop), Silent);
    let group = ProcessGroup::single();
    let mut context = Context { clock: &NoClock, progress: &mut progress, stop: &stop, group, cache: None };
    Ok(run(recipe, start, &mut context)?.outcome)
}

fn planned_steps(recipe: &Recipe) -> u64 {
    plan(recipe, Start::Fresh, Cluster::a100s(1), &Ticking::default()).unwrap().total_steps
}

const ONE: &str = "[data]\npath = \"@/pairs.jsonl\"\n";

/// Returns the relevant files of a finished run.
fn contents(out: &Path) -> Vec<(String, Vec<u8>)> {
    [
        "metrics.jsonl",
        "eval.jsonl",
        "run.json",
        "pair_deltas.parquet",
        "model/model.safetensors",
        "model/README.md",
    ]
    .into_iter()
    .filter(|name| out.join(name).exists())
    .map(|name| (name.to_owned(), fs::read(out.join(name)).unwrap()))
    .collect()
}

/// Trains at once and with an interruption after each step, and checks that both runs have the same bytes. Returns the
/// folder of the first.
fn train_both_ways(bench: &Bench, data: &str, changes: &[&str]) -> RunDir {
    let folder = |name: &str| format!("output.dir={}", bench.path(name).display());
    let of = |name: &str| recipe(bench, data, &[changes, &[&*folder(name)]].concat()).unwrap();
    assert_eq!(train(&of("whole"), Start::Fresh, false).unwrap(), Outcome::Finished);
    let interrupted = of("interrupted");
    let mut steps = 0;
    while let Outcome::Stopped(step) = train(&interrupted, Start::FreshOrResume, true).unwrap() {
        steps += 1;
        assert_eq!(step, steps);
    }
    let (whole, found) = (contents(&bench.path("whole")), contents(&bench.path("interrupted")));
    assert!(whole.len() >= 4);
    for ((name, whole), (_, found)) in whole.iter().zip(&found) {
        assert!(whole == found, "{name} differs after interruptions");
    }
    assert_eq!(whole.len(), found.len());
    RunDir::open_finished(&bench.path("whole")).unwrap()
}

#[test]
fn a_run_lasts_for_fractional_epochs_or_steps() {
    let bench = Bench::new();
    // 22 pairs in batches of 8 make 3 steps an epoch.
    for (change, steps) in
        [("train.epochs=0.5", 2), ("train.epochs=1.5", 5), ("train.max_steps=1", 1), ("train.max_steps=7", 7)]
    {
        let recipe = recipe(&bench, ONE, &[change]).unwrap();
        assert_eq!(planned_steps(&recipe), steps, "{change}");
    }
    let changes = ["train.max_steps=4", "train.scheduler=wsd", "train.decay_ratio=0.5"];
    let dir = train_both_ways(&bench, ONE, &changes);
    let metrics = dir.read_metrics().unwrap();
    let rates: Vec<f64> = metrics.iter().map(|step| step.learning_rate).collect();
    assert_eq!(rates, [0.0, 1e-3, 1e-3, 0.5e-3], "one step of warm-up, one of a cosine after its beginning");
    assert!((metrics[3].epoch - 4.0 / 3.0).abs() < 1e-12);
    assert_eq!(dir.list_checkpoints().unwrap().iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 4]);
}

/// Returns how many different pairs of each source the run has trained on.
fn by_source(dir: &RunDir) -> Vec<usize> {
    let trained = dir.read_pair_deltas().unwrap().unwrap();
    let ids: BTreeSet<&str> = trained.iter().map(|TrainedPair { pair, .. }| pair.as_str()).collect();
    let of = |at: usize| ids.iter().filter(|id| id.starts_with(&format!("{at}/"))).count();
    vec![of(0), of(1)]
}

#[test]
fn a_mixture_draws_from_each_source_by_weight_or_count() {
    let bench = Bench::new();
    bench.write_pairs("more.jsonl", 30);
    let list = |first: &str, second: &str| {
        format!(
            "[[data]]\npath = \"@/pairs.jsonl\"\n{first}\n[[data]]\npath = \"@/more.jsonl\"\n\
             format = \"pairs\"\nflip_rate = 0.5\n{second}\n"
        )
    };
    let weighted = list("weight = 2", "weight = 1");
    let dir = train_both_ways(&bench, &weighted, &[]);
    assert_eq!(by_source(&dir), [22, 11], "the first source is used up");
    let card = fs::read_to_string(dir.root().join("model/README.md")).unwrap();
    assert!(card.contains("The mixture takes 22 of 22 of source 0, 11 of 30 of source 1."), "{card}");
    let noise = fs::read_to_string(dir.root().join("noise.jsonl")).unwrap();
    let flipped = |at: usize| {
        let of_source = |line: &&str| line.contains(&format!("\"id\":\"{at}/")) && line.contains("flipped");
        noise.lines().filter(of_source).count()
    };
    assert_eq!((flipped(0), flipped(1) > 0), (0, true), "{noise}");

    let counted = recipe(&bench, &list("count = 5", ""), &["output.dir=unused"]).unwrap();
    let planned = plan(&counted, Start::Fresh, Cluster::a100s(1), &Ticking::default()).unwrap();
    assert_eq!((planned.examples, planned.tokenized.pairs_in, planned.view.records), (35, 52, 52));
    let few = recipe(&bench, &list("count = 23", ""), &[]).unwrap();
    let refused = train(&few, Start::Fresh, false).unwrap_err();
    assert!(refused.is_bad_input());
    assert!(refused.to_string().contains("data.0.count is 23, but"), "{refused}");

    let Preview::Pairs(shown) = preview(&counted, 2).unwrap() else { panic!("pairs") };
    let ids: Vec<&str> = shown.iter().map(|pair| pair.id.as_str()).collect();
    assert_eq!(ids, ["0/1", "0/2", "1/1", "1/2"]);

    bench.write_unpaired("unpaired.jsonl", 6);
    let kinds = "[[data]]\npath = \"@/pairs.jsonl\"\n[[data]]\npath = \"@/unpaired.jsonl\"\n";
    let mixed = recipe(&bench, kinds, &["loss.kind=kto"]).unwrap();
    let refused = train(&mixed, Start::Fresh, false).unwrap_err().to_string();
    assert!(refused.contains("data.1.path") && refused.contains("train on one kind at a time"), "{refused}");
}

#[test]
fn a_source_that_is_added_does_not_change_the_others() {
    let bench = Bench::new();
    bench.write_pairs("more.jsonl", 30);
    let source = |name: &str, count: usize| format!("[[data]]\npath = \"@/{name}.jsonl\"\ncount = {count}\n");
    let two = source("pairs", 6) + &source("more", 7);
    let three = two.clone() + &source("pairs", 3);
    let drawn = |data: &str, out: &str| {
        let dir = format!("output.dir={}", bench.path(out).display());
        assert_eq!(
            train(&recipe(&bench, data, &[&dir]).unwrap(), Start::Fresh, false).unwrap(),
            Outcome::Finished
        );
        let trained = RunDir::open_finished(&bench.path(out)).unwrap().read_pair_deltas().unwrap().unwrap();
        trained.into_iter().map(|pair| pair.pair).collect::<BTreeSet<String>>()
    };
    let (fewer, more) = (drawn(&two, "two"), drawn(&three, "three"));
    assert_eq!((fewer.len(), more.len()), (13, 16));
    assert!(fewer.is_subset(&more));
}

#[test]
fn a_share_of_the_prompts_is_held_out() {
    let bench = Bench::new();
    let dir = train_both_ways(&bench, ONE, &["data.split=0.25"]);
    let trained = dir.read_pair_deltas().unwrap().unwrap();
    let ids: BTreeSet<&str> = trained.iter().map(|pair| pair.pair.as_str()).collect();
    assert!(ids.len() < 22 - 5, "a quarter of 22 records is held out, and all records of their prompts");
    assert_eq!(dir.read_evaluations().unwrap().len(), 3);
}

/// The accuracy on the training pairs themselves, which rises to 1 and stays there.
fn measured_on_training_pairs(bench: &Bench) -> String {
    format!("data.eval_path={}", bench.path("pairs.jsonl").display())
}

#[test]
fn training_ends_early_and_the_best_checkpoint_becomes_the_model() {
    let bench = Bench::new();
    let changes = [
        &*measured_on_training_pairs(&bench),
        "train.learning_rate=1e-2",
        "train.epochs=20",
        "train.keep_last=1",
        "train.checkpoints=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]",
        "train.early_stopping={ patience = 2, metric = \"eval/accuracy\" }",
        "checkpoints.best=eval/accuracy",
    ];
    let planned = recipe(&bench, ONE, &changes).unwrap();
    let planned = plan(&planned, Start::Fresh, Cluster::a100s(1), &Ticking::default()).unwrap();
    assert_eq!((planned.total_steps, planned.stops_early), (60, true));
    let dir = train_both_ways(&bench, ONE, &changes);
    let evaluations = dir.read_evaluations().unwrap();
    let accuracies: Vec<f64> = evaluations.iter().filter_map(HeldOutMetrics::accuracy).collect();
    let last = dir.read_metrics().unwrap().len() as u64;
    assert!(last < 60, "{accuracies:?}");
    assert_eq!(evaluations.last().unwrap().step, last);
    let (before, since) = accuracies.split_at(accuracies.len() - 2);
    let best_before = before.iter().copied().fold(0.0, f64::max);
    assert!(since.iter().all(|accuracy| *accuracy <= best_before), "{accuracies:?}");

    let (step, best) = dir.best_checkpoint(HeldOutMetric::Accuracy).unwrap().unwrap();
    assert_eq!(step, evaluations[before.len() - 1].step, "the earliest of equal ones: {accuracies:?}");
    let kept: Vec<u64> = dir.list_checkpoints().unwrap().iter().map(|(step, _)| *step).collect();
    assert_eq!(kept, [step, last], "the best and the newest");
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&best) == weights(&dir.model()));
    assert!(weights(&best) != weights(&dir.checkpoints().join(format!("step-{last}"))));
    let card = fs::read_to_string(dir.model().join("README.md")).unwrap();
    assert!(card.contains(&format!("for {step} of 60 optimizer steps")), "{card}");
}

#[test]
fn the_best_checkpoint_of_adapters_has_their_files() {
    let bench = Bench::new();
    let changes = [
        &*measured_on_training_pairs(&bench),
        "lora.rank=2",
        "train.learning_rate=0.05",
        "train.epochs=20",
        "train.checkpoints=[0.5, 0.75, 1.0]",
        "checkpoints.best=eval/accuracy",
    ];
    let recipe = recipe(&bench, ONE, &changes).unwrap();
    assert_eq!(train(&recipe, Start::Fresh, false).unwrap(), Outcome::Finished);
    let dir = RunDir::open_finished(&bench.path("out")).unwrap();
    let (step, best) = dir.best_checkpoint(HeldOutMetric::Accuracy).unwrap().unwrap();
    assert!(step < 60, "an earlier checkpoint is as good as the last");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
        assert!(read(&best.join("adapter")) == read(&dir.adapter()), "{name}");
    }
}

#[test]
fn dropout_and_ranks_of_modules_resume_to_the_same_bytes() {
    let bench = Bench::new();
    let lora = [
        "lora.rank=2",
        "lora.targets=all-linear",
        "lora.rank_pattern={ \"layers\\\\.0\\\\..*\" = 3 }",
        "lora.alpha_pattern={ down_proj = 4 }",
    ];
    let dropping = [&lora[..], &["lora.dropout=0.3"]].concat();
    let planned = |changes: &[&str]| {
        let recipe = recipe(&bench, ONE, changes).unwrap();
        plan(&recipe, Start::Fresh, Cluster::a100s(1), &Ticking::default()).unwrap()
    };
    let (plain, with_dropout) = (planned(&lora), planned(&dropping));
    assert!(plain.trained > planned(&lora[..2]).trained, "layer 0 has a higher rank");
    assert!(with_dropout.memory.activations > plain.memory.activations, "masks are counted");
    let dir = train_both_ways(&bench, ONE, &dropping);
    let read = |name: &str| fs::read(dir.adapter().join(name)).unwrap();
    let config: Value = serde_json::from_slice(&read("adapter_config.json")).unwrap();
    assert_eq!(config["lora_dropout"], 0.3);
    assert_eq!(config["rank_pattern"], serde_json::json!({ "layers\\.0\\..*": 3 }));
    let dropped = read("adapter_model.safetensors");
    fs::remove_dir_all(dir.root()).unwrap();
    let whole = format!("output.dir={}", bench.path("whole").display());
    let recipe = recipe(&bench, ONE, &[&lora[..], &[&whole]].concat()).unwrap();
    train(&recipe, Start::Fresh, false).unwrap();
    assert_ne!(dropped, read("adapter_model.safetensors"));
}

/// Trains adapters, and returns their folder, which then also has the tokenizer's files.
fn first_adapters(bench: &Bench) -> String {
    let out = format!("output.dir={}", bench.path("first").display());
    let recipe = recipe(bench, ONE, &["lora.rank=2", "train.learning_rate=0.05", &out]).unwrap();
    assert_eq!(train(&recipe, Start::Fresh, false).unwrap(), Outcome::Finished);
    let adapter = RunDir::open_finished(&bench.path("first")).unwrap().adapter();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(bench.path("model").join(name), adapter.join(name)).unwrap();
    }
    adapter.display().to_string()
}

/// Returns the losses of each step of a new run.
fn losses(bench: &Bench, changes: &[&str]) -> Vec<f64> {
    let recipe = recipe(bench, ONE, changes).unwrap();
    assert_eq!(train(&recipe, Start::Fresh, false).unwrap(), Outcome::Finished, "{changes:?}");
    let losses = RunDir::open_finished(&bench.path("out")).unwrap().read_metrics().unwrap();
    fs::remove_dir_all(bench.path("out")).unwrap();
    losses.into_iter().map(|step| step.loss).collect()
}

#[test]
fn adapters_are_a_start_and_a_reference() {
    let bench = Bench::new();
    let adapter = first_adapters(&bench);
    let [init, path] = ["lora.init", "model.path"].map(|key| format!("{key}={adapter}"));
    let base = format!("model.reference={}", bench.path("model").display());
    let start = losses(&bench, &[&init]);
    assert_eq!(start[0], std::f64::consts::LN_2, "the reference has the same adapters, bit for bit");
    assert!(start[5] < start[0], "{start:?}");
    assert_eq!(losses(&bench, &[&init, "model.reference=adapter"]), start);
    assert_eq!(losses(&bench, &[&init, &path]), start, "adapters in model.path are trained");

    let from_base = losses(&bench, &[&init, "model.reference=base"]);
    assert!((from_base[0] - start[0]).abs() > 0.01, "the first run has changed the policy: {from_base:?}");
    assert_eq!(losses(&bench, &[&init, &base]), from_base);
    assert_eq!(losses(&bench, &[&init, &path, "model.reference=base"]), from_base);

    let merged = losses(&bench, &[&path]);
    assert_eq!(merged[0], std::f64::consts::LN_2);
    assert_eq!(losses(&bench, &[&path, "model.reference=adapter"]), merged);
    let merged_from_base = losses(&bench, &[&path, "model.reference=base", "lora.rank=2"]);
    assert!((merged_from_base[0] - from_base[0]).abs() < 1e-5, "{merged_from_base:?}");
}

/// Nats; a step of this run changes the loss by hundredths.
const ROUNDED_MOMENTS: f64 = 0.01;

#[test]
fn moments_in_eight_bits_train_like_adamw_and_resume_to_the_same_bytes() {
    let bench = Bench::new();
    let in_fp32 = losses(&bench, &[]);
    let dir = train_both_ways(&bench, ONE, &["optimizer.kind=adamw8bit"]);
    for (step, expected) in dir.read_metrics().unwrap().iter().zip(&in_fp32) {
        assert!((step.loss - expected).abs() < ROUNDED_MOMENTS, "step {}: {}", step.step, step.loss);
    }
    // A finished run keeps no state.
    let stopped = format!("output.dir={}", bench.path("stopped").display());
    let recipe = recipe(&bench, ONE, &["optimizer.kind=adamw8bit", &stopped]).unwrap();
    assert_eq!(train(&recipe, Start::Fresh, true).unwrap(), Outcome::Stopped(1));
    let state = bench.path("stopped/checkpoints/step-1/trainer/optimizer.safetensors");
    let weights = bench.weights("whole").len() as f64;
    let bytes = fs::metadata(state).unwrap().len() as f64 / weights;
    // A master and two codes; scales, of which each small parameter has its own, and the header.
    assert!((6.0..6.5).contains(&bytes), "{bytes} bytes a weight");
}

#[test]
fn adapters_over_nf4_train_as_over_the_dequantized_weights() {
    let bench = Bench::new();
    let whole = Policy::load(&bench.path("model"), Kind::Float, Device::Cpu).unwrap();
    let quantized = whole.in_nf4().unwrap();
    quantized.save(&bench.path("dequantized"), Kind::Float, Some(&bench.path("model"))).unwrap();
    let lora = ["lora.rank=4", "lora.targets=all-linear", "train.learning_rate=0.02"];
    let with = |changes: &[&'static str]| [&lora[..], changes].concat();
    let path = format!("model.path={}", bench.path("dequantized").display());
    let mut over_dequantized = with(&["train.gradient_checkpointing=true"]);
    over_dequantized.push(&path);

    let expected = losses(&bench, &over_dequantized);
    assert_eq!(expected[0], std::f64::consts::LN_2);
    let dir = train_both_ways(&bench, ONE, &with(&["model.quantization=nf4"]));
    let found: Vec<f64> = dir.read_metrics().unwrap().iter().map(|step| step.loss).collect();
    assert_eq!(found, expected, "bit for bit");
    assert_ne!(losses(&bench, &with(&[])), expected, "quantization changes the policy");

    let refused = recipe(&bench, ONE, &["model.quantization=nf4"]).unwrap_err().to_string();
    assert!(refused.contains("model.quantization") && refused.contains("set lora.rank"), "{refused}");
    let plan = |change: &'static str| {
        let recipe = recipe(&bench, ONE, &with(&[change, "output.dir=planned"])).unwrap();
        plan(&recipe, Start::Fresh, Cluster::a100s(1), &Ticking::default()).unwrap().memory
    };
    let (nf4, fp32) = (plan("model.quantization=nf4"), plan("train.gradient_checkpointing=true"));
    assert!(nf4.compute < fp32.compute && nf4.moments == fp32.moments, "{nf4:?} and {fp32:?}");
}

#[test]
fn runs_from_adapters_resume_to_the_same_bytes_and_notice_other_adapters() {
    let bench = Bench::new();
    let adapter = first_adapters(&bench);
    let changes = [&*format!("lora.init={adapter}"), "lora.dropout=0.2"];
    let dir = train_both_ways(&bench, ONE, &changes);
    let config: Value =
        serde_json::from_slice(&fs::read(dir.adapter().join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&config["r"], &config["lora_dropout"]), (&serde_json::json!(2), &serde_json::json!(0.2)));
    let base = config["base_model_name_or_path"].as_str().unwrap();
    assert_eq!(Path::new(base).file_name().unwrap(), "model");
    let record: Value = serde_json::from_slice(&fs::read(dir.provenance()).unwrap()).unwrap();
    let inputs = &record["inputs"];
    assert!(inputs["adapters"] != inputs["reference"] && inputs["model"] != inputs["reference"], "{inputs}");
    let card = fs::read_to_string(dir.model().join("README.md")).unwrap();
    assert!(card.contains("| adapters | `") && card.contains("init = \"adapter\""), "{card}");

    let recipe = recipe(&bench, ONE, &changes).unwrap();
    let planned = plan(&recipe, Start::Fresh, Cluster::a100s(1), &Ticking::default()).unwrap();
    assert!(planned.trained > 0 && planned.trained < planned.parameters / 10);
    assert_eq!(train(&recipe, Start::Fresh, true).unwrap(), Outcome::Stopped(1));
    let path = Path::new(&adapter).join("adapter_config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"lora_alpha\": 16.0", "\"lora_alpha\": 8.0")).unwrap();
    let error = train(&recipe, Start::Resume, false).unwrap_err().to_string();
    assert!(error.contains("lora.init"), "{error}");
}

#[test]
fn adapters_that_are_not_there_are_refused() {
    let bench = Bench::new();
    let refused = |changes: &[&str]| {
        let error = recipe(&bench, ONE, changes).and_then(|recipe| train(&recipe, Start::Fresh, false));
        let error = error.unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    };
    let missing = format!("lora.init={}", bench.path("missing").display());
    for (changes, says) in [
        (&["model.reference=base"][..], "neither is model.path a folder of adapters nor is lora.init set"),
        (&["model.reference=adapter", "lora.rank=2"], "neither is model.path a folder of adapters"),
        (&[&missing], "missing/adapter_config.json"),
        (&[&missing, "lora.rank=2"], "lora.rank is that of the adapters in lora.init; remove the key"),
        (&[&missing, "lora.rank_pattern={ a = 1 }"], "lora.rank_pattern is that of the adapters"),
        (&["lora.init=\"\""], "lora.init is empty"),
        (&[&missing, "distributed.zero=3"], "distributed.zero = 3 with lora.rank above 0 or lora.init"),
    ] {
        let error = refused(changes);
        assert!(error.contains(says), "{changes:?}: {error}");
    }
    let adapter = first_adapters(&bench);
    let path = Path::new(&adapter).join("adapter_config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"v_proj\"", "\"w_proj\"")).unwrap();
    let recipe = recipe(&bench, ONE, &[&format!("lora.init={adapter}")]).unwrap();
    let error = plan(&recipe, Start::Fresh, Cluster::a100s(1), &Ticking::default()).unwrap_err().to_string();
    assert!(error.contains("no projection of the model matches \"w_proj\""), "{error}");
}

#[test]
fn run_json_has_what_determined_the_run() {
    let bench = Bench::new();
    let list = "[[data]]\npath = \"@/pairs.jsonl\"\n[[data]]\npath = \"@/held-out.jsonl\"\n";
    let recipe = recipe(&bench, list, &[]).unwrap();
    assert_eq!(train(&recipe, Start::Fresh, false).unwrap(), Outcome::Finished);
    let dir = RunDir::open_finished(&bench.path("out")).unwrap();
    let record: Value = serde_json::from_slice(&fs::read(dir.provenance()).unwrap()).unwrap();
    assert_eq!(record["version"], env!("CARGO_PKG_VERSION"));
    let inputs = &record["inputs"];
    for name in ["data", "model", "reference", "tokenizer", "template"] {
        assert_eq!(inputs[name].as_str().map(str::len), Some(16), "{name} in {record}");
    }
    assert_eq!(inputs["sources"].as_array().map(Vec::len), Some(2));
    assert_eq!(inputs["total_steps"], 8);
    let machine = &record["machine"];
    assert_eq!((&machine["threads"], &machine["ranks"]), (&1.into(), &1.into()));
    assert!(machine["system"].is_string() && machine["device"] == "cpu");
    if cfg!(target_os = "linux") {
        assert!(machine["libtorch"].as_str().is_some_and(|version| version.starts_with("2.")), "{machine}");
    }
    let text = record.to_string();
    assert!(!text.contains(&*bench.path("").display().to_string()), "digests, no paths: {text}");
}

#[test]
fn the_card_describes_the_model_without_paths() {
    let bench = Bench::new();
    fs::write(bench.path("model/README.md"), "---\nlicense: apache-2.0\n---\n# Base\n").unwrap();
    let dir = train_both_ways(&bench, ONE, &["data.split=0.2", "loss.kind=ipo"]);
    let card = fs::read_to_string(dir.model().join("README.md")).unwrap();
    assert!(files::check_file(&dir.model().join("README.md")).is_ok());
    for part in [
        "---\nlibrary_name: transformers\nlicense: apache-2.0\ntags:\n- ipo\n---\n",
        "# model, ipo",
        env!("CARGO_PKG_VERSION"),
        "| pairs.jsonl | pairs | human | ",
        "| base | `",
        "## Held-out examples",
        "kind = \"ipo\"",
        "split = 0.2",
        "AutoModelForCausalLM.from_pretrained",
    ] {
        assert!(card.contains(part), "{part} is not in\n{card}");
    }
    let steps = dir.read_metrics().unwrap();
    assert!(card.contains(&format!("| {} | {:.4} |", steps.len(), steps.last().unwrap().loss)));
    let home = std::env::home_dir().unwrap_or_default().display().to_string();
    let absolute: Vec<&str> =
        card.lines().filter(|line| line.contains("\"/") || line.contains(" /")).collect();
    assert!(absolute.is_empty(), "{absolute:?}");
    for secret in [bench.path("").display().to_string(), home] {
        assert!(secret.len() < 2 || !card.contains(secret.trim_end_matches('/')), "{secret} is in\n{card}");
    }
}
