//! Preference records, from raw file to token batch.

#![forbid(unsafe_code)]

mod record;

pub use record::{Label, Message, Pair, PreferenceRecord, Role, Text};
