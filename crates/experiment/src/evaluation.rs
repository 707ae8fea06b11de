//! The evaluation of a policy: answers, judgments, gold quality.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use inference::LoadedPolicy;
use mtbench::{
    Answer, BenchDir, Conversation, FixedStamp, JudgeProgress, Question, Responder, answer_bench,
    answer_questions,
};
use pref_data::Message;
use seeds::Seeds;
use trainer::Context;

use crate::error::ExperimentError;
use crate::evaluated::{BENCHMARK, Evaluation, FURTHER, GOLD, Score};
use crate::judges::{Judges, Rated, RatingContext};
use crate::setup::Setup;
use crate::source::DataSource;
use crate::store::{create_folder, read_json, write_json};

/// Conversations per batch in the sandbox.
const SANDBOX_BATCH: u16 = 256;
/// A policy to evaluate, and the folders of its evaluation.
///
/// `scores` receives FastChat's files (`question.jsonl`, `model_answer/`, `model_judgment/`) and, last, `scores.json`.
/// An evaluation with that file is complete.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// The policy's folder.
    pub(crate) model: PathBuf,
    /// Its name in FastChat's files.
    pub(crate) model_id: String,
    /// The seed of its random streams.
    pub(crate) seed: u64,
    /// The index of the sampled answers.
    pub(crate) sample: u64,
    /// The folder of answers, which other judges may rate too; those of the sandbox are in `scores`.
    pub(crate) answers: PathBuf,
    /// The folder of the evaluation.
    pub(crate) scores: PathBuf,
}

/// Returns the file that completes an evaluation.
pub(crate) fn scores_file(folder: &Path) -> PathBuf {
    folder.join("scores.json")
}

impl Candidate {
    pub(crate) fn is_evaluated(&self) -> bool {
        scores_file(&self.scores).exists()
    }

    /// Reads the evaluation, if it is in the store.
    pub(crate) fn stored(&self) -> Result<Option<Evaluation>, ExperimentError> {
        let (bench, model_id) = (BenchDir::new(&self.scores), self.model_id.clone());
        if self.is_evaluated() {
            files::check_folder(&self.scores).map_err(ExperimentError::io("cannot use", &self.scores))?;
        }
        let scores: Option<Vec<Score>> = read_json(&scores_file(&self.scores))?;
        let of_sample = |score| Score { sample: self.sample, ..score };
        let scores = scores.map(|scores| scores.into_iter().map(of_sample).collect());
        Ok(scores.map(|scores| Evaluation { scores, bench, model_id }))
    }

    /// Answers the benchmark and judges the answers, unless the store has both.
    pub(crate) fn evaluate(
        &self,
        setup: &Setup,
        source: &DataSource,
        judges: &Judges,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        if self.is_evaluated() {
            return Ok(());
        }
        if source.is_sandbox() {
            return create_folder(&self.scores, |partial| {
                let scores = self.score_in_sandbox(source, judges, &BenchDir::new(partial), context)?;
                write_json(&scores_file(partial), &scores)
            });
        }
        self.answer(setup, source, context)?;
        files::check_folder(&self.answers).map_err(ExperimentError::io("cannot use", &self.answers))?;
        let bench = BenchDir::new(&self.scores);
        let answers = BenchDir::new(&self.answers).answers(&self.model_id)?;
        fs::create_dir_all(&self.scores).map_err(ExperimentError::io("cannot create", &self.scores))?;
        bench.write_questions(source.questions())?;
        bench.write_answers(&self.model_id, &answers)?;
        let scores = self.judged(source, judges, &bench, &answers, context)?;
        write_json(&scores_file(&self.scores), &scores)?;
        files::seal(&self.scores).map_err(ExperimentError::io("cannot write the checksums of", &self.scores))
    }

    /// Answers the open questions of the benchmark in batches, each of which is written.
    pub(crate) fn answer(
        &self,
        setup: &Setup,
        source: &DataSource,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        let bench = BenchDir::new(&self.answers);
        let questions = source.questions();
        if bench.answers_on_file(&self.model_id)?.len() == questions.len() {
            return Ok(());
        }
        bench.write_questions(questions)?;
        let batch = setup.answers.batch;
        let mut chat = setup.answer_chat();
        if self.model != source.model() {
            // A trained model is saved with the template that replaces its first model's.
            chat.template = None;
        }
        let (kind, device) = (setup.model.dtype.kind(), setup.model.device.resolve());
        let policy = LoadedPolicy::open_in(&self.model, kind, device, &chat)?;
        let seeds = self.generation(source);
        let mut responder = policy.responder(seeds, setup.answers.max_new_tokens, batch.get());
        responder.system.clone_from(&setup.answers.system);
        let turns: usize = questions.iter().map(|question| question.turns.len()).sum();
        context.progress.begin(&format!("{} answers, turns", self.model_id), turns as u64);
        let mut responder = Interruptible { responder: &mut responder, context: &mut *context, turns: 0 };
        let (mut stamp, group) = (self.stamp(), NonZeroUsize::from(batch));
        let answered = answer_bench(&bench, questions, &self.model_id, group, &mut responder, &mut stamp);
        context.progress.end();
        answered.map_err(|error| match error {
            mtbench::Error::Respond { source, .. } if source.is::<Interrupted>() => ExperimentError::Stopped,
            error => error.into(),
        })?;
        files::seal(&self.answers)
            .map_err(ExperimentError::io("cannot write the checksums of", &self.answers))
    }

