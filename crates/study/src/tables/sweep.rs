//! The sweep over β as a table, and Tables 8, 9 and the tuned columns of 5 at the β that it chooses.

use report::table::{Align, Column, Table, Value};
use stats::Estimate;

use super::{DECIMALS, Slice, is_baseline, mean_value};
use crate::analysis::{Analysis, Scorer, Scorers};
use crate::cell::{Subject, loss_name, percent};
use crate::error::StudyError;
use crate::sweep::{Chosen, Curve, Optimum, Setting, annotator, by_accuracy, by_score};

/// Scores, accuracy on held-out preferences, KL and length at every β of every setting.
pub(crate) fn sweep(analysis: &Analysis<'_>) -> Result<Table, StudyError> {
    let scorers = Scorers::of(analysis.recipe);
    let shown = scorers.shown();
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for setting in Setting::all() {
        let (accuracy, score) = (by_accuracy(analysis, setting), by_score(analysis, setting)?);
        for (at, &beta) in analysis.recipe.study.sweep_betas.iter().enumerate() {
            let keep = |subject: &Subject| setting.holds(analysis, subject, beta);
            let chosen: Vec<&str> = [(accuracy, "held-out accuracy"), (score, "judge")]
                .into_iter()
                .filter(|(chosen, _)| *chosen == Some(beta))
                .map(|(_, by)| by)
                .collect();
            let mut row = vec![
                Value::text(if at == 0 { name(setting) } else { String::new() }),
                Value::text(beta.get().to_string()),
                number(analysis.held_out(&keep, |metrics| Some(metrics.accuracy)), 3),
                number(analysis.held_out(&keep, |metrics| metrics.kl), 2),
                number(analysis.mean_length(&scorers.judge, &keep), 1),
            ];
            for scorer in &shown {
                row.push(mean_value(analysis, scorer, &keep)?);
            }
            row.push(Value::text(chosen.join(", ")));
            rows.push(row);
        }
        notes.extend(setting_notes(analysis, &scorers, setting)?);
    }
    notes.insert(0, analysis.interval_note());
    notes.push(format!(
        "All on the preferences of {}. Held-out accuracy: share of pairs that were not trained on whose preferred response gained \
         more over the reference; of equal values the largest β is chosen. KL: nats an answer from the reference. Length: \
         characters an answer.",
        annotator(&analysis.recipe.study)
    ));
    Ok(Table {
        id: "table-sweep".into(),
        title: "The sweep over β".into(),
        columns: [("Setting", Align::Left), ("β", Align::Right), ("Held-out accuracy", Align::Right)]
            .into_iter()
            .chain([("KL", Align::Right), ("Length", Align::Right)])
            .chain(shown.iter().map(|scorer| (scorer.title.as_str(), Align::Right)))
            .chain([("Chosen by", Align::Left)])
            .map(|(title, align)| Column::new(title, align))
            .collect(),
        rows,
        notes,
    })
}

/// A setting in words: `DPO, 5% flipped`.
pub(crate) fn name(setting: Setting) -> String {
    let Setting { loss, flip_rate } = setting;
    match flip_rate.get() {
        0.0 => loss_name(loss).to_owned(),
        rate => format!("{}, {}% flipped", loss_name(loss), percent(rate)),
    }
}

/// How optimistic a choice by the score itself is, and whether the best β lies between the ends.
fn setting_notes(
    analysis: &Analysis<'_>,
    scorers: &Scorers,
    setting: Setting,
) -> Result<Option<String>, StudyError> {
    let Some(judged) = Curve::of(analysis, &scorers.judge, setting)? else { return Ok(None) };
    let optimism = judged.optimism(analysis);
    let mut note = format!(
        "{}: the β with the best score on half of the questions has {:.2} there and {:.2} on the other half, so that {:.2} of a \
         score that chose its own β is optimism (at half as many questions as here).",
        name(setting),
        optimism.on_the_same,
        optimism.on_others,
        optimism.on_the_same - optimism.on_others
    );
    let (curve, what) = match &scorers.gold {
        Some([_, beyond]) => (Curve::of(analysis, beyond, setting)?, "gold on further questions"),
        None => (Some(judged), "the judge"),
    };
    if let Some(curve) = curve {
        let optimum = curve.optimum()?;
        note += &format!(
            " By {what} {}{}.",
            optimum_in_words(&optimum),
            at_the_edge(analysis, setting, &optimum)
        );
    }
    Ok(Some(note))
}

