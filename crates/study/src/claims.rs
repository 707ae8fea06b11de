//! Claims and headlines: contrasts of scores with the paper's predictions, and with plain questions.

use experiment::{Cell, Subject, loss_name};
use pref_data::{FlipRate, Fraction};
use trainer::recipe::LossKind;

use crate::contrast::{Contrast, Select, trend_weights};
use crate::error::StudyError;
use crate::paper::{PaperTable, tables};
use crate::recipe::PaperSet;
use crate::results::Results;
use crate::tables::is_baseline;

/// A claim about scores.
pub struct Claim<'a> {
    /// The table that contains its scores.
    pub place: &'static str,
    /// The comparison, in short.
    pub comparison: String,
    /// The paper's claim; empty for a comparison without one.
    pub says: String,
    /// The contrast to measure.
    pub contrast: Contrast<'a>,
    /// The predicted sign.
    pub expects: Expectation,
    /// The value in the paper's table.
    pub printed: Option<f64>,
    /// The effect that a study must see before the absence of this one can be interpreted, such as that of training on
    /// clean labels.
    pub control: Option<Contrast<'a>>,
}

impl<'a> Claim<'a> {
    /// Returns a comparison without a claim of the paper.
    pub fn new(place: &'static str, comparison: String, contrast: Contrast<'a>) -> Self {
        let expects = Expectation::Unclaimed;
        Self { place, comparison, says: String::new(), contrast, expects, printed: None, control: None }
    }
}

/// The sign of a contrast that a claim predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Above 0.
    Higher,
    /// Below 0.
    Lower,
    /// 0, or within the margin of equivalence.
    NoEffect,
    /// Not below 0 by the margin of equivalence or more.
    NotLower,
    /// No prediction.
    Unclaimed,
}

/// A plain question and the comparison that answers it.
pub struct Headline<'a> {
    /// The question, such as `Do more pairs help?`.
    pub question: &'static str,
    /// The question of a person with data of their own, such as `How much is needed?`.
    pub of_own_data: &'static str,
    /// The comparison, in short.
    pub comparison: String,
    /// The contrast to measure.
    pub contrast: Contrast<'a>,
    /// The effect that a study must see before the absence of this one can be interpreted.
    pub control: Option<Contrast<'a>>,
    /// The answer to each outcome.
    pub answers: Answers,
}

/// The answers to the outcomes of a comparison.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The answer to an effect above 0.
    pub higher: String,
    /// The answer to an effect below 0.
    pub lower: String,
    /// The answer to an effect within the margin of equivalence.
    pub absent: String,
}

impl Answers {
    /// Returns answers from their words.
    pub fn new(higher: &str, lower: &str, absent: &str) -> Self {
        let [higher, lower, absent] = [higher, lower, absent].map(str::to_owned);
        Self { higher, lower, absent }
    }
}

/// The comparisons of trained policies from which questions build their claims.
pub(crate) struct Comparisons<'a> {
    pub(crate) results: &'a Results<'a>,
    pub(crate) losses: &'a [LossKind],
    tables: Vec<PaperTable>,
}

impl<'a> Comparisons<'a> {
    pub(crate) fn new(results: &'a Results<'a>, losses: &'a [LossKind]) -> Result<Self, StudyError> {
        Ok(Self { results, losses, tables: tables()? })
    }

