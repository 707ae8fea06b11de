//! The arguments of an endpoint, and its client.

use std::path::{Path, PathBuf};

use clap::Args;
use llm_client::{ChatSampling, Client, EndpointKind, LimitName};

use crate::call_args::CallArgs;

/// An endpoint, and the limits of its calls.
#[derive(Debug, Args)]
pub(super) struct EndpointArgs {
    /// The base URL of an OpenAI-compatible server, such as `http://localhost:8000/v1`
    #[arg(long, value_name = "URL")]
    pub(super) base_url: Option<String>,
    /// The server's name of the model [default: the judge's or model's name here]
    #[arg(long, value_name = "NAME")]
    pub(super) endpoint_model: Option<String>,
    /// Azure: the version of the API, such as 2024-10-21; the model's name is then that of the deployment
    #[arg(long, value_name = "VERSION")]
    azure_api_version: Option<String>,
    /// The folder of received answers and the ledger [default: calls in the benchmark's folder]
    #[arg(long, value_name = "DIR")]
    calls: Option<PathBuf>,
    /// Send the limit on tokens as `max_completion_tokens`, which reasoning models require
    #[arg(long)]
    completion_tokens: bool,
    #[command(flatten)]
    limits: CallArgs,
}

impl EndpointArgs {
    /// Returns the client for calls to `model`.
    pub(super) fn client(&self, model: &str, data: &Path) -> Result<Client, llm_client::Error> {
        let kind = match &self.azure_api_version {
            Some(api_version) => EndpointKind::Azure {
                deployment: self.endpoint_model(model).to_owned(),
                api_version: api_version.clone(),
            },
            None => EndpointKind::OpenAi,
        };
        let base_url = self.base_url.as_deref().unwrap_or_default();
        let folder = self.calls.clone().unwrap_or_else(|| data.join("calls"));
        self.limits.client(base_url, kind, &folder, self.limits.max_cost)
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
