//! The scores of a model: rows for statistics, means for tables.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::judgment::Judgment;
use crate::question::Question;
use crate::rating::Mode;
use crate::verdict::Verdict;

/// The category of judgments of unknown questions.
pub const UNCATEGORISED: &str = "uncategorised";

/// One rating of one turn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreRow {
    /// The question's key.
    pub question_id: u64,
    /// Its category, [`UNCATEGORISED`] if the question is unknown.
    pub category: String,
    /// The turn: 1 or 2.
    pub turn: u8,
    /// The rating.
    pub score: f64,
}

/// A turn without a rating that counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MissingScore {
    /// The question's key.
    pub question_id: u64,
    /// Its category, [`UNCATEGORISED`] if the question is unknown.
    pub category: String,
    /// The turn: 1 or 2.
    pub turn: u8,
    /// Why it is missing.
    pub reason: MissingReason,
}

/// Why a turn has no rating that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingReason {
    /// The judgment holds no rating.
    NoRating,
    /// The rating is outside 1 to 10; strict mode only.
    OffScale,
    /// The judge call failed.
    Failed,
    /// The question is not judged; strict mode only.
    NotJudged,
}

/// The ratings of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    rows: Vec<ScoreRow>,
    missing: Vec<MissingScore>,
    categories: Vec<String>,
    repeated: usize,
}

/// Means of one category, or of all of them. `None` where there are no ratings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TurnMeans {
    /// Mean of the first turns.
    pub turn_1: Option<f64>,
    /// Mean of the second turns.
    pub turn_2: Option<f64>,
    /// Mean of all ratings, as in FastChat. It is not the mean of the turns' means.
    pub average: Option<f64>,
    /// The number of ratings.
    pub rated: usize,
    /// The number of turns without a rating.
    pub missing: usize,
}

/// How several opinions of one judge on one answer become one rating, in [`Mode::Strict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pool {
    /// Their median; for an even number the mean of the middle two.
    #[default]
    Median,
    /// Their mean.
    Mean,
}

impl Scores {
    /// Computes the scores of `model` from `judgments`, with the categories of `questions`.
    ///
    /// In [`Mode::FastChat`] every rating counts, repeated ones repeatedly and on any scale; turns without a judgment are
    /// not noticed. In [`Mode::Strict`] the last judgment of each judge on a turn counts. Ratings outside 1 to 10, and
    /// turns of `questions` without a judgment, are missing. Several opinions ([`Judgment::repeat`]) become their median.
    /// Both modes use the recorded verdict; [`Judgment::reread`] parses the text again.
    pub fn new(questions: &[Question], judgments: &[Judgment], model: &str, mode: Mode) -> Self {
        Self::pooled(questions, judgments, model, mode, Pool::Median)
    }

    /// As [`new`](Self::new), where several opinions become one rating by `pool`.
    pub fn pooled(
        questions: &[Question],
        judgments: &[Judgment],
        model: &str,
        mode: Mode,
        pool: Pool,
    ) -> Self {
        let by_id: BTreeMap<u64, &Question> = questions.iter().map(|q| (q.question_id, q)).collect();
        let category =
            |id: u64| by_id.get(&id).map_or(UNCATEGORISED, |question| &question.category).to_owned();
        let of_model: Vec<&Judgment> = judgments.iter().filter(|judgment| judgment.model == model).collect();
        let last = last_of_each(&of_model);
        let repeated = of_model.len() - last.iter().map(Vec::len).sum::<usize>();
        // One entry a rating: in strict mode the opinions of one judge on one turn, else a single judgment.
        let opinions: Vec<Vec<&Judgment>> = match mode {
            Mode::FastChat => of_model.iter().map(|judgment| vec![*judgment]).collect(),
            Mode::Strict => last,
        };
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for opinions in &opinions {
            let Judgment { question_id, turn, .. } = *opinions[0];
            let category = category(question_id);
            let usable: Vec<Result<f64, MissingReason>> =
                opinions.iter().map(|judgment| usable(judgment, mode)).collect();
            let ratings: Vec<f64> = usable.iter().filter_map(|rating| rating.ok()).collect();
            match (pool.of(ratings), &usable[0]) {
                (Some(score), _) => rows.push(ScoreRow { question_id, category, turn, score }),
                (None, Err(reason)) => {
                    missing.push(MissingScore { question_id, category, turn, reason: *reason });
                }
                (None, Ok(_)) => unreachable!("a usable rating is pooled"),
            }
        }
        if mode == Mode::Strict {
            missing.extend(never_judged(questions, &of_model));
        }
        let known = questions.iter().map(|question| question.category.as_str());
        let seen =
            rows.iter().map(|row| row.category.as_str()).chain(missing.iter().map(|m| m.category.as_str()));
        let categories = in_order_of_appearance(known.chain(seen));
        Self { rows, missing, categories, repeated }
    }

