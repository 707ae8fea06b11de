//! What a policy scores: answers, judgments, gold quality.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use mtbench::{
    Answer, BenchDir, Conversation, FixedStamp, JudgeProgress, Question, Responder, answer_bench,
    answer_questions,
};
use pref_data::Message;
use serde::{Deserialize, Serialize};
use trainer::Context;

use crate::error::StudyError;
use crate::judges::{Judges, RatingContext};
use crate::recipe::StudyRecipe;
use crate::responder::LoadedPolicy;
use crate::store::{create_folder, read_json, write_json};
use crate::world::World;

/// Conversations answered at a time in the sandbox.
const SANDBOX_BATCH: u16 = 256;
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
    /// Scores without answers.
    #[cfg(test)]
    pub(crate) fn of_scores(scores: Vec<Score>) -> Self {
        Self { scores, bench: BenchDir::new("no folder"), model_id: String::new() }
    }

    /// The mean length of the answers to the benchmark, in characters; `None` where there is none.
    pub(crate) fn mean_characters(&self) -> Option<f64> {
        let of_benchmark = self.scores.iter().filter(|score| score.question_set == BENCHMARK);
        // Each answer is scored by as many, so that it counts as often.
        let lengths: Vec<f64> = of_benchmark.map(|score| score.characters as f64).collect();
        (!lengths.is_empty()).then(|| lengths.iter().sum::<f64>() / lengths.len() as f64)
    }

    /// The answers to the benchmark's questions.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    pub fn answers(&self) -> Result<Vec<Answer>, StudyError> {
        Ok(self.bench.answers(&self.model_id)?)
    }
}

/// A policy to evaluate, and where what comes of it is kept.
///
/// `scores` gets FastChat's files for the benchmark (`question.jsonl`, `model_answer/`, `model_judgment/`) and, last,
/// `scores.json`: where that is, the evaluation is whole.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// The policy's folder.
    pub(crate) model: PathBuf,
    /// The name under which its answers stand in FastChat's files.
    pub(crate) model_id: String,
    /// The replicate whose streams it draws from.
    pub(crate) seed: u64,
    /// The folder of answers that other judges may rate too; the sandbox's are made again in no time and go into `scores`.
    pub(crate) answers: PathBuf,
    /// The folder of the evaluation.
    pub(crate) scores: PathBuf,
}

/// The file that an evaluation's folder gets last.
pub(crate) fn scores_file(folder: &Path) -> PathBuf {
    folder.join("scores.json")
}

impl Candidate {
    pub(crate) fn is_evaluated(&self) -> bool {
        scores_file(&self.scores).exists()
    }

    /// The evaluation, where it is in the store.
    pub(crate) fn stored(&self) -> Result<Option<Evaluation>, StudyError> {
        let (bench, model_id) = (BenchDir::new(&self.scores), self.model_id.clone());
        let scores: Option<Vec<Score>> = read_json(&scores_file(&self.scores))?;
        Ok(scores.map(|scores| Evaluation { scores, bench, model_id }))
    }

    /// Answers the benchmark, has the answers judged, and keeps both; or finds them.
    pub(crate) fn evaluate(
        &self,
        recipe: &StudyRecipe,
        world: &World,
        judges: &Judges,
        context: &mut Context<'_>,
    ) -> Result<(), StudyError> {
        if self.is_evaluated() {
            return Ok(());
        }
        if world.is_sandbox() {
            return create_folder(&self.scores, |partial| {
                let scores = self.score_in_sandbox(world, judges, &BenchDir::new(partial), context)?;
                write_json(&scores_file(partial), &scores)
            });
        }
        self.answer(recipe, world, context)?;
        let bench = BenchDir::new(&self.scores);
        let answers = BenchDir::new(&self.answers).answers(&self.model_id)?;
        fs::create_dir_all(&self.scores).map_err(StudyError::io("cannot create", &self.scores))?;
        bench.write_questions(world.questions())?;
        bench.write_answers(&self.model_id, &answers)?;
        let scores = self.judged(world, judges, &bench, &answers, context)?;
        write_json(&scores_file(&self.scores), &scores)
    }

