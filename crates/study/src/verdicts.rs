//! The verdicts on claims, with the power of the design.
//!
//! In the sandbox the ground truth is known: the same contrast of gold quality on held-out questions. There a verdict
//! compares the benchmark with it. Elsewhere a verdict is about the paper's claim.

use std::fmt;

use experiment::{Analysis, ExperimentError, LEVEL, Scorer, Scorers, Setup};
use report::page::Page;
use report::table::{Align, Column, Table, Value};
use stats::{Components, Design, MeanEstimate, Over, Plan, SeedsNeeded, equivalence_test, holm};

use crate::claims::{Claim, Expectation};
use crate::error::StudyError;
use crate::evidence::{MARGIN, POWER};
use crate::figures;

/// Largest number of seeds in a required sample; larger ones are given in questions.
const MOST_SEEDS: usize = 64;
/// Number of times that the questions of a required sample are doubled.
const DOUBLINGS: usize = 12;
const SIGNIFICANT: f64 = 1.0 - LEVEL;
const DECIMALS: usize = 2;
const MDE: &str = "MDE (80% power)";
const REQUIRED_SAMPLE: &str = "Required sample";
const GROUND_TRUTH: &str = "Ground truth (held-out questions)";

/// The verdict on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The benchmark found an existing effect.
    TruePositive,
    /// The benchmark did not find an existing effect.
    FalseNegative,
    /// The benchmark found an effect that does not exist, or its opposite.
    FalsePositive,
    /// The benchmark found no effect, and none exists.
    TrueNegative,
    /// The paper's effect was found.
    Reproduced,
    /// Its opposite was found.
    Contradicted,
    /// An effect without a claim was found.
    Found,
    /// The design cannot distinguish the hypotheses.
    NotDistinguishable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TruePositive => "true positive",
            Self::FalseNegative => "false negative",
            Self::FalsePositive => "false positive",
            Self::TrueNegative => "true negative",
            Self::Reproduced => "reproduced",
            Self::Contradicted => "contradicted",
            Self::Found => "effect found",
            Self::NotDistinguishable => "not distinguishable with this design",
        })
    }
}

/// A claim with its measurements.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    place: &'static str,
    comparison: String,
    says: String,
    printed: Option<f64>,
    judge: Measured,
    /// The measurement and verdict of the second judge, if any.
    second: Option<(Measured, Verdict)>,
    /// The ground truth, if known.
    gold: Option<Measured>,
    verdict: Verdict,
    /// The required sample, if the verdict is not conclusive.
    needed: Option<Needed>,
}

/// A contrast under one scorer.
#[derive(Clone, Copy, Debug)]
struct Measured {
    estimate: MeanEstimate,
    /// Corrected for all claims of the research question.
    p: f64,
    /// The minimum detectable effect.
    mde: f64,
}

/// A required sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Needed {
    questions: usize,
    seeds: usize,
    /// Whether the variance between seeds is unknown, so that more may be required.
    at_least: bool,
}

impl Needed {
    fn or_more(self) -> &'static str {
        if self.at_least { " or more" } else { "" }
    }

    /// Questions × seeds.
    fn design(self) -> String {
        format!("{} × {}{}", self.questions, self.seeds, self.or_more())
    }
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { questions, seeds, .. } = self;
        write!(f, "required sample: {questions} questions × {seeds} seeds{}", self.or_more())
    }
}

impl Settled {
    /// Returns the report's page on the claim.
    pub(crate) fn page(&self, setup: &Setup) -> Page {
        let scorers = Scorers::of(setup);
        let mut scored = vec![(scorers.judge.label, self.judge, Some(self.verdict))];
        let second = scorers.second.zip(self.second);
        scored.extend(second.map(|(scorer, (measured, verdict))| (scorer.label, measured, Some(verdict))));
        let gold = scorers.gold.zip(self.gold);
        scored.extend(gold.map(|([_, held_out], measured)| (held_out.label, measured, None)));
        let row = |(scorer, measured, verdict): &(String, Measured, Option<Verdict>)| {
            let verdict = verdict.map_or("ground truth".to_owned(), |verdict| verdict.to_string());
            let mde = Value::Number { value: measured.mde, decimals: DECIMALS };
            vec![Value::text(scorer), difference(measured), p_value(measured.p), mde, Value::text(verdict)]
        };
        let right = |name: &str| Column::new(name, Align::Right);
        let table = Table {
            id: "claim".into(),
            title: self.comparison.clone(),
            columns: vec![
                Column::new("Scorer", Align::Left),
                right("Difference"),
                right("p"),
                right(MDE),
                Column::new("Verdict", Align::Left),
            ],
            rows: scored.iter().map(row).collect(),
            notes: Vec::new(),
        };
        let drawn: Vec<(String, f64, f64, f64)> = scored
            .iter()
            .filter_map(|(scorer, measured, _)| {
                let interval = measured.estimate.interval(LEVEL).ok()?;
                Some((scorer.clone(), measured.estimate.value, interval.low, interval.high))
            })
            .collect();
        let caption = format!("{}: differences with 95% t-intervals.", self.comparison);
        Page {
            heading: format!("{}, {}", self.place, self.comparison),
            paragraphs: self.words(),
            tables: vec![table],
            figures: vec![(figures::comparison(&self.comparison, &drawn), caption)],
        }
    }

