//! What stands behind a table: how small a difference its design can see, and whether training went on for too long.

use stats::{
    Checkpoint, Over, Overfitting, OverfittingVerdict, Plan, Resamples, SeedsNeeded, Sign, judge_overfitting,
};

use crate::analysis::{Analysis, LEVEL, Scorer};
use crate::cell::Subject;
use crate::contrast::Contrast;
use crate::error::StudyError;

/// The chance of finding a difference at which a design is called able to see it.
pub(crate) const POWER: f64 = 0.8;
/// The difference whose price in seeds is told.
const SMALL: f64 = 0.1;
/// A drop below this would not matter: judging the same answers again moves a mean by as much.
pub(crate) const MARGIN: f64 = 0.2;
const RESAMPLES: usize = 2_000;

/// The smallest differences that a table of `comparisons` would have found, as a note below it;
/// `None` where there is nothing to compare.
pub(crate) fn detectable(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    comparisons: &[Contrast<'_>],
) -> Result<Option<String>, StudyError> {
    let mut all = Vec::new();
    for contrast in comparisons {
        all.extend(contrast.components(analysis, scorer)?);
    }
    let Some(design) = all.first().map(|components| components.design) else { return Ok(None) };
    let failed = || StudyError::stats("detectable differences");
    let range = |over: Over| -> Result<String, StudyError> {
        let smallest = all.iter().map(|components| {
            let plan = Plan { variances: components.variances(), over, level: LEVEL };
            plan.minimal_detectable_difference(components.design, POWER)
        });
        let values = smallest.collect::<Result<Vec<f64>, _>>().map_err(failed())?;
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        Ok(if high - low < 0.005 { format!("{high:.2}") } else { format!("{low:.2} to {high:.2}") })
    };
    let mut note = format!(
        "What {} questions can show: a true difference of {} points (under {}, depending on the policy) is found four times \
         in five, if it is to hold on other questions",
        design.questions,
        range(Over::Questions)?,
        analysis.spoken(scorer)
    );
    if design.seeds > 1 {
        note += &format!("; of {}, if on other seeds too", range(Over::SeedsAndQuestions)?);
        let mut needed = Vec::new();
        for components in &all {
            let plan = Plan { variances: components.variances(), over: Over::Seeds, level: LEVEL };
            needed.push(plan.seeds_needed(SMALL, design, POWER).map_err(failed())?);
        }
        let most = needed.iter().map(|needed| match needed {
            SeedsNeeded::Seeds(seeds) => *seeds,
            SeedsNeeded::MoreQuestions { .. } => usize::MAX,
        });
        if let Some(seeds) = most.max().filter(|&seeds| seeds < usize::MAX) {
            note += &format!(". On these very questions a difference of {SMALL} would take {seeds} seeds");
        }
    }
    Ok(Some(note + "."))
}

/// The verdict on one policy's checkpoints, `keep(at)` selecting those after part `at` of training, as a note; `None`
/// where the grid does not hold them all.
pub(crate) fn overfitting_note(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    policy: &str,
    keep: impl Fn(&Subject, usize) -> bool,
) -> Result<Option<String>, StudyError> {
    let mut checkpoints = Vec::new();
    for (at, &progress) in analysis.recipe.train.checkpoints.iter().enumerate() {
        let keep = |subject: &Subject| keep(subject, at);
        let Some(training_loss) = analysis.training_loss(&keep) else { return Ok(None) };
        checkpoints.push(Checkpoint {
            progress,
            training_loss,
            scores: analysis.scores(scorer, &keep)?,
            held_out_margin: analysis.held_out(&keep, |metrics| Some(metrics.margin)),
            held_out_accuracy: analysis.held_out(&keep, |metrics| Some(metrics.accuracy)),
            answer_length: analysis.mean_length(scorer, &keep),
            kl: analysis.held_out(&keep, |metrics| metrics.kl),
        });
    }
    let Some(last) = checkpoints.last().filter(|last| checkpoints.len() > 1 && last.scores.clusters() > 1)
    else {
        return Ok(None);
    };
    let found = Resamples::draw(last.scores.clusters(), RESAMPLES, &mut analysis.rng())
        .and_then(|draws| judge_overfitting(&checkpoints, MARGIN, LEVEL, &draws));
    let found = found.map_err(StudyError::stats(format!("overfitting of {policy}")))?;
    Ok(Some(format!("{policy}: {}.", words(&found))))
}

fn words(found: &Overfitting) -> String {
    let Overfitting { verdict, peak, drop, drop_low, drop_high, margin, loss_change, signs, .. } = found;
    let verdict = match verdict {
        OverfittingVerdict::Overfits => "overfits",
        OverfittingVerdict::Degrades => "degrades, without a falling loss",
        OverfittingVerdict::NoOverfitting => "no overfitting that matters",
        OverfittingVerdict::Undecided => "undecided",
    };
    let signed = |value: &f64, decimals: usize| format!("{value:+.decimals$}").replace('-', "−");
    format!(
        "{verdict} (peak, at {}% of training, minus final {drop:.2}; the largest drop from an earlier checkpoint lies between {} \
         and {}, and {margin} would matter; training loss {}{})",
        crate::cell::percent(*peak),
        signed(drop_low, 2),
        signed(drop_high, 2),
        signed(loss_change, 3),
        signs.iter().map(|sign| format!("; {}", said(*sign))).collect::<String>()
    )
}

/// What often comes with overfitting, in words.
fn said(sign: Sign) -> String {
    match sign {
        Sign::HeldOutMarginFell(by) => format!("held-out margin −{by:.3}"),
        Sign::HeldOutAccuracyFell(by) => format!("held-out accuracy −{by:.3}"),
        Sign::AnswersGrew(by) => format!("answers +{by:.0} characters"),
        Sign::KlGrew(by) => format!("KL +{by:.2} nats"),
    }
}
