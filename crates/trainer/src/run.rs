//! From a recipe to a trained model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use policy_model::Policy;
use pref_data::{
    Dialogue, Format, Layout, Pair, TokenPair, TokenizeOptions, Tokenizer, annotator_view, flip_labels,
    read_records, subset, tokenize_pairs,
};
use seeds::Seeds;
use tch::{Device, Kind};

use crate::TrainError;
use crate::checkpoint;
use crate::context::Context;
use crate::engine::{Order, Outcome, TrainSettings, Trainer};
use crate::objective::{Objective, PreferenceObjective, SupervisedObjective};
use crate::optimizer::AdamWSettings;
use crate::recipe::{Format as RecipeFormat, Recipe, TrainSection};
use crate::reference::ReferenceLogps;
use crate::run_dir::{Recorder, RunDir, Start, write_atomically};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// Whether all steps were made.
    pub outcome: Outcome,
    /// The folder of the run.
    pub dir: RunDir,
    /// What tokenising reported, one paragraph; empty where the run was finished already.
    pub data: String,
}

/// Runs `recipe`: data, reference, training, model.
///
/// A run that is finished already is reported as such and nothing is done again.
///
/// # Errors
///
/// Whatever is wrong with recipe, data, model or machine; what was computed until then stays in the output folder and
/// [`Start::Resume`] goes on from it.
pub fn run(recipe: &Recipe, start: Start, context: &mut Context<'_>) -> Result<RunReport, TrainError> {
    let model = PathBuf::from(&recipe.model.path);
    // Everything that can be wrong with the input shows before the output folder appears.
    let tokenizer = Tokenizer::from_folder(&model)?;
    let records = read_records(&recipe.data.path, format(recipe.data.format)?)?;
    let (all_pairs, view) = annotator_view(&records, &recipe.data.annotator)?;
    let options = TokenizeOptions { max_length: recipe.data.max_length, truncation: recipe.data.truncation };
    let (all_tokens, tokenized) = tokenize_pairs(&all_pairs, &tokenizer, &options)?;
    if all_tokens.is_empty() {
        return Err(TrainError::NoExamples(format!("{view}; {tokenized}")));
    }
    if recipe.train.threads > 0 {
        tch::set_num_threads(recipe.train.threads as i32);
    }
    let device = recipe.model.device.resolve();
    let policy = Policy::load(&model, Kind::Float, device)?;

    let dir = RunDir::open(Path::new(&recipe.output.dir), &recipe.to_toml(), start)?;
    let data = format!("{view}\n{tokenized}");
    tracing::info!("{view}");
    tracing::info!("{tokenized}");
    if dir.is_finished() {
        return Ok(RunReport { outcome: Outcome::Finished, dir, data });
    }
    let seeds = Seeds::new(recipe.seed);
    let pairs = select(recipe, all_pairs, &all_tokens, &seeds)?;
    let kind = compute_kind(recipe.model.dtype.kind(), device);
    let settings = settings(&recipe.train, &recipe.data.order(), kind, seeds);
    let parts = Parts { dir: &dir, policy: &policy, companions: &model, save: recipe.model.dtype.kind() };
    let keep_last = recipe.train.keep_last;
    let pad_id = tokenizer.pad_id();

    let outcome = match recipe.loss.build()? {
        Some(loss) => {
            let layout = if recipe.speed.shared_prompt { Layout::SharedPrompt } else { Layout::Padded };
            let reference = reference(recipe, &policy, kind, &all_tokens, layout, pad_id, context)?;
            let reference = reference.of(&pairs);
            let objective =
                PreferenceObjective { pairs: &pairs, reference: &reference, loss, layout, pad_id };
            train(&parts, &objective, settings, keep_last, context)?
        }
        None => {
            let chosen = |pair: &TokenPair| Dialogue::completion(&pair.prompt, &pair.chosen);
            let dialogues: Vec<Dialogue> = pairs.iter().filter_map(chosen).collect();
            let objective = SupervisedObjective { dialogues: &dialogues, pad_id };
            train(&parts, &objective, settings, keep_last, context)?
        }
    };
    Ok(RunReport { outcome, dir, data })
}

/// Supervised training on dialogues that are tokenised already.
#[derive(Debug)]
pub struct SupervisedRun<'a> {
    /// The policy to begin with.
    pub policy: &'a Policy,
    /// The folder with its tokenizer files.
    pub companions: &'a Path,
    /// What it learns.
    pub dialogues: &'a [Dialogue],
    /// Fills rows up.
    pub pad_id: u32,
    /// How it learns.
    pub settings: TrainSettings,
    /// The folder of the run.
    pub dir: &'a RunDir,
}

