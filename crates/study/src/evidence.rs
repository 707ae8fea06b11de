//! The power of a table's design, the assay of its null results, and the test of overfitting.

use experiment::{LEVEL, Scorer, Selection, Subject, loss_name, percent};
use stats::{Assay, MeanEstimate, PlannedTest};
use trainer::HeldOutMetrics;
use trainer::recipe::LossKind;

use crate::claims::Comparisons;
use crate::contrast::{Contrast, Measurement};
use crate::error::StudyError;
use crate::results::Results;
use crate::verdict::SIGNIFICANT;

/// The power of minimum detectable effects and of required samples.
pub(crate) const POWER: f64 = 0.8;

/// Returns a note on the minimum detectable effects of `comparisons`; `None` without comparisons.
pub(crate) fn detectable(
    results: &Results<'_>,
    scorer: &Scorer,
    comparisons: &[Contrast<'_>],
) -> Result<Option<String>, StudyError> {
    let (analysis, margin) = (&results.scores, results.recipe.study.margin.get());
    let mut all: Vec<Measurement> = Vec::new();
    for contrast in comparisons {
        all.extend(contrast.measure(analysis, scorer, margin)?);
    }
    let Some(&(questions, seeds)) = all.first().map(|measurement| &measurement.size) else { return Ok(None) };
    let test = PlannedTest { level: LEVEL, power: POWER, comparisons: all.len() };
    let effects = all.iter().map(|measurement| test.minimum_detectable_effect(&measurement.estimate));
    let effects = effects.collect::<Result<Vec<_>, _>>().map_err(StudyError::stats("detectable effects"))?;
    let fold =
        |of: fn(f64, f64) -> f64| effects.iter().map(|effect| effect.value).reduce(of).unwrap_or_default();
    let (low, high) = (fold(f64::min), fold(f64::max));
    let range = if high - low < 0.005 { format!("{high:.2}") } else { format!("{low:.2} to {high:.2}") };
    let over = match seeds {
        1 => "for these very policies, over questions".to_owned(),
        seeds => format!("over questions and {seeds} seeds"),
    };
    Ok(Some(format!(
        "Minimum detectable effect (80% power) with {questions} questions: {range} points under {}, depending on the policy, {over}, \
         corrected for {} comparisons.",
        analysis.spoken(scorer),
        all.len()
    )))
}

/// Returns a note on the losses and annotators for which an absent effect is interpretable: the study sees the effect of
/// training on clean labels. `None` if the grid has no such policies.
pub(crate) fn assay_note(results: &Results<'_>, losses: &[LossKind]) -> Result<Option<String>, StudyError> {
    let (scorers, margin) = (results.scorers(), results.recipe.study.margin.get());
    let of = Comparisons::new(results, losses)?;
    let (mut seen, mut unseen) = (Vec::new(), Vec::new());
    for annotator in of.annotators() {
        for &loss in losses {
            let effect = of.training_effect(loss, annotator);
            let Some(measured) = effect.measure(&results.scores, &scorers.judge, margin)? else { continue };
            let name = format!("{} on {annotator} {}", loss_name(loss), signed(measured.estimate.value));
            match Assay::of(&measured.estimate, SIGNIFICANT) {
                Assay::Sensitive => seen.push(name),
                Assay::NotSensitive => unseen.push(name),
            }
        }
    }
    let mut note = String::new();
    if !seen.is_empty() {
        note += &format!("Assay: the gain of clean labels over SFT is seen for {}.", seen.join(", "));
    }
    if !unseen.is_empty() {
        note += &format!(
            " Not interpretable as “no effect”: the gain of clean labels over SFT is not seen for {}.",
            unseen.join(", ")
        );
    }
    Ok((!note.is_empty()).then(|| note.trim().to_owned()))
}

/// Returns a note on the overfitting of one policy, whose checkpoint `at` is selected by `keep(_, at)`; `None` if the grid
/// lacks a checkpoint.
pub(crate) fn overfitting_note(
    results: &Results<'_>,
    scorer: &Scorer,
    policy: &str,
    keep: impl Fn(&Subject, usize) -> bool,
) -> Result<Option<String>, StudyError> {
    let (analysis, margin) = (&results.scores, results.recipe.study.margin.get());
    let shares = &analysis.setup.train.checkpoints;
    if shares.len() < 2 {
        return Ok(None);
    }
    let keep = &keep;
    let checkpoints = (0..shares.len()).map(|at| -> Box<dyn Fn(&Subject) -> bool + '_> {
        Box::new(move |subject: &Subject| keep(subject, at))
    });
    let Some(fall) = Contrast::fall(checkpoints.collect()).measure(analysis, scorer, margin)? else {
        return Ok(None);
    };
    let last = shares.len() - 1;
    let peak = fall.fall_from.unwrap_or_default();
    let change = |of: &dyn Fn(Selection<'_>) -> Option<f64>| -> Option<f64> {
        Some(of(&|subject| keep(subject, last))? - of(&|subject| keep(subject, peak))?)
    };
    let loss = change(&|keep| analysis.training_loss(keep));
    let signs = [
        change(&|keep| analysis.held_out(keep, HeldOutMetrics::margin))
            .map(|by| format!("; held-out margin {}", signed_to(by, 3))),
        change(&|keep| analysis.held_out(keep, HeldOutMetrics::accuracy))
            .map(|by| format!("; held-out accuracy {}", signed_to(by, 3))),
        change(&|keep| analysis.mean_length(scorer, keep))
            .map(|by| format!("; answer length {} characters", signed_to(by, 0))),
        change(&|keep| analysis.held_out(keep, |metrics| metrics.kl))
            .map(|by| format!("; KL {} nats", signed_to(by, 2))),
    ];
    let verdict = match (fall.p < SIGNIFICANT, fall.not_lower < SIGNIFICANT, loss) {
        (true, true, _) => "falls by less than the margin",
        (true, false, Some(loss)) if loss < 0.0 => "overfits",
        (true, false, _) => "degrades without a falling loss",
        (false, true, _) => "no relevant overfitting",
        (false, false, _) => "undecided",
    };
    Ok(Some(format!(
        "{policy}: {verdict} (from {}% of training to the end {}{}, p of a fall from any checkpoint {:.3}, margin {margin}; training \
         loss {}{}).",
        percent(shares[peak]),
        signed(fall.estimate.value),
        interval(&fall.estimate, fall.level),
        fall.p,
        loss.map_or("unknown".to_owned(), |loss| signed_to(loss, 3)),
        signs.into_iter().flatten().collect::<String>()
    )))
}

fn interval(estimate: &MeanEstimate, level: f64) -> String {
    let interval = estimate.interval(level);
    interval
        .map_or(String::new(), |interval| format!(" [{}, {}]", signed(interval.low), signed(interval.high)))
}

/// Returns a value with its sign, if it has one after rounding.
pub(crate) fn signed(value: f64) -> String {
    signed_to(value, 2)
}

fn signed_to(value: f64, decimals: usize) -> String {
    let text = format!("{value:+.decimals$}");
    match text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
        true => text.replace('-', "−"),
        // A value that rounds to 0 has no sign.
        false => text[1..].to_owned(),
    }
}
