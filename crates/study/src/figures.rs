//! Figures, from evaluated subjects: every value with its interval.

use std::collections::BTreeMap;

use report::figure::{GroupedBars, LineSeries, Lines, SecondAxis, Series, Svg};
use trainer::recipe::LossKind;

use crate::analysis::{Analysis, Scorer, Scorers, by_category};
use crate::cell::{Cell, Subject, loss_name, percent};
use crate::error::StudyError;
use crate::grid::Question;
use crate::sweep::Setting;
use crate::tables;

/// Mean, low and high of each category.
type ByCategory = BTreeMap<String, (f64, f64, f64)>;

/// Figure 1: the judge's scores by category, a colour for each trained condition.
pub(crate) fn categories(analysis: &Analysis<'_>) -> Result<Svg, StudyError> {
    let scorer = &Scorers::of(analysis.recipe).judge;
    let groups = groups(analysis, scorer);
    let mut series =
        vec![("SFT".to_owned(), by_category(analysis, scorer, &|s| matches!(s, Subject::Baseline { .. }))?)];
    for annotator in &analysis.recipe.study.annotators {
        for &loss in Question::Acquisition.losses(&analysis.recipe.study) {
            let keep = |subject: &Subject| match subject {
                Subject::Baseline { .. } => false,
                Subject::Trained { cell, .. } => {
                    cell.annotator == *annotator && cell.loss == loss && cell.flip_rate.get() == 0.0
                }
            };
            series
                .push((format!("{} ({annotator})", loss_name(loss)), by_category(analysis, scorer, &keep)?));
        }
    }
    Ok(bars("Judged scores by category", groups, series))
}

/// Figures 3 and 4: the judge's scores by category at levels of volume or noise whose comparison surprises the paper; `None`
/// where the grid holds none of them.
pub(crate) fn comparisons(analysis: &Analysis<'_>, question: Question) -> Result<Option<Svg>, StudyError> {
    let [human, llm] = annotators(analysis);
    let compared = match question {
        Question::Volume => [
            (LossKind::Ipo, human, [0.25, 1.0]),
            (LossKind::Ipo, llm, [0.25, 1.0]),
            (LossKind::Dpo, human, [0.5, 1.0]),
        ],
        _ => [
            (LossKind::Cdpo, human, [0.25, 0.5]),
            (LossKind::Cdpo, llm, [0.25, 0.5]),
            (LossKind::Dpo, llm, [0.05, 0.5]),
        ],
    };
    let scorer = &Scorers::of(analysis.recipe).judge;
    let mut series = Vec::new();
    for (loss, annotator, levels) in compared {
        for level in levels {
            let keep = at_level(analysis, question, (loss, annotator, level));
            let means = by_category(analysis, scorer, &keep)?;
            let what = if question == Question::Volume { "of the pairs" } else { "flipped" };
            let name = format!("{} ({annotator}), {}% {what}", loss_name(loss), percent(level));
            if !means.is_empty() && !series.iter().any(|(known, _)| *known == name) {
                series.push((name, means));
            }
        }
    }
    if series.is_empty() {
        return Ok(None);
    }
    let title = match question {
        Question::Volume => "Judged scores by category and volume",
        _ => "Judged scores by category and share of flipped labels",
    };
    Ok(Some(bars(title, groups(analysis, scorer), series)))
}

/// Quality along the volume of preferences or the share of flipped labels.
pub(crate) fn along(analysis: &Analysis<'_>, question: Question) -> Result<Svg, StudyError> {
    let study = &analysis.recipe.study;
    let scorers = Scorers::of(analysis.recipe);
    let (scorer, y_label) = quality(&scorers);
    let is_noise = question.runs_along_noise();
    let mut levels: Vec<f64> = match is_noise {
        true => question.flip_rates(study).iter().map(|rate| rate.get()).collect(),
        false => question.fractions(study).iter().map(|share| share.get()).collect(),
    };
    levels.sort_by(f64::total_cmp);
    let mut series = Vec::new();
    for annotator in &study.annotators {
        for &loss in question.losses(study) {
            let mut points = Vec::new();
            for &level in &levels {
                let keep = at_level(analysis, question, (loss, annotator, level));
                if let Some(mean) = analysis.mean(scorer, &keep)? {
                    points.push((level, mean.value, Some((mean.low, mean.high))));
                }
            }
            series.push(LineSeries { name: format!("{} ({annotator})", loss_name(loss)), points });
        }
    }
    let figure = Lines {
        title: if is_noise {
            "Quality by share of flipped labels"
        } else {
            "Quality by volume of preferences"
        }
        .into(),
        x_label: if is_noise { "flipped labels" } else { "share of the pairs" }.into(),
        y_label: y_label.into(),
        y_range: None,
        x_ticks: levels.iter().map(|level| (*level, format!("{}%", percent(*level)))).collect(),
        series,
        second: None,
    };
    Ok(figure.to_svg())
}

/// A comparison under every scorer: `(scorer, difference, low, high)`.
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
        x_label: "who scores".into(),
        y_label: "difference in points".into(),
        y_range: None,
        x_ticks: scored.iter().enumerate().map(|(at, (scorer, ..))| (at as f64, scorer.clone())).collect(),
        series,
        second: None,
    };
    figure.to_svg()
}

