//! The conditions map: which of the paper's patterns arise under which training, and where they cannot be seen.
//!
//! A condition is a learning rate and a number of epochs. A line of the map is a pattern for one policy, such as
//! "training overfits" for DPO with 25% of flipped labels.

mod draw;
mod mark;
mod words;

use std::num::NonZeroU64;

use experiment::{Analysis, Cell, Grid, Scorer, Subject, loss_name, percent, reduction_name};
use pref_data::{FlipRate, Fraction};
use pref_loss::LogpReduction;
use trainer::recipe::{LossKind, Smoothing};

use crate::claims::{Claim, Expectation};
use crate::contrast::{Contrast, Select};
use crate::error::StudyError;
use crate::recipe::{MapSection, StudyRecipe};
use crate::tables::is_baseline;
use crate::tested::{Measured, tested};
use crate::tuning::annotator;

pub(crate) use draw::{comparisons, figure, table};
pub(crate) use mark::Mark;
pub(crate) use words::sentences;

/// A pattern of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Unharmed,
    FallsWithVolume,
    Overfits,
    CdpoBeatsDpo,
}

/// How all policies of a column are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) learning_rate: f64,
    pub(crate) epochs: NonZeroU64,
}

/// The loss and the data of a policy.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Policy {
    loss: LossKind,
    fraction: Fraction,
    flip_rate: FlipRate,
    /// The rule for cDPO's ε.
    smoothing: Option<Smoothing>,
    /// IPO's reduction.
    reduction: Option<LogpReduction>,
}

/// A pattern and the policy that may show it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) pattern: Pattern,
    policy: Policy,
}

/// The lines and columns of the map.
pub(crate) struct Map<'a> {
    recipe: &'a StudyRecipe,
    pub(crate) lines: Vec<Line>,
    pub(crate) conditions: Vec<Condition>,
}

/// The map under one scorer: a comparison for each line and condition, `None` without its policies.
pub(crate) struct Marked {
    cells: Vec<Vec<Option<(Measured, Mark)>>>,
}

impl Pattern {
    pub(crate) const ALL: [Self; 4] =
        [Self::Unharmed, Self::FallsWithVolume, Self::Overfits, Self::CdpoBeatsDpo];

    /// Returns the pattern in words.
    pub(crate) fn says(self) -> &'static str {
        match self {
            Self::Unharmed => "DPO is unharmed by flips",
            Self::FallsWithVolume => "IPO falls with volume",
            Self::Overfits => "training overfits",
            Self::CdpoBeatsDpo => "cDPO beats DPO",
        }
    }

    /// Returns what changes from one side of its comparison to the other.
    fn change(self) -> &'static str {
        match self {
            Self::Unharmed => "from clean labels to the most flips",
            Self::FallsWithVolume => "from the smallest share of the pairs to the largest",
            Self::Overfits => "from the first checkpoint to the last",
            Self::CdpoBeatsDpo => "from DPO to cDPO",
        }
    }

    /// Returns the sign of its contrast.
    fn expects(self) -> Expectation {
        match self {
            Self::Unharmed => Expectation::NotLower,
            Self::FallsWithVolume | Self::Overfits => Expectation::Lower,
            Self::CdpoBeatsDpo => Expectation::Higher,
        }
    }
}

impl Policy {
    fn of(loss: LossKind) -> Self {
        let (fraction, flip_rate) = (Fraction::ALL, FlipRate::NONE);
        Self { loss, fraction, flip_rate, smoothing: None, reduction: None }
    }

    fn dpo(flip_rate: FlipRate) -> Self {
        Self { flip_rate, ..Self::of(LossKind::Dpo) }
    }

    fn ipo(reduction: LogpReduction) -> Self {
        Self { reduction: Some(reduction), ..Self::of(LossKind::Ipo) }
    }

    /// Returns the policy on all pairs with clean labels, whose gain over SFT is the assay.
    fn clean(self) -> Self {
        Self { fraction: Fraction::ALL, flip_rate: FlipRate::NONE, ..self }
    }

    fn name(self) -> String {
        let mut name = loss_name(self.loss).to_owned();
        if let Some(reduction) = self.reduction {
            name += &format!(", {}", reduction_name(reduction));
        }
        if let Some(smoothing) = self.smoothing {
            name += &format!(", ε = {smoothing}");
        }
        if self.flip_rate != FlipRate::NONE {
            name += &format!(", {}% flipped", percent(self.flip_rate.get()));
        }
        name
    }
}

