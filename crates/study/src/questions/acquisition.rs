//! RQ1: the acquisition of preferences (Tables 1 and 2).

use experiment::{Axes, Grid, Scorer, Subject, loss_name, percent};
use report::table::{Align, Column, Table, Value};
use trainer::recipe::LossKind;

use super::DPO_IPO;
use crate::claims::{Answers, Claim, Comparisons, Expectation, Headline, llm_and_human};
use crate::contrast::{Contrast, Select};
use crate::error::StudyError;
use crate::paper::statements;
use crate::question::{About, Question};
use crate::recipe::{PaperSet, StudyRecipe, StudySection};
use crate::results::{Figure, Results};
use crate::tables::{Slice, is_baseline};
use crate::{evidence, figures, raters, tables};

/// How the source of preferences changes the policies of DPO and IPO.
pub struct Acquisition;

impl Question for Acquisition {
    fn about(&self) -> About {
        About {
            name: "rq1",
            tables: &["1", "2"],
            title: "RQ1: acquisition of preferences",
            help: "One supervised policy, optimized on the same pairs with the labels of different annotators.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let axes = Axes {
            volumes: study.volumes_or(&[1.0]).into_iter().map(|share| (share, None)).collect(),
            flip_rates: study.flip_rates_or(&[0.0]),
            ..super::axes(study, losses(study))
        };
        super::final_grid(recipe, &axes)
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        let mut made = vec![scores(results)?];
        if let Some(raters) = raters::comparison(results)? {
            made.extend([raters.wins(), raters.agreement()]);
        }
        made.push(tables::controls(results, "table-1-length")?);
        made.extend(tables::categories(results, losses(&results.recipe.study))?);
        made.extend(tables::judges(results)?);
        Ok(made)
    }

    fn figures(&self, results: &Results<'_>) -> Result<Vec<Figure>, StudyError> {
        let mut drawn = vec![Figure {
            name: "figure-1",
            svg: figures::categories(results, losses(&results.recipe.study))?,
            caption: "The judge's scores by category, means over turns and seeds with 95% intervals.",
        }];
        let caption = "Share of answers in a category for which three raters prefer either policy, seed 0.";
        let raters = raters::comparison(results)?.and_then(|raters| raters.figure());
        drawn.extend(raters.map(|svg| Figure { name: "figure-2", svg, caption }));
        Ok(drawn)
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let of = Comparisons::new(results, losses(&results.recipe.study))?;
        let mut claims = Vec::new();
        if let Some([llm, human]) = llm_and_human(results) {
            for &loss in of.losses {
                let (says, expects) = match loss {
                    LossKind::Dpo => (statements::DPO_ON_LLM, Expectation::Higher),
                    LossKind::Ipo => {
                        ("IPO on human preferences outperforms IPO on GPT-4-Turbo's", Expectation::Lower)
                    }
                    _ => ("", Expectation::Unclaimed),
                };
                claims.push(Claim {
                    place: of.place(1),
                    comparison: format!("{}: {llm} − {human}", loss_name(loss)),
                    says: says.to_owned(),
                    contrast: Contrast::difference(of.clean(loss, llm), of.clean(loss, human)),
                    expects,
                    printed: of.printed_1(loss, llm).zip(of.printed_1(loss, human)).map(|(a, b)| a - b),
                    control: None,
                });
            }
        }
        for annotator in of.annotators() {
            for &loss in of.losses {
                let sft: Select<'a> = Box::new(is_baseline);
                let comparison = format!("{annotator}: {} − SFT", loss_name(loss));
                let contrast = Contrast::difference(of.clean(loss, annotator), sft);
                claims.push(Claim {
                    printed: of.printed_1(loss, annotator).zip(of.printed_sft()).map(|(a, b)| a - b),
                    ..Claim::new(of.place(1), comparison, contrast)
                });
            }
        }
        Ok(claims)
    }

    fn headlines<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Headline<'a>>, StudyError> {
        let of = Comparisons::new(results, losses(&results.recipe.study))?;
        let training = of.over_all(|loss, annotator| (of.clean(loss, annotator), Box::new(is_baseline)));
        let mut headlines = vec![Headline {
            question: "Does training help?",
            of_own_data: "Is the data good enough?",
            comparison: format!("{} − SFT", of.loss_names()),
            contrast: training,
            control: None,
            answers: Answers::new("yes", "no, it harms", "no"),
        }];
        if let Some([llm, human]) = llm_and_human(results) {
            let pairs = of.losses.iter().map(|&loss| (of.clean(loss, llm), of.clean(loss, human)));
            headlines.push(of.headline(
                ["Whose labels are better?"; 2],
                format!("{llm} − {human}"),
                Contrast::mean_difference(pairs.collect()),
                Answers::new(llm, human, "neither"),
            ));
        }
        Ok(headlines)
    }

    fn printed(&self, set: PaperSet) -> &'static [usize] {
        if set == PaperSet::Gair { &[1, 2, 6, 7] } else { &[10] }
    }
}