/// Why the best β is the smallest, where it is: how far from the reference the weakest pull has let the policy go.
fn at_the_edge(analysis: &Analysis<'_>, setting: Setting, optimum: &Optimum) -> String {
    let smallest =
        analysis.recipe.study.sweep_betas.iter().copied().min_by(|a, b| a.get().total_cmp(&b.get()));
    let (Optimum::Edge { at }, Some(smallest)) = (optimum, smallest) else { return String::new() };
    let kl = analysis.held_out(&|s| setting.holds(analysis, s, smallest), |metrics| metrics.kl);
    match kl.filter(|_| *at == smallest) {
        Some(kl) => format!(
            "; with so little pull training ends {kl:.2} nats from the reference and the score still rises up to there: these runs \
             are too short to go too far, which is what a larger β would prevent"
        ),
        None => String::new(),
    }
}

fn optimum_in_words(optimum: &Optimum) -> String {
    let over = |[low, high]: &[Estimate; 2]| {
        format!("over the smallest {} and over the largest {}", gain(low), gain(high))
    };
    match optimum {
        Optimum::Interior { at, over_ends } => {
            format!(
                "there is an interior optimum: β = {}, chosen on half of the questions, gains on the others {}",
                at.get(),
                over(over_ends)
            )
        }
        Optimum::Edge { at } => format!(
            "there is no interior optimum among these values: the best is β = {}, at the edge of the range",
            at.get()
        ),
        Optimum::Flat { at, over_ends } => format!(
            "no interior optimum is distinguishable: β = {}, chosen on half of the questions, gains on the others {}",
            at.get(),
            over(over_ends)
        ),
    }
}

fn gain(estimate: &Estimate) -> String {
    let signed = |value: f64| format!("{value:+.DECIMALS$}").replace('-', "−");
    format!("{} [{}, {}]", signed(estimate.value), signed(estimate.low), signed(estimate.high))
}

fn number(value: Option<f64>, decimals: usize) -> Value {
    match value {
        Some(value) => Value::Number { value, decimals },
        None => Value::missing("not measured"),
    }
}

/// Table 8: scores by volume at the β that the sweep chooses.
pub(crate) fn tuned_volume(analysis: &Analysis<'_>, chosen: &Chosen) -> Result<Table, StudyError> {
    let [dpo, ipo, ..] = Setting::all();
    let columns = [dpo, ipo].map(|setting| {
        let title = format!("{}, β = {}", loss_name(setting.loss), chosen.beta(setting).get());
        Slice::new(title, move |subject: &Subject| match subject {
            Subject::Baseline { .. } => true,
            Subject::Trained { cell, .. } => {
                cell.loss == setting.loss
                    && cell.flip_rate == setting.flip_rate
                    && cell.beta == chosen.beta(setting)
            }
        })
    });
    let shares = crate::grid::Question::Volume.fractions(&analysis.recipe.study);
    let levels = shares.into_iter().map(|share| {
        Slice::new(format!("{}%", percent(share.get())), move |subject: &Subject| {
            matches!(subject, Subject::Trained { cell, .. } if cell.fraction == share)
        })
    });
    let levels: Vec<_> = [Slice::new("SFT (baseline)", is_baseline)].into_iter().chain(levels).collect();
    pivot(analysis, "table-8", "Scores by volume at the tuned β", "Share of pairs", &levels, &columns)
}