/// Runs supervised training in the folder of a run; see [`run`] for what lies there afterwards.
///
/// # Errors
///
/// As [`run`].
pub fn run_supervised(run: SupervisedRun<'_>, context: &mut Context<'_>) -> Result<Outcome, TrainError> {
    if run.dir.is_finished() {
        return Ok(Outcome::Finished);
    }
    let objective = SupervisedObjective { dialogues: run.dialogues, pad_id: run.pad_id };
    let save = run.settings.kind;
    let parts = Parts { dir: run.dir, policy: run.policy, companions: run.companions, save };
    train(&parts, &objective, run.settings, 0, context)
}

/// What one training needs beside objective and settings.
struct Parts<'a> {
    dir: &'a RunDir,
    policy: &'a Policy,
    companions: &'a Path,
    /// The kind in which weights are saved.
    save: Kind,
}

fn train(
    parts: &Parts<'_>,
    objective: &dyn Objective,
    settings: TrainSettings,
    keep_last: usize,
    context: &mut Context<'_>,
) -> Result<Outcome, TrainError> {
    let _lock = parts.dir.lock()?;
    if parts.dir.is_finished() {
        return Ok(Outcome::Finished);
    }
    let mut trainer = Trainer::new(parts.policy, objective, settings)?;
    let state = checkpoint::newest_state(&parts.dir.checkpoints(), trainer.elements())?;
    let step = state.as_ref().map_or(0, |s| s.step);
    if let Some(state) = state {
        tracing::info!(step, "resuming from a checkpoint");
        trainer.restore(&state);
    }
    context.progress.begin("training", trainer.total_steps());
    let mut recorder = Recorder::open(parts.dir, step, context, parts.companions, parts.save, keep_last)?;
    let outcome = trainer.run(&mut recorder);
    drop(recorder);
    context.progress.end();
    let outcome = outcome?;
    if outcome == Outcome::Finished {
        let policy = trainer.master_policy()?;
        policy.save(&parts.dir.model(), parts.save, Some(parts.companions))?;
        checkpoint::drop_states(&parts.dir.checkpoints(), 0)?;
    }
    Ok(outcome)
}

