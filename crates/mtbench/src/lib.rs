//! MT-Bench in FastChat's files: questions, answers, judges, judgments, scores.

#![forbid(unsafe_code)]

mod judge;
mod question;
mod responder;

pub use judge::{Judge, JudgeRequest};
pub use question::Question;
pub use responder::{Conversation, Responder};
