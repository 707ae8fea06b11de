//! Appendix A.1: the sweep over β in four settings.

use experiment::{Grid, SCORE_DECIMALS, Scorer, Scorers, Subject, loss_name};
use pref_data::FlipRate;
use pref_loss::Beta;
use report::figure::{LineSeries, Lines, SecondAxis, Svg};
use report::table::{Align, Column, Table, Value};
use stats::Estimate;
use trainer::HeldOutMetrics;

use crate::claims::{Answers, Claim, Comparisons, Expectation, Headline};
use crate::contrast::{Contrast, Select};
use crate::error::StudyError;
use crate::figures;
use crate::question::{About, Question};
use crate::recipe::StudyRecipe;
use crate::results::{Figure, Results};
use crate::tuning::{Chosen, Criterion, Curve, Optimum, Setting, annotator, by_accuracy, by_score};

/// How scores depend on β.
pub struct Sweep;

impl Question for Sweep {
    fn about(&self) -> About {
        About {
            name: "sweep",
            tables: &["sweep"],
            title: "Appendix A.1: the sweep over β",
            help: "Four settings at every β, and the β that each chooses.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let mut grid = Grid::baselines(study.seeds);
        for seed in 0..study.seeds {
            for setting in Setting::swept(study) {
                for &beta in &study.sweep_betas {
                    let cell = setting.cell(study, beta, seed);
                    grid.add_cell(&cell, [recipe.train.checkpoints.len() - 1]);
                }
            }
        }
        grid
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        Ok(vec![table(results)?])
    }

    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let caption = "Quality (ground truth if known, else the judge's scores) with 95% intervals, and accuracy on held-out \
                       preferences, at each β.";
        Ok(vec![Figure { name: "figure-sweep", svg: figure(results)?, caption }])
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let Some(chosen) = Chosen::of(results)? else { return Ok(Vec::new()) };
        let of = Comparisons::new(results, &[])?;
        let at = |setting: Setting, beta: Beta| -> Select<'a> {
            Box::new(move |subject: &Subject| setting.holds(results, subject, beta))
        };
        // A choice by the judge's scores is tested on questions that did not make it.
        let tuned = |setting: Setting| -> Vec<Select<'a>> {
            match chosen.by {
                Criterion::HeldOutPairs => vec![at(setting, chosen.beta(setting))],
                Criterion::Scores => {
                    results.recipe.study.sweep_betas.iter().map(|&beta| at(setting, beta)).collect()
                }
            }
        };
        let by = chosen.by.in_words();
        let mut claims = Vec::new();
        for setting in Setting::all() {
            let place = if setting.flip_rate == FlipRate::NONE { "Table 8" } else { "Table 9" };
            let default = results.recipe.study.betas_of(setting.loss)[0];
            let (name, beta, default_beta) = (setting.name(), chosen.beta(setting).get(), default.get());
            let comparison = format!("{name}: β = {beta} ({by}) − {default_beta}");
            let contrast = Contrast::best_difference(tuned(setting), vec![at(setting, default)]);
            let claim = Claim {
                printed: printed_tuned(&of, setting).zip(printed_default(&of, setting)).map(|(a, b)| a - b),
                ..Claim::new(place, comparison, contrast)
            };
            let says = format!("tuning β improves {} significantly", loss_name(setting.loss));
            claims.push(of.claimed(claim, says, Expectation::Higher));
        }
        let [dpo, ipo, noisy_dpo, noisy_cdpo] = Setting::all();
        for (place, other, setting) in [("Table 8", dpo, ipo), ("Table 9", noisy_dpo, noisy_cdpo)] {
            let (loss, against) = (loss_name(setting.loss), loss_name(other.loss));
            let comparison = format!("{} − {against}, both {by}", setting.name());
            let contrast = Contrast::best_difference(tuned(setting), tuned(other));
            let claim = Claim {
                printed: printed_tuned(&of, setting).zip(printed_tuned(&of, other)).map(|(a, b)| a - b),
                ..Claim::new(place, comparison, contrast)
            };
            let says = format!("{against} surpasses {loss} even where β is tuned for both");
            claims.push(of.claimed(claim, says, Expectation::Lower));
        }
        Ok(claims)
    }

    fn headlines<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Headline<'a>>, StudyError> {
        let [setting, ..] = Setting::all();
        let study = &results.recipe.study;
        let at = |beta: Beta| -> Select<'a> {
            Box::new(move |subject: &Subject| setting.holds(results, subject, beta))
        };
        let default = study.betas_of(setting.loss)[0];
        let (chosen, other, contrast) = if let Some(chosen) = by_accuracy(results, setting) {
            let smallest = study.sweep_betas.iter().copied().min_by(|a, b| a.get().total_cmp(&b.get()));
            let other = if chosen == default { smallest.unwrap_or(default) } else { default };
            (chosen, other, Contrast::difference(at(chosen), at(other)))
        } else {
            // A choice by the judge's scores is tested on questions that did not make it.
            let Some(chosen) = by_score(results, setting)? else { return Ok(Vec::new()) };
            let swept = study.sweep_betas.iter().map(|&beta| at(beta)).collect();
            (chosen, default, Contrast::best_difference(swept, vec![at(default)]))
        };
        if chosen == other {
            return Ok(Vec::new());
        }
        let [chosen, other] = [chosen, other].map(|beta| beta.get().to_string());
        Ok(vec![Headline {
            question: "Which β is better?",
            of_own_data: "At which β?",
            comparison: format!("{}: β = {chosen} − {other}", setting.name()),
            contrast,
            control: None,
            answers: Answers::new(&chosen, &other, "either"),
        }])
    }
}

