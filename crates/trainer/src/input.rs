//! The model and data of a recipe, read and checked before anything is written.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use policy_model::{ModelConfig, Policy};
use pref_data::{
    DataError, Dialogue, LabelSource, NoiseLog, Padding, Pair, Places, PreferenceRecord, Preferences,
    ReadOptions, ReadReport, SkippedExample, TokenCache, TokenCompletion, TokenPair, TokenizeReport,
    Tokenizer, UnpairedRecord, ViewReport, corrupt, hold_out, label_view, read_preferences,
    read_records_with, select, select_unpaired, tokenize_pairs, tokenize_unpaired,
};
use seeds::Seeds;

use crate::diagnostics;
use crate::error::TrainError;
use crate::objective::Loss;
use crate::recipe::{LossKind, Origin, Recipe};
use crate::run_inputs::{digest_tokenizer, hash_pairs, hash_unpaired, short};
use crate::sequences::{sequences, sequences_of_completions};

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
    /// The unpaired preferences that the recipe uses, for KTO. There are either pairs or these.
    pub(crate) unpaired: Vec<TokenCompletion>,
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
        let TrainingData { preferences, held_out, read } = read_training(recipe, &seeds)?;
        warn_of_skipped(&read);
        let Examples { view, tokenized, all_tokens, pairs, unpaired, noise, mut data } =
            Examples::of(recipe, preferences, &read, &tokenizer, (&seeds, cache))?;
        let held_out = match &recipe.data.eval_path {
            Some(path) => {
                let reading = ReadOptions { sample: None, ..recipe.data.reading(&seeds) };
                let (records, read) = read_records_with(path, &reading)?;
                warn_of_skipped(&read);
                tokenize_held_out(recipe, records, &read, &tokenizer, (&seeds, &mut data))?
            }
            None if held_out.is_empty() => Vec::new(),
            None => tokenize_held_out(recipe, held_out, &read, &tokenizer, (&seeds, &mut data))?,
        };
        let config = Policy::inspect(&model)?;
        let ids = sequences(all_tokens.iter().chain(&held_out));
        check_vocabulary(recipe, &tokenizer, &config, ids.chain(sequences_of_completions(&unpaired)))?;
        let (tokenizer_digest, template) = digest_tokenizer(&model, tokenizer.replacing_template())?;
        Ok(Self {
            model,
            config,
            pad_id: tokenizer.pad_id(),
            view,
            tokenized,
            all_tokens,
            pairs,
            unpaired,
            noise,
            held_out,
            stop_tokens: tokenizer.stop_tokens().to_vec(),
            template: tokenizer.replacing_template().map(str::to_owned),
            digests: InputDigests { data: short(&data), tokenizer: tokenizer_digest, template },
        })
    }

    /// Returns warnings about the data, for training with `loss` in batches of `batch_size`.
    pub(crate) fn warnings(&self, loss: Option<&Loss>, batch_size: usize) -> Vec<String> {
        let of_pair = |pair: &TokenPair| pair.prompt.len() + pair.chosen.len().max(pair.rejected.len());
        let lengths = self.pairs.iter().chain(&self.held_out).map(of_pair);
        let lengths = lengths.chain(self.unpaired.iter().map(|one| one.prompt.len() + one.completion.len()));
        let name = if self.unpaired.is_empty() { "pairs" } else { "examples" };
        let mut warnings = vec![
            diagnostics::truncation(&self.tokenized),
            diagnostics::context_length((lengths, name), self.config.max_position_embeddings),
        ];
        if let Some(Loss::Kto(loss)) = loss {
            warnings.push(match batch_size {
                _ if self.unpaired.is_empty() => diagnostics::kto_baseline(&self.all_tokens),
                batch_size => diagnostics::unpaired_baseline(&self.unpaired, batch_size),
            });
            warnings.push(diagnostics::balance(&self.unpaired, loss));
        }
        warnings.into_iter().flatten().collect()
    }

    /// Returns what was read and tokenized, a sentence each.
    pub(crate) fn summary(&self) -> [String; 2] {
        let desirable = self.unpaired.iter().filter(|one| one.is_desirable).count();
        let view = match self.unpaired.len() {
            0 => self.view.to_string(),
            all => format!(
                "{all} unpaired preferences from {} records ({desirable} desirable, {} undesirable)",
                self.view.records,
                all - desirable
            ),
        };
        [view, self.tokenized.to_string()]
    }

    /// The chosen responses, for supervised training.
    pub(crate) fn dialogues(&self) -> Vec<Dialogue> {
        let chosen = |pair: &TokenPair| Dialogue::completion(&pair.prompt, &pair.chosen);
        self.pairs.iter().filter_map(chosen).collect()
    }
}

