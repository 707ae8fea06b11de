//! `pref-train --plan`: what a run would do, as a table.

use report::table::{Align, Column, Table, Value};
use trainer::{LargestModel, Memory, OnCluster, TokenCounts, TrainPlan};

/// The plan as a table: what, how much, and what to know about it.
pub(crate) fn train_plan(plan: &TrainPlan) -> Table {
    let mut rows = data_rows(plan);
    rows.extend(step_rows(plan));
    rows.extend(memory_rows(plan));
    rows.extend(time_rows(plan));
    Table {
        id: "plan".into(),
        title: "What the run would do".into(),
        columns: vec![
            Column::new("What", Align::Left),
            Column::new("Here", Align::Right),
            Column::new(format!("On {} GPUs", plan.cluster.gpus), Align::Right),
            Column::new("Of which", Align::Left),
        ],
        rows,
        notes: vec![
            "Memory: what training holds at most. Activations and the head are those of the micro-batch with the most \
             tokens; train.micro_batch_size, train.micro_batch_tokens and train.gradient_checkpointing make them smaller."
                .into(),
            "Time here: a few steps of models with one and with five layers of this width were tried, and the rest computed; \
             evaluations, checkpoints and the start are not in it."
                .into(),
            format!(
                "On {} GPUs: by formula and never tried, for A100s of 80 GB at 40% of 312 TFLOP/s with {} GB/s between them, \
                 master weights and moments shared out (ZeRO-1), memory of each. --nproc-per-node and --nnodes say how many.",
                plan.cluster.gpus,
                plan.cluster.bandwidth / 1e9,
            ),
            "Nothing was trained and nothing was written.".into(),
        ],
    }
}

/// The largest models that train on a GPU, as a table.
pub(crate) fn largest_table(models: &[LargestModel], gigabytes: u16) -> Table {
    let in_gb = |bytes: u64| Value::Number { value: bytes as f64 / 1e9, decimals: 1 };
    let row = |model: &LargestModel| {
        let LargestModel { method, parameters, layers, hidden_size, memory } = model;
        vec![
            Value::text(method),
            Value::Number { value: *parameters as f64 / 1e9, decimals: 2 },
            Value::text(format!("{layers} × {hidden_size}")),
            in_gb(memory.total()),
            in_gb(memory.of_weights()),
            in_gb(memory.activations + memory.head),
        ]
    };
    let columns =
        ["Parameters, 10⁹", "Layers × width", "Memory, GB", "of which weights", "activations and head"];
    let columns = columns.map(|name| Column::new(name, Align::Right));
    Table {
        id: "largest".into(),
        title: format!("The largest models that train on one GPU of {gigabytes} GB"),
        columns: std::iter::once(Column::new("Method", Align::Left)).chain(columns).collect(),
        rows: models.iter().map(row).collect(),
        notes: vec![
            "By formula, for this recipe's data, micro-batches and vocabulary, in bfloat16 with train.gradient_checkpointing. \
             Weights: also their gradients and moments."
                .into(),
            "Models have the shape of Llama 7B: heads of 128, as many layers as heads, a gated block of 8/3 of the width, an \
             untied head."
                .into(),
        ],
    }
}

fn row(what: &str, how_much: Value, of_which: impl Into<String>) -> Vec<Value> {
    vec![Value::text(what), how_much, Value::text(""), Value::text(of_which)]
}

/// A row of what depends on the machine.
fn on_both(what: &str, here: Value, there: Value, of_which: impl Into<String>) -> Vec<Value> {
    vec![Value::text(what), here, there, Value::text(of_which)]
}

fn count(n: usize) -> Value {
    Value::Count(n as u64)
}

fn data_rows(plan: &TrainPlan) -> Vec<Vec<Value>> {
    let TrainPlan { view, tokenized, .. } = plan;
    let unpaired = tokenized.unpaired;
    // A loss of unpaired preferences has a reference.
    let are_demonstrations = unpaired && plan.reference.is_none();
    let (examples, responses) = match (unpaired, are_demonstrations) {
        (_, true) => ("demonstrations", vec![("response", plan.chosen)]),
        (true, _) => (
            "completions",
            vec![("desirable completion", plan.chosen), ("undesirable completion", plan.rejected)],
        ),
        _ => ("pairs", vec![("chosen response", plan.chosen), ("rejected response", plan.rejected)]),
    };
    let (left_out, used) = if unpaired {
        (String::new(), String::new())
    } else {
        let left_out = format!("{} without a label of this annotator, {} ties", view.unlabelled, view.ties);
        (left_out, format!("{} with a swapped label", plan.flipped))
    };
    let skipped = match tokenized.skipped.len() {
        0 => String::new(),
        skipped => format!("{skipped} skipped that cannot be rendered"),
    };
    let cut = format!(
        "{} prompts at their beginning, {} responses at their end",
        tokenized.truncated_prompts, tokenized.truncated_responses
    );
    let tokens = |what: &str, counts: TokenCounts| {
        row(what, Value::Number { value: counts.mean, decimals: 1 }, format!("at most {}", counts.max))
    };
    let mut rows = vec![
        row("records read", count(view.records), left_out),
        row(&format!("{examples} read"), count(tokenized.pairs_in), skipped),
        row(
            &format!("{examples} dropped"),
            count(tokenized.dropped.len()),
            format!("no room for a response in {} tokens", tokenized.max_length),
        ),
        row("texts truncated", count(tokenized.truncated_prompts + tokenized.truncated_responses), cut),
        row(&format!("{examples} used"), count(plan.examples), used),
        tokens("prompt, mean tokens", plan.prompt),
    ];
    rows.extend(responses.into_iter().map(|(name, counts)| tokens(&format!("{name}, mean tokens"), counts)));
    rows
}

