//! Tests of reading recipes and of the error messages.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use pref_data::{
    FlipRate, Fraction, LabelSource, NoiseModel, Odds, Preset, ScoreRatio, Selection, Truncation,
};
use pref_loss::{Beta, LabelSmoothing, LogpReduction, NoiseRate, PreferenceLoss};
use seeds::Seeds;
use serde::{Deserialize, Serialize};

use super::{
    Complaint, DeviceChoice, Dtype, Format, LossKind, Recipe, RecipeError, RecipeRoot, Scheduler, Smoothing,
    parse_toml, seed, to_toml,
};
use crate::Loss;

mod lora;
mod runs;

const SMALLEST: &str = r#"
[model]
path = "m"
[data]
path = "d.jsonl"
[output]
dir = "o"
"#;

/// Every key with its documented default, as TOML.
const WRITTEN_OUT: &str = r#"
seed = 0
[model]
path = "m"
reference = "m"
dtype = "bfloat16"
device = "auto"
[data]
path = "d.jsonl"
format = "pairs"
skip_bad = 0
annotator = "human"
fraction = 1.0
flip_rate = 0.0
noise = "uniform"
max_length = 1024
truncation = "keep_start"
shuffle = true
preset = "modern"
[loss]
kind = "dpo"
beta = 0.1
label_smoothing = 0.0
logp_reduction = "sum"
[train]
epochs = 3
batch_size = 16
micro_batch_size = 4
micro_batch_tokens = 0
learning_rate = 5e-7
warmup_ratio = 0.1
scheduler = "linear"
betas = [0.9, 0.999]
eps = 1e-8
weight_decay = 0.0
max_grad_norm = 1.0
checkpoints = [0.25, 0.5, 0.75, 1.0]
keep_last = 0
gradient_checkpointing = false
threads = 0
[speed]
shared_prompt = true
padding_free = true
chunked_head = true
reference_cache = true
[watch]
eval_every = 0
answers = 0
answer_tokens = 128
pair_deltas = true
[lora]
rank = 0
alpha = 16
targets = ["q_proj", "v_proj"]
[distributed]
zero = 1
[output]
dir = "o"
"#;

fn parse(text: &str, overrides: &[&str]) -> Result<Recipe, RecipeError> {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    Recipe::parse("r.toml", text, &overrides)
}

fn set(overrides: &[&str]) -> Recipe {
    parse(SMALLEST, overrides).unwrap()
}

/// Returns the error of the smallest recipe with this override, without the override's text.
fn refusal(text: &str) -> String {
    let message = parse(SMALLEST, &[text]).unwrap_err().to_string();
    message.strip_prefix(&format!("--set {text}: ")).expect("names the override").to_owned()
}

#[test]
fn defaults_match_the_documentation() {
    assert_eq!(parse(SMALLEST, &[]).unwrap(), parse(WRITTEN_OUT, &[]).unwrap());
}

#[test]
fn to_toml_writes_all_keys_and_round_trips() {
    let table = |text: &str| text.parse::<toml::Table>().unwrap();
    let mut expected = table(WRITTEN_OUT);
    // A float is written as a float; the key accepts both.
    expected["lora"]["alpha"] = toml::Value::Float(16.0);
    assert_eq!(table(&set(&[]).to_toml()), expected);
    for overrides in [
        vec![],
        vec!["loss.kind=ipo", "loss.logp_reduction=mean", "loss.beta=0.05"],
        vec![
            "loss.kind=cdpo",
            "loss.label_smoothing=0.3",
            "train.scheduler=cosine",
            "train.checkpoints=[1.0]",
        ],
        vec!["data.format=hh-rlhf", "data.truncation=keep_end", "data.fraction=0.25", "data.flip_rate=1"],
        vec!["model.dtype=float32", "model.device=cpu", "model.reference=other", "seed=9223372036854775807"],
        vec!["seed=\"18446744073709551615\"", "output.dir=a b/c", "train.learning_rate=1e-4"],
    ] {
        let recipe = set(&overrides);
        let text = recipe.to_toml();
        assert_eq!(Recipe::parse("written", &text, &[]).unwrap(), recipe, "{text}");
        recipe.check().unwrap();
    }
}

