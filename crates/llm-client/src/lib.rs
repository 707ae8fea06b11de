#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cache;
mod chat;
mod client;
mod clock;
mod endpoint;
mod error;
mod failure;
mod ledger;
mod limit;
mod prices;
mod retry;
mod secret;

pub use cache::RequestKey;
pub use chat::{ChatMessage, ChatRequest, ChatSampling, LimitName, Reply, Role, Usage};
pub use client::{Answered, Client, LEDGER, Settings, Source};
pub use clock::{Clock, TokioClock};
pub use endpoint::{Endpoint, EndpointKind, Transport};
pub use error::Error;
pub use failure::Failure;
pub use futures_util::future::BoxFuture;
pub use ledger::{LedgerRow, Totals, read_ledger};
pub use limit::Limits;
pub use prices::{Price, Prices};
pub use retry::RetryPolicy;
pub use secret::Secret;
