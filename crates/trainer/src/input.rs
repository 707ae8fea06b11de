//! What a recipe's files hold, read and checked before anything is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use policy_model::Policy;
use pref_data::{
    Dialogue, Format, Pair, ScoreRatio, TokenPair, TokenizeOptions, TokenizeReport, Tokenizer, ViewReport,
    annotator_view, flip_labels, read_records, subset, tokenize_pairs,
};
use seeds::Seeds;
use tch::{Device, Kind};

use crate::TrainError;
use crate::recipe::{DataSection, Format as RecipeFormat, Recipe};

/// A recipe's model and data.
///
/// Everything that can be wrong with them shows here, before the output folder appears.
pub(crate) struct Input {
    pub(crate) model: PathBuf,
    pub(crate) policy: Policy,
    pub(crate) pad_id: u32,
    /// What became of the records.
    pub(crate) view: ViewReport,
    /// What became of the pairs.
    pub(crate) tokenized: TokenizeReport,
    /// All pairs of the data that could be tokenised, whatever share of them the recipe uses.
    pub(crate) all_tokens: Vec<TokenPair>,
    /// The pairs that the recipe uses, its noise applied.
    pub(crate) pairs: Vec<TokenPair>,
}

impl Input {
    /// Reads what `recipe` names; the policy's weights come to `device` in fp32.
    pub(crate) fn read(recipe: &Recipe, device: Device) -> Result<Self, TrainError> {
        let model = PathBuf::from(&recipe.model.path);
        let tokenizer = Tokenizer::from_folder(&model)?;
        let records = read_records(&recipe.data.path, format(&recipe.data))?;
        let (all_pairs, view) = annotator_view(&records, &recipe.data.annotator)?;
        let options = TokenizeOptions {
            max_length: recipe.data.max_length,
            truncation: recipe.data.truncation,
            preset: pref_data::Preset::Modern,
        };
        let (all_tokens, tokenized) = tokenize_pairs(&all_pairs, &tokenizer, &options)?;
        if all_tokens.is_empty() {
            return Err(TrainError::NoExamples(format!("{view}; {tokenized}")));
        }
        let policy = Policy::load(Path::new(&model), Kind::Float, device)?;
        let pairs = select(recipe, all_pairs, &all_tokens)?;
        Ok(Self { model, policy, pad_id: tokenizer.pad_id(), view, tokenized, all_tokens, pairs })
    }

    /// The chosen responses, for supervised training.
    pub(crate) fn dialogues(&self) -> Vec<Dialogue> {
        let chosen = |pair: &TokenPair| Dialogue::completion(&pair.prompt, &pair.chosen);
        self.pairs.iter().filter_map(chosen).collect()
    }
}

/// The recipe's share of the pairs with the recipe's noise, as tokens.
fn select(
    recipe: &Recipe,
    all_pairs: Vec<Pair>,
    all_tokens: &[TokenPair],
) -> Result<Vec<TokenPair>, TrainError> {
    let seeds = Seeds::new(recipe.seed);
    let by_id: BTreeMap<&str, &TokenPair> = all_tokens.iter().map(|t| (t.id.as_str(), t)).collect();
    let mut pairs = subset(all_pairs, recipe.data.fraction, &seeds);
    flip_labels(&mut pairs, recipe.data.flip_rate, &seeds);
    // Pairs that tokenising dropped (no room for a response) are missing here, and were reported there.
    let selected: Vec<TokenPair> = pairs
        .iter()
        .filter_map(|pair| {
            let mut tokens = (*by_id.get(pair.id.as_str())?).clone();
            if pair.flipped {
                std::mem::swap(&mut tokens.chosen, &mut tokens.rejected);
                tokens.flipped = true;
            }
            Some(tokens)
        })
        .collect();
    if selected.is_empty() {
        return Err(TrainError::NoExamples("the chosen fraction holds only pairs that are too long".into()));
    }
    Ok(selected)
}

/// How the data's file is read.
fn format(data: &DataSection) -> Format {
    match data.format {
        RecipeFormat::Pairs => Format::Pairs,
        RecipeFormat::HhRlhf => Format::HhRlhf,
        RecipeFormat::Gair => Format::Gair,
        RecipeFormat::Ultrafeedback => Format::Ultrafeedback,
        RecipeFormat::Shp => Format::Shp(data.score_ratio.unwrap_or(ScoreRatio::PAPER)),
        RecipeFormat::Sandbox => Format::Records,
    }
}
