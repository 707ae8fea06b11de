#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod agreement;
mod answer;
mod bench_dir;
mod browse;
mod compare;
mod endpoint;
mod error;
mod fetch;
mod files;
mod judge;
mod judgment;
mod jury;
mod pair;
mod pair_scores;
mod prompt;
mod python_json;
mod question;
mod rating;
mod replay;
mod responder;
mod scores;
mod shown;
mod tables;

pub use agreement::{Ties, Vote, VoteAgreement, Voters, vote_agreement};
pub use answer::{Answer, Choice, FixedStamp, Stamp, answer_bench, answer_questions};
pub use bench_dir::BenchDir;
pub use browse::{Browsed, browser};
pub use compare::{PositionBias, difference_table, length_table};
pub use endpoint::{ANSWER_TOKENS, EndpointJudge, EndpointResponder, JUDGMENT_TOKENS};
pub use error::Error;
pub use fetch::{SPACE, fetch_bench};
pub use files::{read_lines, write_lines};
pub use judge::{Draw, Heard, Judge, JudgeRequest, Rival};
pub use judgment::{JUDGE_FAILED, JudgeCall, JudgedBy, Judgment, SingleGrading, judge_answers};
pub use jury::{JudgePlan, JudgeProgress, Judged, Jury};
pub use pair::{Games, PairCall, PairGrading, PairJudgment, PairVerdict, Winner, parse_pair_verdict};
pub use pair_scores::{PairScore, PairScores};
pub use prompt::{JudgePrompt, JudgePrompts};
pub use question::{KNOWN_WRONG_REFERENCES, Question};
pub use rating::{Mode, Rating, UnreadableRating, parse_rating};
pub use replay::{NotRecorded, ReplayJudge};
pub use responder::{Conversation, Responder};
pub use scores::{
    MissingReason, MissingScore, Pool, ScoreRow, Scores, TurnMeans, UNCATEGORISED, judged_models,
};
pub use shown::Shown;
pub use tables::{
    ModelScores, Resampling, bars, category_table, missing_table, pair_table, radar, score_table,
};
