//! The model and data of a recipe, read and checked before anything is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use policy_model::{ModelConfig, Policy};
use pref_data::{
    DataError, Dialogue, LabelSource, NoiseLog, Padding, Pair, Places, PreferenceRecord, Preferences,
    ReadOptions, ReadReport, SkippedExample, TokenCache, TokenCompletion, TokenPair, TokenizeReport,
    Tokenizer, UnpairedRecord, ViewReport, corrupt, draw, label_view, select, select_unpaired,
    tokenize_pairs, tokenize_unpaired,
};
use seeds::Seeds;

use crate::demonstrations::{Demonstration, dialogues_of};
use crate::diagnostics;
use crate::error::TrainError;
use crate::mixture;
use crate::objective::Loss;
use crate::recipe::{Complaint, DataSection, LossKind, Origin, Recipe};
use crate::reference::ReferenceSource;
use crate::run_inputs::{digest_tokenizer, hash_pairs, hash_unpaired, short};
use crate::sequences::{sequences, sequences_of_completions};
use crate::training_data::{TrainingData, read_held_out, read_training};

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
    /// The sizes of the sources, if the data are a part of them.
    pub(crate) mixture: Option<String>,
    /// All tokenized pairs of the data, independent of `data.fraction`.
    pub(crate) all_tokens: Vec<TokenPair>,
    /// The pairs that the recipe uses, with its noise.
    pub(crate) pairs: Vec<TokenPair>,
    /// The single responses that the recipe uses, for KTO or supervised training. There are either pairs or these.
    pub(crate) unpaired: Vec<TokenCompletion>,
    /// The effect of the noise on each pair, by the pair's id.
    pub(crate) noise: NoiseLog,
    /// The examples of supervised training; none for other losses.
    pub(crate) dialogues: Vec<Dialogue>,
    /// Held-out examples, which are evaluated only.
    pub(crate) held_out: HeldOutTokens,
    /// The tokens that end an answer.
    pub(crate) stop_tokens: Vec<u32>,
    /// The chat template that replaces the model's.
    pub(crate) template: Option<String>,
    /// Digests of the pairs' texts, of the tokenizer and of the chat templates.
    pub(crate) digests: InputDigests,
}

/// Held-out examples as tokens.
#[derive(Default)]
pub(crate) struct HeldOutTokens {
    /// The pairs.
    pub(crate) pairs: Vec<TokenPair>,
    /// The examples of supervised training; none for other losses.
    pub(crate) dialogues: Vec<Dialogue>,
}

/// Digests of what [`Input`] reads, apart from the model.
pub(crate) struct InputDigests {
    pub(crate) data: String,
    /// Those of each source of the data.
    pub(crate) sources: Vec<String>,
    pub(crate) tokenizer: String,
    pub(crate) template: String,
}

impl Input {
    /// Reads the model and data of `recipe`, but no weights. Tokens are taken from the folder `cache` if another run has
    /// written them there.
    pub(crate) fn read(recipe: &Recipe, cache: Option<&Path>) -> Result<Self, TrainError> {
        let model = PathBuf::from(&recipe.model.path);
        let tokenizer = Tokenizer::open(&model, &recipe.main_data().chat())?;
        let sources = (0..recipe.data.len())
            .map(|at| Source::read(recipe, at, &tokenizer, cache))
            .collect::<Result<Vec<_>, _>>()?;
        require_one_kind(recipe, &sources)?;
        let available: Vec<usize> = sources.iter().map(Source::available).collect();
        let counts = mixture::counts(&recipe.data, &available)?;
        let examples = Examples::of(recipe, sources, &counts, &tokenizer)?;
        let Examples { view, tokenized, all_tokens, pairs, unpaired, .. } = examples;
        let Examples { noise, dialogues, held_out, data, sources, .. } = examples;
        let config = Policy::inspect(&model)?;
        let ids = sequences(all_tokens.iter().chain(&held_out.pairs))
            .chain(dialogues.iter().chain(&held_out.dialogues).map(Dialogue::ids));
        check_vocabulary(recipe, &tokenizer, &config, ids.chain(sequences_of_completions(&unpaired)))?;
        let (tokenizer_digest, template) = digest_tokenizer(&model, tokenizer.replacing_template())?;
        Ok(Self {
            model,
            config,
            pad_id: tokenizer.pad_id(),
            view,
            tokenized,
            mixture: mixture::in_words(&counts, &available),
            all_tokens,
            pairs,
            unpaired,
            noise,
            dialogues,
            held_out,
            stop_tokens: tokenizer.stop_tokens().to_vec(),
            template: tokenizer.replacing_template().map(str::to_owned),
            digests: InputDigests { data: short(&data), sources, tokenizer: tokenizer_digest, template },
        })
    }

