//! The training loss of a recipe.

use pref_data::FlipRate;
use pref_loss::{
    Beta, Divergence, DynamicBeta, KtoLoss, LabelSmoothing, LdAlpha, LogpReduction, LossSum, LossTerm,
    NoiseRate, PreferenceLoss, TargetMargin, TargetSmoothing, Temperature, Weight,
};
use serde::{Deserialize, Serialize};

use super::error::require;
use super::loss_kind::LossKind;
use super::smoothing::Smoothing;
use super::{Complaint, Origin, RecipeError};
use crate::objective::Loss;
use crate::pairwise::PairwiseLoss;

/// The training loss. A key that the loss does not use is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossSection {
    /// The loss.
    pub kind: LossKind,
    /// Strength of the regularization toward the reference, above 0. Losses of means over tokens (`simpo`, `sigmoid_norm`)
    /// usually have 2 to 10. Of a `sum`, the default of its terms. Not for `orpo`.
    pub beta: Beta,
    /// Assumed probability of a wrong label, in [0, 1], or `"flip_rate"` for that of `data`; below 0.5 for `robust`, above 0
    /// for `exo_pair`. For `cdpo`, `robust`, `exo_pair`, `cpo`, `aot` and `aot_unpaired` only.
    pub label_smoothing: Smoothing,
    /// Whether log-probabilities are sums or means over tokens, for `ipo` only.
    pub logp_reduction: LogpReduction,
    /// Weight of the loss of desirable responses, at least 0. For `kto` only.
    #[serde(skip_serializing_if = "is_one")]
    pub desirable_weight: Weight,
    /// Weight of the loss of undesirable responses, at least 0. For `kto` only.
    #[serde(skip_serializing_if = "is_one")]
    pub undesirable_weight: Weight,
    /// Target margin of `simpo`, at least 0 [default: 0.5].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<TargetMargin>,
    /// Weight of the odds ratio in `orpo` [default: 0.1], or of the penalty in `dpop` [default: 50]; at least 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<Weight>,
    /// Temperature of `discopop`, above 0 [default: 0.05].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<Temperature>,
    /// Weight of the tokens beyond the shorter response's length, in [0, 1] (LD-DPO). For losses of sums over tokens only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ld_alpha: Option<LdAlpha>,
    /// Whether pairs are weighted by the probability of their responses under the policy (WPO). For losses of pairs only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wpo: bool,
    /// Divergence of `f_dpo`: `"reverse_kl"` (DPO itself), `"forward_kl"`, `"js"` or `{ alpha = 0.5 }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    /// One β per batch (β-DPO), for `dpo` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_beta: Option<DynamicBetaSection>,
    /// Terms of a `sum`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<LossTermSection>,
}

/// One β per batch: β rises with the batch's mean margin over its running mean (β-DPO).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DynamicBetaSection {
    /// Relative change of β per unit of the margin β₀h, at least 0.
    pub alpha: f64,
    /// Momentum of the running mean, at least 0 and below 1.
    pub momentum: f64,
}

impl Default for DynamicBetaSection {
    fn default() -> Self {
        Self { alpha: 0.6, momentum: 0.9 }
    }
}

/// One loss of a `sum`, with the keys of its kind. RPO is `dpo` and `sft` with a weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossTermSection {
    /// The loss: any but `kto` and `sum`. `sft` is a mean per response here, so that long ones weigh no more.
    pub kind: LossKind,
    /// Weight of the term, at least 0.
    #[serde(default = "one")]
    pub weight: Weight,
    /// β of the term [default: `loss.beta`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<Beta>,
    /// As `loss.label_smoothing`.
    #[serde(default = "zero", skip_serializing_if = "is_zero")]
    pub label_smoothing: Smoothing,
    /// As `loss.logp_reduction` [default: `"sum"`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logp_reduction: Option<LogpReduction>,
    /// As `loss.gamma`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gamma: Option<TargetMargin>,
    /// As `loss.lambda`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lambda: Option<Weight>,
    /// As `loss.temperature`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<Temperature>,
    /// As `loss.divergence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
}

impl Default for LossSection {
    fn default() -> Self {
        Self {
            kind: LossKind::Dpo,
            beta: Beta::DEFAULT,
            label_smoothing: Smoothing::ZERO,
            logp_reduction: LogpReduction::Sum,
            desirable_weight: Weight::ONE,
            undesirable_weight: Weight::ONE,
            gamma: None,
            lambda: None,
            temperature: None,
            ld_alpha: None,
            wpo: false,
            divergence: None,
            dynamic_beta: None,
            terms: Vec::new(),
        }
    }
}

