//! The optimization loop of supervised and preference training.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use distributed::{
    DistributedError, Exchange, Fact, GradientSink, ProcessGroup, Rank, Sharding, digest_of_tensor,
};
use policy_model::Policy;
use pref_loss::{DynamicBeta, KlEstimate};
use tch::{Kind, Tensor};

use crate::adapter_dropout::StepDropout;
use crate::error::TrainError;
use crate::gradients::{GradientBuffer, Gradients, ReducedGradient};
use crate::held_out::{HeldOutMetrics, HeldOutSet};
use crate::metrics::{MetricSums, StepMetrics};
use crate::objective::{BatchContext, ComparedPairs, Objective, StepStats};
use crate::optimizer::AdamW;
use crate::pair_deltas::PairDelta;
use crate::parameters::{Parameters, Ranks};
use crate::region_sums::RegionSums;
use crate::replicas::ThreadReplicas;
use crate::schedule::Schedule;
use crate::settings::TrainSettings;
use crate::state::{SavedState, StateShape, TrainerState};
use crate::stopping::{EarlyStopping, Patience};

/// Callbacks after each step; may request a stop.
pub trait Observer {
    /// Returns the seconds since a fixed moment. Training reads no other clock.
    fn seconds(&self) -> f64;

    /// Called after each of `total_steps` steps, with the Δ of its pairs.
    ///
    /// # Errors
    ///
    /// An error of the observer, which ends training.
    fn on_step(
        &mut self,
        metrics: &StepMetrics,
        deltas: &[PairDelta],
        total_steps: u64,
    ) -> Result<(), TrainError>;

    /// Called after an evaluation of held-out pairs.
    ///
    /// # Errors
    ///
    /// An error of the observer, which ends training.
    fn on_evaluation(&mut self, _: &HeldOutMetrics) -> Result<(), TrainError> {
        Ok(())
    }

    /// Called when a checkpoint is due.
    ///
    /// # Errors
    ///
    /// An error of the observer, which ends training.
    fn on_checkpoint(&mut self, snapshot: &TrainerState<'_>) -> Result<(), TrainError>;

    /// Returns whether training stops after this step, with a checkpoint.
    fn wants_stop(&self) -> bool;
}

/// How training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// The observer requested a stop after this many steps.
    Stopped(u64),
}

/// A policy under training.
pub struct Trainer<'a> {
    objective: &'a dyn Objective,
    settings: TrainSettings,
    schedule: Schedule,
    parameters: Parameters,
    gradients: GradientBuffer,
    replicas: ThreadReplicas,
    optimizer: AdamW,
    held_out: Option<(&'a dyn HeldOutSet, u64)>,
    patience: Option<Patience>,
    group: ProcessGroup,
    exchange: Exchange,
    /// β-DPO's running mean.
    dynamic_beta: Option<DynamicBeta>,
    step: u64,
    total_steps: u64,
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("step", &self.step).field("total_steps", &self.total_steps).finish()
    }
}

impl<'a> Trainer<'a> {
    /// Prepares to train a copy of `policy`'s weights, or adapters over the weights themselves.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoExamples`] if the objective has none.
    pub fn new(
        policy: &Policy,
        objective: &'a dyn Objective,
        settings: TrainSettings,
    ) -> Result<Self, TrainError> {
        Self::together(policy, objective, settings, ProcessGroup::single(), Exchange::default())
    }