    pub(crate) fn annotators(&self) -> &'a [String] {
        &self.results.recipe.study.annotators
    }

    /// Returns whether the question compares each of `losses`.
    pub(crate) fn has(&self, losses: &[LossKind]) -> bool {
        losses.iter().all(|loss| self.losses.contains(loss))
    }

    /// Returns the trend over volumes for each annotator and loss.
    pub(crate) fn volume_trend(
        &self,
        annotator: &'a str,
        loss: LossKind,
        shares: &[Fraction],
        place: &'static str,
    ) -> Claim<'a> {
        let levels = shares.iter().map(|&share| (share.get(), self.at_volume(loss, annotator, share)));
        let comparison = format!("{annotator}, {}: trend with volume", loss_name(loss));
        let claim = Claim::new(place, comparison, Contrast::trend(levels.collect()));
        Claim { control: Some(self.training_effect(loss, annotator)), ..claim }
    }

    /// Returns both losses at each level of noise; none if the question lacks one of them.
    pub(crate) fn at_all_noise(
        &self,
        annotator: &'a str,
        [loss, other]: [LossKind; 2],
        rates: &[FlipRate],
    ) -> Vec<(Select<'a>, Select<'a>)> {
        let noisy = rates.iter().copied().filter(|rate| rate.get() > 0.0 && self.has(&[loss, other]));
        let at = |loss, rate| self.at_noise(loss, annotator, rate);
        noisy.map(|rate| (at(loss, rate), at(other, rate))).collect()
    }

    /// Returns the mean difference of two losses over all levels of noise; `None` if the question lacks one of them.
    pub(crate) fn under_noise(
        &self,
        annotator: &'a str,
        [loss, other]: [LossKind; 2],
        rates: &[FlipRate],
        place: &'static str,
    ) -> Option<Claim<'a>> {
        let pairs = self.at_all_noise(annotator, [loss, other], rates);
        if pairs.is_empty() {
            return None;
        }
        let printed = self.printed(4, loss, annotator).zip(self.printed(4, other, annotator));
        let printed = printed.map(|(one, other)| (1..5).map(|row| one[row] - other[row]).sum::<f64>() / 4.0);
        let comparison = format!("{annotator}: {} − {}, under noise", loss_name(loss), loss_name(other));
        let claim = Claim::new(place, comparison, Contrast::mean_difference(pairs));
        Some(Claim { printed, control: Some(self.training_effect(other, annotator)), ..claim })
    }

    /// Returns the fall from the peak to the last checkpoint, for each annotator and loss.
    pub(crate) fn falls(&self, place: &'static str) -> Vec<Claim<'a>> {
        let last = self.results.last_checkpoint();
        if last == 0 {
            return Vec::new();
        }
        let mut claims = Vec::new();
        for annotator in self.annotators() {
            for &loss in self.losses {
                let checkpoints = (0..=last).map(|at| self.at_checkpoint(loss, annotator, at));
                let comparison = format!("{annotator}, {}: end − earlier peak", loss_name(loss));
                let claim = Claim::new(place, comparison, Contrast::fall(checkpoints.collect()));
                let at_end = self.at_checkpoint(loss, annotator, last);
                let control = Contrast::difference(at_end, Box::new(is_baseline));
                claims.push(Claim { control: Some(control), ..claim });
            }
        }
        claims
    }

    /// Returns the mean over annotators and losses of a difference.
    pub(crate) fn over_all(
        &self,
        difference: impl Fn(LossKind, &'a str) -> (Select<'a>, Select<'a>),
    ) -> Contrast<'a> {
        let of =
            |annotator: &'a String| self.losses.iter().map(|&loss| difference(loss, annotator)).collect();
        Contrast::mean_difference(self.annotators().iter().flat_map::<Vec<_>, _>(of).collect())
    }

    /// Returns a headline whose absence is interpretable if training on clean labels has an effect.
    pub(crate) fn headline(
        &self,
        [question, of_own_data]: [&'static str; 2],
        comparison: String,
        contrast: Contrast<'a>,
        answers: Answers,
    ) -> Headline<'a> {
        let control = self.over_all(|loss, annotator| (self.clean(loss, annotator), Box::new(is_baseline)));
        Headline { question, of_own_data, comparison, contrast, control: Some(control), answers }
    }

    /// Returns the names of the losses, such as `DPO, IPO`.
    pub(crate) fn loss_names(&self) -> String {
        self.losses.iter().map(|&loss| loss_name(loss)).collect::<Vec<_>>().join(", ")
    }

    /// Selects the policies of all annotators and losses at a checkpoint.
    pub(crate) fn all_at_checkpoint(&self, at: usize) -> Select<'a> {
        let (annotators, losses) = (self.annotators(), self.losses);
        Box::new(move |subject| match subject {
            Subject::Baseline { .. } => false,
            Subject::Trained { cell, checkpoint } => {
                *checkpoint == at && losses.contains(&cell.loss) && annotators.contains(&cell.annotator)
            }
        })
    }

    /// Returns the difference between training on all pairs with clean labels and no training.
    pub(crate) fn training_effect(&self, loss: LossKind, annotator: &'a str) -> Contrast<'a> {
        Contrast::difference(self.clean(loss, annotator), Box::new(is_baseline))
    }

    /// Selects policies trained on all pairs with clean labels.
    pub(crate) fn clean(&self, loss: LossKind, annotator: &'a str) -> Select<'a> {
        self.trained(loss, annotator, |cell| {
            cell.fraction == Fraction::ALL && cell.flip_rate == FlipRate::NONE
        })
    }

    pub(crate) fn at_volume(&self, loss: LossKind, annotator: &'a str, share: Fraction) -> Select<'a> {
        self.trained(loss, annotator, move |cell| cell.fraction == share)
    }

    pub(crate) fn at_noise(&self, loss: LossKind, annotator: &'a str, rate: FlipRate) -> Select<'a> {
        self.trained(loss, annotator, move |cell| cell.flip_rate == rate)
    }

    fn at_checkpoint(&self, loss: LossKind, annotator: &'a str, at: usize) -> Select<'a> {
        Box::new(move |subject| match subject {
            Subject::Baseline { .. } => false,
            Subject::Trained { cell, checkpoint } => {
                *checkpoint == at && cell.loss == loss && cell.annotator == annotator
            }
        })
    }

    fn trained(&self, loss: LossKind, annotator: &'a str, keep: impl Fn(&Cell) -> bool + 'a) -> Select<'a> {
        let at_end = self.at_checkpoint(loss, annotator, self.results.last_checkpoint());
        Box::new(move |subject| {
            at_end(subject) && matches!(subject, Subject::Trained { cell, .. } if keep(cell))
        })
    }

    fn set(&self) -> PaperSet {
        self.results.recipe.study.paper_set
    }

    /// Returns whether the paper's claims are about this data set, which its appendix only prints otherwise.
    pub(crate) fn is_claimed(&self) -> bool {
        self.set() == PaperSet::Gair
    }

    /// Adds the paper's claim, if it is about this data set.
    pub(crate) fn claimed(
        &self,
        claim: Claim<'a>,
        says: impl Into<String>,
        expects: Expectation,
    ) -> Claim<'a> {
        if self.is_claimed() { Claim { says: says.into(), expects, ..claim } } else { claim }
    }

    /// Returns this data set's counterpart of `table`.
    pub(crate) fn place(&self, table: usize) -> &'static str {
        match self.set().printed(table).0 {
            1 => "Table 1",
            3 => "Table 3",
            4 => "Table 4",
            10 => "Table 10",
            13 => "Table 13",
            _ => "Table 14",
        }
    }

    pub(crate) fn printed_sft(&self) -> Option<f64> {
        let (table, column) = self.set().printed(1);
        self.tables[table - 1].column(column.unwrap_or("Human")).ok()?.first().copied()
    }

    /// Returns the score of Table 1, whose rows are SFT, DPO and IPO.
    pub(crate) fn printed_1(&self, loss: LossKind, annotator: &str) -> Option<f64> {
        let row = match loss {
            LossKind::Dpo => 1,
            LossKind::Ipo => 2,
            _ => return None,
        };
        let (table, column) = self.set().printed(1);
        let column = column.or_else(|| printed_name(annotator))?;
        self.tables[table - 1].column(column).ok()?.get(row).copied()
    }

    /// Returns a column of Table 3 or 4.
    pub(crate) fn printed(&self, table: usize, loss: LossKind, annotator: &str) -> Option<Vec<f64>> {
        let (table, column) = self.set().printed(table);
        let header = format!("{}, Loss = {}", column.or_else(|| printed_name(annotator))?, loss_name(loss));
        self.tables[table - 1].column(&header).ok()
    }

    /// Returns the change of a column of Table 5 from its highest earlier score to the end of training.
    pub(crate) fn printed_5(&self, loss: LossKind, annotator: &str) -> Option<f64> {
        let header = format!("{}, Loss = {}, MT Bench Score", printed_name(annotator)?, loss_name(loss));
        let scores = self.own_column(5, &header)?;
        let (last, earlier) = scores.split_last()?;
        Some(last - earlier.iter().copied().reduce(f64::max)?)
    }

    /// Returns a column of a table of the paper's own data set, if the study is on that set.
    pub(crate) fn own_column(&self, table: usize, header: &str) -> Option<Vec<f64>> {
        self.tables[table - 1].column(header).ok().filter(|_| self.is_claimed())
    }
}

/// Returns the LLM and the humans if the study has both, else its first two annotators.
pub(crate) fn llm_and_human<'a>(results: &Results<'a>) -> Option<[&'a str; 2]> {
    let annotators = &results.recipe.study.annotators;
    let has = |name: &str| annotators.iter().any(|annotator| annotator == name);
    if has("gpt-4-turbo") && has("human") {
        return Some(["gpt-4-turbo", "human"]);
    }
    Some([annotators.first()?, annotators.get(1)?])
}

/// Returns the paper's name of an annotator.
fn printed_name(annotator: &str) -> Option<&'static str> {
    match annotator {
        "human" => Some("Human"),
        "gpt-4-turbo" => Some("GPT4-Turbo"),
        _ => None,
    }
}

/// Returns the gain of the regression line through printed `scores` at `levels`.
pub(crate) fn printed_trend(levels: &[f64], scores: &[f64]) -> f64 {
    trend_weights(levels).iter().zip(scores).map(|(weight, score)| weight * score).sum()
}
