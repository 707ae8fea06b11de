//! The arguments of calls in batches.

use std::time::Duration;

use clap::Args;
use llm_client::{BatchApi, BatchSettings, Client, Endpoint, Error};

/// Calls in batches.
#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    /// Make all calls with the server's Batch API, at half the price and within a day; a stopped command goes on with its
    /// batch when it runs again
    #[arg(long)]
    batch: bool,
    /// The price of a call in a batch, as a share of the list price
    #[arg(long, value_name = "SHARE", default_value = "0.5", value_parser = crate::program::share, requires = "batch")]
    batch_price: f64,
    /// The most calls of one batch; fewer if the account limits the tokens of unfinished batches
    #[arg(long, value_name = "N", default_value = "50000", value_parser = clap::value_parser!(u32).range(1..=50_000), requires = "batch")]
    batch_calls: u32,
    /// The longest pause between two requests for a batch's state, in seconds
    #[arg(long, value_name = "S", default_value = "300", value_parser = seconds, requires = "batch")]
    batch_poll: Duration,
}

impl BatchArgs {
    /// Returns the Batch API of `endpoint`, if `--batch` is given.
    pub(crate) fn api(&self, endpoint: &Endpoint) -> Result<Option<BatchApi>, Error> {
        self.batch.then(|| endpoint.batches()).transpose()
    }

    /// Returns `client`, which makes its calls with `api`, if there is one.
    pub(crate) fn apply(&self, client: Client, api: Option<BatchApi>) -> Result<Client, Error> {
        let Some(api) = api else { return Ok(client) };
        let settings = BatchSettings {
            price_share: self.batch_price,
            most_calls: self.batch_calls as usize,
            first_poll: BatchSettings::default().first_poll.min(self.batch_poll),
            longest_poll: self.batch_poll,
        };
        client.with_batches(api, settings)
    }
}

/// Parses a duration in seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or_else(|| "give a number of seconds above 0".to_owned())
}
