//! Seeds × questions, turns within questions, judge repeats innermost: what varies, by how much, and what an average
//! over all of it is uncertain by.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::bootstrap::check_level;
use crate::distribution::{length, t_cdf, t_quantile};
use crate::{Error, Resamples};

/// One score and where it stands in the design.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The seed of the trained model. Every seed answers every question.
    pub seed: u64,
    /// The question.
    pub question: u64,
    /// The turn within the question.
    pub turn: u64,
    /// Which of several judgments of the same answer.
    pub repeat: u64,
    /// The score.
    pub score: f64,
}

/// Scores of a complete design: every seed has every question, every question the same number of turns, every answer
/// the same number of judgments.
///
/// ```
/// use stats::{CrossedScores, Observation, Over};
///
/// // Two seeds, three questions, two turns, judged once.
/// let score = |seed: u64, question: u64, turn: u64| [6.0, 7.5, 4.0][question as usize] + (seed * turn) as f64 / 2.0;
/// let rows = (0..12).map(|i| {
///     let (seed, question, turn) = (i / 6, i % 6 / 2, i % 2);
///     Observation { seed, question, turn, repeat: 0, score: score(seed, question, turn) }
/// });
/// let scores = CrossedScores::new(rows)?;
/// let components = scores.components()?;
/// assert!(components.question.unwrap() > components.seed.unwrap(), "questions differ most");
/// assert!(components.judge.is_none(), "one judgment an answer: its noise cannot be told from the answer's");
/// let mean = components.estimate(Over::SeedsAndQuestions)?;
/// assert!(mean.interval(0.95)?.low < mean.value);
/// # Ok::<(), stats::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CrossedScores {
    /// Seeds, questions, turns, repeats.
    shape: [usize; 4],
    seeds: Vec<u64>,
    /// Questions with their turns.
    turns: Vec<(u64, Vec<u64>)>,
    /// `[seeds][questions][turns][repeats]`.
    scores: Vec<f64>,
}

impl CrossedScores {
    /// The scores of `rows`, in any order.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`]; [`Error::TooFewClusters`] without rows; [`Error::Incomplete`] where a seed lacks a turn of a
    /// question or an answer has another number of judgments than the first one. Average over what is missing, or drop
    /// the question for all seeds, and say so.
    pub fn new(rows: impl IntoIterator<Item = Observation>) -> Result<Self, Error> {
        let mut answers: BTreeMap<(u64, u64, u64), BTreeMap<u64, f64>> = BTreeMap::new();
        for (row, Observation { seed, question, turn, repeat, score }) in rows.into_iter().enumerate() {
            if !score.is_finite() {
                return Err(Error::NotFinite { row, cluster: question, value: score });
            }
            if answers.entry((seed, question, turn)).or_default().insert(repeat, score).is_some() {
                return Err(Error::Incomplete { seed, question, turn, problem: "has a repeat twice" });
            }
        }
        let seeds: BTreeSet<u64> = answers.keys().map(|&(seed, ..)| seed).collect();
        let mut turns: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for &(_, question, turn) in answers.keys() {
            turns.entry(question).or_default().insert(turn);
        }
        let turns_of_first = turns.values().next().map_or(0, BTreeSet::len);
        let repeats = answers.values().next().map_or(0, BTreeMap::len);
        if answers.is_empty() {
            return Err(Error::TooFewClusters { clusters: 0 });
        }
        let mut scores = Vec::new();
        for &seed in &seeds {
            for (&question, turns) in &turns {
                for &turn in turns {
                    let incomplete = |problem| Error::Incomplete { seed, question, turn, problem };
                    if turns.len() != turns_of_first {
                        return Err(incomplete(
                            "is one of another number of turns than the first question has",
                        ));
                    }
                    let judged =
                        answers.get(&(seed, question, turn)).ok_or_else(|| incomplete("has no score"))?;
                    if judged.len() != repeats {
                        return Err(incomplete("has another number of judgments than the first answer"));
                    }
                    scores.extend(judged.values());
                }
            }
        }
        let shape = [seeds.len(), turns.len(), turns_of_first, repeats];
        let turns = turns.into_iter().map(|(question, turns)| (question, turns.into_iter().collect()));
        Ok(Self { shape, seeds: seeds.into_iter().collect(), turns: turns.collect(), scores })
    }

    /// How many seeds, questions, turns a question and judgments an answer there are.
    pub fn design(&self) -> Design {
        let [seeds, questions, turns, repeats] = self.shape;
        Design { seeds, questions, turns, repeats }
    }

