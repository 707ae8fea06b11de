//! Who rates the benchmark's answers: the sandbox's two judges, or a model behind an endpoint.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use llm_client::{Client, Endpoint, Prices, Secret, Settings, TokioClock, Totals};
use mtbench::{
    Answer, BenchDir, EndpointJudge, FixedStamp, JUDGE_FAILED, Judge, JudgeProgress, JudgePrompts, Jury,
    Mode, Scores, SingleGrading,
};
use sandbox::SandboxJudge;
use seeds::Seeds;

use crate::error::StudyError;
use crate::recipe::{JudgeKind, JudgeSection, StudyRecipe};
use crate::store::ResultStore;
use crate::world::World;

/// The judges of a study.
#[derive(Debug)]
pub(crate) struct Judges {
    section: JudgeSection,
    /// Where an endpoint's replies and the ledger of costs are kept.
    calls: PathBuf,
    client: OnceCell<Client>,
}

/// One judge's ratings of a model's answers.
pub(crate) struct Rated {
    pub(crate) judge: String,
    pub(crate) scores: Scores,
}

/// What rating is given from outside.
pub(crate) struct RatingContext<'a> {
    /// Set once somebody asks to stop.
    pub(crate) stop: &'a AtomicBool,
    /// Hears how far it is.
    pub(crate) progress: &'a mut dyn FnMut(JudgeProgress),
}

impl Judges {
    pub(crate) fn new(recipe: &StudyRecipe, store: &ResultStore) -> Self {
        Self { section: recipe.judge.clone(), calls: store.judge_calls(), client: OnceCell::new() }
    }

    /// What of them determines the verdicts, in short; nothing for the sandbox's, which its world determines.
    pub(crate) fn identity(&self) -> Option<String> {
        (self.section.kind == JudgeKind::Endpoint).then(|| self.section.identity())
    }

    /// Finds out whether an endpoint can be asked: address, key, prices, and nobody else who asks from the same folder.
    pub(crate) fn open(&self) -> Result<(), StudyError> {
        match self.section.kind {
            JudgeKind::Sandbox => Ok(()),
            JudgeKind::Endpoint => self.client().map(drop),
        }
    }

    /// What an endpoint was paid in this run; `None` where it was not asked.
    pub(crate) fn paid(&self) -> Option<Totals> {
        self.client.get().map(Client::totals)
    }

    /// Has the answers of `model` rated that `bench` holds, and writes the judgments there. What is judged already is kept.
    pub(crate) fn rate(
        &self,
        world: &World,
        bench: &BenchDir,
        (model, seed): (&str, u64),
        stamp: &mut FixedStamp,
        context: RatingContext<'_>,
    ) -> Result<Vec<Rated>, StudyError> {
        let answers = bench.answers(model)?;
        // The sandbox's judges say everything at once.
        let reasks = if self.section.kind == JudgeKind::Sandbox { 0 } else { self.section.reasks };
        let mut rate = |judge: &dyn Judge, progress: &mut dyn FnMut(JudgeProgress)| {
            let jury = Jury { judge, mode: Mode::Strict, repeats: self.section.repeats.get(), reasks };
            rate(&jury, world, bench, (model, &answers), stamp, progress)
        };
        match self.section.kind {
            JudgeKind::Sandbox => {
                let judges = of_sandbox(&world.replicate(seed));
                judges.iter().map(|judge| rate(judge, &mut |_| {})).collect()
            }
            JudgeKind::Endpoint => {
                let sampling = self.section.sampling();
                let judge = EndpointJudge {
                    name: self.section.name(),
                    model: self.section.model(),
                    sampling: &sampling,
                    client: self.client()?,
                    stop: context.stop,
                };
                Ok(vec![rate(&judge, context.progress)?])
            }
        }
    }

    fn client(&self) -> Result<&Client, StudyError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let JudgeSection { base_url, api_key_env, pace, .. } = &self.section;
        let key = api_key_env.as_deref().map(Secret::from_env).transpose()?;
        let base_url = base_url.as_deref().unwrap_or_default();
        let timeout = pace.timeout().unwrap_or_default();
        let endpoint = Endpoint::new(base_url, self.section.endpoint_kind(), key, timeout)?;
        let prices = pace.prices.iter().try_fold(Prices::listed(), |prices, path| prices.and_file(path))?;
        let settings =
            Settings { limits: pace.limits(), retry: pace.retry(), prices, max_cost: pace.max_cost };
        // Which pauses are drawn changes no result.
        let jitter = Seeds::new(u64::from(std::process::id())).stream("retry-jitter");
        let client =
            Client::new(endpoint, settings, Some(&self.calls), Arc::new(TokioClock::start()), jitter)?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// The judges' names, the one whose scores are the study's first.
pub(crate) fn names(section: &JudgeSection) -> Vec<String> {
    match section.kind {
        JudgeKind::Sandbox => of_sandbox(&Seeds::new(0)).map(|judge| judge.name().to_owned()).into(),
        JudgeKind::Endpoint => vec![section.name().to_owned()],
    }
}

/// The sandbox's two judges, as one replicate draws them: without a taste, and with the LLM annotator's.
fn of_sandbox(replicate: &Seeds) -> [SandboxJudge; 2] {
    let seeds = replicate.child("judge");
    [SandboxJudge::unbiased(&seeds), SandboxJudge::sharing_taste(&seeds)]
}

fn rate(
    jury: &Jury<'_>,
    world: &World,
    bench: &BenchDir,
    (model, answers): (&str, &[Answer]),
    stamp: &mut FixedStamp,
    progress: &mut dyn FnMut(JudgeProgress),
) -> Result<Rated, StudyError> {
    let name = jury.judge.name();
    let prompts = JudgePrompts::fastchat();
    let grading =
        SingleGrading { questions: world.questions(), prompts: &prompts, references: world.references() };
    let judged = jury.single(bench, &grading, answers, stamp, progress)?;
    if let Some(cause) = judged.stopped {
        return Err(match cause.downcast::<llm_client::Error>() {
            Ok(error) => StudyError::from(*error),
            Err(cause) => StudyError::Judge { judge: name.to_owned(), source: cause },
        });
    }
    let judgments = bench.judgments(name)?;
    let failed = judgments.iter().filter(|row| row.model == model && row.judgment == JUDGE_FAILED).count();
    if failed > 0 {
        return Err(StudyError::Unjudged { judge: name.to_owned(), model: model.to_owned(), failed });
    }
    let scores = Scores::new(world.questions(), &judgments, model, Mode::Strict);
    Ok(Rated { judge: name.to_owned(), scores })
}
