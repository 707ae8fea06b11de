//! What a policy scores: answers, judgments, gold quality.

use std::collections::BTreeMap;
use std::path::Path;

use mtbench::{
    Answer, BenchDir, FixedStamp, Judge, JudgePrompts, Mode, Question, SingleGrading, answer_questions,
    judge_answers,
};
use policy_model::Policy;
use pref_data::Message;
use sandbox::SandboxJudge;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::error::StudyError;
use crate::responder::PolicyResponder;
use crate::store::{create_folder, read_json, write_json};
use crate::world::World;

/// Conversations answered at a time.
const BATCH: usize = 256;
/// The name under which gold quality stands beside the judges.
pub const GOLD: &str = "gold";
/// The benchmark's questions.
pub const BENCHMARK: &str = "mt-bench";
/// Questions beside the benchmark's.
pub const FURTHER: &str = "further";

/// One score of one turn of one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// [`BENCHMARK`] or [`FURTHER`].
    pub question_set: String,
    /// The question.
    pub question_id: u64,
    /// Its category.
    pub category: String,
    /// 1 or 2.
    pub turn: u8,
    /// The judge's name, or [`GOLD`].
    pub scorer: String,
    /// The rating; `None` where no verdict could be read.
    pub score: Option<f64>,
    /// How long the answer is.
    pub characters: usize,
}

/// An evaluation that lies in the store.
#[derive(Debug)]
pub struct Evaluation {
    /// Every score.
    pub scores: Vec<Score>,
    bench: BenchDir,
    model_id: String,
}

impl Evaluation {
    /// The answers to the benchmark's questions.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    pub fn answers(&self) -> Result<Vec<Answer>, StudyError> {
        Ok(self.bench.answers(&self.model_id)?)
    }
}

/// Evaluates the policy in `model` with the streams of replicate `seed`, or reads the evaluation from `folder`.
///
/// `folder` gets FastChat's files for the benchmark (`question.jsonl`, `model_answer/`, `model_judgment/`) and
/// `scores.json`, which also holds gold quality on the further questions.
///
/// # Errors
///
/// Where policy, benchmark or disk fail.
pub fn evaluate(
    world: &World,
    model: &Path,
    model_id: &str,
    seed: u64,
    folder: &Path,
) -> Result<Evaluation, StudyError> {
    let open = |scores| Evaluation { scores, bench: BenchDir::new(folder), model_id: model_id.to_owned() };
    if let Some(scores) = read_json(&folder.join(SCORES))? {
        return Ok(open(scores));
    }
    let scores = create_folder(folder, |partial| {
        let scores = score(world, model, model_id, seed, &BenchDir::new(partial))?;
        write_json(&partial.join(SCORES), &scores)?;
        Ok(scores)
    })?;
    Ok(open(scores))
}

const SCORES: &str = "scores.json";

fn score(
    world: &World,
    model: &Path,
    model_id: &str,
    seed: u64,
    bench: &BenchDir,
) -> Result<Vec<Score>, StudyError> {
    let seeds = world.replicate(seed);
    let policy = Policy::load(model, Kind::Float, Device::Cpu)?;
    let mut responder = PolicyResponder {
        policy: &policy,
        tokenizer: world.tokenizer()?,
        system: None,
        seeds: seeds.child("generation"),
        max_new_tokens: world.max_new_tokens(),
        max_batch: BATCH,
    };
    // Ids and times are fixed: the files of two equal evaluations are equal.
    let mut stamp = FixedStamp { prefix: model_id.to_owned(), tstamp: 0.0 };
    let mut answer =
        |questions: &[Question]| answer_questions(questions, model_id, &mut responder, &mut stamp, &[]);
    let answers = answer(&world.questions)?;
    let further = answer(&world.further)?;

    bench.write_questions(&world.questions)?;
    bench.write_answers(model_id, &answers)?;
    let mut scores = gold_scores(BENCHMARK, &world.questions, &answers);
    for judge in judges(&seeds) {
        let judgments = judge_with(&judge, world, &answers, &mut stamp)?;
        bench.write_judgments(judge.name(), &judgments)?;
        let table = mtbench::Scores::new(&world.questions, &judgments, model_id, Mode::Strict);
        scores.extend(judged_scores(judge.name(), &world.questions, &answers, &table));
    }
    scores.extend(gold_scores(FURTHER, &world.further, &further));
    Ok(scores)
}

