//! What a study starts from: the offline world, or a model, preferences and a benchmark of the user's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mtbench::{Answer, Question};
use pref_data::Tokenizer;
use seeds::Seeds;
use trainer::Context;

use crate::error::StudyError;
use crate::recipe::StudyRecipe;
use crate::store::{Key, ResultStore};

mod given;
mod sandbox;

use given::GivenWorld;
use sandbox::SandboxWorld;

/// What a study starts from: a policy, preferences, the benchmark's questions.
#[derive(Debug)]
pub struct World {
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Sandbox(SandboxWorld),
    Given(GivenWorld),
}

/// Calls a method that both worlds have.
macro_rules! of_either {
    ($world:expr, $of:ident => $value:expr) => {
        match &$world.origin {
            Origin::Sandbox($of) => $value,
            Origin::Given($of) => $value,
        }
    };
}

impl World {
    /// The world of `recipe`, as far as it is made already; [`prepare`](Self::prepare) makes the rest.
    ///
    /// # Errors
    ///
    /// Where the recipe asks for more questions than the benchmark has, and where a model, data or a benchmark of the user's
    /// own cannot be read.
    pub fn new(recipe: &StudyRecipe, store: &ResultStore) -> Result<Self, StudyError> {
        let origin = if recipe.is_sandbox() {
            Origin::Sandbox(SandboxWorld::new(recipe, store)?)
        } else {
            Origin::Given(GivenWorld::new(recipe)?)
        };
        Ok(Self { origin })
    }

    /// Whether it is the offline world, whose true quality is known.
    pub fn is_sandbox(&self) -> bool {
        matches!(self.origin, Origin::Sandbox(_))
    }

    /// The policy that all runs start from, a Hugging Face folder; there after [`prepare`](Self::prepare).
    pub fn model(&self) -> PathBuf {
        of_either!(self, world => world.model())
    }

    /// The address of the policy and the preferences.
    pub fn key(&self) -> &Key {
        of_either!(self, world => &world.key)
    }

    /// The preference records of one replicate; there after [`prepare`](Self::prepare).
    pub fn records(&self, seed: u64) -> PathBuf {
        of_either!(self, world => world.records(seed))
    }

    /// Records that are measured in training and not trained on; there after [`prepare`](Self::prepare).
    pub fn held_out(&self, seed: u64) -> Option<PathBuf> {
        of_either!(self, world => world.held_out(seed))
    }

    /// How many pairs a replicate has, at most.
    ///
    /// # Errors
    ///
    /// Where preferences of the user's own cannot be read.
    pub(crate) fn pairs(&self) -> Result<u64, StudyError> {
        of_either!(self, world => world.pairs())
    }

    /// The benchmark's questions.
    pub fn questions(&self) -> &[Question] {
        of_either!(self, world => &world.questions)
    }

    /// Questions beside the benchmark's, on which gold quality is taken; only the sandbox has some.
    pub fn further(&self) -> &[Question] {
        match &self.origin {
            Origin::Sandbox(world) => &world.further,
            Origin::Given(_) => &[],
        }
    }

    /// Answers that judging shows in the categories that have a right one.
    pub fn references(&self) -> &[Answer] {
        of_either!(self, world => &world.references)
    }

    /// The longest answer, in tokens.
    pub fn max_new_tokens(&self) -> usize {
        of_either!(self, world => world.max_new_tokens())
    }

    /// The streams of one replicate.
    pub fn replicate(&self, seed: u64) -> Seeds {
        of_either!(self, world => &world.seeds).child(&format!("replicate-{seed}"))
    }

    /// The tokenizer of all policies; there after [`prepare`](Self::prepare).
    ///
    /// # Errors
    ///
    /// Where its folder cannot be read.
    pub fn tokenizer(&self) -> Result<&Tokenizer, StudyError> {
        match &self.origin {
            Origin::Sandbox(world) => world.tokenizer(),
            Origin::Given(world) => Ok(&world.tokenizer),
        }
    }

    /// Whether everything is made that `seeds` replicates start from.
    pub fn is_prepared(&self, seeds: u64) -> bool {
        match &self.origin {
            Origin::Sandbox(world) => world.is_prepared(seeds),
            Origin::Given(_) => true,
        }
    }

    /// What [`prepare`](Self::prepare) has left to do for `seeds` replicates: optimiser steps, and answers to sample.
    pub(crate) fn preparation_left(&self, seeds: u64) -> (u64, u64) {
        match &self.origin {
            Origin::Sandbox(world) => world.preparation_left(seeds),
            Origin::Given(_) => (0, 0),
        }
    }

    /// Makes what is missing: of the sandbox tokenizer, policies, and the records of `seeds` replicates; what is given is
    /// there.
    ///
    /// # Errors
    ///
    /// Where a folder cannot be written, training fails, or somebody asks to stop.
    pub fn prepare(&self, seeds: u64, context: &mut Context<'_>) -> Result<(), StudyError> {
        match &self.origin {
            Origin::Sandbox(world) => world.prepare(seeds, context),
            Origin::Given(_) => Ok(()),
        }
    }
}

/// Keeps `wanted` questions, the same number in each category as far as possible.
fn keep_evenly(questions: &mut Vec<Question>, wanted: usize) -> Result<(), StudyError> {
    let all = questions.len();
    if wanted > all || wanted == 0 {
        return Err(StudyError::Unsupported(format!(
            "study.questions = {wanted}: the benchmark has {all}; choose 1 to {all}"
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
