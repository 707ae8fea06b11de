//! A mixture of experts in place of the feed-forward block.

use tch::{Kind, Tensor};

use crate::error::PolicyError;
use crate::feed_forward::FeedForward;
use crate::linear::LinearPass;

/// A router and feed-forward blocks, of which each token passes through a few
/// ([Shazeer et al. 2017](https://arxiv.org/abs/1701.06538)).
#[derive(Debug)]
pub(crate) struct Mixture {
    /// `[experts, hidden]`
    pub(crate) router: Tensor,
    pub(crate) experts: Vec<FeedForward>,
    /// The number of experts of a token.
    pub(crate) per_token: i64,
    /// Whether the weights of a token's experts add up to 1.
    pub(crate) normalizes: bool,
    /// Whether these weights are rounded to the kind of the states before the product.
    pub(crate) rounds_weights: bool,
}

impl Mixture {
    /// Applies the block to normed states `[N, hidden]`.
    ///
    /// Each expert computes all of its tokens at once. A token's results are added in the order of the experts.
    pub(crate) fn forward(&self, x: &Tensor, pass: LinearPass<'_>) -> Result<Tensor, PolicyError> {
        let logits = pass.kernel.linear(x, &self.router, None)?;
        let probabilities = logits.softmax(-1, Kind::Float);
        if let Some((routing, layer)) = pass.routing {
            routing.record(layer, &probabilities);
        }
        let (weights, chosen) = probabilities.topk(self.per_token, -1, true, true);
        let weights = match self.normalizes {
            true => &weights / weights.sum_dim_intlist([-1].as_slice(), true, Kind::Float),
            false => weights,
        };
        let weights = if self.rounds_weights { weights.to_kind(x.kind()) } else { weights };

        let chosen = chosen.flatten(0, -1);
        let order = chosen.argsort_stable(true, 0, false);
        let tokens = order.floor_divide_scalar(self.per_token);
        let counts = chosen.bincount(None::<&Tensor>, self.experts.len() as i64);
        let counts = Vec::<i64>::try_from(counts).expect("counts are one-dimensional i64");
        let inputs = x.index_select(0, &tokens).split_with_sizes(counts.as_slice(), 0);
        let outputs = self.experts.iter().zip(&inputs).zip(&counts).filter(|(_, count)| **count > 0);
        let outputs = outputs.map(|((expert, input), _)| expert.forward(input, pass));
        let outputs = Tensor::cat(&outputs.collect::<Result<Vec<_>, _>>()?, 0);
        let weights = weights.flatten(0, -1).index_select(0, &order).unsqueeze(-1);
        let weighted = (outputs * weights).to_kind(x.kind());
        Ok(x.zeros_like().index_add(0, &tokens, &weighted))
    }
}
