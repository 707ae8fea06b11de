//! The data source of an experiment: the sandbox, or a given model with preferences and a benchmark.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mtbench::{Answer, Question};
use pref_data::Tokenizer;
use seeds::Seeds;
use trainer::Context;

use crate::error::ExperimentError;
use crate::setup::Setup;
use crate::store::{Key, ResultStore};

mod given;
mod sandbox;

use given::GivenSource;
use sandbox::SandboxSource;

/// What all runs start from: a policy, preferences, and the benchmark's questions.
#[derive(Debug)]
pub struct DataSource {
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Sandbox(Box<SandboxSource>),
    Given(Box<GivenSource>),
}

/// Calls a method that both sources have.
macro_rules! of_either {
    ($source:expr, $of:ident => $value:expr) => {
        match &$source.origin {
            Origin::Sandbox($of) => $value,
            Origin::Given($of) => $value,
        }
    };
}

impl DataSource {
    /// Opens the source of `setup`; [`prepare`](Self::prepare) creates missing parts.
    ///
    /// # Errors
    ///
    /// If the benchmark has fewer questions than the setup requires, or a given file cannot be read.
    pub fn new(setup: &Setup, store: &ResultStore) -> Result<Self, ExperimentError> {
        let origin = if setup.is_sandbox() {
            Origin::Sandbox(Box::new(SandboxSource::new(setup, store)?))
        } else {
            Origin::Given(Box::new(GivenSource::new(setup)?))
        };
        Ok(Self { origin })
    }

    /// Returns whether it is the sandbox, whose gold quality is known.
    pub fn is_sandbox(&self) -> bool {
        matches!(self.origin, Origin::Sandbox(_))
    }

    /// Returns the Hugging Face folder of the supervised policy, which exists after [`prepare`](Self::prepare).
    pub fn model(&self) -> PathBuf {
        of_either!(self, source => source.model())
    }

    /// Returns the address of policy and preferences.
    pub fn key(&self) -> &Key {
        of_either!(self, source => &source.key)
    }

    /// Returns the file of a replicate's preferences, which exists after [`prepare`](Self::prepare).
    pub fn records(&self, seed: u64) -> PathBuf {
        of_either!(self, source => source.records(seed))
    }

    /// Returns the file of a replicate's held-out preferences, which exists after [`prepare`](Self::prepare).
    pub fn held_out(&self, seed: u64) -> Option<PathBuf> {
        of_either!(self, source => source.held_out(seed))
    }

    /// Returns the number of pairs of a replicate, at most.
    ///
    /// # Errors
    ///
    /// If given preferences cannot be read.
    pub(crate) fn pairs(&self) -> Result<u64, ExperimentError> {
        of_either!(self, source => source.pairs())
    }

    /// Returns the benchmark's questions.
    pub fn questions(&self) -> &[Question] {
        of_either!(self, source => &source.questions)
    }

    /// Returns the held-out questions, on which gold quality is computed; only the sandbox has them.
    pub fn further(&self) -> &[Question] {
        match &self.origin {
            Origin::Sandbox(source) => &source.further,
            Origin::Given(_) => &[],
        }
    }

    /// Returns the reference answers that judges see.
    pub fn references(&self) -> &[Answer] {
        of_either!(self, source => &source.references)
    }

    /// Returns the maximum length of an answer, in tokens.
    pub fn max_new_tokens(&self) -> usize {
        of_either!(self, source => source.max_new_tokens())
    }

    /// Returns the random streams of one replicate.
    pub fn replicate(&self, seed: u64) -> Seeds {
        of_either!(self, source => &source.seeds).child(&format!("replicate-{seed}"))
    }

    /// Returns the chat template that replaces the model's.
    pub(crate) fn template(&self) -> Option<&str> {
        match &self.origin {
            Origin::Sandbox(_) => None,
            Origin::Given(source) => source.tokenizer.replacing_template(),
        }
    }

    /// Returns the tokenizer of all policies, which exists after [`prepare`](Self::prepare).
    ///
    /// # Errors
    ///
    /// If its folder cannot be read.
    pub fn tokenizer(&self) -> Result<&Tokenizer, ExperimentError> {
        match &self.origin {
            Origin::Sandbox(source) => source.tokenizer(),
            Origin::Given(source) => Ok(&source.tokenizer),
        }
    }

    /// Returns whether everything exists that `seeds` replicates start from.
    pub fn is_prepared(&self, seeds: u64) -> bool {
        match &self.origin {
            Origin::Sandbox(source) => source.is_prepared(seeds),
            Origin::Given(_) => true,
        }
    }

    /// Returns the optimizer steps and sampled answers that [`prepare`](Self::prepare) needs for `seeds` replicates.
    pub(crate) fn preparation_left(&self, seeds: u64) -> (u64, u64) {
        match &self.origin {
            Origin::Sandbox(source) => source.preparation_left(seeds),
            Origin::Given(_) => (0, 0),
        }
    }

    /// Creates the missing parts of the sandbox: tokenizer, policies, and the records of `seeds` replicates.
    ///
    /// # Errors
    ///
    /// If a folder cannot be written, training fails, or the caller asks to stop.
    pub fn prepare(&self, seeds: u64, context: &mut Context<'_>) -> Result<(), ExperimentError> {
        match &self.origin {
            Origin::Sandbox(source) => source.prepare(seeds, context),
            Origin::Given(_) => Ok(()),
        }
    }
}

/// Keeps `wanted` questions, as many per category as possible.
fn keep_evenly(questions: &mut Vec<Question>, wanted: usize) -> Result<(), ExperimentError> {
    let all = questions.len();
    if wanted > all || wanted == 0 {
        return Err(ExperimentError::Unsupported(format!(
            "cannot take {wanted} questions: the benchmark has {all}; choose 1 to {all}"
        )));
    }
    let mut by_category: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for question in questions.iter() {
        by_category.entry(question.category.clone()).or_default().push(question.question_id);
    }
    let mut kept = Vec::new();
    for round in 0.. {
        let ids: Vec<u64> = by_category.values().filter_map(|ids| ids.get(round).copied()).collect();
        if ids.is_empty() || kept.len() >= wanted {
            break;
        }
        kept.extend(ids);
    }
    kept.truncate(wanted);
    questions.retain(|question| kept.contains(&question.question_id));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_questions_are_spread_over_the_categories() {
        let mut questions = ::sandbox::questions(&Seeds::new(0));
        keep_evenly(&mut questions, 16).unwrap();
        let mut categories: BTreeMap<&str, usize> = BTreeMap::new();
        for question in &questions {
            *categories.entry(&question.category).or_default() += 1;
        }
        assert_eq!(questions.len(), 16);
        assert!(categories.values().all(|&n| n == 2), "{categories:?}");
        let refusal = keep_evenly(&mut questions, 17).unwrap_err().to_string();
        assert!(refusal.contains("choose 1 to 16"), "{refusal}");
    }
}
