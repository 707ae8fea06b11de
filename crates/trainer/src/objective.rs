//! What is minimised: the examples, their loss, and what is measured on the way.

use policy_model::{Policy, Rows, Visibility};
use pref_data::{Dialogue, Layout, TokenBatch, TokenPair};
use pref_loss::{PairLogpTensors, PairTokens, PreferenceLoss};
use tch::{Device, Kind, Tensor};

use crate::TrainError;
use crate::metrics::PreferenceMetrics;
use crate::reference::ReferenceLogps;

/// Something to minimise over a set of examples.
pub trait Objective {
    /// How many examples there are.
    fn examples(&self) -> usize;

    /// The identifier of one example, for messages.
    fn name(&self, example: usize) -> String;

    /// How much an example weighs in the mean loss of a batch: 1 a pair, or its scored tokens.
    fn weight(&self, example: usize) -> f64;

    /// The sum of the weighted losses of `examples`, with autograd, and what was measured.
    ///
    /// # Errors
    ///
    /// Where the examples do not fit the policy.
    fn loss(&self, policy: &Policy, examples: &[usize]) -> Result<Measured, TrainError>;
}

/// The loss of some examples and what was measured with it.
#[derive(Debug)]
pub struct Measured {
    /// Sum of the weighted losses, a scalar with autograd.
    pub loss: Tensor,
    /// Sums over pairs (not means) of the preference metrics.
    pub preference: Option<PreferenceMetrics>,
    /// Non-padding tokens.
    pub tokens: u64,
}

/// Preference training of a policy against fixed reference log-probabilities.
#[derive(Debug)]
pub struct PreferenceObjective<'a> {
    /// The pairs.
    pub pairs: &'a [TokenPair],
    /// The reference log-probabilities of the pairs, in their order.
    pub reference: &'a ReferenceLogps,
    /// The loss.
    pub loss: PreferenceLoss,
    /// How a batch is laid out.
    pub layout: Layout,
    /// Fills rows up; never scored, never seen.
    pub pad_id: u32,
}

impl Objective for PreferenceObjective<'_> {
    fn examples(&self) -> usize {
        self.pairs.len()
    }

    fn name(&self, example: usize) -> String {
        self.pairs[example].id.clone()
    }

    fn weight(&self, _: usize) -> f64 {
        1.0
    }

    fn loss(&self, policy: &Policy, examples: &[usize]) -> Result<Measured, TrainError> {
        let pairs: Vec<&TokenPair> = examples.iter().map(|&i| &self.pairs[i]).collect();
        let batch = TokenBatch::pairs(&pairs, self.layout, self.pad_id)?;
        let logps = sequence_logps(policy, &batch);
        let n = pairs.len() as i64;
        let policy_logps = PairLogpTensors { chosen: logps.narrow(0, 0, n), rejected: logps.narrow(0, n, n) };
        let reference = self.reference.tensors(examples, policy.device());
        let lengths: Vec<u32> = batch.lengths.iter().map(|&length| length as u32).collect();
        let (chosen, rejected) = lengths.split_at(pairs.len());
        let losses = self.loss.forward(&policy_logps, &reference, PairTokens { chosen, rejected })?;
        let preference = measure(&self.loss, &policy_logps, &reference);
        Ok(Measured {
            loss: losses.sum(Kind::Float),
            preference: Some(preference),
            tokens: batch.tokens as u64,
        })
    }
}

/// Sums over the pairs of what TRL logs; one transfer to the CPU for all six.
fn measure(
    loss: &PreferenceLoss,
    policy: &PairLogpTensors,
    reference: &PairLogpTensors,
) -> PreferenceMetrics {
    let _guard = tch::no_grad_guard();
    let beta = loss.beta().map_or(1.0, |beta| beta.get());
    let chosen = (&policy.chosen - &reference.chosen) * beta;
    let rejected = (&policy.rejected - &reference.rejected) * beta;
    let margin = &chosen - &rejected;
    let accuracy = margin.gt(0.0).to_kind(Kind::Float);
    let rows = Tensor::stack(&[&chosen, &rejected, &accuracy, &margin, &policy.chosen, &policy.rejected], 0);
    let sums = rows.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    let mut sums_on_cpu = [0f64; 6];
    sums.to_device(Device::Cpu).copy_data(&mut sums_on_cpu, 6);
    let mut metrics = PreferenceMetrics::default();
    for (field, sum) in metrics.fields_mut().into_iter().zip(sums_on_cpu) {
        *field = sum;
    }
    metrics
}

/// Supervised training: cross entropy of the scored tokens of dialogues.
#[derive(Debug)]
pub struct SupervisedObjective<'a> {
    /// The dialogues.
    pub dialogues: &'a [Dialogue],
    /// Fills rows up; never scored, never seen.
    pub pad_id: u32,
}

impl Objective for SupervisedObjective<'_> {
    fn examples(&self) -> usize {
        self.dialogues.len()
    }

    fn name(&self, example: usize) -> String {
        format!("dialogue {example}")
    }

    fn weight(&self, example: usize) -> f64 {
        self.dialogues[example].scored().iter().filter(|&&scored| scored).count() as f64
    }

    fn loss(&self, policy: &Policy, examples: &[usize]) -> Result<Measured, TrainError> {
        let dialogues: Vec<&Dialogue> = examples.iter().map(|&i| &self.dialogues[i]).collect();
        let batch = TokenBatch::dialogues(&dialogues, self.pad_id)?;
        let loss = -token_logps(policy, &batch).sum(Kind::Float);
        Ok(Measured { loss, preference: None, tokens: batch.tokens as u64 })
    }
}

/// Log-probability (nats, fp32) of every scored token of a batch: `[scored]`.
pub fn token_logps(policy: &Policy, batch: &TokenBatch) -> Tensor {
    let device = policy.device();
    let shape = [batch.rows as i64, batch.width as i64];
    let grid = |data: &[i64]| Tensor::from_slice(data).view(shape).to_device(device);
    let visible = match batch.layout {
        Layout::Padded => Visibility::Causal,
        Layout::SharedPrompt => Visibility::Branches(grid(&batch.branches)),
    };
    let rows = Rows { ids: grid(&batch.ids), positions: grid(&batch.positions), visible };
    let hidden = policy.hidden_states(&rows);
    let width = hidden.size()[2];
    let scored = Tensor::from_slice(&batch.scored).to_device(device);
    let targets = Tensor::from_slice(&batch.targets).to_device(device);
    policy.token_logps(&hidden.view([-1, width]).index_select(0, &scored), &targets)
}

/// Summed log-probability (nats, fp32) of every sequence of a batch: `[sequences]`, for pairs all chosen, then all
/// rejected.
pub fn sequence_logps(policy: &Policy, batch: &TokenBatch) -> Tensor {
    let logps = token_logps(policy, batch);
    let sequence = Tensor::from_slice(&batch.sequence).to_device(logps.device());
    Tensor::zeros([batch.sequences as i64], (Kind::Float, logps.device())).index_add(0, &sequence, &logps)
}