    /// The differences `self` − `other`, score by score: seed by seed on the same questions, which is what makes a
    /// comparison of two ways of training sharp.
    ///
    /// # Errors
    ///
    /// [`Error::OtherDesign`] unless both have the same seeds, questions, turns and number of judgments.
    pub fn minus(&self, other: &Self) -> Result<Self, Error> {
        if self.seeds != other.seeds || self.turns != other.turns || self.shape != other.shape {
            return Err(Error::OtherDesign { first: self.design(), second: other.design() });
        }
        let scores = self.scores.iter().zip(&other.scores).map(|(one, other)| one - other).collect();
        Ok(Self { scores, ..self.clone() })
    }

    /// The mean with its bootstrap interval over seeds and questions: each resample draws seeds and, independently, questions
    /// with replacement, and takes every answer of a drawn seed to a drawn question (Owen, *Annals of Applied Statistics* 1,
    /// 2007).
    ///
    /// For eight seeds or more; below, [`Components::estimate`] is calibrated and this is not. It counts the interaction of
    /// seeds and questions up to three times, and is a little wide where that is large.
    ///
    /// # Errors
    ///
    /// [`Error::OneSeed`]; [`Error::TooFewClusters`] below two questions; [`Error::NoResamples`]; [`Error::Level`].
    ///
    /// ```
    /// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
    /// use stats::{CrossedScores, Observation};
    ///
    /// let score = |seed: u64, question: u64| (question % 7) as f64 + (seed % 3) as f64 / 10.0;
    /// let rows = (0..400_u64).map(|i| {
    ///     let (seed, question) = (i / 40, i % 40);
    ///     Observation { seed, question, turn: 1, repeat: 0, score: score(seed, question) }
    /// });
    /// let mean = CrossedScores::new(rows)?.bootstrap(2_000, 0.95, &mut ChaCha8Rng::seed_from_u64(0))?;
    /// assert!(mean.low < mean.value && mean.value < mean.high);
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn bootstrap(
        &self,
        resamples: usize,
        level: f64,
        rng: &mut (impl Rng + ?Sized),
    ) -> Result<crate::Estimate, Error> {
        check_level(level)?;
        let [s, q, ..] = self.shape;
        if s < 2 {
            return Err(Error::OneSeed);
        }
        let (seeds, questions) = (Resamples::draw(s, resamples, rng)?, Resamples::draw(q, resamples, rng)?);
        let [of_seed, _, of_cell, ..] = self.means();
        let mut values: Vec<f64> = seeds
            .each()
            .zip(questions.each())
            .map(|(seeds, questions)| {
                let cells = seeds.iter().map(|&seed| &of_cell[seed as usize * q..][..q]);
                let sum: f64 = cells
                    .map(|row| questions.iter().map(|&question| row[question as usize]).sum::<f64>())
                    .sum();
                sum / length(s * q)
            })
            .collect();
        let value = of_seed.iter().sum::<f64>() / length(s);
        let tail = (1.0 - level) / 2.0;
        let [low, high] = crate::bootstrap::quantiles(&mut values, [tail, 1.0 - tail]);
        Ok(crate::Estimate { value, low, high, level, clusters: q, resamples })
    }

    /// The variance components, by the analysis of variance of the balanced design.
    ///
    /// With score = μ + seed + question + seed·question + turn(question) + seed·turn(question) + judgment, all random,
    /// the mean squares' expectations are solved for the components (Searle, Casella and McCulloch, *Variance
    /// Components*, 1992, ch. 4). A component that comes out negative is 0, which is the usual reading: nothing was seen.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewClusters`] below two questions.
    pub fn components(&self) -> Result<Components, Error> {
        let [s, q, t, j] = self.shape;
        if q < 2 {
            return Err(Error::TooFewClusters { clusters: q });
        }
        let [of_seed, of_question, of_cell, of_turn, of_answer] = self.means();
        let mean = of_seed.iter().sum::<f64>() / length(s);
        let [ls, lq, lt, lj] = [s, q, t, j].map(length);
        let square = |x: f64| x * x;
        let mut sums = [0.0; 6];
        sums[0] = lq * lt * lj * of_seed.iter().map(|m| square(m - mean)).sum::<f64>();
        sums[1] = ls * lt * lj * of_question.iter().map(|m| square(m - mean)).sum::<f64>();
        for a in 0..s {
            for b in 0..q {
                let cell = of_cell[a * q + b];
                sums[2] += lt * lj * square(cell - of_seed[a] - of_question[b] + mean);
                for c in 0..t {
                    let (turn, answer) = (of_turn[b * t + c], of_answer[(a * q + b) * t + c]);
                    sums[4] += lj * square(answer - cell - turn + of_question[b]);
                }
            }
        }
        for (index, turn) in of_turn.iter().enumerate() {
            sums[3] += ls * lj * square(turn - of_question[index / t]);
        }
        for (index, score) in self.scores.iter().enumerate() {
            sums[5] += square(score - of_answer[index / j]);
        }
        let df = [s - 1, q - 1, (s - 1) * (q - 1), q * (t - 1), (s - 1) * q * (t - 1), s * q * t * (j - 1)];
        let mut mean_squares = [None; 6];
        for ((square, sum), df) in mean_squares.iter_mut().zip(sums).zip(df) {
            *square = (df > 0).then(|| sum / length(df));
        }
        Ok(Components::solve(mean, self.design(), mean_squares))
    }

