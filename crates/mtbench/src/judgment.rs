//! Judgments, as FastChat's `model_judgment/JUDGE_single.jsonl` holds them, and how they come about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Answer, Draw, Error, Judge, JudgePrompt, JudgePrompts, JudgeRequest, Mode, Question, Rating, Stamp,
    UnreadableRating, parse_rating, python_json::finite, rating,
};

/// One judged turn of one answer. Field order is that of FastChat's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgment {
    /// The question.
    pub question_id: u64,
    /// The model that is judged.
    pub model: String,
    /// Who judged, and by which prompt.
    pub judge: JudgedBy,
    /// What the judge was asked.
    pub user_prompt: String,
    /// What the judge said; [`JUDGE_FAILED`] if it said nothing.
    pub judgment: String,
    /// The rating that was read from it, `None` (−1 in the file) if there is none.
    #[serde(with = "rating")]
    pub score: Option<Rating>,
    /// The turn that is judged: 1 or 2.
    pub turn: u8,
    /// When it was judged, in seconds since 1970.
    #[serde(serialize_with = "finite")]
    pub tstamp: f64,
    /// Fields that other writers add: kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A judge and its prompt: a pair in FastChat's files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(String, String)", into = "(String, String)")]
pub struct JudgedBy {
    /// The judge's [name](Judge::name).
    pub judge: String,
    /// The prompt's [name](JudgePrompt::name).
    pub prompt: String,
}

impl From<(String, String)> for JudgedBy {
    fn from((judge, prompt): (String, String)) -> Self {
        Self { judge, prompt }
    }
}

impl From<JudgedBy> for (String, String) {
    fn from(by: JudgedBy) -> Self {
        (by.judge, by.prompt)
    }
}

/// What FastChat records as the judgment of a call that failed for good.
pub const JUDGE_FAILED: &str = "$ERROR$";

impl Judgment {
    /// The same judgment with its rating read from the text again: for files whose ratings were read in another mode.
    ///
    /// # Errors
    ///
    /// As [`parse_rating`].
    pub fn reread(self, mode: Mode) -> Result<Self, UnreadableRating> {
        Ok(Self { score: parse_rating(&self.judgment, mode)?, ..self })
    }

    /// The number of the repeat, from 0: one judge's several opinions on one answer.
    pub fn repeat(&self) -> u32 {
        repeat_of(&self.extra)
    }

    /// What a rerun replaces.
    pub(crate) fn key(&self) -> SingleKey {
        SingleKey {
            question_id: self.question_id,
            model: self.model.clone(),
            judge: self.judge.clone(),
            turn: self.turn,
            repeat: self.repeat(),
        }
    }
}

/// What tells one judgment from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SingleKey {
    pub(crate) question_id: u64,
    pub(crate) model: String,
    pub(crate) judge: JudgedBy,
    pub(crate) turn: u8,
    pub(crate) repeat: u32,
}

/// The field that numbers repeats, from 1; FastChat's lines, and first opinions, have none.
const REPEAT: &str = "repeat";

pub(crate) fn repeat_of(extra: &Map<String, Value>) -> u32 {
    let given = extra.get(REPEAT).and_then(Value::as_u64);
    given.and_then(|repeat| u32::try_from(repeat).ok()).unwrap_or(0)
}

pub(crate) fn with_repeat(repeat: u32) -> Map<String, Value> {
    if repeat == 0 { Map::new() } else { Map::from_iter([(REPEAT.to_owned(), repeat.into())]) }
}

/// What single-answer judging works with, apart from the answers themselves.
#[derive(Clone, Copy, Debug)]
pub struct SingleGrading<'a> {
    /// The questions to judge.
    pub questions: &'a [Question],
    /// The prompts to choose from.
    pub prompts: &'a JudgePrompts,
    /// Reference answers for the categories that [need them](Question::needs_reference).
    pub references: &'a [Answer],
}

/// A call to make: what the judge sees, and the prompt by which it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeCall<'a> {
    /// What the judge sees.
    pub request: JudgeRequest<'a>,
    /// The prompt that was filled in.
    pub prompt: &'a JudgePrompt,
}