#[test]
fn overrides_accept_toml_and_bare_words_and_the_last_one_wins() {
    let recipe = set(&[
        "loss.kind = ipo",
        "loss.beta=1",
        "data.path=/some where/a=b.jsonl",
        "data.format=hh-rlhf",
        "data.fraction=0.5",
        "data.flip_rate=0.25",
        "data.truncation=\"keep_end\"",
        "data.shuffle=false",
        "model.device=cpu",
        "model.dtype=float32",
        "train.betas=[0.8, 0.99]",
        "train.scheduler=constant",
        "train.epochs=1",
        "train.epochs=2",
        "output.dir=2026-01-02",
        "seed=7",
    ]);
    assert_eq!((recipe.loss.kind, recipe.loss.beta.get()), (LossKind::Ipo, 1.0));
    assert_eq!(recipe.data[0].path, "/some where/a=b.jsonl");
    assert_eq!(recipe.data[0].format, Format::HhRlhf);
    assert_eq!((recipe.data[0].fraction.get(), recipe.data[0].flip_rate.get()), (0.5, 0.25));
    assert_eq!((recipe.data[0].truncation, recipe.data[0].shuffle), (Truncation::KeepEnd, false));
    assert_eq!((recipe.model.device, recipe.model.dtype), (DeviceChoice::Cpu, Dtype::Float32));
    assert_eq!(
        (recipe.train.betas, recipe.train.scheduler, recipe.train.epochs.get()),
        ([0.8, 0.99], Scheduler::Constant, 2.0)
    );
    assert_eq!((recipe.output.dir, recipe.seed), (PathBuf::from("2026-01-02"), 7));
}

#[test]
fn reference_defaults_to_the_model() {
    assert_eq!(set(&[]).model.reference.as_deref(), Some("m"));
    assert_eq!(set(&["model.path=other"]).model.reference.as_deref(), Some("other"));
    assert_eq!(set(&["model.reference=sft"]).model.reference.as_deref(), Some("sft"));
}

#[test]
fn losses_are_built_from_their_section() {
    let built = |overrides: &[&str]| set(overrides).loss.build().unwrap();
    let beta = Beta::new(0.2).unwrap();
    assert_eq!(built(&["loss.beta=0.2"]), Some(PreferenceLoss::Dpo { beta }.into()));
    let label_smoothing = LabelSmoothing::new(0.1).unwrap();
    assert_eq!(
        built(&["loss.kind=cdpo", "loss.beta=0.2", "loss.label_smoothing=0.1"]),
        Some(PreferenceLoss::Cdpo { beta, label_smoothing }.into())
    );
    let flipped = |kind: &str| {
        built(&[
            &format!("loss.kind={kind}"),
            "loss.beta=0.2",
            "loss.label_smoothing=flip_rate",
            "data.flip_rate=0.1",
        ])
    };
    assert_eq!(flipped("cdpo"), Some(PreferenceLoss::Cdpo { beta, label_smoothing }.into()));
    let label_smoothing = NoiseRate::new(0.1).unwrap();
    assert_eq!(flipped("robust"), Some(PreferenceLoss::Robust { beta, label_smoothing }.into()));
    assert_eq!(
        built(&["loss.kind=robust", "loss.beta=0.2", "loss.label_smoothing=0.1"]),
        Some(PreferenceLoss::Robust { beta, label_smoothing }.into())
    );
    assert_eq!(built(&["loss.kind=hinge", "loss.beta=0.2"]), Some(PreferenceLoss::Hinge { beta }.into()));
    for (word, reduction) in [("sum", LogpReduction::Sum), ("mean", LogpReduction::Mean)] {
        let word = format!("loss.logp_reduction={word}");
        assert_eq!(
            built(&["loss.kind=ipo", "loss.beta=0.2", &word]),
            Some(PreferenceLoss::Ipo { beta, reduction }.into())
        );
    }
    assert_eq!(built(&["loss.kind=sft"]), None);
}

