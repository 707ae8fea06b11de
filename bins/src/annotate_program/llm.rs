//! `annotate llm`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use annotate::{
    AnnotateError, AnnotatePlan, AnnotateReport, Aspect, AspectCalls, Fallback, LlmAnnotator, Policies,
    PromptTemplate, Question, RatingQuestion, Unlabelled, annotate, write_log,
};
use clap::{Args, ValueEnum};
use llm_client::{ChatSampling, Client, EndpointKind, LimitName};
use pref_data::{PreferenceRecord, write_records};
use report::table::{Align, Column, Format, Table, Value};
use trainer::Progress as _;

use super::Data;
use super::costs::print_costs;
use crate::call_args::CallArgs;
use crate::console::ConsoleProgress;
use crate::program::{Signals, Stopped, print_result, share};

/// Ask a model behind an OpenAI-compatible endpoint which response is better, or for ratings, in both orders
///
/// Answers are kept in --work: after a crash or a signal the same command goes on and pays for none twice.
#[derive(Debug, Args)]
pub(super) struct LlmArgs {
    #[command(flatten)]
    data: Data,
    /// The file of the records with the new labels (.jsonl or .jsonl.gz)
    #[arg(long, value_name = "FILE", required_unless_present = "plan")]
    out: Option<PathBuf>,
    /// The folder of answers, ledger and log
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The model, by the endpoint's name for it
    #[arg(long)]
    model: String,
    /// The annotator's name in the records; the model's if not given
    #[arg(long, value_name = "NAME")]
    annotator: Option<String>,
    /// The endpoint
    #[arg(long, value_name = "URL", default_value = "https://api.openai.com/v1")]
    base_url: String,
    #[arg(
        long,
        value_name = "FILE",
        help = "Another question, with {prompt}, {response_a}, {response_b}, [[A]], [[B]] and [[C]]"
    )]
    template: Option<PathBuf>,
    /// Ask for ratings from 1 to 5 of each response by these aspects, instead of the better of two: instruction-following,
    /// honesty, truthfulness, helpfulness
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', conflicts_with = "template")]
    aspects: Vec<String>,
    /// Ask for ratings by the aspects of a TOML file: tables [[aspects]] with name and rubric
    #[arg(long, value_name = "FILE", conflicts_with_all = ["template", "aspects"])]
    aspect_file: Option<PathBuf>,
    /// The calls for several aspects
    #[arg(long, value_enum, default_value_t = AspectCallsArg::Each)]
    aspect_calls: AspectCallsArg,
    /// Request the log-probabilities of N alternatives of each token; the label of a pair is then the mean probability of
    /// both orders, where the server gives them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=20), conflicts_with_all = ["aspects", "aspect_file"])]
    logprobs: Option<u8>,
    /// The largest lead that is a tie, in rating points or, with --logprobs, in probability over one half
    #[arg(long, value_name = "LEAD", default_value_t = 0.0, value_parser = lead)]
    tie_margin: f64,
    /// Show the calls and their estimated cost; nothing is asked or written
    #[arg(long)]
    plan: bool,
    /// The format of the plan
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// The label where the verdict depends on the order
    #[arg(long, value_enum, default_value_t = FallbackArg::Tie)]
    on_disagreement: FallbackArg,
    /// The label where an answer has no verdict
    #[arg(long, value_enum, default_value_t = FallbackArg::Unlabelled)]
    on_refusal: FallbackArg,
    /// The number of times that a question is asked before an answer without a verdict counts
    #[arg(long, value_name = "N", default_value = "2")]
    asked: NonZeroU32,
    /// The longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_tokens: u32,
    /// Exit with status 1 if calls failed for more than this share of the records
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = share)]
    max_failed: f64,
    #[command(flatten)]
    calls: CallArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FallbackArg {
    /// A tie
    Tie,
    /// No label
    Unlabelled,
}

/// The number of calls for several aspects.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum AspectCallsArg {
    /// One call for each aspect
    Each,
    /// One call for all aspects
    Together,
}

/// Parses a number from 0 for clap.
pub(super) fn lead(text: &str) -> Result<f64, String> {
    let lead = text.parse().ok().filter(|lead: &f64| lead.is_finite() && *lead >= 0.0);
    lead.ok_or_else(|| "give a number from 0".to_owned())
}

impl From<FallbackArg> for Fallback {
    fn from(fallback: FallbackArg) -> Self {
        match fallback {
            FallbackArg::Tie => Self::Tie,
            FallbackArg::Unlabelled => Self::Unlabelled,
        }
    }
}