    /// Returns the claim, the verdict, and the required sample.
    fn words(&self) -> Vec<String> {
        let printed =
            self.printed.map_or(String::new(), |value| format!(" Printed value: {}.", signed(value)));
        let says = match self.says.is_empty() {
            true => format!("The paper makes no claim about these data.{printed}"),
            false => format!("The paper's claim about its own data: “{}”.{printed}", self.says),
        };
        let mut words = vec![says, format!("Verdict: {}.", self.verdict)];
        words.extend(self.needed.map(|needed| format!("{needed}.")));
        words
    }

    /// Returns a sentence on the claim and its verdict; `None` without a claim.
    pub(crate) fn sentence(&self) -> Option<String> {
        if self.says.is_empty() {
            return None;
        }
        let needed = self.needed.map_or(String::new(), |needed| format!(" ({needed})"));
        let printed =
            self.printed.map_or(String::new(), |value| format!("; printed value {}", signed(value)));
        let low_high = self.judge.estimate.interval(LEVEL).map_or(String::new(), |interval| {
            format!(" [{}, {}]", signed(interval.low), signed(interval.high))
        });
        Some(format!(
            "{}, “{}”{printed}. {}: {}{low_high}. {}{needed}.",
            self.place,
            self.says,
            self.comparison,
            signed(self.judge.estimate.value),
            self.verdict
        ))
    }
}

/// Settles the claims of one question whose policies the grid has.
pub(crate) fn settle(analysis: &Analysis<'_>, claims: Vec<Claim<'_>>) -> Result<Vec<Settled>, StudyError> {
    let scorers = Scorers::of(analysis.setup);
    let (claims, judged) = measured(analysis, &scorers.judge, claims)?;
    let of = |scorer: &Scorer, over| -> Result<Vec<Measured>, StudyError> {
        let components = claims.iter().map(|claim| components(analysis, scorer, claim));
        corrected(&components.collect::<Result<Vec<_>, _>>()?, over)
    };
    let is_sandbox = scorers.gold.is_some();
    let over = over(is_sandbox, &judged);
    let judge = corrected(&judged, over)?;
    let gold = scorers.gold.as_ref().map(|[_, held_out]| of(held_out, over)).transpose()?;
    let second = scorers.second.as_ref().map(|second| of(second, over)).transpose()?;
    let mut settled = Vec::new();
    for (at, claim) in claims.into_iter().enumerate() {
        let judge = judge[at];
        let gold = gold.as_ref().map(|gold| gold[at]);
        let verdict = |judge: &Measured| match &gold {
            Some(gold) => Ok(of_sandbox(judge, gold)),
            None => of_paper(judge, claim.expects),
        };
        let second = second.as_ref().map(|second| verdict(&second[at]).map(|verdict| (second[at], verdict)));
        let second = second.transpose()?;
        let verdict = verdict(&judge)?;
        let effect = match (&gold, claim.printed, claim.expects) {
            (Some(gold), ..) => gold.estimate.value.abs(),
            (None, Some(printed), Expectation::Higher | Expectation::Lower) if printed != 0.0 => {
                printed.abs()
            }
            (None, ..) => MARGIN,
        };
        let is_open = matches!(verdict, Verdict::FalseNegative | Verdict::NotDistinguishable);
        settled.push(Settled {
            place: claim.place,
            comparison: claim.comparison,
            says: claim.says,
            printed: claim.printed,
            judge,
            second,
            gold,
            verdict,
            needed: if is_open { needed(&judged[at], over, effect, is_sandbox)? } else { None },
        });
    }
    Ok(settled)
}

