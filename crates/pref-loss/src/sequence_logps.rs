//! From logits to the log-probabilities of tokens and sequences, with autograd.

use tch::{Device, IndexOp, Kind, Tensor};

use crate::HeadError;

/// Log-probabilities of sequences, with the number of tokens in each sum.
#[derive(Debug)]
pub struct SequenceLogps {
    /// log π(scored tokens | context) of every sequence, in nats, `[batch]`: float32, or float64 from float64 logits.
    /// 0 for a sequence without scored tokens.
    pub sums: Tensor,
    /// Scored tokens of every sequence.
    pub tokens: Vec<u32>,
}

/// Computes the log-probability of every token except the first of each sequence, `[batch, len - 1]`. Element `[i,
/// t]` belongs to token `t + 1`, which the logits at `t` predict. Float32, or float64 from float64 logits; NaN logits
/// give NaN.
///
/// ```
/// use pref_loss::token_logps;
/// use tch::{Device, Kind, Tensor};
///
/// // Four tokens, all equally likely.
/// let logits = Tensor::zeros([1, 3, 4], (Kind::Float, Device::Cpu));
/// let ids = Tensor::from_slice(&[0_i64, 3, 1]).view([1, 3]);
/// let logps = token_logps(&logits, &ids)?;
/// assert_eq!(logps.size(), [1, 2]);
/// assert!((logps.double_value(&[0, 1]) + 4.0_f64.ln()).abs() < 1e-6);
/// # Ok::<(), pref_loss::HeadError>(())
/// ```
///
/// # Shapes
/// `logits` `[batch, len, vocab]` of any float kind; `ids` `[batch, len]` i64.
///
/// # Errors
/// [`HeadError::Shape`], [`HeadError::Kind`], [`HeadError::Device`]; [`HeadError::Target`] if an id other than the
/// first of a sequence is not in the vocabulary. The check synchronizes with the device.
pub fn token_logps(logits: &Tensor, ids: &Tensor) -> Result<Tensor, HeadError> {
    let (_, len, vocab) = check_logits(logits, ids)?;
    let steps = (len - 1).max(0);
    let targets = ids.narrow(1, len - steps, steps);
    check_targets(&targets.reshape([-1]), vocab)?;
    Ok(pick(&logits.narrow(1, 0, steps), &targets))
}

/// Sums the log-probabilities of masked tokens by sequence.
///
/// Logits of unscored tokens are never read: neither their log-softmax nor its gradient is computed. Sums are in f64
/// and rounded once, for every kind of logits.
///
/// ```
/// use pref_loss::sequence_logps;
/// use tch::{Device, Kind, Tensor};
///
/// // One sequence: a prompt of one token, a response of two, and padding. The model knows nothing: p = 1/4.
/// let logits = Tensor::zeros([1, 4, 4], (Kind::BFloat16, Device::Cpu)).set_requires_grad(true);
/// let ids = Tensor::from_slice(&[3_i64, 1, 2, 0]).view([1, 4]);
/// let response = Tensor::from_slice(&[false, true, true, false]).view([1, 4]);
/// let logps = sequence_logps(&logits, &ids, &response)?;
/// assert_eq!(logps.tokens, [2]);
/// assert!((logps.sums.double_value(&[0]) - 2.0 * 0.25_f64.ln()).abs() < 1e-6);
/// logps.sums.sum(Kind::Float).backward();
/// assert_eq!(logits.grad().double_value(&[0, 0, 1]), 0.75);
/// # Ok::<(), pref_loss::HeadError>(())
/// ```
///
/// # Shapes
/// `logits` `[batch, len, vocab]` of any float kind; `ids` `[batch, len]` i64; `mask` `[batch, len]` bool, true at the
/// *tokens* to score (not at the logits before them).
///
/// # Errors
/// [`HeadError::Shape`], [`HeadError::Kind`], [`HeadError::Device`]; [`HeadError::FirstToken`] if the mask covers the
/// first token of a sequence; [`HeadError::Target`] if a scored id is not in the vocabulary. Unscored ids may have
/// any value. NaN propagates to the sum of its sequence. The checks of mask and ids synchronize with the device.
pub fn sequence_logps(logits: &Tensor, ids: &Tensor, mask: &Tensor) -> Result<SequenceLogps, HeadError> {
    let (batch, _, _) = check_logits(logits, ids)?;
    check_kind("mask", mask, &[Kind::Bool])?;
    check_shape("mask", mask, &ids.size())?;
    check_device("mask", mask, ids.device())?;
    let scored = mask.nonzero();
    let (sequence, token) = (scored.i((.., 0)), scored.i((.., 1)));
    let first = to_host(&sequence.masked_select(&token.eq(0)));
    if let Some(&sequence) = first.first() {
        return Err(HeadError::FirstToken { sequence: sequence as usize });
    }
    let sums = sums_at(logits, ids, &sequence, &token)?;
    let mut tokens = vec![0; batch as usize];
    to_host(&sequence).into_iter().for_each(|sequence| tokens[sequence as usize] += 1);
    Ok(SequenceLogps { sums, tokens })
}

