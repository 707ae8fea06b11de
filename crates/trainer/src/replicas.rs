//! Data-parallel CPU threads for models too small for intra-op parallelism.
//!
//! libtorch splits every operation over its threads. With short texts and a small policy, an operation takes microseconds, and
//! the threads wait for each other as long as they compute. Each thread replica instead takes whole examples of a micro-batch,
//! and adds their gradient to its own buffer. The result differs from intra-op threads by rounding, as other micro-batches do.

use distributed::{ProcessGroup, balanced_shards};
use policy_model::Policy;
use tch::Device;

use crate::error::TrainError;
use crate::gradients::{GradientBuffer, Gradients};
use crate::objective::{BatchContext, Objective, StepStats};
use crate::parameters::Parameters;

/// The most parameters of a small policy; each thread has a gradient of it.
const MAX_PARAMETERS: u64 = 1 << 20;

/// The most tokens of a micro-batch in which operations on a small policy are short.
const MAX_TOKENS: usize = 1024;

/// The fewest examples of a shard: with fewer, calls dominate.
const MIN_EXAMPLES: usize = 2;

/// A policy for one thread, with its gradient.
#[derive(Debug)]
struct Replica {
    policy: Policy,
    gradients: GradientBuffer,
}

/// One replica per thread; none for a single thread, and if no micro-batch is suitable.
#[derive(Debug)]
pub(crate) struct ThreadReplicas(Vec<Replica>);

impl ThreadReplicas {
    /// Creates the replicas of `parameters`, for the current number of libtorch's threads.
    pub(crate) fn new(
        parameters: &Parameters,
        gradients: &GradientBuffer,
        group: &ProcessGroup,
        max_examples: usize,
    ) -> Result<Self, TrainError> {
        let config = parameters.policy.config();
        // The loss of routers is one of a whole micro-batch.
        let is_small = config.parameter_count() <= MAX_PARAMETERS && config.router_aux_loss_coef == 0.0;
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).min(max_examples / MIN_EXAMPLES);
        if !is_small || threads < 2 || group.is_distributed() || parameters.device() != Device::Cpu {
            return Ok(Self(Vec::new()));
        }
        let replica = |index| {
            let (policy, leaves) = parameters.replica(&gradients.leaves())?;
            Ok(gradients.replica(index, leaves).map(|gradients| Replica { policy, gradients }))
        };
        let replicas: Option<Vec<Replica>> = (0..threads).map(replica).collect::<Result<_, TrainError>>()?;
        Ok(Self(replicas.unwrap_or_default()))
    }

    /// Runs [`Objective::differentiate`] on several threads; returns `None` if intra-op threads suit `examples` better.
    pub(crate) fn differentiate(
        &mut self,
        objective: &dyn Objective,
        examples: &[usize],
        scale: f64,
        context: &BatchContext,
    ) -> Result<Option<StepStats>, TrainError> {
        let tokens: Vec<usize> = examples.iter().map(|&example| objective.tokens(example)).collect();
        let count = self.0.len().min(examples.len() / MIN_EXAMPLES);
        if count < 2 || tokens.iter().sum::<usize>() > MAX_TOKENS {
            return Ok(None);
        }
        let shards = balanced_shards(&tokens, count).into_iter();
        let shards = shards.map(|shard| shard.into_iter().map(|at| examples[at]).collect());
        let work: Vec<(&mut Replica, Vec<usize>)> = self.0.iter_mut().zip(shards).collect();
        let stats = torch_ext::parallel_map(work, |(replica, examples)| {
            let mut gradients = Gradients::new(&replica.gradients, None);
            objective.differentiate(&replica.policy, &examples, scale, context, &mut gradients)
        })?;
        // Also after a failure: no replica keeps a gradient for the next step.
        if let [first, others @ ..] = &mut self.0[..count] {
            for other in others {
                first.gradients.add_and_clear(&mut other.gradients)?;
            }
        }
        let stats = stats.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(stats.into_iter().reduce(StepStats::merge).map(|stats| in_order(stats, examples)))
    }
}

/// Sorts the deltas into the order of the examples.
fn in_order(mut stats: StepStats, examples: &[usize]) -> StepStats {
    stats.deltas.sort_by_key(|delta| examples.iter().position(|&example| example == delta.pair));
    stats
}
