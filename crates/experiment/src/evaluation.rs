//! The evaluation of a policy: answers, judgments, gold quality.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use distributed::{DistributedError, ProcessGroup, Sharding};
use inference::{DistributedResponder, Ending, LoadedPolicy, PolicyResponder};
use mtbench::{
    Answer, BenchDir, Conversation, FixedStamp, JudgeProgress, Question, Responder, answer_bench,
    answer_questions,
};
use policy_model::Policy;
use pref_data::{ChatSettings, Message};
use seeds::Seeds;
use tch::{Device, Kind};
use trainer::Context;

use crate::decision::decide;
use crate::error::ExperimentError;
use crate::evaluated::{BENCHMARK, Evaluation, FURTHER, GOLD, Score};
use crate::given_policies::answers_elsewhere;
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
    /// The policy in memory, if this process has trained it.
    pub(crate) loaded: Option<Rc<Policy>>,
    /// A file of its answers, if it answered elsewhere.
    pub(crate) answered: Option<PathBuf>,
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

    /// Answers the benchmark on all ranks and judges the answers on rank 0, unless the store has both.
    pub(crate) fn evaluate(
        &self,
        setup: &Setup,
        source: &DataSource,
        judges: &Judges,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        if decide(context, || Ok(self.is_evaluated()))? {
            return Ok(());
        }
        if source.is_sandbox() {
            return self.score_in_sandbox(setup, source, judges, context);
        }
        self.answer(setup, source, context)?;
        if !context.group.is_main() {
            return Ok(());
        }
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

    /// Answers the open questions of the benchmark on all ranks, a batch of questions for each; rank 0 writes them.
    pub(crate) fn answer(
        &self,
        setup: &Setup,
        source: &DataSource,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        let bench = BenchDir::new(&self.answers);
        let questions = source.questions();
        if decide(context, || self.take_answers(&bench, questions))? {
            return Ok(());
        }
        let mut chat = setup.answer_chat();
        if self.model != source.model() {
            // A trained model is saved with the template that replaces its first model's.
            chat.template = None;
        }
        let device = context.group.device().unwrap_or_else(|| setup.model.device.resolve());
        let policy = self.open((setup.model.dtype.kind(), device), &chat, setup, &context.group)?;
        let batch = setup.answers.batch;
        let mut responder =
            policy.responder(self.generation(source), setup.answers.max_new_tokens, batch.get());
        responder.system.clone_from(&setup.answers.system);
        together(responder, context, |responder, context| {
            let turns: usize = questions.iter().map(|question| question.turns.len()).sum();
            context.progress.begin(&format!("{} answers, turns", self.model_id), turns as u64);
            let questions_at_once = NonZeroUsize::from(batch).saturating_mul(context.group.world_size());
            let mut responder = Interruptible { responder, context: &mut *context, turns: 0 };
            let answered = answer_bench(
                &bench,
                questions,
                &self.model_id,
                questions_at_once,
                &mut responder,
                &mut self.stamp(),
            );
            context.progress.end();
            answered.map_err(of_answering)?;
            files::seal(&self.answers)
                .map_err(ExperimentError::io("cannot write the checksums of", &self.answers))
        })
    }

    /// Takes the policy from memory, or else reads it: each rank its shard where ranks divide the weights that compute.
    fn open(
        &self,
        (kind, device): (Kind, Device),
        chat: &ChatSettings,
        setup: &Setup,
        group: &ProcessGroup,
    ) -> Result<LoadedPolicy, ExperimentError> {
        let exchange = setup.distributed.exchange();
        if group.is_distributed() && exchange.sharding == Sharding::Parameters {
            tracing::info!("distributed.zero = 3: the answers gather each layer");
            return Ok(LoadedPolicy::open_over_ranks(&self.model, kind, chat, (group, exchange))?);
        }
        let in_memory = match &self.loaded {
            Some(policy) => LoadedPolicy::of_trained(policy, &self.model, (kind, device), chat)?,
            None => None,
        };
        Ok(match in_memory {
            Some(policy) => policy,
            None => LoadedPolicy::open_in(&self.model, kind, device, chat)?,
        })
    }

    /// Returns whether all questions are answered, here or in a file of answers, which is copied.
    fn take_answers(&self, bench: &BenchDir, questions: &[Question]) -> Result<bool, ExperimentError> {
        if self.has_answers(questions)? {
            return Ok(true);
        }
        bench.write_questions(questions)?;
        let Some(file) = &self.answered else { return Ok(false) };
        let answers = answers_elsewhere(file, questions)?;
        let renamed = answers.into_iter().map(|answer| Answer { model_id: self.model_id.clone(), ..answer });
        bench.write_answers(&self.model_id, &renamed.collect::<Vec<_>>())?;
        Ok(true)
    }

    /// Returns whether all questions of the benchmark are answered.
    pub(crate) fn has_answers(&self, questions: &[Question]) -> Result<bool, ExperimentError> {
        Ok(BenchDir::new(&self.answers).answers_on_file(&self.model_id)?.len() == questions.len())
    }

    /// Answers the sandbox's questions on all ranks; rank 0 judges and writes the evaluation.
    fn score_in_sandbox(
        &self,
        setup: &Setup,
        source: &DataSource,
        judges: &Judges,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        let device = context.group.device().unwrap_or(Device::Cpu);
        let policy = self.open((Kind::Float, device), &ChatSettings::default(), setup, &context.group)?;
        let tokens = source.max_new_tokens() as u32;
        let responder = policy.responder(self.generation(source), tokens, SANDBOX_BATCH);
        together(responder, context, |responder, context| {
            create_folder(&self.scores, |partial| {
                let bench = BenchDir::new(partial);
                let scores = self.scores_in_sandbox(source, judges, &bench, responder, context)?;
                write_json(&scores_file(partial), &scores)
            })
        })
    }

    fn scores_in_sandbox(
        &self,
        source: &DataSource,
        judges: &Judges,
        bench: &BenchDir,
        responder: &mut dyn Responder,
        context: &mut Context<'_>,
    ) -> Result<Vec<Score>, ExperimentError> {
        let mut stamp = self.stamp();
        let mut answer = |questions: &[Question]| {
            answer_questions(questions, &self.model_id, responder, &mut stamp, &[]).map_err(of_answering)
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

/// Runs `ask` on rank 0, whose responder shares the conversations with all ranks of the context's group. The other ranks
/// answer their shares until it ends.
fn together<'a>(
    responder: PolicyResponder<'a>,
    context: &mut Context<'_>,
    ask: impl FnOnce(&mut dyn Responder, &mut Context<'_>) -> Result<(), ExperimentError>,
) -> Result<(), ExperimentError> {
    let mut together = DistributedResponder { responder, group: context.group.clone() };
    if !context.group.is_main() {
        return match together.follow().map_err(of_responder)? {
            Ending::Finished => Ok(()),
            Ending::Stopped => Err(ExperimentError::Stopped),
        };
    }
    let asked = ask(&mut together, context);
    let ending = match &asked {
        Ok(()) => Ending::Finished,
        Err(ExperimentError::Stopped) => Ending::Stopped,
        // The other ranks learn of the error when this rank aborts the group.
        Err(_) => return asked,
    };
    together.end(ending).map_err(of_responder)?;
    asked
}

/// Returns the error of a responder: of the ranks, or of the policy.
fn of_responder(error: Box<dyn StdError + Send + Sync>) -> ExperimentError {
    match error.downcast::<DistributedError>() {
        Ok(error) => ExperimentError::Ranks(*error),
        Err(error) => ExperimentError::Responder(error),
    }
}

/// Returns the error of answering a benchmark.
fn of_answering(error: mtbench::Error) -> ExperimentError {
    match error {
        mtbench::Error::Respond { source, .. } if source.is::<Interrupted>() => ExperimentError::Stopped,
        mtbench::Error::Respond { source, .. } if source.is::<DistributedError>() => of_responder(source),
        error => error.into(),
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
