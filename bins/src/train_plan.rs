//! `pref-train --plan`: what a run would do, as a table.

use render::table::{Align, Column, Table, Value};
use trainer::{Plan, TokenCounts};

/// The plan as a table: what, how much, and what to know about it.
pub fn train_plan(plan: &Plan) -> Table {
    let mut rows = data_rows(plan);
    rows.extend(step_rows(plan));
    rows.extend(memory_rows(plan));
    Table {
        id: "plan".into(),
        title: "What the run would do".into(),
        columns: vec![
            Column::new("What", Align::Left),
            Column::new("How much", Align::Right),
            Column::new("Of which", Align::Left),
        ],
        rows,
        notes: vec![
            "Memory: what training holds at most. Activations and the head are those of the micro-batch with the most \
             tokens; train.micro_batch_size, train.micro_batch_tokens and train.gradient_checkpointing make them smaller."
                .into(),
            "Nothing was run and nothing was written.".into(),
        ],
    }
}

fn row(what: &str, how_much: Value, of_which: impl Into<String>) -> Vec<Value> {
    vec![Value::text(what), how_much, Value::text(of_which)]
}

fn count(n: usize) -> Value {
    Value::Count(n as u64)
}

fn data_rows(plan: &Plan) -> Vec<Vec<Value>> {
    let Plan { view, tokenized, .. } = plan;
    let cut = format!(
        "{} prompts at their beginning, {} responses at their end",
        tokenized.truncated_prompts, tokenized.truncated_responses
    );
    let tokens = |what: &str, counts: TokenCounts| {
        row(what, Value::Number { value: counts.mean, decimals: 1 }, format!("at most {}", counts.max))
    };
    vec![
        row(
            "records read",
            count(view.records),
            format!("{} without a label of this annotator, {} ties", view.unlabelled, view.ties),
        ),
        row("pairs read", count(tokenized.pairs_in), ""),
        row(
            "pairs dropped",
            count(tokenized.dropped.len()),
            format!("no room for a response in {} tokens", tokenized.max_length),
        ),
        row("texts truncated", count(tokenized.truncated_prompts + tokenized.truncated_responses), cut),
        row("pairs used", count(plan.examples), format!("{} with a swapped label", plan.flipped)),
        tokens("prompt, mean tokens", plan.prompt),
        tokens("chosen response, mean tokens", plan.chosen),
        tokens("rejected response, mean tokens", plan.rejected),
    ]
}

fn step_rows(plan: &Plan) -> Vec<Vec<Value>> {
    let checkpoints = match plan.checkpoints.as_slice() {
        [] => String::new(),
        steps => format!("after steps {}", steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    };
    let (sequences, reference) = match plan.reference {
        None => (0, "supervised training has no reference"),
        Some(pass) if pass.is_cached => (pass.sequences, "in the cache"),
        Some(pass) => (pass.sequences, "to be scored before the first step"),
    };
    vec![
        row("reference log-probabilities", count(sequences), reference),
        row(
            "optimiser steps",
            Value::Count(plan.total_steps()),
            format!("{} an epoch, {} epochs", plan.steps_per_epoch, plan.epochs),
        ),
        row("checkpoints", count(plan.checkpoints.len()), checkpoints),
    ]
}

fn memory_rows(plan: &Plan) -> Vec<Vec<Value>> {
    let memory = plan.memory;
    let megabytes = |bytes: u64| Value::Number { value: bytes as f64 / 1e6, decimals: 1 };
    let which = if plan.trained == plan.parameters { "all of them" } else { "low-rank adapters over them" };
    vec![
        row("parameters", Value::Count(plan.parameters), ""),
        row("  trained", Value::Count(plan.trained), which),
        row("memory, MB", megabytes(memory.total()), "all of the following"),
        row("  master weights", megabytes(memory.master), "float32"),
        row("  weights that compute", megabytes(memory.compute), "none where the masters themselves compute"),
        row("  gradients", megabytes(memory.gradients), "the sum in float32, one micro-batch's beside it"),
        row("  Adam's moments", megabytes(memory.moments), "two, float32"),
        row(
            "  activations",
            megabytes(memory.activations),
            format!("of {} tokens at a time", plan.widest.tokens),
        ),
        row("  LM head", megabytes(memory.head), format!("of {} scored tokens", plan.widest.scored)),
        row(
            "  libtorch",
            megabytes(memory.runtime),
            "the library, and what its allocator cannot hand out again",
        ),
    ]
}
