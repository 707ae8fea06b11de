//! The model and data of a recipe, read and checked before anything is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use policy_model::{ModelConfig, Policy};
use pref_data::{
    Dialogue, LabelSource, NoiseLog, Padding, Pair, ReadOptions, ReadReport, TokenCache, TokenPair,
    TokenizeReport, Tokenizer, ViewReport, corrupt, label_view, read_records_with, select, tokenize_pairs,
};
use seeds::Seeds;

use crate::diagnostics;
use crate::error::TrainError;
use crate::objective::Loss;
use crate::recipe::{LossKind, Origin, Recipe};
use crate::run_inputs::{digest_tokenizer, hash_pairs, short};
use crate::sequences::sequences;

/// The model and data of a recipe.
///
/// Every error in them is found here, before the output folder is created.
pub(crate) struct Input {
    pub(crate) model: PathBuf,
    /// The model's configuration; weights are not read here.
    pub(crate) config: ModelConfig,
    pub(crate) pad_id: u32,
    /// How the records became pairs.
    pub(crate) view: ViewReport,
    /// How the pairs became tokens.
    pub(crate) tokenized: TokenizeReport,
    /// All tokenized pairs of the data, independent of `data.fraction`.
    pub(crate) all_tokens: Vec<TokenPair>,
    /// The pairs that the recipe uses, with its noise.
    pub(crate) pairs: Vec<TokenPair>,
    /// The effect of the noise on each pair, by the pair's id.
    pub(crate) noise: NoiseLog,
    /// Held-out pairs, which are evaluated only.
    pub(crate) held_out: Vec<TokenPair>,
    /// The tokens that end an answer.
    pub(crate) stop_tokens: Vec<u32>,
    /// The chat template that replaces the model's.
    pub(crate) template: Option<String>,
    /// Digests of the pairs' texts, of the tokenizer and of the chat templates.
    pub(crate) digests: InputDigests,
}

/// Digests of what [`Input`] reads, apart from the model.
pub(crate) struct InputDigests {
    pub(crate) data: String,
    pub(crate) tokenizer: String,
    pub(crate) template: String,
}

impl Input {
    /// Reads the model and data of `recipe`, but no weights. Tokens are taken from the folder `cache` if another run has
    /// written them there.
    pub(crate) fn read(recipe: &Recipe, cache: Option<&Path>) -> Result<Self, TrainError> {
        let model = PathBuf::from(&recipe.model.path);
        let tokenizer = Tokenizer::open(&model, &recipe.data.chat())?;
        let seeds = Seeds::new(recipe.seed);
        let (mut records, read) = read_records_with(&recipe.data.path, &recipe.data.reading(&seeds))?;
        warn_of_skipped(&read);
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
        let mut data = blake3::Hasher::new();
        hash_pairs(&all_pairs, &mut data);
        let held_out = held_out(recipe, &labels, &tokenizer, &seeds, &mut data)?;
        let config = Policy::inspect(&model)?;
        check_vocabulary(recipe, &tokenizer, &config, all_tokens.iter().chain(&held_out))?;
        let (tokenizer_digest, template) = digest_tokenizer(&model, tokenizer.replacing_template())?;
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
            template: tokenizer.replacing_template().map(str::to_owned),
            digests: InputDigests { data: short(&data), tokenizer: tokenizer_digest, template },
        })
    }

    /// Returns warnings about the data, for training with `loss`.
    pub(crate) fn warnings(&self, loss: Option<&Loss>) -> Vec<String> {
        let pairs = self.pairs.iter().chain(&self.held_out);
        let kto_baseline = match loss {
            Some(Loss::Kto(_)) => diagnostics::kto_baseline(&self.all_tokens),
            _ => None,
        };
        let warnings = [
            diagnostics::truncation(&self.tokenized),
            diagnostics::context_length(pairs, self.config.max_position_embeddings),
            kto_baseline,
        ];
        warnings.into_iter().flatten().collect()
    }

    /// The chosen responses, for supervised training.
    pub(crate) fn dialogues(&self) -> Vec<Dialogue> {
        let chosen = |pair: &TokenPair| Dialogue::completion(&pair.prompt, &pair.chosen);
        self.pairs.iter().filter_map(chosen).collect()
    }
}

