//! LD log-probabilities and WPO weights of a batch, from logits.

use tch::{IndexOp, Kind, Tensor};

use crate::sequence_logps::{check_device, check_kind, check_shape, compute_kind, to_host, token_logps};
use crate::{HeadError, LdAlpha};

/// Computes the length-desensitized log-probabilities of a batch of responses in nats, `[batch]`, with a graph to the
/// logits. See [`ld_logp`](crate::ld_logp).
///
/// `other_tokens` is the length of each response's partner. Sums are in f64 and rounded once.
///
/// ```
/// use pref_loss::{LdAlpha, ld_logps};
/// use tch::{Device, Kind, Tensor};
///
/// // Three scored tokens, each with probability 1/2; the partner has two.
/// let logits = Tensor::zeros([1, 4, 2], (Kind::Float, Device::Cpu));
/// let ids = Tensor::from_slice(&[0_i64, 1, 0, 1]).view([1, 4]);
/// let response = Tensor::from_slice(&[false, true, true, true]).view([1, 4]);
/// let logps = ld_logps(&logits, &ids, &response, &[2], LdAlpha::new(0.5)?)?;
/// assert!((logps.double_value(&[0]) - 2.5 * 0.5_f64.ln()).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// As [`sequence_logps`](crate::sequence_logps); `other_tokens` `[batch]`.
///
/// # Errors
/// As [`sequence_logps`](crate::sequence_logps); [`HeadError::Shape`] also if `other_tokens` has another length.
pub fn ld_logps(
    logits: &Tensor,
    ids: &Tensor,
    mask: &Tensor,
    other_tokens: &[u32],
    alpha: LdAlpha,
) -> Result<Tensor, HeadError> {
    let logps = token_logps(logits, &scored_ids(ids, mask)?)?;
    let others: Vec<i64> = other_tokens.iter().copied().map(i64::from).collect();
    let others = Tensor::from_slice(&others).to_device(logits.device());
    check_shape("the partners' token counts", &others, &ids.size()[..1])?;
    let scored = mask.i((.., 1..));
    let shared = scored.cumsum(1, Kind::Int64).le_tensor(&others.unsqueeze(1));
    let weight = shared.to_kind(Kind::Double) * (1.0 - alpha.get()) + alpha.get();
    // Not a product with the mask: 0 · NaN from padding is NaN.
    let weighted = (logps.to_kind(Kind::Double) * weight).masked_fill(&scored.logical_not(), 0.0);
    Ok(weighted.sum_dim_intlist(1, false, Kind::Double).to_kind(logps.kind()))
}

/// Computes WPO's weight of every response, `[batch]`, without a graph. See
/// [`WpoTokens::weight`](crate::WpoTokens::weight). A pair's weight is the product of the weights of its responses.
///
/// ```
/// use pref_loss::wpo_weights;
/// use tch::{Device, Kind, Tensor};
///
/// // A model that knows nothing: every token is as likely as what it would draw.
/// let logits = Tensor::zeros([1, 3, 5], (Kind::Float, Device::Cpu));
/// let ids = Tensor::from_slice(&[0_i64, 4, 2]).view([1, 3]);
/// let response = Tensor::from_slice(&[false, true, true]).view([1, 3]);
/// let weights = wpo_weights(&logits, &ids, &response)?;
/// assert!((weights.double_value(&[0]) - 1.0).abs() < 1e-6);
/// # Ok::<(), pref_loss::HeadError>(())
/// ```
///
/// # Shapes
/// As [`sequence_logps`](crate::sequence_logps).
///
/// # Errors
/// As [`sequence_logps`](crate::sequence_logps), and [`HeadError::NothingScored`] for a sequence without a scored
/// token.
pub fn wpo_weights(logits: &Tensor, ids: &Tensor, mask: &Tensor) -> Result<Tensor, HeadError> {
    let _guard = tch::no_grad_guard();
    let logps = token_logps(logits, &scored_ids(ids, mask)?)?;
    let scored = mask.i((.., 1..));
    let counts = scored.sum_dim_intlist(1, false, Kind::Int64);
    if let Some(&sequence) = to_host(&counts.eq(0).nonzero()).first() {
        return Err(HeadError::NothingScored { sequence: sequence as usize });
    }
    let steps = ids.size()[1] - 1;
    let log_softmax = logits.narrow(1, 0, steps).log_softmax(-1, compute_kind(logits.kind()));
    let log_collisions = (log_softmax * 2.0).logsumexp(-1, false);
    let excess = (logps - log_collisions).to_kind(Kind::Double).masked_fill(&scored.logical_not(), 0.0);
    let mean = excess.sum_dim_intlist(1, false, Kind::Double) / counts;
    Ok(mean.exp().to_kind(compute_kind(logits.kind())))
}

/// Returns the ids with 0 at unscored tokens, which may have any value.
fn scored_ids(ids: &Tensor, mask: &Tensor) -> Result<Tensor, HeadError> {
    check_kind("mask", mask, &[Kind::Bool])?;
    check_shape("mask", mask, &ids.size())?;
    check_device("mask", mask, ids.device())?;
    if ids.dim() == 2
        && ids.size()[1] > 0
        && let Some(&sequence) = to_host(&mask.i((.., 0)).nonzero()).first()
    {
        return Err(HeadError::FirstToken { sequence: sequence as usize });
    }
    Ok(ids.masked_fill(&mask.logical_not(), 0))
}
