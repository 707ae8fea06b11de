//! Supervised training: conversations, demonstrations, and held-out ones.

use std::fs;

use serde_json::{Value, json};
use trainer::{Cluster, HeldOutMetric, Outcome, Preview, RunDir, Start, TrainError, plan, preview};

use super::ranks::Bench;
use super::{ONE, Ticking, recipe, train, train_both_ways};

/// Writes one conversation: messages of user and assistant in turn, of which the last is the response.
fn write_conversation(bench: &Bench, name: &str, turns: &[&str]) {
    let message = |(at, text): (usize, &&str)| {
        let role = if at % 2 == 0 { "user" } else { "assistant" };
        json!({"role": role, "content": text})
    };
    let mut messages: Vec<Value> = turns.iter().enumerate().map(message).collect();
    let chosen = messages.split_off(messages.len() - 1);
    let rejected = [json!({"role": "assistant", "content": "b ."})];
    let row = json!({"prompt": messages, "chosen": chosen, "rejected": rejected});
    fs::write(bench.path(name), format!("{row}\n")).unwrap();
}

/// Returns the loss before the first update, over the tokens that are trained on.
fn first_loss(bench: &Bench, name: &str, changes: &[&str]) -> f64 {
    let data = format!("[data]\npath = \"@/{name}\"\n");
    let out = format!("output.dir={}", bench.path(&format!("{name}-{}", changes.join("-"))).display());
    let recipe =
        recipe(bench, &data, &[changes, &["loss.kind=sft", "train.max_steps=1", &*out]].concat()).unwrap();
    assert_eq!(train(&recipe, Start::Fresh, false).unwrap(), Outcome::Finished);
    RunDir::open_finished(&recipe.output.dir).unwrap().read_metrics().unwrap()[0].loss
}

/// Returns the number of tokens of a file's response.
fn response_tokens(bench: &Bench, name: &str) -> f64 {
    let recipe = recipe(bench, &format!("[data]\npath = \"@/{name}\"\n"), &[]).unwrap();
    let Preview::Pairs(pairs) = preview(&recipe, 1).unwrap() else { panic!("pairs") };
    pairs[0].chosen_ids.len() as f64
}

#[test]
fn supervised_training_learns_the_response_every_turn_of_the_assistant_or_all() {
    let bench = Bench::new();
    let turns = ["Say a b .", "a b .", "Say c .", "c a b ."];
    write_conversation(&bench, "one.jsonl", &turns[..2]);
    write_conversation(&bench, "both.jsonl", &turns);
    let (first, second) = (response_tokens(&bench, "one.jsonl"), response_tokens(&bench, "both.jsonl"));
    assert!(first != second);
    let of_first = first_loss(&bench, "one.jsonl", &[]);
    let of_second = first_loss(&bench, "both.jsonl", &[]);
    let of_both = first_loss(&bench, "both.jsonl", &["data.train_on=assistant"]);
    // The mean over both turns, each of which sees what comes before it.
    let expected = (first * of_first + second * of_second) / (first + second);
    assert!((of_both - expected).abs() < 1e-5 * expected, "{of_both} instead of {expected}");
    let of_all = first_loss(&bench, "both.jsonl", &["data.train_on=all"]);
    assert!(of_all.is_finite() && (of_all - of_both).abs() > 1e-3, "{of_all}");
}

#[test]
fn packed_conversations_do_not_see_each_other() {
    let bench = Bench::new();
    write_conversation(&bench, "one.jsonl", &["Say a b .", "a b ."]);
    write_conversation(&bench, "two.jsonl", &["Say c .", "c a b .", "Say a .", "a ."]);
    let lines = ["one.jsonl", "two.jsonl"].map(|name| fs::read_to_string(bench.path(name)).unwrap());
    fs::write(bench.path("list.jsonl"), lines.concat()).unwrap();
    let keys = ["data.train_on=assistant", "train.micro_batch_tokens=4096"];
    let packed = first_loss(&bench, "list.jsonl", &keys);
    let padded = first_loss(&bench, "list.jsonl", &[keys[0], "speed.padding_free=false"]);
    let alone = first_loss(&bench, "list.jsonl", &[keys[0], "train.micro_batch_size=1"]);
    for other in [padded, alone] {
        assert!((packed - other).abs() < 1e-5 * packed, "{packed} and {other}");
    }
}

#[test]
fn text_has_no_turns_to_train_on() {
    let bench = Bench::new();
    let plain = recipe(&bench, ONE, &["loss.kind=sft", "data.train_on=assistant"]).unwrap();
    let refused = train(&plain, Start::Fresh, false).unwrap_err();
    assert!(refused.is_bad_input());
    assert!(
        refused.to_string().contains("data.train_on is \"assistant\", but the record 1 is text"),
        "{refused}"
    );
    let Err(error) = recipe(&bench, ONE, &["data.train_on=all"]) else { panic!("DPO has no such choice") };
    assert!(error.to_string().contains("applies only to loss.kind = \"sft\""), "{error}");
}

/// Writes conversations of two turns each, as rows of `messages`.
fn write_chats(bench: &Bench, name: &str, count: usize) {
    let line = |k: usize| {
        let text = |words: usize| "a b c d e ".repeat(words)[..2 * words].to_owned() + ".";
        let turn = |role: &str, words: usize| json!({"role": role, "content": text(words)});
        let messages = [
            turn("user", 1 + k * 7 % 11),
            turn("assistant", 1 + k * 5 % 13),
            turn("user", 1 + k % 3),
            turn("assistant", 1 + k * 3 % 7),
        ];
        json!({"messages": messages}).to_string() + "\n"
    };
    fs::write(bench.path(name), (0..count).map(line).collect::<String>()).unwrap();
}

