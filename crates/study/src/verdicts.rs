//! The verdicts on claims: their measurements, tables and pages.
//!
//! In the sandbox the ground truth is known: the same contrast of gold quality on held-out questions, over new seeds. There
//! a verdict compares the benchmark with it. Elsewhere a verdict is about the paper's claim.

mod people;

use experiment::{Analysis, LEVEL, Scorer, Scorers, Setup};
use report::page::Page;
use report::table::{Align, Column, Table, Value};
use stats::PlannedTest;

use crate::claims::{Claim, Expectation};
use crate::contrast::Contrast;
use crate::error::StudyError;
use crate::evidence::POWER;
use crate::figures;
use crate::people::Rated;
use crate::recipe::StudyRecipe;
use crate::required::Required;
use crate::tested::{Measured, corrected, difference, mde, p_value, signed, tested};
use crate::verdict::{SIGNIFICANT, Verdict, against_truth, on_claim};

pub(crate) use people::people_table;
use people::{ByPeople, by_people};

const MDE: &str = "MDE (80% power)";
const REQUIRED_SAMPLE: &str = "Required sample";
const GROUND_TRUTH: &str = "Ground truth (held-out questions)";

/// A claim with its measurements.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    place: &'static str,
    pub(crate) comparison: String,
    says: String,
    printed: Option<f64>,
    pub(crate) judge: Measured,
    /// The measurement and verdict of the second judge, if any.
    pub(crate) second: Option<(Measured, Verdict)>,
    /// The claim by people and each judge that they correct; empty without ratings.
    by_people: Vec<Option<ByPeople>>,
    /// The ground truth, if known.
    pub(crate) gold: Option<Measured>,
    pub(crate) verdict: Verdict,
    /// The required sample, if the verdict is not conclusive.
    pub(crate) required: Option<Required>,
    margin: f64,
}

impl Settled {
    /// Returns the report's page on the claim.
    pub(crate) fn page(&self, setup: &Setup) -> Page {
        let scorers = Scorers::of(setup);
        let judges: Vec<String> =
            [&scorers.judge].into_iter().chain(&scorers.second).map(|scorer| scorer.label.clone()).collect();
        let verdicts = [Some((&self.judge, self.verdict)), self.second.as_ref().map(|(by, v)| (by, *v))];
        let mut scored: Vec<(String, &Measured, String)> = Vec::new();
        for (judge, (measured, verdict)) in judges.iter().zip(verdicts.into_iter().flatten()) {
            scored.push((judge.clone(), measured, self.words_of(verdict)));
        }
        for (judge, by) in
            judges.iter().zip(&self.by_people).filter_map(|(judge, by)| Some((judge, by.as_ref()?)))
        {
            scored.push((format!("people, {} questions", by.rated), &by.people, "–".to_owned()));
            scored.push((format!("{judge}, corrected by people"), &by.corrected, "–".to_owned()));
        }
        let gold = scorers.gold.zip(self.gold.as_ref());
        scored.extend(gold.map(|([_, truth], measured)| (truth.label, measured, "ground truth".to_owned())));
        let row = |(scorer, measured, verdict): &(String, &Measured, String)| {
            vec![
                Value::text(scorer),
                difference(measured),
                p_value(measured.shown.p),
                p_value(measured.shown.equivalence),
                mde(measured),
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
                right(&format!("p of ±{} or more", self.margin)),
                right(MDE),
                Column::new("Verdict", Align::Left),
            ],
            rows: scored.iter().map(row).collect(),
            notes: Vec::new(),
        };
        let drawn: Vec<(String, f64, f64, f64)> = scored
            .iter()
            .filter_map(|(scorer, measured, _)| {
                let interval = measured.estimate.interval(measured.level).ok()?;
                Some((scorer.clone(), measured.estimate.value, interval.low, interval.high))
            })
            .collect();
        let over = if self.judge.size.1 > 1 { "questions and seeds" } else { "questions" };
        let caption = format!("{}: differences with 95% t-intervals over {over}.", self.comparison);
        Page {
            heading: format!("{}, {}", self.place, self.comparison),
            paragraphs: self.words(),
            tables: vec![table],
            figures: vec![(figures::comparison(&self.comparison, &drawn), caption)],
        }
    }

