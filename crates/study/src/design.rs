//! Designs: power, coverage and false alarms of a study's size, simulated before anything is trained or judged.
//!
//! Scores are drawn for all policies of a question's grid, with known differences, and measured by the code that measures
//! real ones.

mod sizes;
mod spread;
mod votes;

use experiment::{
    Analysis, BENCHMARK, Collected, Evaluated, Evaluation, Grid, Key, Score, Scorer, Scorers, Setup, Subject,
};
use rayon::prelude::*;
use report::table::{Align, Column, Table, Value};
use sandbox::normal;
use seeds::{Seeds, Stream};
use trainer::Progress;

pub use spread::Spread;
pub use votes::JudgeFit;

use crate::claims::Claim;
use crate::error::StudyError;
use crate::question::Question;
use crate::recipe::StudyRecipe;
use crate::results::Results;
use crate::tested::{Measured, tested};
use crate::verdict::SIGNIFICANT;

/// The planted effects, in points.
const EFFECTS: [f64; 3] = [0.1, 0.2, 0.4];
/// The effect that a recommended design finds.
const WANTED: f64 = 0.2;
/// Turns of a question.
const TURNS: u64 = 2;
/// Categories of the questions, as MT-Bench has.
const CATEGORIES: u64 = 8;
/// The score around which all others vary. Only differences are measured.
const MEAN: f64 = 7.0;

/// What a simulation assumes.
#[derive(Clone, Debug)]
pub struct Assumptions {
    /// The spread of scores.
    pub spread: Spread,
    /// Where it comes from, in words.
    pub source: String,
    /// The judge beside people. Effects are then in people's points.
    pub judge: Option<JudgeFit>,
    /// Simulated studies of each effect.
    pub studies: usize,
}

impl Assumptions {
    /// Returns the judge's points for a point of the planted effect.
    fn slope(&self) -> f64 {
        self.judge.map_or(1.0, |judge| judge.slope)
    }

    /// Returns the standard deviation between policies of equal quality, in the judge's points, that the lengths of their
    /// answers cause.
    fn length_bias(&self) -> f64 {
        let per_doubling = self.judge.and_then(|judge| judge.per_doubling).unwrap_or(0.0);
        per_doubling.abs() * self.spread.length
    }

    /// Returns the same with a judge to whom length does not matter.
    fn without_length_bias(&self) -> Self {
        let judge = self.judge.map(|judge| JudgeFit { per_doubling: None, ..judge });
        Self { judge, ..self.clone() }
    }
}

/// Simulates studies of `asked` with the sizes of `recipe`. Returns a table of what they find, and one of designs that find
/// 0.2 points in four of five studies. No model, data or judge is needed.
///
/// # Errors
///
/// If a statistic is not defined for such a study.
pub fn design(
    recipe: &StudyRecipe,
    asked: &[&dyn Question],
    assumed: &Assumptions,
    progress: &mut dyn Progress,
) -> Result<Vec<Table>, StudyError> {
    let mut simulated = Vec::new();
    for question in asked {
        let Some(simulation) = Simulation::of(recipe, *question, assumed)? else { continue };
        progress.begin(&format!("simulating {}", question.about().name), simulation.runs());
        let found = simulation.run(progress);
        progress.end();
        simulated.push((simulation, found?));
    }
    let required = sizes::table(recipe, &simulated, assumed)?;
    Ok([power_table(recipe, &simulated, assumed)].into_iter().chain(required).collect())
}

/// Simulated studies of one question.
struct Simulation<'a> {
    recipe: &'a StudyRecipe,
    setup: Setup,
    question: &'a dyn Question,
    assumed: &'a Assumptions,
    policies: Policies,
    comparisons: Vec<Comparison>,
}

/// A comparison that answers a question.
#[derive(PartialEq)]
struct Comparison {
    /// Its index among the question's headlines.
    at: usize,
    name: String,
    /// Its weights on policies; `None` if the data choose what is compared.
    weights: Option<Vec<f64>>,
}

/// The subjects of a grid by policy: without their seeds.
struct Policies {
    subjects: Vec<Subject>,
    /// The policy of each subject.
    of: Vec<usize>,
    known: Vec<Subject>,
    is_trained: Vec<bool>,
}

/// What the simulated studies of a question found.
struct Found {
    /// Shares of studies that find each effect with its sign, by comparison; `None` without weights.
    power: Vec<Option<[f64; EFFECTS.len()]>>,
    /// The share of intervals that cover the effect, and the mean minimum detectable effect, by comparison.
    coverage: Vec<f64>,
    detectable: Vec<f64>,
    /// The shares of studies without effects that find one among the comparisons, and among all claims.
    false_alarms: [f64; 2],
}

