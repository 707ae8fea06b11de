//! `mtbench judge`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use llm_client::Client;
use mtbench::{
    Anchors, Answer, BenchDir, Drift, EndpointJudge, Games, JUDGMENT_TOKENS, Judge, JudgePrompts, Judged,
    Jury, PairGrading, Question, ReplayJudge, SingleGrading,
};
use report::table::{Align, Column, Format, Table, Value};
use trainer::Progress as _;

use super::endpoint::EndpointArgs;
use super::fastchat_args::{FastChatMode, ModeArgs, ModelArgs};
use super::{Data, SystemStamp};
use crate::console::{ConsoleProgress, SystemClock};
use crate::program::{Signals, Stopped, print_result, share};

/// Judge answers; judgments on file are kept, so the same command resumes where it stopped
#[derive(Debug, Args)]
pub(super) struct JudgeArgs {
    #[command(flatten)]
    data: Data,
    /// The judge's name: its files are `model_judgment/NAME_single.jsonl` and `NAME_pair.jsonl`
    #[arg(long, visible_alias = "judge-model", value_name = "NAME", default_value = "gpt-4")]
    judge: String,
    /// Repeat the recorded judgments of the judge of this name, instead of calling a model
    #[arg(long, value_name = "NAME", conflicts_with = "base_url", required_unless_present_any = ["base_url", "certify"])]
    replay: Option<String>,
    /// Compare the judge's comparisons on file with people's votes, in the format of `mt_bench_human_judgments` as JSON Lines:
    /// agreement, bias by order and length, the benefit of more votes; nothing is asked or written
    #[arg(long, value_name = "FILE", conflicts_with_all = ["replay", "plan"])]
    certify: Option<PathBuf>,
    /// The kind of judgments [default: single]
    #[arg(long, value_enum)]
    games: Option<GamesArg>,
    /// The baseline of pairwise-baseline
    #[arg(long, visible_alias = "baseline-model", value_name = "MODEL", default_value = "gpt-3.5-turbo")]
    baseline: String,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    mode: ModeArgs,
    /// Opinions on each answer
    #[arg(long, value_name = "K", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// The most additional calls for a text without a verdict
    #[arg(long, value_name = "N", default_value = "2")]
    reasks: u32,
    /// The judge's temperature
    #[arg(long, value_name = "T", default_value = "0")]
    temperature: f64,
    /// The longest judgment, in tokens
    #[arg(long, value_name = "N", default_value_t = JUDGMENT_TOKENS)]
    max_tokens: u32,
    /// Reference answers in FastChat's format that take precedence over those of `reference_answer/NAME.jsonl`
    #[arg(long, value_name = "FILE")]
    references: Option<PathBuf>,
    /// Judge prompts in the format of FastChat's `judge_prompts.jsonl` [default: FastChat's]
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Judge N answers twice more at each start, and stop with status 1 if the judge has changed since earlier starts; their
    /// opinions are in `anchors/`
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "replay")]
    anchors: usize,
    /// Go on although the judge has changed; later starts are compared with this one
    #[arg(long, requires = "anchors")]
    accept_drift: bool,
    /// Show the calls and their estimated cost; nothing is asked or written
    #[arg(long)]
    plan: bool,
    /// The format of the plan or of the comparison with people
    #[arg(long, default_value = "text", value_parser = <Format as std::str::FromStr>::from_str)]
    format: Format,
    /// Exit with status 1 if more than this share of the calls failed
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = share)]
    max_failed: f64,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// The kind of judgments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GamesArg {
    /// Each answer by itself
    Single,
    /// Each model's answers against the baseline's
    PairwiseBaseline,
    /// Each model's answers against every other's
    PairwiseAll,
}

impl JudgeArgs {
    /// Returns the kind of judgments.
    fn games(&self) -> anyhow::Result<GamesArg> {
        let of_mode = self.mode.games().map(|games| match games {
            FastChatMode::Single => GamesArg::Single,
            FastChatMode::PairwiseBaseline => GamesArg::PairwiseBaseline,
            FastChatMode::PairwiseAll => GamesArg::PairwiseAll,
        });
        anyhow::ensure!(
            self.games.is_none() || of_mode.is_none() || self.games == of_mode,
            "--games and --mode name different kinds of judgments; remove one of them"
        );
        Ok(self.games.or(of_mode).unwrap_or(GamesArg::Single))
    }
}

/// The inputs of judging.
struct Input {
    bench: BenchDir,
    questions: Vec<Question>,
    answers: Vec<Answer>,
    references: Vec<Answer>,
    prompts: JudgePrompts,
}

