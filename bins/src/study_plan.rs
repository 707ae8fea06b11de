//! `rqN --plan`: the work of a study, as tables.

use experiment::{ASSUMED_ANSWER_SECONDS, Disk, Forecast, GroupForecast, JudgingCost, Pace, Plan, Work};
use report::table::{Align, Column, Table, Value};
use trainer::Memory;

use crate::units::{duration, size};

/// Returns the plan as tables: the work for `jobs` groups of processes, and its cost by the size of a group.
pub(crate) fn study_plan(plan: &Plan, jobs: usize) -> Vec<Table> {
    let groups = plan.forecast.as_ref().filter(|forecast| forecast.processes > 1);
    [work_table(plan, jobs)].into_iter().chain(groups.map(|forecast| group_table(plan, forecast))).collect()
}

fn work_table(plan: &Plan, jobs: usize) -> Table {
    let mut rows: Vec<_> = plan.work().map(|work| row(plan, work)).collect();
    let sum = |of: fn(&Work) -> u64| plan.work().map(of).sum::<u64>();
    rows.push(vec![
        Value::text("remaining work"),
        Value::text(if plan.is_complete() { "none" } else { "" }),
        Value::Count(sum(|work| work.steps)),
        Value::Count(sum(|work| work.evaluations - work.evaluated)),
        Value::Count(sum(|work| work.judge_calls)),
        time(plan.seconds_with(1)),
    ]);
    let (evaluated, evaluations) = (sum(|work| work.evaluated), sum(|work| work.evaluations));
    let store = format!(
        "Evaluations requested: {}, distinct: {evaluations}. {} of {} training runs and {evaluated} of {evaluations} \
         evaluations are in the store.",
        plan.requested,
        plan.trained(),
        plan.cells.len(),
    );
    let notes = [store, time_note(plan, jobs), memory_note(plan), disk_note(plan), less_disk_note(plan)];
    Table {
        id: "plan".into(),
        title: "Work".into(),
        columns: vec![
            Column::new("Work", Align::Left),
            Column::new("State", Align::Left),
            Column::new("Steps", Align::Right),
            Column::new("Evaluations", Align::Right),
            Column::new("Judge calls", Align::Right),
            Column::new("Time", Align::Right),
        ],
        rows,
        notes: notes.into_iter().chain(judging_notes(plan)).chain(one_gpu_note(plan)).collect(),
    }
}

fn row(plan: &Plan, work: &Work) -> Vec<Value> {
    let state = match (work.is_complete(), work.is_made) {
        (true, _) => "in the store",
        _ if work.failed > 0 => "failed, to be retried",
        (false, true) => "to be evaluated",
        (false, false) => "to do",
    };
    vec![
        Value::text(&work.what),
        Value::text(state),
        Value::Count(work.steps),
        Value::Count(work.evaluations - work.evaluated),
        Value::Count(work.judge_calls),
        time(plan.seconds(work)),
    ]
}

fn time(seconds: Option<f64>) -> Value {
    match seconds {
        Some(seconds) => Value::text(duration(seconds)),
        None => Value::missing("no step of this grid is measured"),
    }
}

/// Returns a table with a column for each size of a group, of processes on GPUs.
fn group_table(plan: &Plan, forecast: &Forecast) -> Table {
    let row = |what: &str, of: &dyn Fn(&GroupForecast) -> String| {
        let values = forecast.groups.iter().map(|group| Value::text(of(group)));
        [Value::text(what)].into_iter().chain(values).collect::<Vec<_>>()
    };
    let memory = |what: &str, part: fn(&Memory) -> u64| row(what, &|group| size(part(&group.memory)));
    let judging: f64 = plan.judging.iter().map(|cost| cost.seconds).sum();
    let rows = vec![
        row("cells at the same time", &|group| group.count.to_string()),
        row("memory of a process", &|group| size(group.memory.total())),
        row(&format!("  fits {}", gpu(forecast)), &|group| yes_or_no(group.fits)),
        memory("  master weights", |memory| memory.master),
        memory("  weights that compute", |memory| memory.compute),
        memory("  gradients", |memory| memory.gradients),
        memory("  Adam's moments", |memory| memory.moments),
        memory("  activations", |memory| memory.activations),
        memory("  LM head", |memory| memory.head),
        memory("  CUDA and libtorch", |memory| memory.runtime),
        row("a step", &|group| if_fits(group, || format!("{:.2} s", group.step_seconds))),
        row("training", &|group| if_fits(group, || duration(group.training))),
        row("answers, at most", &|group| if_fits(group, || duration(group.answering))),
        row("judging", &|group| if_fits(group, || duration(judging))),
        row("all", &|group| if_fits(group, || duration(group.training + group.answering + judging))),
    ];
    let header = |group: &GroupForecast| Column::new(format!("--group-size {}", group.size), Align::Right);
    Table {
        id: "groups".into(),
        title: format!("{} GPUs of {}, by the size of a group", forecast.processes, gpu(forecast)),
        columns: [Column::new("What", Align::Left)].into_iter().chain(forecast.groups.iter().map(header)).collect(),
        rows,
        notes: [
            "By formula and never tried: A100s at 40% of 312 TFLOP/s with 230 GB/s between those of a node, else 50 GB/s; answers \
             at half of 2 TB/s of memory, each of the maximum length."
                .to_owned(),
            "Groups of several processes hold shards of master weights and moments, as distributed.zero says.".to_owned(),
        ]
        .into_iter()
        .chain((!forecast.groups.iter().any(|group| group.fits)).then(|| {
            "No group fits: train.gradient_checkpointing = true and a smaller train.micro_batch_size hold fewer activations, and \
             lora.rank trains fewer weights."
                .to_owned()
        }))
        .collect(),
    }
}

