//! A judge's judgments of a folder, with their scores.

use crate::bench_dir::BenchDir;
use crate::error::Error;
use crate::judgment::Judgment;
use crate::question::Question;
use crate::rating::Mode;
use crate::scores::{Pool, Scores, judged_models};
use crate::tables::ModelScores;

/// A judge's single-answer judgments, and their scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The judge.
    pub judge: String,
    /// The questions.
    pub questions: Vec<Question>,
    /// The judgments of the shown models.
    pub judgments: Vec<Judgment>,
    /// Each model's scores.
    pub scores: Vec<ModelScores>,
}

impl Shown {
    /// Reads the judgments of `models` by `judge`, or of all judged models if `models` is empty.
    ///
    /// In [`Mode::Strict`] the texts are parsed again. A judgment without a text keeps its recorded score.
    ///
    /// # Errors
    ///
    /// [`Error::NoModel`] for a model without judgments. Those of [`BenchDir`].
    pub fn read(
        bench: &BenchDir,
        judge: &str,
        mode: Mode,
        pool: Pool,
        models: &[String],
    ) -> Result<Self, Error> {
        let (questions, judgments) = (bench.questions()?, bench.judgments(judge)?);
        let shown = Self::new(judge, questions, judgments, mode, pool, models);
        models.iter().try_for_each(|model| shown.of(model).map(drop))?;
        Ok(shown)
    }

    /// As [`read`](Self::read), and without scores if there is no file of judgments. A model without judgments is left
    /// out.
    ///
    /// # Errors
    ///
    /// Those of [`BenchDir`].
    pub fn read_on_file(
        bench: &BenchDir,
        judge: &str,
        mode: Mode,
        pool: Pool,
        models: &[String],
    ) -> Result<Self, Error> {
        let (questions, judgments) = (bench.questions()?, bench.judgments_on_file(judge)?);
        Ok(Self::new(judge, questions, judgments, mode, pool, models))
    }

    fn new(
        judge: &str,
        questions: Vec<Question>,
        mut judgments: Vec<Judgment>,
        mode: Mode,
        pool: Pool,
        models: &[String],
    ) -> Self {
        let known: Vec<String> = judged_models(&judgments).into_iter().map(str::to_owned).collect();
        let wanted = |model: &String| known.contains(model);
        let models = if models.is_empty() {
            known
        } else {
            models.iter().filter(|model| wanted(model)).cloned().collect()
        };
        judgments.retain(|judgment| models.contains(&judgment.model));
        if mode == Mode::Strict {
            let reread = |judgment: Judgment| match judgment.judgment.is_empty() {
                true => judgment,
                false => judgment.reread(mode).expect("strict mode reads every text"),
            };
            judgments = judgments.into_iter().map(reread).collect();
        }
        let score = |model: String| {
            let scores = Scores::pooled(&questions, &judgments, &model, mode, pool);
            (model, scores)
        };
        let scores = models.into_iter().map(score).collect();
        Self { judge: judge.to_owned(), questions, judgments, scores }
    }

    /// Returns the scores of `model`.
    ///
    /// # Errors
    ///
    /// [`Error::NoModel`].
    pub fn of(&self, model: &str) -> Result<&ModelScores, Error> {
        self.scores.iter().find(|(name, _)| name == model).ok_or_else(|| Error::NoModel {
            model: model.to_owned(),
            what: format!("judgments by {}", self.judge),
            known: self.scores.iter().map(|(name, _)| name.clone()).collect(),
        })
    }
}
