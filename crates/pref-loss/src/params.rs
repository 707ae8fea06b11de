//! The parameters of the losses, checked where they are made.

use serde::{Deserialize, Serialize};

use crate::PrefLossError;

/// The strength β of the pull towards the reference model: finite and above 0.
///
/// Deserialising goes through [`Beta::new`].
///
/// ```
/// use pref_loss::Beta;
///
/// assert_eq!(Beta::new(0.1)?.get(), 0.1);
/// assert!(Beta::new(0.0).is_err());
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Beta(f64);

impl Beta {
    /// The value that the DPO paper and most trainers start from, 0.1.
    pub const DEFAULT: Self = Self(0.1);

    /// # Errors
    /// [`PrefLossError::Beta`] if `value` is not finite or not above 0.
    pub fn new(value: f64) -> Result<Self, PrefLossError> {
        if value.is_finite() && value > 0.0 { Ok(Self(value)) } else { Err(PrefLossError::Beta { value }) }
    }

    /// The number itself.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Beta {
    type Error = PrefLossError;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<Beta> for f64 {
    fn from(beta: Beta) -> Self {
        beta.0
    }
}

/// The probability ε, in \[0, 1\], that cDPO gives to a label being the wrong way round.
///
/// Below ½ the loss follows the labels, above ½ it follows their opposites, and at ½ it only holds the policy to the
/// reference; [`is_degenerate`](Self::is_degenerate) tells. Deserialising goes through [`LabelSmoothing::new`].
///
/// ```
/// use pref_loss::LabelSmoothing;
///
/// assert!(!LabelSmoothing::new(0.1)?.is_degenerate());
/// assert!(LabelSmoothing::new(0.5)?.is_degenerate());
/// assert!(LabelSmoothing::new(1.5).is_err());
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct LabelSmoothing(f64);

impl LabelSmoothing {
    /// Every label is believed: cDPO is then DPO.
    pub const ZERO: Self = Self(0.0);

    /// # Errors
    /// [`PrefLossError::LabelSmoothing`] if `value` is outside \[0, 1\] or not a number.
    pub fn new(value: f64) -> Result<Self, PrefLossError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(PrefLossError::LabelSmoothing { value })
        }
    }

    /// The number itself.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether ε ≥ ½, so that the loss no longer rewards the labelled direction. Worth a warning, not an error: noise
    /// experiments ask for it on purpose.
    pub fn is_degenerate(self) -> bool {
        self.0 >= 0.5
    }
}

impl TryFrom<f64> for LabelSmoothing {
    type Error = PrefLossError;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<LabelSmoothing> for f64 {
    fn from(label_smoothing: LabelSmoothing) -> Self {
        label_smoothing.0
    }
}

/// How IPO brings a response's per-token log-ratios to one number.
///
/// Trainers disagree: the IPO paper's derivation and the first implementations sum, TRL has taken the mean since 0.7.11.
/// With the mean, the target 1/(2β) is in nats *per token*, hundreds of times further away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogpReduction {
    /// Add the tokens up.
    Sum,
    /// Divide the sum by the response's number of tokens.
    Mean,
}
