//! A judge that says again what was recorded.

use std::collections::BTreeMap;
use std::error::Error;

use crate::{Judge, JudgeRequest, Judgment, PairJudgment};

/// Says what a judge said when its judgments were recorded: to read verdicts in another mode, or to test without a network.
///
/// Only the same prompt gets the same answer: to a new answer of a model it has nothing to say.
#[derive(Clone, Debug, Default)]
pub struct ReplayJudge {
    name: String,
    said: BTreeMap<Asked, String>,
}

/// User prompt and number of the repeat. The prompt holds question, answers and reference.
type Asked = (String, u32);

/// The request was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no judgment of {judge:?} is recorded on model {model:?}, question {question_id}, turn {turn}")]
pub struct NotRecorded {
    /// The judge.
    pub judge: String,
    /// The model that was to be judged.
    pub model: String,
    /// The question.
    pub question_id: u64,
    /// The turn.
    pub turn: u8,
}

impl ReplayJudge {
    /// The judge called `name` that says what stands in `judgments` and `pairs`, whoever said it; the last one counts.
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
