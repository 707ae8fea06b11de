//! Pairwise grading: which calls it takes, and how their texts become comparisons.

use std::collections::BTreeMap;

use crate::judgment::{JudgedBy, with_repeat};
use crate::pair::{PairJudgment, PairKey, Winner};
use crate::transcripts::Transcripts;
use crate::{Answer, Draw, Error, JudgePrompt, JudgePrompts, JudgeRequest, Question, Rival, Verdict};

/// Which models are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Games<'a> {
    /// Every other model with this one.
    Baseline(&'a str),
    /// Each with every other.
    All,
}

/// The inputs of comparisons, except the answers.
#[derive(Clone, Copy, Debug)]
pub struct PairGrading<'a> {
    /// The questions to judge.
    pub questions: &'a [Question],
    /// The prompts to choose from.
    pub prompts: &'a JudgePrompts,
    /// Reference answers of the categories that [need them](Question::needs_reference).
    pub references: &'a [Answer],
    /// Which models are compared.
    pub games: Games<'a>,
}

/// A comparison to make: two calls.
#[derive(Clone, Debug, PartialEq)]
pub struct PairCall<'a> {
    /// The judge's input in each game. In the second game the models have swapped places.
    pub games: [JudgeRequest<'a>; 2],
    /// The prompt template.
    pub prompt: &'a JudgePrompt,
}

impl<'a> PairGrading<'a> {
    /// Returns the comparisons of the models of `answers`, in FastChat's order: first turns before second turns, categories
    /// without a reference before those with one, then by question, then by model names.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], [`Error::NoReference`], [`Error::NoPrompt`], [`Error::Template`], [`Error::Turns`].
    pub fn calls(&self, answers: &'a [Answer]) -> Result<Vec<PairCall<'a>>, Error> {
        let transcripts = Transcripts::new(answers, self.references);
        let pairs = self.pairs(&transcripts.models())?;
        let mut calls = Vec::new();
        for turn in [1, 2] {
            for with_reference in [false, true] {
                for question in self.questions {
                    let turns = question.checked_turns()?;
                    if turns < usize::from(turn) || question.needs_reference() != with_reference {
                        continue;
                    }
                    for (model_1, model_2) in &pairs {
                        let of = |model| transcripts.turns(question, model, turn);
                        let (one, two) = (of(model_1)?, of(model_2)?);
                        let prompt = self.prompts.pair(question, turn)?;
                        let game = |a: (&'a str, &'a [String]), b: (&'a str, &'a [String])| {
                            self.game(question, turn, prompt, &transcripts, a, b)
                        };
                        let games =
                            [game((model_1, one), (model_2, two))?, game((model_2, two), (model_1, one))?];
                        calls.push(PairCall { games, prompt });
                    }
                }
            }
        }
        Ok(calls)
    }

    fn pairs(&self, models: &[&'a str]) -> Result<Vec<(&'a str, &'a str)>, Error> {
        match self.games {
            Games::Baseline(baseline) => {
                let baseline =
                    models.iter().find(|model| **model == baseline).ok_or_else(|| Error::NoModel {
                        model: baseline.to_owned(),
                        what: "answers".to_owned(),
                        known: models.iter().map(|model| (*model).to_owned()).collect(),
                    })?;
                let others = models.iter().filter(|model| *model != baseline);
                Ok(others.map(|model| (*model, *baseline)).collect())
            }
            Games::All => Ok(models
                .iter()
                .enumerate()
                .flat_map(|(i, one)| models[i + 1..].iter().map(move |two| (*one, *two)))
                .collect()),
        }
    }

    fn game(
        &self,
        question: &'a Question,
        turn: u8,
        prompt: &JudgePrompt,
        transcripts: &Transcripts<'a>,
        (model_a, a): (&'a str, &'a [String]),
        (model_b, b): (&'a str, &'a [String]),
    ) -> Result<JudgeRequest<'a>, Error> {
        let mut values: BTreeMap<&str, &str> = match (a, b, question.turns.as_slice()) {
            ([a_1, a_2], [b_1, b_2], [question_1, question_2]) => BTreeMap::from([
                ("question_1", question_1.as_str()),
                ("question_2", question_2),
                ("answer_a_1", a_1),
                ("answer_a_2", a_2),
                ("answer_b_1", b_1),
                ("answer_b_2", b_2),
            ]),
            _ => BTreeMap::from([
                ("question", question.turns[0].as_str()),
                ("answer_a", &a[0]),
                ("answer_b", &b[0]),
            ]),
        };
        values.extend(transcripts.reference(question, prompt)?);
        Ok(JudgeRequest {
            question,
            model: model_a,
            answers: a,
            rival: Some(Rival { model: model_b, answers: b }),
            turn,
            system_prompt: prompt.system_prompt.clone(),
            user_prompt: prompt.fill(&values)?,
            draw: Draw::default(),
        })
    }
}

impl PairCall<'_> {
    /// The identity of this comparison by `judge`.
    pub(crate) fn key(&self, judge: &str) -> PairKey {
        let [first, second] = &self.games;
        PairKey {
            question_id: first.question.question_id,
            models: (first.model.to_owned(), second.model.to_owned()),
            judge: JudgedBy { judge: judge.to_owned(), prompt: self.prompt.name.clone() },
            turn: first.turn,
            repeat: first.draw.repeat,
        }
    }

    /// Returns the comparison: the texts of `judge` in both games and their verdicts.
    pub fn record(self, judge: &str, said: [(String, Verdict); 2], tstamp: f64) -> PairJudgment {
        let PairKey { question_id, models, judge, turn, repeat } = self.key(judge);
        let [first, second] = self.games;
        let [(g1_judgment, one), (g2_judgment, two)] = said;
        PairJudgment {
            question_id,
            model_1: models.0,
            model_2: models.1,
            g1_winner: Winner::of_game(1, one),
            g2_winner: Winner::of_game(2, two),
            judge,
            g1_user_prompt: first.user_prompt,
            g1_judgment,
            g2_user_prompt: second.user_prompt,
            g2_judgment,
            turn,
            tstamp: Some(tstamp),
            extra: with_repeat(repeat),
        }
    }
}
