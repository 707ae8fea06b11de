#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod agreement;
mod batch;
mod domains;
mod error;
mod file_kind;
mod message;
mod micro_batches;
mod noise;
mod order;
mod place;
mod problem;
mod reader;
mod record;
mod text;
mod token_cache;
mod tokenize;
mod tokenizer;
mod view;
mod volume;
mod writer;

pub use agreement::{AgreementMatrix, AgreementSlice, Keep};
pub use arrow_array;
pub use batch::{Layout, Padding, RowParts, TokenBatch};
pub use chat_template::Date;
pub use domains::{Category, CategoryCount, Count, DomainCounts, Scenario, TABLE_6, TABLE_7, categories_of};
pub use error::{BoxedError, DataError};
pub use message::{Message, TemplateContext};
pub use micro_batches::micro_batches;
pub use noise::{Fate, FlipRate, Noise, NoiseLog, NoiseModel, NoiseRow, Odds, corrupt, flip_labels};
pub use order::shuffled_order;
pub use place::{Place, Places, Unit};
pub use problem::{FieldProblem, FileProblem};
pub use reader::{
    ColumnRole, Format, Note, PairColumns, Preferences, ReadOptions, ReadReport, Sample, ScoreRatio,
    read_demonstrations, read_preferences, read_record_batches, read_records, read_records_with,
    record_files,
};
pub use record::{DEFAULT_ANNOTATOR, Label, Pair, PreferenceRecord, Text, UnpairedRecord, Votes};
pub use token_cache::{TokenCache, TokenFile};
pub use tokenize::{
    CompletionPreview, Dialogue, Identical, PairPreview, Preset, Quantiles, SharedTurns, SkippedExample,
    TokenCompletion, TokenPair, TokenizeOptions, TokenizeReport, Truncated, TruncatedCompletion, Truncation,
    preview_completion, preview_pair, tokenize_dialogue, tokenize_dialogues, tokenize_pairs,
    tokenize_unpaired,
};
pub use tokenizer::{ChatSettings, RenderMode, Tokenizer};
pub use view::{LabelSource, Mixture, ViewReport, annotator_view, label_view};
pub use volume::{Fraction, Selection, draw, hold_out, select, select_unpaired, subset};
pub use writer::{pair_batch, write_pairs, write_records};
