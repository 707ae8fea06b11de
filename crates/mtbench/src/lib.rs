#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod answer;
mod bench_dir;
mod error;
mod files;
mod judge;
mod judgment;
mod prompt;
mod python_json;
mod question;
mod rating;
mod responder;
mod scores;

pub use answer::{Answer, Choice, FixedStamp, Stamp, answer_questions};
pub use bench_dir::BenchDir;
pub use error::Error;
pub use files::{read_lines, write_lines};
pub use judge::{Judge, JudgeRequest};
pub use judgment::{JUDGE_FAILED, JudgeCall, JudgedBy, Judgment, SingleGrading, judge_answers};
pub use prompt::{JudgePrompt, JudgePrompts};
pub use question::Question;
pub use rating::{Mode, Rating, UnreadableRating, parse_rating};
pub use responder::{Conversation, Responder};
pub use scores::{MissingReason, MissingScore, ScoreRow, Scores, TurnMeans, UNCATEGORISED, judged_models};
