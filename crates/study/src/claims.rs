//! What the paper claims of each question, as contrasts of scores that a grid can measure.

use paper::PaperTable;
use pref_data::{FlipRate, Fraction};
use pref_loss::Beta;
use trainer::recipe::LossKind;

use crate::analysis::Analysis;
use crate::cell::{Cell, Subject, loss_name, percent};
use crate::contrast::{Contrast, Keep};
use crate::error::StudyError;
use crate::grid::{Labels, Question};
use crate::recipe::PaperSet;
use crate::sweep::{Chosen, Setting};

/// A claim about scores.
pub(crate) struct Claim<'a> {
    /// The table that it is read from.
    pub(crate) place: &'static str,
    /// What is compared, in short.
    pub(crate) comparison: String,
    /// What the paper says; empty for a comparison that it does not make.
    pub(crate) says: String,
    /// What is measured.
    pub(crate) contrast: Contrast<'a>,
    /// What the claim predicts of it.
    pub(crate) expects: Expectation,
    /// What the paper's table prints for it.
    pub(crate) printed: Option<f64>,
}

/// What a claim predicts of a contrast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// It is above 0.
    Higher,
    /// It is below 0.
    Lower,
    /// It is 0, or too small to matter.
    NoEffect,
    /// It is not below 0 by what would matter.
    NotLower,
    /// The paper does not say.
    Unclaimed,
}

/// The claims that the scores of `question` speak of, in the order of the paper's tables.
///
/// # Errors
///
/// Where no β can be chosen from the scores of a sweep.
pub(crate) fn claims<'a>(
    question: Question,
    analysis: &'a Analysis<'a>,
    tables: &[PaperTable],
) -> Result<Vec<Claim<'a>>, StudyError> {
    let grid = Cells { analysis, question, tables };
    Ok(match question {
        Question::Strength => match Chosen::of(analysis)? {
            Some(chosen) => grid.strength(chosen),
            None => Vec::new(),
        },
        // Its grid is the sweep's with more cells, of which the paper claims nothing.
        Question::Tuned => Vec::new(),
        Question::Acquisition => grid.acquisition(),
        Question::Volume | Question::EqualSteps => grid.volume(),
        Question::Quality => grid.quality(),
        Question::RobustLosses => grid.robust(),
        Question::Overfitting | Question::LongTraining => grid.overfitting(),
        Question::MixedLabels => grid.mixed_labels(),
    })
}

/// The trained policies of a question's grid.
struct Cells<'g, 'a> {
    analysis: &'a Analysis<'a>,
    question: Question,
    tables: &'g [PaperTable],
}