#[test]
fn unknown_keys_suggest_the_nearest_and_list_all() {
    let file = |text: &str| parse(&format!("{SMALLEST}{text}"), &[]).unwrap_err().to_string();
    assert_eq!(
        file("\n[loss]\nbeta = 0.1\nlabel_smoothin = 0.2\n"),
        "r.toml:11: unknown key loss.label_smoothin (did you mean loss.label_smoothing?); [loss] takes kind, beta, \
         label_smoothing, logp_reduction, desirable_weight, undesirable_weight, gamma, lambda, temperature, ld_alpha, \
         wpo, divergence, dynamic_beta, terms"
    );
    assert_eq!(
        file("[trian]\nepochs = 1\n"),
        "r.toml:8: unknown key trian (did you mean train?); a recipe takes seed, model, data, loss, train, optimizer, checkpoints, speed, \
         watch, lora, distributed, output"
    );
    assert_eq!(
        refusal("distributed.zeroo=1"),
        "unknown key distributed.zeroo (did you mean distributed.zero?); [distributed] takes zero"
    );
    assert!(
        refusal("train.batch=1").starts_with("unknown key train.batch (did you mean train.batch_size?); ")
    );
    assert_eq!(refusal("distributed.qqq=1"), "unknown key distributed.qqq; [distributed] takes zero");
    assert_eq!(
        refusal("los.kind=ipo"),
        "unknown key los (did you mean loss?); a recipe takes seed, model, data, loss, train, optimizer, checkpoints, speed, watch, lora, \
         distributed, output"
    );
}

#[test]
fn values_of_the_wrong_type_name_the_expected_type() {
    assert_eq!(
        parse("[train]\nepochs = \"three\"\n", &[]).unwrap_err().to_string(),
        "r.toml:2: train.epochs is \"three\"; expected a number"
    );
    assert_eq!(refusal("train.max_steps=1.5"), "train.max_steps is 1.5; expected a whole number, at least 1");
    assert_eq!(
        refusal("train.batch_size=-1"),
        "train.batch_size is -1; expected a whole number, not below 0"
    );
    assert_eq!(refusal("data.held_out=0"), "data.held_out is 0; expected a whole number, at least 1");
    assert_eq!(refusal("train.learning_rate=fast"), "train.learning_rate is \"fast\"; expected a number");
    assert_eq!(refusal("data.shuffle=1"), "data.shuffle is 1; expected true or false");
    assert_eq!(refusal("train.betas=[0.9]"), "train.betas is a list of 1; expected a list of 2");
    assert_eq!(
        refusal("train.betas=[0.9, 0.99, 0.999]"),
        "train.betas is a list of 3; expected a shorter list"
    );
    assert_eq!(refusal("train.checkpoints=1"), "train.checkpoints is 1; expected a list");
    assert_eq!(refusal("loss=ipo"), "loss is \"ipo\"; expected a table");
    assert_eq!(refusal("loss=[\"ipo\"]"), "loss is a list; expected a table");
    assert_eq!(refusal("loss.kind=3"), "loss.kind is 3; expected a string");
    assert_eq!(refusal("model.path=7"), "model.path is 7; expected a string");
    assert_eq!(refusal("seed=-1"), "seed is -1; expected a whole number, not below 0");
}

#[test]
fn unknown_variants_list_the_known_ones() {
    assert_eq!(
        refusal("loss.kind=dop"),
        format!(
            "loss.kind is \"dop\" (did you mean \"dpop\"?); it takes {}",
            LossKind::ALL.map(|kind| format!("\"{}\"", kind.name())).join(", ")
        )
    );
    assert_eq!(
        refusal("model.dtype=float16"),
        "model.dtype is \"float16\" (did you mean \"bfloat16\"?); it takes \"bfloat16\", \"float32\""
    );
    assert_eq!(
        refusal("data.truncation=middle"),
        "data.truncation is \"middle\"; it takes \"keep_start\", \"keep_end\""
    );
    assert_eq!(
        refusal("model.device=tpu"),
        "model.device is \"tpu\"; it takes \"auto\", \"cpu\", \"cuda\" or \"cuda:N\""
    );
}

#[test]
fn values_out_of_range_are_rejected() {
    assert_eq!(refusal("loss.beta=0"), "loss.beta is 0: it must be finite and above 0 (0.1 is usual)");
    assert_eq!(
        refusal("loss.label_smoothing=1.5"),
        "loss.label_smoothing is 1.5: it must be a probability in [0, 1], in practice below 0.5"
    );
    assert_eq!(refusal("data.fraction=0"), "data.fraction is 0; it must lie in (0, 1]");
    assert_eq!(refusal("train.epochs=0"), "train.epochs is 0; it must be above 0");
    assert_eq!(refusal("train.learning_rate=nan"), "train.learning_rate is NaN; it must be above 0");
    assert_eq!(refusal("train.warmup_ratio=2"), "train.warmup_ratio is 2.0; it must be in [0, 1]");
    assert_eq!(refusal("train.betas=[0.9, 1.0]"), "train.betas is 1.0; it must be in [0, 1)");
    assert_eq!(refusal("train.checkpoints=[0.0, 1.0]"), "train.checkpoints is 0.0; it must be in (0, 1]");
    assert_eq!(
        refusal("train.checkpoints=[1.0, 0.5]"),
        "train.checkpoints are [1.0, 0.5]; list them in ascending order, each once"
    );
    assert_eq!(refusal("output.dir="), "output.dir is empty; set it to a folder for the run");
    for text in
        ["data.flip_rate=1.1", "data.flip_rate=-0.1", "data.max_length=1", "data.annotator=", "train.eps=0"]
    {
        assert!(matches!(parse(SMALLEST, &[text]), Err(RecipeError::Invalid { .. })), "{text}");
    }
}