    /// Returns warnings about the data, for training with `loss` in batches of `batch_size`.
    pub(crate) fn warnings(&self, loss: Option<&Loss>, batch_size: usize) -> Vec<String> {
        let of_pair = |pair: &TokenPair| pair.prompt.len() + pair.chosen.len().max(pair.rejected.len());
        let lengths = self.pairs.iter().chain(&self.held_out.pairs).map(of_pair);
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

    /// Returns whether records, pairs or tokens are left out.
    pub(crate) fn is_reduced(&self) -> bool {
        let (view, tokenized) = (&self.view, &self.tokenized);
        view.unlabelled + view.ties > 0
            || tokenized.pairs_out < tokenized.pairs_in
            || tokenized.truncated_prompts + tokenized.truncated_responses > 0
    }

    /// Returns what was read and tokenized, a sentence each.
    pub(crate) fn summary(&self) -> Vec<String> {
        let desirable = self.unpaired.iter().filter(|one| one.is_desirable).count();
        let view = match self.unpaired.len() {
            0 => self.view.to_string(),
            _ if !self.dialogues.is_empty() => {
                format!("{} demonstrations from {} records", self.dialogues.len(), self.view.records)
            }
            all => format!(
                "{all} unpaired preferences from {} records ({desirable} desirable, {} undesirable)",
                self.view.records,
                all - desirable
            ),
        };
        [view, self.tokenized.to_string()].into_iter().chain(self.mixture.clone()).collect()
    }
}

/// One source of the data as tokens, before the sizes of a mixture are known.
struct Source {
    view: ViewReport,
    tokenized: TokenizeReport,
    /// All pairs.
    all_tokens: Vec<TokenPair>,
    /// The pairs of `data.fraction`.
    selected: Vec<Pair>,
    unpaired: Vec<TokenCompletion>,
    /// The records of `unpaired`.
    texts: Vec<UnpairedRecord>,
    held_out: HeldOutTokens,
    /// Has hashed the texts and labels.
    data: blake3::Hasher,
}

impl Source {
    /// Reads the source with the index `at`.
    fn read(
        recipe: &Recipe,
        at: usize,
        tokenizer: &Tokenizer,
        cache: Option<&Path>,
    ) -> Result<Self, TrainError> {
        let (section, seeds) = (&recipe.data[at], recipe.seeds_of(at));
        let TrainingData { preferences, held_out, read } = read_training(recipe, at)?;
        warn_of_skipped(&read);
        let mut source = match preferences {
            Preferences::Paired(records) => {
                Self::of_pairs(section, records, &read, tokenizer, (&seeds, cache))?
            }
            Preferences::Unpaired(records) => Self::of_unpaired(section, records, &read, tokenizer, &seeds)?,
        };
        let (held_out, read) = match &section.eval_path {
            Some(path) => {
                let reading = ReadOptions { sample: None, ..section.reading(&seeds) };
                let (examples, read) = read_held_out(recipe.loss.kind, path, &reading)?;
                warn_of_skipped(&read);
                (Some(examples), read)
            }
            None => (held_out, read),
        };
        if let Some(examples) = held_out {
            source.hold_out(section, examples, &read, (recipe.loss.kind, tokenizer, &seeds))?;
        }
        Ok(source)
    }

