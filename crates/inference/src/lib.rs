#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod annotator;
mod error;
mod model_fact;
mod ranks;
mod responder;

pub use annotator::{LikelihoodAnnotator, ScoreReduction};
pub use error::InferenceError;
pub use model_fact::model_fact;
pub use ranks::{DistributedResponder, Ending};
pub use responder::{LoadedPolicy, PolicyResponder, Request, chat_messages, tokenizer_with_template};