impl Condition {
    /// Returns a training run; properties that equal the recipe's are left out, so that other questions share it.
    fn cell(self, recipe: &StudyRecipe, policy: Policy, seed: u64) -> Cell {
        let (train, loss) = (&recipe.train, &recipe.loss);
        Cell {
            fraction: policy.fraction,
            flip_rate: policy.flip_rate,
            label_smoothing: policy.smoothing.filter(|rule| *rule != loss.label_smoothing),
            logp_reduction: policy.reduction.filter(|reduction| *reduction != loss.logp_reduction),
            learning_rate: Some(self.learning_rate).filter(|rate| *rate != train.learning_rate),
            epochs: Some(self.epochs).filter(|epochs| train.epochs.whole() != Some(*epochs)),
            ..Cell::new(annotator(&recipe.study), policy.loss, recipe.study.betas[0], seed)
        }
    }

    /// Selects a policy at a checkpoint.
    fn select<'a>(self, recipe: &'a StudyRecipe, policy: Policy, at: usize) -> Select<'a> {
        let wanted = self.cell(recipe, policy, 0);
        Box::new(move |subject| {
            matches!(subject, Subject::Trained { cell, checkpoint }
                if *checkpoint == at && Cell { seed: 0, ..cell.clone() } == wanted)
        })
    }
}

impl<'a> Map<'a> {
    pub(crate) fn new(recipe: &'a StudyRecipe) -> Self {
        let axes = &recipe.study.map;
        let of_rate =
            |learning_rate: f64| axes.epochs.iter().map(move |&epochs| Condition { learning_rate, epochs });
        let conditions = axes.learning_rates.iter().copied().flat_map(of_rate).collect();
        Self { recipe, lines: lines(axes, recipe.train.checkpoints.len()), conditions }
    }

    /// Returns the supervised policy and all policies of the map.
    pub(crate) fn grid(&self) -> Grid {
        let (study, last) = (&self.recipe.study, self.last());
        let mut grid = Grid::baselines(study.seeds);
        for seed in 0..study.seeds {
            for condition in &self.conditions {
                for line in &self.lines {
                    let first = if line.pattern == Pattern::Overfits { 0 } else { last };
                    for policy in line.policies(&study.map) {
                        let cell = condition.cell(self.recipe, policy, seed);
                        grid.add_cell(&cell, first..=last);
                    }
                }
            }
        }
        grid
    }

    /// Tests the map under one scorer; p-values are corrected for all of its comparisons.
    pub(crate) fn mark(&self, analysis: &Analysis<'_>, scorer: &Scorer) -> Result<Marked, StudyError> {
        let margin = self.recipe.study.margin.get();
        let claims: Vec<Claim<'_>> = self
            .lines
            .iter()
            .flat_map(|line| self.conditions.iter().map(|&condition| self.claim(*line, condition)))
            .collect();
        let measured = tested((analysis, scorer, margin), &claims)?;
        let marked = measured.into_iter().zip(&claims).map(|(measured, claim)| {
            let measured = measured?;
            let mark = Mark::of(&measured, claim.expects, margin);
            Some((measured, mark))
        });
        let marked: Vec<_> = marked.collect();
        Ok(Marked { cells: marked.chunks(self.conditions.len()).map(<[_]>::to_vec).collect() })
    }

    fn claim(&self, line: Line, condition: Condition) -> Claim<'a> {
        let (axes, last) = (&self.recipe.study.map, self.last());
        let at_end = |policy: Policy| condition.select(self.recipe, policy, last);
        let contrast = match line.pattern {
            Pattern::Unharmed => Contrast::trend(
                axes.flip_rates.iter().map(|&rate| (rate.get(), at_end(Policy::dpo(rate)))).collect(),
            ),
            Pattern::FallsWithVolume => {
                let of = |&fraction: &Fraction| at_end(Policy { fraction, ..line.policy });
                Contrast::trend(axes.volumes.iter().map(|share| (share.get(), of(share))).collect())
            }
            Pattern::Overfits => {
                let at = |checkpoint| condition.select(self.recipe, line.policy, checkpoint);
                Contrast::fall((0..=last).map(at).collect())
            }
            Pattern::CdpoBeatsDpo => {
                Contrast::difference(at_end(line.policy), at_end(Policy::dpo(line.policy.flip_rate)))
            }
        };
        let trained = match line.pattern {
            Pattern::CdpoBeatsDpo => Policy::of(LossKind::Dpo),
            _ => line.policy.clean(),
        };
        Claim {
            expects: line.pattern.expects(),
            control: Some(Contrast::difference(at_end(trained), Box::new(is_baseline))),
            ..Claim::new("Map", line.name(), contrast)
        }
    }

    /// Returns the two selections between which a pattern is a change.
    fn compared(&self, line: Line, condition: Condition) -> [Select<'a>; 2] {
        let (axes, last) = (&self.recipe.study.map, self.last());
        let policy = line.policy;
        let before = match line.pattern {
            Pattern::Unharmed => policy.clean(),
            Pattern::FallsWithVolume => {
                let least = axes.volumes.iter().copied().min_by(|a, b| a.get().total_cmp(&b.get()));
                Policy { fraction: least.unwrap_or(Fraction::ALL), ..policy }
            }
            Pattern::Overfits => policy,
            Pattern::CdpoBeatsDpo => Policy::dpo(policy.flip_rate),
        };
        let first = if line.pattern == Pattern::Overfits { 0 } else { last };
        [condition.select(self.recipe, before, first), condition.select(self.recipe, policy, last)]
    }

    fn last(&self) -> usize {
        self.recipe.train.checkpoints.len() - 1
    }
}

