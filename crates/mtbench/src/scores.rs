//! What the judgments of a model amount to: rows for statistics, means for tables.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Judgment, Mode, Question};

/// The category of judgments whose question is not among those at hand.
pub const UNCATEGORISED: &str = "uncategorised";

/// One rating of one turn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreRow {
    /// The question.
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
    /// The question.
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
    /// There is a judgment, and no rating in it.
    NoRating,
    /// The rating lies outside 1 to 10; strict mode only.
    OffScale,
    /// The question was not judged; strict mode only.
    NotJudged,
}

/// The ratings of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    rows: Vec<ScoreRow>,
    missing: Vec<MissingScore>,
    categories: Vec<String>,
}

/// Means of one category, or of all of them. `None` where there are no ratings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TurnMeans {
    /// Mean of the first turns.
    pub turn_1: Option<f64>,
    /// Mean of the second turns.
    pub turn_2: Option<f64>,
    /// Mean of all ratings, as FastChat takes it: not the mean of the turns' means.
    pub average: Option<f64>,
    /// How many ratings there are.
    pub rated: usize,
    /// How many turns have none.
    pub missing: usize,
}

/// What several opinions of one judge on one answer amount to, in [`Mode::Strict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pool {
    /// Their median; of an even number the mean of the middle two.
    #[default]
    Median,
    /// Their mean.
    Mean,
}

impl Scores {
    /// The ratings that `judgments` give to `model`, with the categories of `questions`.
    ///
    /// In [`Mode::FastChat`] every judgment with a rating counts, repeated ones repeatedly and off the scale, too, and
    /// turns that were never judged are not noticed. In [`Mode::Strict`] only the last judgment of each judge for a
    /// question's turn counts, ratings outside 1 to 10 are missing, and so are turns of `questions` that nobody judged;
    /// several opinions ([`Judgment::repeat`]) are one rating, their median.
    /// Either way the recorded rating is taken; [`Judgment::reread`] takes the text's instead.
    pub fn new(questions: &[Question], judgments: &[Judgment], model: &str, mode: Mode) -> Self {
        Self::pooled(questions, judgments, model, mode, Pool::Median)
    }

    /// As [`new`](Self::new), and several opinions are one rating by `pool`.
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
        let counted: Vec<&Judgment> = judgments.iter().filter(|judgment| judgment.model == model).collect();
        // One entry a rating: in strict mode the opinions of one judge on one turn, else a single judgment.
        let opinions: Vec<Vec<&Judgment>> = match mode {
            Mode::FastChat => counted.iter().map(|judgment| vec![*judgment]).collect(),
            Mode::Strict => last_of_each(&counted),
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
                (None, Ok(_)) => unreachable!("a rating that can be used is pooled"),
            }
        }
        if mode == Mode::Strict {
            missing.extend(never_judged(questions, &counted));
        }
        let known = questions.iter().map(|question| question.category.as_str());
        let seen =
            rows.iter().map(|row| row.category.as_str()).chain(missing.iter().map(|m| m.category.as_str()));
        let categories = in_order_of_appearance(known.chain(seen));
        Self { rows, missing, categories }
    }

    /// Every rating that counts, in the order of the judgments: what a bootstrap resamples, by question.
    pub fn rows(&self) -> &[ScoreRow] {
        &self.rows
    }

    /// Every turn without one.
    pub fn missing(&self) -> &[MissingScore] {
        &self.missing
    }

    /// The categories, in the order of the questions.
    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    /// Means over all categories.
    pub fn overall(&self) -> TurnMeans {
        self.means_where(|_| true)
    }

    /// Means of one category.
    pub fn category(&self, category: &str) -> TurnMeans {
        self.means_where(|row| row == category)
    }

    /// The mean of one question's ratings.
    pub fn question(&self, question_id: u64) -> Option<f64> {
        mean(self.rows.iter().filter(|row| row.question_id == question_id).map(|row| row.score))
    }

    /// The table of categories and turns, in the order of the questions.
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

/// The models that `judgments` speak of, in the order of their names.
pub fn judged_models(judgments: &[Judgment]) -> Vec<&str> {
    let mut models: Vec<&str> = judgments.iter().map(|judgment| judgment.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    models
}

fn usable(judgment: &Judgment, mode: Mode) -> Result<f64, MissingReason> {
    let rating = judgment.score.ok_or(MissingReason::NoRating)?;
    match mode {
        Mode::Strict if !rating.is_on_scale() => Err(MissingReason::OffScale),
        Mode::FastChat | Mode::Strict => Ok(rating.value()),
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

/// The opinions of each judge on each question's turn, the last of each repeat, where the first of them stood.
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
    let judged: std::collections::BTreeSet<(u64, u8)> =
        judged.iter().map(|j| (j.question_id, j.turn)).collect();
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
