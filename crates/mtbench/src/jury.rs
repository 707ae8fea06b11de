//! Judging a whole folder: only what is not judged yet, several calls at a time, and nothing is lost.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::ops::ControlFlow;

use serde_json::Value;

use crate::grading::{JudgeCall, SingleGrading};
use crate::judge::{Draw, Judge, JudgeOutcome, JudgeRequest, Served};
use crate::judgment::{Judgment, SingleKey};
use crate::pair::PairJudgment;
use crate::pair_grading::{PairCall, PairGrading};
use crate::question_id::question_label;
use crate::verdict::{JUDGE_FAILED, Reading, Verdict};
use crate::{Answer, BenchDir, Error, Mode, Question, Stamp, UnreadableRating};

/// A judge and the number of its opinions.
#[derive(Clone, Copy)]
pub struct Jury<'a> {
    /// The judge.
    pub judge: &'a dyn Judge,
    /// How its verdicts are parsed.
    pub mode: Mode,
    /// The number of opinions on each answer, at least 1.
    pub repeats: u32,
    /// The most additional calls for a text without a verdict.
    pub reasks: u32,
}

/// The progress of judging.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JudgeProgress {
    /// Calls that have ended.
    pub done: usize,
    /// Calls to make.
    pub total: usize,
    /// The mean of the ratings so far; `None` in comparisons and before the first rating.
    pub mean: Option<f64>,
    /// Texts without a verdict.
    pub without_verdict: usize,
    /// Failed calls.
    pub failed: usize,
}

/// The result of judging.
#[derive(Debug)]
pub struct Judged<Row> {
    /// All rows of the judge's file, in its order.
    pub rows: Vec<Row>,
    /// Judgments on file that hold.
    pub kept: usize,
    /// New judgments: texts of the judge, with or without a verdict.
    pub made: usize,
    /// New judgments without a verdict.
    pub without_verdict: usize,
    /// Calls that ended, the failed ones included.
    pub calls: usize,
    /// Failed calls by kind, such as `timeout`. Their rows hold [`JUDGE_FAILED`]; the next run makes them again.
    pub failed: BTreeMap<&'static str, usize>,
    /// The reason of an early end, such as an exhausted budget or a signal. What was received is on file.
    pub stopped: Option<Box<dyn StdError + Send + Sync>>,
}

impl<Row> Judged<Row> {
    /// Returns the share of calls that failed, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "there are not 2^53 calls")]
    pub fn failed_share(&self) -> f64 {
        self.failed.values().sum::<usize>() as f64 / self.calls.max(1) as f64
    }

    /// Drops the rows, so that outcomes of both kinds of judgments have one type.
    pub fn without_rows(self) -> Judged<()> {
        let Self { kept, made, without_verdict, calls, failed, stopped, .. } = self;
        Judged { rows: Vec::new(), kept, made, without_verdict, calls, failed, stopped }
    }
}

/// The calls that [`Jury::single`] or [`Jury::pairs`] would make.
#[derive(Debug)]
pub struct JudgePlan<'a> {
    /// Judgments on file that hold.
    pub kept: usize,
    /// The calls to make.
    pub requests: Vec<JudgeRequest<'a>>,
}

