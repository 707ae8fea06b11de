//! A sentence on each pattern: where it arises, and what else changes there.

use experiment::{Analysis, Scorer, Selection};
use trainer::HeldOutMetrics;

use super::{Condition, Line, Map, Mark, Marked, Pattern};
use crate::contrast::Select;

/// A measurement of policies that may explain a pattern.
struct Sign {
    name: &'static str,
    unit: &'static str,
    decimals: usize,
    of: fn(&Analysis<'_>, &Scorer, Selection<'_>) -> Option<f64>,
}

const SIGNS: [Sign; 4] = [
    Sign {
        name: "KL from the reference",
        unit: " nats",
        decimals: 1,
        of: |analysis, _, keep| analysis.held_out(keep, |metrics| metrics.kl),
    },
    Sign {
        name: "held-out accuracy",
        unit: "",
        decimals: 3,
        of: |analysis, _, keep| analysis.held_out(keep, HeldOutMetrics::accuracy),
    },
    Sign {
        name: "flipped labels that the policy has learned",
        unit: "%",
        decimals: 0,
        of: |analysis, _, keep| Some(100.0 * analysis.labels(keep)?.flipped.accuracy()?),
    },
    Sign {
        name: "answer length",
        unit: " characters",
        decimals: 0,
        of: |analysis, judge, keep| analysis.mean_length(judge, keep),
    },
];

/// A place of the map: a line and a condition.
type Place = (Line, Condition);

/// Returns a sentence or more on each pattern, and one on the paper's combination of them.
pub(crate) fn sentences(
    map: &Map<'_>,
    marked: &Marked,
    analysis: &Analysis<'_>,
    judge: &Scorer,
) -> Vec<String> {
    let mut all: Vec<String> = Pattern::ALL
        .into_iter()
        .filter_map(|pattern| sentence(map, marked, (analysis, judge), pattern))
        .collect();
    all.push(paper(map, marked));
    all
}

fn sentence(
    map: &Map<'_>,
    marked: &Marked,
    (analysis, judge): (&Analysis<'_>, &Scorer),
    pattern: Pattern,
) -> Option<String> {
    let places = |mark: Mark| marked.places(map, pattern, mark);
    let counts = Mark::ALL.map(|mark| places(mark).len());
    let all: usize = counts.iter().sum();
    if all == 0 {
        return None;
    }
    let [arises, absent, insensitive, too_small, undecided] = counts;
    let mut words = format!("“{}” arises in {arises} of {all} places", pattern.says());
    if arises > 0 {
        words += &format!(" ({})", listed(map, &places(Mark::Arises)));
    }
    words += &format!(", and does not in {absent}");
    let unseen = [
        (insensitive, "the gain of clean labels over SFT is not seen"),
        (too_small, "the minimum detectable effect is above the margin"),
        (undecided, "neither is shown"),
    ];
    let unseen: Vec<String> = unseen
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, why)| format!("in {count} {why}"))
        .collect();
    if !unseen.is_empty() {
        words += &format!("; {}", unseen.join(", "));
    }
    words += ".";
    for (mark, opening) in [(Mark::Arises, "Where it arises"), (Mark::Absent, "Where it does not")] {
        let changes = changes(map, (analysis, judge), &places(mark));
        if !changes.is_empty() {
            words += &format!(" {opening}, {}: {}.", pattern.change(), changes.join(", "));
        }
    }
    Some(words)
}

/// Returns the places by policy, such as `IPO, sum: 3e-4 with 6 epochs, 1e-3 with 1 epoch and 6 epochs`.
fn listed(map: &Map<'_>, places: &[Place]) -> String {
    let lines = map.lines.iter().filter(|line| places.iter().any(|(of, _)| of == *line));
    let of_line = |line: &Line| {
        let found: Vec<Condition> = places.iter().filter(|(of, _)| of == line).map(|(_, at)| *at).collect();
        let name = line.name();
        match found.len() == map.conditions.len() {
            true => format!("{name}: everywhere"),
            false => format!("{name}: {}", by_rate(map, &found)),
        }
    };
    lines.map(of_line).collect::<Vec<_>>().join("; ")
}

fn by_rate(map: &Map<'_>, found: &[Condition]) -> String {
    let rates = &map.recipe.study.map.learning_rates;
    let of_rate = |rate: &f64| {
        let epochs = found.iter().filter(|at| at.learning_rate == *rate).map(|at| at.epochs_in_words());
        let epochs: Vec<String> = epochs.collect();
        (!epochs.is_empty()).then(|| format!("{rate:e} with {}", epochs.join(" and ")))
    };
    rates.iter().filter_map(of_rate).collect::<Vec<_>>().join(", ")
}

/// Returns the mean change of each sign over places.
fn changes(map: &Map<'_>, (analysis, judge): (&Analysis<'_>, &Scorer), places: &[Place]) -> Vec<String> {
    let compared: Vec<[Select<'_>; 2]> =
        places.iter().map(|(line, condition)| map.compared(*line, *condition)).collect();
    let change = |Sign { name, unit, decimals, of }: &Sign| {
        let mean = |side: usize| {
            let values: Vec<f64> =
                compared.iter().filter_map(|sides| of(analysis, judge, &*sides[side])).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        match (mean(0), mean(1)) {
            (Some(before), Some(after)) => {
                Some(format!("{name} {before:.decimals$} → {after:.decimals$}{unit}"))
            }
            (None, Some(after)) => Some(format!("{name} {after:.decimals$}{unit}")),
            _ => None,
        }
    };
    SIGNS.iter().filter_map(change).collect()
}

/// Returns where all of the paper's findings hold together, for each of IPO's reductions.
fn paper(map: &Map<'_>, marked: &Marked) -> String {
    let mut found = Vec::new();
    for condition in &map.conditions {
        for &reduction in &map.recipe.study.map.logp_reductions {
            let holds = map.lines.iter().all(|line| {
                let Some(expected) = line.in_the_paper(reduction) else { return true };
                let mark = marked.at(map, line, condition);
                mark.is_some_and(|mark| (mark == Mark::Arises) == expected)
            });
            if holds {
                let name = experiment::reduction_name(reduction);
                let (rate, epochs) = (condition.learning_rate, condition.epochs_in_words());
                found.push(format!("learning rate {rate:e}, {epochs}, IPO by {name}"));
            }
        }
    }
    let says = "The paper's findings together (DPO is unharmed by flips and is not seen to overfit, IPO falls with volume and \
                overfits, cDPO is not seen to beat DPO)";
    match found.is_empty() {
        true => format!("{says} hold nowhere in this map."),
        false => format!("{says} hold at {}.", found.join("; ")),
    }
}
