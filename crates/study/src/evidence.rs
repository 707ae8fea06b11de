//! The power of a table's design, and the test of overfitting.

use experiment::{Analysis, LEVEL, Scorer, Subject, percent};
use stats::{
    Checkpoint, Over, Overfitting, OverfittingVerdict, Plan, Resamples, SeedsNeeded, Sign, judge_overfitting,
};

use crate::contrast::Contrast;
use crate::error::StudyError;

/// The power of minimum detectable effects and of required samples.
pub(crate) const POWER: f64 = 0.8;
/// The difference whose required number of seeds is printed.
const SMALL: f64 = 0.1;
/// The margin of equivalence: judging the same answers again changes a mean by as much.
pub(crate) const MARGIN: f64 = 0.2;
const RESAMPLES: usize = 2_000;

/// Returns a note on the minimum detectable effects of `comparisons`; `None` without comparisons.
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
        "Minimum detectable effect (80% power) with {} questions: {} points under {}, depending on the policy, over the \
         sampling of questions",
        design.questions,
        range(Over::Questions)?,
        analysis.spoken(scorer)
    );
    if design.seeds > 1 {
        note += &format!("; {} points over questions and seeds", range(Over::SeedsAndQuestions)?);
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
            note += &format!(". With these questions, a difference of {SMALL} requires {seeds} seeds");
        }
    }
    Ok(Some(note + "."))
}

/// Returns a note on the overfitting of one policy, whose checkpoint `at` is selected by `keep(_, at)`; `None` if the grid
/// lacks a checkpoint.
pub(crate) fn overfitting_note(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    policy: &str,
    keep: impl Fn(&Subject, usize) -> bool,
) -> Result<Option<String>, StudyError> {
    let mut checkpoints = Vec::new();
    for (at, &progress) in analysis.setup.train.checkpoints.iter().enumerate() {
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
        OverfittingVerdict::Degrades => "degrades without a falling loss",
        OverfittingVerdict::NoOverfitting => "no relevant overfitting",
        OverfittingVerdict::Undecided => "undecided",
    };
    let signed = |value: &f64, decimals: usize| format!("{value:+.decimals$}").replace('-', "−");
    format!(
        "{verdict} (peak at {}% of training minus final: {drop:.2}; largest drop from an earlier checkpoint between {} and {}, \
         margin {margin}; training loss {}{})",
        percent(*peak),
        signed(drop_low, 2),
        signed(drop_high, 2),
        signed(loss_change, 3),
        signs.iter().map(|sign| format!("; {}", sign_text(*sign))).collect::<String>()
    )
}

/// Returns the text of a sign of overfitting.
fn sign_text(sign: Sign) -> String {
    match sign {
        Sign::HeldOutMarginFell(by) => format!("held-out margin −{by:.3}"),
        Sign::HeldOutAccuracyFell(by) => format!("held-out accuracy −{by:.3}"),
        Sign::AnswersGrew(by) => format!("answers +{by:.0} characters"),
        Sign::KlGrew(by) => format!("KL +{by:.2} nats"),
    }
}