#[test]
fn parameters_without_effect_on_the_loss_are_rejected() {
    assert_eq!(
        refusal("loss.label_smoothing=0.1"),
        "loss.label_smoothing applies only to loss.kind = \"cdpo\", \"robust\", \"exo_pair\", \"cpo\", \"aot\" or \
         \"aot_unpaired\"; choose one of them or remove the key"
    );
    let rule = ["loss.kind=robust", "loss.label_smoothing=flip_rate", "data.flip_rate=0.5"];
    assert!(parse(SMALLEST, &rule).unwrap_err().to_string().contains("must be below 0.5"));
    assert!(refusal("loss.label_smoothing=flip_rate").contains("applies only to loss.kind"));
    assert!(refusal("loss.label_smoothing=flips").contains("a number from 0 to 1, or"));
    let resolved = parse(SMALLEST, &["loss.kind=cdpo", rule[1], "data.flip_rate=0.25"]).unwrap().to_toml();
    assert!(resolved.contains("label_smoothing = 0.25"), "{resolved}");
    assert_eq!(
        parse(SMALLEST, &["loss.kind=robust", "loss.label_smoothing=0.5"]).unwrap_err().to_string(),
        "--set loss.label_smoothing=0.5: loss.label_smoothing must be below 0.5 for loss.kind = \"robust\", which divides by 1 - 2 label_smoothing"
    );
    assert_eq!(
        refusal("data.score_ratio=>= 2"),
        "data.score_ratio applies only to data.format = \"shp\"; choose that or remove the key"
    );
    assert_eq!(
        set(&["data.format=shp", "data.score_ratio=>= 2"]).data[0].score_ratio,
        Some(ScoreRatio::AtLeast(2.0))
    );
    assert_eq!(
        refusal("loss.logp_reduction=mean"),
        "loss.logp_reduction is \"mean\", which applies only to loss.kind = \"ipo\"; choose that or remove the key"
    );
}

#[test]
fn weights_of_the_labels_are_for_kto() {
    let weights = ["loss.desirable_weight=2", "loss.undesirable_weight=0.5"];
    let recipe = set(&["loss.kind=kto", weights[0], weights[1]]);
    let Some(Loss::Kto(loss)) = recipe.loss.build().unwrap() else { panic!("{:?}", recipe.loss) };
    assert_eq!((loss.desirable.get(), loss.undesirable.get()), (2.0, 0.5));
    assert_eq!(parse(&recipe.to_toml(), &[]).unwrap(), recipe);
    for weight in weights {
        let refused = refusal(weight);
        assert!(
            refused.ends_with("applies only to loss.kind = \"kto\"; choose that or remove the key"),
            "{refused}"
        );
    }
    let refused = |changes: &[&str]| parse(SMALLEST, changes).unwrap_err().to_string();
    let none = refused(&["loss.kind=kto", "loss.desirable_weight=0", "loss.undesirable_weight=0"]);
    assert!(none.ends_with("set one of them above 0"), "{none}");
    let negative = refused(&["loss.kind=kto", "loss.desirable_weight=-1"]);
    assert!(negative.contains("loss.desirable_weight"), "{negative}");
}

