//! `agreement make --from STUDY`: sheets for ratings of a study's answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::ensure;
use compare::{Error, draw_questions, study_arms};
use experiment::PolicyAnswers;
use human_study::{AnswerToRate, RatingSheets, rating_sheets};
use mtbench::question_label;
use seeds::Seeds;
use study::questions::ALL;
use study::registry;

/// Makes sheets for ratings of `rate` questions of the study in `folder`, drawn within categories.
///
/// Each question has the answers of all `arms`, or of all the study's without names, by one seed; seeds take turns.
///
/// # Errors
///
/// [`Error::Argument`] for an unknown arm or number of questions; any error of the study's files.
pub(crate) fn study_rating_sheets(
    folder: &Path,
    rate: usize,
    arms: &[String],
    raters: &[String],
    seed: u64,
) -> anyhow::Result<RatingSheets> {
    let names = study_arms(&folder.join("results.parquet"))?;
    let known: BTreeSet<&str> = names.values().map(String::as_str).collect();
    if let Some(unknown) = arms.iter().find(|arm| !known.contains(arm.as_str())) {
        let known: Vec<&str> = known.into_iter().collect();
        let problem = format!("the study has no arm {unknown:?}; its arms are {}", known.join(", "));
        return Err(Error::Argument(problem).into());
    }
    let mut policies: BTreeMap<&str, BTreeMap<u64, PolicyAnswers>> = BTreeMap::new();
    for policy in registry(folder, ALL)?.final_answers()? {
        let Some(arm) = names.get(&policy.cell) else { continue };
        if arms.is_empty() || arms.contains(arm) {
            policies.entry(arm).or_default().insert(policy.seed, policy);
        }
    }
    let first = policies.values().flat_map(BTreeMap::values).next();
    ensure!(first.is_some(), "{} has no answers of these arms; run the study first", folder.display());
    let questions = first.map(|policy| policy.questions.clone()).unwrap_or_default();
    let categories: Vec<(String, Option<String>)> = questions
        .iter()
        .map(|question| (question_label(question.question_id), Some(question.category.clone())))
        .collect();
    let seeds = Seeds::new(seed);
    let drawn = draw_questions(&categories, rate, &seeds)?;
    let common: Vec<u64> = policies
        .values()
        .map(|of_arm| of_arm.keys().copied().collect::<BTreeSet<u64>>())
        .reduce(|all, one| &all & &one)
        .map(|seeds| seeds.into_iter().collect())
        .unwrap_or_default();
    ensure!(!common.is_empty(), "the arms have no seed in common: name those to rate with --arm");
    let (mut answers, mut answered) = (Vec::new(), 0);
    for question in questions.iter().filter(|question| drawn.contains(&question_label(question.question_id)))
    {
        let label = question_label(question.question_id);
        // The questions are drawn, so seeds in turn are too.
        let seed = common[answered % common.len()];
        answered += 1;
        for (arm, of_arm) in &policies {
            let given =
                of_arm[&seed].answers.iter().find(|answer| answer.question_id == question.question_id);
            let turns = given.map(|answer| answer.turns().to_vec()).unwrap_or_default();
            ensure!(
                turns.len() >= question.turns.len(),
                "arm {arm:?}, seed {seed} has answered {} of the {} turns of question {label}; run the study again, or \
                 name other arms with --arm",
                turns.len(),
                question.turns.len()
            );
            answers.extend((1..=question.turns.len()).map(|turn| AnswerToRate {
                arm: (*arm).to_owned(),
                seed: seed.to_string(),
                question: label.clone(),
                turn,
                category: question.category.clone(),
                prompts: question.turns[..turn].to_vec(),
                answers: turns[..turn].to_vec(),
            }));
        }
    }
    Ok(rating_sheets(&answers, raters, &seeds)?)
}
