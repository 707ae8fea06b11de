//! RQ3, further: cDPO with a fixed ε, and with an ε equal to the share of flipped labels.
//!
//! The paper does not state its ε, and its tables fit neither rule.

use experiment::{Axes, Cell, Grid, Subject};
use pref_data::FlipRate;
use pref_loss::LabelSmoothing;
use report::table::{Align, Column, Table, Value};
use trainer::recipe::{LossKind, Smoothing};

use super::NOISE;
use crate::claims::Claim;
use crate::contrast::{Contrast, Select};
use crate::error::StudyError;
use crate::question::{About, Question};
use crate::recipe::StudyRecipe;
use crate::results::Results;

const LOSSES: &[LossKind] = &[LossKind::Dpo, LossKind::Cdpo];
/// The ε next to the flip rate, if the recipe's is the flip rate.
const FIXED: f64 = 0.1;

/// How cDPO's scores depend on the rule for its ε.
pub struct SmoothingRules;

impl Question for SmoothingRules {
    fn about(&self) -> About {
        About {
            name: "smoothing",
            tables: &["smoothing"],
            title: "RQ3, further: the rule for cDPO's ε",
            help: "cDPO with a fixed ε, and with an ε equal to the share of flipped labels.",
        }
    }

    fn grid(&self, recipe: &StudyRecipe) -> Grid {
        let study = &recipe.study;
        let axes = Axes { flip_rates: study.flip_rates_or(NOISE), ..super::axes(study, LOSSES) };
        let mut grid = super::final_grid(recipe, &axes);
        let last = recipe.train.checkpoints.len() - 1;
        for cell in axes.cells().into_iter().filter(|cell| cell.loss == LossKind::Cdpo) {
            grid.add_cell(&Cell { label_smoothing: Some(other_rule(recipe)), ..cell }, [last]);
        }
        grid
    }

    fn tables(&self, results: &Results<'_>) -> Result<Vec<Table>, StudyError> {
        Ok(vec![table(results)?])
    }

    fn claims<'a>(&self, results: &'a Results<'a>) -> Result<Vec<Claim<'a>>, StudyError> {
        let rates = results.recipe.study.flip_rates_or(NOISE);
        let [own, other] = rules(results.recipe);
        let mut claims = Vec::new();
        for annotator in &results.recipe.study.annotators {
            let noisy = rates.iter().filter(|rate| rate.get() > 0.0);
            let at = |policy: Policy, rate: FlipRate| select(results, policy, annotator, rate);
            let pairs: Vec<_> =
                noisy.map(|&rate| (at(Policy::Cdpo(other), rate), at(Policy::Cdpo(own), rate))).collect();
            if pairs.is_empty() {
                continue;
            }
            let comparison =
                format!("{annotator}: cDPO, ε = {} − ε = {}, under noise", other.shown, own.shown);
            claims.push(Claim::new("ε of cDPO", comparison, Contrast::mean_difference(pairs)));
        }
        Ok(claims)
    }
}

/// A rule for ε, and how cells name it.
#[derive(Clone, Copy)]
struct Rule {
    /// The cell's own rule; `None` for the recipe's.
    of_cell: Option<Smoothing>,
    shown: Smoothing,
}

/// A column of the table.
#[derive(Clone, Copy)]
enum Policy {
    Dpo,
    Cdpo(Rule),
}

/// Returns the recipe's rule, and the other one.
fn rules(recipe: &StudyRecipe) -> [Rule; 2] {
    let other = other_rule(recipe);
    [Rule { of_cell: None, shown: recipe.loss.label_smoothing }, Rule { of_cell: Some(other), shown: other }]
}

fn other_rule(recipe: &StudyRecipe) -> Smoothing {
    match recipe.loss.label_smoothing {
        Smoothing::Fixed(_) => Smoothing::FlipRate,
        Smoothing::FlipRate => Smoothing::Fixed(LabelSmoothing::new(FIXED).expect("0.1 is a probability")),
    }
}

/// Selects the fully trained policies on an annotator's labels at a share of flipped ones.
fn select<'a>(results: &'a Results<'a>, policy: Policy, annotator: &'a str, rate: FlipRate) -> Select<'a> {
    let last = results.last_checkpoint();
    let (loss, rule) = match policy {
        Policy::Dpo => (LossKind::Dpo, None),
        Policy::Cdpo(rule) => (LossKind::Cdpo, rule.of_cell),
    };
    Box::new(move |subject: &Subject| {
        matches!(subject, Subject::Trained { cell, checkpoint } if *checkpoint == last
            && cell.loss == loss && cell.label_smoothing == rule
            && cell.annotator == annotator && cell.flip_rate == rate)
    })
}

fn table(results: &Results<'_>) -> Result<Table, StudyError> {
    let study = &results.recipe.study;
    let [own, other] = rules(results.recipe);
    let policies = [Policy::Dpo, Policy::Cdpo(own), Policy::Cdpo(other)];
    let scorer = results.scorers().judge;
    let mut rows = Vec::new();
    for rate in study.flip_rates_or(NOISE) {
        let mut row = vec![Value::text(format!("{}%", experiment::percent(rate.get())))];
        for annotator in &study.annotators {
            for policy in policies {
                row.push(results.scores.mean_value(&scorer, &*select(results, policy, annotator, rate))?);
            }
        }
        rows.push(row);
    }
    let name = |policy: Policy| match policy {
        Policy::Dpo => "DPO".to_owned(),
        Policy::Cdpo(rule) => format!("cDPO, ε = {}", rule.shown),
    };
    let mut columns = vec![Column::new("Flipped labels", Align::Left)];
    for annotator in &study.annotators {
        columns.extend(policies.map(|policy| Column::grouped(annotator, name(policy), Align::Right)));
    }
    Ok(Table {
        id: "table-smoothing".into(),
        title: "Scores of cDPO under two rules for its ε".into(),
        columns,
        rows,
        notes: vec![
            results.scores.interval_note(),
            "At ε = 0 cDPO is DPO. At ε = 50% its optimum is no preference, and above that the opposite of the labels."
                .to_owned(),
        ],
    })
}
