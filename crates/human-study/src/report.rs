//! The statistics of ratings: wins, agreement, significance.

use std::collections::{BTreeMap, BTreeSet};

use seeds::Seeds;
use serde::Serialize;
use stats::{
    Choice, Interval, Metric, PValue, SignTest, Split, SplitPolicy, Tally, Weights, choice_counts,
    cohen_kappa, fleiss_kappa, gwet_ac1, holm, krippendorff_alpha, majority_vote, sign_flip_test,
};

use crate::{Error, Rating};

/// The statistics of a study of two models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StudyReport {
    /// The models' names.
    pub models: [String; 2],
    /// Rated items.
    pub items: usize,
    /// The number of raters.
    pub raters: usize,
    /// The number of ratings.
    pub ratings: usize,
    /// Items that the first model won by majority.
    pub wins_model_1: u64,
    /// Items that the second model won by majority.
    pub wins_model_2: u64,
    /// Items without a winner, including split votes.
    pub ties: u64,
    /// Items on which all three choices have the same number of votes, counted as ties.
    pub three_way_splits: usize,
    /// Items on which two choices share the lead, counted as ties.
    pub two_way_splits: usize,
    /// Wins of the first and of the second model over all items.
    pub win_rates: [Coefficient; 2],
    /// Wins of the first model over items with a winner.
    pub decisive_win_rate: Coefficient,
    /// Wins of the first model plus half of the ties, over all items.
    pub adjusted_win_rate: Option<f64>,
    /// The sign test over items.
    pub sign_test: SignTest,
    /// The sign-flip test over questions, if the ratings name them. It flips each question's wins minus losses as a
    /// unit.
    pub question_test: Option<PValue>,
    /// Fleiss' κ.
    pub fleiss_kappa: Option<f64>,
    /// The interval of κ over resampled items, or the reason why there is none.
    pub fleiss: Coefficient,
    /// Share of agreeing pairs of ratings.
    pub percent_agreement: Option<f64>,
    /// Gwet's AC1.
    pub gwet_ac1: Coefficient,
    /// Krippendorff's α, nominal.
    pub krippendorff_alpha: Coefficient,
    /// Cohen's κ of each pair of raters.
    pub pairs: Vec<PairAgreement>,
    /// Rates by category, if the ratings name categories.
    pub categories: Vec<CategoryRates>,
    /// The level of all intervals.
    pub level: f64,
}

/// An estimate with its interval, as far as they are defined.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Coefficient {
    /// The estimate.
    pub value: Option<f64>,
    /// The lower bound.
    pub low: Option<f64>,
    /// The upper bound.
    pub high: Option<f64>,
    /// Why the estimate is missing.
    pub reason: Option<String>,
}

/// The agreement of two raters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairAgreement {
    /// Their names.
    pub raters: [String; 2],
    /// Items that both rated.
    pub items: u64,
    /// The share of items with equal choices.
    pub agreement: f64,
    /// Cohen's κ.
    pub kappa: Coefficient,
}

/// One category's wins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CategoryRates {
    /// Its name.
    pub category: String,
    /// Wins and ties.
    #[serde(flatten)]
    pub tally: Tally,
    /// Win rates of both models over all items, ties included.
    pub win_rates: [Coefficient; 2],
    /// The p-value of the sign test, adjusted over all categories by Holm's method.
    pub adjusted_p_value: f64,
}

impl StudyReport {
    /// Computes the report of `ratings` of `models`, with intervals at `level`.
    ///
    /// The majority of votes decides an item; a split vote is a tie, and is counted. The report does not depend on the
    /// order of the ratings.
    ///
    /// # Errors
    ///
    /// [`Error::NoRatings`]; [`Error::Stats`] if `level` is outside of (0, 1).
    pub fn new(ratings: &[Rating], models: [&str; 2], level: f64) -> Result<Self, Error> {
        if ratings.is_empty() {
            return Err(Error::NoRatings);
        }
        let raters: BTreeSet<&str> = ratings.iter().map(|rating| rating.rater.as_str()).collect();
        let mut of_item: BTreeMap<&str, Vec<&Rating>> = BTreeMap::new();
        for rating in ratings {
            of_item.entry(&rating.item).or_default().push(rating);
        }
        let choices: Vec<Vec<Choice>> =
            of_item.values().map(|of| of.iter().map(|rating| rating.choice).collect()).collect();
        let votes =
            majority_vote(&choices, SplitPolicy::default()).map_err(stats_error("the majority vote"))?;
        let decided: Vec<(&Rating, Choice)> = of_item
            .values()
            .zip(&votes.verdicts)
            .filter_map(|(of, verdict)| Some((*of.first()?, verdict.choice?)))
            .collect();
        let tally = votes.tally();
        let counts = choice_counts(&choices);
        let agreement = fleiss_kappa(&counts);
        let ac1 = gwet_ac1(&counts);
        let alpha = krippendorff_alpha(&counts, Metric::Nominal);
        let fleiss =
            coefficient(agreement.as_ref().map(|a| (a.kappa.value(), a.interval(level).ok().flatten())));
        Ok(Self {
            models: models.map(str::to_owned),
            items: of_item.len(),
            raters: raters.len(),
            ratings: ratings.len(),
            wins_model_1: tally.wins_model_1,
            wins_model_2: tally.wins_model_2,
            ties: tally.ties,
            three_way_splits: votes.splits(Split::ThreeWay),
            two_way_splits: votes.splits(Split::TwoWay),
            win_rates: win_rates(&tally, level)?,
            decisive_win_rate: decisive(&tally, level)?,
            adjusted_win_rate: tally.adjusted_win_rate(),
            sign_test: tally.sign_test(),
            question_test: question_test(&decided)?,
            fleiss_kappa: fleiss.value,
            fleiss,
            // AC1 starts from the share of agreeing pairs, which exists for any number of raters.
            percent_agreement: ac1.as_ref().ok().map(|ac1| ac1.observed),
            gwet_ac1: coefficient(ac1.as_ref().map(|a| (a.kappa.value(), a.interval(level).ok().flatten()))),
            krippendorff_alpha: coefficient(
                alpha.as_ref().map(|a| (a.alpha.value(), a.interval(level).ok().flatten())),
            ),
            pairs: pairs(&of_item, &raters, level)?,
            categories: categories(&decided, level)?,
            level,
        })
    }

