//! Noisier pairs: labels swapped on purpose, and a log of which.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufWriter, Write};
use std::path::Path;

use atomic_write_file::AtomicWriteFile;
use seeds::Seeds;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::order::{marked, permutation, share, weighted_order};
use crate::record::{Pair, Text};

/// The share of labels that noise swaps, in [0, 1]: 0 none, 1 all.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct FlipRate(f64);

impl FlipRate {
    /// No noise.
    pub const NONE: Self = Self(0.0);

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

    /// The share.
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

/// Which pairs noise takes. Each model puts the pairs into an order and takes its beginning, so that noise is nested:
/// with the same seeds and pairs, what a lower rate takes a higher rate takes too. All draw from the stream
/// `flip-noise`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum NoiseModel {
    /// Any pair alike.
    #[default]
    Uniform,
    /// Pairs of some annotators sooner than others': the odds of each, 1 where none are given.
    ByAnnotator(BTreeMap<String, Odds>),
    /// Pairs whose rejected response is the longer one sooner, as if raters fell for length: with lengths a and b of the
    /// rejected and the chosen response in characters, the odds are exp(4 (a − b)/(a + b)).
    LengthBiased,
    /// Pairs on which the record's annotators are most divided first; chance decides among equals.
    AmbiguousFirst,
    /// The same pairs, left out instead of swapped: how much of the harm comes from wrong labels and how much from
    /// missing ones.
    TiesDropped,
}

/// How much sooner noise takes one pair than another, above 0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Odds(f64);

impl Odds {
    /// # Errors
    ///
    /// [`DataError::OutOfRange`] for what is not above 0 or not finite.
    pub fn new(value: f64) -> Result<Self, DataError> {
        if value > 0.0 && value.is_finite() {
            Ok(Self(value))
        } else {
            Err(DataError::OutOfRange { name: "odds", value, range: "(0, ∞)" })
        }
    }

    /// The odds.
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

/// Noise: which pairs and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// Which pairs it takes.
    pub model: NoiseModel,
    /// How many: `round(rate * n)`.
    pub rate: FlipRate,
}

/// What noise did to each pair, in the pairs' order. The true label of a flipped pair is the opposite of the one that it
/// carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoiseLog {
    /// One for each pair.
    pub rows: Vec<NoiseRow>,
}

/// What noise did to one pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoiseRow {
    /// The pair's identifier.
    pub id: String,
    /// Whose label it was.
    pub annotator: String,
    /// What became of it.
    pub fate: Fate,
}

/// What noise does to a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing.
    Kept,
    /// Chosen and rejected are swapped.
    Flipped,
    /// The pair is left out.
    Dropped,
}

/// Does to the pairs what `noise` says, and says to which: pairs that are flipped carry the mark `flipped`, so that a
/// trainer can tell its accuracy on them from that on the clean ones.
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

/// Swaps chosen and rejected in `round(rate * n)` random pairs and marks them `flipped`: [`NoiseModel::Uniform`] in
/// place.
pub fn flip_labels(pairs: &mut [Pair], rate: FlipRate, seeds: &Seeds) {
    let order = NoiseModel::Uniform.order(pairs, seeds);
    for index in order.into_iter().take(share(rate.get(), pairs.len())) {
        pairs[index].flip();
    }
}

impl NoiseModel {
    /// The order in which the pairs are taken.
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
                // Stable: equals stay as chance put them.
                order.sort_by_key(|&index| Reverse(pairs[index].votes.division()));
                order
            }
        }
    }
}

/// How much sooner raters who like length get a pair wrong, from e⁻⁴ to e⁴.
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
    /// How many pairs met this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.rows.iter().filter(|row| row.fate == fate).count()
    }

    /// Writes it as JSONL, one pair a line: `{"id": "17", "annotator": "human", "fate": "flipped"}`. The file appears
    /// whole or not at all.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`] where writing fails.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), DataError> {
        let path = path.as_ref();
        let write = || {
            let mut file = AtomicWriteFile::open(path)?;
            let mut buffer = BufWriter::new(&mut file);
            for row in &self.rows {
                serde_json::to_writer(&mut buffer, row)?;
                buffer.write_all(b"\n")?;
            }
            buffer.flush()?;
            drop(buffer);
            file.commit()
        };
        write().map_err(|source| DataError::Io { action: "write", path: path.to_owned(), source })
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
