//! Judging a whole folder: only what is not judged yet, several calls at a time, and nothing lost on the way.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::ops::ControlFlow;

use crate::{
    Answer, BenchDir, Draw, Error, Heard, JUDGE_FAILED, Judge, JudgeCall, JudgeRequest, Judgment, Mode,
    PairCall, PairGrading, PairJudgment, SingleGrading, Stamp, parse_pair_verdict, parse_rating,
};

/// Who judges, and how often.
#[derive(Clone, Copy)]
pub struct Jury<'a> {
    /// The judge.
    pub judge: &'a dyn Judge,
    /// How its verdicts are read.
    pub mode: Mode,
    /// How many opinions are asked for on each answer, at least 1.
    pub repeats: u32,
    /// How often a judge is asked again whose text holds no verdict.
    pub reasks: u32,
}

/// How far judging has got.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JudgeProgress {
    /// Calls that came to an end.
    pub done: usize,
    /// Calls to make.
    pub total: usize,
    /// The mean of the ratings read so far; `None` in comparisons and before the first.
    pub mean: Option<f64>,
    /// Texts without a verdict.
    pub without_verdict: usize,
    /// Calls that failed for good.
    pub failed: usize,
}

/// What judging came to.
#[derive(Debug)]
pub struct Judged<Row> {
    /// All rows of the judge's file, in its order.
    pub rows: Vec<Row>,
    /// Judgments that were on file already and still hold.
    pub kept: usize,
    /// Judgments that were made.
    pub made: usize,
    /// Those among them without a verdict: calls that failed and texts that hold none.
    pub without_verdict: usize,
    /// Why it ended early, if it did: no money, no key, a signal. What was heard until then is on file.
    pub stopped: Option<Box<dyn StdError + Send + Sync>>,
}

/// How many calls [`Jury::single`] or [`Jury::pairs`] would make, and what they would ask.
#[derive(Debug)]
pub struct JudgePlan<'a> {
    /// Judgments that are on file already and still hold.
    pub kept: usize,
    /// The calls to make.
    pub requests: Vec<JudgeRequest<'a>>,
}

impl<Row> Judged<Row> {
    /// Returns the counts without the rows.
    pub fn without_rows(self) -> Judged<()> {
        let Self { kept, made, without_verdict, stopped, .. } = self;
        Judged { rows: Vec::new(), kept, made, without_verdict, stopped }
    }
}

