//! The answers of the trained policies.

use mtbench::{Answer, Question};

use super::Registry;
use crate::error::ExperimentError;

/// The answers of one policy at the end of its training.
#[derive(Clone, Debug)]
pub struct PolicyAnswers {
    /// The address of its training run, as in the results' column `cell`; the data source's for the supervised policy.
    pub cell: String,
    /// Its seed.
    pub seed: u64,
    /// The benchmark's questions.
    pub questions: Vec<Question>,
    /// Its answers to them.
    pub answers: Vec<Answer>,
}

impl Registry {
    /// Reads the answers of every evaluated policy at the end of its training.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn final_answers(&self) -> Result<Vec<PolicyAnswers>, ExperimentError> {
        let mut found = Vec::new();
        for entry in &self.entries {
            let Some(runner) = self.runner(entry) else { continue };
            for subject in entry.subjects.iter().filter(|subject| runner.is_final(subject)) {
                let Some(evaluated) = runner.evaluated(subject)? else { continue };
                found.push(PolicyAnswers {
                    cell: evaluated.key.as_str().to_owned(),
                    seed: subject.seed(),
                    questions: evaluated.evaluation.bench.questions()?,
                    answers: evaluated.evaluation.answers()?,
                });
            }
        }
        Ok(found)
    }
}
