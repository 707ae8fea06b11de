#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod choice;
mod client;
mod error;
mod fetch;
mod repo;

pub use error::HubError;
pub use fetch::{Access, Hub};
pub use repo::{RepoId, RepoKind};