/// The sandbox's two judges, as one replicate draws them.
fn judges(seeds: &seeds::Seeds) -> [SandboxJudge; 2] {
    let seeds = seeds.child("judge");
    [SandboxJudge::unbiased(&seeds), SandboxJudge::sharing_taste(&seeds)]
}

/// The judges' names, the one without a taste first.
pub fn judge_names() -> [String; 2] {
    judges(&seeds::Seeds::new(0)).map(|judge| judge.name().to_owned())
}

fn judge_with(
    judge: &SandboxJudge,
    world: &World,
    answers: &[Answer],
    stamp: &mut FixedStamp,
) -> Result<Vec<mtbench::Judgment>, StudyError> {
    let prompts = JudgePrompts::fastchat();
    let grading =
        SingleGrading { questions: &world.questions, prompts: &prompts, references: &world.references };
    Ok(judge_answers(&grading, answers, judge, Mode::Strict, stamp)?)
}

fn judged_scores(
    judge: &str,
    questions: &[Question],
    answers: &[Answer],
    table: &mtbench::Scores,
) -> Vec<Score> {
    let rated: BTreeMap<(u64, u8), f64> =
        table.rows().iter().map(|row| ((row.question_id, row.turn), row.score)).collect();
    turns(questions, answers)
        .map(|(question, turn, answer)| Score {
            score: rated.get(&(question.question_id, turn)).copied(),
            ..blank(BENCHMARK, question, turn, judge, answer)
        })
        .collect()
}

/// The sandbox's true quality of every turn.
fn gold_scores(set: &str, questions: &[Question], answers: &[Answer]) -> Vec<Score> {
    let by_id: BTreeMap<u64, &Answer> = answers.iter().map(|a| (a.question_id, a)).collect();
    turns(questions, answers)
        .map(|(question, turn, answer)| {
            let earlier = by_id.get(&question.question_id).map_or(&[][..], |a| a.turns());
            let prompt = prompt(question, earlier, usize::from(turn));
            Score {
                score: Some(sandbox::gold_quality(&prompt, answer)),
                ..blank(set, question, turn, GOLD, answer)
            }
        })
        .collect()
}

/// What was said before the answer in `turn`, counted from 1: the user's turns with the model's own earlier answers.
pub(crate) fn prompt(question: &Question, answers: &[String], turn: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    for (k, asked) in question.turns.iter().enumerate().take(turn) {
        messages.push(Message::user(asked.clone()));
        if k + 1 < turn {
            messages.push(Message::assistant(answers[k].clone()));
        }
    }
    messages
}

fn blank(set: &str, question: &Question, turn: u8, scorer: &str, answer: &str) -> Score {
    Score {
        question_set: set.to_owned(),
        question_id: question.question_id,
        category: question.category.clone(),
        turn,
        scorer: scorer.to_owned(),
        score: None,
        characters: answer.chars().count(),
    }
}

/// Every answered turn with its question.
fn turns<'a>(
    questions: &'a [Question],
    answers: &'a [Answer],
) -> impl Iterator<Item = (&'a Question, u8, &'a str)> {
    let by_id: BTreeMap<u64, &Question> = questions.iter().map(|q| (q.question_id, q)).collect();
    answers.iter().flat_map(move |answer| {
        let question = by_id.get(&answer.question_id).copied();
        answer
            .turns()
            .iter()
            .enumerate()
            .filter_map(move |(k, text)| Some((question?, k as u8 + 1, text.as_str())))
    })
}
