//! The cost of judging.

use llm_client::{Prices, Usage};

use crate::error::ExperimentError;
use crate::setup::{JudgeKind, JudgeSection};

/// Assumed tokens of a judge's prompt and reply: MT-Bench's prompts with two answers of about 300 words.
const CALL_TOKENS: Usage = Usage { prompt_tokens: 1_500, completion_tokens: 300 };
/// Assumed seconds of a call.
const CALL_SECONDS: f64 = 10.0;

/// The remaining calls of one judge behind an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgingCost {
    /// The judge's name.
    pub judge: String,
    /// The number of calls.
    pub calls: u64,
    /// Their estimated price in USD; `None` if the price of the model is unknown.
    pub usd: Option<f64>,
    /// The budget of a run in USD, if there is one.
    pub max_cost: Option<f64>,
    /// Their estimated duration in seconds, within the limits of the judge's pace.
    pub seconds: f64,
}

impl JudgingCost {
    /// Returns the costs of `calls` in all, which the judges share by their repeats; none in the sandbox.
    pub(super) fn of(section: &JudgeSection, calls: u64) -> Result<Vec<Self>, ExperimentError> {
        if section.kind == JudgeKind::Sandbox {
            return Ok(Vec::new());
        }
        let of_all: u64 = section.all().map(|judge| u64::from(judge.repeats.get())).sum();
        section
            .all()
            .map(|judge| Self::of_judge(judge, calls / of_all * u64::from(judge.repeats.get())))
            .collect()
    }

    fn of_judge(judge: &JudgeSection, calls: u64) -> Result<Self, ExperimentError> {
        let pace = &judge.pace;
        let prices = pace.prices.iter().try_fold(Prices::listed(), |prices, path| prices.and_file(path))?;
        let usd = prices.of(judge.model()).map(|price| calls as f64 * price.cost(CALL_TOKENS));
        let tokens = CALL_TOKENS.prompt_tokens + CALL_TOKENS.completion_tokens;
        let at_once = calls as f64 * CALL_SECONDS / f64::from(pace.concurrency.get());
        let by_requests = pace.requests_per_minute.map(|limit| calls as f64 * 60.0 / f64::from(limit.get()));
        let by_tokens =
            pace.tokens_per_minute.map(|limit| (calls * tokens) as f64 * 60.0 / limit.get() as f64);
        let seconds = [by_requests, by_tokens].into_iter().flatten().fold(at_once, f64::max);
        Ok(Self { judge: judge.name().to_owned(), calls, usd, max_cost: pace.max_cost, seconds })
    }

    /// Returns an error if the estimated price exceeds the budget.
    pub(super) fn check(&self) -> Result<(), ExperimentError> {
        match (self.usd, self.max_cost) {
            (Some(usd), Some(max_cost)) if usd > max_cost => {
                Err(ExperimentError::Budget { judge: self.judge.clone(), calls: self.calls, usd, max_cost })
            }
            _ => Ok(()),
        }
    }
}
