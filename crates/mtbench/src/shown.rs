//! A judge's judgments of a folder, read for showing.

use crate::tables::ModelScores;
use crate::{BenchDir, Error, Judgment, Mode, Pool, Question, Scores, judged_models};

/// A judge's single-answer judgments, and the scores that they amount to.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The questions.
    pub questions: Vec<Question>,
    /// The judgments of the models that are shown.
    pub judgments: Vec<Judgment>,
    /// Each model's scores.
    pub scores: Vec<ModelScores>,
}

impl Shown {
    /// Reads what `judge` said of `models`, of all models it judged where none are named. In [`Mode::Strict`] ratings are
    /// read from the texts again, where there are texts.
    ///
    /// # Errors
    ///
    /// [`Error::NoModel`] for a model that was not judged; [`BenchDir`]'s errors.
    pub fn read(
        bench: &BenchDir,
        judge: &str,
        mode: Mode,
        pool: Pool,
        models: &[String],
    ) -> Result<Self, Error> {
        let questions = bench.questions()?;
        let mut judgments = bench.judgments(judge)?;
        let known: Vec<String> = judged_models(&judgments).into_iter().map(str::to_owned).collect();
        if let Some(model) = models.iter().find(|model| !known.contains(model)) {
            return Err(Error::NoModel { model: model.clone(), known });
        }
        let models = if models.is_empty() { known } else { models.to_vec() };
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
        Ok(Self { questions, judgments, scores })
    }

    /// The scores of `model`.
    ///
    /// # Errors
    ///
    /// [`Error::NoModel`].
    pub fn of(&self, model: &str) -> Result<&ModelScores, Error> {
        self.scores.iter().find(|(name, _)| name == model).ok_or_else(|| Error::NoModel {
            model: model.to_owned(),
            known: self.scores.iter().map(|(name, _)| name.clone()).collect(),
        })
    }
}
