//! Whether training went on for too long: a verdict with the criterion that gave it.

use serde::{Deserialize, Serialize};

use crate::distribution::{length, quantiles};
use crate::error::{check_finite, check_level};
use crate::{ClusteredScores, Error, Resamples};

/// Measurements of one checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// How much of training was done, such as 0.25.
    pub progress: f64,
    /// Mean training loss up to here, since the checkpoint before.
    pub training_loss: f64,
    /// The benchmark's scores, by question. All checkpoints have the same questions.
    pub scores: ClusteredScores,
    /// Mean reward margin on held-out pairs, β times nats.
    pub held_out_margin: Option<f64>,
    /// Share of held-out pairs whose chosen response has the larger reward.
    pub held_out_accuracy: Option<f64>,
    /// Mean length of the answers, in tokens or characters.
    pub answer_length: Option<f64>,
    /// KL divergence from the reference policy, in nats a response.
    pub kl: Option<f64>,
}

/// The result of an overfitting test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverfittingVerdict {
    /// The score fell from an earlier checkpoint to the last one by more than chance explains, while the training loss
    /// fell.
    Overfits,
    /// The score fell so, and the training loss did not fall: training is unstable, or its learning rate too high.
    Degrades,
    /// The score did not fall by the margin or more, from any checkpoint: overfitting that matters is excluded.
    NoOverfitting,
    /// Neither a fall nor its absence can be shown with these questions.
    Undecided,
}

/// A verdict with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overfitting {
    /// What follows.
    pub verdict: OverfittingVerdict,
    /// Progress of the checkpoint with the highest score.
    pub peak: f64,
    /// Score at the peak minus score at the end: 0 where the last checkpoint is the best.
    pub drop: f64,
    /// Lower end of the simultaneous interval of the largest provable drop.
    pub drop_low: f64,
    /// Upper end of the simultaneous interval of the largest possible drop.
    pub drop_high: f64,
    /// Confidence level of both together, over all checkpoints.
    pub level: f64,
    /// The margin below which a drop would not matter, in score points.
    pub margin: f64,
    /// Change of the training loss from the peak (from the first checkpoint, where the last one is the peak) to the end.
    pub loss_change: f64,
    /// Other signs, each from the peak to the end; they support the verdict and do not make it.
    pub signs: Vec<Sign>,
}

/// Something that often comes with overfitting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// The held-out reward margin fell by this much.
    HeldOutMarginFell(f64),
    /// The held-out accuracy fell by this much.
    HeldOutAccuracyFell(f64),
    /// Answers grew by this much.
    AnswersGrew(f64),
    /// The policy went this many nats further from the reference.
    KlGrew(f64),
}

