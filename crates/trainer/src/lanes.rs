//! Parts of a micro-batch that go through a small policy beside each other, each on a thread of its own.
//!
//! libtorch shares every operation out over its threads. Where texts are short and a policy is small, an operation takes
//! microseconds, and threads wait for each other as long as they compute. There each takes some of the examples from end to
//! end instead, and adds their gradient to a buffer of its own. What comes of it differs from what threads compute together as
//! it does from other micro-batches: by rounding.

use pref_data::rank_shares;
use pref_loss::KlEstimate;
use tch::Device;

use crate::TrainError;
use crate::distributed::World;
use crate::objective::{Measured, Objective};
use crate::parameters::{Gradients, Lane, Parameters};

/// The numbers of a policy that is small; each thread has a gradient of it.
const MOST_PARAMETERS: u64 = 1 << 20;

/// The tokens of a micro-batch up to which operations on a small policy are short.
const MOST_TOKENS: usize = 1024;

/// The fewest examples of a part: with less to do than that, a thread is busy with calls.
const FEWEST_EXAMPLES: usize = 2;

/// A lane for each thread: none where one computes, and where no micro-batch is worth it.
#[derive(Debug)]
pub(crate) struct Lanes(Vec<Lane>);

impl Lanes {
    /// For the policy and the gradient of `parameters`, with libtorch's threads as they are now.
    pub(crate) fn new(
        parameters: &Parameters,
        world: &World,
        most_examples: usize,
    ) -> Result<Self, TrainError> {
        let is_small = parameters.policy.config().parameter_count() <= MOST_PARAMETERS;
        let threads =
            usize::try_from(tch::get_num_threads()).unwrap_or(1).min(most_examples / FEWEST_EXAMPLES);
        if !is_small || threads < 2 || world.is_several() || parameters.device() != Device::Cpu {
            return Ok(Self(Vec::new()));
        }
        let whole = &parameters.gradients.flat;
        // The first adds to the whole at once.
        let gathered =
            (0..threads).map(|lane| if lane == 0 { whole.shallow_clone() } else { whole.zeros_like() });
        Ok(Self(gathered.map(|gathered| parameters.lane(gathered)).collect::<Result<_, _>>()?))
    }

    /// [`Objective::differentiate`] of `examples`, on several threads; `None` where they are better off together.
    pub(crate) fn differentiate(
        &mut self,
        objective: &dyn Objective,
        examples: &[usize],
        scale: f64,
        baseline: KlEstimate,
    ) -> Result<Option<Measured>, TrainError> {
        let tokens: Vec<usize> = examples.iter().map(|&example| objective.tokens(example)).collect();
        let parts = self.0.len().min(examples.len() / FEWEST_EXAMPLES);
        if parts < 2 || tokens.iter().sum::<usize>() > MOST_TOKENS {
            return Ok(None);
        }
        let shares = rank_shares(&tokens, parts).into_iter();
        let shares = shares.map(|share| share.into_iter().map(|at| examples[at]).collect());
        let work: Vec<(&mut Lane, Vec<usize>)> = self.0.iter_mut().zip(shares).collect();
        let measured = torch_ext::parallel_map(work, |(lane, examples)| {
            let mut done = |_: &_| ();
            let mut gradients = Gradients::new(&lane.gradients, &mut done);
            objective.differentiate(&lane.policy, &examples, scale, baseline, &mut gradients)
        })?;
        // Also where a part failed: none keeps a gradient for the next step.
        if let [whole, others @ ..] = &mut self.0[..parts] {
            others.iter_mut().try_for_each(|lane| whole.gradients.take_in(&mut lane.gradients))?;
        }
        let measured = measured.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(measured.into_iter().reduce(Measured::and).map(|measured| in_order(measured, examples)))
    }
}

/// With Δ in the order of the examples.
fn in_order(mut measured: Measured, examples: &[usize]) -> Measured {
    measured.deltas.sort_by_key(|delta| examples.iter().position(|&example| example == delta.pair));
    measured
}
