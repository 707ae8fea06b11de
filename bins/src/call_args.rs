//! The arguments of calls to endpoints: limits, costs, batches.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use llm_client::{
    Client, Endpoint, EndpointKind, Error, Limits, Prices, RetryPolicy, Secret, Settings, TokioClock,
};
use seeds::Seeds;

use crate::batch_args::{BatchArgs, seconds};

/// Calls to endpoints.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The environment variable of the API key, if the server requires one
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
    /// Calls at a time
    #[arg(long, visible_alias = "parallel", value_name = "N", default_value = "8")]
    concurrency: NonZeroU32,
    /// Requests a minute at most [default: no limit]
    #[arg(long, value_name = "N")]
    rpm: Option<NonZeroU32>,
    /// Tokens a minute at most, prompts and answers together [default: no limit]
    #[arg(long, value_name = "N")]
    tpm: Option<NonZeroU64>,
    /// Seconds until an attempt fails and is repeated
    #[arg(long, value_name = "S", default_value = "120", value_parser = seconds)]
    timeout: Duration,
    /// The most attempts at a call
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,
    /// Stop before a call that could raise the cost of this run above this many USD
    #[arg(long, value_name = "USD")]
    pub(crate) max_cost: Option<f64>,
    /// Prices of models, as TOML, that take precedence over the built-in list prices
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    #[command(flatten)]
    batch: BatchArgs,
}

impl CallArgs {
    /// Returns a client of the endpoint at `base_url` that spends at most `max_cost` USD, with its replies and ledger in
    /// `folder`.
    pub(crate) fn client(
        &self,
        base_url: &str,
        kind: EndpointKind,
        folder: &Path,
        max_cost: Option<f64>,
    ) -> Result<Client, Error> {
        let key = self.api_key_env.as_deref().map(Secret::from_env).transpose()?;
        let endpoint = Endpoint::new(base_url, kind, key, self.timeout)?;
        let api = self.batch.api(&endpoint)?;
        let prices = self.prices.iter().try_fold(Prices::listed(), |prices, path| prices.and_file(path))?;
        let limits = Limits {
            concurrency: self.concurrency,
            requests_per_minute: self.rpm,
            tokens_per_minute: self.tpm,
        };
        let retry = RetryPolicy { attempts: self.attempts, ..RetryPolicy::PATIENT };
        let settings = Settings { limits, retry, prices, max_cost };
        // The length of pauses changes no result.
        let jitter = Seeds::new(u64::from(std::process::id())).stream("retry-jitter");
        let client = Client::new(endpoint, settings, Some(folder), Arc::new(TokioClock::start()), jitter)?;
        self.batch.apply(client, api)
    }
}