impl Jury<'_> {
    /// Rates every turn of `answers` that is not rated yet, and adds the judgments to the judge's file in `bench`.
    ///
    /// A judgment on file holds if it has the same prompt text. A changed answer is judged again and its judgment replaced
    /// in place; a failed call is made again. A recorded prompt that is shorter than the question was left out by its
    /// writer, and its judgment holds. The file is written once at the end, also after an early end.
    ///
    /// # Errors
    ///
    /// Those of [`SingleGrading::calls`], before the first call. [`Error::Rating`] in [`Mode::FastChat`] for a rating at
    /// which FastChat stops; the other judgments are then on file. Those of [`BenchDir`].
    pub fn single(
        &self,
        bench: &BenchDir,
        grading: &SingleGrading<'_>,
        answers: &[Answer],
        stamp: &mut dyn Stamp,
        progress: &mut dyn FnMut(JudgeProgress),
    ) -> Result<Judged<Judgment>, Error> {
        let judge = self.judge.name();
        let (kept, open) = self.open_single(grading, answers, &bench.judgments_on_file(judge)?)?;
        let requests: Vec<JudgeRequest<'_>> = open.iter().map(|call| call.request.clone()).collect();
        let read = |text: &str| Verdict::of_single(text, self.mode);
        let CallOutcomes { said, calls, failed, stopped } = self.make_calls(&requests, &read, progress);
        let (mut rows, mut unreadable) = (Vec::new(), None);
        for (call, said) in open.into_iter().zip(said) {
            let Some(Said { text, verdict, served }) = said else { continue };
            match verdict {
                Ok(verdict) => {
                    let mut row = call.record(judge, text, verdict, stamp.tstamp());
                    row.extra.extend(fields(&served, ""));
                    rows.push(row);
                }
                Err(source) => {
                    unreadable.get_or_insert(unreadable_rating(&call.key(judge), source));
                }
            }
        }
        let made = rows.iter().filter(|row| row.verdict != Verdict::Failed);
        let (made, without_verdict) = count(made.map(|row| row.verdict.is_decided()));
        let rows = bench.add_judgments(judge, rows)?;
        unreadable.map_or(Ok(Judged { rows, kept, made, without_verdict, calls, failed, stopped }), Err)
    }

    /// Compares the pairs of `grading` that are not compared yet; otherwise as [`single`](Self::single).
    ///
    /// # Errors
    ///
    /// Those of [`PairGrading::calls`], before the first call. Those of [`BenchDir`].
    pub fn pairs(
        &self,
        bench: &BenchDir,
        grading: &PairGrading<'_>,
        answers: &[Answer],
        stamp: &mut dyn Stamp,
        progress: &mut dyn FnMut(JudgeProgress),
    ) -> Result<Judged<PairJudgment>, Error> {
        let judge = self.judge.name();
        let (kept, open) = self.open_pairs(grading, answers, &bench.pair_judgments_on_file(judge)?)?;
        let requests: Vec<JudgeRequest<'_>> = open.iter().flat_map(|call| call.games.clone()).collect();
        let read = |text: &str| Ok(Verdict::of_game(text, self.mode));
        let CallOutcomes { said, calls, failed, stopped } = self.make_calls(&requests, &read, progress);
        let mut said = said.into_iter().map(|said| {
            let Said { text, verdict, served } = said?;
            Some(((text, verdict.unwrap_or(Verdict::NoVerdict)), served))
        });
        let mut rows = Vec::new();
        for call in open {
            // A comparison with one game only is made by the next run. The client has kept the text of that game.
            if let (Some((first, by_first)), Some((second, by_second))) =
                (said.next().flatten(), said.next().flatten())
            {
                let mut row = call.record(judge, [first, second], stamp.tstamp());
                row.extra.extend(fields(&by_first, "g1_").into_iter().chain(fields(&by_second, "g2_")));
                rows.push(row);
            }
        }
        let made = rows.iter().filter(|row| !row.is_failed());
        let (made, without_verdict) = count(made.map(|row| row.winner() != crate::Winner::Error));
        let rows = bench.add_pair_judgments(judge, rows)?;
        Ok(Judged { rows, kept, made, without_verdict, calls, failed, stopped })
    }

    /// Returns the calls of [`single`](Self::single). Nothing is asked or written.
    ///
    /// # Errors
    ///
    /// Those of [`single`](Self::single) before its first call.
    pub fn plan_single<'a>(
        &self,
        bench: &BenchDir,
        grading: &SingleGrading<'a>,
        answers: &'a [Answer],
    ) -> Result<JudgePlan<'a>, Error> {
        let rows = bench.judgments_on_file(self.judge.name())?;
        let (kept, open) = self.open_single(grading, answers, &rows)?;
        Ok(JudgePlan { kept, requests: open.into_iter().map(|call| call.request).collect() })
    }

    /// Returns the calls of [`pairs`](Self::pairs). Nothing is asked or written.
    ///
    /// # Errors
    ///
    /// Those of [`pairs`](Self::pairs) before its first call.
    pub fn plan_pairs<'a>(
        &self,
        bench: &BenchDir,
        grading: &PairGrading<'a>,
        answers: &'a [Answer],
    ) -> Result<JudgePlan<'a>, Error> {
        let rows = bench.pair_judgments_on_file(self.judge.name())?;
        let (kept, open) = self.open_pairs(grading, answers, &rows)?;
        Ok(JudgePlan { kept, requests: open.into_iter().flat_map(|call| call.games).collect() })
    }

    /// The number of judgments that hold, and the other calls.
    fn open_single<'a>(
        &self,
        grading: &SingleGrading<'a>,
        answers: &'a [Answer],
        rows: &[Judgment],
    ) -> Result<(usize, Vec<JudgeCall<'a>>), Error> {
        let rows = rows.iter().filter(|row| !row.is_failed());
        let prompts: BTreeMap<_, &str> = rows.map(|row| (row.key(), row.user_prompt.as_str())).collect();
        let calls = grading.calls(answers)?;
        let all = calls.iter().flat_map(|call| {
            (0..self.repeats).map(|repeat| {
                let mut call = call.clone();
                call.request.draw = Draw { repeat, again: 0 };
                call
            })
        });
        let holds = |call: &JudgeCall<'_>| {
            let recorded = prompts.get(&call.key(self.judge.name()));
            recorded.is_some_and(|recorded| is_prompt_of(recorded, &call.request))
        };
        let (held, open): (Vec<_>, Vec<_>) = all.partition(holds);
        Ok((held.len(), open))
    }

    fn open_pairs<'a>(
        &self,
        grading: &PairGrading<'a>,
        answers: &'a [Answer],
        rows: &[PairJudgment],
    ) -> Result<(usize, Vec<PairCall<'a>>), Error> {
        let rows = rows.iter().filter(|row| !row.is_failed());
        let prompts: BTreeMap<_, [&str; 2]> =
            rows.map(|row| (row.key(), [row.g1_user_prompt.as_str(), &row.g2_user_prompt])).collect();
        let calls = grading.calls(answers)?;
        let all = calls.iter().flat_map(|call| {
            (0..self.repeats).map(|repeat| {
                let mut call = call.clone();
                call.games.iter_mut().for_each(|game| game.draw = Draw { repeat, again: 0 });
                call
            })
        });
        let holds = |call: &PairCall<'_>| {
            let recorded = prompts.get(&call.key(self.judge.name()));
            recorded.is_some_and(|recorded| {
                recorded.iter().zip(&call.games).all(|(recorded, game)| is_prompt_of(recorded, game))
            })
        };
        let (held, open): (Vec<_>, Vec<_>) = all.partition(holds);
        Ok((held.len(), open))
    }

    /// Makes the calls of `requests`.
    pub(crate) fn make_calls(
        &self,
        requests: &[JudgeRequest<'_>],
        read: &dyn Fn(&str) -> Reading,
        progress: &mut dyn FnMut(JudgeProgress),
    ) -> CallOutcomes {
        let mut said: Vec<Option<Said>> = vec![None; requests.len()];
        let mut so_far = JudgeProgress { total: requests.len(), ..JudgeProgress::default() };
        let mut failed = BTreeMap::new();
        let (mut sum, mut rated) = (0.0, 0_u32);
        progress(so_far);
        let ended = self.judge.judge_all(requests, read, self.reasks, &mut |index, outcome| {
            let (text, verdict, served) = match outcome {
                JudgeOutcome::Answered { text, verdict, served } => (text, verdict, served),
                JudgeOutcome::Failed(error) => {
                    self.warn(&requests[index], &*error);
                    so_far.failed += 1;
                    *failed.entry(kind(&*error)).or_default() += 1;
                    (JUDGE_FAILED.to_owned(), Ok(Verdict::Failed), Served::default())
                }
            };
            match &verdict {
                Ok(Verdict::Rating(rating)) => {
                    sum += rating.value();
                    rated += 1;
                    so_far.mean = Some(sum / f64::from(rated));
                }
                Ok(Verdict::NoVerdict | Verdict::OffScale(_)) => so_far.without_verdict += 1,
                Ok(Verdict::Preference(_) | Verdict::Failed) | Err(_) => {}
            }
            said[index] = Some(Said { text, verdict, served });
            so_far.done += 1;
            progress(so_far);
            ControlFlow::Continue(())
        });
        CallOutcomes { said, calls: so_far.done, failed, stopped: ended.err() }
    }

    fn warn(&self, request: &JudgeRequest<'_>, error: &(dyn StdError + Send + Sync + 'static)) {
        let JudgeRequest { question, model, turn, .. } = request;
        let (judge, question) = (self.judge.name(), question_label(question.question_id));
        tracing::warn!(judge, model, question, turn, error = %chain(error), "judge call failed");
    }
}

