//! Figures that several questions share; every value has its interval.

use std::collections::BTreeMap;

use experiment::{Scorer, Scorers, Subject, by_category, loss_name, percent};
use report::figure::{GroupedBars, LineSeries, Lines, SecondAxis, Series, Svg};
use trainer::recipe::LossKind;

use crate::error::StudyError;
use crate::levels::{Axis, Levels};
use crate::results::Results;

/// Mean, low and high of each category.
type ByCategory = BTreeMap<String, (f64, f64, f64)>;

/// Returns the judge's scores by category, as in Figure 1, with a color for each condition.
pub(crate) fn categories(results: &Results<'_>, losses: &[LossKind]) -> Result<Svg, StudyError> {
    let scorer = &results.scorers().judge;
    let groups = groups(results, scorer);
    let mut series = vec![(
        "SFT".to_owned(),
        by_category(&results.scores, scorer, &|s| matches!(s, Subject::Baseline { .. }))?,
    )];
    for annotator in &results.recipe.study.annotators {
        for &loss in losses {
            let keep = |subject: &Subject| match subject {
                Subject::Baseline { .. } => false,
                Subject::Trained { cell, .. } => {
                    cell.annotator == *annotator && cell.loss == loss && cell.flip_rate.get() == 0.0
                }
            };
            series.push((
                format!("{} ({annotator})", loss_name(loss)),
                by_category(&results.scores, scorer, &keep)?,
            ));
        }
    }
    Ok(bars("Judged scores by category", groups, series))
}

/// Two levels of a loss on an annotator's labels that a figure compares.
pub(crate) type Compared<'a> = (LossKind, &'a str, [f64; 2]);

/// Returns the judge's scores by category at some levels, as in Figures 3 and 4; `None` if the grid has none of them.
pub(crate) fn comparisons(
    results: &Results<'_>,
    axis: Axis,
    title: &str,
    compared: [Compared<'_>; 3],
) -> Result<Option<Svg>, StudyError> {
    let scorer = &results.scorers().judge;
    let mut series = Vec::new();
    for (loss, annotator, levels) in compared {
        for level in levels {
            let keep = at_level(results, axis, (loss, annotator, level));
            let means = by_category(&results.scores, scorer, &keep)?;
            let name = format!("{} ({annotator}), {}% {}", loss_name(loss), percent(level), axis.unit());
            if !means.is_empty() && !series.iter().any(|(known, _)| *known == name) {
                series.push((name, means));
            }
        }
    }
    Ok((!series.is_empty()).then(|| bars(title, groups(results, scorer), series)))
}

/// Returns quality at each level.
pub(crate) fn by_level(results: &Results<'_>, levels: &Levels<'_>) -> Result<Svg, StudyError> {
    let scorers = results.scorers();
    let (scorer, y_label) = quality(&scorers);
    let mut values = levels.values.clone();
    values.sort_by(f64::total_cmp);
    let mut series = Vec::new();
    for annotator in &results.recipe.study.annotators {
        for &loss in levels.losses {
            let mut points = Vec::new();
            for &level in &values {
                let keep = at_level(results, levels.axis, (loss, annotator, level));
                if let Some(mean) = results.scores.mean(scorer, &keep)? {
                    points.push((level, mean.value, Some((mean.low, mean.high))));
                }
            }
            series.push(LineSeries { name: format!("{} ({annotator})", loss_name(loss)), points });
        }
    }
    let (title, x_label) = match levels.axis {
        Axis::Noise => ("Quality by share of flipped labels", "flipped labels"),
        Axis::Volume => ("Quality by volume of preferences", "share of the pairs"),
    };
    let figure = Lines {
        title: title.into(),
        x_label: x_label.into(),
        y_label: y_label.into(),
        y_range: None,
        x_ticks: values.iter().map(|level| (*level, format!("{}%", percent(*level)))).collect(),
        series,
        second: None,
    };
    Ok(figure.to_svg())
}

/// Returns a difference under each scorer: `(scorer, difference, low, high)`.
pub(crate) fn comparison(title: &str, scored: &[(String, f64, f64, f64)]) -> Svg {
    let last = scored.len().saturating_sub(1) as f64;
    let mut series = vec![LineSeries {
        name: "no difference".into(),
        points: vec![(-0.4, 0.0, None), (last + 0.4, 0.0, None)],
    }];
    for (at, (scorer, value, low, high)) in scored.iter().enumerate() {
        series.push(LineSeries {
            name: scorer.clone(),
            points: vec![(at as f64, *value, Some((*low, *high)))],
        });
    }
    let figure = Lines {
        title: title.into(),
        x_label: "scorer".into(),
        y_label: "difference in points".into(),
        y_range: None,
        x_ticks: scored.iter().enumerate().map(|(at, (scorer, ..))| (at as f64, scorer.clone())).collect(),
        series,
        second: None,
    };
    figure.to_svg()
}

/// Selects the fully trained policies of a loss and an annotator at one level.
fn at_level<'a>(
    results: &Results<'_>,
    axis: Axis,
    (loss, annotator, level): (LossKind, &'a str, f64),
) -> impl Fn(&Subject) -> bool + use<'a> {
    let last = results.last_checkpoint();
    move |subject| {
        axis.is_at(subject, level, last)
            && matches!(subject, Subject::Trained { cell, .. } if cell.loss == loss && cell.annotator == annotator)
    }
}