    /// Returns the wins and ties.
    pub fn tally(&self) -> Tally {
        Tally { wins_model_1: self.wins_model_1, wins_model_2: self.wins_model_2, ties: self.ties }
    }
}

fn stats_error(what: &'static str) -> impl FnOnce(stats::Error) -> Error {
    move |source| Error::Stats { what, source }
}

impl Coefficient {
    fn of(value: Option<f64>, interval: Option<Interval>) -> Self {
        let reason = value.is_none().then(|| "all ratings fall into one category".to_owned());
        Self { value, low: interval.map(|i| i.low), high: interval.map(|i| i.high), reason }
    }

    fn missing(reason: impl Into<String>) -> Self {
        Self { value: None, low: None, high: None, reason: Some(reason.into()) }
    }
}

/// An estimate that may be undefined, or not computable from these ratings.
fn coefficient(found: Result<(Option<f64>, Option<Interval>), &stats::Error>) -> Coefficient {
    match found {
        Ok((value, interval)) => Coefficient::of(value, interval),
        Err(refusal) => Coefficient::missing(refusal.to_string()),
    }
}

fn win_rates(tally: &Tally, level: f64) -> Result<[Coefficient; 2], Error> {
    let rate = |tally: Tally| -> Result<Coefficient, Error> {
        let interval = tally.win_rate_interval(level).map_err(stats_error("the win rate"))?;
        Ok(Coefficient::of(tally.win_rate(), Some(interval)))
    };
    Ok([rate(*tally)?, rate(tally.swapped())?])
}

fn decisive(tally: &Tally, level: f64) -> Result<Coefficient, Error> {
    if tally.decisive() == 0 {
        return Ok(Coefficient::missing("every item is a tie"));
    }
    let interval = tally.decisive_win_rate_interval(level).map_err(stats_error("the decisive win rate"))?;
    Ok(Coefficient::of(tally.decisive_win_rate(), Some(interval)))
}

/// Returns the sign-flip test of each question's wins minus losses; `None` unless all items name their question.
fn question_test(decided: &[(&Rating, Choice)]) -> Result<Option<PValue>, Error> {
    let mut of_question: BTreeMap<&str, f64> = BTreeMap::new();
    for (rating, choice) in decided {
        let Some(question) = &rating.question else { return Ok(None) };
        *of_question.entry(question).or_default() += match choice {
            Choice::Model1 => 1.0,
            Choice::Model2 => -1.0,
            Choice::Equal => 0.0,
        };
    }
    let differences: Vec<f64> = of_question.into_values().collect();
    // Integer differences are counted exactly, without drawing from the stream.
    let mut stream = Seeds::new(0).stream("sign-flips");
    sign_flip_test(&differences, &mut stream).map(Some).map_err(stats_error("the test over questions"))
}

fn pairs(
    of_item: &BTreeMap<&str, Vec<&Rating>>,
    raters: &BTreeSet<&str>,
    level: f64,
) -> Result<Vec<PairAgreement>, Error> {
    let place = |choice: Choice| Choice::ALL.iter().position(|of_all| *of_all == choice).unwrap_or_default();
    let names: Vec<&str> = raters.iter().copied().collect();
    let mut found = Vec::new();
    for (index, &one) in names.iter().enumerate() {
        for &other in &names[index + 1..] {
            let mut table = [[0_u64; 3]; 3];
            for ratings in of_item.values() {
                let of = |name: &str| ratings.iter().find(|r| r.rater == name).map(|r| place(r.choice));
                if let (Some(a), Some(b)) = (of(one), of(other)) {
                    table[a][b] += 1;
                }
            }
            if table.iter().flatten().all(|&count| count == 0) {
                continue;
            }
            let kappa = cohen_kappa(&table, Weights::Unweighted).map_err(stats_error("Cohen's kappa"))?;
            let interval = kappa.interval(level).map_err(stats_error("Cohen's kappa"))?;
            found.push(PairAgreement {
                raters: [one.to_owned(), other.to_owned()],
                items: kappa.items,
                agreement: kappa.observed,
                kappa: Coefficient::of(kappa.kappa.value(), interval),
            });
        }
    }
    Ok(found)
}

fn categories(decided: &[(&Rating, Choice)], level: f64) -> Result<Vec<CategoryRates>, Error> {
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for (rating, choice) in decided {
        if let Some(category) = &rating.category {
            tallies.entry(category).or_default().extend([*choice]);
        }
    }
    let p_values: Vec<f64> = tallies.values().map(|tally| tally.sign_test().p_value).collect();
    let adjusted = holm(&p_values).map_err(stats_error("adjusted p-values"))?;
    let rates =
        |((category, tally), adjusted_p_value): ((&str, Tally), f64)| -> Result<CategoryRates, Error> {
            let win_rates = win_rates(&tally, level)?;
            Ok(CategoryRates { category: category.to_owned(), tally, win_rates, adjusted_p_value })
        };
    tallies.into_iter().zip(adjusted).map(rates).collect()
}
