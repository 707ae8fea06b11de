#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod error;
mod files;
mod reader;
mod record;
mod text;
mod tokenize;
mod tokenizer;
mod view;
mod writer;

pub use batch::{Layout, TokenBatch};
pub use error::{BoxedError, DataError, FieldProblem, Place, Unit};
pub use reader::{
    DEFAULT_ANNOTATOR, Format, PairColumns, ReadOptions, ReadReport, Sample, ScoreRatio, read_records,
    read_records_with,
};
pub use record::{Label, Message, Pair, PreferenceRecord, Role, Text};
pub use tokenize::{
    Dialogue, Quantiles, TokenPair, TokenizeOptions, TokenizeReport, Truncation, tokenize_dialogue,
    tokenize_dialogues, tokenize_pairs,
};
pub use tokenizer::{RenderMode, Tokenizer};
pub use view::{FlipRate, Fraction, ViewReport, annotator_view, flip_labels, shuffled_order, subset};
pub use writer::{write_pairs, write_records};