    /// Returns the claim, the verdict, the assay, and the required sample.
    fn words(&self) -> Vec<String> {
        let printed =
            self.printed.map_or(String::new(), |value| format!(" Printed value: {}.", signed(value)));
        let says = match self.says.is_empty() {
            true => format!("The paper makes no claim about these data.{printed}"),
            false => format!("The paper's claim about its own data: “{}”.{printed}", self.says),
        };
        let mut words = vec![says, format!("Verdict: {}.", self.words_of(self.verdict))];
        words.extend(self.judge.assay_in_words());
        words.extend(self.required.as_ref().map(|required| format!("{}.", required.in_words())));
        words
    }

    /// Returns a verdict in words, which with one seed are about these policies.
    fn words_of(&self, verdict: Verdict) -> String {
        let is_about_method = self.judge.size.1 > 1 || self.gold.is_some() || verdict.is_open();
        if is_about_method { verdict.to_string() } else { format!("{verdict}, for these policies only") }
    }

    /// Returns a sentence on the claim and its verdict; `None` without a claim.
    pub(crate) fn sentence(&self) -> Option<String> {
        if self.says.is_empty() {
            return None;
        }
        let required =
            self.required.as_ref().map_or(String::new(), |required| format!(" ({})", required.in_words()));
        let printed =
            self.printed.map_or(String::new(), |value| format!("; printed value {}", signed(value)));
        let interval = self.judge.estimate.interval(self.judge.level);
        let low_high = interval.map_or(String::new(), |interval| {
            format!(" [{}, {}]", signed(interval.low), signed(interval.high))
        });
        Some(format!(
            "{}, “{}”{printed}. {}: {}{low_high}. {}{required}.",
            self.place,
            self.says,
            self.comparison,
            signed(self.judge.estimate.value),
            self.words_of(self.verdict)
        ))
    }
}

/// Settles the claims of one question whose policies the grid has.
pub(crate) fn settle(
    analysis: &Analysis<'_>,
    recipe: &StudyRecipe,
    claims: Vec<Claim<'_>>,
    rated: Option<&Rated>,
) -> Result<Vec<Settled>, StudyError> {
    let (scorers, margin) = (Scorers::of(analysis.setup), recipe.study.margin.get());
    let (mut kept, mut judged) = (Vec::new(), Vec::new());
    for claim in claims {
        if let Some(measurement) = claim.contrast.measure(analysis, &scorers.judge, margin)? {
            kept.push(claim);
            judged.push(Some(measurement));
        }
    }
    let of = |scorer: &Scorer| tested((analysis, scorer, margin), &kept);
    let measure = |contrast: &Contrast<'_>| contrast.measure(analysis, &scorers.judge, margin);
    let judge = corrected(&measure, &kept, &judged)?;
    let mut gold = scorers.gold.as_ref().map(|[_, held_out]| of(held_out)).transpose()?.unwrap_or_default();
    let mut second = scorers.second.as_ref().map(of).transpose()?.unwrap_or_default();
    [&mut gold, &mut second].into_iter().for_each(|all| all.resize(kept.len(), None));
    let mut corrections = Vec::new();
    for scorer in [&scorers.judge].into_iter().chain(&scorers.second) {
        corrections
            .extend(rated.map(|rated| by_people((analysis, scorer, margin), &kept, rated)).transpose()?);
    }
    let test = PlannedTest { level: LEVEL, power: POWER, comparisons: kept.len() };
    let mut settled = Vec::new();
    for (at, claim) in kept.into_iter().enumerate() {
        let (Some(judge), Some(measurement)) = (judge[at].clone(), &judged[at]) else { continue };
        let gold = gold[at].take();
        let verdict = |judge: &Measured| match &gold {
            Some(gold) => against_truth(&judge.shown, &gold.shown),
            None => on_claim(&judge.shown, claim.expects),
        };
        let second = second[at].take().map(|second| (second.clone(), verdict(&second)));
        let verdict = verdict(&judge);
        let effect = match (&gold, claim.printed, claim.expects) {
            (Some(gold), ..) => gold.estimate.value.abs(),
            (None, Some(printed), Expectation::Higher | Expectation::Lower) if printed != 0.0 => {
                printed.abs()
            }
            (None, ..) => margin,
        };
        settled.push(Settled {
            place: claim.place,
            comparison: claim.comparison,
            says: claim.says,
            printed: claim.printed,
            required: verdict.is_open().then(|| Required::of(&test, effect, measurement)).transpose()?,
            judge,
            second,
            by_people: corrections.iter_mut().map(|of_judge| of_judge[at].take()).collect(),
            gold,
            verdict,
            margin,
        });
    }
    Ok(settled)
}