/// Judges whether training overfits, from checkpoints in the order of training.
///
/// The criterion: overfitting is a fall of the score *while the training loss falls*. Testing the best checkpoint
/// against the last one has false positives, because the maximum of several noisy scores is biased upwards. The test
/// therefore compares all earlier checkpoints with the last one simultaneously. Differences are paired by question,
/// bootstrapped with the same resamples, and divided by their standard errors. The `level` quantile of the largest
/// absolute deviation is the simultaneous width in standard errors (max-t; Davison and Hinkley 1997, §4.2.4).
///
/// - [`Overfits`](OverfittingVerdict::Overfits) or [`Degrades`](OverfittingVerdict::Degrades): some interval is above
///   0.
/// - [`NoOverfitting`](OverfittingVerdict::NoOverfitting): all intervals lie below `margin`.
/// - [`Undecided`](OverfittingVerdict::Undecided): otherwise.
///
/// The result applies to one trained model. A claim about the training method needs several seeds.
///
/// # Errors
///
/// [`Error::TooFewClusters`] below two checkpoints; [`Error::UnpairedClusters`] where questions differ;
/// [`Error::ResampledClusters`]; [`Error::NotFinite`]; [`Error::Margin`]; [`Error::Level`].
///
/// ```
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{Checkpoint, ClusteredScores, OverfittingVerdict, Resamples, judge_overfitting};
///
/// let checkpoint = |progress: f64, training_loss: f64, mean: f64| Checkpoint {
///     progress,
///     training_loss,
///     scores: ClusteredScores::new((0..80).map(|q| (q, mean + (q % 5) as f64 / 4.0))).unwrap(),
///     held_out_margin: None,
///     held_out_accuracy: None,
///     answer_length: None,
///     kl: None,
/// };
/// // IPO on human preferences (Table 5 of the paper), as if every question moved with the mean.
/// let series = [checkpoint(0.25, 14.775, 6.669), checkpoint(0.5, 9.322, 4.677), checkpoint(1.0, 5.415, 5.484)];
/// let draws = Resamples::draw(80, 2_000, &mut ChaCha8Rng::seed_from_u64(0))?;
/// let found = judge_overfitting(&series, 0.1, 0.95, &draws)?;
/// assert_eq!(found.verdict, OverfittingVerdict::Overfits);
/// assert_eq!(found.peak, 0.25);
/// assert!(found.drop_low > 1.0);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn judge_overfitting(
    checkpoints: &[Checkpoint],
    margin: f64,
    level: f64,
    draws: &Resamples,
) -> Result<Overfitting, Error> {
    check_level(level)?;
    if !(margin > 0.0 && margin.is_finite()) {
        return Err(Error::Margin { margin });
    }
    let [first, .., last] = checkpoints else {
        return Err(Error::TooFewClusters { clusters: checkpoints.len() });
    };
    for checkpoint in checkpoints {
        check_finite(&[checkpoint.progress, checkpoint.training_loss])?;
        checkpoint.scores.check_paired(&last.scores)?;
    }
    let earlier = &checkpoints[..checkpoints.len() - 1];
    let columns: Vec<_> = checkpoints.iter().map(|checkpoint| checkpoint.scores.columns()).collect();
    let resampled = draws.means(&columns)?;
    let mean = |checkpoint: &Checkpoint| checkpoint.scores.mean().unwrap_or_default();
    let drops: Vec<f64> = earlier.iter().map(|checkpoint| mean(checkpoint) - mean(last)).collect();
    let deviations: Vec<Vec<f64>> = (0..earlier.len())
        .map(|k| {
            let pairs = resampled[k].iter().zip(&resampled[earlier.len()]);
            pairs.map(|(then, end)| then - end - drops[k]).collect()
        })
        .collect();
    let errors: Vec<f64> = deviations
        .iter()
        .map(|of| (of.iter().map(|value| value * value).sum::<f64>() / length(of.len())).sqrt())
        .collect();
    let width = simultaneous_width(&deviations, &errors, level);
    let bound = |sign: f64| {
        let ends = drops.iter().zip(&errors).map(|(drop, error)| drop + sign * width * error);
        ends.fold(f64::NEG_INFINITY, f64::max)
    };
    let (drop_low, drop_high) = (bound(-1.0), bound(1.0));
    let peak = checkpoints.iter().rev().max_by(|a, b| mean(a).total_cmp(&mean(b))).unwrap_or(last);
    let from = if std::ptr::eq(peak, last) { first } else { peak };
    let loss_change = last.training_loss - from.training_loss;
    let verdict = if drop_low > 0.0 {
        if loss_change < 0.0 { OverfittingVerdict::Overfits } else { OverfittingVerdict::Degrades }
    } else if drop_high < margin {
        OverfittingVerdict::NoOverfitting
    } else {
        OverfittingVerdict::Undecided
    };
    let drop = mean(peak) - mean(last);
    let (peak, signs) = (peak.progress, signs(from, last));
    Ok(Overfitting { verdict, peak, drop, drop_low, drop_high, level, margin, loss_change, signs })
}

/// Returns the simultaneous width of all differences in standard errors.
fn simultaneous_width(deviations: &[Vec<f64>], errors: &[f64], level: f64) -> f64 {
    let resamples = deviations.first().map_or(0, Vec::len);
    let mut largest: Vec<f64> = (0..resamples)
        .map(|b| {
            let standardised = deviations.iter().zip(errors).filter(|&(_, &error)| error > 0.0);
            standardised.map(|(of, error)| (of[b] / error).abs()).fold(0.0, f64::max)
        })
        .collect();
    let [width] = quantiles(&mut largest, [level]);
    width
}

fn signs(from: &Checkpoint, last: &Checkpoint) -> Vec<Sign> {
    let change = |field: fn(&Checkpoint) -> Option<f64>| Some(field(last)? - field(from)?);
    let fall = |field| change(field).filter(|&change| change < 0.0).map(|change| -change);
    let rise = |field| change(field).filter(|&change| change > 0.0);
    let signs = [
        fall(|checkpoint| checkpoint.held_out_margin).map(Sign::HeldOutMarginFell),
        fall(|checkpoint| checkpoint.held_out_accuracy).map(Sign::HeldOutAccuracyFell),
        rise(|checkpoint| checkpoint.answer_length).map(Sign::AnswersGrew),
        rise(|checkpoint| checkpoint.kl).map(Sign::KlGrew),
    ];
    signs.into_iter().flatten().collect()
}
