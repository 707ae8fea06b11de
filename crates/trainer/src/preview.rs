//! Previews of training pairs, for display.

use std::path::Path;

use pref_data::{PairPreview, Tokenizer, Truncated, label_view, preview_pair, read_records_with, select};
use seeds::Seeds;
use serde::Serialize;

use crate::TrainError;
use crate::recipe::{Origin, Recipe};

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

/// Returns the first `count` pairs that `recipe` trains on, before noise.
///
/// # Errors
///
/// If model, data or chat template are invalid.
pub fn preview(recipe: &Recipe, count: usize) -> Result<Vec<PreviewedPair>, TrainError> {
    let seeds = Seeds::new(recipe.seed);
    let tokenizer = Tokenizer::open(Path::new(&recipe.model.path), &recipe.data.chat())?;
    let (mut records, _) = read_records_with(&recipe.data.path, &recipe.data.reading(&seeds))?;
    if let Some(slice) = &recipe.data.slice {
        records = slice.of(records)?;
    }
    let labels = recipe.data.labels().map_err(|complaint| complaint.within("data").at(Origin::Code))?;
    let (pairs, _) = label_view(&records, &labels, &seeds)?;
    let pairs = select(pairs, recipe.data.fraction, recipe.data.selection(), &seeds);
    let options = recipe.data.tokenizing();
    let previewed = pairs.iter().take(count).map(|pair| -> Result<PreviewedPair, TrainError> {
        let PairPreview { prompt, chosen, rejected, tokens, truncated } =
            preview_pair(pair, &tokenizer, &options)?;
        let [prompt_ids, chosen_ids, rejected_ids] =
            tokens.map_or_else(Default::default, |tokens| [tokens.prompt, tokens.chosen, tokens.rejected]);
        Ok(PreviewedPair {
            id: pair.id.clone(),
            prompt,
            chosen,
            rejected,
            prompt_ids,
            chosen_ids,
            rejected_ids,
            truncated,
        })
    });
    previewed.collect()
}
