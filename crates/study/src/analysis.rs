//! Evaluated subjects, and how to make numbers of them: every mean and difference with its interval.

use std::collections::BTreeMap;

use rand::Rng;
use seeds::Seeds;
use stats::{ClusteredScores, Estimate, mean_interval, paired_difference_interval};
use trainer::HeldOutMetrics;

use crate::cell::{Subject, percent};
use crate::error::StudyError;
use crate::evaluate::{BENCHMARK, FURTHER, GOLD, Score};
use crate::failures::Failure;
use crate::fitted::FittedLabels;
use crate::judges;
use crate::recipe::StudyRecipe;
use crate::runner::{Collected, Evaluated};

/// Confidence level of every interval.
pub(crate) const LEVEL: f64 = 0.95;
/// Bootstrap resamples of an interval.
pub(crate) const RESAMPLES: usize = 10_000;
/// Fewer for the many further questions, whose intervals are narrow.
const FURTHER_RESAMPLES: usize = 2_000;

/// What a score is a score of: a scorer on a set of questions.
#[derive(Clone, Debug)]
pub(crate) struct Scorer {
    pub(crate) label: String,
    /// What stands above a column of its scores.
    pub(crate) title: String,
    pub(crate) name: String,
    pub(crate) question_set: &'static str,
}

impl Scorer {
    /// Whether a score is one of these.
    pub(crate) fn is_of(&self, score: &Score) -> bool {
        score.scorer == self.name && score.question_set == self.question_set
    }
}

/// Who scores in a study.
#[derive(Clone, Debug)]
pub(crate) struct Scorers {
    /// Whose scores are the study's.
    pub(crate) judge: Scorer,
    /// Another judge of the same answers: the sandbox's has the LLM annotator's taste.
    pub(crate) second: Option<Scorer>,
    /// The sandbox's true quality, on the benchmark and beyond it.
    pub(crate) gold: Option<[Scorer; 2]>,
}

impl Scorers {
    pub(crate) fn of(recipe: &StudyRecipe) -> Self {
        let scorer = |label: &str, title: &str, name: &str, question_set| Scorer {
            label: label.to_owned(),
            title: title.to_owned(),
            name: name.to_owned(),
            question_set,
        };
        let names = judges::names(&recipe.judge);
        if !recipe.is_sandbox() {
            let title = if names.len() > 1 { names[0].as_str() } else { "Judge" };
            return Self {
                judge: scorer(&names[0], title, &names[0], BENCHMARK),
                second: names.get(1).map(|name| scorer(name, name, name, BENCHMARK)),
                gold: None,
            };
        }
        let beyond = format!("gold, {} further questions", recipe.sandbox.further_questions);
        let with_taste = "judge with gpt-4-turbo's taste";
        Self {
            judge: scorer("judge", "Judge", &names[0], BENCHMARK),
            second: names.get(1).map(|name| scorer(with_taste, "Judge with a taste", name, BENCHMARK)),
            gold: Some([
                scorer("gold", "Gold", GOLD, BENCHMARK),
                scorer(&beyond, "Gold beyond", GOLD, FURTHER),
            ]),
        }
    }

    /// All of them, the study's judge first.
    pub(crate) fn all(&self) -> Vec<&Scorer> {
        [&self.judge].into_iter().chain(&self.second).chain(self.gold.iter().flatten()).collect()
    }

    /// Who stands in every table: the judge, and the truth where it is known, else a second judge.
    pub(crate) fn shown(&self) -> Vec<&Scorer> {
        let other = match &self.gold {
            Some([_, beyond]) => Some(beyond),
            None => self.second.as_ref(),
        };
        [&self.judge].into_iter().chain(other).collect()
    }
}

/// Evaluated subjects, and how to make numbers of them.
pub(crate) struct Analysis<'a> {
    pub(crate) recipe: &'a StudyRecipe,
    pub(crate) evaluated: &'a [Evaluated],
    pub(crate) failed: &'a [Failure],
    seeds: Seeds,
}

impl<'a> Analysis<'a> {
    pub(crate) fn new(recipe: &'a StudyRecipe, Collected { evaluated, failed }: &'a Collected) -> Self {
        Self { recipe, evaluated, failed, seeds: Seeds::new(recipe.seed).child("bootstrap") }
    }

