//! Answers of demonstrators: five levels of quality, independent of the prompt.

use rand::RngExt;
use seeds::Stream;

use crate::task::{Constraint, Content, Task};

/// The distribution of demonstrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixture {
    /// All five levels of quality, mostly medium: the SFT data.
    Ordinary,
    /// The upper two levels: the data of a stronger policy.
    Strong,
}

/// A filler before an answer, which lowers quality.
pub(crate) const FILLER: &str = "Um, ";
/// A courtesy before an answer, which does not change quality.
pub(crate) const COURTESY: &str = "Sure, ";
/// An evasive answer.
pub(crate) const EVASION: &str = "I am not sure";
/// Padding sentences after an answer.
pub(crate) const PADDING: [&str; 2] = ["I hope this helps", "Just ask me for more"];

/// One level's probabilities.
struct Level {
    right: f64,
    constraint: f64,
    filler: f64,
    evade: f64,
    stop: f64,
    padding: f64,
}

const LEVELS: [Level; 5] = [
    level([0.20, 0.10, 0.75, 0.25, 0.50, 0.50]),
    level([0.40, 0.25, 0.55, 0.15, 0.65, 0.45]),
    level([0.60, 0.45, 0.40, 0.08, 0.80, 0.40]),
    level([0.80, 0.65, 0.25, 0.03, 0.90, 0.35]),
    level([0.95, 0.90, 0.08, 0.00, 0.97, 0.30]),
];

const fn level([right, constraint, filler, evade, stop, padding]: [f64; 6]) -> Level {
    Level { right, constraint, filler, evade, stop, padding }
}

/// How often a padded answer is padded twice.
const PADDED_TWICE: f64 = 0.4;
/// How often an answer that opens without filler opens with a courtesy.
const COURTEOUS: f64 = 0.25;

/// Offsets of each family to the probabilities of a right core, a met constraint and filler, in the order of
/// [`crate::CATEGORIES`]. They equalize the difficulty of the families.
const SHIFTS: [[f64; 3]; 8] = [
    [0.00, -0.10, 0.10],
    [0.00, -0.05, 0.05],
    [0.10, 0.00, 0.00],
    [0.10, 0.00, 0.00],
    [-0.10, -0.10, 0.15],
    [0.05, 0.00, 0.10],
    [0.00, -0.15, 0.20],
    [0.00, -0.10, 0.20],
];

/// A demonstrator's level, 0 to 4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demonstrator(usize);

impl Demonstrator {
    /// Draws a level, independently of the prompt.
    pub(crate) fn draw(mixture: Mixture, rng: &mut Stream) -> Self {
        let weights = match mixture {
            Mixture::Ordinary => [0.15, 0.25, 0.25, 0.20, 0.15],
            Mixture::Strong => [0.0, 0.0, 0.0, 0.2, 0.8],
        };
        let mut left = rng.random::<f64>();
        for (level, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return Self(level);
            }
        }
        Self(weights.len() - 1)
    }

    /// Writes an answer to `task`, which belongs to the family at `family`.
    pub(crate) fn answer(self, family: usize, task: &Task, rng: &mut Stream) -> String {
        let level = &LEVELS[self.0];
        let [right, constraint, filler] = SHIFTS[family];
        // Every draw is unconditional, so that a probability can change without shifting the stream.
        let evades = chance(level.evade, rng);
        let content = match chance(level.right + right, rng) {
            true => Content::Right,
            false => Content::Distractor,
        };
        let constraint = match chance(level.constraint + constraint, rng) {
            true => Constraint::Met,
            false => Constraint::Missed,
        };
        let filler = chance(level.filler + filler, rng);
        let courtesy = chance(COURTEOUS, rng);
        let stop = chance(level.stop, rng);
        let padded = chance(level.padding, rng);
        let twice = chance(PADDED_TWICE, rng);
        let which = usize::from(chance(0.5, rng));

        let sentence = match evades {
            true => EVASION.to_owned(),
            false => task.answer(content, constraint),
        };
        let mut text = match (filler, courtesy) {
            (true, _) => format!("{FILLER}{}", uncapitalised(&sentence)),
            (false, true) => format!("{COURTESY}{}", uncapitalised(&sentence)),
            (false, false) => sentence,
        };
        let paddings = if padded { 1 + usize::from(twice) } else { 0 };
        for index in 0..paddings {
            text.push_str(". ");
            text.push_str(PADDING[(which + index) % PADDING.len()]);
        }
        if stop {
            text.push('.');
        }
        text
    }
}

fn chance(probability: f64, rng: &mut Stream) -> bool {
    rng.random::<f64>() < probability
}

/// Returns `sentence` in lower case after an opening; "I" keeps its capital.
fn uncapitalised(sentence: &str) -> String {
    if sentence.starts_with("I ") {
        return sentence.to_owned();
    }
    let mut text = sentence.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}
