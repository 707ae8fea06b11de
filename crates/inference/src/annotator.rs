//! A policy as an annotator, which prefers the response with the higher log-probability.

use std::ops::ControlFlow;
use std::path::Path;

use distributed::{Fact, ProcessGroup};
use policy_model::Policy;
use pref_data::{
    ChatSettings, Label, Pair, PreferenceRecord, TokenizeOptions, Tokenizer, Votes, tokenize_pairs,
};
use tch::{Device, Kind};
use trainer::{Scoring, SequenceLogps, TrainError};

use crate::error::InferenceError;
use crate::model_fact::model_fact;

/// Labels pairs by the log-probability that a policy gives to their responses.
#[derive(Clone, Debug, PartialEq)]
pub struct LikelihoodAnnotator {
    /// The annotator of the labels.
    pub name: String,
    /// How the log-probabilities of a response are reduced.
    pub reduction: ScoreReduction,
    /// Largest difference of two scores that is a tie, in nats.
    pub tie_margin: f64,
    /// Maximum length of prompt and response, in tokens; longer ones are truncated at the end.
    pub max_length: usize,
    /// How conversations are rendered.
    pub chat: ChatSettings,
}

/// A reduction of the log-probabilities of a response's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreReduction {
    /// The sum, which favors short responses.
    Sum,
    /// The mean.
    Mean,
}

impl LikelihoodAnnotator {
    /// Labels the records of two responses that have no label of this annotator, and returns their number.
    ///
    /// `progress` receives the number of scored pairs and may stop the scoring. Records with another number of responses
    /// and those without room for a response get no label.
    /// Each rank of `group` scores its share and receives all labels; they are the same bits on any number of ranks, if
    /// each computes with as many threads.
    ///
    /// # Errors
    ///
    /// [`InferenceError::Data`] if a record cannot be tokenized, [`InferenceError::Policy`] if the model cannot be read,
    /// [`InferenceError::Train`] if the ranks have different records or models or one fails, and
    /// [`InferenceError::Stopped`].
    pub fn label(
        &self,
        records: &mut [PreferenceRecord],
        model: &Path,
        device: Device,
        group: &ProcessGroup,
        progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<usize, InferenceError> {
        let tokenizer = Tokenizer::open(model, &self.chat)?;
        let options = TokenizeOptions::new(self.max_length);
        let open = |record: &PreferenceRecord| {
            record.responses.len() == 2 && !record.labels.contains_key(&self.name)
        };
        // The ids are positions, by which a pair finds its record after others were dropped.
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
        group.check_agreement(|| {
            let sequences = pairs.iter().flat_map(|pair| [&*pair.prompt, &pair.chosen, &pair.rejected]);
            Ok::<_, TrainError>(vec![
                Fact::of_sequences(
                    "set of pairs",
                    sequences,
                    "give all ranks the same records, --max-length and --annotator",
                ),
                model_fact(model, "copy the model's folder from rank 0")?,
            ])
        })?;
        let policy = Policy::load(model, Kind::Float, device)?;
        let logps = SequenceLogps::compute_together(group, &policy, &pairs, Scoring::FAST, progress);
        let logps = logps.map_err(|error| match error {
            TrainError::Stopped => InferenceError::Stopped,
            error => error.into(),
        })?;
        for (index, pair) in pairs.iter().enumerate() {
            let score = |logp: f64, tokens: usize| match self.reduction {
                ScoreReduction::Sum => logp,
                ScoreReduction::Mean => logp / tokens as f64,
            };
            let difference = score(logps.chosen[index], pair.chosen.len())
                - score(logps.rejected[index], pair.rejected.len());
            let label = if difference.abs() <= self.tie_margin {
                Label::Tie
            } else {
                Label::Prefers(usize::from(difference < 0.0))
            };
            let at: usize = pair.id.parse().expect("ids were made of positions above");
            records[at].labels.insert(self.name.clone(), label);
        }
        Ok(pairs.len())
    }
}