    /// Means of seeds, questions, seeds × questions, questions × turns, and answers.
    fn means(&self) -> [Vec<f64>; 5] {
        let [s, q, t, j] = self.shape;
        let sizes = [s, q, s * q, q * t, s * q * t];
        let mut sums = sizes.map(|size| vec![0.0; size]);
        for (index, &score) in self.scores.iter().enumerate() {
            let answer = index / j;
            let (cell, turn) = (answer / t, answer % t);
            let (seed, question) = (cell / q, cell % q);
            for (sums, at) in sums.iter_mut().zip([seed, question, cell, question * t + turn, answer]) {
                sums[at] += score;
            }
        }
        let all = self.scores.len();
        for (sums, size) in sums.iter_mut().zip(sizes) {
            sums.iter_mut().for_each(|sum| *sum /= length(all / size));
        }
        sums
    }
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Design {
    /// Trained models.
    pub seeds: usize,
    /// Questions.
    pub questions: usize,
    /// Turns a question.
    pub turns: usize,
    /// Judgments an answer.
    pub repeats: usize,
}

/// What an average is to be an estimate *for*: which of its parts would be drawn anew if the study were repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Other seeds and other questions of the same kind: what a claim about a way of training needs.
    SeedsAndQuestions,
    /// Other questions, these very models.
    Questions,
    /// Other seeds, these very questions: what a claim about *this benchmark's* score needs.
    Seeds,
}

/// Variance components of scores, or of differences: where the variation comes from.
///
/// A component is `None` where the design cannot show it; what it would hold is then part of the next one inwards: with
/// one judgment an answer, the judge's noise is part of `answer`; with one turn too, of `seed_question`; with one seed, of
/// `turn` or `question`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Components {
    /// The mean of all scores.
    pub mean: f64,
    /// How much of everything was measured.
    pub design: Design,
    /// Variance between seeds, over all questions alike.
    pub seed: Option<f64>,
    /// Variance between questions, for all seeds alike: how hard they are.
    pub question: Option<f64>,
    /// Variance of seeds that differs from question to question.
    pub seed_question: Option<f64>,
    /// Variance between the turns of a question, for all seeds alike.
    pub turn: Option<f64>,
    /// Variance of a seed's answer to a turn: sampling of the text.
    pub answer: Option<f64>,
    /// Variance of judgments of the same answer.
    pub judge: Option<f64>,
    /// Mean squares of seed, question, seed·question, turn, answer, judge.
    mean_squares: [Option<f64>; 6],
}

impl Components {
    fn solve(mean: f64, design: Design, mean_squares: [Option<f64>; 6]) -> Self {
        let [seed, question, cell, turn, answer, judge] = mean_squares;
        let Design { seeds, questions, turns, repeats } = design;
        let [s, q, t, j] = [seeds, questions, turns, repeats].map(length);
        let part = |square: Option<f64>, within: f64, size: f64| Some(((square? - within) / size).max(0.0));
        let within_answer = judge.unwrap_or(0.0);
        // Without turns or without seeds some strata are empty, and the next inner one takes their place.
        let answer_square = answer.unwrap_or(within_answer);
        let cell_square = cell.unwrap_or(answer_square);
        let turn_square = turn.unwrap_or(answer_square);
        Self {
            mean,
            design,
            judge,
            answer: part(answer, within_answer, j),
            turn: part(turn, answer_square, s * j),
            seed_question: part(cell, answer_square, t * j),
            question: part(question, turn_square + cell_square - answer_square, s * t * j),
            seed: part(seed, cell_square, q * t * j),
            mean_squares,
        }
    }