#[test]
fn unsupported_values_are_rejected_not_ignored() {
    let message = "not supported by this version: distributed.zero = 4; set it to 0, 1, 2 or 3";
    assert_eq!(refusal("distributed.zero=4"), message);
    let refused = parse(SMALLEST, &["distributed.zero=3", "lora.rank=4"]).unwrap_err().to_string();
    assert!(refused.contains("distributed.zero = 3 with lora.rank above 0"), "{refused}");
    assert!(parse(SMALLEST, &["distributed.zero=2", "lora.rank=4"]).is_ok());
    for text in [
        "speed.shared_prompt=false",
        "speed.padding_free=false",
        "speed.chunked_head=false",
        "speed.reference_cache=false",
        "distributed.zero=0",
        "distributed.zero=3",
        "train.gradient_checkpointing=true",
    ] {
        set(&[text]);
    }
}

#[test]
fn data_keys_are_parsed() {
    let data = set(&[
        "data.columns={prompt=\"q\",chosen=\"good\",rejected=\"bad\"}",
        "data.skip_bad=3",
        "data.sample=100000",
        "data.annotator=70% gpt-4-turbo, 30% human",
        "data.slice=human != gpt-4-turbo",
        "data.selection=stratified",
        "data.noise=by-annotator",
        "data.noise_odds={human=2}",
        "data.flip_rate=0.25",
    ])
    .data
    .remove(0);
    let seeds = Seeds::new(1);
    let reading = data.reading(&seeds);
    assert_eq!((reading.skip_bad, reading.sample.expect("a sample").records.get()), (3, 100_000));
    assert_eq!(reading.columns.expect("names").chosen.as_deref(), Some("good"));
    assert!(matches!(data.labels(), Ok(LabelSource::Mixture(_))));
    assert_eq!(data.slice.as_ref().expect("a slice").to_string(), "human != gpt-4-turbo");
    assert_eq!(data.selection(), Selection::Stratified);
    let odds = [("human".to_owned(), Odds::new(2.0).unwrap())].into();
    assert_eq!(data.noise().model, NoiseModel::ByAnnotator(odds));
    assert_eq!(set(&["data.format=records"]).data[0].format, Format::Sandbox);

    let old = set(&["data.preset=trl-0.7.10"]).data.remove(0);
    assert_eq!(old.selection(), Selection::FirstRows);
    assert_eq!(old.tokenizing().preset, Preset::Trl0710 { max_prompt_length: 512 });
    let shorter =
        set(&["data.preset=trl-0.7.10", "data.max_length=64", "data.max_prompt_length=32"]).data.remove(0);
    assert_eq!(shorter.tokenizing().preset, Preset::Trl0710 { max_prompt_length: 32 });
}

#[test]
fn data_keys_without_effect_are_rejected() {
    for (text, message) in [
        (
            "data.annotator=70% a",
            "data.annotator the sum of a mixture's shares is 0.7; it must lie in [1, 1]",
        ),
        (
            "data.noise_odds={a=2}",
            "data.noise_odds apply only to data.noise = \"by-annotator\"; choose that or remove the key",
        ),
        (
            "data.max_prompt_length=9",
            "data.max_prompt_length applies only to data.preset = \"trl-0.7.10\"; choose that or remove the key",
        ),
    ] {
        assert_eq!(refusal(text), message);
    }
    let said = parse(SMALLEST, &["data.preset=trl-0.7.10", "data.max_length=512"]).unwrap_err().to_string();
    assert!(
        said.ends_with("data.max_prompt_length is 512; it must be from 1 to below data.max_length"),
        "{said}"
    );
    let said = parse(SMALLEST, &["data.slice=human"]).unwrap_err().to_string();
    assert!(said.contains("it must be \"A = B\" or \"A != B\""), "{said}");
}

#[test]
fn missing_keys_are_reported_with_their_section() {
    let missing = |text: &str| parse(text, &[]).unwrap_err().to_string();
    assert_eq!(missing(""), "r.toml: model.path is missing; add it, or pass --set model.path=...");
    assert_eq!(missing("[model]\n"), "r.toml: model.path is missing; add it, or pass --set model.path=...");
    assert_eq!(
        missing("[model]\npath = \"m\"\n"),
        "r.toml: data.path is missing; add it, or pass --set data.path=..."
    );
    let given = ["model.path=m", "data.path=d", "output.dir=o"];
    assert_eq!(parse("", &given).unwrap().model.path, "m");
}

#[test]
fn malformed_overrides_are_rejected() {
    let refused = |text: &str| parse(SMALLEST, &[text]).unwrap_err().to_string();
    assert_eq!(refused("train.epochs"), "--set train.epochs: expected section.key=value");
    assert_eq!(
        refused("train.=1"),
        "--set train.=1: expected section.key=value, but a part of the key is empty"
    );
    assert_eq!(refused("model.path.x=1"), "--set model.path.x=1: model.path is a value, not a section");
    assert!(refused("train.betas=[0.9").starts_with("--set train.betas=[0.9: the value is not valid TOML: "));
}

