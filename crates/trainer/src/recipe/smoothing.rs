//! The label smoothing of a recipe: a number, or a rule.

use std::fmt;

use pref_data::FlipRate;
use pref_loss::LabelSmoothing;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const FLIP_RATE: &str = "flip_rate";

/// The label smoothing ε of cDPO and robust DPO.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Smoothing {
    /// This number.
    Fixed(LabelSmoothing),
    /// The share of flipped labels, `data.flip_rate`: the true probability of a wrong label, if all others are right.
    FlipRate,
}

impl Smoothing {
    /// No smoothing.
    pub const ZERO: Self = Self::Fixed(LabelSmoothing::ZERO);

    /// Returns the number for data with this share of flipped labels.
    pub fn at(self, flip_rate: FlipRate) -> LabelSmoothing {
        match self {
            Self::Fixed(smoothing) => smoothing,
            Self::FlipRate => LabelSmoothing::new(flip_rate.get()).expect("a flip rate is in [0, 1], too"),
        }
    }

    /// Returns the number; `None` for a rule.
    pub fn fixed(self) -> Option<LabelSmoothing> {
        match self {
            Self::Fixed(smoothing) => Some(smoothing),
            Self::FlipRate => None,
        }
    }
}

impl fmt::Display for Smoothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(smoothing) => write!(f, "{}", smoothing.get()),
            Self::FlipRate => f.write_str("the flip rate"),
        }
    }
}

impl Serialize for Smoothing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(smoothing) => smoothing.serialize(serializer),
            Self::FlipRate => serializer.serialize_str(FLIP_RATE),
        }
    }
}

impl<'de> Deserialize<'de> for Smoothing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Given)
    }
}

struct Given;

impl Visitor<'_> for Given {
    type Value = Smoothing;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number from 0 to 1, or \"flip_rate\"")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Smoothing, E> {
        LabelSmoothing::new(value).map(Smoothing::Fixed).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Smoothing, E> {
        // Only 0 and 1 are in range, so that any other number fails, rounded or not.
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Smoothing, E> {
        self.visit_f64(value as f64)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Smoothing, E> {
        match value {
            FLIP_RATE => Ok(Smoothing::FlipRate),
            _ => Err(E::invalid_value(Unexpected::Str(value), &self)),
        }
    }
}