/// The outcome of all calls.
pub(crate) struct CallOutcomes {
    /// The outcome of each request; none if the call was not made.
    pub(crate) said: Vec<Option<Said>>,
    calls: usize,
    failed: BTreeMap<&'static str, usize>,
    pub(crate) stopped: Option<Box<dyn StdError + Send + Sync>>,
}

/// The outcome of one call.
#[derive(Clone)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) verdict: Reading,
    pub(crate) served: Served,
}

/// The fields of a row for what the server reports of itself.
fn fields(served: &Served, prefix: &str) -> Vec<(String, Value)> {
    let Served { served_model, fingerprint } = served;
    let fields = [("served_model", served_model), ("fingerprint", fingerprint)];
    let named =
        |(name, value): (&str, &Option<String>)| Some((format!("{prefix}{name}"), value.clone()?.into()));
    fields.into_iter().filter_map(named).collect()
}

/// Whether a judgment with this recorded prompt holds for `request`.
fn is_prompt_of(recorded: &str, request: &JudgeRequest<'_>) -> bool {
    let question: &Question = request.question;
    let left_out = recorded.len() < question.turns.first().map_or(0, String::len);
    left_out || recorded == request.user_prompt
}

fn unreadable_rating(key: &SingleKey, source: UnreadableRating) -> Error {
    Error::Rating { model: key.model.clone(), question_id: key.question_id, turn: key.turn, source }
}

/// The number of judgments, and of those without a verdict.
fn count(decided: impl Iterator<Item = bool>) -> (usize, usize) {
    decided.fold((0, 0), |(made, without), decided| (made + 1, without + usize::from(!decided)))
}

/// The kind of a failed call, in the words of the ledger.
fn kind(error: &(dyn StdError + Send + Sync + 'static)) -> &'static str {
    match error.downcast_ref() {
        Some(llm_client::Error::Call { source, .. }) => source.kind(),
        _ => "other",
    }
}

/// An error with its causes, in one line.
fn chain(error: &(dyn StdError + Send + Sync + 'static)) -> String {
    let (mut words, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

impl std::fmt::Debug for Jury<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jury")
            .field("judge", &self.judge.name())
            .field("mode", &self.mode)
            .field("repeats", &self.repeats)
            .field("reasks", &self.reasks)
            .finish()
    }
}