/// Selects the policies of a loss and an annotator at one level of what a question varies, trained to the end.
fn at_level<'a>(
    analysis: &Analysis<'_>,
    question: Question,
    (loss, annotator, level): (LossKind, &'a str, f64),
) -> impl Fn(&Subject) -> bool + use<'a> {
    let last = analysis.last_checkpoint();
    let is_noise = question.runs_along_noise();
    let is_at = move |cell: &Cell| {
        let of = if is_noise { cell.flip_rate.get() } else { cell.fraction.get() };
        of == level && cell.loss == loss && cell.annotator == annotator
    };
    move |subject| matches!(subject, Subject::Trained { cell, checkpoint } if *checkpoint == last && is_at(cell))
}

/// The humans and the LLM where the study has both, else its first two annotators.
fn annotators<'a>(analysis: &Analysis<'a>) -> [&'a str; 2] {
    let all = &analysis.recipe.study.annotators;
    let at = |index: usize| all.get(index).or(all.first()).map_or("human", String::as_str);
    let named = |name: &'static str| all.iter().any(|annotator| annotator == name).then_some(name);
    match (named("human"), named("gpt-4-turbo")) {
        (Some(human), Some(llm)) => [human, llm],
        _ => [at(0), at(1)],
    }
}

/// Whose numbers a curve shows: the truth where it is known.
fn quality(scorers: &Scorers) -> (&Scorer, &'static str) {
    match &scorers.gold {
        Some([_, beyond]) => (beyond, "gold quality on further questions"),
        None => (&scorers.judge, "score, 1 to 10"),
    }
}

/// The categories of a scorer's questions, in their order.
fn groups(analysis: &Analysis<'_>, scorer: &Scorer) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    let scores = analysis.evaluated.iter().flat_map(|evaluated| &evaluated.evaluation.scores);
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

/// Quality and training loss against the share of training done.
pub(crate) fn progress(analysis: &Analysis<'_>, question: Question) -> Result<Svg, StudyError> {
    let scorers = Scorers::of(analysis.recipe);
    let (scorer, y_label) = quality(&scorers);
    let shares = &analysis.recipe.train.checkpoints;
    let mut series = Vec::new();
    let mut losses = Vec::new();
    for annotator in &analysis.recipe.study.annotators {
        for &loss in question.losses(&analysis.recipe.study) {
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
                if let Some(mean) = analysis.mean(scorer, &keep)? {
                    quality.push((*share, mean.value, Some((mean.low, mean.high))));
                }
                if let Some(value) = analysis.training_loss(&keep) {
                    training.push((*share, value, None));
                }
            }
            // Losses of different kinds have different scales: each is shown relative to its first value.
            let first = training.first().map_or(1.0, |(_, value, _)| *value);
            let relative = training.into_iter().map(|(x, value, none)| (x, value / first, none)).collect();
            series.push(LineSeries { name: name.clone(), points: quality });
            losses.push(LineSeries { name: format!("loss of {name}"), points: relative });
        }
    }
    let figure = Lines {
        title: "Quality and training loss as training goes on".into(),
        x_label: "share of training".into(),
        y_label: y_label.into(),
        y_range: None,
        x_ticks: shares.iter().map(|s| (*s, format!("{}%", percent(*s)))).collect(),
        series,
        second: Some(SecondAxis {
            y_label: "training loss, relative to its first quarter".into(),
            y_range: None,
            series: losses,
        }),
    };
    Ok(figure.to_svg())
}

/// Quality and held-out accuracy against β.
pub(crate) fn sweep(analysis: &Analysis<'_>) -> Result<Svg, StudyError> {
    let scorers = Scorers::of(analysis.recipe);
    let (scorer, y_label) = quality(&scorers);
    let betas = &analysis.recipe.study.sweep_betas;
    let mut series = Vec::new();
    let mut accuracies = Vec::new();
    for setting in Setting::all() {
        let name = tables::name(setting);
        let points = tables::points(analysis, scorer, setting)?;
        let accuracy = points.iter().filter_map(|(x, ..)| {
            let beta = betas.iter().find(|beta| beta.get().log10() == *x)?;
            let keep = |subject: &Subject| setting.holds(analysis, subject, *beta);
            Some((*x, analysis.held_out(&keep, |metrics| Some(metrics.accuracy))?, None))
        });
        accuracies.push(LineSeries { name: format!("accuracy of {name}"), points: accuracy.collect() });
        series.push(LineSeries { name, points });
    }
    accuracies.retain(|line| !line.points.is_empty());
    let figure = Lines {
        title: "Quality and held-out accuracy by β".into(),
        x_label: "β, on a logarithmic scale".into(),
        y_label: y_label.into(),
        y_range: None,
        x_ticks: betas.iter().map(|beta| (beta.get().log10(), beta.get().to_string())).collect(),
        series,
        second: (!accuracies.is_empty()).then(|| SecondAxis {
            y_label: "accuracy on held-out preferences".into(),
            y_range: None,
            series: accuracies,
        }),
    };
    Ok(figure.to_svg())
}