/// Returns the table of verdicts; `None` without claims.
pub(crate) fn table(setup: &Setup, settled: &[Settled]) -> Option<Table> {
    let first = settled.first()?;
    let is_sandbox = first.gold.is_some();
    let right = |name: &str| Column::new(name, Align::Right);
    let left = |name: &str| Column::new(name, Align::Left);
    let mut columns = vec![left("Table"), left("Comparison")];
    columns.extend((!is_sandbox).then(|| right("Paper")));
    columns.extend([right("Judge"), right("p"), right(MDE)]);
    columns.extend(is_sandbox.then(|| right(GROUND_TRUTH)));
    let verdict = "Verdict";
    match Scorers::of(setup) {
        Scorers { judge, second: Some(second), .. } => columns.extend([judge, second].map(|scorer| {
            let title = if is_sandbox { scorer.title.to_lowercase() } else { scorer.title };
            Column::grouped(verdict, title, Align::Left)
        })),
        _ => columns.push(left(verdict)),
    }
    columns.push(right(REQUIRED_SAMPLE));
    let rows = settled.iter().map(|claim| row(claim, is_sandbox)).collect();
    let mut notes = vec![
        tally(&settled.iter().collect::<Vec<_>>()),
        if is_sandbox { sandbox_note(setup) } else { paper_note(setup) },
    ];
    notes.push(
        "p: two-sided t-test with Holm's correction for all comparisons of a research question. MDE: minimum detectable effect at 80% \
         power, before the correction. Required sample: questions × seeds with 80% power for the effect. Trends: gain of the \
         regression line from the lowest to the highest level."
            .to_owned(),
    );
    let title = match is_sandbox {
        true => "Benchmark results vs. ground truth",
        false => "The paper's claims",
    };
    Some(Table { id: "verdicts".into(), title: title.into(), columns, rows, notes })
}

fn row(claim: &Settled, is_sandbox: bool) -> Vec<Value> {
    let mut row = vec![Value::text(claim.place), Value::text(&claim.comparison)];
    if !is_sandbox {
        row.push(match claim.printed {
            Some(value) => Value::text(signed(value)),
            None => Value::text("–"),
        });
    }
    row.extend([difference(&claim.judge), p_value(claim.judge.p)]);
    row.push(Value::Number { value: claim.judge.mde, decimals: DECIMALS });
    row.extend(claim.gold.as_ref().map(difference));
    row.push(Value::text(claim.verdict.to_string()));
    row.extend(claim.second.map(|(_, verdict)| Value::text(verdict.to_string())));
    row.push(Value::text(claim.needed.map_or("–".to_owned(), |needed| needed.design())));
    row
}

/// Returns the number of verdicts of each kind.
pub(crate) fn tally(settled: &[&Settled]) -> String {
    let kinds = [
        Verdict::TruePositive,
        Verdict::FalseNegative,
        Verdict::FalsePositive,
        Verdict::TrueNegative,
        Verdict::Reproduced,
        Verdict::Contradicted,
        Verdict::Found,
        Verdict::NotDistinguishable,
    ];
    let count = |kind: Verdict| settled.iter().filter(|claim| claim.verdict == kind).count();
    let counts: Vec<String> = kinds
        .into_iter()
        .filter(|&kind| count(kind) > 0)
        .map(|kind| format!("{kind}: {}", count(kind)))
        .collect();
    format!("Of {} comparisons: {}.", settled.len(), counts.join("; "))
}

fn sandbox_note(setup: &Setup) -> String {
    format!(
        "Judge: scores on {} questions. Ground truth: gold quality of the same policies on {} held-out questions (means over {} \
         seeds). An effect exists if it is significant in the ground truth after the same correction. Brackets: 95% t-intervals \
         over questions. The sandbox does not test the paper's findings, which need its data.",
        setup.questions, setup.sandbox.further_questions, setup.seeds
    )
}

fn paper_note(setup: &Setup) -> String {
    let of = match setup.seeds {
        1 => "questions only: with one seed, a verdict holds for these policies",
        _ => "seeds and questions",
    };
    format!(
        "Reproduced: the paper's effect was found, or its absence was shown within ±{MARGIN} points. Contradicted: the opposite was \
         found. Brackets: 95% t-intervals over {of}. Required samples are for the paper's difference, or for {MARGIN} points if it \
         claims none."
    )
}

/// Returns the claims whose policies the grid has, with their components under `scorer`.
fn measured<'a>(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    claims: Vec<Claim<'a>>,
) -> Result<(Vec<Claim<'a>>, Vec<Components>), StudyError> {
    let mut kept = (Vec::new(), Vec::new());
    for claim in claims {
        if let Some(components) = claim.contrast.components(analysis, scorer)? {
            kept.0.push(claim);
            kept.1.push(components);
        }
    }
    Ok(kept)
}

fn components(analysis: &Analysis<'_>, scorer: &Scorer, claim: &Claim<'_>) -> Result<Components, StudyError> {
    claim.contrast.components(analysis, scorer)?.ok_or_else(|| {
        ExperimentError::Unsupported(format!("{}: no scores of {}", claim.comparison, scorer.label)).into()
    })
}