impl Jury<'_> {
    /// Has every turn of `answers` rated that is not rated yet, and writes the judge's file in `bench`.
    ///
    /// A judgment on file holds if it has the same prompt text, so that a new answer is judged anew and replaces the old
    /// judgment where it stood; a failed call is made again. The file is written once at the end, whatever the end is, and
    /// the calls themselves are kept by who makes them.
    ///
    /// # Errors
    ///
    /// What [`SingleGrading::calls`] fails with, before the first call; [`Error::Rating`] in [`Mode::FastChat`] for a rating
    /// on which FastChat stops, when the others are on file; [`BenchDir`]'s errors.
    pub fn single(
        &self,
        bench: &BenchDir,
        grading: &SingleGrading<'_>,
        answers: &[Answer],
        stamp: &mut dyn Stamp,
        progress: &mut dyn FnMut(JudgeProgress),
    ) -> Result<Judged<Judgment>, Error> {
        let judge = self.judge.name();
        let mut on_file = OnFile::new(bench.judgments_on_file(judge)?, Judgment::key);
        let (kept, open) = self.open_single(grading, answers, &on_file.rows)?;
        let requests: Vec<JudgeRequest<'_>> = open.iter().map(|call| call.request.clone()).collect();
        let verdict = |text: &str| match parse_rating(text, self.mode) {
            Ok(rating) => rating.map(crate::Rating::value),
            // FastChat's own mistake is not mended by asking again.
            Err(_) => Some(f64::NAN),
        };
        let (heard, stopped) = self.hear(&requests, &verdict, progress);
        let (mut made, mut without_verdict, mut unreadable) = (0, 0, None);
        for (call, said) in open.into_iter().zip(heard) {
            let Some(said) = said else { continue };
            let (key, (model, question_id, turn)) = (call.key(judge), about(&call));
            let row = match call.record(judge, said, self.mode, stamp.tstamp()) {
                Ok(row) => row,
                Err(source) => {
                    unreadable.get_or_insert(Error::Rating { model, question_id, turn, source });
                    continue;
                }
            };
            made += 1;
            without_verdict += usize::from(row.score.is_none());
            on_file.put(key, row);
        }
        if made > 0 {
            bench.write_judgments(judge, &on_file.rows)?;
        }
        unreadable.map_or(Ok(Judged { rows: on_file.rows, kept, made, without_verdict, stopped }), Err)
    }

    /// Has the pairs of `grading` compared that are not compared yet; otherwise as [`single`](Self::single).
    ///
    /// # Errors
    ///
    /// What [`PairGrading::calls`] fails with, before the first call; [`BenchDir`]'s errors.
    pub fn pairs(
        &self,
        bench: &BenchDir,
        grading: &PairGrading<'_>,
        answers: &[Answer],
        stamp: &mut dyn Stamp,
        progress: &mut dyn FnMut(JudgeProgress),
    ) -> Result<Judged<PairJudgment>, Error> {
        let judge = self.judge.name();
        let mut on_file = OnFile::new(bench.pair_judgments_on_file(judge)?, PairJudgment::key);
        let (kept, open) = self.open_pairs(grading, answers, &on_file.rows)?;
        let requests: Vec<JudgeRequest<'_>> = open.iter().flat_map(|call| call.games.clone()).collect();
        let verdict = |text: &str| parse_pair_verdict(text, self.mode).map(|_| f64::NAN);
        let (heard, stopped) = self.hear(&requests, &verdict, progress);
        let mut heard = heard.into_iter();
        let (mut made, mut without_verdict) = (0, 0);
        for call in open {
            // A comparison of which one game is missing is made up for next time; the game that was heard is not lost, since
            // who makes the calls keeps them.
            let (Some(first), Some(second)) = (heard.next().flatten(), heard.next().flatten()) else {
                continue;
            };
            let key = call.key(judge);
            let row = call.record(judge, [first, second], self.mode, stamp.tstamp());
            made += 1;
            without_verdict += usize::from(row.winner() == crate::Winner::Error);
            on_file.put(key, row);
        }
        if made > 0 {
            bench.write_pair_judgments(judge, &on_file.rows)?;
        }
        Ok(Judged { rows: on_file.rows, kept, made, without_verdict, stopped })
    }

    /// What [`single`](Self::single) would ask. Nothing is asked or written.
    ///
    /// # Errors
    ///
    /// As [`single`](Self::single) before its first call.
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

    /// What [`pairs`](Self::pairs) would ask. Nothing is asked or written.
    ///
    /// # Errors
    ///
    /// As [`pairs`](Self::pairs) before its first call.
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

    /// How many judgments hold, and the calls that are left.
    fn open_single<'a>(
        &self,
        grading: &SingleGrading<'a>,
        answers: &'a [Answer],
        rows: &[Judgment],
    ) -> Result<(usize, Vec<JudgeCall<'a>>), Error> {
        let holding: BTreeMap<_, &str> = rows
            .iter()
            .filter(|row| row.judgment != JUDGE_FAILED)
            .map(|row| (row.key(), row.user_prompt.as_str()))
            .collect();
        let calls = grading.calls(answers)?;
        let all = calls.iter().flat_map(|call| {
            (0..self.repeats).map(|repeat| {
                let mut call = call.clone();
                call.request.draw = Draw { repeat, again: 0 };
                call
            })
        });
        let holds = |call: &JudgeCall<'_>| {
            holding
                .get(&call.key(self.judge.name()))
                .is_some_and(|prompt| *prompt == call.request.user_prompt)
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
        let holding: BTreeMap<_, [&str; 2]> = rows
            .iter()
            .filter(|row| ![&row.g1_judgment, &row.g2_judgment].iter().any(|said| *said == JUDGE_FAILED))
            .map(|row| (row.key(), [row.g1_user_prompt.as_str(), &row.g2_user_prompt]))
            .collect();
        let calls = grading.calls(answers)?;
        let all = calls.iter().flat_map(|call| {
            (0..self.repeats).map(|repeat| {
                let mut call = call.clone();
                call.games.iter_mut().for_each(|game| game.draw = Draw { repeat, again: 0 });
                call
            })
        });
        let holds = |call: &PairCall<'_>| {
            let prompts = call.games.each_ref().map(|game| game.user_prompt.as_str());
            holding.get(&call.key(self.judge.name())).is_some_and(|held| *held == prompts)
        };
        let (held, open): (Vec<_>, Vec<_>) = all.partition(holds);
        Ok((held.len(), open))
    }

    /// What the judge says to each request, [`JUDGE_FAILED`] where a call failed, nothing where it was not made; and why it
    /// ended early. `verdict` reads a text, and gives a number that is no rating as NaN.
    fn hear(
        &self,
        requests: &[JudgeRequest<'_>],
        verdict: &dyn Fn(&str) -> Option<f64>,
        progress: &mut dyn FnMut(JudgeProgress),
    ) -> (Vec<Option<String>>, Option<Box<dyn StdError + Send + Sync>>) {
        let mut heard: Vec<Option<String>> = vec![None; requests.len()];
        let mut so_far = JudgeProgress { total: requests.len(), ..JudgeProgress::default() };
        let (mut sum, mut rated) = (0.0, 0_u32);
        progress(so_far);
        let ended = self.judge.judge_all(
            requests,
            &|text| verdict(text).is_some(),
            self.reasks,
            &mut |index, outcome| {
                let text = match outcome {
                    Heard::Said(text) => text,
                    Heard::Failed(error) => {
                        let JudgeRequest { question, model, turn, .. } = &requests[index];
                        let (judge, question) = (self.judge.name(), question.question_id);
                        tracing::warn!(judge, model, question, turn, error = %chain(&*error), "judge call failed");
                        so_far.failed += 1;
                        JUDGE_FAILED.to_owned()
                    }
                };
                match verdict(&text) {
                    Some(rating) if rating.is_finite() => {
                        sum += rating;
                        rated += 1;
                        so_far.mean = Some(sum / f64::from(rated));
                    }
                    Some(_) => {}
                    None => so_far.without_verdict += 1,
                }
                heard[index] = Some(text);
                so_far.done += 1;
                progress(so_far);
                ControlFlow::Continue(())
            },
        );
        (heard, ended.err())
    }
}

/// A judge's judgments in their order, where a new one takes the place of the one that it replaces.
struct OnFile<Key, Row> {
    rows: Vec<Row>,
    places: BTreeMap<Key, usize>,
}

impl<Key: Ord, Row> OnFile<Key, Row> {
    fn new(rows: Vec<Row>, key: impl Fn(&Row) -> Key) -> Self {
        let places = rows.iter().enumerate().map(|(place, row)| (key(row), place)).collect();
        Self { rows, places }
    }

    fn put(&mut self, key: Key, row: Row) {
        if let Some(place) = self.places.get(&key) {
            self.rows[*place] = row;
        } else {
            self.places.insert(key, self.rows.len());
            self.rows.push(row);
        }
    }
}

fn about(call: &JudgeCall<'_>) -> (String, u64, u8) {
    let JudgeRequest { question, model, turn, .. } = call.request;
    (model.to_owned(), question.question_id, turn)
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