    fn of_pairs(
        section: &DataSection,
        mut records: Vec<PreferenceRecord>,
        read: &ReadReport,
        tokenizer: &Tokenizer,
        (seeds, cache): (&Seeds, Option<&Path>),
    ) -> Result<Self, TrainError> {
        if let Some(slice) = &section.slice {
            records = slice.of(records)?;
        }
        let (all_pairs, view) = label_view(&records, &labels(section)?, seeds)?;
        drop(records);
        let (all_tokens, tokenized) =
            tokenize(section, &all_pairs, tokenizer, cache).map_err(|error| error.located(&read.places))?;
        tell_tokenized(&tokenized, &read.places);
        if all_tokens.is_empty() {
            return Err(TrainError::NoExamples(format!("{view}; {tokenized}")));
        }
        let mut data = blake3::Hasher::new();
        hash_pairs(&all_pairs, &mut data);
        let selected = select(all_pairs, section.fraction, section.selection(), seeds);
        let (unpaired, texts, held_out) = (Vec::new(), Vec::new(), HeldOutTokens::default());
        Ok(Self { view, tokenized, all_tokens, selected, unpaired, texts, held_out, data })
    }

    fn of_unpaired(
        section: &DataSection,
        records: Vec<UnpairedRecord>,
        read: &ReadReport,
        tokenizer: &Tokenizer,
        seeds: &Seeds,
    ) -> Result<Self, TrainError> {
        let mut data = blake3::Hasher::new();
        hash_unpaired(&records, &mut data);
        let view = ViewReport { records: records.len(), ..ViewReport::default() };
        let records = select_unpaired(records, section.fraction, section.selection(), seeds);
        let (unpaired, tokenized) = tokenize_unpaired(&records, tokenizer, &section.tokenizing())
            .map_err(|error| error.located(&read.places))?;
        tell_tokenized(&tokenized, &read.places);
        if unpaired.is_empty() {
            return Err(TrainError::NoExamples(tokenized.to_string()));
        }
        let (all_tokens, selected, held_out) = (Vec::new(), Vec::new(), HeldOutTokens::default());
        Ok(Self { view, tokenized, all_tokens, selected, unpaired, texts: records, held_out, data })
    }

    /// Tokenizes held-out examples, with the annotator's labels.
    fn hold_out(
        &mut self,
        section: &DataSection,
        examples: Preferences,
        read: &ReadReport,
        (loss, tokenizer, seeds): (LossKind, &Tokenizer, &Seeds),
    ) -> Result<(), TrainError> {
        let tokenized = |report: &TokenizeReport| tell_tokenized(report, &read.places);
        let nothing =
            |why: String| Err(TrainError::NoExamples(format!("{}: {why}", section.held_out_in_words())));
        match examples {
            Preferences::Paired(mut records) => {
                if let Some(slice) = &section.slice {
                    records = slice.of(records)?;
                }
                let (pairs, view) = label_view(&records, &labels(section)?, seeds)?;
                hash_pairs(&pairs, &mut self.data);
                let (tokens, report) = tokenize_pairs(&pairs, tokenizer, &section.tokenizing())
                    .map_err(|error| error.located(&read.places))?;
                tokenized(&report);
                if tokens.is_empty() {
                    return nothing(format!("{view}; {report}"));
                }
                match loss {
                    LossKind::Sft => {
                        let examples = Demonstration::of_pairs(&pairs, &tokens);
                        self.held_out.dialogues = dialogues_of(section, &examples, tokenizer)?;
                    }
                    _ => self.held_out.pairs = tokens,
                }
            }
            Preferences::Unpaired(records) => {
                hash_unpaired(&records, &mut self.data);
                let (tokens, report) = tokenize_unpaired(&records, tokenizer, &section.tokenizing())
                    .map_err(|error| error.located(&read.places))?;
                tokenized(&report);
                if tokens.is_empty() {
                    return nothing(report.to_string());
                }
                let examples = Demonstration::of_completions(&records, &tokens);
                self.held_out.dialogues = dialogues_of(section, &examples, tokenizer)?;
            }
        }
        Ok(())
    }

    /// Returns the number of examples to choose from.
    fn available(&self) -> usize {
        match self.unpaired.len() {
            0 => {
                let by_id = by_id(&self.all_tokens);
                self.selected.iter().filter(|pair| by_id.contains_key(pair.id.as_str())).count()
            }
            completions => completions,
        }
    }

