//! A judge that repeats recorded judgments.

use std::collections::BTreeMap;
use std::error::Error;

use crate::judge::{Judge, JudgeRequest};
use crate::judgment::Judgment;
use crate::pair::PairJudgment;
use crate::question_id::question_label;

/// Repeats recorded judgments, to parse verdicts in another mode or to test without a network.
///
/// Texts are found by prompt: a new answer of a model has no recorded judgment.
#[derive(Clone, Debug, Default)]
pub struct ReplayJudge {
    name: String,
    said: BTreeMap<Asked, String>,
}

/// User prompt and number of the repeat. The prompt contains question, answers and reference.
type Asked = (String, u32);

/// A request without a recorded judgment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no judgment of {judge:?} is recorded on model {model:?}, question {}, turn {turn}", question_label(*question_id)
)]
pub struct NotRecorded {
    /// The judge.
    pub judge: String,
    /// The model.
    pub model: String,
    /// The question's key.
    pub question_id: u64,
    /// The turn.
    pub turn: u8,
}

impl ReplayJudge {
    /// The judge `name` with the texts of `judgments` and `pairs`, of all judges. Of several texts the last one counts.
    pub fn new(name: &str, judgments: &[Judgment], pairs: &[PairJudgment]) -> Self {
        let single =
            judgments.iter().map(|row| ((row.user_prompt.clone(), row.repeat()), row.judgment.clone()));
        let games = pairs.iter().flat_map(|row| {
            let repeat = row.key().repeat;
            [
                ((row.g1_user_prompt.clone(), repeat), row.g1_judgment.clone()),
                ((row.g2_user_prompt.clone(), repeat), row.g2_judgment.clone()),
            ]
        });
        Self { name: name.to_owned(), said: single.chain(games).collect() }
    }
}

impl Judge for ReplayJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn judge(&self, request: &JudgeRequest<'_>) -> Result<String, Box<dyn Error + Send + Sync>> {
        let said = self.said.get(&(request.user_prompt.clone(), request.draw.repeat));
        said.cloned().ok_or_else(|| {
            NotRecorded {
                judge: self.name.clone(),
                model: request.model.to_owned(),
                question_id: request.question.question_id,
                turn: request.turn,
            }
            .into()
        })
    }
}
