//! What a recipe's files hold, read and checked before anything is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use policy_model::{ModelConfig, Policy};
use pref_data::{
    Dialogue, LabelSource, NoiseLog, Pair, ReadOptions, ReadReport, TokenCache, TokenPair, TokenizeReport,
    Tokenizer, ViewReport, corrupt, label_view, read_records_with, select, tokenize_pairs,
};
use seeds::Seeds;

use crate::TrainError;
use crate::recipe::{Origin, Recipe};

/// A recipe's model and data.
///
/// Everything that can be wrong with them shows here, before the output folder appears.
pub(crate) struct Input {
    pub(crate) model: PathBuf,
    /// The model's shape. Its weights are not read here.
    pub(crate) config: ModelConfig,
    pub(crate) pad_id: u32,
    /// What became of the records.
    pub(crate) view: ViewReport,
    /// What became of the pairs.
    pub(crate) tokenized: TokenizeReport,
    /// All pairs of the data that could be tokenised, whatever share of them the recipe uses.
    pub(crate) all_tokens: Vec<TokenPair>,
    /// The pairs that the recipe uses, its noise applied.
    pub(crate) pairs: Vec<TokenPair>,
    /// What that noise did to which pair, by the pair's id.
    pub(crate) noise: NoiseLog,
    /// Pairs that are evaluated and not trained on; none where the recipe names none.
    pub(crate) held_out: Vec<TokenPair>,
    /// What ends an answer.
    pub(crate) stop_tokens: Vec<u32>,
}

impl Input {
    /// Reads what `recipe` names but for the policy's weights; tokens come from below the folder `cache` where another run
    /// has left them there.
    pub(crate) fn read(recipe: &Recipe, cache: Option<&Path>) -> Result<Self, TrainError> {
        let model = PathBuf::from(&recipe.model.path);
        let tokenizer = Tokenizer::open(&model, &recipe.data.chat())?;
        let seeds = Seeds::new(recipe.seed);
        let (mut records, read) = read_records_with(&recipe.data.path, &recipe.data.reading(&seeds))?;
        tell_skipped(&read);
        if let Some(slice) = &recipe.data.slice {
            records = slice.of(records)?;
        }
        let labels = recipe.data.labels().map_err(|complaint| complaint.within("data").at(Origin::Code))?;
        let (all_pairs, view) = label_view(&records, &labels, &seeds)?;
        drop(records);
        let (all_tokens, tokenized) = tokenize(recipe, &all_pairs, &tokenizer, cache)?;
        tell_tokenized(&tokenized);
        if all_tokens.is_empty() {
            return Err(TrainError::NoExamples(format!("{view}; {tokenized}")));
        }
        let held_out = held_out(recipe, &labels, &tokenizer, &seeds)?;
        let config = Policy::inspect(&model)?;
        let (pairs, noise) = select_tokens(recipe, all_pairs, &all_tokens, &seeds)?;
        Ok(Self {
            model,
            config,
            pad_id: tokenizer.pad_id(),
            view,
            tokenized,
            all_tokens,
            pairs,
            noise,
            held_out,
            stop_tokens: tokenizer.stop_tokens().to_vec(),
        })
    }

    /// The chosen responses, for supervised training.
    pub(crate) fn dialogues(&self) -> Vec<Dialogue> {
        let chosen = |pair: &TokenPair| Dialogue::completion(&pair.prompt, &pair.chosen);
        self.pairs.iter().filter_map(chosen).collect()
    }
}

/// The pairs as tokens: made now, or in the run before.
fn tokenize(
    recipe: &Recipe,
    pairs: &[Pair],
    tokenizer: &Tokenizer,
    cache: Option<&Path>,
) -> Result<(Vec<TokenPair>, TokenizeReport), TrainError> {
    let options = recipe.data.tokenizing();
    let Some(cache) = cache else { return Ok(tokenize_pairs(pairs, tokenizer, &options)?) };
    let file = TokenCache::new(cache.join("tokens")).tokenize(pairs, tokenizer, &options)?;
    Ok((file.read(0..file.len())?, file.report().clone()))
}

/// The pairs of the recipe's held-out file, all of them and as they are labelled there.
fn held_out(
    recipe: &Recipe,
    labels: &LabelSource,
    tokenizer: &Tokenizer,
    seeds: &Seeds,
) -> Result<Vec<TokenPair>, TrainError> {
    let Some(path) = &recipe.data.eval_path else { return Ok(Vec::new()) };
    let reading = ReadOptions { sample: None, ..recipe.data.reading(seeds) };
    let (mut records, read) = read_records_with(path, &reading)?;
    tell_skipped(&read);
    if let Some(slice) = &recipe.data.slice {
        records = slice.of(records)?;
    }
    let (pairs, view) = label_view(&records, labels, seeds)?;
    let (tokens, tokenized) = tokenize_pairs(&pairs, tokenizer, &recipe.data.tokenizing())?;
    if tokens.is_empty() {
        return Err(TrainError::NoExamples(format!("data.eval_path = \"{path}\": {view}; {tokenized}")));
    }
    tracing::debug!("held out: {} pairs of {path}", tokens.len());
    Ok(tokens)
}

/// Says which rows the recipe let go.
fn tell_skipped(read: &ReadReport) {
    const NAMED: usize = 10;
    for error in read.skipped.iter().take(NAMED) {
        tracing::warn!("skipped: {error}");
    }
    if read.skipped.len() > NAMED {
        tracing::warn!("{} further rows skipped", read.skipped.len() - NAMED);
    }
}

/// Warns of what tokenizing found.
fn tell_tokenized(report: &TokenizeReport) {
    for skipped in &report.skipped {
        tracing::warn!("skipped: {skipped}");
    }
    for warning in report.warnings() {
        tracing::warn!("{warning}");
    }
}

/// The recipe's share of the pairs with the recipe's noise, as tokens.
fn select_tokens(
    recipe: &Recipe,
    all_pairs: Vec<Pair>,
    all_tokens: &[TokenPair],
    seeds: &Seeds,
) -> Result<(Vec<TokenPair>, NoiseLog), TrainError> {
    let by_id: BTreeMap<&str, &TokenPair> = all_tokens.iter().map(|t| (t.id.as_str(), t)).collect();
    let pairs = select(all_pairs, recipe.data.fraction, recipe.data.selection(), seeds);
    let (pairs, noise) = corrupt(pairs, &recipe.data.noise(), seeds);
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
    Ok((selected, noise))
}
