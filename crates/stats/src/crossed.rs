//! Crossed designs: seeds × questions, with turns within questions and judge repeats within answers.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::distribution::{length, moments, quantiles};
use crate::error::check_level;
use crate::estimate::satterthwaite;
use crate::{Design, Error, Estimate, MeanEstimate, MeanSquare, Over, Resamples, Variances};

/// One score and its position in the design.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The training seed. Every seed answers every question.
    pub seed: u64,
    /// The question.
    pub question: u64,
    /// The turn within the question.
    pub turn: u64,
    /// The index among several scores of a seed's turn: judgments of the same answer, or sampled answers.
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
    /// Creates a design from `rows`, in any order.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`]; [`Error::TooFewClusters`] without rows; [`Error::Incomplete`] where a seed lacks a turn
    /// of a question or an answer has another number of judgments than the first one. Drop the question for all
    /// seeds, and report it.
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

    /// Returns the numbers of seeds, questions, turns per question and judgments per answer.
    pub fn design(&self) -> Design {
        let [seeds, questions, turns, repeats] = self.shape;
        Design { seeds, questions, turns, repeats }
    }

    /// Returns the differences `self` − `other` by seed, question, turn and repeat. Pairing removes the variance that
    /// both sides share.
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

    /// Returns the questions in ascending order.
    pub(crate) fn questions(&self) -> impl Iterator<Item = u64> {
        self.turns.iter().map(|&(question, _)| question)
    }

    /// Returns the seeds in ascending order.
    pub(crate) fn seeds(&self) -> impl Iterator<Item = u64> {
        self.seeds.iter().copied()
    }

    /// Returns an error unless `other` has the same questions with the same turns.
    pub(crate) fn check_same_questions(&self, other: &Self) -> Result<(), Error> {
        if self.turns == other.turns {
            return Ok(());
        }
        Err(Error::OtherDesign { first: self.design(), second: other.design() })
    }

    /// Returns a design whose scores of seed `s` on question `q`, both as indices, are those of `choose(s, q)`.
    pub(crate) fn chosen_from(cells: &[Self], choose: impl Fn(usize, usize) -> usize) -> Option<Self> {
        let first = cells.first()?;
        let [_, q, t, j] = first.shape;
        let score = |index: usize| {
            let cell = index / (t * j);
            cells[choose(cell / q, cell % q)].scores[index]
        };
        Some(Self { scores: (0..first.scores.len()).map(score).collect(), ..first.clone() })
    }

    /// Returns the mean of each question over seeds, turns and repeats.
    pub(crate) fn question_means(&self) -> Vec<f64> {
        let [_, of_question, ..] = self.means();
        of_question
    }

    /// Returns the mean of each seed's answers to each question, `[seeds][questions]`.
    pub(crate) fn cell_means(&self) -> Vec<f64> {
        let [_, _, of_cell, ..] = self.means();
        of_cell
    }

    /// Returns the variance between repeats of one seed's scores of one question, turns averaged, without degrees of
    /// freedom for one repeat.
    pub(crate) fn repeat_variance(&self) -> MeanSquare {
        let [s, q, t, j] = self.shape;
        let df = length(s * q * (j - 1));
        let mut squares = 0.0;
        for cell in self.scores.chunks(t * j) {
            let repeat = |repeat: usize| (0..t).map(|turn| cell[turn * j + repeat]).sum::<f64>() / length(t);
            squares += moments(&(0..j).map(repeat).collect::<Vec<_>>()).1;
        }
        MeanSquare { value: if df > 0.0 { squares / df } else { 0.0 }, degrees_of_freedom: df }
    }

    /// Computes the mean with its bootstrap interval over seeds and questions. Each resample draws seeds and,
    /// independently, questions with replacement (Owen, *Annals of Applied Statistics* 1, 2007).
    ///
    /// Use it for eight seeds or more; with fewer seeds [`Components::estimate`] is calibrated and the bootstrap is
    /// not. It counts the interaction of seeds and questions up to three times, so it is conservative where the
    /// interaction is large.
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
    ) -> Result<Estimate, Error> {
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
        let [low, high] = quantiles(&mut values, [tail, 1.0 - tail]);
        Ok(Estimate { value, low, high, level, clusters: q, resamples })
    }

    /// Computes the variance components by the analysis of variance of the balanced design.
    ///
    /// The model is score = μ + seed + question + seed·question + turn(question) + seed·turn(question) + judgment,
    /// all random. The components solve the equations of the expected mean squares (Searle, Casella and McCulloch,
    /// *Variance Components*, 1992, ch. 4). Negative components are set to 0.
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

    /// Returns the means of seeds, questions, seeds × questions, questions × turns, and answers.
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

/// Variance components of scores or of differences.
///
/// A component is `None` if the design does not identify it. Its variance is then part of the next inner component.
/// With one judgment per answer, the judge's variance is part of `answer`; with one turn as well, of `seed_question`;
/// with one seed, of `turn` or `question`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Components {
    /// The mean of all scores.
    pub mean: f64,
    /// The size of the design.
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
        // Without turns or without seeds some strata are empty; the next inner one replaces them.
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

    /// Computes the mean with its standard error and degrees of freedom.
    ///
    /// With N scores in all and the mean squares A of seeds and B of questions:
    /// - over seeds and questions, (A + B)/N. Both mean squares contain the interaction, so it is counted twice. Its
    ///   estimate is too uncertain at one to three degrees of freedom to be subtracted. Degrees of freedom are
    ///   Satterthwaite's (*Biometrics Bulletin* 2, 1946).
    /// - over questions, B/N with questions − 1; over seeds, A/N with seeds − 1.
    ///
    /// The README has the coverage of these intervals. For a study with several cells
    /// [`PooledSeeds`](crate::PooledSeeds) is calibrated at two seeds too. With eight or more seeds
    /// [`CrossedScores::bootstrap`] assumes less.
    ///
    /// # Errors
    ///
    /// [`Error::OneSeed`] if seeds are random and there is only one.
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

    /// Returns the components for a [`Plan`](crate::Plan), with 0 for those that the design does not identify.
    pub fn variances(&self) -> Variances {
        let or_zero = |component: Option<f64>| component.unwrap_or(0.0);
        Variances {
            seed: or_zero(self.seed),
            question: or_zero(self.question),
            seed_question: or_zero(self.seed_question),
            turn: or_zero(self.turn),
            answer: or_zero(self.answer),
            judge: or_zero(self.judge),
        }
    }
}
