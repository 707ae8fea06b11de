//! How answers are made: questions in two waves, and only those without an answer on file.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde_json::Map;

use crate::{Answer, BenchDir, Choice, Conversation, Error, Question, Responder, Stamp};

/// Returns the answers of `responder` to all `questions`, in the questions' order.
///
/// There are two waves, all first turns and then all second turns. A second turn has the first answer in its conversation
/// and the same [temperature](Question::temperature). Complete answers of `model_id` in `on_file` are returned
/// unchanged, the last one of several. Pass `&[]` to answer everything.
///
/// # Errors
///
/// [`Error::Turns`] before the first question. [`Error::Respond`] and [`Error::AnswerCount`] if the responder fails.
pub fn answer_questions(
    questions: &[Question],
    model_id: &str,
    responder: &mut dyn Responder,
    stamp: &mut dyn Stamp,
    on_file: &[Answer],
) -> Result<Vec<Answer>, Error> {
    let complete = complete_answers(questions, model_id, on_file)?;
    let open: Vec<&Question> = questions.iter().filter(|q| !complete.contains_key(&q.question_id)).collect();
    let mut fresh = answer_open(&open, model_id, responder, stamp)?.into_iter();
    let answer = |question: &Question| match complete.get(&question.question_id) {
        Some(answer) => (*answer).clone(),
        None => fresh.next().expect("every open question is answered"),
    };
    Ok(questions.iter().map(answer).collect())
}

/// Answers the questions that `model_id` has not answered in `bench`, `group` questions at a time.
///
/// Each group is added to the model's file, so a stopped run loses one group at most. Rows on file stay as they are, byte
/// for byte. As FastChat leaves the file, answers are in the order of their questions' ids, one a question. A complete
/// file is not touched.
///
/// # Errors
///
/// Those of [`answer_questions`]; the groups before are then on file. Those of [`BenchDir`].
pub fn answer_bench(
    bench: &BenchDir,
    questions: &[Question],
    model_id: &str,
    group: NonZeroUsize,
    responder: &mut dyn Responder,
    stamp: &mut dyn Stamp,
) -> Result<(), Error> {
    let on_file = bench.answers_on_file(model_id)?;
    let complete = complete_answers(questions, model_id, &on_file)?;
    for group in questions.chunks(group.get()) {
        let open: Vec<&Question> = group.iter().filter(|q| !complete.contains_key(&q.question_id)).collect();
        let fresh = answer_open(&open, model_id, responder, stamp)?;
        bench.add_answers(model_id, fresh)?;
    }
    Ok(())
}

/// The complete answers of `model_id`, by question.
fn complete_answers<'a>(
    questions: &[Question],
    model_id: &str,
    on_file: &'a [Answer],
) -> Result<BTreeMap<u64, &'a Answer>, Error> {
    let turns = questions.iter().map(|question| Ok((question.question_id, question.checked_turns()?)));
    let turns: BTreeMap<u64, usize> = turns.collect::<Result<_, Error>>()?;
    let of_model = on_file.iter().filter(|answer| answer.model_id == model_id);
    let mut last: BTreeMap<u64, &Answer> = of_model.map(|answer| (answer.question_id, answer)).collect();
    last.retain(|question_id, answer| turns.get(question_id) == Some(&answer.turns().len()));
    Ok(last)
}

fn answer_open(
    open: &[&Question],
    model_id: &str,
    responder: &mut dyn Responder,
    stamp: &mut dyn Stamp,
) -> Result<Vec<Answer>, Error> {
    tracing::debug!(model_id, open = open.len(), "answering questions");
    let mut turns: Vec<Vec<String>> = vec![Vec::new(); open.len()];
    ask_wave(1, open, &mut turns, model_id, responder)?;
    ask_wave(2, open, &mut turns, model_id, responder)?;
    let answer = |(question, turns): (&&Question, Vec<String>)| Answer {
        question_id: question.question_id,
        answer_id: Some(stamp.answer_id(question.question_id)),
        model_id: model_id.to_owned(),
        choices: vec![Choice::new(turns)],
        tstamp: Some(stamp.tstamp()),
        extra: Map::new(),
    };
    Ok(open.iter().zip(turns).map(answer).collect())
}

/// Asks turn `turn` of the questions that have one, and appends each answer to its question's `turns`.
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
