//! Tests of the keys of a run's length, schedule, sources and held-out preferences.

use super::*;
use crate::{Decay, DecayShape, HeldOutMetric, Length};

#[test]
fn training_lasts_for_epochs_or_steps() {
    let length = |overrides: &[&str]| set(overrides).train.length();
    assert_eq!(length(&[]), Length::Epochs(3.0));
    assert_eq!(length(&["train.epochs=0.5"]), Length::Epochs(0.5));
    assert_eq!(length(&["train.max_steps=7"]), Length::Steps(7));
    assert!(
        set(&["train.epochs=2.5", "train.max_steps=7"]).to_toml().contains("epochs = 2.5\nmax_steps = 7\n")
    );
    assert!(set(&["train.epochs=2.0"]).to_toml().contains("epochs = 2\n"));
}

#[test]
fn schedulers_have_transformers_names() {
    let decay = |overrides: &[&str]| set(overrides).train.decay();
    assert_eq!(decay(&["train.scheduler=constant_with_warmup"]), Decay::Constant);
    let stable = |share, shape| Decay::Stable { share, shape };
    assert_eq!(decay(&["train.scheduler=wsd"]), stable(0.1, DecayShape::Cosine));
    let given = ["train.scheduler=wsd", "train.decay_ratio=0.3", "train.decay_type=1-sqrt"];
    assert_eq!(decay(&given), stable(0.3, DecayShape::OneMinusSqrt));
    assert_eq!(
        refusal("train.scheduler=polynomial"),
        "train.scheduler is \"polynomial\"; it takes \"linear\", \"cosine\", \"constant\", \"constant_with_warmup\", \
         \"warmup_stable_decay\", \"wsd\""
    );
    assert_eq!(
        refusal("train.decay_ratio=0.3"),
        "train.decay_ratio applies only to train.scheduler = \"wsd\"; choose that or remove the key"
    );
    let error = parse(SMALLEST, &["train.scheduler=wsd", "train.warmup_ratio=0.5", "train.decay_ratio=0.75"]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "--set train.decay_ratio=0.75: train.decay_ratio and train.warmup_ratio add up to 1.25; together they are at most 1"
    );
}

/// A recipe with these sources and no other keys.
fn sources(tables: &[&str]) -> String {
    let data: String = tables.iter().map(|keys| format!("[[data]]\n{keys}\n")).collect();
    format!("[model]\npath = \"m\"\n{data}[output]\ndir = \"o\"\n")
}

fn refused(tables: &[&str], overrides: &[&str]) -> String {
    parse(&sources(tables), overrides).unwrap_err().to_string()
}

#[test]
fn data_is_a_table_or_a_list_of_tables() {
    let first = "path = \"a\"\nformat = \"gair\"\nannotator = \"gpt-4\"\nmax_length = 512\nweight = 3";
    let text = sources(&[first, "path = \"b\"\nweight = 1\nsplit = 0.25"]);
    let recipe = parse(&text, &["data.1.skip_bad=2"]).unwrap();
    let [a, b] = &recipe.data[..] else { panic!("{:?}", recipe.data) };
    assert_eq!((a.path.as_str(), a.format, a.weight), ("a", Format::Gair, Some(3.0)));
    assert_eq!((b.path.as_str(), b.format, b.annotator.as_str()), ("b", Format::Pairs, "human"));
    assert_eq!(
        (b.skip_bad, b.split, b.max_length),
        (2, Some(0.25), 512),
        "tokenization is the first source's"
    );
    assert!(recipe.has_held_out() && !a.has_held_out());
    assert_eq!(Recipe::parse("written", &recipe.to_toml(), &[]).unwrap(), recipe);

    let one = parse(&sources(&["path = \"d.jsonl\""]), &[]).unwrap();
    assert_eq!(one, Recipe::parse("r.toml", SMALLEST, &[]).unwrap());
    assert!(one.to_toml().contains("[data]\n"), "{}", one.to_toml());
}

#[test]
fn errors_in_a_source_name_its_index() {
    let two = ["path = \"a\"", "path = \"b\"\nlength = 3"];
    let unknown = refused(&two, &[]);
    assert!(unknown.starts_with("r.toml:7: unknown key data.1.length"), "{unknown}");
    let two = ["path = \"a\"", "format = \"pairs\""];
    assert_eq!(refused(&two, &[]), "r.toml: data.1.path is missing; add it, or pass --set data.1.path=...");
    let two = ["path = \"a\"", "path = \"b\""];
    assert_eq!(
        refused(&two, &["data.0.path="]),
        "--set data.0.path=: data.0.path is empty; set it to a preference file"
    );
    for (change, reason) in [
        ("data.path=c", "data is a list; name one of its tables, as in data.0.path"),
        ("data.2.path=c", "data has 2 tables, numbered from 0"),
        ("data.b.path=c", "data has 2 tables, numbered from 0"),
    ] {
        assert_eq!(refused(&two, &[change]), format!("--set {change}: {reason}"));
    }
    assert_eq!(
        refused(&two, &["data.1.max_length=64"]),
        "--set data.1.max_length=64: data.1.max_length holds for all sources; set it in the first [[data]] only"
    );
    assert!(parse(&sources(&two), &["data.0.max_length=64", "data.1.max_length=64"]).is_ok());
    assert_eq!(
        refused(&[], &["data=[]"]),
        "--set data=[]: data is an empty list; add a [[data]] with a path"
    );
    assert_eq!(refused(&[], &["data=3"]), "--set data=3: data is 3; expected a table, or a list of tables");
}