    /// Answers the benchmark's questions that are not answered yet, some at a time; who is stopped loses no more.
    pub(crate) fn answer(
        &self,
        recipe: &StudyRecipe,
        world: &World,
        context: &mut Context<'_>,
    ) -> Result<(), StudyError> {
        let bench = BenchDir::new(&self.answers);
        let questions = world.questions();
        if bench.answers_on_file(&self.model_id)?.len() == questions.len() {
            return Ok(());
        }
        bench.write_questions(questions)?;
        let batch = recipe.answers.batch;
        let policy =
            LoadedPolicy::open_in(&self.model, recipe.model.dtype.kind(), recipe.model.device.resolve())?;
        let seeds = world.replicate(self.seed).child("generation");
        let mut responder = policy.responder(seeds, recipe.answers.max_new_tokens, batch.get());
        responder.system.clone_from(&recipe.answers.system);
        let turns: usize = questions.iter().map(|question| question.turns.len()).sum();
        context.progress.begin(&format!("{} answers, turns", self.model_id), turns as u64);
        let mut watched = Watched { responder: &mut responder, context: &mut *context, turns: 0 };
        let (mut stamp, group) = (self.stamp(), NonZeroUsize::from(batch));
        let answered = answer_bench(&bench, questions, &self.model_id, group, &mut watched, &mut stamp);
        context.progress.end();
        answered.map_err(|error| match error {
            mtbench::Error::Respond { source, .. } if source.is::<StopAsked>() => StudyError::Stopped,
            error => error.into(),
        })
    }

    fn score_in_sandbox(
        &self,
        world: &World,
        judges: &Judges,
        bench: &BenchDir,
        context: &mut Context<'_>,
    ) -> Result<Vec<Score>, StudyError> {
        let policy = LoadedPolicy::open(&self.model)?;
        let seeds = world.replicate(self.seed).child("generation");
        let mut responder = policy.responder(seeds, world.max_new_tokens() as u32, SANDBOX_BATCH);
        let mut stamp = self.stamp();
        let mut answer = |questions: &[Question]| {
            answer_questions(questions, &self.model_id, &mut responder, &mut stamp, &[])
        };
        let answers = answer(world.questions())?;
        let further = answer(world.further())?;
        bench.write_questions(world.questions())?;
        bench.write_answers(&self.model_id, &answers)?;
        let mut scores = gold_scores(BENCHMARK, world.questions(), &answers);
        scores.extend(self.judged(world, judges, bench, &answers, context)?);
        scores.extend(gold_scores(FURTHER, world.further(), &further));
        Ok(scores)
    }

    /// Every judge's scores of answers that lie in `bench`.
    fn judged(
        &self,
        world: &World,
        judges: &Judges,
        bench: &BenchDir,
        answers: &[Answer],
        context: &mut Context<'_>,
    ) -> Result<Vec<Score>, StudyError> {
        let Context { progress, stop, .. } = context;
        let mut watch = |now: JudgeProgress| {
            if now.done == 0 {
                progress.begin(&format!("judging {}", self.model_id), now.total as u64);
            }
            let mean = now.mean.map_or_else(String::new, |mean| format!("mean {mean:.2}"));
            progress.advance(now.done as u64, &mean);
            if now.done == now.total {
                progress.end();
            }
        };
        let context = RatingContext { stop, progress: &mut watch };
        let rated = judges.rate(world, bench, (&self.model_id, self.seed), &mut self.stamp(), context)?;
        let scores = rated
            .iter()
            .flat_map(|rated| judged_scores(&rated.judge, world.questions(), answers, &rated.scores));
        Ok(scores.collect())
    }

    /// Ids and times are fixed: the files of two equal evaluations are equal.
    fn stamp(&self) -> FixedStamp {
        FixedStamp { prefix: self.model_id.clone(), tstamp: 0.0 }
    }
}

/// Shows how far answering is, and stops between waves.
struct Watched<'a, 'c> {
    responder: &'a mut dyn Responder,
    context: &'a mut Context<'c>,
    turns: u64,
}

/// Somebody asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct StopAsked;

impl Responder for Watched<'_, '_> {
    fn respond(
        &mut self,
        conversations: &[Conversation<'_>],
    ) -> Result<Vec<String>, Box<dyn StdError + Send + Sync>> {
        if self.context.wants_stop() {
            return Err(StopAsked.into());
        }
        let answers = self.responder.respond(conversations)?;
        self.turns += answers.len() as u64;
        self.context.progress.advance(self.turns, "");
        Ok(answers)
    }
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
