//! Runs a recipe: from data to a trained model.

use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use distributed::{Exchange, ProcessGroup, Sharding, digest_of_model};
use policy_model::{Companions, Lora, ModelConfig, Policy, PolicyError, model_folders};
use pref_data::Dialogue;
use pref_loss::KtoLoss;
use seeds::Seeds;
use tch::{Device, Kind};

use crate::card::Card;
use crate::checkpoint;
use crate::context::{ANNOUNCED, Context};
use crate::engine::{Outcome, Trainer};
use crate::error::TrainError;
use crate::finish::finish;
use crate::gathered;
use crate::held_out::{HeldOut, HeldOutDialogues, HeldOutSet, OwnAnswers};
use crate::input::{Input, InputDigests};
use crate::kl_pairs::KlPairs;
use crate::machine::Machine;
use crate::objective::{Loss, Objective, PreferenceObjective, SupervisedObjective};
use crate::optimizer::AdamWSettings;
use crate::parameters::Trained;
use crate::recipe::{Complaint, LossKind, LossSection, Origin, Quantization, Recipe, WatchSection};
use crate::reference::{CompletionPass, ReferenceModel, ReferencePasses, ReferenceSource, SequenceLogps};
use crate::run_checks::{announce, facts, report_sharding};
use crate::run_dir::{Follower, Parts, Recorder, Recording, RunDir, Start};
use crate::run_inputs::{Provenance, RunInputs, RunRecord};
use crate::scoring::{Activations, Scoring};
use crate::settings::{MicroBatch, TrainSettings};
use crate::stopping::EarlyStopping;
use crate::unpaired::{Mismatched, UnpairedObjective};

/// The result of a run.
#[derive(Debug)]
pub struct RunReport {
    /// Whether all steps are done.
    pub outcome: Outcome,
    /// The folder of the run.
    pub dir: RunDir,
    /// The report of reading and tokenizing, one paragraph.
    pub data: String,
    /// The trained policy, if this call has finished the run and still holds the weights that the folder has.
    pub policy: Option<Policy>,
}

/// Runs `recipe`: data, reference, training, model.
///
/// A finished run is reported and not repeated. All ranks of a process group call this with the same recipe; only rank
/// 0 writes.
///
/// # Errors
///
/// Any error in the recipe, the data, the model or the machine. Results so far stay in the output folder, and
/// [`Start::Resume`] continues from them. The other ranks fail with the same error.
pub fn run(recipe: &Recipe, start: Start, context: &mut Context<'_>) -> Result<RunReport, TrainError> {
    let group = context.group.clone();
    group.propagate_error(run_together(recipe, start, context, &group))
}