    /// Like [`new`](Self::new), to train together with the other ranks of `group`, which make the same calls. All ranks
    /// get the same metrics; only rank 0 should write them.
    ///
    /// An owned policy is dropped once its weights are copied, so that it and the optimizer's state are never in memory
    /// together.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn together(
        policy: impl Borrow<Policy>,
        objective: &'a dyn Objective,
        settings: TrainSettings,
        group: ProcessGroup,
        exchange: Exchange,
    ) -> Result<Self, TrainError> {
        if objective.examples() == 0 {
            return Err(TrainError::NoExamples("the set is empty".into()));
        }
        let total_steps = settings.total_steps(objective.examples());
        let is_sharded = exchange.sharding != Sharding::None && group.rank() != Rank::ALONE;
        let ranks = is_sharded.then(|| Ranks { group: group.clone(), exchange });
        let (trained, kind) = (settings.trained.clone(), settings.kind);
        let (parameters, gradients) =
            Parameters::new(policy, trained, kind, &settings.seeds, ranks.as_ref())?;
        let replicas = ThreadReplicas::new(&parameters, &gradients, &group, settings.batch_size)?;
        let device = parameters.device();
        let optimizer = AdamW::new(settings.adamw, gradients.spans(), &parameters.layout, device)?;
        let schedule =
            Schedule::new(settings.learning_rate, settings.warmup_ratio, settings.decay, total_steps);
        let (held_out, patience, step) = (None, None, 0);
        Ok(Self {
            objective,
            settings,
            schedule,
            parameters,
            gradients,
            replicas,
            optimizer,
            held_out,
            patience,
            group,
            exchange,
            dynamic_beta: objective.dynamic_beta(),
            step,
            total_steps,
        })
    }

    /// Evaluates `held_out` before the first step, at each checkpoint, and every `every` steps (0 for none).
    #[must_use]
    pub fn with_held_out(self, held_out: &'a dyn HeldOutSet, every: u64) -> Self {
        Self { held_out: Some((held_out, every)), ..self }
    }

    /// Ends training by `rule`, which the evaluations of [`with_held_out`](Self::with_held_out) inform.
    #[must_use]
    pub fn with_early_stopping(self, rule: EarlyStopping) -> Self {
        Self { patience: Some(Patience::new(rule)), ..self }
    }

    /// Restores the state of a checkpoint: master weights and both moments of this rank's shard, in one dimension each.
    pub(crate) fn restore(&mut self, state: &SavedState) -> Result<(), TrainError> {
        let _guard = tch::no_grad_guard();
        self.parameters.master.copy_(&state.master);
        self.parameters.refresh(&self.group)?;
        for (moment, saved) in self.optimizer.moments.iter_mut().zip(&state.moments) {
            moment.copy_from(saved);
        }
        self.optimizer.step = state.step;
        self.dynamic_beta = self.dynamic_beta.map(|dynamic| dynamic.with_mean(state.margin_mean));
        self.patience = self.patience.map(|patience| patience.after(state.seen));
        self.step = state.step;
        Ok(())
    }

    /// Returns the shape of this rank's part of the state.
    pub(crate) fn state_shape(&self) -> StateShape<'_> {
        let moments = self.optimizer.kind();
        StateShape { layout: &self.parameters.layout, spans: self.gradients.spans(), moments }
    }

    /// Returns the number of optimizer steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Returns the number of optimizer steps made.
    pub(crate) fn steps(&self) -> u64 {
        self.step
    }

    /// Returns the reason for an end before the last step; `None` without one.
    pub(crate) fn early_end(&self) -> Option<String> {
        let patience = self.patience.filter(|patience| patience.is_over() && self.step < self.total_steps)?;
        Some(format!("stopped early after step {} of {}: {patience}", self.step, self.total_steps))
    }

    fn is_over(&self) -> bool {
        self.step >= self.total_steps || self.patience.is_some_and(|patience| patience.is_over())
    }

    /// Returns the steps after which a checkpoint is due, in order.
    pub(crate) fn checkpoint_steps(&self) -> Vec<u64> {
        self.settings.checkpoint_steps(self.total_steps)
    }

    /// Returns the policy with its current weights.
    pub fn policy(&self) -> &Policy {
        &self.parameters.policy
    }

    /// Returns a policy that shares the fp32 master weights. Frozen weights below adapters, and all weights if the
    /// masters are sharded, have the kind that computes. All ranks of a group call it, and take part in reading layers that
    /// they share ([`Policy::for_each_parameter`]).
    ///
    /// # Errors
    ///
    /// If the weights do not form a policy, which loading excludes.
    pub fn master_policy(&self) -> Result<Policy, TrainError> {
        self.parameters.master_policy(&self.group)
    }

    /// Returns the policy that computes, if it has the weights that a folder saved in `kind` has.
    pub(crate) fn policy_as_saved(&self, kind: Kind) -> Result<Option<Policy>, TrainError> {
        self.parameters.policy_as_saved(kind)
    }

    /// Makes the remaining steps.
    ///
    /// # Errors
    ///
    /// [`TrainError::NotFinite`] before a step whose loss or gradient is not a number is applied; errors of the
    /// observer.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let steps_per_epoch = self.settings.steps_per_epoch(self.objective.examples());
        let checkpoints = self.checkpoint_steps();
        let mut order = (u64::MAX, Vec::new());
        self.agree_on_weights()?;
        if self.step == 0 {
            self.evaluate(observer)?;
        }
        while !self.is_over() {
            let epoch = self.step / steps_per_epoch;
            if order.0 != epoch {
                order = (epoch, self.settings.epoch_order(self.objective.examples(), epoch));
            }
            let start = (self.step % steps_per_epoch) as usize * self.settings.batch_size;
            let end = order.1.len().min(start + self.settings.batch_size);
            let began = observer.seconds();
            let (mut metrics, deltas) = self.step(&order.1[start..end])?;
            metrics.epoch = self.step as f64 / steps_per_epoch as f64;
            metrics.step_seconds = observer.seconds() - began;
            observer.on_step(&metrics, &deltas, self.total_steps)?;
            files::fault::point("trainer.step");
            let every = self.held_out.map_or(0, |(_, every)| every);
            if checkpoints.contains(&self.step) || every > 0 && self.step.is_multiple_of(every) {
                self.evaluate(observer)?;
            }
            // Only one rank may have received a signal.
            let stop = self.group.any(observer.wants_stop())? && !self.is_over();
            let is_early_end = self.is_over() && self.step < self.total_steps;
            if stop || is_early_end || checkpoints.contains(&self.step) {
                self.agree_on_weights()?;
                observer.on_checkpoint(&self.snapshot()?)?;
            }
            if stop {
                return Ok(Outcome::Stopped(self.step));
            }
        }
        Ok(Outcome::Finished)
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let Some((held_out, _)) = self.held_out else { return Ok(()) };
        let began = observer.seconds();
        let mut metrics = held_out.measure(&self.parameters.policy, &self.group)?;
        metrics.step = self.step;
        metrics.epoch = self.step as f64 / self.settings.steps_per_epoch(self.objective.examples()) as f64;
        metrics.eval_seconds = observer.seconds() - began;
        if let Some(patience) = &mut self.patience {
            patience.see(&metrics);
        }
        observer.on_evaluation(&metrics)
    }

    /// Compares the weights of all ranks: ranks that diverge would otherwise continue unnoticed.
    fn agree_on_weights(&self) -> Result<(), TrainError> {
        self.group.check_agreement(|| {
            let value =
                format!("{} after {} steps", digest_of_tensor(self.parameters.computing())?, self.step);
            let remedy = "train on machines of one kind, with the same build and number of threads";
            Ok::<_, DistributedError>(vec![Fact { what: "state", value, remedy }])
        })?;
        Ok(())
    }

    fn snapshot(&self) -> Result<TrainerState<'_>, TrainError> {
        Ok(TrainerState {
            step: self.step,
            total_steps: self.total_steps,
            policy: self.parameters.master_policy(&self.group)?,
            master: &self.parameters.master,
            optimizer: &self.optimizer,
            margin_mean: self.dynamic_beta.and_then(|dynamic| dynamic.mean()),
            seen: self.patience.map(Patience::seen),
            layout: self.parameters.layout.clone(),
            group: &self.group,
        })
    }

    /// Makes one optimizer step on `batch`. The caller sets epoch and duration of the metrics.
    fn step(&mut self, batch: &[usize]) -> Result<(StepMetrics, Vec<PairDelta>), TrainError> {
        self.gradients.zero();
        let (mut measured, context) = self.differentiate(batch)?;
        self.combine(batch, &mut measured)?;
        if !measured.loss.is_finite() {
            return Err(self.not_finite(measured.loss, batch));
        }
        let ReducedGradient { shard: gradient, norm: grad_norm } = self.gradients.reduced(&self.group)?;
        if !grad_norm.is_finite() {
            return Err(self.not_finite(grad_norm, batch));
        }
        let learning_rate = self.schedule.learning_rate(self.step);
        self.apply(&gradient, learning_rate, grad_norm)?;
        self.step += 1;
        let StepStats { loss, preference, deltas, tokens } = measured;
        let (preference, unpaired) =
            preference.map_or((None, None), |sums: MetricSums| sums.metrics(batch.len()));
        let metrics = StepMetrics {
            step: self.step,
            epoch: 0.0,
            loss,
            grad_norm,
            learning_rate,
            preference,
            unpaired,
            kl: context.baseline.map(KlEstimate::nats),
            beta: context.compared.beta.map(|beta| beta.get()),
            tokens,
            step_seconds: 0.0,
        };
        Ok((metrics, deltas))
    }

    /// Computes the gradient of the mean loss of `batch`, each rank for its shard, and sums it over all ranks. Returns the
    /// statistics of this rank's shard, up to the first loss that is not finite, and the context of the whole batch.
    fn differentiate(&mut self, batch: &[usize]) -> Result<(StepStats, BatchContext), TrainError> {
        let objective = self.objective;
        let tokens: Vec<usize> = batch.iter().map(|&example| objective.tokens(example)).collect();
        let shard: Vec<usize> = self.group.shard_batch(&tokens).into_iter().map(|at| batch[at]).collect();
        let micro_batches = self.settings.micro_batches(&shard, |example| objective.tokens(example));
        let dropout = self.settings.trained.dropout(&self.settings.seeds, self.step);
        let context = BatchContext {
            baseline: self.baseline(&micro_batches, batch.len())?,
            compared: self.compare(&micro_batches, batch, dropout)?,
            dropout,
        };
        let group = self.group.clone();
        let stats = match self.gradients.buckets(self.exchange) {
            Some(buckets) => group.reduce_gradient(buckets, |sink| {
                self.accumulate(batch, &micro_batches, &context, Some(sink))
            })?,
            None => self.accumulate(batch, &micro_batches, &context, None)?,
        };
        self.gradients.by_regions().map_or(Ok(()), RegionSums::finish_passes)?;
        Ok((stats, context))
    }

    /// Adds the gradient of each micro-batch to the gradient of this rank; with `sink`, the last one completes it, span by span.
    fn accumulate(
        &mut self,
        batch: &[usize],
        micro_batches: &[Vec<usize>],
        context: &BatchContext,
        mut sink: Option<&mut (dyn GradientSink + '_)>,
    ) -> Result<StepStats, TrainError> {
        let (objective, policy) = (self.objective, &self.parameters.policy);
        let scale = 1.0 / batch.iter().map(|&i| objective.weight(i)).sum::<f64>();
        let mut sum = StepStats { loss: 0.0, preference: None, deltas: Vec::new(), tokens: 0 };
        for (number, micro_batch) in micro_batches.iter().enumerate() {
            let is_last = number + 1 == micro_batches.len();
            let sink: Option<&mut dyn GradientSink> = match &mut sink {
                Some(sink) if is_last => Some(&mut **sink),
                _ => None,
            };
            let mut gradients = Gradients::new(&self.gradients, sink);
            let stats = match self.replicas.differentiate(objective, micro_batch, scale, context)? {
                Some(stats) => stats,
                None => objective.differentiate(policy, micro_batch, scale, context, &mut gradients)?,
            };
            sum.loss += stats.loss * scale;
            if !sum.loss.is_finite() {
                break;
            }
            sum.tokens += stats.tokens;
            sum.deltas.extend(stats.deltas);
            if let Some(sums) = stats.preference {
                let total = sum.preference.get_or_insert(MetricSums::zero(sums.is_unpaired()));
                total.add(sums, |sum| sum / batch.len() as f64);
            }
        }
        Ok(sum)
    }

    /// Returns the baseline of a batch of `count` examples, of which this rank has the given parts; `None` for an
    /// objective without a baseline.
    fn baseline(
        &self,
        micro_batches: &[Vec<usize>],
        examples: usize,
    ) -> Result<Option<KlEstimate>, TrainError> {
        let of = |examples: &[usize]| self.objective.baseline(&self.parameters.policy, examples);
        // A rank without a part of this batch also has to know whether the objective has a baseline.
        let Some(mut sum) = of(&[])? else { return Ok(None) };
        for micro_batch in micro_batches {
            sum += of(micro_batch)?.unwrap_or_default();
        }
        self.parameters.policy.finish_passes()?;
        let mut sums = [sum];
        self.group.all_reduce_sum(&mut sums)?;
        let mean = sums[0] / examples as f64;
        // A baseline that is not finite makes the loss not finite, too, and that error names the batch.
        Ok(Some(KlEstimate::new(&[mean], &[0.0]).unwrap_or(KlEstimate::ZERO)))
    }

    /// Returns the losses of all pairs of `batch`, of which this rank has the given parts, for an objective that compares
    /// them. All ranks return the same.
    fn compare(
        &mut self,
        micro_batches: &[Vec<usize>],
        batch: &[usize],
        dropout: Option<StepDropout>,
    ) -> Result<ComparedPairs, TrainError> {
        let policy = &self.parameters.policy;
        let of = |examples: &[usize]| self.objective.compared_logps(policy, examples, dropout);
        if of(&[])?.is_none() {
            return Ok(ComparedPairs::default());
        }
        let place: BTreeMap<usize, usize> = batch.iter().copied().zip(0..).collect();
        // Pairs of other ranks are 0 here.
        let mut sums = vec![0.0; 2 * batch.len()];
        for micro_batch in micro_batches {
            for (example, logps) in micro_batch.iter().zip(of(micro_batch)?.unwrap_or_default()) {
                sums[2 * place[example]..][..2].copy_from_slice(&logps);
            }
        }
        self.parameters.policy.finish_passes()?;
        self.group.all_reduce_sum(&mut sums)?;
        let (logps, _) = sums.as_chunks::<2>();
        self.objective.compare(batch, logps, &mut self.dynamic_beta)
    }

    /// Combines the statistics of all ranks for `batch`.
    fn combine(&self, batch: &[usize], measured: &mut StepStats) -> Result<(), TrainError> {
        if !self.group.is_distributed() {
            return Ok(());
        }
        // A rank without examples of this batch does not know the kind of metrics.
        let is = |kind: fn(&MetricSums) -> bool| {
            f64::from(u8::from(measured.preference.as_ref().is_some_and(kind)))
        };
        let (has_metrics, is_unpaired) = (is(|_| true), is(MetricSums::is_unpaired));
        let mut preference = measured.preference.unwrap_or(MetricSums::zero(false));
        let mut sums = vec![measured.loss, measured.tokens as f64, has_metrics, is_unpaired];
        sums.extend(preference.fields_mut().map(|field| *field));
        let first_delta = sums.len();
        // Each pair's Δ comes from one rank; from the others, 0.
        let place: BTreeMap<usize, usize> = batch.iter().copied().zip(first_delta..).collect();
        sums.resize(first_delta + batch.len(), 0.0);
        for PairDelta { pair, delta } in &measured.deltas {
            sums[place[pair]] = *delta;
        }
        self.group.all_reduce_sum(&mut sums)?;
        measured.loss = sums[0];
        measured.tokens = sums[1] as u64;
        if sums[2] == 0.0 {
            return Ok(());
        }
        preference = MetricSums::zero(sums[3] > 0.0);
        preference.fields_mut().into_iter().zip(&sums[4..]).for_each(|(field, sum)| *field = *sum);
        measured.preference = Some(preference);
        if preference.is_unpaired() {
            return Ok(());
        }
        // The order of a single process.
        let order = self.settings.micro_batches(batch, |example| self.objective.tokens(example)).concat();
        measured.deltas =
            order.into_iter().map(|pair| PairDelta { pair, delta: sums[place[&pair]] }).collect();
        Ok(())
    }

    fn apply(&mut self, gradient: &Tensor, learning_rate: f64, grad_norm: f64) -> Result<(), TrainError> {
        let _guard = tch::no_grad_guard();
        // As in torch.nn.utils.clip_grad_norm_: 1e-6 keeps a tiny norm from amplifying the gradient.
        let bound = self.settings.max_grad_norm;
        let clip = if bound > 0.0 { (bound / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        self.parameters.update(&mut self.optimizer, &self.group, gradient, (learning_rate, clip))
    }

    fn not_finite(&self, loss: f64, batch: &[usize]) -> TrainError {
        let names: Vec<String> = batch.iter().map(|&i| self.objective.name(i)).collect();
        TrainError::NotFinite {
            loss,
            step: self.step + 1,
            epoch: self.step as f64 / self.settings.steps_per_epoch(self.objective.examples()) as f64,
            examples: names.join(", "),
        }
    }
}
