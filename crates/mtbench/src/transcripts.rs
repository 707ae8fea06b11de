//! Answers by model and question, and references by question.

use std::collections::BTreeMap;

use crate::{Answer, Error, JudgePrompt, Question};

/// Answers by model and question, and references by question.
pub(crate) struct Transcripts<'a> {
    models: BTreeMap<&'a str, BTreeMap<u64, &'a Answer>>,
    references: BTreeMap<u64, &'a Answer>,
}

impl<'a> Transcripts<'a> {
    /// Of several answers to a question the last one counts.
    pub(crate) fn new(answers: &'a [Answer], references: &'a [Answer]) -> Self {
        let mut models: BTreeMap<&str, BTreeMap<u64, &Answer>> = BTreeMap::new();
        for answer in answers {
            let of_model = models.entry(&answer.model_id).or_default();
            of_model.insert(answer.question_id, answer);
        }
        Self { models, references: references.iter().map(|answer| (answer.question_id, answer)).collect() }
    }

    /// Returns the models, by name.
    pub(crate) fn models(&self) -> Vec<&'a str> {
        self.models.keys().copied().collect()
    }

    /// Returns the first `turn` messages of `model` on `question`. All turns of the question must be answered.
    pub(crate) fn turns(&self, question: &Question, model: &str, turn: u8) -> Result<&'a [String], Error> {
        let answer = self.models.get(model).and_then(|of_model| of_model.get(&question.question_id)).copied();
        let turns = answer.map_or(&[][..], Answer::turns);
        if turns.len() < question.turns.len() {
            return Err(Error::NoAnswer {
                model: model.to_owned(),
                question_id: question.question_id,
                turns: turns.len(),
                needed: question.turns.len(),
            });
        }
        Ok(&turns[..usize::from(turn)])
    }

    /// Returns the values of the reference answer that `prompt` needs.
    pub(crate) fn reference(
        &self,
        question: &Question,
        prompt: &JudgePrompt,
    ) -> Result<impl Iterator<Item = (&'static str, &'a str)> + use<'a>, Error> {
        let reference = self.references.get(&question.question_id).copied().map_or(&[][..], Answer::turns);
        if reference.len() < prompt.reference_turns() {
            return Err(Error::NoReference {
                question_id: question.question_id,
                category: question.category.clone(),
                turns: reference.len(),
                needed: prompt.reference_turns(),
            });
        }
        Ok(["ref_answer_1", "ref_answer_2"].into_iter().zip(reference.iter().map(String::as_str)))
    }
}