fn run_together(
    recipe: &Recipe,
    start: Start,
    context: &mut Context<'_>,
    group: &ProcessGroup,
) -> Result<RunReport, TrainError> {
    recipe.train.take_threads();
    torch_ext::keep_free_memory();
    let device = group.device().unwrap_or_else(|| recipe.model.device.resolve());
    let loss = recipe.loss.build()?;
    let kind = compute_kind(recipe.model.dtype.kind(), device);
    let settings = settings(recipe, kind)?;
    let cache = context.cache.as_deref();
    let Loaded { input, reference, digests, policy } =
        Loaded::from_files(recipe, loss.as_ref(), cache, (&settings.trained, kind, device), group)?;
    let exchange = recipe.distributed.exchange();
    let scoring = exchanged(scoring(recipe, input.pad_id), group, exchange.sharding);
    let inputs = run_inputs(&input, digests, reference.as_ref(), &settings, loss.is_some());
    let passes =
        loss.map(|loss| Passes::new(loss, (recipe, &input), reference.as_ref(), (kind, scoring), cache));
    group.check_agreement(|| facts(recipe, &input, &inputs, kind, device))?;
    let card_inputs = inputs.clone();
    if exchange.sharding != Sharding::None && group.is_distributed() {
        checkpoint::require_shared(&recipe.output.dir, group)?;
    }
    let dir = RunDir::at(&recipe.output.dir);
    let provenance = if group.is_main() {
        RunDir::open(&recipe.output.dir, &recipe.to_toml(), start)?;
        dir.compare_inputs(inputs, start)?
    } else {
        Provenance::default()
    };
    let summary = input.summary();
    for line in &summary {
        match input.is_reduced() {
            true => tracing::info!(target: ANNOUNCED, "{line}"),
            false => tracing::info!("{line}"),
        }
    }
    let data = summary.join("\n");
    if group.holds_on_rank0(|| dir.is_finished())? {
        return Ok(RunReport { outcome: Outcome::Finished, dir, data, policy: None });
    }
    if group.is_main() {
        let machine = Machine::here(kind, device, group);
        let accepted = provenance.accepted.clone();
        dir.record(&RunRecord::new(recipe, card_inputs.clone(), accepted, machine))?;
    }
    report_sharding(exchange.sharding, group);
    announce(recipe, &input, passes.as_ref().map(|passes| &passes.loss), settings.batch_size, &dir, group)?;
    let answers = own_answers(recipe, &input, &policy, kind, group)?;
    let Input { model, pairs, held_out, .. } = &input;
    let (save, keep_last) = (recipe.model.dtype.kind(), recipe.train.keep_last);
    let companions = Companions { folder: model, template: input.template.as_deref(), card: None };
    let card = Some(Card { recipe, inputs: &card_inputs, data: &data });
    let base = &recipe.policy_folder()?;
    let parts = Parts { dir: &dir, companions, base, save, pairs, provenance: &provenance };

    let (outcome, policy) = match passes {
        Some(Passes { loss, training, held_out: held_out_pass }) => {
            let scores = training.scores(&policy, &input, group, context)?;
            let objective = scores.objective(&input, scoring);
            let held_out_pass = match held_out_pass {
                Some(pass) => Some(pass.tables(&policy, group, context.progress)?.of(&held_out.pairs)),
                None => None,
            };
            let (margins, held_out_pass) = (margins(&recipe.loss), held_out_pass.as_ref());
            let held_out = HeldOut {
                pairs: &held_out.pairs,
                reference: held_out_pass.map(|(reference, _)| reference),
                loss,
                kl_pairs: held_out_pass.and_then(|(_, kl_pairs)| kl_pairs.as_ref()),
                scoring,
                answers,
            };
            let held_out = (!held_out.pairs.is_empty()).then_some(&held_out as &dyn HeldOutSet);
            let deltas = recipe.watch.pair_deltas && !pairs.is_empty();
            let watched = Watched::of(recipe, held_out, (deltas, margins), card);
            // An owned policy is dropped once its weights are copied.
            let objective = &*objective;
            let group = group.clone();
            let begin = move || Trainer::together(policy, objective, settings, group, exchange);
            train(&parts, begin, watched, keep_last, context)?
        }
        None => {
            let Scoring { padding, head, activations, .. } = scoring;
            let objective = &SupervisedObjective { dialogues: &input.dialogues, padding, head, activations };
            let group = group.clone();
            let begin = move || Trainer::together(policy, objective, settings, group, exchange);
            let held_out = HeldOutDialogues { dialogues: &held_out.dialogues, scoring };
            let held_out = (!held_out.dialogues.is_empty()).then_some(&held_out as &dyn HeldOutSet);
            train(&parts, begin, Watched::of(recipe, held_out, (false, None), card), keep_last, context)?
        }
    };
    Ok(RunReport { outcome, dir, data, policy })
}

/// The loss of a run, and the reference's passes.
struct Passes<'a> {
    loss: Loss,
    training: TrainingPass<'a>,
    /// `None` without held-out pairs or without a reference.
    held_out: Option<ReferencePasses<'a>>,
}