impl LlmArgs {
    pub(super) fn run(&self, signals: &Signals) -> anyhow::Result<()> {
        let mut records = self.data.read()?;
        let annotator = self.annotator()?;
        let client =
            self.calls.client(&self.base_url, EndpointKind::OpenAi, &self.work, self.calls.max_cost)?;
        if self.plan {
            return self.print_plan(&records, &annotator, &client);
        }
        let mut progress = ConsoleProgress::stderr();
        progress.begin("records", records.len() as u64);
        let heard = |done: usize| progress.advance(done as u64, "");
        let report = match annotate(&mut records, &annotator, &client, signals.stop(), heard) {
            Err(AnnotateError::Client(error @ llm_client::Error::Stopped)) => {
                return Err(Stopped(error.to_string()).into());
            }
            report => report?,
        };
        progress.end();
        write_log(&self.work.join("annotations.jsonl"), &report.annotations)?;
        if let Some(out) = &self.out {
            write_records(out, &records)?;
        }
        for (id, why) in report.unlabelled() {
            tracing::warn!(id, "no label: {why:?}");
        }
        let served = report.served();
        if served.len() > 1 {
            let answers: Vec<String> =
                served.iter().map(|(name, answers)| format!("{answers} by {name}")).collect();
            tracing::warn!("the model changed between answers: {}", answers.join(", "));
        }
        print_result(format_args!("{report}"))?;
        print_costs(report.totals, client.recovery())?;
        self.check_failures(&report)
    }

    fn print_plan(
        &self,
        records: &[PreferenceRecord],
        annotator: &LlmAnnotator,
        client: &Client,
    ) -> anyhow::Result<()> {
        let AnnotatePlan { records, labelled_before, not_pairs, calls, estimate } =
            annotate::plan(records, annotator, client)?;
        let usd = |value: Option<f64>| match value {
            Some(value) => Value::Number { value, decimals: 4 },
            None => Value::missing("no price of the model is known; see --prices"),
        };
        let row = |name: &str, value: Value| vec![Value::text(name), value];
        let count = |count: usize| Value::Count(count as u64);
        let rows = vec![
            row("records to label", count(records)),
            row("records with a label of this annotator", count(labelled_before)),
            row("records that are no pairs", count(not_pairs)),
            row("calls", count(calls)),
            row("of them in the cache", Value::Count(estimate.cached)),
            row("of them in a batch that is not collected", Value::Count(estimate.in_batches)),
            row("prompt tokens to pay, estimated", Value::Count(estimate.prompt_tokens)),
            row("USD, if an answer has 300 tokens", usd(estimate.likely_usd)),
            row("USD, at most", usd(estimate.most_usd)),
        ];
        let columns = vec![Column::new("plan", Align::Left), Column::new("value", Align::Right)];
        let notes = vec!["A call whose answer has no verdict is repeated, and paid again.".to_owned()];
        let title = format!("Calls to {}", self.model);
        let table = Table { id: "plan".into(), title, columns, rows, notes };
        Ok(print_result(table.render(self.format))?)
    }

    fn question(&self) -> Result<Question, AnnotateError> {
        let aspects = match &self.aspect_file {
            Some(path) => Aspect::read(path)?,
            None => self.aspects.iter().map(|name| Aspect::named(name.trim())).collect::<Result<_, _>>()?,
        };
        if aspects.is_empty() {
            let template = self.template.as_deref().map(PromptTemplate::from_file).transpose()?;
            return Ok(Question::Pairwise(template.unwrap_or_default()));
        }
        let calls = match self.aspect_calls {
            AspectCallsArg::Each => AspectCalls::Each,
            AspectCallsArg::Together => AspectCalls::Together,
        };
        Ok(Question::Ratings(RatingQuestion::new(aspects, calls)))
    }

    /// Fails if calls failed for too many records.
    fn check_failures(&self, report: &AnnotateReport) -> anyhow::Result<()> {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, why) in report.unlabelled() {
            if let Unlabelled::Failed(failure) = why {
                *kinds.entry(failure.split(':').next().unwrap_or(failure)).or_default() += 1;
            }
        }
        let (failed, records) = (kinds.values().sum::<usize>(), report.annotations.len());
        if failed as f64 <= self.max_failed * records as f64 {
            return Ok(());
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, records)| format!("{kind}: {records}")).collect();
        let (kinds, most) = (kinds.join(", "), self.max_failed);
        anyhow::bail!(
            "calls failed for {failed} of {records} records ({kinds}), more than --max-failed {most}"
        )
    }

    fn annotator(&self) -> Result<LlmAnnotator, AnnotateError> {
        Ok(LlmAnnotator {
            name: self.annotator.clone().unwrap_or_else(|| self.model.clone()),
            model: self.model.clone(),
            question: self.question()?,
            sampling: ChatSampling {
                limit_name: LimitName::MaxTokens,
                top_logprobs: self.logprobs,
                ..ChatSampling::greedy(self.max_tokens)
            },
            policies: Policies {
                disagreement: self.on_disagreement.into(),
                refusal: self.on_refusal.into(),
                asked: self.asked,
                tie_margin: self.tie_margin,
            },
        })
    }
}
