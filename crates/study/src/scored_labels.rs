//! A policy as an annotator: the response that it finds more probable is the one that it prefers.

use std::ops::ControlFlow;
use std::path::Path;

use policy_model::Policy;
use pref_data::{
    ChatSettings, Label, Pair, PreferenceRecord, TokenizeOptions, Tokenizer, Votes, tokenize_pairs,
};
use tch::{Device, Kind};
use trainer::{Fact, ReferenceLogps, Scoring, TrainError, World};

use crate::StudyError;

/// How a policy's log-probabilities become a preference.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredLabels {
    /// The name under which the labels stand in the records.
    pub annotator: String,
    /// What of a response is compared.
    pub reduction: ScoreReduction,
    /// Responses whose scores differ by no more, in nats, are a tie.
    pub tie_margin: f64,
    /// The longest prompt with response, in tokens; longer ones lose their end.
    pub max_length: usize,
    /// How conversations are rendered.
    pub chat: ChatSettings,
}

/// What of a response's tokens is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreReduction {
    /// The sum of their log-probabilities, which favours short responses.
    Sum,
    /// The mean.
    Mean,
}

/// Labels the records of two responses that do not carry a label of this annotator, with the policy in the folder
/// `model`, and returns how many. `progress` hears how many pairs are scored, and stops it where it breaks. Records of other
/// numbers of responses, and those whose prompt leaves no room for a response, stay without a label.
///
/// Each rank of `world` scores its part, and all of them hear all labels: the same to the last bit however many there are, as
/// long as each computes with as many threads.
///
/// # Errors
///
/// [`StudyError::Data`] where a record cannot be tokenised, [`StudyError::Policy`] where the model cannot be read,
/// [`StudyError::Train`] where ranks have different records or models, or one does not come; [`StudyError::Stopped`].
pub fn label_by_score(
    records: &mut [PreferenceRecord],
    labels: &ScoredLabels,
    model: &Path,
    device: Device,
    world: &World,
    progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<usize, StudyError> {
    let tokenizer = Tokenizer::open(model, &labels.chat)?;
    let options = TokenizeOptions::new(labels.max_length);
    let open = |record: &PreferenceRecord| {
        record.responses.len() == 2 && !record.labels.contains_key(&labels.annotator)
    };
    // Ids are positions here: whatever was dropped, a pair knows its record.
    let pairs = records.iter().enumerate().filter(|(_, record)| open(record)).map(|(at, record)| Pair {
        id: at.to_string(),
        prompt: record.prompt.clone(),
        chosen: record.responses[0].clone(),
        rejected: record.responses[1].clone(),
        domain: None,
        context: record.context.clone(),
        annotator: String::new(),
        votes: Votes::default(),
        flipped: false,
    });
    let (pairs, report) = tokenize_pairs(&pairs.collect::<Vec<_>>(), &tokenizer, &options)?;
    tracing::info!("{report}");
    world.agree(|| {
        Ok(vec![
            Fact::of_pairs(&pairs, "give all ranks the same records, --max-length and --annotator"),
            Fact::of_model(model, "copy the model's folder from rank 0")?,
        ])
    })?;
    let policy = Policy::load(model, Kind::Float, device)?;
    let logps = ReferenceLogps::compute_together(world, &policy, &pairs, Scoring::FAST, progress);
    let logps = logps.map_err(|error| match error {
        TrainError::Stopped => StudyError::Stopped,
        error => error.into(),
    })?;
    for (index, pair) in pairs.iter().enumerate() {
        let score = |logp: f64, tokens: usize| match labels.reduction {
            ScoreReduction::Sum => logp,
            ScoreReduction::Mean => logp / tokens as f64,
        };
        let difference =
            score(logps.chosen[index], pair.chosen.len()) - score(logps.rejected[index], pair.rejected.len());
        let label = if difference.abs() <= labels.tie_margin {
            Label::Tie
        } else {
            Label::Prefers(usize::from(difference < 0.0))
        };
        let at: usize = pair.id.parse().expect("ids were made of positions above");
        records[at].labels.insert(labels.annotator.clone(), label);
    }
    Ok(pairs.len())
}