/// The recipe's share of the pairs with the recipe's noise, as tokens.
fn select(
    recipe: &Recipe,
    all_pairs: Vec<Pair>,
    all_tokens: &[TokenPair],
    seeds: &Seeds,
) -> Result<Vec<TokenPair>, TrainError> {
    let by_id: BTreeMap<&str, &TokenPair> = all_tokens.iter().map(|t| (t.id.as_str(), t)).collect();
    let mut pairs = subset(all_pairs, recipe.data.fraction, seeds);
    flip_labels(&mut pairs, recipe.data.flip_rate, seeds);
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
fn format(format: RecipeFormat) -> Result<Format, TrainError> {
    match format {
        RecipeFormat::Pairs => Ok(Format::Pairs),
        RecipeFormat::HhRlhf => Ok(Format::HhRlhf),
        RecipeFormat::Sandbox => Ok(Format::Records),
        RecipeFormat::Gair | RecipeFormat::Ultrafeedback | RecipeFormat::Shp => {
            // The recipe's own check refuses these with a way out.
            Err(TrainError::NoExamples(format!("this version does not read {format:?}")))
        }
    }
}

/// The kind to compute in: bfloat16 only where the processor has it, since emulation is slower than fp32.
fn compute_kind(wanted: Kind, device: Device) -> Kind {
    if wanted == Kind::BFloat16 && !policy_model::native_bf16(device) {
        tracing::warn!(
            "this processor has no bfloat16 arithmetic: computing in float32, which is exact and here also faster"
        );
        return Kind::Float;
    }
    wanted
}

fn settings(train: &TrainSection, order: &Order, kind: Kind, seeds: Seeds) -> TrainSettings {
    TrainSettings {
        epochs: train.epochs,
        batch_size: train.batch_size,
        micro_batch_size: train.micro_batch_size,
        learning_rate: train.learning_rate,
        warmup_ratio: train.warmup_ratio,
        decay: train.scheduler,
        adamw: AdamWSettings {
            betas: (train.betas[0], train.betas[1]),
            eps: train.eps,
            weight_decay: train.weight_decay,
        },
        max_grad_norm: train.max_grad_norm,
        checkpoints: train.checkpoints.clone(),
        kind,
        order: *order,
        seeds,
    }
}

/// Reference log-probabilities of every response of the data, found by the response's tokens.
///
/// They are taken over *all* pairs of the data in a canonical order, whatever fraction and noise the run selects, so
/// that runs that share model and data share them to the last bit.
struct ReferenceTable {
    by_tokens: BTreeMap<(Vec<u32>, Vec<u32>), f32>,
}

impl ReferenceTable {
    fn of(&self, pairs: &[TokenPair]) -> ReferenceLogps {
        let find = |prompt: &[u32], response: &[u32]| self.by_tokens[&(prompt.to_vec(), response.to_vec())];
        ReferenceLogps {
            chosen: pairs.iter().map(|p| find(&p.prompt, &p.chosen)).collect(),
            rejected: pairs.iter().map(|p| find(&p.prompt, &p.rejected)).collect(),
        }
    }
}

fn reference(
    recipe: &Recipe,
    policy: &Policy,
    kind: Kind,
    all_tokens: &[TokenPair],
    layout: Layout,
    pad_id: u32,
    context: &mut Context<'_>,
) -> Result<ReferenceTable, TrainError> {
    let canonical = canonical(all_tokens);
    let folder = recipe.model.reference.clone().unwrap_or_else(|| recipe.model.path.clone());
    let cache =
        context.reference_cache.clone().unwrap_or_else(|| Path::new(&recipe.output.dir).join("reference"));
    let key = cache_key(Path::new(&folder), kind, layout, &canonical)?;
    let path = cache.join(format!("{key}.json"));
    let logps = match read_cache(&path, canonical.len()) {
        Some(logps) if recipe.speed.reference_cache => logps,
        _ => {
            let other;
            let reference = if folder == recipe.model.path && kind == policy.kind() {
                policy
            } else {
                other = Policy::load(Path::new(&folder), kind, policy.device())?;
                &other
            };
            context.progress.begin("reference log-probabilities", canonical.len() as u64);
            let progress = &mut *context.progress;
            let logps = ReferenceLogps::compute(reference, &canonical, layout, pad_id, |done| {
                progress.advance(done as u64, "");
            })?;
            context.progress.end();
            fs::create_dir_all(&cache).map_err(TrainError::io("cannot create", &cache))?;
            let json =
                serde_json::to_vec(&logps).map_err(|e| TrainError::io("cannot write", &path)(e.into()))?;
            write_atomically(&path, &json)?;
            logps
        }
    };
    let mut by_tokens = BTreeMap::new();
    for (i, pair) in canonical.into_iter().enumerate() {
        by_tokens.insert((pair.prompt.clone(), pair.chosen), logps.chosen[i]);
        by_tokens.insert((pair.prompt, pair.rejected), logps.rejected[i]);
    }
    Ok(ReferenceTable { by_tokens })
}

/// The pairs without regard to who won: the response whose tokens sort first stands as chosen.
fn canonical(pairs: &[TokenPair]) -> Vec<TokenPair> {
    let mut canonical = pairs.to_vec();
    for pair in &mut canonical {
        if pair.rejected < pair.chosen {
            std::mem::swap(&mut pair.chosen, &mut pair.rejected);
        }
    }
    canonical
}

/// Addresses reference log-probabilities by everything that determines them.
fn cache_key(folder: &Path, kind: Kind, layout: Layout, pairs: &[TokenPair]) -> Result<String, TrainError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("reference log-probabilities v1 {kind:?} {layout:?}").as_bytes());
    hash_model(folder, &mut hasher)?;
    for pair in pairs {
        for ids in [&pair.prompt, &pair.chosen, &pair.rejected] {
            hasher.update(&(ids.len() as u64).to_le_bytes());
            for id in ids {
                hasher.update(&id.to_le_bytes());
            }
        }
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Feeds a model folder's configuration and weights to `hasher`.
fn hash_model(folder: &Path, hasher: &mut blake3::Hasher) -> Result<(), TrainError> {
    let entries = fs::read_dir(folder).map_err(TrainError::io("cannot read", folder))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(TrainError::io("cannot read", folder))?.path();
        let is_weights = path.extension().is_some_and(|e| e == "safetensors");
        if is_weights || path.file_name().is_some_and(|n| n == "config.json") {
            files.push(path);
        }
    }
    files.sort();
    for path in files {
        let file = fs::File::open(&path).map_err(TrainError::io("cannot read", &path))?;
        hasher.update_reader(file).map_err(TrainError::io("cannot read", &path))?;
    }
    Ok(())
}

/// A damaged or foreign cache file is as good as none.
fn read_cache(path: &Path, pairs: usize) -> Option<ReferenceLogps> {
    let logps: ReferenceLogps = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (logps.chosen.len() == pairs && logps.rejected.len() == pairs).then_some(logps)
}
