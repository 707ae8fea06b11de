//! What a study says of each claim, and whether it could have said anything else.
//!
//! In the sandbox the truth is known: the same contrast of gold quality on many further questions. There a verdict says
//! whether the benchmark saw what is there. Elsewhere it says what becomes of the paper's claim.

use std::fmt;

use report::page::Page;
use report::table::{Align, Column, Table, Value};
use stats::{Components, Design, MeanEstimate, Over, Plan, SeedsNeeded, equivalence_test, holm};

use crate::analysis::{Analysis, LEVEL, Scorer, Scorers};
use crate::claims::{Claim, Expectation};
use crate::error::StudyError;
use crate::evidence::{MARGIN, POWER};
use crate::figures;
use crate::recipe::StudyRecipe;

/// More seeds than a study of this kind will train: what would take more is told in questions.
const MOST_SEEDS: usize = 64;
/// Questions are doubled so often before no design is named.
const DOUBLINGS: usize = 12;
const SIGNIFICANT: f64 = 1.0 - LEVEL;
const DECIMALS: usize = 2;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// An effect is there and the benchmark found it.
    Seen,
    /// An effect is there and the benchmark did not find it.
    Missed,
    /// The benchmark found an effect that is not there, or its opposite.
    FalseAlarm,
    /// There is no effect and the benchmark found none.
    NoneSeen,
    /// What the paper says was found.
    Reproduced,
    /// Its opposite was found.
    Contradicted,
    /// An effect was found of which the paper does not speak.
    Found,
    /// This design cannot tell.
    NotDistinguishable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seen => "planted effect seen",
            Self::Missed => "planted effect missed",
            Self::FalseAlarm => "false alarm",
            Self::NoneSeen => "no effect, none seen",
            Self::Reproduced => "reproduced",
            Self::Contradicted => "contradicted",
            Self::Found => "effect found",
            Self::NotDistinguishable => "not distinguishable with this design",
        })
    }
}

impl Verdict {
    /// As it stands in a table, whose column says what it is about.
    fn in_table(self) -> String {
        match self {
            Self::Seen => "seen".to_owned(),
            Self::Missed => "missed".to_owned(),
            Self::NoneSeen => "none, none seen".to_owned(),
            other => other.to_string(),
        }
    }
}

/// A claim with what was measured of it.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    place: &'static str,
    comparison: String,
    says: String,
    printed: Option<f64>,
    judge: Measured,
    /// The same under a second judge, where there is one, and its verdict.
    second: Option<(Measured, Verdict)>,
    /// The same of gold quality on further questions, where that is known.
    gold: Option<Measured>,
    verdict: Verdict,
    /// The design that would tell, where this one does not.
    needed: Option<Needed>,
}

/// A contrast under one scorer.
#[derive(Clone, Copy, Debug)]
struct Measured {
    estimate: MeanEstimate,
    /// Corrected for all claims of the question.
    p: f64,
    /// The smallest true effect that is found four times in five.
    visible: f64,
}

/// How much it would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Needed {
    questions: usize,
    seeds: usize,
    /// Whether the spread between seeds was not known, so that more of them may be needed.
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
        write!(f, "would need {questions} questions × {seeds} seeds{}", self.or_more())
    }
}

