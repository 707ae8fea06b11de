#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch_api;
mod batch_store;
mod cache;
mod chat;
mod client;
mod clock;
mod download;
mod endpoint;
mod error;
mod failure;
mod ledger;
mod limit;
mod prices;
mod printable;
mod retry;
mod secret;
mod store;
mod transfer;

pub use batch_api::BatchApi;
pub use cache::RequestKey;
pub use chat::{
    Alternative, ChatMessage, ChatRequest, ChatSampling, LimitName, Reply, Role, TokenLogprob, Usage,
};
pub use client::{Answered, BatchSettings, Client, Estimate, LIKELY_TOKENS, Settings, Source};
pub use clock::{Clock, TokioClock};
pub use download::download;
pub use endpoint::{Endpoint, EndpointKind, Transport};
pub use error::Error;
pub use failure::Failure;
pub use futures_util::future::BoxFuture;
pub use ledger::{LedgerRow, Totals, read_ledger};
pub use limit::Limits;
pub use prices::{Price, Prices};
pub use printable::{masked_url, printable};
pub use retry::RetryPolicy;
pub use secret::Secret;
pub use store::{LEDGER, Recovery};
