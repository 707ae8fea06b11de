//! Sizes of studies that find an effect: by formula, and enlarged until simulations confirm them.

use experiment::Grid;
use report::table::{Align, Column, Table, Value};
use stats::{PlannedTest, StudySize, VarianceParts};

use super::{Assumptions, Comparison, Found, Simulation, Size, TURNS, WANTED};
use crate::error::StudyError;
use crate::evidence::POWER;
use crate::recipe::StudyRecipe;
use crate::verdict::SIGNIFICANT;

/// The numbers of seeds of recommended designs.
const SEEDS: [u64; 6] = [2, 3, 4, 6, 8, 12];

/// A design that finds [`WANTED`].
pub(super) struct Enough {
    pub(super) seeds: u64,
    pub(super) questions: usize,
    pub(super) runs: usize,
    pub(super) calls: u64,
}

/// Designs of each number of seeds, and what simulations of the cheapest find.
pub(super) struct Designs {
    /// `None` where no number of questions is enough.
    pub(super) by_seeds: Vec<(u64, Option<Enough>)>,
    /// By how much the numbers of questions exceed the formula's.
    pub(super) factor: f64,
    /// The index of the design with the fewest judge calls, and the least share of its studies that finds the effect.
    pub(super) cheapest: Option<(usize, f64)>,
}

/// By how much the numbers of questions grow if simulations find less than the formula says.
const LARGER: f64 = 1.15;
/// The most enlargements.
const ENLARGED: i32 = 6;

