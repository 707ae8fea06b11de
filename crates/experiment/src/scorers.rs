//! Scorers: judges, and gold quality in the sandbox.

use crate::evaluated::{BENCHMARK, FURTHER, GOLD, Score};
use crate::judges;
use crate::setup::Setup;

/// A scorer on a set of questions.
#[derive(Clone, Debug)]
pub struct Scorer {
    /// Its description in rows and sentences.
    pub label: String,
    /// Its heading in tables.
    pub title: String,
    /// Its name in [`Score`].
    pub name: String,
    /// Its question set.
    pub question_set: &'static str,
}

impl Scorer {
    /// Returns whether it gave a score.
    pub fn is_of(&self, score: &Score) -> bool {
        score.scorer == self.name && score.question_set == self.question_set
    }
}

/// The scorers of an experiment.
#[derive(Clone, Debug)]
pub struct Scorers {
    /// The main judge.
    pub judge: Scorer,
    /// A second judge; in the sandbox one with the LLM annotator's bias.
    pub second: Option<Scorer>,
    /// Gold quality on the benchmark and on the held-out questions, in the sandbox.
    pub gold: Option<[Scorer; 2]>,
}

impl Scorers {
    /// Returns the scorers of `setup`.
    pub fn of(setup: &Setup) -> Self {
        let scorer = |label: &str, title: &str, name: &str, question_set| Scorer {
            label: label.to_owned(),
            title: title.to_owned(),
            name: name.to_owned(),
            question_set,
        };
        let names = judges::names(&setup.judge);
        if !setup.is_sandbox() {
            let title = if names.len() > 1 { names[0].as_str() } else { "Judge" };
            return Self {
                judge: scorer(&names[0], title, &names[0], BENCHMARK),
                second: names.get(1).map(|name| scorer(name, name, name, BENCHMARK)),
                gold: None,
            };
        }
        let held_out = format!("gold, {} held-out questions", setup.sandbox.further_questions);
        let biased = "biased judge";
        Self {
            judge: scorer("judge", "Judge", &names[0], BENCHMARK),
            second: names.get(1).map(|name| scorer(biased, "Biased judge", name, BENCHMARK)),
            gold: Some([
                scorer("gold", "Gold", GOLD, BENCHMARK),
                scorer(&held_out, "Ground truth (held-out questions)", GOLD, FURTHER),
            ]),
        }
    }

    /// Returns all scorers, the main judge first.
    pub fn all(&self) -> Vec<&Scorer> {
        [&self.judge].into_iter().chain(&self.second).chain(self.gold.iter().flatten()).collect()
    }

    /// Returns the scorers of every table: the main judge, and the ground truth or else the second judge.
    pub fn shown(&self) -> Vec<&Scorer> {
        let other = match &self.gold {
            Some([_, held_out]) => Some(held_out),
            None => self.second.as_ref(),
        };
        [&self.judge].into_iter().chain(other).collect()
    }
}
