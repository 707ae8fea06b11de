//! The losses of recipes by name.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, de};

/// The training loss, under the name that `pref_loss` gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Cross entropy of the chosen responses, without a reference.
    Sft,
    /// Direct preference optimization.
    #[default]
    Dpo,
    /// Conservative DPO, with label smoothing.
    Cdpo,
    /// Identity preference optimization.
    Ipo,
    /// Robust DPO, unbiased if a known share of the labels is flipped.
    Robust,
    /// The hinge loss of SLiC.
    Hinge,
    /// Kahneman–Tversky optimization: each response on its own, good or bad.
    Kto,
    /// SimPO: mean log-probabilities with a target margin, without a reference.
    Simpo,
    /// ORPO: cross entropy with an odds ratio, without a reference.
    Orpo,
    /// Contrastive preference optimization, without a reference.
    Cpo,
    /// DPO-positive: DPO with a penalty if the chosen response becomes less likely than under the reference.
    Dpop,
    /// DPO on means over tokens.
    SigmoidNorm,
    /// EXO: cDPO with the KL divergence reversed.
    ExoPair,
    /// NCA: each response compared with the reference on its own.
    NcaPair,
    /// Binary classifier optimization.
    BcoPair,
    /// SPPO with hard probabilities: regression of both log-ratios.
    SppoHard,
    /// APO-zero, for chosen responses that are better than the policy's own.
    ApoZero,
    /// APO-down, for chosen responses that are worse than the policy's own.
    ApoDown,
    /// DiscoPOP, a mixture of the logistic and the exponential loss.
    Discopop,
    /// f-DPO: DPO with another divergence than the reverse KL.
    FDpo,
    /// AOT on pairs: cDPO between the sorted margins of policy and reference over the whole batch.
    Aot,
    /// AOT on unpaired responses: cDPO between the sorted log-ratios of chosen and rejected responses over the batch.
    AotUnpaired,
    /// A weighted sum of losses.
    Sum,
}

impl LossKind {
    /// All losses.
    pub const ALL: [Self; 23] = [
        Self::Sft,
        Self::Dpo,
        Self::Cdpo,
        Self::Ipo,
        Self::Robust,
        Self::Hinge,
        Self::Kto,
        Self::Simpo,
        Self::Orpo,
        Self::Cpo,
        Self::Dpop,
        Self::SigmoidNorm,
        Self::ExoPair,
        Self::NcaPair,
        Self::BcoPair,
        Self::SppoHard,
        Self::ApoZero,
        Self::ApoDown,
        Self::Discopop,
        Self::FDpo,
        Self::Aot,
        Self::AotUnpaired,
        Self::Sum,
    ];

    /// The losses with `label_smoothing`.
    pub(super) const SMOOTHED: &[Self] =
        &[Self::Cdpo, Self::Robust, Self::ExoPair, Self::Cpo, Self::Aot, Self::AotUnpaired];

    const NAMES: [&'static str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::ALL[at].name();
            at += 1;
        }
        names
    };

    /// Returns its name in a recipe.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Dpo => "dpo",
            Self::Cdpo => "cdpo",
            Self::Ipo => "ipo",
            Self::Robust => "robust",
            Self::Hinge => "hinge",
            Self::Kto => "kto",
            Self::Simpo => "simpo",
            Self::Orpo => "orpo",
            Self::Cpo => "cpo",
            Self::Dpop => "dpop",
            Self::SigmoidNorm => "sigmoid_norm",
            Self::ExoPair => "exo_pair",
            Self::NcaPair => "nca_pair",
            Self::BcoPair => "bco_pair",
            Self::SppoHard => "sppo_hard",
            Self::ApoZero => "apo_zero",
            Self::ApoDown => "apo_down",
            Self::Discopop => "discopop",
            Self::FDpo => "f_dpo",
            Self::Aot => "aot",
            Self::AotUnpaired => "aot_unpaired",
            Self::Sum => "sum",
        }
    }

    /// Returns whether the loss depends on `label_smoothing`.
    pub fn smooths_labels(self) -> bool {
        Self::SMOOTHED.contains(&self)
    }

    /// Returns the symbol of the parameter that a study varies: β, or ORPO's λ.
    pub fn strength(self) -> &'static str {
        if self == Self::Orpo { "λ" } else { "β" }
    }
}

impl<'de> Deserialize<'de> for LossKind {
    /// Accepts the names of [`ALL`](Self::ALL), and TRL's `sigmoid` for DPO. TRL's other names are the same, or not those
    /// of one loss here.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        if name == "sigmoid" {
            tracing::info!(target: crate::context::ANNOUNCED, "the loss \"sigmoid\" of TRL is \"dpo\" here");
            return Ok(Self::Dpo);
        }
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| de::Error::unknown_variant(&name, &Self::NAMES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_serialization() {
        for kind in LossKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(serde_json::from_value::<LossKind>(kind.name().into()).unwrap(), kind);
        }
        assert_eq!(serde_json::from_value::<LossKind>("sigmoid".into()).unwrap(), LossKind::Dpo);
        assert!(serde_json::from_value::<LossKind>("sigmoids".into()).is_err());
    }
}
