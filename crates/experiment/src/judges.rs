//! The judges: the sandbox's two, or one or two models behind endpoints.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use llm_client::{Client, Endpoint, Prices, Secret, Settings, TokioClock, Totals};
use mtbench::{
    Answer, BenchDir, EndpointJudge, FixedStamp, JUDGE_FAILED, Judge, JudgeProgress, JudgePrompts, Judgment,
    Jury, Mode, Scores, SingleGrading, Verdict,
};
use sandbox::SandboxJudge;
use seeds::Seeds;

use crate::error::ExperimentError;
use crate::setup::{JudgeKind, JudgeSection, Setup};
use crate::source::DataSource;
use crate::store::ResultStore;

/// The judges of an experiment.
#[derive(Debug)]
pub(crate) enum Judges {
    /// The sandbox's two, which rate each answer so often.
    Sandbox(u32),
    /// Models behind endpoints, the main one first.
    Endpoints(Vec<ModelJudge>),
}

/// A model behind an endpoint.
#[derive(Debug)]
pub(crate) struct ModelJudge {
    section: JudgeSection,
    /// The folder of its replies and costs.
    calls: PathBuf,
    client: OnceCell<Client>,
}

/// The ratings of a model's answers by one judge.
pub(crate) struct Rated {
    pub(crate) judge: String,
    pub(crate) scores: Scores,
    /// The variance between the ratings of each question's turn, if there are several.
    pub(crate) variances: BTreeMap<(u64, u8), f64>,
}

/// The caller's part of rating.
pub(crate) struct RatingContext<'a> {
    /// Set when the caller asks to stop.
    pub(crate) stop: &'a AtomicBool,
    /// Receives the progress.
    pub(crate) progress: &'a mut dyn FnMut(JudgeProgress),
}

impl Judges {
    pub(crate) fn new(setup: &Setup, store: &ResultStore) -> Self {
        let judge = |section: &JudgeSection| ModelJudge {
            section: JudgeSection { second: None, ..section.clone() },
            calls: store.judge_calls(section.name()),
            client: OnceCell::new(),
        };
        match setup.judge.kind {
            JudgeKind::Sandbox => Self::Sandbox(setup.judge.repeats.get()),
            JudgeKind::Endpoint => Self::Endpoints(setup.judge.all().map(judge).collect()),
        }
    }

    /// Checks address, key and prices of each endpoint, and locks its folder.
    pub(crate) fn open(&self) -> Result<(), ExperimentError> {
        match self {
            Self::Sandbox(_) => Ok(()),
            Self::Endpoints(judges) => judges.iter().try_for_each(|judge| judge.client().map(drop)),
        }
    }

    /// Returns the costs of each called endpoint in this process.
    pub(crate) fn paid(&self) -> Vec<(&str, Totals)> {
        let Self::Endpoints(judges) = self else { return Vec::new() };
        let paid =
            judges.iter().filter_map(|judge| Some((judge.section.name(), judge.client.get()?.totals())));
        paid.collect()
    }

    /// Rates the answers of `model` in `bench`, and writes the judgments there. Existing judgments are kept.
    pub(crate) fn rate(
        &self,
        source: &DataSource,
        bench: &BenchDir,
        (model, seed): (&str, u64),
        stamp: &mut FixedStamp,
        context: RatingContext<'_>,
    ) -> Result<Vec<Rated>, ExperimentError> {
        let answers = bench.answers(model)?;
        let mut rate = |jury: &Jury<'_>, progress: &mut dyn FnMut(JudgeProgress)| {
            rate(jury, source, bench, (model, &answers), stamp, progress)
        };
        let mode = Mode::Strict;
        match self {
            Self::Sandbox(repeats) => {
                let repeats = *repeats;
                // These judges need no progress and are deterministic.
                let rate =
                    |judge: &SandboxJudge| rate(&Jury { judge, mode, repeats, reasks: 0 }, &mut |_| {});
                of_sandbox(&source.replicate(seed)).iter().map(rate).collect()
            }
            Self::Endpoints(judges) => {
                let mut rated = Vec::new();
                for judge in judges {
                    let section = &judge.section;
                    let sampling = section.sampling();
                    let endpoint = EndpointJudge {
                        name: section.name(),
                        model: section.model(),
                        sampling: &sampling,
                        client: judge.client()?,
                        stop: context.stop,
                    };
                    let (repeats, reasks) = (section.repeats.get(), section.reasks);
                    rated.push(rate(&Jury { judge: &endpoint, mode, repeats, reasks }, context.progress)?);
                }
                Ok(rated)
            }
        }
    }
}

