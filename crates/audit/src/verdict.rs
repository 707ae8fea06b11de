//! The answer: one sentence, and the steps that help most.

use crate::enough::Enough;
use crate::fault::Fault;
use crate::learning_curve::Gain;
use crate::noise::NoiseEstimate;
use crate::result::Audit;

/// A share of one half of this many pairs has an interval of 10 points on either side.
const LEAST_PAIRS: usize = 100;
/// Shares of unusable pairs and unreadable rows up to this need no remark.
const FEW: f64 = 0.01;
/// The difference between the ends of a scale from 1 to 10.
const LARGEST_DIFFERENCE: f64 = 9.0;
/// A larger noise rate costs more than half of the information: (1 − 2ε)² < ½.
const MUCH_NOISE: f64 = 0.15;
/// From this area on, features that are not content decide many labels.
const STRONG_SHORTCUT: f64 = 0.65;
/// The number of pairs whose second label makes an estimate of the noise possible.
const SECOND_LABELS: usize = 300;

/// Returns whether the file is good enough, with the three numbers.
pub(crate) fn sentence(audit: &Audit) -> String {
    let unreadable = audit.contents.unreadable;
    let unusable = 1.0 - audit.usable_pairs as f64 / (audit.pairs + unreadable).max(1) as f64;
    let noise = audit.noise.first().filter(|noise| noise.method.identifies());
    let is_noisy = noise.is_some_and(|noise| noise.low > MUCH_NOISE);
    let is_short = shortcut(audit).is_some_and(|(_, low)| low > STRONG_SHORTCUT);
    let state = match (is_noisy, is_short) {
        _ if audit.usable_pairs == 0 => "Not usable",
        _ if audit.usable_pairs < LEAST_PAIRS => "Too few pairs for a verdict",
        (true, _) => "Not good enough, the labels are too noisy",
        (false, true) => "Usable with care, surface features predict the labels",
        _ if unusable > FEW => "Usable after cleaning",
        _ => "Usable",
    };
    let shows = match audit.detectable_effect {
        effect if effect > LARGEST_DIFFERENCE => "shows no difference, whatever its size".to_owned(),
        effect => format!("shows differences from {effect:.2} points on"),
    };
    format!(
        "{state}: {} of {} pairs, {}; {} {shows}.",
        audit.usable_pairs,
        audit.pairs,
        noise_in_words(audit.noise.first()),
        plan_in_words(audit),
    )
}

/// Returns the planned comparison in words.
pub(crate) fn plan_in_words(audit: &Audit) -> String {
    let plan = &audit.enough.plan;
    format!("a comparison with {} and {}", counted(plan.questions, "question"), counted(plan.seeds, "seed"))
}

fn noise_in_words(noise: Option<&NoiseEstimate>) -> String {
    match noise {
        None => "with unknown label noise".to_owned(),
        Some(noise) if noise.method.identifies() => {
            format!("with {:.0}% wrong labels", 100.0 * noise.estimate)
        }
        Some(noise) => format!("with unknown label noise (at most {:.0}%)", 100.0 * noise.high),
    }
}

/// Returns the strongest single feature that the layout does not decide, with the lower end of its interval.
fn shortcut(audit: &Audit) -> Option<(&'static str, f64)> {
    let real = audit.shortcuts.iter().filter(|shortcut| !shortcut.is_layout && shortcut.feature != "all");
    real.map(|shortcut| (shortcut.feature, shortcut.auc.low)).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Returns the two steps that help most, by the share of the pairs' information that each concerns.
pub(crate) fn advice(audit: &Audit) -> Vec<String> {
    let share = |count: usize| count as f64 / audit.pairs.max(1) as f64;
    let mut steps: Vec<(f64, String)> = Vec::new();
    let unusable = audit.pairs - audit.usable_pairs;
    if unusable > 0 {
        let leaked = audit.count(Fault::Leak) + audit.count(Fault::HeldOut);
        let reason = if leaked > 0 { ", also because it overlaps with the evaluation" } else { "" };
        // Overlap with the evaluation spoils more than its share.
        let weight = if leaked > 0 { 0.5 + share(unusable) } else { share(unusable) };
        let pairs = counted(unusable, "unusable pair");
        // Single responses cannot be written as pairs.
        let step = match audit.contents.unpaired {
            None => format!("`audit clean` removes {pairs}{reason}."),
            Some(_) => format!("Remove {pairs}{reason}."),
        };
        steps.push((weight, step));
    }
    match audit.noise.first().filter(|noise| noise.method.identifies()) {
        None => {
            let pairs = counted(SECOND_LABELS.min(audit.usable_pairs), "random pair");
            let text = format!("Label {pairs} a second time (`--second`): noise cannot be seen otherwise.");
            steps.push((0.3, text));
        }
        Some(noise) if noise.estimate > 0.02 => {
            let lost = 1.0 - (1.0 - 2.0 * noise.estimate).powi(2);
            let text = format!(
                "Relabel doubtful pairs, or train with a robust loss: noise of {:.0}% leaves {:.0}% of the information.",
                100.0 * noise.estimate,
                100.0 * (1.0 - lost)
            );
            steps.push((lost, text));
        }
        Some(_) => {}
    }
    if let Some((feature, low)) = shortcut(audit).filter(|(_, low)| *low > 0.55) {
        let text = format!(
            "Balance the pairs by {feature}, or correct for it in evaluation: it predicts labels by itself."
        );
        steps.push(((2.0 * low - 1.0).powi(2).max(0.05) + 0.1, text));
    }
    let excess = audit.detectable_effect / Enough::TARGET;
    if let Some((number, source)) = audit.enough.cheapest().filter(|_| excess > 1.0) {
        let text = format!("For differences of {} points plan {number} {source}.", Enough::TARGET);
        steps.push((0.25 * (1.0 - 1.0 / excess), text));
    }
    if let Some(curve) = audit.learning_curve.as_ref().filter(|curve| curve.last_doubling.low > 0.0) {
        let Gain { gain, low, .. } = curve.last_doubling;
        let text = format!(
            "Collect more pairs: with the last doubling of their number a proxy's accuracy rose by {:.1} points.",
            100.0 * gain
        );
        // The share of its errors that the doubling has surely removed.
        steps.push((low / (1.0 - curve.last().accuracy + gain).max(low), text));
    }
    for (fault, weight) in [(Fault::Truncated, 0.5), (Fault::Markup, 1.0), (Fault::NextTurn, 1.0)] {
        let count = audit.count(fault);
        if share(count) > 0.02 {
            steps.push((
                weight * share(count),
                format!("{} ({}).", fault.advice().trim_end_matches('.'), counted(count, "pair")),
            ));
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0));
    steps.into_iter().take(2).map(|(_, text)| text).collect()
}

/// Returns a number of things, with separated thousands.
pub(crate) fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