fn losses(study: &StudySection) -> &[LossKind] {
    study.losses_or(DPO_IPO)
}

/// Returns Table 1: scores by annotator and loss, with differences from SFT.
fn scores(results: &Results<'_>) -> Result<Table, StudyError> {
    let study = &results.recipe.study;
    let last = results.last_checkpoint();
    let mut conditions = vec![Slice::new("SFT (baseline)", is_baseline)];
    for &loss in losses(study) {
        for fraction in study.volumes_or(&[1.0]) {
            for flip_rate in study.flip_rates_or(&[0.0]) {
                for &beta in study.betas_of(loss) {
                    let mut label = loss_name(loss).to_owned();
                    if fraction.get() != 1.0 {
                        label += &format!(", {}% of pairs", percent(fraction.get()));
                    }
                    if flip_rate.get() != 0.0 {
                        label += &format!(", {}% flipped", percent(flip_rate.get()));
                    }
                    if study.betas_of(loss).len() > 1 {
                        label += &format!(", β = {}", beta.get());
                    }
                    conditions.push(Slice::new(label, move |subject| match subject {
                        Subject::Baseline { .. } => false,
                        Subject::Trained { cell, checkpoint } => {
                            *checkpoint == last
                                && (cell.loss, cell.fraction, cell.flip_rate, cell.beta)
                                    == (loss, fraction, flip_rate, beta)
                        }
                    }));
                }
            }
        }
    }
    let scorers = results.scorers();
    let mut columns = vec![Column::new("Scorer", Align::Left), Column::new("Algorithm", Align::Left)];
    for annotator in &study.annotators {
        columns.push(Column::grouped(annotator, "Score", Align::Right));
        columns.push(Column::grouped(annotator, "Difference from SFT", Align::Right));
    }
    let mut rows = Vec::new();
    for scorer in scorers.all() {
        for (k, condition) in conditions.iter().enumerate() {
            let label = if k == 0 { scorer.label.as_str() } else { "" };
            let mut row = vec![Value::text(label), Value::text(&condition.label)];
            for annotator in &study.annotators {
                let keep = |subject: &Subject| (condition.keep)(subject) && is_in_column(subject, annotator);
                row.push(results.scores.mean_value(scorer, &keep)?);
                row.push(match k {
                    0 => Value::text("–"),
                    _ => results.scores.difference_value(scorer, &keep, &is_baseline)?,
                });
            }
            rows.push(row);
        }
    }
    let mut notes = vec![results.scores.interval_note(), results.scores.difference_note()];
    notes.extend(results.scores.missing_notes(&scorers.all()));
    if let Some(gold) = &scorers.gold {
        notes.push(coverage_note(results, gold, &conditions)?);
    }
    let mut against_baseline = Vec::new();
    for condition in &conditions[1..] {
        for annotator in &study.annotators {
            let trained =
                move |subject: &Subject| (condition.keep)(subject) && is_in_column(subject, annotator);
            against_baseline.push(Contrast::difference(Box::new(trained), Box::new(is_baseline)));
        }
    }
    notes.extend(evidence::detectable(results, &scorers.judge, &against_baseline)?);
    Ok(Table {
        id: "table-1".into(),
        title: "Scores of the policy trained on each annotator's preferences".into(),
        columns,
        rows,
        notes,
    })
}

/// Returns whether a subject belongs to an annotator's column; the baseline belongs to each.
fn is_in_column(subject: &Subject, annotator: &str) -> bool {
    match subject {
        Subject::Baseline { .. } => true,
        Subject::Trained { cell, .. } => cell.annotator == annotator,
    }
}

/// Returns a note on how many gold intervals of the benchmark cover gold on the held-out questions.
fn coverage_note(
    results: &Results<'_>,
    [gold, held_out]: &[Scorer; 2],
    conditions: &[Slice<'_>],
) -> Result<String, StudyError> {
    let (mut covered, mut all) = (0, 0);
    for condition in conditions {
        for annotator in &results.recipe.study.annotators {
            let is_first = results.recipe.study.annotators.first() == Some(annotator);
            let keep = |subject: &Subject| {
                (condition.keep)(subject)
                    && is_in_column(subject, annotator)
                    && (is_first || !is_baseline(subject))
            };
            let (on_benchmark, truth) =
                (results.scores.mean(gold, &keep)?, results.scores.mean(held_out, &keep)?);
            if let (Some(on_benchmark), Some(truth)) = (on_benchmark, truth) {
                all += 1;
                covered += usize::from(!on_benchmark.excludes(truth.value));
            }
        }
    }
    Ok(format!(
        "For {covered} of {all} policies, the interval of gold on the benchmark covers gold on the {} held-out questions.",
        results.recipe.sandbox.further_questions
    ))
}