/// SimPO's γ in TRL.
const GAMMA: f64 = 0.5;
/// λ of ORPO in TRL and in the paper's experiments on UltraFeedback.
const ORPO_LAMBDA: f64 = 0.1;
/// λ of DPO-positive in the paper's experiments.
const DPOP_LAMBDA: f64 = 50.0;
/// τ of DiscoPOP in the paper and in TRL.
const TEMPERATURE: f64 = 0.05;
/// A label smoothing that is valid for every loss.
const ANY_SMOOTHING: f64 = 0.1;

impl LossSection {
    /// Replaces the rule `"flip_rate"` by the number of the data; `None` if its sources have different ones.
    ///
    /// # Errors
    /// A [`Complaint`] if there is no such number, or if the loss is not defined for it.
    pub fn resolve(&mut self, flip_rate: Option<FlipRate>) -> Result<(), Complaint> {
        let terms = self.terms.iter_mut().map(|term| &mut term.label_smoothing);
        let smoothings = [&mut self.label_smoothing].into_iter().chain(terms);
        let rules: Vec<&mut Smoothing> =
            smoothings.filter(|smoothing| **smoothing == Smoothing::FlipRate).collect();
        if rules.is_empty() {
            return Ok(());
        }
        let Some(flip_rate) = flip_rate else {
            let reason = "is the rule \"flip_rate\", but the sources have different ones; set a number";
            return Err(Complaint::invalid("label_smoothing", reason));
        };
        for smoothing in rules {
            *smoothing = Smoothing::Fixed(smoothing.at(flip_rate));
        }
        self.check()
    }

    /// Returns the section of one loss of a study: `kind` with this strength, and those of the other keys that it uses.
    /// The strength is β, or ORPO's λ.
    ///
    /// Unused keys keep their defaults, so that one DPO run serves studies that differ in cDPO's ε or IPO's reduction.
    #[must_use]
    pub fn of_kind(&self, kind: LossKind, strength: Beta) -> Self {
        let mut section = Self { kind, beta: strength, ..Self::default() };
        if kind == LossKind::Orpo {
            section.beta = Beta::DEFAULT;
            section.lambda = Weight::new(strength.get()).ok();
        }
        for parameter in &PARAMETERS {
            if parameter.kinds.contains(&kind) && (parameter.key, kind) != ("lambda", LossKind::Orpo) {
                (parameter.copy)(&mut section, self);
            }
        }
        let adjusted = Self { ld_alpha: self.ld_alpha, ..section.clone() };
        if adjusted.check_adjustments().is_ok() {
            section = adjusted;
        }
        let adjusted = Self { wpo: self.wpo, ..section.clone() };
        if adjusted.check_adjustments().is_ok() { adjusted } else { section }
    }

    /// Returns the strength that a study varies: β, or ORPO's λ.
    pub fn strength(&self) -> Beta {
        let lambda = self.lambda.filter(|_| self.kind == LossKind::Orpo);
        lambda.and_then(|lambda| Beta::new(lambda.get()).ok()).unwrap_or(self.beta)
    }

    /// Returns whether the loss compares the policy with a reference. Others load none.
    pub fn needs_reference(&self) -> bool {
        let reads = |kind: LossKind| {
            use LossKind::{Cpo, Orpo, Sft, Simpo};
            !matches!(kind, Sft | Simpo | Orpo | Cpo)
        };
        match self.kind {
            LossKind::Sum => self.terms.iter().any(|term| reads(term.kind)),
            kind => reads(kind),
        }
    }