impl<'a> Passes<'a> {
    fn new(
        loss: Loss,
        (recipe, input): (&Recipe, &'a Input),
        reference: Option<&ReferenceModel>,
        (kind, scoring): (Kind, Scoring),
        cache: Option<&Path>,
    ) -> Self {
        let over =
            |pairs| Some(ReferencePasses::new((recipe, &loss), reference?, kind, scoring, pairs, cache));
        let pairs = &input.held_out.pairs;
        let held_out = if pairs.is_empty() { None } else { over(pairs) };
        let training = match (&loss, reference) {
            (Loss::Kto(loss), Some(reference)) if !input.unpaired.is_empty() => {
                let reference = reference.clone();
                let pass = CompletionPass::new(recipe, reference, kind, scoring, &input.unpaired, cache);
                TrainingPass::Unpaired(*loss, pass)
            }
            _ => TrainingPass::Pairs(loss.clone(), over(&input.all_tokens).map(Box::new)),
        };
        Self { loss, training, held_out }
    }
}

/// The loss, and the reference's pass over the training examples.
enum TrainingPass<'a> {
    /// Without passes for a loss without a reference.
    Pairs(Loss, Option<Box<ReferencePasses<'a>>>),
    Unpaired(KtoLoss, CompletionPass),
}

/// The loss, and the reference's log-probabilities of the training examples.
enum TrainingScores {
    Pairs(Loss, Option<(SequenceLogps, Option<KlPairs>)>),
    Unpaired(KtoLoss, Vec<f64>, Mismatched),
}

impl TrainingPass<'_> {
    fn scores(
        self,
        policy: &Policy,
        input: &Input,
        group: &ProcessGroup,
        context: &mut Context<'_>,
    ) -> Result<TrainingScores, TrainError> {
        Ok(match self {
            Self::Pairs(loss, None) => TrainingScores::Pairs(loss, None),
            Self::Pairs(loss, Some(pass)) => {
                let tables = pass.tables(policy, group, context.progress)?;
                TrainingScores::Pairs(loss, Some(tables.of(&input.pairs)))
            }
            Self::Unpaired(loss, pass) => {
                let (reference, mismatched) = pass.scores(policy, group, context.progress)?;
                TrainingScores::Unpaired(loss, reference, mismatched)
            }
        })
    }
}

impl TrainingScores {
    fn objective<'a>(&'a self, input: &'a Input, scoring: Scoring) -> Box<dyn Objective + 'a> {
        match self {
            Self::Pairs(loss, reference) => Box::new(PreferenceObjective {
                pairs: &input.pairs,
                reference: reference.as_ref().map(|(logps, _)| logps),
                loss: loss.clone(),
                kl_pairs: reference.as_ref().and_then(|(_, kl_pairs)| kl_pairs.as_ref()),
                scoring,
            }),
            Self::Unpaired(loss, reference, mismatched) => Box::new(UnpairedObjective {
                completions: &input.unpaired,
                reference,
                loss: *loss,
                mismatched,
                scoring,
            }),
        }
    }
}

/// The inputs of a run.
struct Loaded {
    input: Input,
    /// `None` for a loss without a reference.
    reference: Option<ReferenceModel>,
    digests: PolicyDigests,
    policy: Policy,
}

/// The digests of a policy.
pub(crate) struct PolicyDigests {
    /// That of its folder, without adapters that are trained.
    model: String,
    /// That of `lora.init`.
    adapters: Option<String>,
}

/// Returns the digests of a policy. They take a pass over its weights, unless the reference has the same.
pub(crate) fn digests_of_policy(
    recipe: &Recipe,
    reference: Option<&ReferenceModel>,
) -> Result<PolicyDigests, TrainError> {
    let model = match reference.and_then(ReferenceModel::digest_of_policy) {
        Some(digest) => digest,
        None => digest_of_model(&model_folders(&recipe.policy_folder()?)?)?,
    };
    let adapters = recipe.lora.init.as_ref().map(|folder| digest_of_model(&[folder.into()])).transpose()?;
    Ok(PolicyDigests { model, adapters })
}

/// The inputs of the run, for comparison with those of its checkpoints.
pub(crate) fn run_inputs(
    input: &Input,
    PolicyDigests { model, adapters }: PolicyDigests,
    reference: Option<&ReferenceModel>,
    settings: &TrainSettings,
    has_loss: bool,
) -> RunInputs {
    let examples = if has_loss { input.pairs.len() + input.unpaired.len() } else { input.dialogues.len() };
    let InputDigests { data, sources, tokenizer, template } = &input.digests;
    RunInputs {
        data: data.clone(),
        sources: if sources.len() > 1 { sources.clone() } else { Vec::new() },
        model,
        adapters,
        reference: reference.map(ReferenceModel::short_digest),
        tokenizer: tokenizer.clone(),
        template: template.clone(),
        total_steps: settings.total_steps(examples),
    }
}