    fn score_in_sandbox(
        &self,
        source: &DataSource,
        judges: &Judges,
        bench: &BenchDir,
        context: &mut Context<'_>,
    ) -> Result<Vec<Score>, ExperimentError> {
        let policy = LoadedPolicy::open(&self.model)?;
        let seeds = self.generation(source);
        let mut responder = policy.responder(seeds, source.max_new_tokens() as u32, SANDBOX_BATCH);
        let mut stamp = self.stamp();
        let mut answer = |questions: &[Question]| {
            answer_questions(questions, &self.model_id, &mut responder, &mut stamp, &[])
        };
        let answers = answer(source.questions())?;
        // The ground truth needs one sample: it has many questions.
        let further = if self.sample == 0 { answer(source.further())? } else { Vec::new() };
        bench.write_questions(source.questions())?;
        bench.write_answers(&self.model_id, &answers)?;
        let mut scores = gold_scores(BENCHMARK, source.questions(), &answers);
        scores.extend(self.judged(source, judges, bench, &answers, context)?);
        scores.extend(gold_scores(FURTHER, source.further(), &further));
        Ok(scores)
    }

    /// Returns the random streams of its answers.
    fn generation(&self, source: &DataSource) -> Seeds {
        let streams = source.replicate(self.seed);
        match self.sample {
            0 => streams.child("generation"),
            sample => streams.child(&format!("generation-{sample}")),
        }
    }

    /// Returns every judge's scores of the answers in `bench`.
    fn judged(
        &self,
        source: &DataSource,
        judges: &Judges,
        bench: &BenchDir,
        answers: &[Answer],
        context: &mut Context<'_>,
    ) -> Result<Vec<Score>, ExperimentError> {
        let Context { progress, stop, .. } = context;
        let mut show = |now: JudgeProgress| {
            if now.done == 0 {
                progress.begin(&format!("judging {}", self.model_id), now.total as u64);
            }
            let mean = now.mean.map_or_else(String::new, |mean| format!("mean {mean:.2}"));
            progress.advance(now.done as u64, &mean);
            if now.done == now.total {
                progress.end();
            }
        };
        let context = RatingContext { stop, progress: &mut show };
        let rated = judges.rate(source, bench, (&self.model_id, self.seed), &mut self.stamp(), context)?;
        let scores = rated.iter().flat_map(|rated| judged_scores(rated, source.questions(), answers));
        Ok(scores.collect())
    }

    /// Returns fixed ids and times, so that equal evaluations have equal files.
    fn stamp(&self) -> FixedStamp {
        FixedStamp { prefix: self.model_id.clone(), tstamp: 0.0 }
    }
}

/// Reports progress, and stops between batches.
struct Interruptible<'a, 'c> {
    responder: &'a mut dyn Responder,
    context: &'a mut Context<'c>,
    turns: u64,
}

/// The caller asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

impl Responder for Interruptible<'_, '_> {
    fn respond(
        &mut self,
        conversations: &[Conversation<'_>],
    ) -> Result<Vec<String>, Box<dyn StdError + Send + Sync>> {
        if self.context.wants_stop() {
            return Err(Interrupted.into());
        }
        let answers = self.responder.respond(conversations)?;
        self.turns += answers.len() as u64;
        self.context.progress.advance(self.turns, "");
        Ok(answers)
    }
}

fn judged_scores(
    Rated { judge, scores, variances }: &Rated,
    questions: &[Question],
    answers: &[Answer],
) -> Vec<Score> {
    let rated: BTreeMap<(u64, u8), f64> =
        scores.rows().iter().map(|row| ((row.question_id, row.turn), row.score)).collect();
    turns(questions, answers)
        .map(|(question, turn, answer)| Score {
            score: rated.get(&(question.question_id, turn)).copied(),
            judge_variance: variances.get(&(question.question_id, turn)).copied(),
            ..blank(BENCHMARK, question, turn, judge, answer)
        })
        .collect()
}

/// Returns the gold quality of every turn.
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

/// Returns the messages before the answer in `turn`, counted from 1.
pub fn prompt(question: &Question, answers: &[String], turn: usize) -> Vec<Message> {
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
        sample: 0,
        turn,
        scorer: scorer.to_owned(),
        score: None,
        judge_variance: None,
        characters: answer.chars().count(),
    }
}

/// Returns every answered turn with its question.
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