impl<'a> Cells<'_, 'a> {
    fn acquisition(&self) -> Vec<Claim<'a>> {
        let mut claims = Vec::new();
        if let Some([llm, human]) = self.contestants() {
            for &loss in self.losses() {
                let (says, expects) = match loss {
                    LossKind::Dpo => (
                        "DPO on GPT-4-Turbo's preferences outperforms DPO on human preferences",
                        Expectation::Higher,
                    ),
                    LossKind::Ipo => {
                        ("IPO on human preferences outperforms IPO on GPT-4-Turbo's", Expectation::Lower)
                    }
                    _ => ("", Expectation::Unclaimed),
                };
                claims.push(Claim {
                    place: self.place(1),
                    comparison: format!("{}: {llm} − {human}", loss_name(loss)),
                    says: says.to_owned(),
                    contrast: Contrast::difference(self.clean(loss, llm), self.clean(loss, human)),
                    expects,
                    printed: self.printed_1(loss, llm).zip(self.printed_1(loss, human)).map(|(a, b)| a - b),
                });
            }
        }
        for annotator in self.annotators() {
            for &loss in self.losses() {
                let sft: Keep<'a> = Box::new(|subject| matches!(subject, Subject::Baseline { .. }));
                claims.push(Claim {
                    place: self.place(1),
                    comparison: format!("{annotator}: {} − SFT", loss_name(loss)),
                    says: String::new(),
                    contrast: Contrast::difference(self.clean(loss, annotator), sft),
                    expects: Expectation::Unclaimed,
                    printed: self.printed_1(loss, annotator).zip(self.printed_sft()).map(|(a, b)| a - b),
                });
            }
        }
        claims
    }

    fn volume(&self) -> Vec<Claim<'a>> {
        let shares = self.question.fractions(&self.analysis.recipe.study);
        let is_paper = self.question == Question::Volume;
        let mut claims = Vec::new();
        for annotator in self.annotators() {
            for &loss in self.losses() {
                let levels: Vec<_> = shares
                    .iter()
                    .map(|&share| (share.get(), self.at_volume(loss, annotator, share)))
                    .collect();
                let is_claimed =
                    is_paper && self.is_claimed() && [LossKind::Dpo, LossKind::Ipo].contains(&loss);
                let printed = self.printed(3, loss, annotator).filter(|_| is_paper);
                claims.push(Claim {
                    place: if is_paper { self.place(3) } else { "Equal steps" },
                    comparison: format!("{annotator}, {}: trend with volume", loss_name(loss)),
                    says: match is_claimed {
                        true => format!("{} shows no relationship with data volume", loss_name(loss)),
                        false => String::new(),
                    },
                    contrast: Contrast::trend(levels),
                    expects: if is_claimed { Expectation::NoEffect } else { Expectation::Unclaimed },
                    printed: printed.map(|scores| gain(&[1.0, 0.75, 0.5, 0.25], &scores)),
                });
            }
            claims.extend(self.ipo_against_dpo(annotator, &shares).filter(|_| is_paper));
        }
        claims
    }

    /// IPO against DPO at half of the pairs or more.
    fn ipo_against_dpo(&self, annotator: &'a str, shares: &[Fraction]) -> Option<Claim<'a>> {
        let large: Vec<Fraction> = shares.iter().copied().filter(|share| share.get() >= 0.5).collect();
        if large.is_empty() || ![LossKind::Dpo, LossKind::Ipo].iter().all(|loss| self.losses().contains(loss))
        {
            return None;
        }
        let at = |loss, share| self.at_volume(loss, annotator, share);
        let pairs = large.iter().map(|&share| (at(LossKind::Ipo, share), at(LossKind::Dpo, share)));
        let printed =
            self.printed(3, LossKind::Ipo, annotator).zip(self.printed(3, LossKind::Dpo, annotator));
        Some(Claim {
            place: self.place(3),
            comparison: format!("{annotator}: IPO − DPO, at 50% or more"),
            says: self.says("IPO underperforms DPO at 100%, 75% and 50% of the pairs"),
            contrast: Contrast::mean_difference(pairs.collect()),
            expects: self.expects(Expectation::Lower),
            printed: printed.map(|(ipo, dpo)| (0..3).map(|row| ipo[row] - dpo[row]).sum::<f64>() / 3.0),
        })
    }

    fn quality(&self) -> Vec<Claim<'a>> {
        let rates = self.question.flip_rates(&self.analysis.recipe.study);
        let mut claims = Vec::new();
        for annotator in self.annotators() {
            for &loss in self.losses() {
                let levels: Vec<_> =
                    rates.iter().map(|&rate| (rate.get(), self.at_noise(loss, annotator, rate))).collect();
                let printed = self.printed(4, loss, annotator);
                claims.push(Claim {
                    place: self.place(4),
                    comparison: format!("{annotator}, {}: trend with flipped labels", loss_name(loss)),
                    says: self.says(&format!("{} shows no relationship with data quality", loss_name(loss))),
                    contrast: Contrast::trend(levels),
                    expects: match loss {
                        LossKind::Dpo | LossKind::Cdpo => self.expects(Expectation::NoEffect),
                        _ => Expectation::Unclaimed,
                    },
                    printed: printed.map(|scores| gain(&[0.0, 0.05, 0.25, 0.5, 0.75], &scores)),
                });
            }
            claims.extend(self.under_noise(annotator, LossKind::Cdpo, LossKind::Dpo));
        }
        claims
    }

    /// Robust DPO and KTO beside what the paper compares.
    fn robust(&self) -> Vec<Claim<'a>> {
        let mut claims = Vec::new();
        for annotator in self.annotators() {
            for loss in [LossKind::Robust, LossKind::Kto] {
                for other in [LossKind::Dpo, LossKind::Cdpo] {
                    claims.extend(self.under_noise(annotator, loss, other));
                }
            }
        }
        claims
    }

    /// One loss against another, over all shares of flipped labels.
    fn under_noise(&self, annotator: &'a str, loss: LossKind, other: LossKind) -> Option<Claim<'a>> {
        let rates = self.question.flip_rates(&self.analysis.recipe.study);
        let noisy: Vec<FlipRate> = rates.into_iter().filter(|rate| rate.get() > 0.0).collect();
        if noisy.is_empty() || ![loss, other].iter().all(|loss| self.losses().contains(loss)) {
            return None;
        }
        let at = |loss, rate| self.at_noise(loss, annotator, rate);
        let pairs = noisy.iter().map(|&rate| (at(loss, rate), at(other, rate)));
        let printed = self.printed(4, loss, annotator).zip(self.printed(4, other, annotator));
        let is_cdpo = loss == LossKind::Cdpo;
        Some(Claim {
            place: if is_cdpo { self.place(4) } else { "Noise" },
            comparison: format!("{annotator}: {} − {}, under noise", loss_name(loss), loss_name(other)),
            says: if is_cdpo { self.says("cDPO is inferior to DPO under flip noise") } else { String::new() },
            contrast: Contrast::mean_difference(pairs.collect()),
            expects: if is_cdpo { self.expects(Expectation::Lower) } else { Expectation::Unclaimed },
            printed: printed.map(|(one, other)| (1..5).map(|row| one[row] - other[row]).sum::<f64>() / 4.0),
        })
    }

    /// The end of training against its first part, where the paper's IPO peaks.
    fn overfitting(&self) -> Vec<Claim<'a>> {
        let shares = &self.analysis.recipe.train.checkpoints;
        let is_paper = self.question == Question::Overfitting && self.is_claimed();
        let (last, first) = (self.analysis.last_checkpoint(), shares[0]);
        if last == 0 {
            return Vec::new();
        }
        let mut claims = Vec::new();
        for annotator in self.annotators() {
            for &loss in self.losses() {
                let at = |at| self.at_checkpoint(loss, annotator, at);
                let (says, expects) = match loss {
                    _ if !is_paper => ("", Expectation::Unclaimed),
                    LossKind::Dpo => ("DPO does not show overfitting", Expectation::NotLower),
                    LossKind::Ipo => ("IPO at β = 0.1 overfits", Expectation::Lower),
                    _ => ("", Expectation::Unclaimed),
                };
                claims.push(Claim {
                    place: if self.question == Question::Overfitting { "Table 5" } else { "More epochs" },
                    comparison: format!(
                        "{annotator}, {}: 100% − {}% of training",
                        loss_name(loss),
                        percent(first)
                    ),
                    says: says.to_owned(),
                    contrast: Contrast::difference(at(last), at(0)),
                    expects,
                    printed: self.printed_5(loss, annotator).filter(|_| is_paper),
                });
            }
        }
        claims
    }

    /// Where two annotators agree against all records, and whose labels are worth more where they differ.
    fn mixed_labels(&self) -> Vec<Claim<'a>> {
        let all = Labels::of(&self.analysis.recipe.study);
        let (alone, sliced): (Vec<&Labels>, Vec<&Labels>) =
            all.iter().partition(|labels| labels.slice.is_none());
        let ([one, .., other], [same, of_one, of_other]) = (&alone[..], &sliced[..]) else {
            return Vec::new();
        };
        let mut claims = Vec::new();
        for &loss in self.losses() {
            let on = |labels: &Labels| -> Keep<'a> {
                let (labels, last) = (labels.clone(), self.analysis.last_checkpoint());
                Box::new(move |subject| {
                    matches!(subject, Subject::Trained { cell, checkpoint }
                        if *checkpoint == last && cell.loss == loss && labels.are_of(cell))
                })
            };
            let mut claim = |comparison: String, contrast| {
                claims.push(Claim {
                    place: "Mixed labels",
                    comparison: format!("{}: {comparison}", loss_name(loss)),
                    says: String::new(),
                    contrast,
                    expects: Expectation::Unclaimed,
                    printed: None,
                });
            };
            let (of_one_name, of_other_name) = (&one.source, &other.source);
            for labels in [one, other] {
                claim(
                    format!("both agree − all of {}", labels.source),
                    Contrast::difference(on(same), on(labels)),
                );
            }
            claim(
                format!("where they differ: {of_other_name} − {of_one_name}"),
                Contrast::difference(on(of_other), on(of_one)),
            );
        }
        claims
    }

    /// The β that held-out accuracy chooses against the default, and the losses against each other where both are tuned.
    fn strength(&self, chosen: Chosen) -> Vec<Claim<'a>> {
        let analysis = self.analysis;
        let at = |setting: Setting, beta: Beta| -> Keep<'a> {
            Box::new(move |subject: &Subject| setting.holds(analysis, subject, beta))
        };
        let tuned = |setting| at(setting, chosen.beta(setting));
        let [dpo, ipo, noisy_dpo, noisy_cdpo] = Setting::all();
        let default = analysis.recipe.study.betas[0];
        let mut claims = Vec::new();
        for setting in Setting::all() {
            let loss = loss_name(setting.loss);
            claims.push(Claim {
                place: if setting.flip_rate == FlipRate::NONE { "Table 8" } else { "Table 9" },
                comparison: format!(
                    "{}: β = {} (tuned) − {}",
                    crate::tables::name(setting),
                    chosen.beta(setting).get(),
                    default.get()
                ),
                says: self.says(&format!("tuning β improves {loss} significantly")),
                contrast: Contrast::difference(tuned(setting), at(setting, default)),
                expects: self.expects(Expectation::Higher),
                printed: self.printed_tuned(setting).zip(self.printed_default(setting)).map(|(a, b)| a - b),
            });
        }
        for (place, other, setting) in [("Table 8", dpo, ipo), ("Table 9", noisy_dpo, noisy_cdpo)] {
            let (loss, against) = (loss_name(setting.loss), loss_name(other.loss));
            claims.push(Claim {
                place,
                comparison: format!("{} − {against}, both tuned", crate::tables::name(setting)),
                says: self.says(&format!("{against} surpasses {loss} even where β is tuned for both")),
                contrast: Contrast::difference(tuned(setting), tuned(other)),
                expects: self.expects(Expectation::Lower),
                printed: self.printed_tuned(setting).zip(self.printed_tuned(other)).map(|(a, b)| a - b),
            });
        }
        claims
    }

    /// What Tables 8 and 9 print for a setting.
    fn printed_tuned(&self, setting: Setting) -> Option<f64> {
        let (table, row) = if setting.flip_rate == FlipRate::NONE { (8, 0) } else { (9, 1) };
        let header = format!("Human, Loss = {} (Tuned)", loss_name(setting.loss));
        self.tables[table - 1].column(&header).ok().filter(|_| self.is_claimed())?.get(row).copied()
    }

    /// What Tables 3 and 4 print for it at β = 0.1.
    fn printed_default(&self, setting: Setting) -> Option<f64> {
        let (table, row) = if setting.flip_rate == FlipRate::NONE { (3, 0) } else { (4, 1) };
        self.printed(table, setting.loss, "human")?.get(row).copied()
    }

    fn losses(&self) -> &'a [LossKind] {
        self.question.losses(&self.analysis.recipe.study)
    }

    fn annotators(&self) -> &'a [String] {
        &self.analysis.recipe.study.annotators
    }

    /// The LLM and the humans where both are in the study, else its first two annotators.
    fn contestants(&self) -> Option<[&'a str; 2]> {
        let annotators = self.annotators();
        let has = |name: &str| annotators.iter().any(|annotator| annotator == name);
        if has("gpt-4-turbo") && has("human") {
            return Some(["gpt-4-turbo", "human"]);
        }
        Some([annotators.first()?, annotators.get(1)?])
    }

    /// Policies trained on all pairs with the labels as they are.
    fn clean(&self, loss: LossKind, annotator: &'a str) -> Keep<'a> {
        self.trained(loss, annotator, |cell| {
            cell.fraction == Fraction::ALL && cell.flip_rate == FlipRate::NONE
        })
    }

    fn at_volume(&self, loss: LossKind, annotator: &'a str, share: Fraction) -> Keep<'a> {
        self.trained(loss, annotator, move |cell| cell.fraction == share)
    }

    fn at_noise(&self, loss: LossKind, annotator: &'a str, rate: FlipRate) -> Keep<'a> {
        self.trained(loss, annotator, move |cell| cell.flip_rate == rate)
    }

    fn at_checkpoint(&self, loss: LossKind, annotator: &'a str, at: usize) -> Keep<'a> {
        Box::new(move |subject| match subject {
            Subject::Baseline { .. } => false,
            Subject::Trained { cell, checkpoint } => {
                *checkpoint == at && cell.loss == loss && cell.annotator == annotator
            }
        })
    }

    fn trained(&self, loss: LossKind, annotator: &'a str, keep: impl Fn(&Cell) -> bool + 'a) -> Keep<'a> {
        let at_end = self.at_checkpoint(loss, annotator, self.analysis.last_checkpoint());
        Box::new(move |subject| {
            at_end(subject) && matches!(subject, Subject::Trained { cell, .. } if keep(cell))
        })
    }

    /// The paper's set that the preferences are.
    fn set(&self) -> PaperSet {
        self.analysis.recipe.study.paper_set
    }

    /// Whether the paper speaks of these preferences in words, and not in the tables of its appendix alone.
    fn is_claimed(&self) -> bool {
        self.set() == PaperSet::Gair
    }

    /// What the paper says of its own set.
    fn says(&self, words: &str) -> String {
        if self.is_claimed() { words.to_owned() } else { String::new() }
    }

    fn expects(&self, of_own_set: Expectation) -> Expectation {
        if self.is_claimed() { of_own_set } else { Expectation::Unclaimed }
    }

    /// The table of this set that stands for `table` of the paper's own.
    fn place(&self, table: usize) -> &'static str {
        match self.set().printed(table).0 {
            1 => "Table 1",
            3 => "Table 3",
            4 => "Table 4",
            10 => "Table 10",
            13 => "Table 13",
            _ => "Table 14",
        }
    }

    fn printed_sft(&self) -> Option<f64> {
        let (table, column) = self.set().printed(1);
        self.tables[table - 1].column(column.unwrap_or("Human")).ok()?.first().copied()
    }

    /// Table 1's score; its rows are SFT, DPO and IPO.
    fn printed_1(&self, loss: LossKind, annotator: &str) -> Option<f64> {
        let row = match loss {
            LossKind::Dpo => 1,
            LossKind::Ipo => 2,
            _ => return None,
        };
        let (table, column) = self.set().printed(1);
        let column = column.or_else(|| printed_name(annotator))?;
        self.tables[table - 1].column(column).ok()?.get(row).copied()
    }

    /// A column of Table 3 or 4.
    fn printed(&self, table: usize, loss: LossKind, annotator: &str) -> Option<Vec<f64>> {
        let (table, column) = self.set().printed(table);
        let header = format!("{}, Loss = {}", column.or_else(|| printed_name(annotator))?, loss_name(loss));
        self.tables[table - 1].column(&header).ok()
    }

    /// What Table 5's column gains from the first quarter of training to its end.
    fn printed_5(&self, loss: LossKind, annotator: &str) -> Option<f64> {
        if !self.is_claimed() {
            return None;
        }
        let header = format!("{}, Loss = {}, MT Bench Score", printed_name(annotator)?, loss_name(loss));
        let scores = self.tables[4].column(&header).ok()?;
        Some(scores.last()? - scores.first()?)
    }
}

/// What the paper calls an annotator.
fn printed_name(annotator: &str) -> Option<&'static str> {
    match annotator {
        "human" => Some("Human"),
        "gpt-4-turbo" => Some("GPT4-Turbo"),
        _ => None,
    }
}

/// What a straight line through `scores` at `levels` gains over their range.
fn gain(levels: &[f64], scores: &[f64]) -> f64 {
    crate::contrast::trend_weights(levels).iter().zip(scores).map(|(weight, score)| weight * score).sum()
}