fn step_rows(plan: &TrainPlan) -> Vec<Vec<Value>> {
    let checkpoints = match plan.checkpoints.as_slice() {
        [] => String::new(),
        steps => format!("after steps {}", steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    };
    let (sequences, reference) = match plan.reference {
        None => (0, "the loss has no reference"),
        Some(pass) if pass.is_cached => (pass.sequences, "in the cache"),
        Some(pass) => (pass.sequences, "to be scored before the first step"),
    };
    vec![
        row("reference log-probabilities", count(sequences), reference),
        row(
            "optimiser steps",
            Value::Count(plan.total_steps),
            format!(
                "{}{} an epoch, {} epochs",
                if plan.stops_early { "at most; " } else { "" },
                plan.steps_per_epoch,
                (100.0 * plan.epochs).round() / 100.0
            ),
        ),
        row("checkpoints", count(plan.checkpoints.len()), checkpoints),
    ]
}

fn memory_rows(plan: &TrainPlan) -> Vec<Vec<Value>> {
    let megabytes = |bytes: u64| Value::Number { value: bytes as f64 / 1e6, decimals: 1 };
    let part = |what: &str, of: fn(&Memory) -> u64, of_which: String| {
        on_both(what, megabytes(of(&plan.memory)), megabytes(of(&plan.on_cluster.memory)), of_which)
    };
    let which = if plan.trained == plan.parameters { "all of them" } else { "low-rank adapters over them" };
    let fits =
        if plan.on_cluster.fits { "all of the following" } else { "all of it: too much for 80 GB a GPU" };
    let mut rows = vec![
        row("parameters", Value::Count(plan.parameters), ""),
        row("  trained", Value::Count(plan.trained), which),
        part("memory, MB", |memory| memory.total(), fits.into()),
        part("  master weights", |memory| memory.master, "float32".into()),
        part(
            "  weights that compute",
            |memory| memory.compute,
            "none where the masters themselves compute".into(),
        ),
        part(
            "  gradients",
            |memory| memory.gradients,
            "the sum in float32, and what a micro-batch adds to it at a time".into(),
        ),
        part("  Adam's moments", |memory| memory.moments, "two, float32".into()),
        part("  activations", |memory| memory.activations, format!("here of {} tokens", plan.widest.tokens)),
        part("  LM head", |memory| memory.head, format!("here of {} scored tokens", plan.widest.scored)),
        part("  libtorch", |memory| memory.runtime, "itself, and memory that nothing else can use".into()),
    ];
    let processes = plan.cluster.gpus;
    rows.extend(plan.by_stage.iter().enumerate().map(|(zero, at)| {
        let fits = if at.on_cluster.fits { "" } else { ", too much for 80 GB a GPU" };
        on_both(
            &format!("memory with zero = {zero}, MB"),
            megabytes(at.here.total()),
            megabytes(at.on_cluster.memory.total()),
            format!("each of {processes} processes{fits}"),
        )
    }));
    rows
}

fn time_rows(plan: &TrainPlan) -> Vec<Vec<Value>> {
    let decimals = |value: f64| if value < 1.0 { 3 } else { usize::from(value < 10.0) };
    let seconds = |value: f64| Value::Number { value, decimals: decimals(value) };
    let OnCluster { reference, computing, communicating, .. } = plan.on_cluster;
    let per_step = |whole: f64| whole / plan.total_steps as f64;
    vec![
        on_both(
            "reference's pass, s",
            seconds(plan.time.reference),
            seconds(reference),
            if plan.time.reference > 0.0 { "before the first step" } else { "nothing is left to do" },
        ),
        on_both(
            "training, s",
            seconds(plan.time.training),
            seconds(computing + communicating),
            format!("{:.3} s a step here", per_step(plan.time.training)),
        ),
        on_both("  computing", seconds(plan.time.training), seconds(computing), ""),
        on_both(
            "  communicating",
            Value::text(""),
            seconds(communicating),
            "at worst: a part can hide behind computing",
        ),
        on_both(
            "  communicating with zero = 0",
            Value::text(""),
            seconds(plan.by_stage[0].on_cluster.communicating),
            "",
        ),
    ]
}