impl Loaded {
    /// Loads the weights, for computation in `kind`, in one thread and everything else in another; both take about as
    /// long.
    fn from_files(
        recipe: &Recipe,
        loss: Option<&Loss>,
        cache: Option<&Path>,
        (trained, kind, device): (&Trained, Kind, Device),
        group: &ProcessGroup,
    ) -> Result<Self, TrainError> {
        let folder = &recipe.policy_folder()?;
        let exchange = recipe.distributed.exchange();
        let is_divided = exchange.sharding == Sharding::Parameters && group.is_distributed();
        if is_divided && *trained != Trained::All {
            return Err(TrainError::AdaptersOverShards);
        }
        thread::scope(|scope| {
            let others = scope.spawn(|| {
                let input = Input::read(recipe, cache)?;
                check_model(recipe, trained, &input.config)?;
                let has_reference = loss.is_some_and(Loss::reads_reference);
                let reference = has_reference.then(|| ReferenceModel::read(recipe)).transpose()?;
                let digests = digests_of_policy(recipe, reference.as_ref())?;
                Ok::<_, TrainError>((input, reference, digests))
            });
            let weighed = |policy: Policy| match recipe.train.router_aux_loss_coef {
                Some(weight) => policy.with_router_loss(weight),
                None => policy,
            };
            let policy = Policy::stored_kind(folder).map_err(TrainError::from).and_then(|stored| {
                // Trained weights become fp32 masters. A lower precision loses nothing only if the files store no more.
                let loses = *trained == Trained::All && stored != Some(kind);
                let kind = if loses { Kind::Float } else { kind };
                match is_divided {
                    true => gathered::load_over_ranks(folder, (kind, device), group, exchange),
                    false => Ok(load(recipe, folder, kind, device)?),
                }
            });
            let others = others.join().unwrap_or_else(|panic| resume_unwind(panic));
            // Errors in the data and the tokenizer come before errors in the weights.
            let (input, reference, digests) = others?;
            Ok(Self { input, reference, digests, policy: weighed(policy?) })
        })
    }
}

/// Loads the policy, with the adapters of `lora.init` in fp32.
fn load(recipe: &Recipe, folder: &Path, kind: Kind, device: Device) -> Result<Policy, PolicyError> {
    let policy = match recipe.model.quantization {
        Some(Quantization::Nf4) => Policy::load_in_nf4(folder, kind, device)?,
        None => Policy::load(folder, kind, device)?,
    };
    match &recipe.lora.init {
        Some(folder) => policy.load_adapters_in(Path::new(folder), Kind::Float),
        None => Ok(policy),
    }
}

/// Checks that the model has the modules of adapters and the experts that a recipe names, and that its patterns of modules are
/// unambiguous.
pub(crate) fn check_model(
    recipe: &Recipe,
    trained: &Trained,
    config: &ModelConfig,
) -> Result<(), TrainError> {
    if recipe.train.router_aux_loss_coef.is_some_and(|weight| weight > 0.0) && config.experts().is_none() {
        let reason = "has no effect: the model has no experts; remove the key";
        let complaint = Complaint::invalid("router_aux_loss_coef", reason).within("train");
        return Err(complaint.at(Origin::Code).into());
    }
    let Trained::Adapters(lora) = trained else { return Ok(()) };
    lora.fits(config)?;
    if recipe.lora.init.is_none() {
        lora.check_patterns(config)?;
    }
    Ok(())
}

/// Returns the weights that are trained. Adapters of `lora.init` have the configuration of that folder.
fn trained(recipe: &Recipe) -> Result<Trained, TrainError> {
    let Some(folder) = &recipe.lora.init else { return Ok(recipe.lora.build()?) };
    let mut lora = Lora::from_folder(Path::new(folder))?;
    lora.dropout = recipe.lora.dropout.unwrap_or(lora.dropout);
    Ok(Trained::Adapters(lora))
}

/// Returns β, and whether the loss saturates, for diagnostics of the margins over the reference.
fn margins(loss: &LossSection) -> Option<(f64, bool)> {
    let saturates = matches!(loss.kind, LossKind::Dpo);
    loss.needs_reference().then(|| (loss.beta.get(), saturates))
}