    /// Takes `count` of the examples, at random.
    fn draw(&mut self, count: usize, seeds: &Seeds) {
        let by_id = by_id(&self.all_tokens);
        self.selected.retain(|pair| by_id.contains_key(pair.id.as_str()));
        self.selected = draw(std::mem::take(&mut self.selected), count, seeds);
        self.unpaired = draw(std::mem::take(&mut self.unpaired), count, seeds);
    }
}

fn by_id(tokens: &[TokenPair]) -> BTreeMap<&str, &TokenPair> {
    tokens.iter().map(|tokens| (tokens.id.as_str(), tokens)).collect()
}

/// The examples of all sources as tokens.
struct Examples {
    view: ViewReport,
    tokenized: TokenizeReport,
    all_tokens: Vec<TokenPair>,
    pairs: Vec<TokenPair>,
    unpaired: Vec<TokenCompletion>,
    noise: NoiseLog,
    dialogues: Vec<Dialogue>,
    held_out: HeldOutTokens,
    /// Has hashed the texts and labels.
    data: blake3::Hasher,
    /// The digests of the sources.
    sources: Vec<String>,
}

impl Examples {
    /// Joins the sources, each at its size and with its noise.
    fn of(
        recipe: &Recipe,
        sources: Vec<Source>,
        counts: &[Option<usize>],
        tokenizer: &Tokenizer,
    ) -> Result<Self, TrainError> {
        let is_list = sources.len() > 1;
        let mut joined: Option<Self> = None;
        for (at, (mut source, &count)) in sources.into_iter().zip(counts).enumerate() {
            let (section, seeds) = (&recipe.data[at], recipe.seeds_of(at));
            if let Some(count) = count {
                source.draw(count, &seeds);
            }
            let tokenizer = Some(tokenizer).filter(|_| recipe.loss.kind == LossKind::Sft);
            let mut examples = Self::of_source(section, source, &seeds, tokenizer)?;
            if is_list {
                examples.mark(at);
            }
            joined = Some(match joined {
                None => examples,
                Some(before) => before.with(examples),
            });
        }
        let joined = joined.ok_or_else(|| TrainError::NoExamples("data lists no source".into()))?;
        Ok(if is_list { joined.measured() } else { joined })
    }

