//! Distributed training equals training of one process, and invalid setups are errors at the start.

mod ranks;

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use ranks::{Bench, Rank, STOPPED, become_rank, fail, ranks, succeed};
use test_support::{REORDERED_FP32, free_port};
use trainer::RunDir;

/// Runs the bench's recipe on a number of ranks into `out`.
fn train(test: &str, bench: &Bench, world_size: usize, out: &str) {
    let ranks = ranks(bench, world_size).into_iter().map(|rank| rank.with(&format!("output.dir={out}")));
    succeed(test, &ranks.collect::<Vec<_>>(), 0);
}

fn read(bench: &Bench, out: &str, file: &str) -> Vec<u8> {
    fs::read(bench.path(out).join(file)).unwrap()
}

fn close(what: &str, a: f64, b: f64) {
    assert!((a - b).abs() <= REORDERED_FP32 * a.abs().max(1.0), "{what}: {a} and {b}");
}

/// Returns the distance of two weight vectors, relative to their distance from the initial weights.
fn apart(a: &[f32], b: &[f32], start: &[f32]) -> f64 {
    let distance = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    distance(a, b) / distance(a, start)
}

#[test]
fn one_two_and_four_ranks_agree() {
    become_rank();
    let (test, bench) = ("one_two_and_four_ranks_agree", Bench::new());
    for (world_size, out) in [(1, "one"), (2, "two"), (4, "four")] {
        train(test, &bench, world_size, out);
    }
    let start = policy_weights(&bench);
    let (alone, weights) = (bench.metrics("one"), bench.weights("one"));
    assert_eq!(alone.len(), 2 * 3, "22 pairs make two batches of 8 and one of 6");
    assert!(alone[5].loss < alone[0].loss, "it learns: {alone:?}");
    for out in ["two", "four"] {
        for (a, b) in alone.iter().zip(&bench.metrics(out)) {
            let step = a.step;
            close("loss", a.loss, b.loss);
            close("gradient norm", a.grad_norm, b.grad_norm);
            assert_eq!((a.step, a.tokens, a.learning_rate), (b.step, b.tokens, b.learning_rate));
            assert!(a.preference.is_some() && b.preference.is_some());
            for ((name, a), (_, b)) in a.series().iter().zip(b.series()) {
                // A policy close to its reference prefers either response by rounding.
                let is_settled = *name != "rewards/accuracies" || step > 2;
                if name.contains('/') && is_settled {
                    close(name, *a, b);
                }
            }
        }
        let other = bench.weights(out);
        assert!(apart(&weights, &other, &start) < 1e-3, "{}", apart(&weights, &other, &start));
        assert_eq!(reference_cache(&bench, "one"), reference_cache(&bench, out), "bitwise equal");
        assert_eq!(reference_cache(&bench, out).len(), 2, "one for the pairs and one for the held-out pairs");
        let evaluations =
            |out: &str| RunDir::open_finished(&bench.path(out)).unwrap().read_evaluations().unwrap();
        assert_eq!(evaluations("one").len(), evaluations(out).len());
        for (a, b) in evaluations("one").iter().zip(evaluations(out)) {
            close("held-out loss", a.loss, b.loss);
            close("held-out margin", a.margin().unwrap(), b.margin().unwrap());
            close("answers' length", a.answer_tokens.unwrap(), b.answer_tokens.unwrap());
        }
    }
}