impl Policies {
    fn of(grid: &Grid) -> Self {
        let subjects = grid.subjects().to_vec();
        let mut known: Vec<Subject> = Vec::new();
        let of = subjects.iter().map(|subject| {
            let policy = subject.without_seed();
            known.iter().position(|other| *other == policy).unwrap_or_else(|| {
                known.push(policy);
                known.len() - 1
            })
        });
        let of = of.collect();
        let is_trained = known.iter().map(|policy| matches!(policy, Subject::Trained { .. })).collect();
        Self { subjects, of, known, is_trained }
    }

    /// Draws the scores of a study whose policies differ by `shifts` points, and by what their lengths add.
    fn draw(&self, setup: &Setup, assumed: &Assumptions, shifts: &[f64], rng: &mut Stream) -> Collected {
        let Size { questions, samples, judge } = Size::of(setup);
        let (spread, bias) = (&assumed.spread, assumed.length_bias());
        let biased = |shift: &f64| if bias > 0.0 { shift + bias * normal(rng) } else { *shift };
        let shifts: Vec<f64> = shifts.iter().map(biased).collect();
        let tastes: Vec<Vec<f64>> = shifts
            .iter()
            .map(|_| (0..questions).map(|_| spread.policy_question * normal(rng)).collect())
            .collect();
        let evaluated = self.subjects.iter().zip(&self.of).map(|(subject, &policy)| {
            let of_seed = if self.is_trained[policy] { spread.seed * normal(rng) } else { 0.0 };
            let mut scores = Vec::with_capacity(questions * TURNS as usize * samples);
            for (question, taste) in tastes[policy].iter().enumerate() {
                let here = MEAN + shifts[policy] + of_seed + taste;
                let here = here + spread.seed_question * normal(rng);
                for sample in 0..samples as u64 {
                    for turn in 1..=TURNS {
                        scores.push(Score {
                            question_set: BENCHMARK.to_owned(),
                            question_id: question as u64,
                            category: (question as u64 % CATEGORIES).to_string(),
                            sample,
                            turn: turn as u8,
                            scorer: judge.name.clone(),
                            score: Some(here + spread.answer * normal(rng)),
                            judge_variance: None,
                            characters: 0,
                        });
                    }
                }
            }
            Evaluated {
                key: Key::of("simulated", &policy),
                evaluation: Evaluation::from_scores(scores),
                subject: subject.clone(),
                step: 0,
                training_loss: None,
                held_out: None,
                labels: None,
            }
        });
        Collected { evaluated: evaluated.collect(), failed: Vec::new() }
    }
}

/// The size of a study, and its judge.
struct Size {
    questions: usize,
    samples: usize,
    judge: Scorer,
}

impl Size {
    fn of(setup: &Setup) -> Self {
        let samples = usize::from(setup.answers.samples.get());
        Self { questions: setup.questions, samples, judge: Scorers::of(setup).judge }
    }
}

impl<'a> Simulation<'a> {
    /// Returns the simulation of a question; `None` for one that compares nothing.
    fn of(
        recipe: &'a StudyRecipe,
        question: &'a dyn Question,
        assumed: &'a Assumptions,
    ) -> Result<Option<Self>, StudyError> {
        let grid = question.grid(recipe);
        if grid.trained() == 0 {
            return Ok(None);
        }
        let policies = Policies::of(&grid);
        let mut simulation =
            Self { recipe, setup: recipe.setup(), question, assumed, policies, comparisons: Vec::new() };
        let (mut compared, other) = (simulation.compared(0)?, simulation.compared(1)?);
        for comparison in &mut compared {
            // What differs between two studies of one size depends on their data.
            if !other.contains(comparison) {
                comparison.weights = None;
            }
        }
        simulation.comparisons = compared;
        Ok((!simulation.comparisons.is_empty()).then_some(simulation))
    }

    /// Returns the comparisons that answer the question in a simulated study.
    fn compared(&self, study: usize) -> Result<Vec<Comparison>, StudyError> {
        let collected = self.draw(&vec![0.0; self.policies.is_trained.len()], study);
        let results = Results::simulated(self.recipe, &self.setup, &collected);
        let analysis = &results.scores;
        let Some(pool) = analysis.pool(&Scorers::of(&self.setup).judge)? else { return Ok(Vec::new()) };
        let place = |policy: &Subject| pool.policies().iter().position(|known| known == policy);
        let places: Vec<Option<usize>> = self.policies.known.iter().map(place).collect();
        let mut compared = Vec::new();
        for (at, headline) in self.question.headlines(&results)?.into_iter().enumerate() {
            let measured = headline.contrast.measure(analysis, &Scorers::of(&self.setup).judge, 1.0)?;
            if measured.is_none() {
                continue;
            }
            let weights = headline.contrast.weights(analysis, &pool).map(|weights| {
                places.iter().map(|place| place.map_or(0.0, |place| weights[place])).collect()
            });
            compared.push(Comparison { at, name: headline.comparison, weights });
        }
        Ok(compared)
    }