impl ModelJudge {
    fn client(&self) -> Result<&Client, ExperimentError> {
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
        // The pauses between attempts change no result.
        let jitter = Seeds::new(u64::from(std::process::id())).stream("retry-jitter");
        let client =
            Client::new(endpoint, settings, Some(&self.calls), Arc::new(TokioClock::start()), jitter)?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// Returns the judges' names, the main one first.
pub(crate) fn names(section: &JudgeSection) -> Vec<String> {
    match section.kind {
        JudgeKind::Sandbox => of_sandbox(&Seeds::new(0)).map(|judge| judge.name().to_owned()).into(),
        JudgeKind::Endpoint => section.all().map(|judge| judge.name().to_owned()).collect(),
    }
}

/// Returns the sandbox's judges of a replicate: an unbiased one, and one with the LLM annotator's bias.
fn of_sandbox(replicate: &Seeds) -> [SandboxJudge; 2] {
    let seeds = replicate.child("judge");
    [SandboxJudge::unbiased(&seeds), SandboxJudge::sharing_taste(&seeds)]
}

/// Returns the variance between the ratings of each turn with several.
fn variances(rows: &[Judgment], model: &str) -> BTreeMap<(u64, u8), f64> {
    let mut ratings: BTreeMap<(u64, u8), BTreeMap<u32, f64>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.model == model) {
        // The last judgment of a repeat counts.
        if let Verdict::Rating(rating) = row.verdict {
            ratings.entry((row.question_id, row.turn)).or_default().insert(row.repeat(), rating.value());
        }
    }
    let variance = |ratings: BTreeMap<u32, f64>| {
        let ratings: Vec<f64> = ratings.into_values().collect();
        let n = ratings.len() as f64;
        let mean = ratings.iter().sum::<f64>() / n;
        (n > 1.0).then(|| ratings.iter().map(|rating| (rating - mean).powi(2)).sum::<f64>() / (n - 1.0))
    };
    ratings.into_iter().filter_map(|(turn, ratings)| Some((turn, variance(ratings)?))).collect()
}

fn rate(
    jury: &Jury<'_>,
    source: &DataSource,
    bench: &BenchDir,
    (model, answers): (&str, &[Answer]),
    stamp: &mut FixedStamp,
    progress: &mut dyn FnMut(JudgeProgress),
) -> Result<Rated, ExperimentError> {
    let name = jury.judge.name();
    let prompts = JudgePrompts::fastchat();
    let grading =
        SingleGrading { questions: source.questions(), prompts: &prompts, references: source.references() };
    let judged = jury.single(bench, &grading, answers, stamp, progress)?;
    if let Some(cause) = judged.stopped {
        return Err(match cause.downcast::<llm_client::Error>() {
            Ok(error) => ExperimentError::from(*error),
            Err(cause) => ExperimentError::Judge { judge: name.to_owned(), source: cause },
        });
    }
    let failed = judged.rows.iter().filter(|row| row.model == model && row.judgment == JUDGE_FAILED).count();
    if failed > 0 {
        return Err(ExperimentError::Unjudged { judge: name.to_owned(), model: model.to_owned(), failed });
    }
    let scores = Scores::new(source.questions(), &judged.rows, model, Mode::Strict);
    Ok(Rated { judge: name.to_owned(), scores, variances: variances(&judged.rows, model) })
}