/// The settings of answers to held-out prompts; `None` if the recipe requests no answers.
fn own_answers(
    recipe: &Recipe,
    input: &Input,
    policy: &Policy,
    kind: Kind,
    group: &ProcessGroup,
) -> Result<Option<OwnAnswers>, TrainError> {
    let WatchSection { answers, answer_tokens, .. } = recipe.watch;
    if answers == 0 {
        return Ok(None);
    }
    let reference = ReferenceSource::of(recipe)?.load(policy, kind, group)?;
    Ok(Some(OwnAnswers {
        reference,
        prompts: answers,
        max_tokens: answer_tokens,
        stop_tokens: input.stop_tokens.clone(),
        seeds: Seeds::new(recipe.seed).child("held-out"),
    }))
}

/// Supervised training on tokenized dialogues.
#[derive(Debug)]
pub struct SupervisedRun<'a> {
    /// The initial policy.
    pub policy: &'a Policy,
    /// The folder with its tokenizer files.
    pub companions: &'a Path,
    /// The training examples.
    pub dialogues: &'a [Dialogue],
    /// The settings of training.
    pub settings: TrainSettings,
    /// The folder of the run.
    pub dir: &'a RunDir,
}

/// Runs supervised training in a run's folder, which then has the files that [`run`] writes.
///
/// # Errors
///
/// As [`run`].
pub fn run_supervised(run: SupervisedRun<'_>, context: &mut Context<'_>) -> Result<Outcome, TrainError> {
    let group = context.group.clone();
    if group.holds_on_rank0(|| run.dir.is_finished())? {
        return Ok(Outcome::Finished);
    }
    let Scoring { padding, head, activations, .. } =
        exchanged(Scoring::FAST, &group, Exchange::default().sharding);
    let objective = SupervisedObjective { dialogues: run.dialogues, padding, head, activations };
    let save = run.settings.kind;
    let provenance = Provenance::default();
    let (dir, base) = (run.dir, run.companions);
    let parts = Parts { dir, companions: base.into(), base, save, pairs: &[], provenance: &provenance };
    let together = group.clone();
    let begin = || Trainer::together(run.policy, &objective, run.settings, together, Exchange::default());
    let trained = train(&parts, begin, Watched::default(), 0, context);
    group.propagate_error(trained.map(|(outcome, _)| outcome))
}

/// What a run records besides the training loss.
#[derive(Default)]
struct Watched<'a> {
    /// Held-out examples, and the number of steps between their evaluations, in addition to those at checkpoints.
    held_out: Option<(&'a dyn HeldOutSet, u64)>,
    stopping: Option<EarlyStopping>,
    recording: Recording,
    /// The card of the model; `None` for a run without a recipe.
    card: Option<Card<'a>>,
}

impl<'a> Watched<'a> {
    /// Returns what `recipe` records. `deltas` and `margins` are as in [`Recording`].
    fn of(
        recipe: &Recipe,
        held_out: Option<&'a dyn HeldOutSet>,
        (deltas, margins): (bool, Option<(f64, bool)>),
        card: Option<Card<'a>>,
    ) -> Self {
        Self {
            held_out: held_out.map(|held_out| (held_out, recipe.watch.eval_every)),
            stopping: recipe.train.early_stopping.map(|section| section.build()),
            recording: Recording { deltas, margins, best: recipe.checkpoints.best },
            card,
        }
    }
}