impl Designs {
    /// Computes designs by formula, and enlarges them until simulations of the cheapest have the power: the tests of few
    /// policies are conservative, which no formula shows.
    pub(super) fn of(
        recipe: &StudyRecipe,
        simulated: &[(Simulation<'_>, Found)],
        assumed: &Assumptions,
    ) -> Result<Self, StudyError> {
        let error = (POWER * (1.0 - POWER) / assumed.studies.max(1) as f64).sqrt();
        let mut enlarged = 0;
        loop {
            let factor = LARGER.powi(enlarged);
            let mut by_seeds = Vec::new();
            for seeds in SEEDS {
                by_seeds.push((seeds, enough(recipe, simulated, assumed, (seeds, factor))?));
            }
            let known =
                by_seeds.iter().enumerate().filter_map(|(at, (_, design))| Some((at, design.as_ref()?)));
            let cheapest = known.min_by_key(|(_, design)| (design.calls, design.runs)).map(|(at, _)| at);
            let cheapest = match cheapest {
                Some(at) => by_seeds[at].1.as_ref().map(|design| (at, design)),
                None => None,
            };
            let cheapest = match cheapest {
                Some((at, design)) => Some((at, least_power(recipe, simulated, assumed, design)?)),
                None => None,
            };
            if cheapest.is_none_or(|(_, power)| power + error >= POWER) || enlarged == ENLARGED {
                return Ok(Self { by_seeds, factor, cheapest });
            }
            enlarged += 1;
        }
    }
}

/// Returns the table of designs that find [`WANTED`] in every comparison; `None` without planted comparisons.
pub(super) fn table(
    recipe: &StudyRecipe,
    simulated: &[(Simulation<'_>, Found)],
    assumed: &Assumptions,
) -> Result<Option<Table>, StudyError> {
    let is_planted =
        |simulation: &Simulation<'_>| simulation.comparisons.iter().any(|one| one.weights.is_some());
    if !simulated.iter().any(|(simulation, _)| is_planted(simulation)) {
        return Ok(None);
    }
    let Designs { by_seeds, factor, cheapest } =
        Designs::of(recipe, simulated, &assumed.without_length_bias())?;
    let rows = by_seeds.iter().map(|(seeds, design)| match design {
        Some(Enough { questions, runs, calls, .. }) => vec![
            Value::Count(*seeds),
            Value::Count(*questions as u64),
            Value::Count(*runs as u64),
            Value::Count(*calls),
        ],
        None => {
            let missing = || Value::missing("no number of questions makes up for so few seeds");
            vec![Value::Count(*seeds), missing(), missing(), missing()]
        }
    });
    let rows = rows.collect();
    let larger = if factor > 1.0 {
        format!(" times {factor:.2}, since the tests of so few policies are conservative")
    } else {
        String::new()
    };
    let mut notes = vec![format!(
        "Questions: by formula, for the comparison that needs most{larger}. Judge calls: one for each turn of each answer of each \
         judge."
    )];
    if assumed.length_bias() > 0.0 {
        notes.push(
            "Without the judge's length bias, which no size removes: compare at equal length.".to_owned(),
        );
    }
    if let Some((Some(Enough { seeds, questions, runs, calls }), power)) =
        cheapest.map(|(at, power)| (by_seeds[at].1.as_ref(), power))
    {
        notes.push(format!(
            "The fewest judge calls: {seeds} seeds × {questions} questions, {runs} training runs, {calls} calls. Simulated, such \
             studies find {WANTED} points in {:.0}% or more, whichever comparison has the effect.",
            100.0 * power
        ));
    }
    Ok(Some(Table {
        id: "designs".into(),
        title: format!("Designs that find {WANTED} points in four of five studies"),
        columns: ["Seeds", "Questions", "Training runs", "Judge calls"]
            .map(|name| Column::new(name, Align::Right))
            .into(),
        rows,
        notes,
    }))
}

/// Returns the least number of questions by formula, times `factor`, that finds [`WANTED`] in every comparison with so many
/// seeds.
fn enough(
    recipe: &StudyRecipe,
    simulated: &[(Simulation<'_>, Found)],
    assumed: &Assumptions,
    (seeds, factor): (u64, f64),
) -> Result<Option<Enough>, StudyError> {
    let effect = WANTED * assumed.slope();
    let (mut questions, mut grid) = (0, Grid::default());
    for (simulation, _) in simulated {
        let Size { samples, .. } = Size::of(&simulation.setup);
        let is_trained = &simulation.policies.is_trained;
        let trained = is_trained.iter().filter(|trained| **trained).count();
        let size = StudySize { seeds: seeds as usize, questions: simulation.setup.questions, samples };
        let comparisons = simulation.comparisons.len();
        let test = PlannedTest { level: 1.0 - SIGNIFICANT, power: POWER, comparisons };
        for weights in simulation.comparisons.iter().filter_map(|comparison| comparison.weights.as_ref()) {
            let [question, seed, fixed, answer] = assumed.spread.variances(weights, is_trained);
            let seed_df = (trained.max(1) as u64 * (seeds - 1)) as f64;
            let sampling = answer / TURNS as f64;
            let parts = VarianceParts { question, seed, fixed, sampling, size, seed_df };
            let [needed, ..] =
                test.required_samples(effect, &parts).map_err(StudyError::stats("required questions"))?;
            let Some(number) = needed.number else { return Ok(None) };
            questions = questions.max((factor * number as f64).ceil() as usize);
        }
        grid.join(simulation.question.grid(&with_size(recipe, seeds, simulation.setup.questions)));
    }
    let setup = recipe.setup();
    let judges = setup.judge.all().count().max(1);
    let samples = usize::from(setup.answers.samples.get());
    let calls = grid.subjects().len() * questions * samples * judges;
    Ok(Some(Enough { seeds, questions, runs: grid.cells().len(), calls: calls as u64 * TURNS }))
}

fn with_size(recipe: &StudyRecipe, seeds: u64, questions: usize) -> StudyRecipe {
    let mut recipe = recipe.clone();
    (recipe.study.seeds, recipe.study.questions) = (seeds, questions);
    recipe
}

/// Returns the least share of simulated studies of a design that finds [`WANTED`], over the comparisons that have it.
fn least_power(
    recipe: &StudyRecipe,
    simulated: &[(Simulation<'_>, Found)],
    assumed: &Assumptions,
    design: &Enough,
) -> Result<f64, StudyError> {
    let recipe = with_size(recipe, design.seeds, design.questions);
    let mut least: f64 = 1.0;
    for (earlier, _) in simulated {
        let Some(simulation) = Simulation::of(&recipe, earlier.question, assumed)? else { continue };
        for Comparison { at, weights, .. } in &simulation.comparisons {
            let Some(weights) = weights else { continue };
            let studies = simulation.studies(&simulation.shifts(weights, WANTED), false)?;
            least = least.min(simulation.power(&studies, *at));
        }
    }
    Ok(least)
}