pub(super) fn judge(args: &JudgeArgs, signals: &Signals) -> anyhow::Result<()> {
    if let Some(votes) = &args.certify {
        return certify(args, votes);
    }
    let input = input(args)?;
    if let Some(recorded) = &args.replay {
        let singles = input.bench.judgments_on_file(recorded)?;
        let judge = ReplayJudge::new(&args.judge, &singles, &input.bench.pair_judgments_on_file(recorded)?);
        return end(args, judge_with(args, &input, &judge)?, None);
    }
    let client = args.endpoint.client(&args.judge, input.bench.root())?;
    let sampling = args.endpoint.sampling(args.temperature, args.max_tokens);
    let model = args.endpoint.endpoint_model(&args.judge);
    let judge = EndpointJudge {
        name: &args.judge,
        model,
        sampling: &sampling,
        client: &client,
        stop: signals.stop(),
    };
    if args.plan {
        return Ok(print_result(plan(args, &input, &judge, &client)?.render(args.format))?);
    }
    if args.anchors > 0 {
        check_anchors(args, &input, &judge)?;
    }
    end(args, judge_with(args, &input, &judge)?, Some(&client))
}

/// Judges the anchors. A judge that has changed is an error, unless that is accepted.
fn check_anchors(args: &JudgeArgs, input: &Input, judge: &dyn Judge) -> anyhow::Result<()> {
    let jury = Jury { judge, mode: args.mode.parsing().into(), repeats: args.repeats, reasks: args.reasks };
    let requests: Vec<_> = match grading(args, input)? {
        Grading::Single(grading) => {
            grading.calls(&input.answers)?.into_iter().map(|call| call.request).collect()
        }
        Grading::Pairs(grading) => {
            grading.calls(&input.answers)?.into_iter().flat_map(|call| call.games).collect()
        }
    };
    let anchors =
        Anchors { bench: &input.bench, requests: &requests, count: args.anchors, accept: args.accept_drift };
    let drift = anchors.check(&jury).map_err(|cause| match cause.downcast::<mtbench::Error>() {
        Ok(error) => anyhow::Error::from(*error),
        Err(cause) if matches!(cause.downcast_ref(), Some(llm_client::Error::Stopped)) => {
            Stopped(cause.to_string()).into()
        }
        Err(cause) => anyhow::Error::from_boxed(cause),
    })?;
    let Drift { start, anchors, change, p_value, ref served } = drift;
    if let Some((before, now)) = served {
        let listed = |served: &[mtbench::Served]| {
            served.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        tracing::warn!("the server answered as {} before, and as {} now", listed(before), listed(now));
    }
    if start == 1 || anchors == 0 {
        tracing::info!("anchors: no earlier opinions to compare with");
        return Ok(());
    }
    let found = format!(
        "{anchors} anchors changed by {change:+.2} on average since earlier starts (p = {p_value:.4})"
    );
    if drift.is_alarm() && !args.accept_drift {
        anyhow::bail!(
            "the judge has changed: {found}. New judgments do not compare with those on file; judge all answers again under \
             another --judge name, or go on with --accept-drift"
        );
    }
    tracing::info!("{found}");
    Ok(())
}

/// Prints the judge against people.
fn certify(args: &JudgeArgs, votes: &Path) -> anyhow::Result<()> {
    let bench = args.data.bench();
    let votes: Vec<mtbench::Vote> = mtbench::read_lines(votes)?;
    let judgments = bench.pair_judgments(&args.judge)?;
    let answers = super::answers(&bench, &args.models.named())?;
    let table = mtbench::certify(&args.judge, &votes, &judgments, &answers)?.table();
    Ok(print_result(table.render(args.format))?)
}

fn input(args: &JudgeArgs) -> anyhow::Result<Input> {
    let bench = args.data.bench();
    let mut models = args.models.named();
    if args.games()? == GamesArg::PairwiseBaseline && !models.is_empty() && !models.contains(&args.baseline) {
        models.push(args.baseline.clone());
    }
    let mut references = bench.references_on_file(&args.judge)?;
    if let Some(path) = &args.references {
        // The last reference of a question counts.
        references.extend(mtbench::read_lines::<Answer>(path)?);
    }
    let prompts = args.prompts.as_deref().map_or_else(|| Ok(JudgePrompts::fastchat()), JudgePrompts::read)?;
    Ok(Input {
        questions: bench.questions()?,
        answers: super::answers(&bench, &models)?,
        references,
        prompts,
        bench,
    })
}

fn judge_with(args: &JudgeArgs, input: &Input, judge: &dyn Judge) -> anyhow::Result<Outcome> {
    let jury = Jury { judge, mode: args.mode.parsing().into(), repeats: args.repeats, reasks: args.reasks };
    let mut stamp = SystemStamp::new(SystemClock::start(), judge.name());
    let mut console = ConsoleProgress::stderr();
    let mut watch = |now: mtbench::JudgeProgress| {
        if now.done == 0 {
            console.begin(&format!("judging by {}", judge.name()), now.total as u64);
        }
        let mean = now.mean.map_or_else(String::new, |mean| format!("mean {mean:.2}, "));
        console.advance(
            now.done as u64,
            &format!("{mean}{} without verdict, {} failed", now.without_verdict, now.failed),
        );
        if now.done == now.total {
            console.end();
        }
    };
    let Input { bench, answers, .. } = input;
    Ok(match grading(args, input)? {
        Grading::Single(grading) => {
            jury.single(bench, &grading, answers, &mut stamp, &mut watch)?.without_rows()
        }
        Grading::Pairs(grading) => {
            jury.pairs(bench, &grading, answers, &mut stamp, &mut watch)?.without_rows()
        }
    })
}

enum Grading<'a> {
    Single(SingleGrading<'a>),
    Pairs(PairGrading<'a>),
}

fn grading<'a>(args: &'a JudgeArgs, input: &'a Input) -> anyhow::Result<Grading<'a>> {
    let Input { questions, prompts, references, .. } = input;
    let games = match args.games()? {
        GamesArg::Single => return Ok(Grading::Single(SingleGrading { questions, prompts, references })),
        GamesArg::PairwiseBaseline => Games::Baseline(&args.baseline),
        GamesArg::PairwiseAll => Games::All,
    };
    Ok(Grading::Pairs(PairGrading { questions, prompts, references, games }))
}

/// The calls and their estimated cost.
fn plan(
    args: &JudgeArgs,
    input: &Input,
    judge: &EndpointJudge<'_>,
    client: &Client,
) -> anyhow::Result<Table> {
    let jury = Jury { judge, mode: args.mode.parsing().into(), repeats: args.repeats, reasks: args.reasks };
    let plan = match grading(args, input)? {
        Grading::Single(grading) => jury.plan_single(&input.bench, &grading, &input.answers)?,
        Grading::Pairs(grading) => jury.plan_pairs(&input.bench, &grading, &input.answers)?,
    };
    let requests: Vec<_> = plan.requests.iter().map(|request| judge.chat_request(request)).collect();
    let estimate = client.estimate(&requests)?;
    let usd = |value: Option<f64>| match value {
        Some(value) => Value::Number { value, decimals: 2 },
        None => Value::missing("no price of the model is known; see --prices"),
    };
    let row = |name: &str, value: Value| vec![Value::text(name), value];
    let rows = vec![
        row("judgments on file that hold", Value::Count(plan.kept as u64)),
        row("calls", Value::Count(requests.len() as u64)),
        row("of them in the cache", Value::Count(estimate.cached)),
        row("of them in a batch that is not collected", Value::Count(estimate.in_batches)),
        row("prompt tokens to pay, estimated", Value::Count(estimate.prompt_tokens)),
        row("USD, if a judgment has 300 tokens", usd(estimate.likely_usd)),
        row("USD, at most", usd(estimate.most_usd)),
    ];
    let columns = vec![Column::new("plan", Align::Left), Column::new("value", Align::Right)];
    let notes = vec!["A call whose text holds no verdict is repeated, and paid again.".to_owned()];
    Ok(Table { id: "plan".into(), title: format!("Calls to {}", args.judge), columns, rows, notes })
}

/// The outcome of judging, of either kind.
type Outcome = Judged<()>;

/// Reports the judgments and their cost. An early end, or too many failed calls, is an error.
fn end(args: &JudgeArgs, judged: Outcome, client: Option<&Client>) -> anyhow::Result<()> {
    let Judged { kept, made, without_verdict, calls, ref failed, .. } = judged;
    tracing::info!("{made} judgments made, {kept} kept, {without_verdict} of the new ones without a verdict");
    let kinds: Vec<String> = failed.iter().map(|(kind, calls)| format!("{kind}: {calls}")).collect();
    let failures: usize = failed.values().sum();
    let summary = format!("{failures} of {calls} calls failed ({})", kinds.join(", "));
    if failures > 0 {
        tracing::warn!("{summary}; the same command makes them again");
    }
    if let Some(client) = client {
        report_cost(client);
    }
    let share = judged.failed_share();
    match judged.stopped {
        None if share > args.max_failed => {
            anyhow::bail!("{summary}, more than --max-failed {}: {made} judgments made", args.max_failed)
        }
        None => Ok(()),
        Some(cause) if matches!(cause.downcast_ref(), Some(llm_client::Error::Stopped)) => {
            Err(Stopped(cause.to_string()).into())
        }
        Some(cause) => {
            Err(anyhow::Error::from_boxed(cause)).context("judging ended early; what is done is on file")
        }
    }
}

fn report_cost(client: &Client) {
    let llm_client::Totals { answered, unanswered, usage, usd, unpriced } = client.totals();
    let (prompt, completion) = (usage.prompt_tokens, usage.completion_tokens);
    let unknown = if unpriced > 0 { format!(" and {unpriced} calls of unknown cost") } else { String::new() };
    tracing::info!(
        "paid: {answered} answered calls, {unanswered} that may be billed, {prompt} + {completion} tokens, \
         {usd:.4} USD{unknown}"
    );
    let interrupted = client.recovery().interrupted;
    if interrupted > 0 {
        tracing::info!("{interrupted} calls of earlier processes may have been billed twice");
    }
}