/// Checks that each token has a row in the embedding of the model, and in that of the reference if the loss has one.
fn check_vocabulary<'a>(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
    pairs: impl Iterator<Item = &'a TokenPair>,
) -> Result<(), TrainError> {
    let largest = sequences(pairs).flatten().copied().max().unwrap_or(0);
    // Padding goes through the embedding, too.
    let largest = match recipe.speed.scoring(tokenizer.pad_id()).padding {
        Padding::Right(id) => largest.max(id),
        Padding::None => largest,
    };
    let check = |model: &str, config: &ModelConfig| {
        let embedding = config.vocab_size;
        if (largest as usize) < embedding {
            return Ok(());
        }
        Err(TrainError::TokenBeyondEmbedding {
            token: tokenizer.token(largest).unwrap_or_default(),
            id: largest,
            model: model.into(),
            embedding,
            folder: tokenizer.folder().into(),
            tokenizer: tokenizer.vocab_size(),
        })
    };
    check(&recipe.model.path, config)?;
    match &recipe.model.reference {
        Some(reference) if recipe.loss.kind != LossKind::Sft => {
            check(reference, &ModelConfig::from_folder(Path::new(reference))?)
        }
        _ => Ok(()),
    }
}

/// Returns the pairs as tokens, from the cache or computed now.
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

/// Returns all pairs of the recipe's held-out file, with the file's labels.
fn held_out(
    recipe: &Recipe,
    labels: &LabelSource,
    tokenizer: &Tokenizer,
    seeds: &Seeds,
    data: &mut blake3::Hasher,
) -> Result<Vec<TokenPair>, TrainError> {
    let Some(path) = &recipe.data.eval_path else { return Ok(Vec::new()) };
    let reading = ReadOptions { sample: None, ..recipe.data.reading(seeds) };
    let (mut records, read) = read_records_with(path, &reading)?;
    warn_of_skipped(&read);
    if let Some(slice) = &recipe.data.slice {
        records = slice.of(records)?;
    }
    let (pairs, view) = label_view(&records, labels, seeds)?;
    hash_pairs(&pairs, data);
    let (tokens, tokenized) = tokenize_pairs(&pairs, tokenizer, &recipe.data.tokenizing())?;
    if tokens.is_empty() {
        return Err(TrainError::NoExamples(format!("data.eval_path = \"{path}\": {view}; {tokenized}")));
    }
    tracing::debug!("held out: {} pairs of {path}", tokens.len());
    Ok(tokens)
}

/// Warns of the rows that `data.skip_bad` skipped.
fn warn_of_skipped(read: &ReadReport) {
    const NAMED: usize = 10;
    for error in read.skipped.iter().take(NAMED) {
        tracing::warn!("skipped: {error}");
    }
    if read.skipped.len() > NAMED {
        tracing::warn!("{} further rows skipped", read.skipped.len() - NAMED);
    }
}

/// Logs warnings about tokenization.
fn tell_tokenized(report: &TokenizeReport) {
    for skipped in &report.skipped {
        tracing::warn!("skipped: {skipped}");
    }
    for warning in report.warnings() {
        tracing::warn!("{warning}");
    }
}

/// Returns the tokens of the recipe's share of the pairs, with its noise.
fn select_tokens(
    recipe: &Recipe,
    all_pairs: Vec<Pair>,
    all_tokens: &[TokenPair],
    seeds: &Seeds,
) -> Result<(Vec<TokenPair>, NoiseLog), TrainError> {
    let by_id: BTreeMap<&str, &TokenPair> = all_tokens.iter().map(|t| (t.id.as_str(), t)).collect();
    let pairs = select(all_pairs, recipe.data.fraction, recipe.data.selection(), seeds);
    let (pairs, noise) = corrupt(pairs, &recipe.data.noise(), seeds);
    // Pairs that tokenization dropped (no room for a response) are missing here, and were reported there.
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