/// Returns the score of a setting in Tables 8 and 9.
fn printed_tuned(of: &Comparisons<'_>, setting: Setting) -> Option<f64> {
    let (table, row) = if setting.flip_rate == FlipRate::NONE { (8, 0) } else { (9, 1) };
    let header = format!("Human, Loss = {} (Tuned)", loss_name(setting.loss));
    of.own_column(table, &header)?.get(row).copied()
}

/// Returns the score of a setting at β = 0.1 in Tables 3 and 4.
fn printed_default(of: &Comparisons<'_>, setting: Setting) -> Option<f64> {
    let (table, row) = if setting.flip_rate == FlipRate::NONE { (3, 0) } else { (4, 1) };
    of.printed(table, setting.loss, "human")?.get(row).copied()
}

/// Returns scores, held-out accuracy, KL and length at every β of every setting.
fn table(results: &Results<'_>) -> Result<Table, StudyError> {
    let scorers = results.scorers();
    let shown = scorers.shown();
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for setting in Setting::swept(&results.recipe.study) {
        let (accuracy, score) = (by_accuracy(results, setting), by_score(results, setting)?);
        for (at, &beta) in results.recipe.study.sweep_betas.iter().enumerate() {
            let keep = |subject: &Subject| setting.holds(results, subject, beta);
            let chosen: Vec<&str> = [(accuracy, "held-out accuracy"), (score, "judge")]
                .into_iter()
                .filter(|(chosen, _)| *chosen == Some(beta))
                .map(|(_, by)| by)
                .collect();
            let mut row = vec![
                Value::text(if at == 0 { setting.name() } else { String::new() }),
                Value::text(beta.get().to_string()),
                number(results.scores.held_out(&keep, HeldOutMetrics::accuracy), 3),
                number(results.scores.held_out(&keep, |metrics| metrics.kl), 2),
                number(results.scores.mean_length(&scorers.judge, &keep), 1),
            ];
            for scorer in &shown {
                row.push(results.scores.mean_value(scorer, &keep)?);
            }
            row.push(Value::text(chosen.join(", ")));
            rows.push(row);
        }
        notes.extend(setting_notes(results, &scorers, setting)?);
    }
    notes.insert(0, results.scores.interval_note());
    notes.push(format!(
        "All on the preferences of {}. Held-out accuracy: share of held-out pairs whose preferred response has the higher implicit \
         reward; the largest β of equals is chosen. KL: divergence from the reference in nats per answer. Length: characters per \
         answer.",
        annotator(&results.recipe.study)
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

/// Returns a note on the optimism of a choice by the score, and on the position of the best β.
fn setting_notes(
    results: &Results<'_>,
    scorers: &Scorers,
    setting: Setting,
) -> Result<Option<String>, StudyError> {
    let Some(judged) = Curve::of(results, &scorers.judge, setting)? else { return Ok(None) };
    let optimism = judged.optimism(results);
    let mut note = format!(
        "{}: the β with the best score on half of the questions scores {:.2} there and {:.2} on the other half; the optimism of a \
         choice by the score is {:.2} (with half of the questions).",
        setting.name(),
        optimism.on_the_same,
        optimism.on_others,
        optimism.on_the_same - optimism.on_others
    );
    let (curve, what) = match &scorers.gold {
        Some([_, held_out]) => (Curve::of(results, held_out, setting)?, "ground truth"),
        None => (Some(judged), "the judge"),
    };
    if let Some(curve) = curve {
        let optimum = curve.optimum()?;
        note += &format!(
            " By {what}: {}{}.",
            optimum_in_words(&optimum),
            at_the_edge(results, setting, &optimum)
        );
    }
    Ok(Some(note))
}

/// Returns the KL divergence of the smallest β, if that is the best one.
fn at_the_edge(results: &Results<'_>, setting: Setting, optimum: &Optimum) -> String {
    let smallest =
        results.recipe.study.sweep_betas.iter().copied().min_by(|a, b| a.get().total_cmp(&b.get()));
    let (Optimum::Edge { at }, Some(smallest)) = (optimum, smallest) else { return String::new() };
    let kl = results.scores.held_out(&|s| setting.holds(results, s, smallest), |metrics| metrics.kl);
    match kl.filter(|_| *at == smallest) {
        Some(kl) => format!(
            "; its policy ends {kl:.2} nats from the reference, and the score still rises: these runs are too short for a larger β \
             to help"
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
                "interior optimum: β = {}, chosen on half of the questions, gains on the others {}",
                at.get(),
                over(over_ends)
            )
        }
        Optimum::Edge { at } => {
            format!("no interior optimum: the best value, β = {}, is at the edge of the range", at.get())
        }
        Optimum::Flat { at, over_ends } => format!(
            "no distinguishable interior optimum: β = {}, chosen on half of the questions, gains on the others {}",
            at.get(),
            over(over_ends)
        ),
    }
}

fn gain(estimate: &Estimate) -> String {
    let signed = |value: f64| format!("{value:+.SCORE_DECIMALS$}").replace('-', "−");
    format!("{} [{}, {}]", signed(estimate.value), signed(estimate.low), signed(estimate.high))
}

fn number(value: Option<f64>, decimals: usize) -> Value {
    match value {
        Some(value) => Value::Number { value, decimals },
        None => Value::missing("not measured"),
    }
}

/// Returns a scorer's means at every β of a setting.
fn points(
    results: &Results<'_>,
    scorer: &Scorer,
    setting: Setting,
) -> Result<Vec<report::figure::Point>, StudyError> {
    let mut betas = results.recipe.study.sweep_betas.clone();
    betas.sort_by(|a, b| a.get().total_cmp(&b.get()));
    let mut points = Vec::new();
    for beta in betas {
        if let Some(mean) = results.scores.mean(scorer, &|subject| setting.holds(results, subject, beta))? {
            points.push((beta.get().log10(), mean.value, Some((mean.low, mean.high))));
        }
    }
    Ok(points)
}

/// Returns quality and held-out accuracy by β.
fn figure(results: &Results<'_>) -> Result<Svg, StudyError> {
    let scorers = results.scorers();
    let (scorer, y_label) = figures::quality(&scorers);
    let betas = &results.recipe.study.sweep_betas;
    let mut series = Vec::new();
    let mut accuracies = Vec::new();
    for setting in Setting::swept(&results.recipe.study) {
        let name = setting.name();
        let points = points(results, scorer, setting)?;
        let accuracy = points.iter().filter_map(|(x, ..)| {
            let beta = betas.iter().find(|beta| beta.get().log10() == *x)?;
            let keep = |subject: &Subject| setting.holds(results, subject, *beta);
            Some((*x, results.scores.held_out(&keep, HeldOutMetrics::accuracy)?, None))
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
