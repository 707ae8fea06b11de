//! A given source: a model folder, a file of preferences, a benchmark's folder.

use std::cell::OnceCell;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use inference::tokenizer_with_template;
use mtbench::{Answer, BenchDir, Question, read_lines};
use pref_data::{ReadOptions, Tokenizer, read_records_with, record_files};
use seeds::Seeds;
use serde::Serialize;
use trainer::recipe::DataSection;

use super::keep_evenly;
use crate::digests::{digest, model_files};
use crate::error::ExperimentError;
use crate::setup::{AnswersSection, Setup};
use crate::store::Key;

/// The judge of the reference answers in MT-Bench.
const REFERENCES_OF: &str = "gpt-4";

/// What determines the address of a given source, as digests.
#[derive(Serialize)]
struct SourceContent {
    model: String,
    data: String,
    held_out: Option<String>,
}

/// A given model, preferences and benchmark.
#[derive(Debug)]
pub(super) struct GivenSource {
    model: PathBuf,
    data: PathBuf,
    held_out: Option<PathBuf>,
    reading: ReadOptions,
    section: DataSection,
    answers: AnswersSection,
    pairs: OnceCell<u64>,
    pub(super) key: Key,
    pub(super) seeds: Seeds,
    pub(super) questions: Vec<Question>,
    pub(super) references: Vec<Answer>,
    pub(super) tokenizer: Tokenizer,
}

impl GivenSource {
    pub(super) fn new(setup: &Setup) -> Result<Self, ExperimentError> {
        let (model, data) = (PathBuf::from(&setup.model.path), PathBuf::from(&setup.data.path));
        let tokenizer = tokenizer_with_template(&model, &setup.data.chat())?;
        let seeds = Seeds::new(setup.seed).child("study");
        let root = setup.bench.as_deref().unwrap_or(Path::new(""));
        let bench = BenchDir::new(root);
        if !bench.question_file().exists() {
            return Err(ExperimentError::Unsupported(format!(
                "the benchmark's folder \"{0}\" has no question.jsonl; `mtbench fetch --data {0}` downloads MT-Bench's",
                root.display()
            )));
        }
        let mut questions = bench.questions()?;
        keep_evenly(&mut questions, setup.questions)?;
        let held_out = setup.data.eval_path.as_ref().map(PathBuf::from);
        let held_out_digest = held_out.as_ref().map(|path| digest(&record_files(path)?)).transpose()?;
        let content = SourceContent {
            model: digest(&model_files(&model)?)?,
            data: digest(&record_files(&data)?)?,
            held_out: held_out_digest,
        };
        let key = Key::of("given source", &content);
        Ok(Self {
            references: references(setup, &bench)?,
            reading: setup.data.reading(&seeds),
            section: setup.data.clone(),
            answers: setup.answers.clone(),
            pairs: OnceCell::new(),
            model,
            data,
            held_out,
            key,
            seeds,
            questions,
            tokenizer,
        })
    }

    pub(super) fn model(&self) -> PathBuf {
        self.model.clone()
    }

    /// Returns the same file for every replicate; the seed draws share, noise and order.
    pub(super) fn records(&self, _: u64) -> PathBuf {
        self.data.clone()
    }

    pub(super) fn held_out(&self, _: u64) -> Option<PathBuf> {
        self.held_out.clone()
    }

    pub(super) fn pairs(&self) -> Result<u64, ExperimentError> {
        if let Some(pairs) = self.pairs.get() {
            return Ok(*pairs);
        }
        let (records, _) = read_records_with(&self.data, &self.reading)?;
        let held_out = self.section.held_out_records(records.len()).map_or(0, NonZeroUsize::get);
        let trained = records.len().saturating_sub(held_out);
        Ok(*self.pairs.get_or_init(|| trained as u64))
    }

    pub(super) fn max_new_tokens(&self) -> usize {
        self.answers.max_new_tokens as usize
    }
}

/// Reads the reference answers: the setup's, else the judge's in the benchmark's folder, else MT-Bench's.
fn references(setup: &Setup, bench: &BenchDir) -> Result<Vec<Answer>, ExperimentError> {
    if let Some(path) = &setup.judge.references {
        return Ok(read_lines(path)?);
    }
    let of_judge = bench.references_on_file(setup.judge.name())?;
    Ok(if of_judge.is_empty() { bench.references_on_file(REFERENCES_OF)? } else { of_judge })
}
