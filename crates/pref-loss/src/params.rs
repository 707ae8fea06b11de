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

    /// 1/(2β): the margin, in nats, that IPO draws every pair to.
    pub fn target_margin(self) -> f64 {
        0.5 / self.0
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

    /// The weights of −log σ(x) and −log σ(−x).
    pub(crate) fn weights(self) -> [f64; 2] {
        [1.0 - self.0, self.0]
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

/// A validated number with its serde form, `new` and `get`.
macro_rules! number {
    ($(#[$doc:meta])* $type:ident, $name:literal, $range:literal, $is_valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $type(f64);

        impl $type {
            /// # Errors
            /// [`PrefLossError::Parameter`] if `value` is out of range.
            pub fn new(value: f64) -> Result<Self, PrefLossError> {
                let is_valid: fn(f64) -> bool = $is_valid;
                if is_valid(value) {
                    Ok(Self(value))
                } else {
                    Err(PrefLossError::Parameter { name: $name, value, range: $range })
                }
            }

            /// The number itself.
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $type {
            type Error = PrefLossError;

            fn try_from(value: f64) -> Result<Self, Self::Error> {
                Self::new(value)
            }
        }

        impl From<$type> for f64 {
            fn from(number: $type) -> Self {
                number.0
            }
        }
    };
}

number! {
    /// The share ε of labels that robust DPO takes to be flipped, in \[0, ½). From ½ on, labels say nothing or the
    /// opposite, and the loss, which divides by 1 − 2ε, does not exist.
    ///
    /// What the trainer believes, not what was done to the data: a study that flips a quarter of the labels may well
    /// train with 0.1.
    NoiseRate, "label_smoothing", "at least 0 and below 0.5", |value| (0.0..0.5).contains(&value)
}

number! {
    /// The probability ε, in (0, 1), that EXO's target gives to the rejected response. With 0 or 1 the divergence from
    /// the target is infinite.
    TargetSmoothing, "label_smoothing", "above 0 and below 1, such as 0.001", |value| value > 0.0 && value < 1.0
}

number! {
    /// The margin γ that SimPO wants between the rewards: finite, at least 0, in the rewards' units (β times nats per
    /// token). SimPO's authors report γ/β, most often 0.3 to 1.6.
    TargetMargin, "gamma", "finite and at least 0", |value| value.is_finite() && value >= 0.0
}

number! {
    /// How much a term weighs: finite and at least 0.
    Weight, "weight", "finite and at least 0", |value| value.is_finite() && value >= 0.0
}

number! {
    /// The temperature τ at which DiscoPOP goes over from one loss to the other: finite and above 0. The authors found
    /// 0.05.
    Temperature, "temperature", "finite and above 0 (0.05 is usual)", |value| value.is_finite() && value > 0.0
}

impl Weight {
    /// As much as anything else.
    pub const ONE: Self = Self(1.0);
}

impl NoiseRate {
    /// The weights of −log σ(x) and −log σ(−x), which undo what flipping this share of labels does to them.
    pub(crate) fn weights(self) -> [f64; 2] {
        let scale = 1.0 / (1.0 - 2.0 * self.0);
        [(1.0 - self.0) * scale, -self.0 * scale]
    }
}

impl TargetSmoothing {
    /// log(1−ε) and log ε.
    pub(crate) fn logs(self) -> [f64; 2] {
        [(-self.0).ln_1p(), self.0.ln()]
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