impl Settled {
    /// All that is known of it, by itself.
    pub(crate) fn page(&self, recipe: &StudyRecipe) -> Page {
        let scorers = Scorers::of(recipe);
        let mut scored = vec![(scorers.judge.label, self.judge, Some(self.verdict))];
        let second = scorers.second.zip(self.second);
        scored.extend(second.map(|(scorer, (measured, verdict))| (scorer.label, measured, Some(verdict))));
        let gold = scorers.gold.zip(self.gold);
        scored.extend(gold.map(|([_, beyond], measured)| (beyond.label, measured, None)));
        let row = |(scorer, measured, verdict): &(String, Measured, Option<Verdict>)| {
            let verdict = verdict.map_or("the truth".to_owned(), |verdict| verdict.to_string());
            let visible = Value::Number { value: measured.visible, decimals: DECIMALS };
            vec![
                Value::text(scorer),
                difference(measured),
                p_value(measured.p),
                visible,
                Value::text(verdict),
            ]
        };
        let right = |name: &str| Column::new(name, Align::Right);
        let table = Table {
            id: "claim".into(),
            title: self.comparison.clone(),
            columns: vec![
                Column::new("Scorer", Align::Left),
                right("Difference"),
                right("p"),
                right("Visible from"),
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

    /// What the paper says, what was found, and what it would take.
    fn words(&self) -> Vec<String> {
        let printed =
            self.printed.map_or(String::new(), |value| format!(" Its tables print {}.", signed(value)));
        let says = match self.says.is_empty() {
            true => format!("The paper makes no claim of this study's data here.{printed}"),
            false => format!("The paper says, of its own data: “{}”.{printed}", self.says),
        };
        let mut words = vec![says, format!("Verdict: {}.", self.verdict)];
        words.extend(self.needed.map(|needed| format!("To tell, it {needed}.")));
        words
    }

    /// The claim's words with its verdict, for a paragraph of their own; `None` where the paper claims nothing.
    pub(crate) fn sentence(&self) -> Option<String> {
        if self.says.is_empty() {
            return None;
        }
        let needed = self.needed.map_or(String::new(), |needed| format!(" ({needed})"));
        let printed =
            self.printed.map_or(String::new(), |value| format!("; its tables print {}", signed(value)));
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

/// Settles the claims of one question; those that speak of policies the grid does not hold are left out.
pub(crate) fn settle(analysis: &Analysis<'_>, claims: Vec<Claim<'_>>) -> Result<Vec<Settled>, StudyError> {
    let scorers = Scorers::of(analysis.recipe);
    let (claims, judged) = measured(analysis, &scorers.judge, claims)?;
    let of = |scorer: &Scorer, over| -> Result<Vec<Measured>, StudyError> {
        let components = claims.iter().map(|claim| components(analysis, scorer, claim));
        corrected(&components.collect::<Result<Vec<_>, _>>()?, over)
    };
    let is_sandbox = scorers.gold.is_some();
    let over = over(is_sandbox, &judged);
    let judge = corrected(&judged, over)?;
    let gold = scorers.gold.as_ref().map(|[_, beyond]| of(beyond, over)).transpose()?;
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
        let is_open = matches!(verdict, Verdict::Missed | Verdict::NotDistinguishable);
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

/// The verdicts on all questions that were asked, as the table that opens everything.
pub(crate) fn table(recipe: &StudyRecipe, settled: &[Settled]) -> Option<Table> {
    let first = settled.first()?;
    let is_sandbox = first.gold.is_some();
    let right = |name: &str| Column::new(name, Align::Right);
    let left = |name: &str| Column::new(name, Align::Left);
    let mut columns = vec![left("Table"), left("Comparison")];
    columns.extend((!is_sandbox).then(|| right("Paper")));
    columns.extend([right("Judge"), right("p"), right("Visible from")]);
    columns.extend(is_sandbox.then(|| right("Gold beyond")));
    let verdict = if is_sandbox { "Planted effect" } else { "Verdict" };
    match Scorers::of(recipe) {
        Scorers { judge, second: Some(second), .. } => columns.extend([judge, second].map(|scorer| {
            let who = if is_sandbox { scorer.title.to_lowercase() } else { scorer.title };
            Column::grouped(verdict, who, Align::Left)
        })),
        _ => columns.push(left(verdict)),
    }
    columns.push(right("Would need"));
    let rows = settled.iter().map(|claim| row(claim, is_sandbox)).collect();
    let mut notes = vec![
        tally(&settled.iter().collect::<Vec<_>>()),
        if is_sandbox { sandbox_note(recipe) } else { paper_note(recipe) },
    ];
    notes.push(
        "p: two-sided t-test, by Holm's method corrected for all comparisons of its question. Visible from: the true effect that \
         is found four times in five, before that correction. Would need: questions × seeds that would tell what this design \
         does not. Trends: what a straight line through all levels gains from the lowest to the highest."
            .to_owned(),
    );
    let title = match is_sandbox {
        true => "What the benchmark says, and whether it is so",
        false => "What becomes of the paper's claims",
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
    row.push(Value::Number { value: claim.judge.visible, decimals: DECIMALS });
    row.extend(claim.gold.as_ref().map(difference));
    row.push(Value::text(claim.verdict.in_table()));
    row.extend(claim.second.map(|(_, verdict)| Value::text(verdict.in_table())));
    row.push(Value::text(claim.needed.map_or("–".to_owned(), |needed| needed.design())));
    row
}

/// How many of the verdicts are of each kind, the sandbox's in one sentence.
pub(crate) fn tally(settled: &[&Settled]) -> String {
    let kinds = [
        Verdict::Seen,
        Verdict::Missed,
        Verdict::FalseAlarm,
        Verdict::NoneSeen,
        Verdict::Reproduced,
        Verdict::Contradicted,
        Verdict::Found,
        Verdict::NotDistinguishable,
    ];
    let count = |kind: Verdict| settled.iter().filter(|claim| claim.verdict == kind).count();
    let told: Vec<String> = kinds
        .into_iter()
        .filter(|&kind| count(kind) > 0)
        .map(|kind| format!("{kind}: {}", count(kind)))
        .collect();
    format!("Of {} comparisons: {}.", settled.len(), told.join("; "))
}

fn sandbox_note(recipe: &StudyRecipe) -> String {
    format!(
        "The judge sees {} questions, gold beyond is the true quality on {} further ones, both of these very policies (means over \
         {} seeds). An effect is there where gold beyond says so after the same correction. Brackets: 95% t-intervals over \
         questions. What the paper found is not judged here: that needs its data.",
        recipe.study.questions, recipe.sandbox.further_questions, recipe.study.seeds
    )
}

fn paper_note(recipe: &StudyRecipe) -> String {
    let of = match recipe.study.seeds {
        1 => {
            "questions alone: one seed says nothing about others, so that a verdict holds for these very policies"
        }
        _ => "seeds and questions",
    };
    format!(
        "Reproduced: found as the paper says it, or, where it says that there is no effect, shown to lie within ±{MARGIN} points. \
         Contradicted: the opposite was found. Brackets: 95% t-intervals over {of}. Designs are told for the paper's difference, or \
         for {MARGIN} points where it claims none."
    )
}

/// The claims that the grid can settle, with their components under `scorer`.
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
        StudyError::Unsupported(format!("{}: {} has not scored it", claim.comparison, scorer.label))
    })
}

/// What a verdict is to hold for. The sandbox's truth is that of the policies at hand; a claim of the paper is about a way of
/// training, which one seed cannot speak of.
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
        let visible = plan.minimal_detectable_difference(components.design, POWER).map_err(failed())?;
        all.push(Measured { estimate, p, visible });
    }
    Ok(all)
}

fn of_sandbox(judge: &Measured, gold: &Measured) -> Verdict {
    let is_there = gold.p < SIGNIFICANT;
    let is_found = judge.p < SIGNIFICANT;
    let same_way = judge.estimate.value * gold.estimate.value > 0.0;
    match (is_there, is_found) {
        (true, true) if same_way => Verdict::Seen,
        (_, true) => Verdict::FalseAlarm,
        (true, false) => Verdict::Missed,
        (false, false) => Verdict::NoneSeen,
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

/// The smallest design that finds `effect` four times in five: seeds first, then also more questions. In the sandbox the
/// policies stay as they are, so that only questions can be added.
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
