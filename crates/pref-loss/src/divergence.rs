//! The divergences of f-DPO.

use serde::{Deserialize, Serialize};

use crate::{Float, PrefLossError};

/// The divergence between policy and reference in f-DPO (Wang et al. 2023, arXiv:2309.16240, Theorem 1).
///
/// With u = `π/π_ref` the reward is β f′(u) up to a constant of the prompt. The loss therefore compares g(log u) =
/// f′(u) without its constants.
///
/// ```
/// use pref_loss::{AlphaCoefficient, Beta, Divergence, PreferenceLoss};
///
/// let beta = Beta::new(0.1)?;
/// let at = |divergence| PreferenceLoss::FDpo { beta, divergence }.at(3.0_f64, -2.0);
/// assert_eq!(at(Divergence::ReverseKl), PreferenceLoss::Dpo { beta }.at(3.0, -2.0));
/// assert_eq!(at(Divergence::Alpha(AlphaCoefficient::new(0.0)?)), at(Divergence::ForwardKl));
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// f′(u) = log u + 1: DPO itself.
    ReverseKl,
    /// f′(u) = −1/u.
    ForwardKl,
    /// Jensen–Shannon, f′(u) = log(2u/(1+u)).
    Js,
    /// α-divergence, f′(u) = (u^(α−1) − 1)/(α−1), in TRL's notation (`f_alpha_divergence_coef`). The paper's α is 1
    /// minus this one. α = 1 is the reverse KL, α = 0 the forward KL.
    Alpha(AlphaCoefficient),
}

/// α of the α-divergence: finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct AlphaCoefficient(f64);

impl AlphaCoefficient {
    /// Validates `value`.
    ///
    /// # Errors
    /// [`PrefLossError::Parameter`] if `value` is not finite.
    pub fn new(value: f64) -> Result<Self, PrefLossError> {
        if value.is_finite() {
            Ok(Self(value))
        } else {
            Err(PrefLossError::Parameter { name: "alpha", value, range: "a finite number, such as 0.5" })
        }
    }

    /// Returns the number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for AlphaCoefficient {
    type Error = PrefLossError;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<AlphaCoefficient> for f64 {
    fn from(alpha: AlphaCoefficient) -> Self {
        alpha.0
    }
}

/// Upper bound of exponents, so that eˣ is finite in f32. Beyond it the slope is 0, as with TRL's clamp.
pub(crate) const LARGEST_EXPONENT: f64 = 80.0;

impl Divergence {
    /// Returns the exponent α − 1 if f′ is a power.
    pub(crate) fn power(self) -> Option<f64> {
        match self {
            Self::ReverseKl | Self::Js => None,
            Self::ForwardKl => Some(-1.0),
            // As in TRL, α within 1e-6 of 1 counts as 1.
            Self::Alpha(alpha) => Some(alpha.get() - 1.0).filter(|power| power.abs() >= 1e-6),
        }
    }

    /// Computes g and dg/dx at the log-ratio x.
    #[inline(always)]
    pub(crate) fn score<F: Float>(self, log_ratio: F) -> [F; 2] {
        match (self, self.power()) {
            (_, Some(power)) => {
                let largest = F::of(LARGEST_EXPONENT);
                let exponent = F::of(power) * log_ratio;
                let is_capped = exponent > largest;
                let exponent = if is_capped { largest } else { exponent };
                let slope = if is_capped { F::of(0.0) } else { exponent.exp() };
                [exponent.exp_m1() / F::of(power), slope]
            }
            (Self::Js, None) => {
                let s = log_ratio.logistic();
                [-s.minus_log_p, s.q]
            }
            (_, None) => [log_ratio, F::of(1.0)],
        }
    }
}