    /// Returns the number of simulated studies.
    fn runs(&self) -> u64 {
        let planted = self.comparisons.iter().filter(|comparison| comparison.weights.is_some()).count();
        ((1 + planted * EFFECTS.len()) * self.assumed.studies) as u64
    }

    fn draw(&self, shifts: &[f64], study: usize) -> Collected {
        let seeds = Seeds::new(self.setup.seed).child("design");
        let mut rng = seeds.indexed(self.question.about().name, study as u64);
        self.policies.draw(&self.setup, self.assumed, shifts, &mut rng)
    }

    fn run(&self, progress: &mut dyn Progress) -> Result<Found, StudyError> {
        let nothing = vec![0.0; self.policies.is_trained.len()];
        let mut done = 0;
        let mut advance = |studies: usize| {
            done += studies as u64;
            progress.advance(done, "");
        };
        let without = self.studies(&nothing, true)?;
        advance(without.len());
        let share = |of: &dyn Fn(&Studied) -> bool, all: &[Studied]| {
            all.iter().filter(|study| of(study)).count() as f64 / all.len().max(1) as f64
        };
        let slope = self.assumed.slope();
        let (mut power, mut coverage, mut detectable) = (Vec::new(), Vec::new(), Vec::new());
        for Comparison { at, weights, .. } in &self.comparisons {
            let at = *at;
            let mut covered = vec![share(&|study| study.covers(at, 0.0), &without)];
            let mut found = None;
            if let Some(weights) = weights {
                let mut shares = [0.0; EFFECTS.len()];
                for (found, effect) in shares.iter_mut().zip(EFFECTS) {
                    let studies = self.studies(&self.shifts(weights, effect), false)?;
                    advance(studies.len());
                    *found = self.power(&studies, at);
                    covered.push(share(&|study| study.covers(at, slope * effect), &studies));
                }
                found = Some(shares);
            }
            power.push(found);
            coverage.push(covered.iter().sum::<f64>() / covered.len() as f64);
            let known = without.iter().filter_map(|study| Some(study.measured.get(at)?.as_ref()?.mde.value));
            let known: Vec<f64> = known.collect();
            detectable.push(known.iter().sum::<f64>() / known.len().max(1) as f64);
        }
        let any = |study: &Studied| study.measured.iter().flatten().any(|one| one.shown.p < SIGNIFICANT);
        let false_alarms = [share(&any, &without), share(&|study| study.is_false_alarm, &without)];
        Ok(Found { power, coverage, detectable, false_alarms })
    }

    /// Returns the smallest differences between policies that have an effect.
    fn shifts(&self, weights: &[f64], effect: f64) -> Vec<f64> {
        let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
        weights.iter().map(|weight| self.assumed.slope() * effect * weight / squares).collect()
    }

    /// Returns the share of studies that find an effect with its sign in the comparison with index `at`.
    fn power(&self, studies: &[Studied], at: usize) -> f64 {
        studies.iter().filter(|study| study.finds(at)).count() as f64 / studies.len().max(1) as f64
    }

    /// Draws and measures studies whose policies differ by `shifts`, on all cores.
    fn studies(&self, shifts: &[f64], with_claims: bool) -> Result<Vec<Studied>, StudyError> {
        let all = (0..self.assumed.studies).into_par_iter();
        all.map(|study| self.measure(&self.draw(shifts, study), with_claims)).collect()
    }

    fn measure(&self, collected: &Collected, with_claims: bool) -> Result<Studied, StudyError> {
        let results = Results::simulated(self.recipe, &self.setup, collected);
        let headlines = self.question.headlines(&results)?;
        let claims =
            headlines.into_iter().map(|headline| Claim::new("", headline.comparison, headline.contrast));
        let measured = self.tested(&results.scores, &claims.collect::<Vec<_>>())?;
        let claims = if with_claims { self.question.claims(&results)? } else { Vec::new() };
        let claims: Vec<Claim<'_>> =
            claims.into_iter().map(|claim| Claim { control: None, ..claim }).collect();
        let claimed = self.tested(&results.scores, &claims)?;
        let is_false_alarm = claimed.iter().flatten().any(|claim| claim.shown.p < SIGNIFICANT);
        Ok(Studied { measured, is_false_alarm })
    }