    /// Returns the loss, or `None` for supervised training.
    ///
    /// # Errors
    /// [`RecipeError::Invalid`] for a parameter that is out of range or does not apply to the loss.
    pub fn build(&self) -> Result<Option<Loss>, RecipeError> {
        let at = |complaint: Complaint| complaint.within("loss").at(Origin::Code);
        self.check().map_err(at)?;
        let mut smoothings =
            [self.label_smoothing].into_iter().chain(self.terms.iter().map(|term| term.label_smoothing));
        let is_resolved = !smoothings.any(|smoothing| smoothing == Smoothing::FlipRate);
        require(is_resolved, "label_smoothing", "is \"flip_rate\" without data; resolve it first")
            .map_err(at)?;
        Ok(match self.kind {
            LossKind::Sft => None,
            LossKind::Kto => {
                let (desirable, undesirable) = (self.desirable_weight, self.undesirable_weight);
                Some(Loss::Kto(KtoLoss { beta: self.beta, desirable, undesirable }))
            }
            _ => Some(Loss::Pair(self.pairwise().map_err(at)?)),
        })
    }

    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self) -> Result<(), Complaint> {
        for Parameter { key, kinds, is_given, .. } in &PARAMETERS {
            require(!is_given(self) || kinds.contains(&self.kind), key, only_for(key, kinds))?;
        }
        let is_unused = self.kind == LossKind::Orpo && self.beta != Beta::DEFAULT;
        require(
            !is_unused,
            "beta",
            "does not apply to loss.kind = \"orpo\"; set loss.lambda, which TRL calls beta",
        )?;
        let learns = self.desirable_weight.get() > 0.0 || self.undesirable_weight.get() > 0.0;
        require(learns, "desirable_weight", "is 0, as loss.undesirable_weight; set one of them above 0")?;
        match self.kind {
            LossKind::Sft | LossKind::Kto => self.check_adjustments(),
            _ => self.pairwise().and_then(|_| self.check_adjustments()),
        }
    }

    /// Checks the keys that change any loss of pairs.
    fn check_adjustments(&self) -> Result<(), Complaint> {
        let kinds = || match self.kind {
            LossKind::Sum => self.terms.iter().map(|term| (term.kind, term.logp_reduction)).collect(),
            kind => vec![(kind, Some(self.logp_reduction))],
        };
        let compares_sums = |(kind, reduction): (LossKind, Option<LogpReduction>)| {
            use LossKind::{Kto, Orpo, Sft, SigmoidNorm, Simpo};
            !matches!(kind, Kto | Orpo | Sft | SigmoidNorm | Simpo) && reduction != Some(LogpReduction::Mean)
        };
        require(
            self.ld_alpha.is_none() || kinds().into_iter().all(compares_sums),
            "ld_alpha",
            "applies only to losses that compare sums over tokens, such as \"dpo\"; choose one of them or remove the key",
        )?;
        let is_per_pair = |(kind, _): (LossKind, _)| {
            use LossKind::{Aot, AotUnpaired, Kto, Sft};
            self.kind == LossKind::Sum && kind == Sft || !matches!(kind, Aot | AotUnpaired | Kto | Sft)
        };
        require(
            !self.wpo || self.dynamic_beta.is_none() && kinds().into_iter().all(is_per_pair),
            "wpo",
            "applies only to losses of one pair, such as \"dpo\" without loss.dynamic_beta; choose one of them or remove \
             the key",
        )
    }

    /// Returns the loss of pairs.
    fn pairwise(&self) -> Result<PairwiseLoss, Complaint> {
        let sum = match self.kind {
            LossKind::Sum => LossSum { terms: self.sum_terms()? },
            _ => LossSum { terms: vec![LossTerm { weight: Weight::ONE, loss: self.pair_loss()? }] },
        };
        let dynamic_beta = self.dynamic_beta.map(|section| section.build(self.beta)).transpose()?;
        Ok(PairwiseLoss { sum, ld_alpha: self.ld_alpha, wpo: self.wpo, dynamic_beta })
    }

    fn sum_terms(&self) -> Result<Vec<LossTerm>, Complaint> {
        require(
            !self.terms.is_empty(),
            "terms",
            "are missing; list the losses of the sum as [[loss.terms]], each with kind and weight",
        )?;
        let learns = self.terms.iter().any(|term| term.weight.get() > 0.0);
        require(learns, "terms", "have the weight 0; set one of them above 0")?;
        let term = |(at, term): (usize, &LossTermSection)| {
            let of_term = |complaint: Complaint| {
                Complaint::invalid("terms", format!("(number {}): {}", at + 1, complaint.in_words()))
            };
            Ok(LossTerm { weight: term.weight, loss: term.build(self.beta).map_err(of_term)? })
        };
        self.terms.iter().enumerate().map(term).collect()
    }

    /// Returns the loss of a kind that compares the responses of a pair.
    fn pair_loss(&self) -> Result<PreferenceLoss, Complaint> {
        use PreferenceLoss as L;
        let beta = self.beta;
        // The number of a rule is checked when it is known.
        let label_smoothing =
            self.label_smoothing.fixed().unwrap_or_else(|| usual(LabelSmoothing::new(ANY_SMOOTHING)));
        Ok(match self.kind {
            LossKind::Dpo => L::Dpo { beta },
            LossKind::Cdpo => L::Cdpo { beta, label_smoothing },
            LossKind::Robust => L::Robust { beta, label_smoothing: noise_rate(label_smoothing)? },
            LossKind::Ipo => L::Ipo { beta, reduction: self.logp_reduction },
            LossKind::Hinge => L::Hinge { beta },
            LossKind::Simpo => {
                L::Simpo { beta, gamma: self.gamma.unwrap_or_else(|| usual(TargetMargin::new(GAMMA))) }
            }
            LossKind::Orpo => {
                L::Orpo { lambda: self.lambda.unwrap_or_else(|| usual(Weight::new(ORPO_LAMBDA))) }
            }
            LossKind::Dpop => {
                L::Dpop { beta, lambda: self.lambda.unwrap_or_else(|| usual(Weight::new(DPOP_LAMBDA))) }
            }
            LossKind::Sft => L::Sft,
            LossKind::SigmoidNorm => L::SigmoidNorm { beta },
            LossKind::ExoPair => L::ExoPair { beta, label_smoothing: target_smoothing(label_smoothing)? },
            LossKind::NcaPair => L::NcaPair { beta },
            LossKind::BcoPair => L::BcoPair { beta },
            LossKind::SppoHard => L::SppoHard { beta },
            LossKind::ApoZero => L::ApoZero { beta },
            LossKind::ApoDown => L::ApoDown { beta },
            LossKind::Discopop => {
                let temperature = self.temperature.unwrap_or_else(|| usual(Temperature::new(TEMPERATURE)));
                L::Discopop { beta, temperature }
            }
            LossKind::Cpo => L::Cpo { beta, label_smoothing },
            LossKind::FDpo => L::FDpo { beta, divergence: self.divergence.ok_or_else(no_divergence)? },
            LossKind::Aot => L::Aot { beta, label_smoothing },
            LossKind::AotUnpaired => L::AotUnpaired { beta, label_smoothing },
            LossKind::Kto | LossKind::Sum => {
                let reason = format!(
                    "\"{}\" is no loss of a sum; choose a loss of pairs or \"sft\"",
                    self.kind.name()
                );
                return Err(Complaint::invalid("kind", reason));
            }
        })
    }
}