    /// What a scorer says of the answers of all subjects that are selected, readable or not, each with its subject.
    pub(crate) fn scored<'s>(
        &self,
        scorer: &'s Scorer,
        keep: &'s dyn Fn(&Subject) -> bool,
    ) -> impl Iterator<Item = (&'a Subject, &'a Score)> + use<'s, 'a> {
        let selected = self.evaluated.iter().filter(|evaluated| keep(&evaluated.subject));
        let scores = selected.flat_map(|evaluated| {
            evaluated.evaluation.scores.iter().map(|score| (&evaluated.subject, score))
        });
        scores.filter(|(_, score)| scorer.is_of(score))
    }

    /// The scores of all subjects that are selected, by question; turns and seeds are pooled.
    pub(crate) fn scores(
        &self,
        scorer: &Scorer,
        keep: &dyn Fn(&Subject) -> bool,
    ) -> Result<ClusteredScores, StudyError> {
        let rows = self.scored(scorer, keep).filter_map(|(_, s)| Some((s.question_id, s.score?)));
        ClusteredScores::new(rows).map_err(StudyError::stats(format!("scores of {}", scorer.label)))
    }

    /// How many turns have no rating under a scorer.
    fn missing(&self, scorer: &Scorer) -> usize {
        self.scored(scorer, &|_| true).filter(|(_, score)| score.score.is_none()).count()
    }

    /// The mean of selected scores with its interval; `None` where nothing is selected.
    pub(crate) fn mean(
        &self,
        scorer: &Scorer,
        keep: &dyn Fn(&Subject) -> bool,
    ) -> Result<Option<Estimate>, StudyError> {
        let scores = self.scores(scorer, keep)?;
        if scores.clusters() == 0 {
            return Ok(None);
        }
        let mut rng = self.rng();
        mean_interval(&scores, resamples(scorer), LEVEL, &mut rng)
            .map(Some)
            .map_err(StudyError::stats(format!("mean of {}", scorer.label)))
    }

    /// The paired difference of two selections with its interval; `None` where one of them is empty.
    pub(crate) fn difference(
        &self,
        scorer: &Scorer,
        first: &dyn Fn(&Subject) -> bool,
        second: &dyn Fn(&Subject) -> bool,
    ) -> Result<Option<Estimate>, StudyError> {
        let (first, second) = (self.scores(scorer, first)?, self.scores(scorer, second)?);
        if first.clusters() == 0 || second.clusters() == 0 {
            return Ok(None);
        }
        let mut rng = self.rng();
        paired_difference_interval(&first, &second, resamples(scorer), LEVEL, &mut rng)
            .map(Some)
            .map_err(StudyError::stats(format!("difference of {}", scorer.label)))
    }

    /// Every interval draws the same resamples, so that intervals of one table are comparable.
    pub(crate) fn rng(&self) -> impl Rng + use<> {
        self.seeds.stream("resamples")
    }

    /// The mean training loss of selected subjects.
    pub(crate) fn training_loss(&self, keep: &dyn Fn(&Subject) -> bool) -> Option<f64> {
        let losses: Vec<f64> =
            self.evaluated.iter().filter(|e| keep(&e.subject)).filter_map(|e| e.training_loss).collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// The mean of something that was measured on held-out pairs, over selected subjects.
    pub(crate) fn held_out(
        &self,
        keep: &dyn Fn(&Subject) -> bool,
        of: fn(&HeldOutMetrics) -> Option<f64>,
    ) -> Option<f64> {
        let selected = self.evaluated.iter().filter(|e| keep(&e.subject));
        let values: Vec<f64> = selected.filter_map(|e| of(e.held_out.as_ref()?)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// What selected subjects made of their labels, their pairs taken together; `None` where that was not kept of any.
    pub(crate) fn labels(&self, keep: &dyn Fn(&Subject) -> bool) -> Option<FittedLabels> {
        let selected = self.evaluated.iter().filter(|e| keep(&e.subject)).filter_map(|e| e.labels);
        selected.reduce(|all, one| FittedLabels {
            kept: all.kept.with(one.kept),
            flipped: all.flipped.with(one.flipped),
        })
    }

    /// How long selected answers to a scorer's questions are, in characters.
    pub(crate) fn mean_length(&self, scorer: &Scorer, keep: &dyn Fn(&Subject) -> bool) -> Option<f64> {
        let lengths: Vec<f64> = self.scored(scorer, keep).map(|(_, score)| score.characters as f64).collect();
        (!lengths.is_empty()).then(|| lengths.iter().sum::<f64>() / lengths.len() as f64)
    }

    /// A scorer in a sentence: the sandbox's have descriptions, a model has its name.
    pub(crate) fn spoken(&self, scorer: &Scorer) -> String {
        if self.recipe.is_sandbox() { format!("the {}", scorer.label) } else { scorer.label.clone() }
    }

    pub(crate) fn last_checkpoint(&self) -> usize {
        self.recipe.train.checkpoints.len() - 1
    }

    /// How scores are averaged and what the intervals mean.
    pub(crate) fn interval_note(&self) -> String {
        let study = &self.recipe.study;
        let questions = study.questions;
        let seeds = if study.seeds == 1 { "1 seed".to_owned() } else { format!("{} seeds", study.seeds) };
        let further = match self.recipe.is_sandbox() {
            true => format!(
                ", of gold on further questions over {} × 2 × {}",
                self.recipe.sandbox.further_questions, study.seeds
            ),
            false => String::new(),
        };
        format!(
            "Means over {questions} questions × 2 turns × {seeds}{further}. Brackets: {}% bootstrap intervals clustered by \
             question, conditional on these seeds: they say what other questions would change, not what other seeds would.",
            percent(LEVEL)
        )
    }

    pub(crate) fn missing_notes(&self, scorers: &[&Scorer]) -> Vec<String> {
        scorers
            .iter()
            .filter_map(|scorer| {
                let missing = self.missing(scorer);
                (missing > 0)
                    .then(|| format!("{missing} turns have no readable verdict of {}.", self.spoken(scorer)))
            })
            .collect()
    }
}

fn resamples(scorer: &Scorer) -> usize {
    if scorer.question_set == FURTHER { FURTHER_RESAMPLES } else { RESAMPLES }
}

/// Mean benchmark scores by category, for a figure: category → (value, low, high).
pub(crate) fn by_category(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    keep: &dyn Fn(&Subject) -> bool,
) -> Result<BTreeMap<String, (f64, f64, f64)>, StudyError> {
    let mut by_category: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for (_, score) in analysis.scored(scorer, keep) {
        if let Some(value) = score.score {
            by_category.entry(score.category.clone()).or_default().push((score.question_id, value));
        }
    }
    let mut means = BTreeMap::new();
    for (category, rows) in by_category {
        let what = || format!("scores in {category}");
        let scores = ClusteredScores::new(rows).map_err(StudyError::stats(what()))?;
        if scores.clusters() < 2 {
            continue;
        }
        let mut rng = analysis.rng();
        let estimate =
            mean_interval(&scores, FURTHER_RESAMPLES, LEVEL, &mut rng).map_err(StudyError::stats(what()))?;
        means.insert(category, (estimate.value, estimate.low, estimate.high));
    }
    Ok(means)
}
