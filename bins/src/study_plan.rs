//! `rqN --plan`: the work of a study, as a table.

use experiment::{ASSUMED_ANSWER_SECONDS, Disk, Forecast, Pace, Plan, Work};
use report::table::{Align, Column, Table, Value};

/// Returns the plan as a table, for `jobs` workers.
pub(crate) fn study_plan(plan: &Plan, jobs: usize) -> Table {
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
    Table {
        id: "plan".into(),
        title: "Work".into(),
        columns: vec![
            Column::new("Work", Align::Left),
            Column::new("State", Align::Left),
            Column::new("Steps", Align::Right),
            Column::new("Evaluations", Align::Right),
            Column::new("Judge calls", Align::Right),
            Column::new("Time, s", Align::Right),
        ],
        rows,
        notes: vec![
            format!(
                "Evaluations requested: {}, distinct: {evaluations}. {} of {} training runs and {evaluated} of {evaluations} \
                 evaluations are in the store.",
                plan.requested,
                plan.trained(),
                plan.cells.len(),
            ),
            time_note(plan, jobs),
            memory_note(plan),
            disk_note(plan),
            cost_note(plan),
        ]
        .into_iter()
        .chain(gpu_note(plan))
        .collect(),
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
        Some(value) => Value::Number { value, decimals: 0 },
        None => Value::missing("no step of this grid is measured"),
    }
}

fn cost_note(plan: &Plan) -> String {
    let calls: u64 = plan.work().map(|work| work.judge_calls).sum();
    match plan.judging_usd {
        _ if plan.is_sandbox => "Cost of judging: none in the sandbox.".to_owned(),
        Some(usd) => format!(
            "Cost of judging: {calls} calls of {}, about {usd:.2} USD at 1,500 prompt tokens and 300 reply tokens per call.",
            plan.judge
        ),
        None => format!(
            "Cost of judging: {calls} calls of {}, of unknown price; set judge.pace.prices to a file of prices.",
            plan.judge
        ),
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
            format!("{jobs} workers share all but the first row: about {seconds:.0} s in total.")
        }
        _ => "One worker does all work.".to_owned(),
    };
    format!("Time: for one worker, {:.0} ms per step ({source}) {answers}. {workers}", 1e3 * step_seconds)
}

/// Returns a note on the remaining training on GPUs.
fn gpu_note(plan: &Plan) -> Option<String> {
    let Forecast { gpus, cluster_step_seconds, fits, .. } = plan.forecast?;
    let steps: u64 = plan.work().map(|work| work.steps).sum();
    let hours = steps as f64 * cluster_step_seconds / 3600.0;
    let fits = if fits { "it fits" } else { "it does not fit their memory" };
    Some(format!(
        "GPU hours: on {gpus} × 80 GB the steps take {hours:.1} h, {:.1} GPU hours, by formula and without answering; {fits}.",
        gpus as f64 * hours
    ))
}

fn memory_note(plan: &Plan) -> String {
    let bytes = plan.memory.of_weights();
    let rest = match plan.is_sandbox {
        true => "libtorch and activations need about 300 MB more",
        false => "libtorch and activations need more",
    };
    format!(
        "Peak memory of a worker: {:.1} MB for weights, gradients and Adam's moments ({} bytes × {} parameters); {rest}.",
        bytes as f64 / 1e6,
        bytes / plan.parameters,
        plan.parameters,
    )
}

fn disk_note(plan: &Plan) -> String {
    let left = (plan.cells.len() - plan.trained()) as u64;
    let Disk { kept, under_way } = plan.disk;
    let size = |bytes: u64| match bytes {
        ..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    };
    format!(
        "Disk: {} for the {left} remaining training runs, {} each, and {} more during a run.",
        size(left * kept),
        size(kept),
        size(under_way),
    )
}
