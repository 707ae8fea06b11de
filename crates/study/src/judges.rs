//! Who rates the benchmark's answers: the sandbox's two judges, or one or two models behind endpoints.

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
pub(crate) enum Judges {
    /// The sandbox's two.
    Sandbox,
    /// Models behind endpoints, the study's first.
    Endpoints(Vec<Asked>),
}

/// A model that is asked.
#[derive(Debug)]
pub(crate) struct Asked {
    section: JudgeSection,
    /// Where its replies and the ledger of costs are kept.
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
        let asked = |section: &JudgeSection| Asked {
            section: JudgeSection { second: None, ..section.clone() },
            calls: store.judge_calls(section.name()),
            client: OnceCell::new(),
        };
        match recipe.judge.kind {
            JudgeKind::Sandbox => Self::Sandbox,
            JudgeKind::Endpoint => Self::Endpoints(recipe.judge.all().map(asked).collect()),
        }
    }

    /// Finds out whether endpoints can be asked: address, key, prices, and nobody else who asks from the same folder.
    pub(crate) fn open(&self) -> Result<(), StudyError> {
        match self {
            Self::Sandbox => Ok(()),
            Self::Endpoints(judges) => judges.iter().try_for_each(|judge| judge.client().map(drop)),
        }
    }

    /// What each endpoint that was asked was paid in this run, by the judge's name.
    pub(crate) fn paid(&self) -> Vec<(&str, Totals)> {
        let Self::Endpoints(judges) = self else { return Vec::new() };
        let paid =
            judges.iter().filter_map(|judge| Some((judge.section.name(), judge.client.get()?.totals())));
        paid.collect()
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
        let mut rate = |jury: &Jury<'_>, progress: &mut dyn FnMut(JudgeProgress)| {
            rate(jury, world, bench, (model, &answers), stamp, progress)
        };
        let mode = Mode::Strict;
        match self {
            Self::Sandbox => {
                // They say everything at once, and the same every time.
                let rate =
                    |judge: &SandboxJudge| rate(&Jury { judge, mode, repeats: 1, reasks: 0 }, &mut |_| {});
                of_sandbox(&world.replicate(seed)).iter().map(rate).collect()
            }
            Self::Endpoints(judges) => {
                let mut rated = Vec::new();
                for asked in judges {
                    let section = &asked.section;
                    let sampling = section.sampling();
                    let judge = EndpointJudge {
                        name: section.name(),
                        model: section.model(),
                        sampling: &sampling,
                        client: asked.client()?,
                        stop: context.stop,
                    };
                    let (repeats, reasks) = (section.repeats.get(), section.reasks);
                    rated.push(rate(&Jury { judge: &judge, mode, repeats, reasks }, context.progress)?);
                }
                Ok(rated)
            }
        }
    }
}

impl Asked {
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
        JudgeKind::Endpoint => section.all().map(|judge| judge.name().to_owned()).collect(),
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