/// The training examples as tokens.
struct Examples {
    view: ViewReport,
    tokenized: TokenizeReport,
    all_tokens: Vec<TokenPair>,
    pairs: Vec<TokenPair>,
    unpaired: Vec<TokenCompletion>,
    noise: NoiseLog,
    /// Has hashed the texts and labels.
    data: blake3::Hasher,
}

impl Examples {
    fn of(
        recipe: &Recipe,
        preferences: Preferences,
        read: &ReadReport,
        tokenizer: &Tokenizer,
        (seeds, cache): (&Seeds, Option<&Path>),
    ) -> Result<Self, TrainError> {
        match preferences {
            Preferences::Paired(records) => Self::of_pairs(recipe, records, read, tokenizer, (seeds, cache)),
            Preferences::Unpaired(records) => Self::of_unpaired(recipe, records, read, tokenizer, seeds),
        }
    }

    fn of_pairs(
        recipe: &Recipe,
        mut records: Vec<PreferenceRecord>,
        read: &ReadReport,
        tokenizer: &Tokenizer,
        (seeds, cache): (&Seeds, Option<&Path>),
    ) -> Result<Self, TrainError> {
        if let Some(slice) = &recipe.data.slice {
            records = slice.of(records)?;
        }
        let (all_pairs, view) = label_view(&records, &labels(recipe)?, seeds)?;
        drop(records);
        let (all_tokens, tokenized) =
            tokenize(recipe, &all_pairs, tokenizer, cache).map_err(|error| error.located(&read.places))?;
        tell_tokenized(&tokenized, &read.places);
        if all_tokens.is_empty() {
            return Err(TrainError::NoExamples(format!("{view}; {tokenized}")));
        }
        let mut data = blake3::Hasher::new();
        hash_pairs(&all_pairs, &mut data);
        let (pairs, noise) = select_tokens(recipe, all_pairs, &all_tokens, seeds)?;
        Ok(Self { view, tokenized, all_tokens, pairs, unpaired: Vec::new(), noise, data })
    }

    fn of_unpaired(
        recipe: &Recipe,
        records: Vec<UnpairedRecord>,
        read: &ReadReport,
        tokenizer: &Tokenizer,
        seeds: &Seeds,
    ) -> Result<Self, TrainError> {
        let mut data = blake3::Hasher::new();
        hash_unpaired(&records, &mut data);
        let view = ViewReport { records: records.len(), ..ViewReport::default() };
        let records = select_unpaired(records, recipe.data.fraction, recipe.data.selection(), seeds);
        let (unpaired, tokenized) = tokenize_unpaired(&records, tokenizer, &recipe.data.tokenizing())
            .map_err(|error| error.located(&read.places))?;
        tell_tokenized(&tokenized, &read.places);
        if unpaired.is_empty() {
            return Err(TrainError::NoExamples(tokenized.to_string()));
        }
        let (all_tokens, pairs, noise) = (Vec::new(), Vec::new(), NoiseLog { rows: Vec::new() });
        Ok(Self { view, tokenized, all_tokens, pairs, unpaired, noise, data })
    }
}

/// What a recipe's data file holds.
pub(crate) struct TrainingData {
    /// The preferences to train on.
    pub(crate) preferences: Preferences,
    /// The records that `data.held_out` takes out of them.
    pub(crate) held_out: Vec<PreferenceRecord>,
    pub(crate) read: ReadReport,
}