    /// The mean with its standard error, and the degrees of freedom that a t-interval takes.
    ///
    /// With N scores in all and the mean squares A of seeds and B of questions:
    /// - over seeds and questions, (A + B)/N. The interaction, which both mean squares hold, is counted twice, since
    ///   subtracting it needs an estimate that one or three degrees of freedom do not give. Degrees of freedom are
    ///   Satterthwaite's (*Biometrics Bulletin* 2, 1946).
    /// - over questions, B/N with questions − 1; over seeds, A/N with seeds − 1.
    ///
    /// The README shows how often such intervals hold the truth at 2 and at 4 seeds; with eight or more
    /// [`CrossedScores::bootstrap`] is an alternative that assumes less.
    ///
    /// # Errors
    ///
    /// [`Error::OneSeed`] where seeds are to be drawn anew and there is one only.
    pub fn estimate(&self, over: Over) -> Result<MeanEstimate, Error> {
        let Design { seeds, questions, turns, repeats } = self.design;
        let all = length(seeds * questions * turns * repeats);
        let question = (self.mean_squares[1].unwrap_or(0.0) / all, length(questions) - 1.0);
        let seed = self.mean_squares[0].map(|square| (square / all, length(seeds) - 1.0));
        let terms = match over {
            Over::Questions => vec![question],
            Over::Seeds => vec![seed.ok_or(Error::OneSeed)?],
            Over::SeedsAndQuestions => vec![seed.ok_or(Error::OneSeed)?, question],
        };
        let (variance, degrees_of_freedom) = satterthwaite(&terms);
        Ok(MeanEstimate { value: self.mean, standard_error: variance.sqrt(), degrees_of_freedom })
    }

    /// The components as numbers for a [`Plan`](crate::Plan), with 0 for what the design could not show.
    pub fn variances(&self) -> crate::Variances {
        let or_zero = |component: Option<f64>| component.unwrap_or(0.0);
        crate::Variances {
            seed: or_zero(self.seed),
            question: or_zero(self.question),
            seed_question: or_zero(self.seed_question),
            turn: or_zero(self.turn),
            answer: or_zero(self.answer),
            judge: or_zero(self.judge),
        }
    }
}

/// A mean with its standard error: the common currency of t-intervals, equivalence tests and power.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanEstimate {
    /// The mean, or the mean difference.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Degrees of freedom of the standard error.
    pub degrees_of_freedom: f64,
}

impl MeanEstimate {
    /// The mean of `values` that are independent of each other, such as one difference a question.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`]; [`Error::TooFewClusters`] below two values.
    ///
    /// ```
    /// let mean = stats::MeanEstimate::of(&[1.0, 2.0, 3.0, 4.0])?;
    /// assert_eq!((mean.value, mean.degrees_of_freedom), (2.5, 3.0));
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn of(values: &[f64]) -> Result<Self, Error> {
        crate::error::check_finite(values)?;
        if values.len() < 2 {
            return Err(Error::TooFewClusters { clusters: values.len() });
        }
        let (value, squares) = crate::distribution::moments(values);
        let degrees_of_freedom = length(values.len()) - 1.0;
        let standard_error = (squares / degrees_of_freedom / length(values.len())).sqrt();
        Ok(Self { value, standard_error, degrees_of_freedom })
    }

    /// The t-interval: value ± t · standard error, with t the (1 + `level`)/2 quantile at the degrees of freedom.
    ///
    /// # Errors
    ///
    /// [`Error::Level`].
    ///
    /// ```
    /// let mean = stats::MeanEstimate { value: 0.3, standard_error: 0.1, degrees_of_freedom: 79.0 };
    /// let interval = mean.interval(0.95)?;
    /// assert!((interval.low - 0.101).abs() < 1e-3 && (interval.high - 0.499).abs() < 1e-3);
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn interval(&self, level: f64) -> Result<crate::Interval, Error> {
        check_level(level)?;
        let half = t_quantile(f64::midpoint(1.0, level), self.degrees_of_freedom) * self.standard_error;
        Ok(crate::Interval { low: self.value - half, high: self.value + half, level })
    }

    /// The two-sided p of "the mean is 0": the level at which the t-interval ends at 0, subtracted from 1.
    ///
    /// ```
    /// let mean = stats::MeanEstimate { value: 0.3, standard_error: 0.1, degrees_of_freedom: 79.0 };
    /// let p = mean.p_value();
    /// assert!((0.0035..0.0037).contains(&p));
    /// assert!(mean.interval(1.0 - p)?.low.abs() < 1e-6);
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn p_value(&self) -> f64 {
        if self.standard_error > 0.0 {
            2.0 * t_cdf(-(self.value / self.standard_error).abs(), self.degrees_of_freedom)
        } else {
            f64::from(u8::from(self.value == 0.0))
        }
    }
}

/// The sum of mean squares' shares `(value, degrees of freedom)`, and its degrees of freedom.
pub(crate) fn satterthwaite(terms: &[(f64, f64)]) -> (f64, f64) {
    let variance: f64 = terms.iter().map(|(value, _)| value).sum();
    let denominator: f64 = terms.iter().map(|(value, df)| value * value / df).sum();
    // Scores that do not vary at all: any number of degrees of freedom gives the same interval of width 0.
    let df = if denominator > 0.0 { variance * variance / denominator } else { terms[0].1 };
    (variance, df)
}
