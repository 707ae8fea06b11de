//! The folder of a benchmark, as FastChat lays it out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::answer::Answer;
use crate::error::Error;
use crate::judgment::Judgment;
use crate::pair::PairJudgment;
use crate::question::Question;
use crate::question_id::{order, question_label};
use crate::rows::{self, BadLines, add_rows, if_present, read_rows, write_lines};

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
/// A model is the name of its file, as FastChat has it: the field `model_id` of a row is ignored. No file is touched
/// before one of the methods reads or writes it. Methods that read fail with [`Error::Read`], [`Error::Line`] or
/// [`Error::Inconsistent`]. Methods that write fail with [`Error::Write`] or [`Error::Unwritable`]. All fail with
/// [`Error::Name`] for a model or judge with a name that cannot be a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchDir {
    root: PathBuf,
    bad_lines: BadLines,
}

impl BenchDir {
    /// The benchmark in folder `root`, which need not exist yet. A line that is no row is an error.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), bad_lines: BadLines::Refuse }
    }

    /// The same folder with another treatment of lines that are no rows.
    #[must_use]
    pub fn with_bad_lines(self, bad_lines: BadLines) -> Self {
        Self { bad_lines, ..self }
    }

    /// Returns the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path of the questions.
    pub fn question_file(&self) -> PathBuf {
        self.root.join("question.jsonl")
    }

    /// Returns the path of the answers of `model`.
    ///
    /// # Errors
    ///
    /// [`Error::Name`].
    pub fn answer_file(&self, model: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join("model_answer").join(file_name(model, ".jsonl")?))
    }

    /// Returns the path of the single-answer judgments of `judge`.
    ///
    /// # Errors
    ///
    /// [`Error::Name`].
    pub fn judgment_file(&self, judge: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join("model_judgment").join(file_name(judge, "_single.jsonl")?))
    }

    /// Returns the path of the comparisons of `judge`.
    ///
    /// # Errors
    ///
    /// [`Error::Name`].
    pub fn pair_judgment_file(&self, judge: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join("model_judgment").join(file_name(judge, "_pair.jsonl")?))
    }

    /// Returns the path of the anchors of `judge`, of single answers or of pairs.
    pub(crate) fn anchor_file(&self, judge: &str, of_pairs: bool) -> Result<PathBuf, Error> {
        let end = if of_pairs { "_pair.jsonl" } else { "_single.jsonl" };
        Ok(self.root.join("anchors").join(file_name(judge, end)?))
    }

    /// Returns the path of the reference answers of `judge`.
    ///
    /// # Errors
    ///
    /// [`Error::Name`].
    pub fn reference_file(&self, judge: &str) -> Result<PathBuf, Error> {
        Ok(self.root.join("reference_answer").join(file_name(judge, ".jsonl")?))
    }

    /// Reads the questions. Each has one or two turns and an id of its own.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn questions(&self) -> Result<Vec<Question>, Error> {
        let id = |question: &Question| question.question_id;
        let label = |question: &Question| question_label(question.question_id);
        let questions = rows::read_unique(&self.question_file(), self.bad_lines, "question_id", id, label)?;
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

    /// Returns the judges with a [file of judgments](Self::judgment_file), by name.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]. A folder that does not exist holds no judges.
    pub fn judges(&self) -> Result<Vec<String>, Error> {
        self.names("model_judgment", "_single.jsonl")
    }

    /// Returns the models with a file of answers, by name.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]. A folder that does not exist holds no models.
    pub fn models(&self) -> Result<Vec<String>, Error> {
        self.names("model_answer", ".jsonl")
    }

    /// The names of the files in `folder` that end in `suffix`, without it.
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

    /// Reads the answers of `model`. A question may be answered several times; the last answer counts.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn answers(&self, model: &str) -> Result<Vec<Answer>, Error> {
        let answers = read_rows(&self.answer_file(model)?, self.bad_lines)?.into_iter();
        Ok(answers.map(|answer| Answer { model_id: model.to_owned(), ..answer }).collect())
    }

    /// As [`answers`](Self::answers), and none if there is no file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn answers_on_file(&self, model: &str) -> Result<Vec<Answer>, Error> {
        if_present(self.answers(model))
    }

    /// Replaces the answers of `model`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn write_answers(&self, model: &str, answers: &[Answer]) -> Result<(), Error> {
        write_lines(&self.answer_file(model)?, answers)
    }

    /// Adds answers to the file of `model`. As in FastChat, the result has one answer a question, in the order of ids.
    pub(crate) fn add_answers(&self, model: &str, answers: Vec<Answer>) -> Result<(), Error> {
        let id = |answer: &Answer| answer.question_id;
        let path = self.answer_file(model)?;
        add_rows(&path, self.bad_lines, answers, id, |lines| {
            // The last answer counts. A stable sort keeps bad lines, which have no id, at the front.
            lines.reverse();
            let mut seen = std::collections::BTreeSet::new();
            lines.retain(|line| line.row.as_ref().is_none_or(|answer| seen.insert(id(answer))));
            lines.reverse();
            lines.sort_by_cached_key(|line| line.row.as_ref().map(|answer| order(id(answer))));
        })?;
        Ok(())
    }

    /// Reads the single-answer judgments of `judge`, of all models.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn judgments(&self, judge: &str) -> Result<Vec<Judgment>, Error> {
        read_rows(&self.judgment_file(judge)?, self.bad_lines)
    }

    /// As [`judgments`](Self::judgments), and none if there is no file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn judgments_on_file(&self, judge: &str) -> Result<Vec<Judgment>, Error> {
        if_present(self.judgments(judge))
    }

    /// Adds single-answer judgments to the file of `judge` and returns all of its rows. A judgment replaces the one that
    /// it repeats. Several processes may add judgments at the same time.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn add_judgments(&self, judge: &str, judgments: Vec<Judgment>) -> Result<Vec<Judgment>, Error> {
        add_rows(&self.judgment_file(judge)?, self.bad_lines, judgments, Judgment::key, |_| ())
    }

    /// Reads the comparisons of `judge`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn pair_judgments(&self, judge: &str) -> Result<Vec<PairJudgment>, Error> {
        read_rows(&self.pair_judgment_file(judge)?, self.bad_lines)
    }

    /// As [`pair_judgments`](Self::pair_judgments), and none if there is no file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn pair_judgments_on_file(&self, judge: &str) -> Result<Vec<PairJudgment>, Error> {
        if_present(self.pair_judgments(judge))
    }

    /// As [`add_judgments`](Self::add_judgments), for comparisons.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn add_pair_judgments(
        &self,
        judge: &str,
        judgments: Vec<PairJudgment>,
    ) -> Result<Vec<PairJudgment>, Error> {
        add_rows(&self.pair_judgment_file(judge)?, self.bad_lines, judgments, PairJudgment::key, |_| ())
    }

    /// Replaces the comparisons of `judge`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn write_pair_judgments(&self, judge: &str, judgments: &[PairJudgment]) -> Result<(), Error> {
        write_lines(&self.pair_judgment_file(judge)?, judgments)
    }

    /// Replaces the single-answer judgments of `judge`, of all models.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn write_judgments(&self, judge: &str, judgments: &[Judgment]) -> Result<(), Error> {
        write_lines(&self.judgment_file(judge)?, judgments)
    }

    /// Reads the reference answers of `judge`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn references(&self, judge: &str) -> Result<Vec<Answer>, Error> {
        read_rows(&self.reference_file(judge)?, self.bad_lines)
    }

    /// As [`references`](Self::references), and none if there is no file.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn references_on_file(&self, judge: &str) -> Result<Vec<Answer>, Error> {
        if_present(self.references(judge))
    }

    /// Writes the reference answers of `judge`.
    ///
    /// # Errors
    ///
    /// See the type.
    pub fn write_references(&self, judge: &str, references: &[Answer]) -> Result<(), Error> {
        write_lines(&self.reference_file(judge)?, references)
    }
}

/// `name` with `suffix`, if that is one plain file name. A name from outside must not lead out of the folder.
fn file_name(name: &str, suffix: &str) -> Result<String, Error> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(Error::Name { name: name.to_owned() });
    }
    Ok(format!("{name}{suffix}"))
}
