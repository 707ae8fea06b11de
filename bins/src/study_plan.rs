//! `rqN --plan`: what a study would compute, as a table.

use report::table::{Align, Column, Table, Value};
use study::{ASSUMED_ANSWER_SECONDS, Disk, Forecast, Pace, Plan, Work};

/// The plan as a table, for `jobs` workers.
pub(crate) fn study_plan(plan: &Plan, jobs: usize) -> Table {
    let mut rows: Vec<_> = plan.work().map(|work| row(plan, work)).collect();
    let sum = |of: fn(&Work) -> u64| plan.work().map(of).sum::<u64>();
    rows.push(vec![
        Value::text("all that is left"),
        Value::text(if plan.is_complete() { "nothing" } else { "" }),
        Value::Count(sum(|work| work.steps)),
        Value::Count(sum(|work| work.evaluations - work.evaluated)),
        Value::Count(sum(|work| work.judge_calls)),
        time(plan.seconds_with(1)),
    ]);
    let (evaluated, evaluations) = (sum(|work| work.evaluated), sum(|work| work.evaluations));
    Table {
        id: "plan".into(),
        title: "What would be computed".into(),
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
                "Evaluations asked for: {}, distinct: {evaluations}. {} of {} training runs and {evaluated} of {evaluations} \
                 evaluations are in the store.",
                plan.asked,
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
        _ if work.failed > 0 => "failed, to be tried again",
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
        None => Value::missing("no step of this grid was measured yet"),
    }
}

fn cost_note(plan: &Plan) -> String {
    let calls: u64 = plan.work().map(|work| work.judge_calls).sum();
    match plan.judging_usd {
        _ if plan.is_sandbox => "Cost of judging: none: the sandbox judges itself.".to_owned(),
        Some(usd) => format!(
            "Cost of judging: {calls} calls of {}, about {usd:.2} USD if one has 1,500 tokens of prompt and 300 of verdict.",
            plan.judge
        ),
        None => format!(
            "Cost of judging: {calls} calls of {}, whose price is not known; judge.pace.prices names a file of prices.",
            plan.judge
        ),
    }
}

fn time_note(plan: &Plan, jobs: usize) -> String {
    let Some(step_seconds) = plan.step_seconds() else {
        return "Time: known once a step of this grid is in the store; `pref-train` on one cell tells."
            .to_owned();
    };
    let source = match plan.pace {
        Pace::Measured { steps, .. } => format!("measured over {steps} steps of this grid in the store"),
        Pace::Tried { .. } => "tried for some seconds on layers of the model's width".to_owned(),
        Pace::Assumed => "assumed, since no step of this grid is in the store".to_owned(),
    };
    let answers = match plan.is_sandbox {
        true => format!("and {:.1} ms an answer (assumed)", 1e3 * ASSUMED_ANSWER_SECONDS),
        false => "without answering and judging".to_owned(),
    };
    let workers = match (jobs, plan.seconds_with(jobs)) {
        (2.., Some(seconds)) => {
            format!("{jobs} workers share all but the first row: about {seconds:.0} s in all.")
        }
        _ => "One worker does all of it.".to_owned(),
    };
    format!("Time: for one worker, {:.0} ms a step ({source}) {answers}. {workers}", 1e3 * step_seconds)
}

/// What the training that is left would take on GPUs.
fn gpu_note(plan: &Plan) -> Option<String> {
    let Forecast { gpus, cluster_step_seconds, fits, .. } = plan.forecast?;
    let steps: u64 = plan.work().map(|work| work.steps).sum();
    let hours = steps as f64 * cluster_step_seconds / 3600.0;
    let fits = if fits { "it fits" } else { "it does not fit their memory" };
    Some(format!(
        "GPU hours: on {gpus} × 80 GB the steps would take {hours:.1} h, {:.1} GPU hours, by formula and without answering; {fits}.",
        gpus as f64 * hours
    ))
}

fn memory_note(plan: &Plan) -> String {
    let bytes = plan.memory.of_weights();
    let rest = match plan.is_sandbox {
        true => "libtorch itself and activations come on top and weigh more, some 300 MB",
        false => "libtorch itself and activations come on top",
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
        "Disk: {} for the {left} training runs that are left, {} each, and {} more while one is under way.",
        size(left * kept),
        size(kept),
        size(under_way),
    )
}