impl DynamicBetaSection {
    fn build(self, beta: Beta) -> Result<DynamicBeta, Complaint> {
        let refused = |key, value, range| {
            Complaint::invalid(key, format!("is {value:?}; it must be {range}")).within("dynamic_beta")
        };
        let alpha =
            Weight::new(self.alpha).map_err(|_| refused("alpha", self.alpha, "finite and at least 0"))?;
        DynamicBeta::new(beta, alpha, self.momentum)
            .map_err(|_| refused("momentum", self.momentum, "at least 0 and below 1"))
    }
}

impl LossTermSection {
    /// Returns the loss; `beta` is the default of its β.
    fn build(&self, beta: Beta) -> Result<PreferenceLoss, Complaint> {
        let has_no_beta = matches!(self.kind, LossKind::Sft | LossKind::Orpo);
        let name = self.kind.name();
        require(
            !(has_no_beta && self.beta.is_some()),
            "beta",
            format!("does not apply to kind = \"{name}\"; remove the key"),
        )?;
        let section = LossSection {
            kind: self.kind,
            beta: if has_no_beta { Beta::DEFAULT } else { self.beta.unwrap_or(beta) },
            label_smoothing: self.label_smoothing,
            logp_reduction: self.logp_reduction.unwrap_or(LogpReduction::Sum),
            gamma: self.gamma,
            lambda: self.lambda,
            temperature: self.temperature,
            divergence: self.divergence,
            ..LossSection::default()
        };
        let loss = section.pair_loss()?;
        section.check()?;
        Ok(loss)
    }
}

/// A key that only some losses use.
struct Parameter {
    key: &'static str,
    kinds: &'static [LossKind],
    /// Whether it differs from its default.
    is_given: fn(&LossSection) -> bool,
    /// Copies it into the first section.
    copy: fn(&mut LossSection, &LossSection),
}