/// Returns the table of verdicts; `None` without claims.
pub(crate) fn table(recipe: &StudyRecipe, settled: &[Settled]) -> Option<Table> {
    let (first, setup) = (settled.first()?, recipe.setup());
    let is_sandbox = first.gold.is_some();
    let right = |name: &str| Column::new(name, Align::Right);
    let left = |name: &str| Column::new(name, Align::Left);
    let mut columns = vec![left("Table"), left("Comparison")];
    columns.extend((!is_sandbox).then(|| right("Paper")));
    columns.extend([right("Judge"), right("p"), right(MDE)]);
    columns.extend(is_sandbox.then(|| right(GROUND_TRUTH)));
    let verdict = "Verdict";
    match Scorers::of(&setup) {
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
        if is_sandbox { sandbox_note(recipe) } else { paper_note(recipe) },
    ];
    notes.extend(found_note(settled));
    notes.push(seeds_note(&setup));
    notes.push(TESTS.to_owned());
    let title = match is_sandbox {
        true => "Benchmark results vs. ground truth",
        false => "The paper's claims",
    };
    Some(Table { id: "verdicts".into(), title: title.into(), columns, rows, notes })
}

const TESTS: &str = "p: two-sided t-test, for trends a max-contrast test of the trend and all pairs of levels, for falls a \
                     one-sided max-contrast test of all earlier checkpoints; with Holm's correction for all comparisons of a \
                     research question. MDE: minimum detectable effect at 80% power after that correction, with its 90% interval. \
                     Required sample: the cheapest single enlargement with 80% power for the effect, with its 90% interval. \
                     Trends: gain of the regression line from the lowest to the highest level.";

fn row(claim: &Settled, is_sandbox: bool) -> Vec<Value> {
    let mut row = vec![Value::text(claim.place), Value::text(&claim.comparison)];
    if !is_sandbox {
        row.push(match claim.printed {
            Some(value) => Value::text(signed(value)),
            None => Value::text("–"),
        });
    }
    row.extend([difference(&claim.judge), p_value(claim.judge.shown.p)]);
    row.push(mde(&claim.judge));
    row.extend(claim.gold.as_ref().map(difference));
    row.push(Value::text(claim.words_of(claim.verdict)));
    row.extend(claim.second.as_ref().map(|(_, verdict)| Value::text(claim.words_of(*verdict))));
    row.push(Value::text(claim.required.as_ref().map_or("–".to_owned(), Required::in_short)));
    row
}

/// Returns the number of verdicts of each kind.
pub(crate) fn tally(settled: &[&Settled]) -> String {
    let count = |kind: Verdict| settled.iter().filter(|claim| claim.verdict == kind).count();
    let counts: Vec<String> = Verdict::ALL
        .into_iter()
        .filter(|&kind| count(kind) > 0)
        .map(|kind| format!("{kind}: {}", count(kind)))
        .collect();
    format!("Of {} comparisons: {}.", settled.len(), counts.join("; "))
}

fn sandbox_note(recipe: &StudyRecipe) -> String {
    let over = match recipe.study.seeds {
        1 => "with one seed it is about these policies",
        _ => "it is about new seeds and new questions",
    };
    format!(
        "Judge: scores on {} questions. Ground truth: gold quality on {} held-out questions; {over}. An effect exists if it is \
         significant in the ground truth after the same correction, and does not exist if the ground truth is within ±{} points. \
         Truth undecided: neither is shown. The sandbox does not test the paper's findings, which need its data.",
        recipe.study.questions,
        recipe.sandbox.further_questions,
        recipe.study.margin.get()
    )
}

fn paper_note(recipe: &StudyRecipe) -> String {
    format!(
        "Reproduced: the paper's effect was found. Equivalent: all effects are within ±{0} points, also if they are significant. \
         Contradicted: the opposite was shown. Not interpretable: nothing was found, and training on clean labels shows no gain over \
         SFT either. Required samples are for the paper's difference, or for {0} points if it claims none.",
        recipe.study.margin.get()
    )
}