/// Returns the population of a verdict. The sandbox's ground truth is about these policies; the paper's claims are about a
/// training method, which requires several seeds.
fn over(is_sandbox: bool, components: &[Components]) -> Over {
    let has_seeds = components.iter().all(|components| components.design.seeds > 1);
    if is_sandbox || !has_seeds { Over::Questions } else { Over::SeedsAndQuestions }
}

fn corrected(components: &[Components], over: Over) -> Result<Vec<Measured>, StudyError> {
    let failed = || StudyError::stats("verdicts");
    let estimates = components.iter().map(|components| components.estimate(over));
    let estimates = estimates.collect::<Result<Vec<_>, _>>().map_err(failed())?;
    let p = holm(&estimates.iter().map(MeanEstimate::p_value).collect::<Vec<_>>()).map_err(failed())?;
    let mut all = Vec::new();
    for ((components, estimate), p) in components.iter().zip(estimates).zip(p) {
        let plan = Plan { variances: components.variances(), over, level: LEVEL };
        let mde = plan.minimal_detectable_difference(components.design, POWER).map_err(failed())?;
        all.push(Measured { estimate, p, mde });
    }
    Ok(all)
}

fn of_sandbox(judge: &Measured, gold: &Measured) -> Verdict {
    let is_there = gold.p < SIGNIFICANT;
    let is_found = judge.p < SIGNIFICANT;
    let same_way = judge.estimate.value * gold.estimate.value > 0.0;
    match (is_there, is_found) {
        (true, true) if same_way => Verdict::TruePositive,
        (_, true) => Verdict::FalsePositive,
        (true, false) => Verdict::FalseNegative,
        (false, false) => Verdict::TrueNegative,
    }
}

fn of_paper(judge: &Measured, expects: Expectation) -> Result<Verdict, StudyError> {
    let is_found = judge.p < SIGNIFICANT;
    let is_higher = judge.estimate.value > 0.0;
    Ok(match expects {
        Expectation::Higher | Expectation::Lower if is_found => {
            if is_higher == (expects == Expectation::Higher) {
                Verdict::Reproduced
            } else {
                Verdict::Contradicted
            }
        }
        Expectation::NoEffect if is_found => Verdict::Contradicted,
        Expectation::NoEffect => {
            let test = equivalence_test(&judge.estimate, MARGIN).map_err(StudyError::stats("equivalence"))?;
            if test.p_value < SIGNIFICANT { Verdict::Reproduced } else { Verdict::NotDistinguishable }
        }
        Expectation::NotLower if is_found => {
            if is_higher {
                Verdict::Reproduced
            } else {
                Verdict::Contradicted
            }
        }
        Expectation::NotLower => {
            let test = equivalence_test(&judge.estimate, MARGIN).map_err(StudyError::stats("equivalence"))?;
            if test.p_below < SIGNIFICANT { Verdict::Reproduced } else { Verdict::NotDistinguishable }
        }
        Expectation::Unclaimed if is_found => Verdict::Found,
        _ => Verdict::NotDistinguishable,
    })
}

/// Returns the smallest design with 80% power for `effect`: more seeds first, then more questions. In the sandbox the
/// policies are fixed, so that only questions are added.
fn needed(
    components: &Components,
    over: Over,
    effect: f64,
    is_sandbox: bool,
) -> Result<Option<Needed>, StudyError> {
    let failed = || StudyError::stats("designs");
    let plan = Plan { variances: components.variances(), over, level: LEVEL };
    let Design { seeds, questions, .. } = components.design;
    for doubling in 0..DOUBLINGS {
        let design = Design { questions: questions << doubling, ..components.design };
        if over == Over::Questions {
            if plan.power(effect, design).map_err(failed())? >= POWER {
                let seeds = if is_sandbox { seeds } else { seeds.max(2) };
                return Ok(Some(Needed { questions: design.questions, seeds, at_least: !is_sandbox }));
            }
            continue;
        }
        if let SeedsNeeded::Seeds(seeds) = plan.seeds_needed(effect, design, POWER).map_err(failed())?
            && seeds <= MOST_SEEDS
        {
            return Ok(Some(Needed { questions: design.questions, seeds, at_least: false }));
        }
    }
    Ok(None)
}

fn difference(measured: &Measured) -> Value {
    let value = measured.estimate.value;
    match measured.estimate.interval(LEVEL) {
        Ok(interval) => {
            Value::Difference { value, low: interval.low, high: interval.high, decimals: DECIMALS }
        }
        Err(error) => Value::missing(error.to_string()),
    }
}

fn p_value(p: f64) -> Value {
    if p < 0.001 { Value::text("< 0.001") } else { Value::Number { value: p, decimals: 3 } }
}

fn signed(value: f64) -> String {
    format!("{value:+.DECIMALS$}").replace('-', "−")
}
