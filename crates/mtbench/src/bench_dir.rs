//! The folder in which FastChat keeps a benchmark.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::files::read_unique;
use crate::{Answer, Error, Judgment, PairJudgment, Question, read_lines, write_lines};

/// A benchmark's folder, laid out as FastChat's `data/mt_bench`:
///
/// ```text
/// question.jsonl
/// model_answer/MODEL.jsonl
/// model_judgment/JUDGE_single.jsonl
/// model_judgment/JUDGE_pair.jsonl
/// reference_answer/JUDGE.jsonl
/// ```
///
/// Nothing is touched before one of the methods reads or writes a file. Each of them fails with [`Error::Read`],
/// [`Error::Line`] or [`Error::Inconsistent`] where it reads, with [`Error::Write`] or [`Error::Unwritable`] where it
/// writes, and with [`Error::Name`] for a model or judge whose name cannot be a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchDir {
    root: PathBuf,
}

impl BenchDir {
    /// The benchmark in folder `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the questions lie.
    pub fn question_file(&self) -> PathBuf {
        self.root.join("question.jsonl")
    }

    /// Where the answers of `model` lie.
    ///
    /// # Errors
    ///
    /// [`Error::Name`].
    pub fn answer_file(&self, model: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join("model_answer").join(file_name(model, ".jsonl")?))
    }

    /// Where the single-answer judgments of `judge` lie.
    ///
    /// # Errors
    ///
    /// [`Error::Name`].
    pub fn judgment_file(&self, judge: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join("model_judgment").join(file_name(judge, "_single.jsonl")?))
    }

    /// Where the comparisons of `judge` lie.
    ///
    /// # Errors
    ///
    /// [`Error::Name`].
    pub fn pair_judgment_file(&self, judge: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join("model_judgment").join(file_name(judge, "_pair.jsonl")?))
    }

    /// Where the reference answers of `judge` lie.
    ///
    /// # Errors
    ///
    /// [`Error::Name`].
    pub fn reference_file(&self, judge: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join("reference_answer").join(file_name(judge, ".jsonl")?))
    }

    /// The questions, each of one or two turns and with an id of its own.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn questions(&self) -> Result<Vec<Question>, Error> {
        let questions =
            read_unique(&self.question_file(), "question_id", |question: &Question| question.question_id)?;
        for question in &questions {
            question.checked_turns()?;
        }
        Ok(questions)
    }

    /// Writes the questions.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn write_questions(&self, questions: &[Question]) -> Result<(), Error> {
        write_lines(&self.question_file(), questions)
    }

    /// The judges that have a file of judgments ([`judgment_file`](Self::judgment_file)), in the order of their names.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]; a folder that does not exist holds no judges.
    pub fn judges(&self) -> Result<Vec<String>, Error> {
        self.names("model_judgment", "_single.jsonl")
    }

    /// The models that have a file of answers, in the order of their names.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]; a folder that does not exist holds no models.
    pub fn models(&self) -> Result<Vec<String>, Error> {
        self.names("model_answer", ".jsonl")
    }

    /// What stands before `suffix` in the names of the files in `folder`.
    fn names(&self, folder: &str, suffix: &str) -> Result<Vec<String>, Error> {
        let folder = self.root.join(folder);
        let unreadable = |source| Error::Read { path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(unreadable)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(unreadable)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(suffix));
            names.extend(name.filter(|name| file_name(name, "").is_ok()).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The answers of `model`. Where a question is answered twice, what reads them lets the last answer count.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn answers(&self, model: &str) -> Result<Vec<Answer>, Error> {
        read_lines(&self.answer_file(model)?)
    }

    /// As [`answers`](Self::answers), and none where there is no file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn answers_on_file(&self, model: &str) -> Result<Vec<Answer>, Error> {
        if_there(self.answers(model))
    }

    /// Writes the answers of `model`, in place of those on file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn write_answers(&self, model: &str, answers: &[Answer]) -> Result<(), Error> {
        write_lines(&self.answer_file(model)?, answers)
    }

    /// The single-answer judgments of `judge`, of all models.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn judgments(&self, judge: &str) -> Result<Vec<Judgment>, Error> {
        read_lines(&self.judgment_file(judge)?)
    }

    /// As [`judgments`](Self::judgments), and none where there is no file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn judgments_on_file(&self, judge: &str) -> Result<Vec<Judgment>, Error> {
        if_there(self.judgments(judge))
    }

    /// The comparisons of `judge`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn pair_judgments(&self, judge: &str) -> Result<Vec<PairJudgment>, Error> {
        read_lines(&self.pair_judgment_file(judge)?)
    }

    /// As [`pair_judgments`](Self::pair_judgments), and none where there is no file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn pair_judgments_on_file(&self, judge: &str) -> Result<Vec<PairJudgment>, Error> {
        if_there(self.pair_judgments(judge))
    }

    /// Writes the comparisons of `judge`, in place of those on file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn write_pair_judgments(&self, judge: &str, judgments: &[PairJudgment]) -> Result<(), Error> {
        write_lines(&self.pair_judgment_file(judge)?, judgments)
    }

    /// Writes the single-answer judgments of `judge`, of all models, in place of those on file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn write_judgments(&self, judge: &str, judgments: &[Judgment]) -> Result<(), Error> {
        write_lines(&self.judgment_file(judge)?, judgments)
    }

    /// The reference answers that `judge` compares with.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn references(&self, judge: &str) -> Result<Vec<Answer>, Error> {
        read_lines(&self.reference_file(judge)?)
    }

    /// As [`references`](Self::references), and none where there is no file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn references_on_file(&self, judge: &str) -> Result<Vec<Answer>, Error> {
        if_there(self.references(judge))
    }

    /// Writes the reference answers that `judge` compares with.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn write_references(&self, judge: &str, references: &[Answer]) -> Result<(), Error> {
        write_lines(&self.reference_file(judge)?, references)
    }
}

/// The rows of a file, none where there is no file.
fn if_there<T>(rows: Result<Vec<T>, Error>) -> Result<Vec<T>, Error> {
    match rows {
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        rows => rows,
    }
}

/// `name` with `suffix`, if that is one plain file name: a name from outside must not lead out of the folder.
fn file_name(name: &str, suffix: &str) -> Result<String, Error> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(Error::Name { name: name.to_owned() });
    }
    Ok(format!("{name}{suffix}"))
}