/// Returns how many of the existing effects the judge found, by their size; `None` without ground truth.
fn found_note(settled: &[Settled]) -> Option<String> {
    let exists = |gold: &Measured| gold.shown.p < SIGNIFICANT;
    let existing: Vec<(&Settled, &Measured)> = settled
        .iter()
        .filter_map(|claim| Some((claim, claim.gold.as_ref().filter(|gold| exists(gold))?)))
        .collect();
    let (large, small): (Vec<_>, Vec<_>) =
        existing.iter().partition(|(claim, gold)| gold.estimate.value.abs() >= claim.judge.mde.value);
    let found = |of: &[&(&Settled, &Measured)]| {
        of.iter().filter(|(claim, _)| claim.verdict == Verdict::TruePositive).count()
    };
    (!existing.is_empty()).then(|| {
        format!(
            "Of {} existing effects, {} are as large as the judge's MDE or larger, of which it found {}; of the {} smaller ones it \
             found {}.",
            existing.len(),
            large.len(),
            found(&large),
            small.len(),
            found(&small)
        )
    })
}

/// Returns a note on the population of the intervals.
fn seeds_note(setup: &Setup) -> String {
    match setup.seeds {
        1 => "Brackets: 95% t-intervals over questions, stratified by category. With one seed every number is about these very \
              policies: nothing is claimed about the methods that trained them."
            .to_owned(),
        seeds => format!(
            "Brackets: 95% t-intervals over questions, stratified by category, and seeds. The variance between the {seeds} seeds is \
             pooled over the policies of the study."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contrast::Contrast;
    use crate::fixtures::{at, checkpoints};
    use crate::recipe::Preset;

    /// Returns the table of three claims about runs whose checkpoints have these means: that the third is higher than the
    /// first, that the second is not lower than it, and that the fourth equals it. The last two depend on the third.
    fn claimed(seeds: u64, means: &[f64; 4]) -> Table {
        let settings = [format!("study.seeds={seeds}")];
        let recipe = StudyRecipe::preset(Preset::Paper, &settings).unwrap();
        let setup = recipe.setup();
        let collected = checkpoints(&setup, seeds, means);
        let analysis = Analysis::new(&setup, &collected);
        let claim = |comparison: &str, checkpoint, expects| Claim {
            says: "a claim".to_owned(),
            expects,
            ..Claim::new("Table 0", comparison.to_owned(), Contrast::difference(at(checkpoint), at(0)))
        };
        let null = |comparison: &str, checkpoint, expects| Claim {
            control: Some(Contrast::difference(at(2), at(0))),
            ..claim(comparison, checkpoint, expects)
        };
        let claims = vec![
            claim("effect", 2, Expectation::Higher),
            null("no fall", 1, Expectation::NotLower),
            null("nothing", 3, Expectation::NoEffect),
        ];
        table(&recipe, &settle(&analysis, &recipe, claims, None).unwrap()).unwrap()
    }

    #[track_caller]
    fn has_verdicts(table: &Table, verdicts: [&str; 3]) {
        let at =
            table.columns.iter().position(|column| format!("{column:?}").contains("\"Verdict\"")).unwrap();
        let found: Vec<&Value> = table.rows.iter().map(|row| &row[at]).collect();
        assert_eq!(found, verdicts.map(Value::text).iter().collect::<Vec<_>>());
    }

    #[test]
    fn null_results_are_interpretable_where_an_effect_is_seen() {
        let means = [5.0, 5.0, 6.0, 5.0];
        let seen = claimed(2, &means);
        has_verdicts(&seen, ["reproduced", "reproduced (equivalent)", "reproduced (equivalent)"]);
        let unseen = claimed(2, &[5.0, 5.0, 5.0, 5.0]);
        has_verdicts(&unseen, ["contradicted (equivalent)", "not interpretable", "not interpretable"]);
        let required = unseen.rows[1].last().unwrap();
        assert!(
            format!("{required:?}").contains("questions [") || format!("{required:?}").contains("seeds [")
        );
    }

    #[test]
    fn verdicts_of_one_seed_are_about_these_policies() {
        let one = claimed(1, &[5.0, 5.0, 6.0, 5.0]);
        let reproduced = ["reproduced", "reproduced (equivalent)", "reproduced (equivalent)"];
        has_verdicts(
            &one,
            reproduced
                .map(|verdict| format!("{verdict}, for these policies only"))
                .each_ref()
                .map(String::as_str),
        );
        assert!(one.notes.iter().any(|note| note.contains("nothing is claimed about the methods")));
        let open = claimed(1, &[5.0, 5.0, 5.25, 5.0]);
        assert!(
            open.rows.iter().any(|row| row.last() == Some(&Value::text("2 seeds or more"))),
            "{:?}",
            open.rows
        );
    }
}
