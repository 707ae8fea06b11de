//! Label noise: labels swapped on purpose, with a log.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use seeds::Seeds;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::order::{marked, permutation, share, weighted_order};
use crate::record::{Pair, Text};

/// The share of labels that noise swaps, in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct FlipRate(f64);

impl FlipRate {
    /// No noise.
    pub const NONE: Self = Self(0.0);

    /// Creates a rate.
    ///
    /// # Errors
    ///
    /// [`DataError::OutOfRange`] outside [0, 1].
    pub fn new(value: f64) -> Result<Self, DataError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(DataError::OutOfRange { name: "flip_rate", value, range: "[0, 1]" })
        }
    }

    /// Returns the share.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for FlipRate {
    type Error = DataError;

    fn try_from(value: f64) -> Result<Self, DataError> {
        Self::new(value)
    }
}

impl From<FlipRate> for f64 {
    fn from(rate: FlipRate) -> Self {
        rate.0
    }
}

/// How noise selects pairs. Each model takes a prefix of an order of the pairs, so noise is nested: with the same seeds
/// and pairs, a higher rate takes all that a lower rate takes. All draw from the stream `flip-noise`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum NoiseModel {
    /// Each pair with the same probability.
    #[default]
    Uniform,
    /// Pairs with the odds of their annotator, 1 without one.
    ByAnnotator(BTreeMap<String, Odds>),
    /// Pairs with a longer rejected response more often, as if raters preferred length. With a and b characters in the
    /// rejected and the chosen response, the odds are exp(4 (a − b)/(a + b)).
    LengthBiased,
    /// Pairs on which the record's annotators disagree most, in random order among equals.
    AmbiguousFirst,
    /// The same pairs, dropped instead of swapped, to separate the effect of wrong labels from that of missing ones.
    TiesDropped,
}

/// The odds with which noise takes one pair before another, above 0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Odds(f64);

impl Odds {
    /// Creates odds.
    ///
    /// # Errors
    ///
    /// [`DataError::OutOfRange`] for a value that is not above 0 or not finite.
    pub fn new(value: f64) -> Result<Self, DataError> {
        if value > 0.0 && value.is_finite() {
            Ok(Self(value))
        } else {
            Err(DataError::OutOfRange { name: "odds", value, range: "(0, ∞)" })
        }
    }

    /// Returns the odds.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Odds {
    type Error = DataError;

    fn try_from(value: f64) -> Result<Self, DataError> {
        Self::new(value)
    }
}

impl From<Odds> for f64 {
    fn from(odds: Odds) -> Self {
        odds.0
    }
}

/// Noise: a selection of pairs and a rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// How pairs are selected.
    pub model: NoiseModel,
    /// The share of pairs: `round(rate * n)` of `n`.
    pub rate: FlipRate,
}

/// The effect of noise on each pair, in the pairs' order. The true label of a flipped pair is the opposite of its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoiseLog {
    /// One row for each pair.
    pub rows: Vec<NoiseRow>,
}

/// The effect of noise on one pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoiseRow {
    /// The pair's identifier.
    pub id: String,
    /// The annotator of the label.
    pub annotator: String,
    /// The effect.
    pub fate: Fate,
}

/// An effect of noise on a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// None.
    Kept,
    /// Chosen and rejected are swapped.
    Flipped,
    /// The pair is dropped.
    Dropped,
}