impl<'a> SingleGrading<'a> {
    /// Every call that judging the models of `answers` takes, in FastChat's order: first turns before second turns, in
    /// each of them the categories without a reference before those with one, then by question, then by model name.
    ///
    /// Nothing is judged, so that what is missing is known before anything is paid for.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], [`Error::NoReference`], [`Error::NoPrompt`], [`Error::Template`], [`Error::Turns`].
    pub fn calls(&self, answers: &'a [Answer]) -> Result<Vec<JudgeCall<'a>>, Error> {
        let transcripts = Transcripts::new(answers, self.references);
        let models = transcripts.models();
        let mut calls = Vec::new();
        for turn in [1, 2] {
            for with_reference in [false, true] {
                for question in self.questions {
                    let turns = question.checked_turns()?;
                    if turns < usize::from(turn) || question.needs_reference() != with_reference {
                        continue;
                    }
                    for model in &models {
                        let turns = transcripts.turns(question, model, turn)?;
                        calls.push(self.call(question, model, turns, turn, &transcripts)?);
                    }
                }
            }
        }
        Ok(calls)
    }

    fn call(
        &self,
        question: &'a Question,
        model: &'a str,
        answers: &'a [String],
        turn: u8,
        transcripts: &Transcripts<'a>,
    ) -> Result<JudgeCall<'a>, Error> {
        let prompt = self.prompts.single(question, turn)?;
        let mut values: BTreeMap<&str, &str> = match (answers, question.turns.as_slice()) {
            ([answer_1, answer_2], [question_1, question_2]) => BTreeMap::from([
                ("question_1", question_1.as_str()),
                ("question_2", question_2),
                ("answer_1", answer_1),
                ("answer_2", answer_2),
            ]),
            _ => BTreeMap::from([("question", question.turns[0].as_str()), ("answer", &answers[0])]),
        };
        values.extend(transcripts.reference(question, prompt)?);
        Ok(JudgeCall {
            request: JudgeRequest {
                question,
                model,
                answers,
                rival: None,
                turn,
                system_prompt: prompt.system_prompt.clone(),
                user_prompt: prompt.fill(&values)?,
                draw: Draw::default(),
            },
            prompt,
        })
    }
}

/// Answers by model and question, and references by question.
pub(crate) struct Transcripts<'a> {
    models: BTreeMap<&'a str, BTreeMap<u64, &'a Answer>>,
    references: BTreeMap<u64, &'a Answer>,
}

impl<'a> Transcripts<'a> {
    /// Where a question is answered twice, the last answer counts.
    pub(crate) fn new(answers: &'a [Answer], references: &'a [Answer]) -> Self {
        let mut models: BTreeMap<&str, BTreeMap<u64, &Answer>> = BTreeMap::new();
        for answer in answers {
            let of_model = models.entry(&answer.model_id).or_default();
            of_model.insert(answer.question_id, answer);
        }
        Self { models, references: references.iter().map(|answer| (answer.question_id, answer)).collect() }
    }

    /// The models, in the order of their names.
    pub(crate) fn models(&self) -> Vec<&'a str> {
        self.models.keys().copied().collect()
    }

    /// The first `turn` answers of `model` to `question`, which must be answered in full.
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

    /// What `prompt` shows of the reference to `question`.
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

impl JudgeCall<'_> {
    /// What tells this call to `judge` from others.
    pub(crate) fn key(&self, judge: &str) -> SingleKey {
        let request = &self.request;
        SingleKey {
            question_id: request.question.question_id,
            model: request.model.to_owned(),
            judge: JudgedBy { judge: judge.to_owned(), prompt: self.prompt.name.clone() },
            turn: request.turn,
            repeat: request.draw.repeat,
        }
    }

    /// The record of what `judge` said to this call.
    ///
    /// # Errors
    ///
    /// As [`parse_rating`].
    pub fn record(
        self,
        judge: &str,
        said: String,
        mode: Mode,
        tstamp: f64,
    ) -> Result<Judgment, UnreadableRating> {
        Ok(Judgment {
            question_id: self.request.question.question_id,
            model: self.request.model.to_owned(),
            judge: JudgedBy { judge: judge.to_owned(), prompt: self.prompt.name.clone() },
            score: parse_rating(&said, mode)?,
            user_prompt: self.request.user_prompt,
            judgment: said,
            turn: self.request.turn,
            tstamp,
            extra: with_repeat(self.request.draw.repeat),
        })
    }
}

/// Has `judge` rate every turn of `answers`, of one model or several, and reads its verdicts.
///
/// A call that fails is recorded as FastChat records it, with [`JUDGE_FAILED`] for its text and without a rating. Who
/// wants to keep calls that have been paid for, or to make several at a time, takes [`SingleGrading::calls`] and
/// [`JudgeCall::record`] apart.
///
/// # Errors
///
/// What [`SingleGrading::calls`] fails with, before the first call; [`Error::Rating`] in [`Mode::FastChat`] for a rating
/// on which FastChat stops.
pub fn judge_answers(
    grading: &SingleGrading<'_>,
    answers: &[Answer],
    judge: &dyn Judge,
    mode: Mode,
    stamp: &mut dyn Stamp,
) -> Result<Vec<Judgment>, Error> {
    let calls = grading.calls(answers)?;
    calls.into_iter().map(|call| judge_call(call, judge, mode, stamp)).collect()
}

fn judge_call(
    call: JudgeCall<'_>,
    judge: &dyn Judge,
    mode: Mode,
    stamp: &mut dyn Stamp,
) -> Result<Judgment, Error> {
    let JudgeRequest { question, model, turn, .. } = call.request;
    let question_id = question.question_id;
    let said = judge.judge(&call.request).unwrap_or_else(|error| {
        tracing::warn!(judge = judge.name(), model, question_id, turn, error = %error, "judge call failed");
        JUDGE_FAILED.to_owned()
    });
    let model = model.to_owned();
    call.record(judge.name(), said, mode, stamp.tstamp()).map_err(|source| Error::Rating {
        model,
        question_id,
        turn,
        source,
    })
}