impl Marked {
    /// Returns the lines and conditions of a pattern that have a mark.
    fn places(&self, map: &Map<'_>, pattern: Pattern, mark: Mark) -> Vec<(Line, Condition)> {
        let of_pattern = map.lines.iter().filter(|line| line.pattern == pattern);
        let all = of_pattern.flat_map(|line| map.conditions.iter().map(|condition| (*line, *condition)));
        all.filter(|(line, condition)| self.at(map, line, condition) == Some(mark)).collect()
    }

    /// Returns the mark of a line in a condition; `None` without its policies.
    fn at(&self, map: &Map<'_>, line: &Line, condition: &Condition) -> Option<Mark> {
        let row = map.lines.iter().position(|other| other == line)?;
        let column = map.conditions.iter().position(|other| other == condition)?;
        self.cells[row][column].as_ref().map(|(_, mark)| *mark)
    }
}

impl Line {
    /// Returns the policy in words, such as `DPO, 25% flipped`.
    pub(crate) fn name(&self) -> String {
        match self.pattern {
            Pattern::Unharmed => loss_name(self.policy.loss).to_owned(),
            _ => self.policy.name(),
        }
    }

    /// Returns whether the paper finds the pattern for this policy, if IPO has this reduction; `None` for a policy that the
    /// paper does not train.
    fn in_the_paper(&self, reduction: LogpReduction) -> Option<bool> {
        match self.pattern {
            Pattern::Unharmed => Some(true),
            Pattern::CdpoBeatsDpo => Some(false),
            Pattern::FallsWithVolume => (self.policy.reduction == Some(reduction)).then_some(true),
            Pattern::Overfits if self.policy == Policy::of(LossKind::Dpo) => Some(false),
            Pattern::Overfits => (self.policy.reduction == Some(reduction)).then_some(true),
        }
    }

    /// Returns the policies that its comparison needs, without its control.
    fn policies(&self, axes: &MapSection) -> Vec<Policy> {
        match self.pattern {
            Pattern::Unharmed => axes.flip_rates.iter().map(|&rate| Policy::dpo(rate)).collect(),
            Pattern::FallsWithVolume => {
                axes.volumes.iter().map(|&fraction| Policy { fraction, ..self.policy }).collect()
            }
            Pattern::Overfits | Pattern::CdpoBeatsDpo => vec![self.policy],
        }
    }
}

/// Returns the lines of the map, by pattern.
fn lines(axes: &MapSection, checkpoints: usize) -> Vec<Line> {
    let noisy: Vec<FlipRate> = axes.flip_rates.iter().copied().filter(|rate| rate.get() > 0.0).collect();
    let of = |pattern: Pattern| move |policy: Policy| Line { pattern, policy };
    let ipo = || axes.logp_reductions.iter().map(|&reduction| Policy::ipo(reduction));
    let most = noisy.iter().copied().max_by(|a, b| a.get().total_cmp(&b.get()));
    let mut lines: Vec<Line> =
        most.map(|rate| Line { pattern: Pattern::Unharmed, policy: Policy::dpo(rate) }).into_iter().collect();
    lines.extend(ipo().map(of(Pattern::FallsWithVolume)));
    if checkpoints > 1 {
        let dpo = axes.flip_rates.iter().map(|&rate| Policy::dpo(rate));
        lines.extend(dpo.chain(ipo()).map(of(Pattern::Overfits)));
    }
    for &flip_rate in &noisy {
        let mut known = Vec::new();
        for &rule in &axes.label_smoothing {
            // Two rules may give the same ε, and are the same run then.
            if !known.contains(&rule.at(flip_rate).get()) {
                known.push(rule.at(flip_rate).get());
                let policy = Policy { flip_rate, smoothing: Some(rule), ..Policy::of(LossKind::Cdpo) };
                lines.push(Line { pattern: Pattern::CdpoBeatsDpo, policy });
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests;