#[test]
fn unpaired_preferences_train_alike_on_one_and_three_ranks() {
    become_rank();
    let (test, bench) = ("unpaired_preferences_train_alike_on_one_and_three_ranks", Bench::new());
    bench.write_unpaired("unpaired.jsonl", 10);
    // The last batch has two examples: one of three ranks has none.
    let changes = ["loss.kind=kto", "data.path=unpaired.jsonl", "data.flip_rate=0.0", "watch.answers=0"];
    for (world_size, out) in [(1, "one"), (3, "three")] {
        let ranks = ranks(&bench, world_size).into_iter().map(|rank| {
            changes.iter().fold(rank.with(&format!("output.dir={out}")), |rank, change| rank.with(change))
        });
        succeed(test, &ranks.collect::<Vec<_>>(), 0);
    }
    let (alone, together) = (bench.metrics("one"), bench.metrics("three"));
    assert_eq!((alone.len(), together.len()), (2 * 2, 2 * 2));
    for (a, b) in alone.iter().zip(&together) {
        let (of_one, of_three) = (a.unpaired.unwrap(), b.unpaired.unwrap());
        assert_eq!(
            (of_one.desirable, of_one.undesirable, a.tokens),
            (of_three.desirable, of_three.undesirable, b.tokens)
        );
        assert!(a.preference.is_none() && a.kl.is_some());
        for ((name, a), (other, b)) in a.series().iter().zip(b.series()) {
            assert_eq!(*name, other);
            if *name != "step_seconds" {
                close(name, *a, b);
            }
        }
    }
    assert_eq!(reference_cache(&bench, "one"), reference_cache(&bench, "three"), "bitwise equal");
    let files = reference_cache(&bench, "three").len();
    assert_eq!(
        files, 3,
        "one for the completions, two for the held-out pairs and their mismatched responses"
    );
    let held_out = RunDir::open_finished(&bench.path("three")).unwrap().read_evaluations().unwrap();
    assert_eq!(held_out.len(), 3, "pairs are held out at the start and at both checkpoints");
}

#[test]
fn ranks_stop_early_together_by_held_out_demonstrations() {
    become_rank();
    let (test, bench) = ("ranks_stop_early_together_by_held_out_demonstrations", Bench::new());
    let row = |k: usize, words: &str| {
        let prompt = format!("Say {}.", "a b c ".repeat(1 + k % 4));
        serde_json::json!({"prompt": prompt, "completion": words.repeat(1 + k % 5)}).to_string() + "\n"
    };
    let rows =
        |numbers: std::ops::Range<usize>, words: &str| numbers.map(|k| row(k, words)).collect::<String>();
    fs::write(bench.path("train.jsonl"), rows(0..16, "d e ")).unwrap();
    // Three examples: the second of two ranks has fewer. What is learnt makes their words less likely.
    fs::write(bench.path("eval.jsonl"), rows(16..19, "a b ")).unwrap();
    let changes = [
        "loss.kind=sft",
        "data.path=train.jsonl",
        "data.eval_path=eval.jsonl",
        "data.flip_rate=0.0",
        "watch.answers=0",
        "watch.eval_every=1",
        "train.epochs=20",
        "train.learning_rate=1e-2",
        "train.early_stopping={ patience = 2 }",
    ];
    for (world_size, zero, out) in [(1, 0, "one"), (2, 0, "two"), (2, 3, "shared")] {
        let ranks = ranks(&bench, world_size).into_iter().map(|rank| {
            let rank = rank.with(&format!("output.dir={out}")).with(&format!("distributed.zero={zero}"));
            changes.iter().fold(rank, |rank, change| rank.with(change))
        });
        succeed(test, &ranks.collect::<Vec<_>>(), 0);
    }
    let evaluations =
        |out: &str| RunDir::open_finished(&bench.path(out)).unwrap().read_evaluations().unwrap();
    let alone = evaluations("one");
    assert!((3..40).contains(&alone.len()), "{alone:?}");
    for out in ["two", "shared"] {
        assert_eq!(evaluations(out).len(), alone.len(), "{out} ends at the same step");
        for (a, b) in alone.iter().zip(evaluations(out)) {
            close("held-out loss", a.loss, b.loss);
        }
    }
}