const CHATS: &str = "[data]\npath = \"@/chats.jsonl\"\n";

#[test]
fn demonstrations_train_as_the_same_pairs_do() {
    let bench = Bench::new();
    let turns = ["Say a b .", "a b .", "Say c .", "c a b ."];
    write_conversation(&bench, "pair.jsonl", &turns);
    let row: Value = serde_json::from_str(&fs::read_to_string(bench.path("pair.jsonl")).unwrap()).unwrap();
    let messages = [row["prompt"].as_array().unwrap().as_slice(), row["chosen"].as_array().unwrap()].concat();
    fs::write(bench.path("chat.jsonl"), json!({"messages": messages}).to_string()).unwrap();
    let split = json!({"prompt": row["prompt"], "completion": row["chosen"]});
    fs::write(bench.path("split.jsonl"), split.to_string()).unwrap();
    let labeled = [(&row["chosen"], true), (&row["rejected"], false)].map(
        |(completion, label)| json!({"prompt": row["prompt"], "completion": completion, "label": label}),
    );
    fs::write(bench.path("labeled.jsonl"), format!("{}\n{}", labeled[0], labeled[1])).unwrap();
    for train_on in ["response", "assistant", "all"] {
        let changes = [&*format!("data.train_on={train_on}")];
        let expected = first_loss(&bench, "pair.jsonl", &changes);
        for name in ["chat.jsonl", "split.jsonl", "labeled.jsonl"] {
            assert_eq!(first_loss(&bench, name, &changes), expected, "{name}, {train_on}");
        }
    }
}

#[test]
fn held_out_conversations_have_the_loss_of_training_ones() {
    let bench = Bench::new();
    write_chats(&bench, "chats.jsonl", 8);
    for train_on in ["response", "assistant"] {
        // The first step trains on the whole file, which is also held out.
        let same = format!("data.eval_path={}", bench.path("chats.jsonl").display());
        let out = format!("output.dir={}", bench.path(&format!("same-{train_on}")).display());
        let changes = [&*same, &*out, "loss.kind=sft", &*format!("data.train_on={train_on}")];
        let recipe = recipe(&bench, CHATS, &changes).unwrap();
        assert_eq!(train(&recipe, Start::Fresh, false).unwrap(), Outcome::Finished);
        let dir = RunDir::open_finished(&recipe.output.dir).unwrap();
        let (evaluations, steps) = (dir.read_evaluations().unwrap(), dir.read_metrics().unwrap());
        let (before, first) = (evaluations[0].loss, steps[0].loss);
        assert!((before - first).abs() < 1e-5 * first, "{before} and {first}");
        assert!(evaluations.last().unwrap().loss < before, "it learns");
        assert!(evaluations[0].preference.is_none());
        let line = fs::read_to_string(dir.root().join("eval.jsonl")).unwrap();
        assert!(!line.contains("rewards"), "{line}");
    }
}

#[test]
fn supervised_training_stops_early_and_keeps_its_best_checkpoint() {
    let bench = Bench::new();
    write_chats(&bench, "chats.jsonl", 24);
    let changes = [
        "loss.kind=sft",
        "train.learning_rate=1e-2",
        "train.epochs=20",
        "train.checkpoints=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]",
        "train.early_stopping={ patience = 1 }",
        "checkpoints.best=eval/loss",
    ];
    let planned = recipe(&bench, CHATS, &[&["data.split=0.25"], &changes[..]].concat()).unwrap();
    let planned = plan(&planned, Start::Fresh, Cluster::a100s(1), &Ticking::default()).unwrap();
    assert!(planned.examples <= 18 && planned.tokenized.pairs_in == planned.examples);
    // What is learnt makes answers of other words less likely, whatever the rounding of this processor.
    write_conversation(&bench, "other.jsonl", &["Say c .", "e d c b a e d c ."]);
    let other = format!("data.eval_path={}", bench.path("other.jsonl").display());
    let dir = train_both_ways(&bench, CHATS, &[&[&*other], &changes[..]].concat());
    let losses: Vec<f64> = dir.read_evaluations().unwrap().iter().map(|metrics| metrics.loss).collect();
    assert!(dir.read_metrics().unwrap().len() < planned.total_steps as usize, "{losses:?}");
    let (_, best) = dir.best_checkpoint(HeldOutMetric::Loss).unwrap().unwrap();
    let weights = |folder: &std::path::Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&best) == weights(&dir.model()));
}

#[test]
fn what_supervised_training_does_not_measure_is_refused() {
    let bench = Bench::new();
    let refused = |change: &str, words: &str| {
        let keys = ["loss.kind=sft", "data.split=0.25", change];
        let Err(TrainError::Recipe(error)) = recipe(&bench, ONE, &keys) else { panic!("{change}") };
        assert!(error.to_string().contains(words), "{error}");
    };
    refused("checkpoints.best=eval/accuracy", "checkpoints.best compares two responses");
    refused(
        "train.early_stopping={ patience = 1, metric = \"eval/margin\" }",
        "metric compares two responses",
    );
    refused("watch.answers=2", "watch.answers compares the policy with a reference");
    write_chats(&bench, "chats.jsonl", 3);
    for (change, words) in [
        ("data.flip_rate=0.1", "data.flip_rate applies to pairs"),
        ("loss.kind=dpo", "field `chosen` is missing"),
    ] {
        let recipe = recipe(&bench, CHATS, &["loss.kind=sft", change]).unwrap();
        let error = train(&recipe, Start::Fresh, false).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