const PARAMETERS: [Parameter; 10] = [
    Parameter {
        key: "label_smoothing",
        kinds: LossKind::SMOOTHED,
        is_given: |loss| loss.label_smoothing != Smoothing::ZERO,
        copy: |to, from| to.label_smoothing = from.label_smoothing,
    },
    Parameter {
        key: "logp_reduction",
        kinds: &[LossKind::Ipo],
        is_given: |loss| loss.logp_reduction != LogpReduction::Sum,
        copy: |to, from| to.logp_reduction = from.logp_reduction,
    },
    Parameter {
        key: "desirable_weight",
        kinds: &[LossKind::Kto],
        is_given: |loss| loss.desirable_weight != Weight::ONE,
        copy: |to, from| to.desirable_weight = from.desirable_weight,
    },
    Parameter {
        key: "undesirable_weight",
        kinds: &[LossKind::Kto],
        is_given: |loss| loss.undesirable_weight != Weight::ONE,
        copy: |to, from| to.undesirable_weight = from.undesirable_weight,
    },
    Parameter {
        key: "gamma",
        kinds: &[LossKind::Simpo],
        is_given: |loss| loss.gamma.is_some(),
        copy: |to, from| to.gamma = from.gamma,
    },
    Parameter {
        key: "lambda",
        kinds: &[LossKind::Orpo, LossKind::Dpop],
        is_given: |loss| loss.lambda.is_some(),
        copy: |to, from| to.lambda = from.lambda,
    },
    Parameter {
        key: "temperature",
        kinds: &[LossKind::Discopop],
        is_given: |loss| loss.temperature.is_some(),
        copy: |to, from| to.temperature = from.temperature,
    },
    Parameter {
        key: "divergence",
        kinds: &[LossKind::FDpo],
        is_given: |loss| loss.divergence.is_some(),
        copy: |to, from| to.divergence = from.divergence,
    },
    Parameter {
        key: "dynamic_beta",
        kinds: &[LossKind::Dpo],
        is_given: |loss| loss.dynamic_beta.is_some(),
        copy: |to, from| to.dynamic_beta = from.dynamic_beta,
    },
    Parameter {
        key: "terms",
        kinds: &[LossKind::Sum],
        is_given: |loss| !loss.terms.is_empty(),
        copy: |to, from| to.terms.clone_from(&from.terms),
    },
];

/// Returns why a key is an error with other losses than `kinds`.
fn only_for(key: &str, kinds: &[LossKind]) -> String {
    let names: Vec<String> = kinds.iter().map(|kind| format!("\"{}\"", kind.name())).collect();
    let (list, choose) = match names.split_last() {
        Some((last, others)) if !others.is_empty() => {
            (format!("{} or {last}", others.join(", ")), "one of them")
        }
        _ => (names.concat(), "that"),
    };
    let prefix = if key == "logp_reduction" { "is \"mean\", which " } else { "" };
    format!("{prefix}applies only to loss.kind = {list}; choose {choose} or remove the key")
}

fn noise_rate(smoothing: LabelSmoothing) -> Result<NoiseRate, Complaint> {
    let reason = "must be below 0.5 for loss.kind = \"robust\", which divides by 1 - 2 label_smoothing";
    NoiseRate::new(smoothing.get()).map_err(|_| Complaint::invalid("label_smoothing", reason))
}

fn target_smoothing(smoothing: LabelSmoothing) -> Result<TargetSmoothing, Complaint> {
    let reason = "must be above 0 and below 1 for loss.kind = \"exo_pair\", such as 0.001";
    TargetSmoothing::new(smoothing.get()).map_err(|_| Complaint::invalid("label_smoothing", reason))
}

fn no_divergence() -> Complaint {
    let reason = "is missing for loss.kind = \"f_dpo\"; set it to \"forward_kl\", \"js\" or { alpha = 0.5 }";
    Complaint::invalid("divergence", reason)
}

/// Returns a default, which is valid.
fn usual<T>(parameter: Result<T, pref_loss::PrefLossError>) -> T {
    parameter.expect("defaults are valid")
}

fn one() -> Weight {
    Weight::ONE
}

fn zero() -> Smoothing {
    Smoothing::ZERO
}

fn is_one(weight: &Weight) -> bool {
    *weight == Weight::ONE
}

fn is_zero(smoothing: &Smoothing) -> bool {
    *smoothing == Smoothing::ZERO
}

#[cfg(test)]
mod tests;