#[test]
fn invalid_toml_is_reported_with_its_line() {
    let message = parse("seed = 0\n[model\npath = \"m\"\n", &[]).unwrap_err().to_string();
    assert!(message.starts_with("r.toml:2: "), "{message}");
    let message = parse("seed = 0\nseed = 1\n", &[]).unwrap_err().to_string();
    assert!(message.starts_with("r.toml:2: ") && message.contains("duplicate key"), "{message}");
}

#[test]
fn errors_in_files_name_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    let message = Recipe::load(&path, &[]).unwrap_err().to_string();
    assert_eq!(message, format!("cannot read recipe {}", path.display()));
    fs::write(&path, format!("{SMALLEST}[loss]\nbeta = -1\n")).unwrap();
    assert_eq!(
        Recipe::load(&path, &[]).unwrap_err().to_string(),
        format!("{}:9: loss.beta is -1: it must be finite and above 0 (0.1 is usual)", path.display())
    );
    fs::write(&path, SMALLEST).unwrap();
    assert_eq!(Recipe::load(&path, &[]).unwrap(), set(&[]));
    assert!(Recipe::load(Path::new("/nowhere/r.toml"), &[]).is_err());
}

#[test]
fn recipes_built_in_code_are_validated() {
    let mut recipe = set(&[]);
    recipe.train.batch_size = 0;
    assert_eq!(recipe.check().unwrap_err().to_string(), "recipe: train.batch_size is 0; give at least 1");
    let mut recipe = set(&[]);
    recipe.loss.label_smoothing = Smoothing::Fixed(LabelSmoothing::new(0.1).unwrap());
    assert!(matches!(recipe.loss.build(), Err(RecipeError::Invalid { .. })));
}

/// A recipe of another type, with a section of its own and one of the trainer's.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sweep {
    #[serde(default, with = "seed")]
    seed: u64,
    sweep: Ranges,
    #[serde(default)]
    loss: super::LossSection,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ranges {
    fractions: Vec<Fraction>,
    flip_rates: Vec<FlipRate>,
    #[serde(default)]
    names: BTreeMap<String, u8>,
}

impl RecipeRoot for Sweep {
    fn finish(&mut self) -> Result<(), Complaint> {
        if self.sweep.fractions.is_empty() {
            return Err(Complaint::invalid("fractions", "is empty; name at least one").within("sweep"));
        }
        self.loss.check().map_err(|complaint| complaint.within("loss"))
    }
}

#[test]
fn other_recipe_types_have_the_same_overrides_and_messages() {
    let text = "[sweep]\nfractions = [0.5, 1.0]\nflip_rates = [0.0]\nnames = { a = 1 }\n";
    let read = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        parse_toml::<Sweep>("sweep.toml", text, &overrides)
    };
    let sweep = read(&["sweep.flip_rates=[0, 0.25, 1]", "loss.kind=ipo"]).unwrap();
    assert_eq!(sweep.sweep.flip_rates.iter().map(|rate| rate.get()).collect::<Vec<_>>(), [0.0, 0.25, 1.0]);
    assert_eq!(parse_toml::<Sweep>("again", &to_toml(&sweep), &[]).unwrap(), sweep);
    let refused = |text: &str| read(&[text]).unwrap_err().to_string();
    assert_eq!(
        refused("sweep.fractions=[]"),
        "--set sweep.fractions=[]: sweep.fractions is empty; name at least one"
    );
    assert_eq!(
        refused("sweep.flip_rates=[0, 2]"),
        "--set sweep.flip_rates=[0, 2]: sweep.flip_rates is invalid: flip_rate is 2; it must lie in [0, 1]"
    );
    assert_eq!(
        refused("sweep.fraction=[1]"),
        "--set sweep.fraction=[1]: unknown key sweep.fraction (did you mean sweep.fractions?); [sweep] takes fractions, \
         flip_rates, names"
    );
    assert_eq!(
        parse_toml::<Sweep>("sweep.toml", "", &[]).unwrap_err().to_string(),
        "sweep.toml: sweep.fractions is missing; add it, or pass --set sweep.fractions=..."
    );
}
