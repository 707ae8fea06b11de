//! Calls to endpoints: limits, costs, batches.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use llm_client::{
    Client, Endpoint, EndpointKind, Limits, Prices, Recovery, RetryPolicy, Secret, Settings, TokioClock,
    Totals,
};
use seeds::Seeds;

use crate::batch_args::BatchArgs;
use crate::program::print_result;

/// Calls to endpoints.
#[derive(Debug, Args)]
pub(super) struct CallArgs {
    /// The environment variable that holds the API key; none is sent if not given
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
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
    /// Stop before more than this is spent
    #[arg(long, value_name = "USD")]
    pub(super) max_cost: Option<f64>,
    /// Prices of models that are not listed
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    #[command(flatten)]
    batch: BatchArgs,
}

impl CallArgs {
    /// Returns a client of the endpoint at `base_url`, with its replies and ledger in `folder`.
    pub(super) fn client(
        &self,
        base_url: &str,
        folder: &Path,
        max_cost: Option<f64>,
        seed: u64,
    ) -> Result<Client, llm_client::Error> {
        let key = self.api_key_env.as_deref().map(Secret::from_env).transpose()?;
        let timeout = Duration::from_secs(self.timeout);
        let endpoint = Endpoint::new(base_url, EndpointKind::OpenAi, key, timeout)?;
        let api = self.batch.api(&endpoint)?;
        let mut prices = Prices::listed();
        if let Some(path) = &self.prices {
            prices = prices.and_file(path)?;
        }
        let limits = Limits {
            concurrency: self.concurrency,
            requests_per_minute: self.rpm,
            tokens_per_minute: self.tpm,
        };
        let settings = Settings { limits, retry: RetryPolicy::PATIENT, prices, max_cost };
        let jitter = Seeds::new(seed).stream("retry-jitter");
        let client = Client::new(endpoint, settings, Some(folder), Arc::new(TokioClock::start()), jitter)?;
        self.batch.apply(client, api)
    }
}

/// Prints calls and costs.
pub(super) fn print_costs(totals: Totals, recovery: Recovery) -> anyhow::Result<()> {
    let unpriced = if totals.unpriced > 0 {
        format!(", {} calls of unknown cost", totals.unpriced)
    } else {
        String::new()
    };
    print_result(format_args!("{} calls answered, {:.4} USD{unpriced}", totals.answered, totals.usd))?;
    if recovery.interrupted > 0 {
        let interrupted = recovery.interrupted;
        print_result(format_args!("{interrupted} calls of earlier processes may have been billed twice"))?;
    }
    Ok(())
}