    /// Returns the ratings that count, in the order of the judgments: the input of a bootstrap over questions.
    pub fn rows(&self) -> &[ScoreRow] {
        &self.rows
    }

    /// Returns the turns without a rating.
    pub fn missing(&self) -> &[MissingScore] {
        &self.missing
    }

    /// Returns the number of judgments that a later one of the same judge, turn and repeat supersedes. They count in
    /// [`Mode::FastChat`] and not in [`Mode::Strict`].
    pub fn repeated(&self) -> usize {
        self.repeated
    }

    /// Returns the categories, in the order of the questions.
    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    /// Computes the means over all categories.
    pub fn overall(&self) -> TurnMeans {
        self.means_where(|_| true)
    }

    /// Computes the means of one category.
    pub fn category(&self, category: &str) -> TurnMeans {
        self.means_where(|row| row == category)
    }

    /// Computes the mean of one question's ratings.
    pub fn question(&self, question_id: u64) -> Option<f64> {
        mean(self.rows.iter().filter(|row| row.question_id == question_id).map(|row| row.score))
    }

    /// Computes the means of each category, in the order of the questions.
    pub fn by_category(&self) -> Vec<(&str, TurnMeans)> {
        self.categories.iter().map(|category| (category.as_str(), self.category(category))).collect()
    }

    fn means_where(&self, counts: impl Fn(&str) -> bool) -> TurnMeans {
        let rows: Vec<&ScoreRow> = self.rows.iter().filter(|row| counts(&row.category)).collect();
        let of_turn = |turn: u8| mean(rows.iter().filter(|row| row.turn == turn).map(|row| row.score));
        TurnMeans {
            turn_1: of_turn(1),
            turn_2: of_turn(2),
            average: mean(rows.iter().map(|row| row.score)),
            rated: rows.len(),
            missing: self.missing.iter().filter(|missing| counts(&missing.category)).count(),
        }
    }
}

/// Returns the models in `judgments`, by name.
pub fn judged_models(judgments: &[Judgment]) -> Vec<&str> {
    let mut models: Vec<&str> = judgments.iter().map(|judgment| judgment.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    models
}

fn usable(judgment: &Judgment, mode: Mode) -> Result<f64, MissingReason> {
    match judgment.verdict {
        Verdict::Rating(rating) if mode == Mode::Strict && !rating.is_on_scale() => {
            Err(MissingReason::OffScale)
        }
        Verdict::Rating(rating) => Ok(rating.value()),
        Verdict::OffScale(_) => Err(MissingReason::OffScale),
        Verdict::Failed => Err(MissingReason::Failed),
        Verdict::NoVerdict | Verdict::Preference(_) => Err(MissingReason::NoRating),
    }
}

impl Pool {
    fn of(self, mut ratings: Vec<f64>) -> Option<f64> {
        ratings.sort_by(f64::total_cmp);
        let middle = ratings.len() / 2;
        match self {
            Self::Median if ratings.len() % 2 == 1 => Some(ratings[middle]),
            Self::Median if !ratings.is_empty() => Some((ratings[middle - 1] + ratings[middle]) / 2.0),
            Self::Median => None,
            Self::Mean => mean(ratings.into_iter()),
        }
    }
}

/// The opinions of each judge on each turn, the last one of each repeat, at the position of the first.
fn last_of_each<'a>(judgments: &[&'a Judgment]) -> Vec<Vec<&'a Judgment>> {
    let mut place = BTreeMap::new();
    let mut kept: Vec<BTreeMap<u32, &Judgment>> = Vec::new();
    for &judgment in judgments {
        let key = (judgment.question_id, judgment.turn, judgment.judge.judge.as_str());
        let at = *place.entry(key).or_insert(kept.len());
        if at == kept.len() {
            kept.push(BTreeMap::new());
        }
        kept[at].insert(judgment.repeat(), judgment);
    }
    kept.into_iter().map(|opinions| opinions.into_values().collect()).collect()
}

fn never_judged(questions: &[Question], judged: &[&Judgment]) -> Vec<MissingScore> {
    let judged: BTreeSet<(u64, u8)> = judged.iter().map(|j| (j.question_id, j.turn)).collect();
    let mut missing = Vec::new();
    for question in questions {
        for (turn, _) in (1..).zip(&question.turns) {
            if !judged.contains(&(question.question_id, turn)) {
                missing.push(MissingScore {
                    question_id: question.question_id,
                    category: question.category.clone(),
                    turn,
                    reason: MissingReason::NotJudged,
                });
            }
        }
    }
    missing
}

fn in_order_of_appearance<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut ordered: Vec<String> = Vec::new();
    for name in names {
        if !ordered.iter().any(|known| known == name) {
            ordered.push(name.to_owned());
        }
    }
    ordered
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}
