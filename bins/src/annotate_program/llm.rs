//! `annotate llm`.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annotate::{
    AnnotateError, AnnotateReport, Fallback, LlmAnnotator, Policies, PromptTemplate, Unlabelled, annotate,
    write_log,
};
use clap::{Args, ValueEnum};
use llm_client::{
    ChatSampling, Client, Endpoint, EndpointKind, LimitName, Limits, Prices, RetryPolicy, Secret, Settings,
    TokioClock,
};
use pref_data::write_records;
use seeds::Seeds;
use trainer::Progress as _;

use super::Data;
use crate::console::ConsoleProgress;
use crate::program::{Signals, Stopped, print_result, share};

/// Ask a model behind an OpenAI-compatible endpoint which response is better, each pair in both orders
///
/// Answers are kept in --work: after a crash or a signal the same command goes on and pays for none twice.
#[derive(Debug, Args)]
pub(super) struct LlmArgs {
    #[command(flatten)]
    data: Data,
    /// Where the records with the new labels go (.jsonl or .jsonl.gz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
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
    /// The environment variable that holds the API key; none is sent if not given
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
    #[arg(
        long,
        value_name = "FILE",
        help = "Another question, with {prompt}, {response_a}, {response_b}, [[A]], [[B]] and [[C]]"
    )]
    template: Option<PathBuf>,
    /// What a verdict that depends on the order amounts to
    #[arg(long, value_enum, default_value_t = FallbackArg::Tie)]
    on_disagreement: FallbackArg,
    /// What an answer without a verdict amounts to
    #[arg(long, value_enum, default_value_t = FallbackArg::Unlabelled)]
    on_refusal: FallbackArg,
    /// How often a question is put before an answer without a verdict counts
    #[arg(long, value_name = "N", default_value = "2")]
    asked: NonZeroU32,
    /// Calls at a time
    #[arg(long, value_name = "N", default_value = "8")]
    concurrency: NonZeroU32,
    /// Requests a minute
    #[arg(long, value_name = "N")]
    rpm: Option<NonZeroU32>,
    /// Tokens a minute
    #[arg(long, value_name = "N")]
    tpm: Option<NonZeroU64>,
    /// Seconds before an attempt is given up
    #[arg(long, value_name = "S", default_value_t = 60)]
    timeout: u64,
    /// The longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_tokens: u32,
    /// Stop before more than this is spent
    #[arg(long, value_name = "USD")]
    max_cost: Option<f64>,
    /// Exit with status 1 if calls failed for more than this share of the records
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = share)]
    max_failed: f64,
    /// Prices of models that are not listed
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FallbackArg {
    /// A tie
    Tie,
    /// No label
    Unlabelled,
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
        let client = self.client()?;
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
        write_records(&self.out, &records)?;
        for (id, why) in report.unlabelled() {
            tracing::warn!(id, "no label: {why:?}");
        }
        let totals = report.totals;
        print_result(format_args!("{report}"))?;
        let unpriced = if totals.unpriced > 0 {
            format!(", {} calls of unknown cost", totals.unpriced)
        } else {
            String::new()
        };
        print_result(format_args!("{} calls answered, {:.4} USD{unpriced}", totals.answered, totals.usd))?;
        let interrupted = client.recovery().interrupted;
        if interrupted > 0 {
            print_result(format_args!(
                "{interrupted} calls of earlier processes may have been billed twice"
            ))?;
        }
        self.check_failures(&report)
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
        let template = self.template.as_deref().map(PromptTemplate::from_file).transpose()?;
        Ok(LlmAnnotator {
            name: self.annotator.clone().unwrap_or_else(|| self.model.clone()),
            model: self.model.clone(),
            template: template.unwrap_or_default(),
            sampling: ChatSampling {
                limit_name: LimitName::MaxTokens,
                ..ChatSampling::greedy(self.max_tokens)
            },
            policies: Policies {
                disagreement: self.on_disagreement.into(),
                refusal: self.on_refusal.into(),
                asked: self.asked,
            },
        })
    }

    fn client(&self) -> Result<Client, llm_client::Error> {
        let key = self.api_key_env.as_deref().map(Secret::from_env).transpose()?;
        let timeout = Duration::from_secs(self.timeout);
        let endpoint = Endpoint::new(&self.base_url, EndpointKind::OpenAi, key, timeout)?;
        let mut prices = Prices::listed();
        if let Some(path) = &self.prices {
            prices = prices.and_file(path)?;
        }
        let limits = Limits {
            concurrency: self.concurrency,
            requests_per_minute: self.rpm,
            tokens_per_minute: self.tpm,
        };
        let settings = Settings { limits, retry: RetryPolicy::PATIENT, prices, max_cost: self.max_cost };
        let jitter = Seeds::new(self.data.seed).stream("retry-jitter");
        Client::new(endpoint, settings, Some(&self.work), Arc::new(TokioClock::start()), jitter)
    }
}
