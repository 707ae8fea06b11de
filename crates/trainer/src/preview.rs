//! Previews of training examples, for display.

use std::path::Path;

use pref_data::{
    CompletionPreview, PairPreview, Preferences, Tokenizer, Truncated, TruncatedCompletion, label_view,
    preview_completion, preview_pair, select, select_unpaired, tokenize_pairs, tokenize_unpaired,
};
use serde::Serialize;

use crate::TrainError;
use crate::input::{tell_tokenized, warn_of_skipped};
use crate::recipe::{Origin, Recipe};
use crate::training_data::{TrainingData, read_training};

/// The first examples of a recipe. In JSON an object with the key `pairs` or `completions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Preview {
    /// Pairs of responses.
    Pairs(Vec<PreviewedPair>),
    /// Unpaired preferences.
    Completions(Vec<PreviewedCompletion>),
}

/// One pair as text and as tokens. Ids of responses exclude the prompt's. All tokens of a response are scored, and none
/// of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PreviewedPair {
    /// The pair's identifier.
    pub id: String,
    /// The rendered prompt.
    pub prompt: String,
    /// The rendered chosen response.
    pub chosen: String,
    /// The rendered rejected response.
    pub rejected: String,
    /// The prompt's tokens; empty, like the responses', if the pair leaves no room and is dropped.
    pub prompt_ids: Vec<u32>,
    /// The chosen response's tokens.
    pub chosen_ids: Vec<u32>,
    /// The rejected response's tokens.
    pub rejected_ids: Vec<u32>,
    /// The number of truncated tokens.
    pub truncated: Truncated,
}

/// One unpaired preference as text and as tokens. All tokens of the completion are scored, and none of the prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PreviewedCompletion {
    /// The record's identifier.
    pub id: String,
    /// Whether the completion is desirable.
    pub label: bool,
    /// The rendered prompt.
    pub prompt: String,
    /// The rendered completion.
    pub completion: String,
    /// The prompt's tokens; empty, like the completion's, if the record leaves no room and is dropped.
    pub prompt_ids: Vec<u32>,
    /// The completion's tokens.
    pub completion_ids: Vec<u32>,
    /// The number of truncated tokens.
    pub truncated: TruncatedCompletion,
}

/// Returns the first `count` examples of each source of `recipe`, before noise and before a mixture's sizes. Those that
/// `data.skip_bad` skips are left out.
///
/// # Errors
///
/// If model, data or chat template are invalid.
pub fn preview(recipe: &Recipe, count: usize) -> Result<Preview, TrainError> {
    let tokenizer = Tokenizer::open(Path::new(&recipe.model.path), &recipe.main_data().chat())?;
    let (mut pairs, mut completions) = (Vec::new(), Vec::new());
    for at in 0..recipe.data.len() {
        let id = |id: &str| if recipe.data.len() == 1 { id.to_owned() } else { format!("{at}/{id}") };
        match of_source(recipe, at, &tokenizer, count)? {
            Preview::Pairs(these) => {
                pairs.extend(these.into_iter().map(|pair| PreviewedPair { id: id(&pair.id), ..pair }));
            }
            Preview::Completions(these) => completions
                .extend(these.into_iter().map(|one| PreviewedCompletion { id: id(&one.id), ..one })),
        }
    }
    Ok(if completions.is_empty() { Preview::Pairs(pairs) } else { Preview::Completions(completions) })
}

fn of_source(recipe: &Recipe, at: usize, tokenizer: &Tokenizer, count: usize) -> Result<Preview, TrainError> {
    let (section, seeds) = (&recipe.data[at], recipe.seeds_of(at));
    let (fraction, selection) = (section.fraction, section.selection());
    let options = section.tokenizing();
    let TrainingData { preferences, read, .. } = read_training(recipe, at)?;
    warn_of_skipped(&read);
    match preferences {
        Preferences::Paired(mut records) => {
            if let Some(slice) = &section.slice {
                records = slice.of(records)?;
            }
            let labels = section.labels().map_err(|complaint| complaint.within("data").at(Origin::Code))?;
            let (pairs, _) = label_view(&records, &labels, &seeds)?;
            let mut pairs = select(pairs, fraction, selection, &seeds);
            pairs.truncate(count);
            let tokenized = tokenize_pairs(&pairs, tokenizer, &options);
            let (_, report) = tokenized.map_err(|error| error.located(&read.places))?;
            tell_tokenized(&report, &read.places);
            let is_skipped = |id: &str| report.skipped.iter().any(|skipped| skipped.id == id);
            let previewed = pairs
                .iter()
                .filter(|pair| !is_skipped(&pair.id))
                .map(|pair| Ok(of_pair(&pair.id, preview_pair(pair, tokenizer, &options)?)));
            previewed.collect::<Result<_, TrainError>>().map(Preview::Pairs)
        }
        Preferences::Unpaired(records) => {
            let mut records = select_unpaired(records, fraction, selection, &seeds);
            records.truncate(count);
            let tokenized = tokenize_unpaired(&records, tokenizer, &options);
            let (_, report) = tokenized.map_err(|error| error.located(&read.places))?;
            tell_tokenized(&report, &read.places);
            let is_skipped = |id: &str| report.skipped.iter().any(|skipped| skipped.id == id);
            let previewed = records.iter().filter(|record| !is_skipped(&record.id)).map(|record| {
                let preview = preview_completion(record, tokenizer, &options)?;
                Ok(of_completion(&record.id, record.is_desirable, preview))
            });
            previewed.collect::<Result<_, TrainError>>().map(Preview::Completions)
        }
    }
}

fn of_pair(id: &str, preview: PairPreview) -> PreviewedPair {
    let PairPreview { prompt, chosen, rejected, tokens, truncated } = preview;
    let [prompt_ids, chosen_ids, rejected_ids] =
        tokens.map_or_else(Default::default, |tokens| [tokens.prompt, tokens.chosen, tokens.rejected]);
    let id = id.to_owned();
    PreviewedPair { id, prompt, chosen, rejected, prompt_ids, chosen_ids, rejected_ids, truncated }
}

fn of_completion(id: &str, label: bool, preview: CompletionPreview) -> PreviewedCompletion {
    let CompletionPreview { prompt, completion, tokens, truncated } = preview;
    let [prompt_ids, completion_ids] =
        tokens.map_or_else(Default::default, |tokens| [tokens.prompt, tokens.completion]);
    let id = id.to_owned();
    PreviewedCompletion { id, label, prompt, completion, prompt_ids, completion_ids, truncated }
}