fn train<'a>(
    parts: &Parts<'_>,
    begin: impl FnOnce() -> Result<Trainer<'a>, TrainError>,
    watched: Watched<'a>,
    keep_last: usize,
    context: &mut Context<'_>,
) -> Result<(Outcome, Option<Policy>), TrainError> {
    let (group, checkpoints) = (context.group.clone(), parts.dir.checkpoints());
    let _lock = group.is_main().then(|| parts.dir.lock()).transpose()?;
    if group.holds_on_rank0(|| parts.dir.is_finished())? {
        return Ok((Outcome::Finished, None));
    }
    if group.is_main() {
        for folder in [parts.dir.root(), &checkpoints] {
            checkpoint::clear_unfinished(folder)?;
        }
    }
    let mut trainer = begin()?;
    if let Some((held_out, every)) = watched.held_out {
        trainer = trainer.with_held_out(held_out, every);
    }
    if let Some(rule) = watched.stopping {
        trainer = trainer.with_early_stopping(rule);
    }
    let state = checkpoint::newest_state(&checkpoints, trainer.state_shape(), &group)?;
    let step = state.as_ref().map_or(0, |s| s.step);
    if let Some(state) = state {
        tracing::info!(step, "resuming from a checkpoint");
        trainer.restore(&state)?;
    }
    context.progress.begin("training", trainer.total_steps());
    let recording = watched.recording;
    let outcome = if group.is_main() {
        let mut recorder = Recorder::open(parts, step, context, keep_last, recording)?;
        trainer.run(&mut recorder)
    } else {
        trainer.run(&mut Follower { dir: parts.dir, context })
    };
    context.progress.end();
    let outcome = outcome?;
    let mut trained = None;
    if outcome == Outcome::Finished {
        let policy = trainer.master_policy()?;
        if let Some(reason) = trainer.early_end().filter(|_| group.is_main()) {
            tracing::info!("{reason}");
        }
        // The other ranks supply their parts of the weights meanwhile.
        let finished = group.is_main().then(|| finish(parts, &trainer, &policy, recording, watched.card));
        policy.finish_passes()?;
        let is_last = || finished.unwrap_or(Ok(true)).map(|is_last| vec![u8::from(is_last)]);
        let is_last = group.compute_on_rank0(is_last)? == [1];
        trained = if is_last { trainer.policy_as_saved(parts.save)? } else { None };
    }
    // When a rank returns, the model is on disk.
    group.barrier()?;
    Ok((outcome, trained))
}

/// Returns the kind to compute in: bfloat16 only if the processor supports it, since emulation is slower than fp32.
pub(crate) fn compute_kind(wanted: Kind, device: Device) -> Kind {
    if wanted == Kind::BFloat16 && !policy_model::native_bf16(device) {
        tracing::warn!(
            "this processor has no bfloat16 arithmetic: computing in float32, which is exact and here also faster"
        );
        return Kind::Float;
    }
    wanted
}

/// Returns how `recipe` computes log-probabilities; padded rows use `pad_id`.
pub(crate) fn scoring(recipe: &Recipe, pad_id: u32) -> Scoring {
    // Dequantized weights are in memory as long as a graph refers to them: with checkpointing, one layer.
    let is_recomputed = recipe.train.gradient_checkpointing || recipe.model.quantization.is_some();
    let activations = if is_recomputed { Activations::Recomputed } else { Activations::Kept };
    Scoring { activations, ..recipe.speed.scoring(pad_id) }
}

/// Returns how a process of `group` computes.
fn exchanged(scoring: Scoring, group: &ProcessGroup, sharding: Sharding) -> Scoring {
    if group.is_distributed() { scoring_of_ranks(scoring, sharding) } else { scoring }
}

/// Chooses layerwise backward for several ranks, whose gradients are exchanged layer by layer. Layers that the ranks share
/// are recomputed.
pub(crate) fn scoring_of_ranks(scoring: Scoring, sharding: Sharding) -> Scoring {
    match sharding {
        Sharding::Parameters => Scoring { activations: Activations::Recomputed, ..scoring },
        _ => scoring.by_layer(),
    }
}

/// Returns the settings of `recipe`'s training, with computation in `kind`.
pub(crate) fn settings(recipe: &Recipe, kind: Kind) -> Result<TrainSettings, TrainError> {
    let train = &recipe.train;
    Ok(TrainSettings {
        length: train.length(),
        batch_size: train.batch_size,
        micro_batch: match train.micro_batch_tokens {
            0 => MicroBatch::Examples(train.micro_batch_size),
            tokens => MicroBatch::Tokens(tokens),
        },
        learning_rate: train.learning_rate,
        warmup_ratio: train.warmup_ratio,
        decay: train.decay(),
        adamw: AdamWSettings {
            betas: (train.betas[0], train.betas[1]),
            eps: train.eps,
            weight_decay: train.weight_decay,
            moments: recipe.optimizer.moments(),
        },
        max_grad_norm: train.max_grad_norm,
        checkpoints: train.checkpoints.clone(),
        kind,
        trained: trained(recipe)?,
        order: recipe.main_data().order(),
        seeds: Seeds::new(recipe.seed),
    })
}