/// Reads the training data: pairs, and for KTO also unpaired preferences.
///
/// # Errors
///
/// As [`read_preferences`]; [`TrainError::PairsOnly`] for unpaired preferences and a key that only pairs have;
/// [`TrainError::NoExamples`] if all records are held out.
pub(crate) fn read_training(recipe: &Recipe, seeds: &Seeds) -> Result<TrainingData, TrainError> {
    let (path, reading) = (&recipe.data.path, recipe.data.reading(seeds));
    let (preferences, read) = match recipe.loss.kind {
        LossKind::Kto => read_preferences(path, &reading)?,
        _ => {
            let (records, read) = read_records_with(path, &reading)?;
            (Preferences::Paired(records), read)
        }
    };
    if let (Preferences::Unpaired(_), Some(key)) = (&preferences, recipe.data.key_of_pairs()) {
        return Err(TrainError::PairsOnly { key, path: path.clone() });
    }
    let (preferences, held_out) = match (preferences, recipe.data.held_out) {
        (Preferences::Paired(records), Some(count)) => {
            let all = records.len();
            let (records, held_out) = hold_out(records, count, seeds);
            if records.is_empty() {
                return Err(TrainError::NoExamples(format!(
                    "data.held_out = {count} takes all {all} records"
                )));
            }
            (Preferences::Paired(records), held_out)
        }
        (preferences, _) => (preferences, Vec::new()),
    };
    Ok(TrainingData { preferences, held_out, read })
}

fn labels(recipe: &Recipe) -> Result<LabelSource, TrainError> {
    Ok(recipe.data.labels().map_err(|complaint| complaint.within("data").at(Origin::Code))?)
}

/// Checks that each token has a row in the embedding of the model, and in that of the reference if the loss has one.
fn check_vocabulary<'a>(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
    ids: impl Iterator<Item = &'a [u32]>,
) -> Result<(), TrainError> {
    let largest = ids.flatten().copied().max().unwrap_or(0);
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
        Some(reference) if recipe.loss.needs_reference() => {
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
) -> Result<(Vec<TokenPair>, TokenizeReport), DataError> {
    let options = recipe.data.tokenizing();
    let Some(cache) = cache else { return tokenize_pairs(pairs, tokenizer, &options) };
    let file = TokenCache::new(cache.join("tokens")).tokenize(pairs, tokenizer, &options)?;
    Ok((file.read(0..file.len())?, file.report().clone()))
}

/// Returns all pairs of held-out records as tokens, with the annotator's labels.
fn tokenize_held_out(
    recipe: &Recipe,
    mut records: Vec<PreferenceRecord>,
    read: &ReadReport,
    tokenizer: &Tokenizer,
    (seeds, data): (&Seeds, &mut blake3::Hasher),
) -> Result<Vec<TokenPair>, TrainError> {
    if let Some(slice) = &recipe.data.slice {
        records = slice.of(records)?;
    }
    let (pairs, view) = label_view(&records, &labels(recipe)?, seeds)?;
    hash_pairs(&pairs, data);
    let (tokens, tokenized) = tokenize_pairs(&pairs, tokenizer, &recipe.data.tokenizing())
        .map_err(|error| error.located(&read.places))?;
    tell_tokenized(&tokenized, &read.places);
    if tokens.is_empty() {
        let key = match (&recipe.data.eval_path, recipe.data.held_out) {
            (Some(path), _) => format!("data.eval_path = \"{path}\""),
            (None, count) => format!("data.held_out = {}", count.map_or(0, NonZeroUsize::get)),
        };
        return Err(TrainError::NoExamples(format!("{key}: {view}; {tokenized}")));
    }
    tracing::debug!("held out: {} pairs", tokens.len());
    Ok(tokens)
}

/// The most skipped rows that are named.
const NAMED: usize = 10;

/// Warns of the rows that `data.skip_bad` skipped.
pub(crate) fn warn_of_skipped(read: &ReadReport) {
    for error in read.skipped.iter().take(NAMED) {
        tracing::warn!("skipped: {error}");
    }
    if read.skipped.len() > NAMED {
        tracing::warn!("{} further rows skipped", read.skipped.len() - NAMED);
    }
}

/// Logs warnings about tokenization.
pub(crate) fn tell_tokenized(report: &TokenizeReport, places: &Places) {
    for SkippedExample { id, problem } in report.skipped.iter().take(NAMED) {
        match places.of(id) {
            Some(place) => tracing::warn!("skipped: {place}: {problem}"),
            None => tracing::warn!("skipped: {problem}"),
        }
    }
    if report.skipped.len() > NAMED {
        tracing::warn!("{} further records skipped", report.skipped.len() - NAMED);
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