/// Returns the humans and the LLM if the study has both, else its first two annotators.
pub(crate) fn human_and_llm<'a>(results: &'a Results<'_>) -> [&'a str; 2] {
    let all = &results.recipe.study.annotators;
    let at = |index: usize| all.get(index).or(all.first()).map_or("human", String::as_str);
    let named = |name: &'static str| all.iter().any(|annotator| annotator == name).then_some(name);
    match (named("human"), named("gpt-4-turbo")) {
        (Some(human), Some(llm)) => [human, llm],
        _ => [at(0), at(1)],
    }
}

/// Returns the scorer of curves: the ground truth, or else the judge.
pub(crate) fn quality(scorers: &Scorers) -> (&Scorer, &'static str) {
    match &scorers.gold {
        Some([_, held_out]) => (held_out, "gold quality on held-out questions"),
        None => (&scorers.judge, "score, 1 to 10"),
    }
}

/// Returns the categories of a scorer's questions, in order.
fn groups(results: &Results<'_>, scorer: &Scorer) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    let scores = results.scores.evaluated.iter().flat_map(|evaluated| &evaluated.evaluation.scores);
    for score in scores.filter(|score| score.question_set == scorer.question_set) {
        if !groups.contains(&score.category) {
            groups.push(score.category.clone());
        }
    }
    groups
}

fn bars(title: &str, groups: Vec<String>, series: Vec<(String, ByCategory)>) -> Svg {
    let of_groups = |(name, means): (String, ByCategory)| Series {
        name,
        values: groups.iter().map(|group| means.get(group).copied()).collect(),
    };
    let series = series.into_iter().map(of_groups).collect();
    let y_label = "score, 1 to 10".into();
    GroupedBars { title: title.into(), y_label, y_range: (1.0, 10.0), groups, series }.to_svg()
}

/// Returns quality and training loss at each checkpoint.
pub(crate) fn progress(results: &Results<'_>, losses: &[LossKind]) -> Result<Svg, StudyError> {
    let scorers = results.scorers();
    let (scorer, y_label) = quality(&scorers);
    let shares = &results.recipe.train.checkpoints;
    let mut series = Vec::new();
    let mut loss_series = Vec::new();
    for annotator in &results.recipe.study.annotators {
        for &loss in losses {
            let name = format!("{} ({annotator})", loss_name(loss));
            let mut quality = Vec::new();
            let mut training = Vec::new();
            for (at, share) in shares.iter().enumerate() {
                let keep = |subject: &Subject| match subject {
                    Subject::Baseline { .. } => false,
                    Subject::Trained { cell, checkpoint } => {
                        *checkpoint == at && cell.annotator == *annotator && cell.loss == loss
                    }
                };
                if let Some(mean) = results.scores.mean(scorer, &keep)? {
                    quality.push((*share, mean.value, Some((mean.low, mean.high))));
                }
                if let Some(value) = results.scores.training_loss(&keep) {
                    training.push((*share, value, None));
                }
            }
            // Losses have different scales, so each is relative to its first value.
            let first = training.first().map_or(1.0, |(_, value, _)| *value);
            let relative = training.into_iter().map(|(x, value, none)| (x, value / first, none)).collect();
            series.push(LineSeries { name: name.clone(), points: quality });
            loss_series.push(LineSeries { name: format!("loss of {name}"), points: relative });
        }
    }
    let figure = Lines {
        title: "Quality and training loss during training".into(),
        x_label: "share of training".into(),
        y_label: y_label.into(),
        y_range: None,
        x_ticks: shares.iter().map(|s| (*s, format!("{}%", percent(*s)))).collect(),
        series,
        second: Some(SecondAxis {
            y_label: "training loss, relative to its first quarter".into(),
            y_range: None,
            series: loss_series,
        }),
    };
    Ok(figure.to_svg())
}
