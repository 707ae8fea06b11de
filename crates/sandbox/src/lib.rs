#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod annotator;
mod behavior;
mod dialogue;
mod error;
mod family;
mod gold;
mod judge;
mod policy;
mod rater;
mod task;
mod template;
mod tokenizer;
mod words;

pub use annotator::{Agreement, Annotator, WeakLlm, agreement, label_all};
pub use behavior::Mixture;
pub use dialogue::{
    TrainingPrompt, demonstrate_answer, demonstrations, further_questions, ideal_answer, questions,
    reference_turns, training_prompts,
};
pub use error::Error;
pub use family::CATEGORIES;
pub use gold::{Assessment, Attempt, HIGHEST, LOWEST, assess, category_of, gold_quality};
pub use judge::{SandboxJudge, normal};
pub use policy::{Size, model_config};
pub use rater::{Candidate, Rater, RaterChoice, raters};
pub use tokenizer::{ASSISTANT, END, MAX_VOCAB_SIZE, PAD, USER, write_tokenizer_folder};