    /// Makes the examples of one source. A `tokenizer` makes them those of supervised training.
    fn of_source(
        section: &DataSection,
        source: Source,
        seeds: &Seeds,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self, TrainError> {
        let Source { view, tokenized, all_tokens, selected, unpaired, texts, held_out, data } = source;
        let (mut pairs, mut dialogues, mut noise) = (Vec::new(), Vec::new(), NoiseLog { rows: Vec::new() });
        if unpaired.is_empty() {
            let (texts, log) = corrupted(section, selected, &all_tokens, seeds)?;
            pairs = tokens_of(&texts, &all_tokens);
            if let Some(tokenizer) = tokenizer {
                dialogues = dialogues_of(section, &Demonstration::of_pairs(&texts, &pairs), tokenizer)?;
            }
            noise = log;
        } else if let Some(tokenizer) = tokenizer {
            dialogues = dialogues_of(section, &Demonstration::of_completions(&texts, &unpaired), tokenizer)?;
        }
        let sources = vec![short(&data)];
        Ok(Self { view, tokenized, all_tokens, pairs, unpaired, noise, dialogues, held_out, data, sources })
    }

    /// Puts the source's index before each identifier, since sources may have the same ones.
    fn mark(&mut self, at: usize) {
        let pairs = [&mut self.all_tokens, &mut self.pairs, &mut self.held_out.pairs];
        let of_pairs = pairs.into_iter().flatten().map(|pair| &mut pair.id);
        let of_others = self.unpaired.iter_mut().map(|one| &mut one.id);
        let of_noise = self.noise.rows.iter_mut().map(|row| &mut row.id);
        let of_dropped = self.tokenized.dropped.iter_mut();
        let ids = of_pairs.chain(of_others).chain(of_noise).chain(of_dropped);
        ids.for_each(|id| id.insert_str(0, &format!("{at}/")));
    }

    fn with(mut self, other: Self) -> Self {
        if self.sources.len() == 1 {
            self.data = joined_hash(&self.data);
        }
        self.data.update(other.data.finalize().as_bytes());
        self.view += other.view;
        self.tokenized.add(other.tokenized);
        self.all_tokens.extend(other.all_tokens);
        self.pairs.extend(other.pairs);
        self.unpaired.extend(other.unpaired);
        self.dialogues.extend(other.dialogues);
        self.noise.rows.extend(other.noise.rows);
        self.held_out.pairs.extend(other.held_out.pairs);
        self.held_out.dialogues.extend(other.held_out.dialogues);
        self.sources.extend(other.sources);
        self
    }

    /// Returns the examples with the lengths of all in the report.
    fn measured(mut self) -> Self {
        let of = |part: fn(&TokenPair) -> &Vec<u32>| self.all_tokens.iter().map(part).map(Vec::len);
        let labeled = |is_desirable| {
            let these = self.unpaired.iter().filter(move |one| one.is_desirable == is_desirable);
            these.map(|one| one.completion.len())
        };
        let prompts = of(|pair| &pair.prompt).chain(self.unpaired.iter().map(|one| one.prompt.len()));
        let lengths = [
            prompts.collect(),
            of(|pair| &pair.chosen).chain(labeled(true)).collect(),
            of(|pair| &pair.rejected).chain(labeled(false)).collect(),
        ];
        self.tokenized = self.tokenized.with_lengths(lengths);
        self
    }
}

/// Returns a hasher that has hashed the digest of the first of several sources.
fn joined_hash(first: &blake3::Hasher) -> blake3::Hasher {
    let mut joined = blake3::Hasher::new();
    joined.update(first.finalize().as_bytes());
    joined
}

/// Checks that all sources have pairs, or all have unpaired preferences.
fn require_one_kind(recipe: &Recipe, sources: &[Source]) -> Result<(), TrainError> {
    let is_unpaired = |source: &Source| !source.unpaired.is_empty();
    let first = sources.first().is_some_and(is_unpaired);
    let Some(at) = sources.iter().position(|source| is_unpaired(source) != first) else { return Ok(()) };
    let (here, there) = if first { ("pairs", "unpaired") } else { ("unpaired preferences", "pairs") };
    let reason = format!(
        "is \"{}\", which holds {here}, but the sources before are {there}; train on one kind at a time",
        recipe.data[at].path
    );
    let complaint = Complaint::invalid("path", reason).within(&at.to_string()).within("data");
    Err(complaint.at(Origin::Code).into())
}

fn labels(section: &DataSection) -> Result<LabelSource, TrainError> {
    Ok(section.labels().map_err(|complaint| complaint.within("data").at(Origin::Code))?)
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
    match ReferenceSource::of(recipe)? {
        ReferenceSource::Folder(folder) if recipe.loss.needs_reference() => {
            check(&folder.display().to_string(), &ModelConfig::from_folder(&folder)?)
        }
        _ => Ok(()),
    }
}

/// Returns the pairs as tokens, from the cache or computed now.
fn tokenize(
    section: &DataSection,
    pairs: &[Pair],
    tokenizer: &Tokenizer,
    cache: Option<&Path>,
) -> Result<(Vec<TokenPair>, TokenizeReport), DataError> {
    let options = section.tokenizing();
    let Some(cache) = cache else { return tokenize_pairs(pairs, tokenizer, &options) };
    let file = TokenCache::new(cache.join("tokens")).tokenize(pairs, tokenizer, &options)?;
    Ok((file.read(0..file.len())?, file.report().clone()))
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

/// Returns the `selected` pairs that have tokens, with the source's noise.
fn corrupted(
    section: &DataSection,
    selected: Vec<Pair>,
    all_tokens: &[TokenPair],
    seeds: &Seeds,
) -> Result<(Vec<Pair>, NoiseLog), TrainError> {
    let (mut pairs, noise) = corrupt(selected, &section.noise(), seeds);
    // Pairs that tokenization dropped (no room for a response) were reported there.
    let by_id = by_id(all_tokens);
    pairs.retain(|pair| by_id.contains_key(pair.id.as_str()));
    if pairs.is_empty() {
        return Err(TrainError::NoExamples("the chosen fraction holds only pairs that are too long".into()));
    }
    Ok((pairs, noise))
}

/// Returns the tokens of `pairs`, in their order and with their labels.
fn tokens_of(pairs: &[Pair], all_tokens: &[TokenPair]) -> Vec<TokenPair> {
    let by_id = by_id(all_tokens);
    let of_pair = |pair: &Pair| {
        let mut tokens = (*by_id.get(pair.id.as_str())?).clone();
        if pair.flipped {
            std::mem::swap(&mut tokens.chosen, &mut tokens.rejected);
            tokens.flipped = true;
        }
        Some(tokens)
    };
    pairs.iter().filter_map(of_pair).collect()
}