fn policy_weights(bench: &Bench) -> Vec<f32> {
    fs::create_dir_all(bench.path("start")).unwrap();
    let (from, to) = (bench.path("model/model.safetensors"), bench.path("start/model"));
    fs::create_dir_all(&to).unwrap();
    fs::copy(from, to.join("model.safetensors")).unwrap();
    fs::copy(bench.path("model/config.json"), to.join("config.json")).unwrap();
    bench.weights("start")
}

/// Returns the files of the reference's log-probabilities with their content.
fn reference_cache(bench: &Bench, out: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(bench.path(out).join("reference")).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn two_ranks_are_deterministic_and_resume_after_a_signal_to_one() {
    become_rank();
    let test = "two_ranks_are_deterministic_and_resume_after_a_signal_to_one";
    let bench = Bench::new();
    for out in ["first", "second"] {
        train(test, &bench, 2, out);
    }
    let stopped = |rank: Rank| rank.with("output.dir=stopped");
    let [leader, other]: [Rank; 2] = ranks(&bench, 2).try_into().unwrap();
    succeed(test, &[stopped(leader), stopped(other).stopped_after(2)], STOPPED);
    let left =
        RunDir::open(&bench.path("stopped"), &recipe_of(&bench, "stopped"), trainer::Start::Resume).unwrap();
    let steps: Vec<u64> = left.read_metrics().unwrap().iter().map(|metrics| metrics.step).collect();
    let (last, _) = left.list_checkpoints().unwrap().pop().unwrap();
    assert_eq!(steps.last(), Some(&last), "the last step is in a checkpoint");
    train(test, &bench, 2, "stopped");
    for file in ["model/model.safetensors", "checkpoints/step-3/model.safetensors", "pair_deltas.parquet"] {
        let first = read(&bench, "first", file);
        assert!(first == read(&bench, "second", file), "{file} differs between two runs");
        assert!(first == read(&bench, "stopped", file), "{file} differs after a stop");
    }
}

#[test]
fn a_run_resumes_with_another_number_of_ranks() {
    become_rank();
    let (test, bench) = ("a_run_resumes_with_another_number_of_ranks", Bench::new());
    let with = |rank: Rank, out: &str| {
        rank.with("train.epochs=12").with("watch.answers=0").with(&format!("output.dir={out}"))
    };
    let run = |world_size: usize, out: &str, steps: Option<usize>| {
        let mut ranks: Vec<Rank> =
            ranks(&bench, world_size).into_iter().map(|rank| with(rank, out)).collect();
        let last = ranks.pop().unwrap();
        ranks.push(steps.map_or(last.clone(), |steps| last.stopped_after(steps)));
        succeed(test, &ranks, if steps.is_some() { STOPPED } else { 0 });
    };
    run(1, "undisturbed", None);
    for (world_size, steps, parts) in [(1, 4, 1), (2, 12, 2), (4, 22, 4)] {
        run(world_size, "wandering", Some(steps));
        let dir =
            RunDir::open(&bench.path("wandering"), &recipe_of(&bench, "wandering"), trainer::Start::Resume);
        let (_, newest) = dir.unwrap().list_checkpoints().unwrap().pop().unwrap();
        let files = fs::read_dir(newest.join("trainer")).unwrap().map(|entry| entry.unwrap().path());
        let tensors: Vec<_> = files.filter(|path| path.extension().unwrap() == "safetensors").collect();
        assert_eq!(tensors.len(), parts, "{tensors:?}");
    }
    run(1, "wandering", None);
    let (one, other) = (bench.metrics("undisturbed"), bench.metrics("wandering"));
    assert_eq!((one.len(), other.len()), (36, 36));
    for (a, b) in one.iter().zip(&other) {
        assert_eq!((a.step, a.tokens), (b.step, b.tokens));
        assert!((a.loss - b.loss).abs() <= 1e-5, "step {}: {} and {}", a.step, a.loss, b.loss);
    }
}

#[test]
fn sharded_and_replicated_states_agree_bitwise() {
    become_rank();
    let (test, bench) = ("sharded_and_replicated_states_agree_bitwise", Bench::new());
    for (zero, out) in [("0", "each"), ("1", "shared")] {
        let zero = format!("distributed.zero={zero}");
        let ranks: Vec<Rank> = ranks(&bench, 2)
            .into_iter()
            .map(|rank| rank.with(&zero).with("train.max_grad_norm=0").with(&format!("output.dir={out}")))
            .collect();
        succeed(test, &ranks, 0);
    }
    for file in ["model/model.safetensors", "checkpoints/step-3/model.safetensors", "pair_deltas.parquet"] {
        assert!(read(&bench, "each", file) == read(&bench, "shared", file), "{file} differs");
    }
}

#[test]
fn all_stages_on_two_and_four_ranks_agree_with_one_process() {
    become_rank();
    let (test, bench) = ("all_stages_on_two_and_four_ranks_agree_with_one_process", Bench::new());
    train(test, &bench, 1, "one");
    let evaluations =
        |out: &str| RunDir::open_finished(&bench.path(out)).unwrap().read_evaluations().unwrap();
    let (start, alone, weights) = (policy_weights(&bench), bench.metrics("one"), bench.weights("one"));
    for (world_size, zero) in [(2, 2), (2, 3), (4, 2), (4, 3)] {
        let out = format!("stage-{zero}-of-{world_size}");
        let ranks = ranks(&bench, world_size).into_iter();
        let with =
            |rank: Rank| rank.with(&format!("distributed.zero={zero}")).with(&format!("output.dir={out}"));
        succeed(test, &ranks.map(with).collect::<Vec<_>>(), 0);
        let metrics = bench.metrics(&out);
        assert_eq!(metrics.len(), alone.len());
        for (a, b) in alone.iter().zip(&metrics) {
            assert!((a.loss - b.loss).abs() <= 1e-5, "{out}, step {}: {} and {}", a.step, a.loss, b.loss);
            assert_eq!((a.step, a.tokens, a.learning_rate), (b.step, b.tokens, b.learning_rate));
        }
        for (a, b) in evaluations("one").iter().zip(evaluations(&out)) {
            close("held-out loss", a.loss, b.loss);
            close("answers' length", a.answer_tokens.unwrap(), b.answer_tokens.unwrap());
            close("KL", a.kl.unwrap(), b.kl.unwrap());
        }
        let other = bench.weights(&out);
        assert!(apart(&weights, &other, &start) < 1e-3, "{out}: {}", apart(&weights, &other, &start));
        assert_eq!(reference_cache(&bench, "one"), reference_cache(&bench, &out), "{out}: bitwise equal");
    }
}

#[test]
fn a_run_resumes_at_another_stage_with_another_number_of_ranks() {
    become_rank();
    let (test, bench) = ("a_run_resumes_at_another_stage_with_another_number_of_ranks", Bench::new());
    let run = |world_size: usize, zero: u8, out: &str, steps: Option<usize>| {
        let with = |rank: Rank| {
            let rank = rank.with("train.epochs=10").with("watch.answers=0");
            rank.with(&format!("distributed.zero={zero}")).with(&format!("output.dir={out}"))
        };
        let mut ranks: Vec<Rank> = ranks(&bench, world_size).into_iter().map(with).collect();
        let last = ranks.pop().unwrap();
        ranks.push(steps.map_or(last.clone(), |steps| last.stopped_after(steps)));
        succeed(test, &ranks, if steps.is_some() { STOPPED } else { 0 });
    };
    run(1, 1, "undisturbed", None);
    for (world_size, zero, steps) in [(2, 3, 4), (4, 2, 9), (3, 1, 14), (2, 0, 19), (4, 3, 24)] {
        run(world_size, zero, "wandering", Some(steps));
    }
    run(2, 2, "wandering", None);
    let (one, other) = (bench.metrics("undisturbed"), bench.metrics("wandering"));
    assert_eq!((one.len(), other.len()), (30, 30));
    for (a, b) in one.iter().zip(&other) {
        assert_eq!((a.step, a.tokens), (b.step, b.tokens));
        assert!((a.loss - b.loss).abs() <= 1e-5, "step {}: {} and {}", a.step, a.loss, b.loss);
    }
}

fn recipe_of(bench: &Bench, out: &str) -> String {
    fs::read_to_string(bench.path(out).join("recipe.toml")).unwrap()
}

/// Asserts that each rank fails with an error that has all of these words, and that no run was started.
fn refused(test: &str, ranks: &[Rank], outs: &[&Path], all: &[&str]) {
    for said in fail(test, ranks) {
        for wanted in all {
            assert!(said.contains(wanted), "`{wanted}` is missing in: {said}");
        }
    }
    for out in outs {
        assert!(
            !out.join("metrics.jsonl").exists() && !out.join("recipe.toml").exists(),
            "no run is started"
        );
    }
}

#[test]
fn ranks_with_different_inputs_are_refused() {
    become_rank();
    let test = "ranks_with_different_inputs_are_refused";
    let (here, there) = (Bench::new(), Bench::new());
    let (out, other_out) = (here.path("out"), there.path("out"));
    let outs: [&Path; 2] = [&out, &other_out];
    let pair = |change: &str| {
        let port = free_port();
        [Rank::new(&here, 0, 2, port), Rank::new(&there, 1, 2, port).with(change)]
    };
    refused(
        test,
        &pair("train.learning_rate=2e-3"),
        &outs,
        &["another recipe", "learning_rate = 0.002", "same --set"],
    );

    there.write_pairs("pairs.jsonl", 21);
    refused(test, &pair("seed=0"), &outs, &["rank 1", "another set of examples", "data.path"]);
    there.write_pairs("pairs.jsonl", 22);

    let weights = there.path("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&weights, changed).unwrap();
    refused(test, &pair("seed=0"), &outs, &["rank 1", "another model", "model.path"]);
    fs::write(&weights, whole).unwrap();

    fs::remove_file(there.path("pairs.jsonl")).unwrap();
    refused(test, &pair("seed=0"), &outs, &["pairs.jsonl"]);
    there.write_pairs("pairs.jsonl", 22);
    refused(test, &pair("seed=0"), &outs, &["rank 1 does not see", "a folder that all ranks share"]);
    let each_holds_all = pair("seed=0").map(|rank| rank.with("distributed.zero=0"));
    succeed(test, &each_holds_all, 0);
    assert!(out.join("model/config.json").exists() && !other_out.exists(), "only rank 0 writes");
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn ranks_that_cannot_connect_are_refused() {
    become_rank();
    let (test, bench) = ("ranks_that_cannot_connect_are_refused", Bench::new());
    let out = bench.path("out");
    let of = |places: &[(usize, usize)]| -> Vec<Rank> {
        let port = free_port();
        places.iter().map(|&(index, size)| Rank::new(&bench, index, size, port).waiting(4.0)).collect()
    };
    refused(test, &of(&[(0, 2), (1, 3)]), &[&out], &["set the same WORLD_SIZE"]);
    refused(test, &of(&[(0, 3), (1, 3), (1, 3)]), &[&out], &["two processes have rank 1", "another RANK"]);
    refused(test, &of(&[(0, 3), (2, 3)]), &[&out], &["[1] did not arrive"]);

    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    refused(test, &[Rank::new(&bench, 0, 2, port)], &[&out], &["is in use", "MASTER_PORT"]);
    let said = fail(test, &of(&[(0, 2), (0, 2)]));
    assert!(said.iter().any(|said| said.contains("held by another rank 0")), "{said:?}");
    let unconnected = Rank::new(&bench, 1, 2, free_port()).waiting(1.0);
    refused(test, &[unconnected], &[&out], &["no store answers", "MASTER_ADDR"]);
}
