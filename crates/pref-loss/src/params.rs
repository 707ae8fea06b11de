//! The parameters of the losses, validated on construction.

use serde::{Deserialize, Serialize};

use crate::PrefLossError;

/// The strength β of the regularization towards the reference model: finite and above 0.
///
/// Deserialization goes through [`Beta::new`].
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
    /// The default of the DPO paper and of most trainers, 0.1.
    pub const DEFAULT: Self = Self(0.1);

    /// Validates `value`.
    ///
    /// # Errors
    /// [`PrefLossError::Beta`] if `value` is not finite or not above 0.
    pub fn new(value: f64) -> Result<Self, PrefLossError> {
        if value.is_finite() && value > 0.0 { Ok(Self(value)) } else { Err(PrefLossError::Beta { value }) }
    }

    /// Returns the number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Returns 1/(2β): IPO's target margin in nats.
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

/// The probability ε, in \[0, 1\], that cDPO assigns to a label being flipped.
///
/// Below ½ the loss follows the labels and above ½ the flipped labels. At ½ it only regularizes towards the
/// reference. [`is_degenerate`](Self::is_degenerate) detects ε ≥ ½. Deserialization goes through
/// [`LabelSmoothing::new`].
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
    /// No smoothing: cDPO is then DPO.
    pub const ZERO: Self = Self(0.0);

    /// Validates `value`.
    ///
    /// # Errors
    /// [`PrefLossError::LabelSmoothing`] if `value` is outside \[0, 1\] or not a number.
    pub fn new(value: f64) -> Result<Self, PrefLossError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(PrefLossError::LabelSmoothing { value })
        }
    }

    /// Returns the number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Returns whether ε ≥ ½, so that the loss no longer follows the labels. Callers should warn and continue: noise
    /// experiments use such values on purpose.
    pub fn is_degenerate(self) -> bool {
        self.0 >= 0.5
    }

    /// Returns the weights of −log σ(x) and −log σ(−x).
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
            /// Validates `value`.
            ///
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

            /// Returns the number.
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
    /// The fraction ε of labels that robust DPO assumes to be flipped, in \[0, ½). The loss divides by 1 − 2ε and is
    /// undefined from ½ on.
    ///
    /// It is the trainer's assumption, independent of the noise in the data: a study that flips a quarter of the
    /// labels may train with 0.1.
    ///
    /// ```
    /// use pref_loss::NoiseRate;
    ///
    /// assert_eq!(NoiseRate::new(0.25)?.get(), 0.25);
    /// assert!(NoiseRate::new(0.5).is_err());
    /// # Ok::<(), pref_loss::PrefLossError>(())
    /// ```
    NoiseRate, "label_smoothing", "at least 0 and below 0.5", |value| (0.0..0.5).contains(&value)
}

number! {
    /// The probability ε, in (0, 1), that EXO's target assigns to the rejected response. At 0 and 1 the KL divergence
    /// is infinite.
    ///
    /// ```
    /// use pref_loss::TargetSmoothing;
    ///
    /// assert_eq!(TargetSmoothing::new(0.001)?.get(), 0.001);
    /// assert!(TargetSmoothing::new(0.0).is_err());
    /// # Ok::<(), pref_loss::PrefLossError>(())
    /// ```
    TargetSmoothing, "label_smoothing", "above 0 and below 1, such as 0.001", |value| value > 0.0 && value < 1.0
}

number! {
    /// SimPO's target margin γ between the rewards: finite, at least 0, in units of β times nats per token. SimPO's
    /// authors report γ/β, most often 0.3 to 1.6.
    ///
    /// ```
    /// use pref_loss::TargetMargin;
    ///
    /// assert_eq!(TargetMargin::new(1.0)?.get(), 1.0);
    /// assert!(TargetMargin::new(-1.0).is_err());
    /// # Ok::<(), pref_loss::PrefLossError>(())
    /// ```
    TargetMargin, "gamma", "finite and at least 0", |value| value.is_finite() && value >= 0.0
}

number! {
    /// The weight of a term: finite and at least 0.
    ///
    /// ```
    /// use pref_loss::Weight;
    ///
    /// assert_eq!(Weight::new(0.5)?.get(), 0.5);
    /// assert!(Weight::new(-0.5).is_err());
    /// # Ok::<(), pref_loss::PrefLossError>(())
    /// ```
    Weight, "weight", "finite and at least 0", |value| value.is_finite() && value >= 0.0
}

number! {
    /// DiscoPOP's temperature τ: finite and above 0. The authors use 0.05.
    ///
    /// ```
    /// use pref_loss::Temperature;
    ///
    /// assert_eq!(Temperature::new(0.05)?.get(), 0.05);
    /// assert!(Temperature::new(0.0).is_err());
    /// # Ok::<(), pref_loss::PrefLossError>(())
    /// ```
    Temperature, "temperature", "finite and above 0 (0.05 is usual)", |value| value.is_finite() && value > 0.0
}

impl Weight {
    /// A weight of 1.
    pub const ONE: Self = Self(1.0);
}

impl NoiseRate {
    /// Returns the weights of −log σ(x) and −log σ(−x) that make the loss unbiased under this flip rate.
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

/// Reduction of a response's per-token log-ratios to one number.
///
/// Trainers disagree: the IPO paper and the first implementations sum, TRL takes the mean since 0.7.11. With the
/// mean, the target 1/(2β) is in nats *per token*, which is hundreds of times larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogpReduction {
    /// Sum over tokens.
    Sum,
    /// Mean over tokens.
    Mean,
}