fn sums_at(logits: &Tensor, ids: &Tensor, sequence: &Tensor, token: &Tensor) -> Result<Tensor, HeadError> {
    let (batch, len, vocab) = check_logits(logits, ids)?;
    let place: Tensor = sequence * len + token;
    let targets = ids.reshape([-1]).index_select(0, &place);
    check_targets(&targets, vocab)?;
    let logps = pick(&logits.reshape([-1, vocab]).index_select(0, &(place - 1)), &targets);
    // In f64 the nondeterministic order of additions on a GPU vanishes in the final rounding.
    let sums = Tensor::zeros([batch], (Kind::Double, logits.device()));
    Ok(sums.index_add(0, sequence, &logps.to_kind(Kind::Double)).to_kind(logps.kind()))
}

/// Computes the log-softmax at the targets, in `compute_kind`.
fn pick(logits: &Tensor, targets: &Tensor) -> Tensor {
    let logps = logits.log_softmax(-1, compute_kind(logits.kind()));
    logps.gather(-1, &targets.unsqueeze(-1), false).squeeze_dim(-1)
}

/// Returns the kind of log-softmax and sums: bfloat16 has only two or three digits.
pub(crate) fn compute_kind(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}

const FLOATS: [Kind; 4] = [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half];

fn check_logits(logits: &Tensor, ids: &Tensor) -> Result<(i64, i64, i64), HeadError> {
    let size = logits.size();
    let &[batch, len, vocab] = &size[..] else {
        let expected = "[batch, len, vocab]".to_owned();
        return Err(HeadError::Shape { tensor: "logits", expected, found: size });
    };
    check_float("logits", logits)?;
    check_kind("ids", ids, &[Kind::Int64])?;
    check_shape("ids", ids, &[batch, len])?;
    check_device("ids", ids, logits.device())?;
    Ok((batch, len, vocab))
}

/// Returns an error for ids outside of `0..vocab`, which would read past the logits.
pub(crate) fn check_targets(targets: &Tensor, vocab: i64) -> Result<(), HeadError> {
    let targets = to_host(targets);
    match targets.iter().position(|target| !(0..vocab).contains(target)) {
        None => Ok(()),
        Some(index) => Err(HeadError::Target { index, id: targets[index], vocab }),
    }
}

pub(crate) fn check_float(tensor: &'static str, given: &Tensor) -> Result<(), HeadError> {
    check_kind(tensor, given, &FLOATS)
}

pub(crate) fn check_kind(tensor: &'static str, given: &Tensor, allowed: &[Kind]) -> Result<(), HeadError> {
    if allowed.contains(&given.kind()) {
        return Ok(());
    }
    let expected = allowed.iter().map(|kind| format!("{kind:?}")).collect::<Vec<_>>().join(" or ");
    Err(HeadError::Kind { tensor, expected, found: format!("{:?}", given.kind()) })
}

pub(crate) fn check_shape(tensor: &'static str, given: &Tensor, expected: &[i64]) -> Result<(), HeadError> {
    if given.size() == expected {
        return Ok(());
    }
    Err(HeadError::Shape { tensor, expected: format!("{expected:?}"), found: given.size() })
}

pub(crate) fn check_device(tensor: &'static str, given: &Tensor, expected: Device) -> Result<(), HeadError> {
    if given.device() == expected {
        return Ok(());
    }
    let (expected, found) = (format!("{expected:?}"), format!("{:?}", given.device()));
    Err(HeadError::Device { tensor, expected, found })
}

pub(crate) fn to_host(ids: &Tensor) -> Vec<i64> {
    Vec::try_from(ids.reshape([-1])).expect("a flat tensor of i64 converts")
}