/// Table 9: scores under flipped labels at the β that the sweep chooses. Without flipped labels the paper prints DPO's score for
/// cDPO too.
pub(crate) fn tuned_quality(analysis: &Analysis<'_>, chosen: &Chosen) -> Result<Table, StudyError> {
    let [clean, _, noisy_dpo, noisy_cdpo] = Setting::all();
    let columns = [noisy_dpo, noisy_cdpo].map(|setting| {
        Slice::new(loss_name(setting.loss), move |subject: &Subject| match subject {
            Subject::Baseline { .. } => true,
            Subject::Trained { cell, .. } => cell.flip_rate == clean.flip_rate || cell.loss == setting.loss,
        })
    });
    let at = |setting: Setting| {
        let beta = chosen.beta(setting);
        move |subject: &Subject| setting.holds(analysis, subject, beta)
    };
    let (of_dpo, of_cdpo) = (at(noisy_dpo), at(noisy_cdpo));
    let levels = [
        Slice::new("SFT (baseline)", is_baseline),
        Slice::new(format!("0%, DPO's β = {}", chosen.beta(clean).get()), at(clean)),
        Slice::new(
            format!("5%, β = {} and {}", chosen.beta(noisy_dpo).get(), chosen.beta(noisy_cdpo).get()),
            move |subject: &Subject| of_dpo(subject) || of_cdpo(subject),
        ),
    ];
    pivot(
        analysis,
        "table-9",
        "Scores under flipped labels at the tuned β",
        "Flipped labels",
        &levels,
        &columns,
    )
}

fn pivot(
    analysis: &Analysis<'_>,
    id: &str,
    title: &str,
    header: &str,
    levels: &[Slice<'_>],
    columns: &[Slice<'_>],
) -> Result<Table, StudyError> {
    let scorers = Scorers::of(analysis.recipe);
    let last = analysis.last_checkpoint();
    let is_final = |subject: &Subject| match subject {
        Subject::Baseline { .. } => true,
        Subject::Trained { checkpoint, .. } => *checkpoint == last,
    };
    let mut rows = Vec::new();
    for scorer in scorers.shown() {
        for (at, level) in levels.iter().enumerate() {
            let label = if at == 0 { scorer.label.as_str() } else { "" };
            let mut row = vec![Value::text(label), Value::text(&level.label)];
            for column in columns {
                let keep =
                    |subject: &Subject| is_final(subject) && (level.keep)(subject) && (column.keep)(subject);
                row.push(mean_value(analysis, scorer, &keep)?);
            }
            rows.push(row);
        }
    }
    let by = match analysis.held_out(&|_| true, |metrics| Some(metrics.accuracy)) {
        Some(_) => "accuracy on held-out preferences, which leaves these scores without optimism",
        None => {
            "the judge's scores of these very questions, which makes the tuned scores optimistic: see the sweep"
        }
    };
    Ok(Table {
        id: id.into(),
        title: title.into(),
        columns: [Column::new("Scorer", Align::Left), Column::new(header, Align::Left)]
            .into_iter()
            .chain(columns.iter().map(|column| Column::new(&column.label, Align::Right)))
            .collect(),
        rows,
        notes: vec![
            analysis.interval_note(),
            format!("On the preferences of {}. β was chosen by {by}.", annotator(&analysis.recipe.study)),
        ],
    })
}

/// A scorer's means at every β of a setting, for a figure.
pub(crate) fn points(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    setting: Setting,
) -> Result<Vec<report::figure::Point>, StudyError> {
    let mut betas = analysis.recipe.study.sweep_betas.clone();
    betas.sort_by(|a, b| a.get().total_cmp(&b.get()));
    let mut points = Vec::new();
    for beta in betas {
        if let Some(mean) = analysis.mean(scorer, &|subject| setting.holds(analysis, subject, beta))? {
            points.push((beta.get().log10(), mean.value, Some((mean.low, mean.high))));
        }
    }
    Ok(points)
}
