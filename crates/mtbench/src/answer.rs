//! Answers, as FastChat's `model_answer/ID.jsonl` holds them, and how they come about.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{BenchDir, Conversation, Error, Question, Responder, python_json::finite};

/// A model's answers to one question. Field order is that of FastChat's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question that is answered.
    pub question_id: u64,
    /// Identifies the answer; FastChat draws a short UUID.
    pub answer_id: String,
    /// The model that answered.
    pub model_id: String,
    /// One entry a sample; only the first is judged.
    pub choices: Vec<Choice>,
    /// When the question was answered, in seconds since 1970.
    #[serde(serialize_with = "finite")]
    pub tstamp: f64,
    /// Fields that other writers add, such as `generate_params`: kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One sampled dialogue of an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The sample's number, from 0.
    pub index: u64,
    /// What the model said, turn by turn.
    pub turns: Vec<String>,
}

impl Answer {
    /// The turns that are judged: those of the first choice, none where there is no choice.
    pub fn turns(&self) -> &[String] {
        self.choices.first().map_or(&[], |choice| &choice.turns)
    }
}

/// Where ids and times come from: this crate reads no clock and draws no random numbers.
pub trait Stamp {
    /// The id of the answer to question `question_id`.
    fn answer_id(&mut self, question_id: u64) -> String;

    /// The time that a row is stamped with, in seconds since 1970.
    fn tstamp(&mut self) -> f64;
}

/// Stamps that are the same in every run: ids `{prefix}-{question_id}` and a time that stands still.
///
/// For runs whose files must be equal byte for byte, and for tests.
#[derive(Clone, Debug, PartialEq)]
pub struct FixedStamp {
    /// What every id begins with.
    pub prefix: String,
    /// The time of every row, in seconds since 1970.
    pub tstamp: f64,
}

impl Stamp for FixedStamp {
    fn answer_id(&mut self, question_id: u64) -> String {
        format!("{}-{question_id}", self.prefix)
    }

    fn tstamp(&mut self) -> f64 {
        self.tstamp
    }
}

/// Asks `responder` all `questions` in two waves, all first turns and then all second turns, and returns one answer a
/// question, in the questions' order.
///
/// Questions that `on_file` answers in full under `model_id` are not asked again: their answers (the last one, where
/// there are several) are returned as they are. Pass `&[]` to answer everything. A second turn is asked with the first
/// answer in the conversation, and at the same [temperature](Question::temperature).
///
/// # Errors
///
/// [`Error::Turns`] before anything is asked; [`Error::Respond`] and [`Error::AnswerCount`] when the responder fails.
pub fn answer_questions(
    questions: &[Question],
    model_id: &str,
    responder: &mut dyn Responder,
    stamp: &mut dyn Stamp,
    on_file: &[Answer],
) -> Result<Vec<Answer>, Error> {
    for question in questions {
        question.checked_turns()?;
    }
    let answered: BTreeMap<u64, &Answer> = on_file
        .iter()
        .filter(|answer| answer.model_id == model_id)
        .map(|answer| (answer.question_id, answer))
        .collect();
    let on_file_in_full = |question: &Question| {
        let answer = answered.get(&question.question_id).copied();
        answer.filter(|answer| answer.turns().len() == question.turns.len())
    };
    let open: Vec<&Question> =
        questions.iter().filter(|question| on_file_in_full(question).is_none()).collect();
    tracing::debug!(model_id, open = open.len(), all = questions.len(), "answering questions");

    let mut turns: Vec<Vec<String>> = vec![Vec::new(); open.len()];
    ask_wave(1, &open, &mut turns, model_id, responder)?;
    ask_wave(2, &open, &mut turns, model_id, responder)?;

    let mut fresh = turns.into_iter();
    Ok(questions
        .iter()
        .map(|question| match on_file_in_full(question) {
            Some(answer) => answer.clone(),
            None => Answer {
                question_id: question.question_id,
                answer_id: stamp.answer_id(question.question_id),
                model_id: model_id.to_owned(),
                choices: vec![Choice {
                    index: 0,
                    turns: fresh.next().expect("every open question was asked"),
                }],
                tstamp: stamp.tstamp(),
                extra: Map::new(),
            },
        })
        .collect())
}

/// Has `responder` answer what `model_id` has not answered yet in `bench`, `group` questions at a time, and writes the model's
/// file after each group: who is stopped loses one group at most. Answers are in the order of their questions' ids, one a
/// question, as FastChat leaves them.
///
/// # Errors
///
/// Those of [`answer_questions`], when the groups before are on file; those of [`BenchDir`].
pub fn answer_bench(
    bench: &BenchDir,
    questions: &[Question],
    model_id: &str,
    group: NonZeroUsize,
    responder: &mut dyn Responder,
    stamp: &mut dyn Stamp,
) -> Result<(), Error> {
    let on_file = bench.answers_on_file(model_id)?;
    let mut answers: BTreeMap<u64, Answer> =
        on_file.into_iter().map(|answer| (answer.question_id, answer)).collect();
    for group in questions.chunks(group.get()) {
        let known: Vec<Answer> =
            group.iter().filter_map(|question| answers.get(&question.question_id).cloned()).collect();
        let fresh = answer_questions(group, model_id, responder, stamp, &known)?;
        answers.extend(fresh.into_iter().map(|answer| (answer.question_id, answer)));
        let all: Vec<Answer> = answers.values().cloned().collect();
        bench.write_answers(model_id, &all)?;
    }
    Ok(())
}

/// Asks turn `turn` of the questions that have one, and appends the answers to `turns`, which runs along `open`.
fn ask_wave(
    turn: u8,
    open: &[&Question],
    turns: &mut [Vec<String>],
    model_id: &str,
    responder: &mut dyn Responder,
) -> Result<(), Error> {
    let asked: Vec<usize> = (0..open.len()).filter(|&i| open[i].turns.len() >= usize::from(turn)).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let conversations: Vec<Conversation<'_>> = asked
        .iter()
        .map(|&i| Conversation {
            question_id: open[i].question_id,
            turn,
            user: open[i].turns[..usize::from(turn)].iter().map(String::as_str).collect(),
            assistant: turns[i].iter().map(String::as_str).collect(),
            temperature: open[i].temperature(),
        })
        .collect();
    let answers = responder.respond(&conversations).map_err(|source| Error::Respond {
        model: model_id.to_owned(),
        turn,
        source,
    })?;
    if answers.len() != conversations.len() {
        return Err(Error::AnswerCount {
            model: model_id.to_owned(),
            turn,
            asked: conversations.len(),
            got: answers.len(),
        });
    }
    for (i, answer) in asked.into_iter().zip(answers) {
        turns[i].push(answer);
    }
    Ok(())
}
