//! A world of the user's own: a model folder, a file of preferences, a benchmark's folder. Nothing is made here.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use mtbench::{Answer, BenchDir, Question, read_lines};
use pref_data::{DataError, ReadOptions, Tokenizer, read_records_with, record_files};
use seeds::Seeds;

use super::keep_evenly;
use crate::error::StudyError;
use crate::recipe::{AnswersSection, StudyRecipe};
use crate::responder::tokenizer_with_template;
use crate::store::Key;

/// What a model folder's address depends on.
const MODEL_FILES: [&str; 4] = ["safetensors", "json", "jinja", "model"];
/// The judge whose reference answers come with MT-Bench.
const REFERENCES_OF: &str = "gpt-4";

/// A model, preferences and a benchmark of the user's own.
#[derive(Debug)]
pub(super) struct GivenWorld {
    model: PathBuf,
    data: PathBuf,
    held_out: Option<PathBuf>,
    reading: ReadOptions,
    answers: AnswersSection,
    pairs: OnceCell<u64>,
    pub(super) key: Key,
    pub(super) seeds: Seeds,
    pub(super) questions: Vec<Question>,
    pub(super) references: Vec<Answer>,
    pub(super) tokenizer: Tokenizer,
}

impl GivenWorld {
    pub(super) fn new(recipe: &StudyRecipe) -> Result<Self, StudyError> {
        let (model, data) = (PathBuf::from(&recipe.model.path), PathBuf::from(&recipe.data.path));
        let tokenizer = tokenizer_with_template(&model)?;
        let seeds = Seeds::new(recipe.seed).child("study");
        let root = recipe.study.bench.as_deref().unwrap_or(Path::new(""));
        let bench = BenchDir::new(root);
        if !bench.question_file().exists() {
            return Err(StudyError::Unsupported(format!(
                "study.bench = \"{0}\" has no question.jsonl; `mtbench fetch --data {0}` brings MT-Bench's",
                root.display()
            )));
        }
        let mut questions = bench.questions()?;
        keep_evenly(&mut questions, recipe.study.questions)?;
        let held_out = recipe.data.eval_path.as_ref().map(PathBuf::from);
        let mut content = vec![content_of(&model_files(&model)?)?, content_of(&record_files(&data)?)?];
        if let Some(held_out) = &held_out {
            content.push(content_of(&record_files(held_out)?)?);
        }
        let key = Key::of(&["given world", &content.join(" ")]);
        Ok(Self {
            references: references(recipe, &bench)?,
            reading: recipe.data.reading(&seeds),
            answers: recipe.answers.clone(),
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

    /// Every replicate reads the same file: its seed draws share, noise and order.
    pub(super) fn records(&self, _: u64) -> PathBuf {
        self.data.clone()
    }

    pub(super) fn held_out(&self, _: u64) -> Option<PathBuf> {
        self.held_out.clone()
    }

    pub(super) fn pairs(&self) -> Result<u64, StudyError> {
        if let Some(pairs) = self.pairs.get() {
            return Ok(*pairs);
        }
        let (records, _) = read_records_with(&self.data, &self.reading)?;
        Ok(*self.pairs.get_or_init(|| records.len() as u64))
    }

    pub(super) fn max_new_tokens(&self) -> usize {
        self.answers.max_new_tokens as usize
    }
}

/// The recipe's reference answers, else those of the judge in the benchmark's folder, else those that come with MT-Bench.
fn references(recipe: &StudyRecipe, bench: &BenchDir) -> Result<Vec<Answer>, StudyError> {
    if let Some(path) = &recipe.judge.references {
        return Ok(read_lines(path)?);
    }
    let of_judge = bench.references_on_file(recipe.judge.name())?;
    Ok(if of_judge.is_empty() { bench.references_on_file(REFERENCES_OF)? } else { of_judge })
}

fn model_files(folder: &Path) -> Result<Vec<PathBuf>, StudyError> {
    let failed = || StudyError::io("cannot read the model folder", folder);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if path.is_file() && MODEL_FILES.contains(&ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Names and content of files, in short.
fn content_of(files: &[PathBuf]) -> Result<String, StudyError> {
    let mut hasher = blake3::Hasher::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        let failed = || |source| DataError::Io { action: "read", path: path.clone(), source };
        let file = File::open(path).map_err(failed())?;
        hasher.update(&file.metadata().map_err(failed())?.len().to_le_bytes());
        hasher.update_reader(file).map_err(failed())?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