/// Returns the memory of a GPU as its makers name it.
fn gpu(forecast: &Forecast) -> String {
    format!("{} GB", forecast.gpu_memory >> 30)
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Returns a value of groups whose processes fit their GPUs; the others cannot run.
fn if_fits(group: &GroupForecast, value: impl Fn() -> String) -> String {
    if group.fits { value() } else { "–".to_owned() }
}

/// Returns a note on the cost of each judge.
fn judging_notes(plan: &Plan) -> Vec<String> {
    let note = |JudgingCost { judge, calls, usd, max_cost, seconds }: &JudgingCost| {
        let Some(usd) = usd else {
            return format!(
                "Cost of judging: {calls} calls of {judge}, of unknown price; set judge.pace.prices to a file of prices."
            );
        };
        let budget = match max_cost {
            Some(max_cost) => format!("of at most {max_cost:.2} USD (judge.pace.max_cost)"),
            None => "without a budget (judge.pace.max_cost)".to_owned(),
        };
        format!(
            "Cost of judging: {calls} calls of {judge}, about {usd:.2} USD {budget} at 1,500 prompt tokens and 300 reply tokens \
             per call, in about {} at 10 s per call.",
            duration(*seconds)
        )
    };
    match plan.is_sandbox {
        true => vec!["Cost of judging: none in the sandbox.".to_owned()],
        false => plan.judging.iter().map(note).collect(),
    }
}

fn time_note(plan: &Plan, jobs: usize) -> String {
    let Some(step_seconds) = plan.step_seconds() else {
        return "Time: unknown until a step of this grid is in the store.".to_owned();
    };
    let source = match plan.pace {
        Pace::Measured { steps, .. } => format!("measured over {steps} steps of this grid in the store"),
        Pace::Tried { .. } => "measured for some seconds on layers of the model's width".to_owned(),
        Pace::Assumed => "assumed, since no step of this grid is in the store".to_owned(),
    };
    let answers = match plan.is_sandbox {
        true => format!("and {:.1} ms per answer (assumed)", 1e3 * ASSUMED_ANSWER_SECONDS),
        false => "without answering and judging".to_owned(),
    };
    let workers = match (jobs, plan.seconds_with(jobs)) {
        (2.., Some(seconds)) => {
            format!("{jobs} workers share all but the first row: about {} in total.", duration(seconds))
        }
        _ => "One worker does all work.".to_owned(),
    };
    let step =
        if step_seconds < 1.0 { format!("{:.0} ms", 1e3 * step_seconds) } else { duration(step_seconds) };
    format!("Time: for one worker on this machine, {step} per step ({source}) {answers}. {workers}")
}

/// Returns a note on a study of one process on a GPU; a table has more processes.
fn one_gpu_note(plan: &Plan) -> Option<String> {
    let forecast = plan.forecast.as_ref().filter(|forecast| forecast.processes == 1)?;
    let alone = forecast.groups.first()?;
    let (needed, gpu) = (size(alone.memory.total()), gpu(forecast));
    Some(match forecast.fitting {
        _ if alone.fits => format!(
            "One GPU of {gpu}: a cell needs {needed}, which fits, and all cells train in {} by formula.",
            duration(alone.training)
        ),
        Some(gpus) => format!(
            "One GPU of {gpu}: a cell needs {needed}, which does not fit. On {gpus} GPUs it fits: --nproc-per-node {gpus} computes a \
             cell in {gpus} processes, and with --plan it shows their memory and time."
        ),
        None => format!(
            "One GPU of {gpu}: a cell needs {needed}, which does not fit, and eight are not enough either; \
             train.gradient_checkpointing = true and lora.rank need less."
        ),
    })
}

fn memory_note(plan: &Plan) -> String {
    let bytes = plan.memory.of_weights();
    let rest = match plan.is_sandbox {
        true => "libtorch and activations need about 300 MB more",
        false => "libtorch and activations need more",
    };
    format!(
        "Peak memory of a cell in one process: {} for weights, gradients and Adam's moments ({} bytes × {} parameters); {rest}.",
        size(bytes),
        bytes / plan.parameters,
        plan.parameters,
    )
}

fn disk_note(plan: &Plan) -> String {
    let left = (plan.cells.len() - plan.trained()) as u64;
    let Disk { kept, under_way, .. } = plan.disk;
    format!(
        "Disk: {} for the {left} remaining training runs, {} each, and {} more during a run.",
        size(left * kept),
        size(kept),
        size(under_way),
    )
}

fn less_disk_note(plan: &Plan) -> String {
    let Disk { least, .. } = plan.disk;
    format!(
        "Less disk: train.keep_last = 1 keeps the last checkpoint only, {} each, for tables without earlier ones; store.keep = \
         \"scores\" removes the weights of a run once it has answered.",
        size(least)
    )
}

#[cfg(test)]
mod tests {
    use report::table::Format;

    use super::*;

    const PARAMETERS: u64 = 7_241_732_096;

    /// Memory of a rank of the paper's model by the formula of docs/scale.md, with 7.5 GB of activations.
    fn memory(size: u64) -> Memory {
        let whole = Memory::of(PARAMETERS, tch::Kind::BFloat16);
        // One process holds the gradient of a micro-batch whole, several hold that of a layer.
        let (micro_batch, in_transit) =
            if size > 1 { (2 * PARAMETERS / 32, 6 * PARAMETERS / size) } else { (2 * PARAMETERS, 0) };
        Memory {
            master: whole.master / size,
            moments: whole.moments / size,
            gradients: 4 * PARAMETERS + micro_batch + in_transit,
            activations: 7_500_000_000,
            head: 50_000_000,
            runtime: 3_000_000_000,
            ..whole
        }
    }

    fn group(size: u64, processes: u64) -> GroupForecast {
        GroupForecast {
            size,
            count: processes / size,
            memory: memory(size),
            fits: memory(size).total() <= 80 << 30,
            step_seconds: 4.0 / size as f64,
            training: 13_200.0,
            answering: 600.0,
        }
    }

    /// The preset `paper` on so many GPUs, with one cell left and 320 calls of the judge.
    fn paper(processes: u64) -> Plan {
        let work = |what: &str, steps, judge_calls| Work {
            what: what.to_owned(),
            is_made: steps == 0,
            evaluations: judge_calls / 160,
            evaluated: 0,
            failed: 0,
            steps,
            answers: judge_calls,
            judge_calls,
        };
        let usd = Some(20.16);
        let max_cost = Some(100.0);
        let judging =
            vec![JudgingCost { judge: "gpt-4".to_owned(), calls: 320, usd, max_cost, seconds: 400.0 }];
        let sizes = [1, 2, 4, 8].into_iter().filter(|size| processes.is_multiple_of(*size));
        Plan {
            preparation: work("policy, tokenizer and records", 0, 0),
            baseline: work("evaluate SFT", 0, 160),
            cells: vec![work("train DPO on human", 984, 160)],
            requested: 2,
            pace: Pace::Tried { step_seconds: 100.0 },
            is_sandbox: false,
            judging,
            parameters: PARAMETERS,
            memory: Memory::of(PARAMETERS, tch::Kind::BFloat16),
            disk: Disk { kept: 72_400_000_000, least: 29_000_000_000, under_way: 174_000_000_000 },
            forecast: Some(Forecast {
                step_seconds: 100.0,
                processes,
                gpu_memory: 80 << 30,
                groups: sizes.map(|size| group(size, processes)).collect(),
                fitting: Some(8),
            }),
        }
    }

    fn text(processes: u64, format: Format) -> String {
        study_plan(&paper(processes), 1).iter().map(|table| table.render(format)).collect()
    }

    #[test]
    fn the_paper_on_eight_gpus_fits_groups_of_eight_only() {
        let plan = text(8, Format::Csv);
        for row in [
            "What,--group-size 1,--group-size 2,--group-size 4,--group-size 8",
            "cells at the same time,8,4,2,1",
            "memory of a process,155.4 GB,",
            "  fits 80 GB,no,no,no,yes",
            "  master weights,29.0 GB,14.5 GB,7.2 GB,3.6 GB",
            "  Adam's moments,57.9 GB,29.0 GB,14.5 GB,7.2 GB",
            "training,–,–,–,3 h 40 min",
            "all,–,–,–,3 h 57 min",
        ] {
            assert!(plan.contains(row), "`{row}` is missing in {plan}");
        }
        let notes = text(8, Format::Text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(notes.contains("about 20.16 USD of at most 100.00 USD"), "{notes}");
        assert!(notes.contains("Disk: 72.4 GB for the 1 remaining training runs"), "{notes}");
        assert!(notes.contains("train.keep_last = 1") && notes.contains("store.keep"), "{notes}");
    }

    #[test]
    fn one_process_has_no_table_of_groups_and_learns_how_many_gpus_fit() {
        let plan = text(1, Format::Text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!plan.contains("--group-size"), "{plan}");
        assert!(plan.contains("a cell needs 155.4 GB, which does not fit. On 8 GPUs it fits"), "{plan}");
    }
}
