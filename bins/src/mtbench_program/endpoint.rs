//! The arguments of an endpoint, and its client.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use llm_client::{
    ChatSampling, Client, Endpoint, EndpointKind, LimitName, Limits, Prices, RetryPolicy, Secret, Settings,
    TokioClock,
};
use seeds::Seeds;

use crate::batch_args::{BatchArgs, seconds};

/// An endpoint, and the limits of its calls.
#[derive(Debug, Args)]
pub(super) struct EndpointArgs {
    /// The base URL of an OpenAI-compatible server, such as `http://localhost:8000/v1`
    #[arg(long, value_name = "URL")]
    pub(super) base_url: Option<String>,
    /// The environment variable of the API key, if the server requires one
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
    /// The server's name of the model [default: the judge's or model's name here]
    #[arg(long, value_name = "NAME")]
    pub(super) endpoint_model: Option<String>,
    /// Azure: the version of the API, such as 2024-10-21; the model's name is then that of the deployment
    #[arg(long, value_name = "VERSION")]
    azure_api_version: Option<String>,
    /// Calls at a time
    #[arg(long, value_name = "N", default_value = "8")]
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
    max_cost: Option<f64>,
    /// Prices of models, as TOML, that take precedence over the built-in list prices
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// The folder of received answers and the ledger [default: calls in the benchmark's folder]
    #[arg(long, value_name = "DIR")]
    calls: Option<PathBuf>,
    /// Send the limit on tokens as `max_completion_tokens`, which reasoning models require
    #[arg(long)]
    completion_tokens: bool,
    #[command(flatten)]
    batch: BatchArgs,
}

impl EndpointArgs {
    /// Returns the client for calls to `model`.
    pub(super) fn client(&self, model: &str, data: &Path) -> Result<Client, llm_client::Error> {
        let key = self.api_key_env.as_deref().map(Secret::from_env).transpose()?;
        let kind = match &self.azure_api_version {
            Some(api_version) => EndpointKind::Azure {
                deployment: self.endpoint_model(model).to_owned(),
                api_version: api_version.clone(),
            },
            None => EndpointKind::OpenAi,
        };
        let base_url = self.base_url.as_deref().unwrap_or_default();
        let endpoint = Endpoint::new(base_url, kind, key, self.timeout)?;
        let api = self.batch.api(&endpoint)?;
        let prices = self.prices.iter().try_fold(Prices::listed(), |prices, path| prices.and_file(path))?;
        let settings = Settings {
            limits: Limits {
                concurrency: self.concurrency,
                requests_per_minute: self.rpm,
                tokens_per_minute: self.tpm,
            },
            retry: RetryPolicy { attempts: self.attempts, ..RetryPolicy::PATIENT },
            prices,
            max_cost: self.max_cost,
        };
        let folder = self.calls.clone().unwrap_or_else(|| data.join("calls"));
        // The length of pauses changes no result.
        let jitter = Seeds::new(u64::from(std::process::id())).stream("retry-jitter");
        let client = Client::new(endpoint, settings, Some(&folder), Arc::new(TokioClock::start()), jitter)?;
        self.batch.apply(client, api)
    }

    /// Returns the server's name of the model `name`.
    pub(super) fn endpoint_model<'a>(&'a self, name: &'a str) -> &'a str {
        self.endpoint_model.as_deref().unwrap_or(name)
    }

    pub(super) fn sampling(&self, temperature: f64, max_tokens: u32) -> ChatSampling {
        let limit_name =
            if self.completion_tokens { LimitName::MaxCompletionTokens } else { LimitName::MaxTokens };
        ChatSampling { temperature: Some(temperature), limit_name, ..ChatSampling::greedy(max_tokens) }
    }
}