    fn tested(
        &self,
        analysis: &Analysis<'_>,
        claims: &[Claim<'_>],
    ) -> Result<Vec<Option<Measured>>, StudyError> {
        tested((analysis, &Scorers::of(&self.setup).judge, self.recipe.study.margin.get()), claims)
    }
}

/// A simulated study: its comparisons, and whether a claim is significant.
struct Studied {
    measured: Vec<Option<Measured>>,
    is_false_alarm: bool,
}

impl Studied {
    fn finds(&self, at: usize) -> bool {
        let measured = self.measured.get(at).and_then(Option::as_ref);
        measured.is_some_and(|one| one.shown.p < SIGNIFICANT && one.shown.is_higher)
    }

    fn covers(&self, at: usize, effect: f64) -> bool {
        let measured = self.measured.get(at).and_then(Option::as_ref);
        let interval = measured.and_then(|one| one.estimate.interval(one.level).ok());
        interval.is_some_and(|interval| interval.low <= effect && effect <= interval.high)
    }
}

fn share(value: f64) -> Value {
    Value::text(format!("{:.0}%", 100.0 * value))
}

fn power_table(recipe: &StudyRecipe, simulated: &[(Simulation<'_>, Found)], assumed: &Assumptions) -> Table {
    let right = |name: &str| Column::new(name, Align::Right);
    let mut columns = vec![Column::new("Question", Align::Left), Column::new("Comparison", Align::Left)];
    columns.extend(
        EFFECTS.map(|effect| Column::grouped("Finds an effect of", format!("{effect}"), Align::Right)),
    );
    columns.extend([right("Coverage"), right("MDE")]);
    let mut rows = Vec::new();
    for (simulation, found) in simulated {
        for (at, comparison) in simulation.comparisons.iter().enumerate() {
            let name = if at == 0 { simulation.question.about().name } else { "" };
            let mut row = vec![Value::text(name), Value::text(&comparison.name)];
            row.extend(match found.power[at] {
                Some(shares) => shares.map(share),
                None => EFFECTS
                    .map(|_| Value::missing("the data choose what is compared, so no effect is planted")),
            });
            row.extend([
                share(found.coverage[at]),
                Value::Number { value: found.detectable[at], decimals: 2 },
            ]);
            rows.push(row);
        }
    }
    let alarms = simulated.iter().map(|(simulation, found)| {
        let [headlines, claims] = found.false_alarms.map(|share| format!("{:.0}%", 100.0 * share));
        format!("{} {headlines} ({claims} with all its claims)", simulation.question.about().name)
    });
    let (seeds, questions) = (recipe.study.seeds, recipe.study.questions);
    let mut notes = vec![
        format!("False alarms, at most 5% by design: {}.", alarms.collect::<Vec<_>>().join(", ")),
        format!(
            "{} simulated studies of each effect. Effects are in {}; a study finds one if it is significant, with its sign, after \
             Holm's correction for the comparisons of the question. Coverage: of 95% intervals. MDE: mean minimum detectable effect \
             at 80% power.",
            assumed.studies,
            if assumed.judge.is_some() { "people's points" } else { "the judge's points" },
        ),
        format!("Standard deviations, {}: {}.", assumed.source, assumed.spread.in_words()),
        "Each question is simulated alone; a study of several shares the variance between seeds, and finds slightly more.".to_owned(),
    ];
    if let Some(JudgeFit { slope, correlation, answers, per_doubling }) = assumed.judge {
        notes.push(format!(
            "The judge gives {slope:.2} points for a point of the people, over {answers} answers, with a correlation of \
             {correlation:.2}, so it shows an effect as that many times as large."
        ));
        if let Some(per_doubling) = per_doubling {
            notes.push(format!(
                "The judge adds {per_doubling:+.2} points for a doubling of length at equal ratings by the people. The mean \
                 lengths of policies differ with a standard deviation of {:.2} doublings, so its scores of equal policies differ \
                 with one of {:.2} points. Neither questions nor seeds reduce that.",
                assumed.spread.length,
                assumed.length_bias()
            ));
        }
    }
    if seeds == 1 {
        notes.push("With one seed the intervals are about these policies, and coverage of other runs is not promised.".to_owned());
    }
    let size = format!("{seeds} {} × {questions} questions", if seeds == 1 { "seed" } else { "seeds" });
    Table { id: "design".into(), title: format!("What a study of {size} finds"), columns, rows, notes }
}

#[cfg(test)]
mod tests;
