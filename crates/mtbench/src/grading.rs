//! Single-answer grading: which calls it takes, and how their texts become judgments.

use std::collections::BTreeMap;

use crate::judgment::{JudgedBy, Judgment, SingleKey, with_repeat};
use crate::question_id::question_label;
use crate::transcripts::Transcripts;
use crate::{
    Answer, Draw, Error, JUDGE_FAILED, Judge, JudgePrompt, JudgePrompts, JudgeRequest, Mode, Question, Stamp,
    Verdict,
};

/// The inputs of single-answer judging, except the answers.
#[derive(Clone, Copy, Debug)]
pub struct SingleGrading<'a> {
    /// The questions to judge.
    pub questions: &'a [Question],
    /// The prompts to choose from.
    pub prompts: &'a JudgePrompts,
    /// Reference answers of the categories that [need them](Question::needs_reference).
    pub references: &'a [Answer],
}

/// A call to make.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeCall<'a> {
    /// The input of the judge.
    pub request: JudgeRequest<'a>,
    /// The prompt template.
    pub prompt: &'a JudgePrompt,
}

impl<'a> SingleGrading<'a> {
    /// Returns the calls that judge `answers`, in FastChat's order: first turns before second turns, categories without a
    /// reference before those with one, then by question, then by model name.
    ///
    /// Nothing is judged. What is missing is an error before anything is paid.
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

impl JudgeCall<'_> {
    /// The identity of this call's judgment by `judge`.
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

    /// Returns the judgment of this call: the text of `judge` and its verdict.
    pub fn record(self, judge: &str, text: String, verdict: Verdict, tstamp: f64) -> Judgment {
        let SingleKey { question_id, model, judge, turn, repeat } = self.key(judge);
        Judgment {
            question_id,
            model,
            judge,
            user_prompt: self.request.user_prompt,
            judgment: text,
            verdict,
            turn,
            tstamp: Some(tstamp),
            extra: with_repeat(repeat),
        }
    }
}

/// Judges every turn of `answers`, of one model or several, one call after the other.
///
/// As in FastChat, a failed call is recorded with the text [`JUDGE_FAILED`] and without a rating.
/// [`Jury`](crate::Jury) keeps judgments on file and makes several calls at a time.
///
/// # Errors
///
/// Those of [`SingleGrading::calls`], before the first call. [`Error::Rating`] in [`Mode::FastChat`] for a rating at which
/// FastChat stops.
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
    let SingleKey { question_id, model, turn, .. } = call.key(judge.name());
    let text = judge.judge(&call.request).unwrap_or_else(|error| {
        let question = question_label(question_id);
        tracing::warn!(judge = judge.name(), model, question, turn, error = %error, "judge call failed");
        JUDGE_FAILED.to_owned()
    });
    let verdict = Verdict::of_single(&text, mode);
    let verdict = verdict.map_err(|source| Error::Rating { model, question_id, turn, source })?;
    Ok(call.record(judge.name(), text, verdict, stamp.tstamp()))
}