#[test]
fn weights_and_counts_are_checked() {
    let two = ["path = \"a\"", "path = \"b\""];
    let weights = ["data.0.weight=1", "data.1.weight=2"];
    assert!(parse(&sources(&two), &weights).is_ok());
    assert!(parse(&sources(&two), &["data.0.count=10"]).is_ok());
    assert_eq!(
        refused(&two, &["data.0.weight=1"]),
        "r.toml:5: data.1.weight is missing, and other sources have one; give each source a weight, or none"
    );
    assert_eq!(
        refused(&two, &[weights[0], weights[1], "data.1.count=10"]),
        "--set data.1.weight=2: data.1.weight takes the place of count; remove one of them"
    );
    for weight in ["0", "-1", "nan", "inf"] {
        let text = refused(&two, &[weights[0], &format!("data.1.weight={weight}")]);
        assert!(text.contains("data.1.weight is") && text.ends_with("it must be above 0"), "{text}");
    }
    assert!(refused(&two, &["data.1.count=0"]).contains("data.1.count"));
    assert_eq!(
        refusal("data.weight=1"),
        "data.weight is for a list of sources; remove it, or add another [[data]]"
    );
    assert_eq!(set(&["data.count=5"]).data[0].count.map(NonZeroUsize::get), Some(5));
    let rule = ["loss.kind=cdpo", "loss.label_smoothing=flip_rate", "data.0.flip_rate=0.1"];
    assert_eq!(
        refused(&two, &rule),
        "--set loss.label_smoothing=flip_rate: loss.label_smoothing is the rule \"flip_rate\", but the sources have \
         different ones; set a number"
    );
    let same = [rule[0], rule[1], rule[2], "data.1.flip_rate=0.1"];
    assert!(parse(&sources(&two), &same).unwrap().to_toml().contains("label_smoothing = 0.1"));
}

#[test]
fn a_share_is_held_out_in_place_of_a_number() {
    let records = |change: &str, all| set(&[change]).data[0].held_out_records(all).map(NonZeroUsize::get);
    assert_eq!(records("data.split=0.1", 200), Some(20));
    assert_eq!(records("data.split=0.1", 3), Some(1), "at least one");
    assert_eq!(records("data.held_out=7", 200), Some(7));
    assert_eq!(records("data.fraction=0.5", 200), None);
    for split in ["0", "1", "1.5", "nan"] {
        let text = refusal(&format!("data.split={split}"));
        assert!(text.starts_with("data.split is") && text.ends_with("it must be in (0, 1)"), "{text}");
    }
    for other in ["data.held_out=3", "data.eval_path=e"] {
        let text = parse(SMALLEST, &["data.split=0.1", other]).unwrap_err().to_string();
        assert!(text.contains("data.split takes the place of eval_path and held_out"), "{text}");
    }
}

#[test]
fn early_stopping_and_the_best_checkpoint_require_held_out_preferences() {
    let patience = "train.early_stopping.patience=2";
    let best = "checkpoints.best=eval/accuracy";
    let needs =
        "requires held-out preferences; set data.split, data.held_out or data.eval_path, or remove the key";
    assert_eq!(refusal(patience), format!("train.early_stopping.patience {needs}"));
    assert_eq!(refusal(best), format!("checkpoints.best {needs}"));
    let recipe = set(&["data.split=0.1", patience, best]);
    let rule = recipe.train.early_stopping.unwrap().build();
    assert_eq!((rule.metric, rule.patience, rule.threshold), (HeldOutMetric::Loss, 2, 0.0));
    assert_eq!(recipe.checkpoints.best, Some(HeldOutMetric::Accuracy));
    assert_eq!(Recipe::parse("written", &recipe.to_toml(), &[]).unwrap(), recipe);
    let of_log = set(&["data.split=0.1", "checkpoints.best=eval_rewards/margins"]);
    assert_eq!(of_log.checkpoints.best, Some(HeldOutMetric::Margin));
    let refused =
        |change: &str| parse(SMALLEST, &["data.split=0.1", patience, change]).unwrap_err().to_string();
    assert!(refused("checkpoints.best=accuracy").contains("it takes \"eval/loss\""));
    assert!(refused("train.early_stopping.patience=0").contains("expected a whole number, at least 1"));
    assert!(refused("train.early_stopping={}").contains("train.early_stopping.patience is missing"));
    assert!(refused("train.early_stopping.threshold=-1").contains("it must be at least 0"));
    let text = parse(SMALLEST, &["data.split=0.1", best, "train.checkpoints=[]"]).unwrap_err().to_string();
    assert!(text.ends_with("list some in train.checkpoints, or remove the key"), "{text}");
}

#[test]
fn measurements_require_held_out_preferences() {
    let needs =
        "requires held-out preferences; set data.split, data.held_out or data.eval_path, or remove the key";
    assert_eq!(refusal("watch.eval_every=10"), format!("watch.eval_every {needs}"));
    assert_eq!(refusal("watch.answers=8"), format!("watch.answers {needs}"));
    let recipe = set(&["data.eval_path=e.jsonl", "watch.eval_every=10", "watch.answers=8"]);
    assert_eq!((recipe.watch.eval_every, recipe.watch.answers), (10, 8));
    let split = set(&["data.held_out=16", "watch.answers=8"]);
    assert_eq!(split.data[0].held_out.map(NonZeroUsize::get), Some(16));
    let refused = |changes: &[&str]| parse(SMALLEST, changes).unwrap_err().to_string();
    assert!(refused(&["data.held_out=0"]).contains("data.held_out"));
    assert!(
        refused(&["data.held_out=16", "data.eval_path=e.jsonl"])
            .contains("takes the place of data.eval_path")
    );
}
