#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod agreement;
mod anchors;
mod answer;
mod answering;
mod bench_dir;
mod browse;
mod bundle;
mod certificate;
mod compare;
mod endpoint;
mod error;
mod fetch;
mod fields;
mod grading;
mod judge;
mod judgment;
mod jury;
mod pair;
mod pair_grading;
mod pair_scores;
mod prompt;
mod python_json;
mod question;
mod question_id;
mod rating;
mod replay;
mod responder;
mod rows;
mod scores;
mod shown;
mod style;
mod tables;
mod transcripts;
mod verdict;

pub use agreement::{Ties, Vote, VoteAgreement, Voters, vote_agreement};
pub use anchors::{Anchors, Drift};
pub use answer::{Answer, Choice, FixedStamp, Stamp};
pub use answering::{answer_bench, answer_questions};
pub use bench_dir::BenchDir;
pub use browse::{Browsed, browser};
pub use bundle::{Bundle, Imported, export_bundle, import_bundle, read_bundle};
pub use certificate::{Certificate, Share, certify};
pub use compare::{PositionBias, comparison_table, difference_table, length_table};
pub use endpoint::{ANSWER_TOKENS, EndpointJudge, EndpointResponder, JUDGMENT_TOKENS};
pub use error::Error;
pub use fetch::{SPACE, copy_bench, fetch_bench};
pub use grading::{JudgeCall, SingleGrading, judge_answers};
pub use judge::{Draw, Judge, JudgeOutcome, JudgeRequest, Rival, Served};
pub use judgment::{JudgedBy, Judgment};
pub use jury::{JudgePlan, JudgeProgress, Judged, Jury};
pub use pair::{PairJudgment, Winner};
pub use pair_grading::{Games, PairCall, PairGrading};
pub use pair_scores::{PairScore, PairScores, compared_models};
pub use prompt::{JudgePrompt, JudgePrompts};
pub use question::{KNOWN_WRONG_REFERENCES, Question};
pub use question_id::question_label;
pub use rating::{Mode, Rating, UnreadableRating, parse_rating};
pub use replay::{NotRecorded, ReplayJudge};
pub use responder::{Conversation, Responder};
pub use rows::{BadLines, read_lines, write_lines};
pub use scores::{
    MissingReason, MissingScore, Pool, ScoreRow, Scores, TurnMeans, UNCATEGORISED, judged_models,
};
pub use shown::Shown;
pub use style::{Style, StyleControl, StyleFit};
pub use tables::{
    ModelScores, Resampling, bars, category_table, missing_table, pair_table, radar, score_table,
};
pub use verdict::{
    GradedVerdict, JUDGE_FAILED, PairVerdict, Reading, Verdict, parse_graded_verdict, parse_pair_verdict,
};