/// Applies `noise` to the pairs, and returns them with a log. Flipped pairs are marked `flipped`, so that a trainer can
/// report its accuracy on them separately.
///
/// ```
/// use pref_data::{Fate, FlipRate, Noise, NoiseModel, Pair, Text, Votes, corrupt};
/// use seeds::Seeds;
///
/// let text = |text: &str| Text::Plain(text.to_owned());
/// let pair = |id: &str, chosen: u32, rejected: u32| Pair {
///     id: id.to_owned(),
///     prompt: text("p"),
///     chosen: text("good"),
///     rejected: text("bad"),
///     domain: None,
///     context: Default::default(),
///     annotator: "human".to_owned(),
///     votes: Votes { chosen, rejected },
///     flipped: false,
/// };
/// let pairs = vec![pair("clear", 9, 0), pair("divided", 5, 4)];
/// let noise = Noise { model: NoiseModel::AmbiguousFirst, rate: FlipRate::new(0.5)? };
/// let (pairs, log) = corrupt(pairs, &noise, &Seeds::new(0));
/// assert_eq!((log.rows[0].fate, log.rows[1].fate), (Fate::Kept, Fate::Flipped));
/// assert_eq!(pairs[1].chosen, text("bad"));
/// # Ok::<(), pref_data::DataError>(())
/// ```
pub fn corrupt(mut pairs: Vec<Pair>, noise: &Noise, seeds: &Seeds) -> (Vec<Pair>, NoiseLog) {
    let count = share(noise.rate.get(), pairs.len());
    let taken = marked(&noise.model.order(&pairs, seeds), count);
    let fate = if noise.model == NoiseModel::TiesDropped { Fate::Dropped } else { Fate::Flipped };
    let rows = pairs.iter().zip(&taken).map(|(pair, &taken)| NoiseRow {
        id: pair.id.clone(),
        annotator: pair.annotator.clone(),
        fate: if taken { fate } else { Fate::Kept },
    });
    let log = NoiseLog { rows: rows.collect() };
    match fate {
        Fate::Dropped => {
            let kept = pairs.into_iter().zip(taken);
            pairs = kept.filter_map(|(pair, taken)| (!taken).then_some(pair)).collect();
        }
        Fate::Flipped | Fate::Kept => {
            for (pair, taken) in pairs.iter_mut().zip(taken) {
                if taken {
                    pair.flip();
                }
            }
        }
    }
    (pairs, log)
}

/// Swaps chosen and rejected in `round(rate * n)` random pairs and marks them `flipped`: [`NoiseModel::Uniform`] in place.
pub fn flip_labels(pairs: &mut [Pair], rate: FlipRate, seeds: &Seeds) {
    let order = NoiseModel::Uniform.order(pairs, seeds);
    for index in order.into_iter().take(share(rate.get(), pairs.len())) {
        pairs[index].flip();
    }
}

impl NoiseModel {
    /// Returns the order in which the pairs are taken.
    fn order(&self, pairs: &[Pair], seeds: &Seeds) -> Vec<usize> {
        let stream = seeds.stream("flip-noise");
        match self {
            Self::Uniform => permutation(pairs.len(), stream),
            Self::ByAnnotator(odds) => {
                let weight = |pair: &Pair| odds.get(&pair.annotator).map_or(1.0, |odds| odds.get());
                weighted_order(&pairs.iter().map(weight).collect::<Vec<_>>(), stream)
            }
            Self::LengthBiased => weighted_order(&pairs.iter().map(length_odds).collect::<Vec<_>>(), stream),
            Self::AmbiguousFirst | Self::TiesDropped => {
                let mut order = permutation(pairs.len(), stream);
                // A stable sort keeps the random order of equals.
                order.sort_by_key(|&index| Reverse(pairs[index].votes.division()));
                order
            }
        }
    }
}

/// Returns the odds of [`NoiseModel::LengthBiased`], from e⁻⁴ to e⁴.
fn length_odds(pair: &Pair) -> f64 {
    const STRENGTH: f64 = 4.0;
    let [chosen, rejected] = [&pair.chosen, &pair.rejected].map(|text| characters(text) as f64);
    let both = chosen + rejected;
    if both > 0.0 { (STRENGTH * (rejected - chosen) / both).exp() } else { 1.0 }
}

fn characters(text: &Text) -> usize {
    match text {
        Text::Plain(text) => text.chars().count(),
        Text::Chat(messages) => messages.iter().map(|message| message.content().chars().count()).sum(),
    }
}

impl NoiseLog {
    /// Returns the number of pairs with this effect.
    pub fn count(&self, fate: Fate) -> usize {
        self.rows.iter().filter(|row| row.fate == fate).count()
    }

    /// Writes the log as JSON lines, one pair a line: `{"id": "17", "annotator": "human", "fate": "flipped"}`. The write
    /// is atomic.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`] where writing fails.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), DataError> {
        let path = path.as_ref();
        files::json_lines::write(path, &self.rows).map_err(|source| DataError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        })
    }
}

impl fmt::Display for NoiseLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (flipped, dropped) = (self.count(Fate::Flipped), self.count(Fate::Dropped));
        write!(f, "of {} pairs {flipped} flipped, {dropped} dropped", self.rows.len())
    }
}

#[cfg(test)]
mod tests;
