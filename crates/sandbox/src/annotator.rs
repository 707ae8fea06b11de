//! Annotators, and their agreement with the ground truth.

use pref_data::{Label, PreferenceRecord};
use rand::RngExt;
use seeds::{Seeds, Stream};

use crate::gold::{Assessment, assess, prompt_messages, response_text};

/// An annotator of preference records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Annotator {
    /// The ground truth; equal quality is a tie.
    Gold,
    /// A panel of eight people with individual biases; one of them labels each record.
    Human,
    /// A strong LLM: little noise, and a bias towards padding and courteous openings.
    Gpt4Turbo,
    /// A weaker LLM.
    WeakLlm(WeakLlm),
}

/// Weaker LLMs: more noise, a length bias and a position bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeakLlm {
    /// The better one.
    Medium,
    /// The worse one.
    Small,
}

/// One annotator's agreement with the ground truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// The annotator's name.
    pub annotator: String,
    /// Records on which gold has a preference and the annotator's label is present.
    pub n: usize,
    /// The proportion of those records with the same preference; a tie counts half. 0 if `n` is 0.
    pub share: f64,
}

impl Annotator {
    /// All annotators, from the most to the least reliable.
    pub fn all() -> [Self; 5] {
        [
            Self::Gold,
            Self::Human,
            Self::Gpt4Turbo,
            Self::WeakLlm(WeakLlm::Medium),
            Self::WeakLlm(WeakLlm::Small),
        ]
    }

    /// The name of the annotator's labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gold => "gold",
            Self::Human => "human",
            Self::Gpt4Turbo => "gpt-4-turbo",
            Self::WeakLlm(WeakLlm::Medium) => "weak-llm-medium",
            Self::WeakLlm(WeakLlm::Small) => "weak-llm-small",
        }
    }

    /// Returns this annotator's preference between `record`'s responses.
    ///
    /// Every annotator but gold chooses the response with the highest `utility + scale * Gumbel noise`, which for two
    /// responses is the Bradley-Terry model: `P(first) = sigmoid((u1 - u2) / scale)`.
    pub fn label(self, record: &PreferenceRecord, rng: &mut Stream) -> Label {
        let prompt = prompt_messages(record);
        let assessed: Vec<Assessment> =
            record.responses.iter().map(|response| assess(&prompt, &response_text(response))).collect();
        let taste = match self {
            Self::Gold => return gold_label(&assessed),
            Self::Human => PANEL[rng.random_range(0..PANEL.len())],
            Self::Gpt4Turbo => GPT_4_TURBO,
            Self::WeakLlm(WeakLlm::Medium) => WEAK_LLM_MEDIUM,
            Self::WeakLlm(WeakLlm::Small) => WEAK_LLM_SMALL,
        };
        let mut best = (0, f64::NEG_INFINITY);
        for (index, assessment) in assessed.iter().enumerate() {
            let first = if index == 0 { taste.first } else { 0.0 };
            let value = taste.utility(assessment) + first + taste.scale * gumbel(rng);
            if value > best.1 {
                best = (index, value);
            }
        }
        Label::Prefers(best.0)
    }
}

/// Adds every annotator's label to every record, and replaces labels of the same name.
///
/// A record's noise has a stream of its own, named by index and annotator, and does not depend on other records or
/// annotators.
pub fn label_all(records: &mut [PreferenceRecord], seeds: &Seeds) {
    let seeds = seeds.child("sandbox").child("labels");
    for annotator in Annotator::all() {
        for (index, record) in records.iter_mut().enumerate() {
            let label = annotator.label(record, &mut seeds.indexed(annotator.name(), index as u64));
            record.labels.insert(annotator.name().to_owned(), label);
        }
    }
}

/// Computes each annotator's agreement with gold over the records with both labels, in the order of
/// [`Annotator::all`].
///
/// Records with a gold tie are excluded.
pub fn agreement(records: &[PreferenceRecord]) -> Vec<Agreement> {
    Annotator::all()
        .into_iter()
        .map(|annotator| {
            let credits: Vec<f64> = records
                .iter()
                .filter_map(|record| {
                    let gold = record.labels.get(Annotator::Gold.name())?;
                    let label = record.labels.get(annotator.name())?;
                    match (gold, label) {
                        (Label::Tie, _) => None,
                        (Label::Prefers(_), Label::Tie) => Some(0.5),
                        (gold, label) => Some(f64::from(u8::from(gold == label))),
                    }
                })
                .collect();
            Agreement {
                annotator: annotator.name().to_owned(),
                n: credits.len(),
                share: credits.iter().sum::<f64>() / credits.len().max(1) as f64,
            }
        })
        .collect()
}

/// Biases, in points of quality, and noise of a choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taste {
    /// Scale of the logistic noise on a difference, in points of quality.
    pub(crate) scale: f64,
    /// Points per padding sentence, two at most.
    pub(crate) padding: f64,
    /// Points for a courteous opening.
    pub(crate) courtesy: f64,
    /// Points for filler, in addition to its effect on quality.
    pub(crate) filler: f64,
    /// Points for a met constraint, in addition to its effect on quality.
    pub(crate) constraint: f64,
    /// Points for the response that is read first.
    pub(crate) first: f64,
}

/// The bias of `gpt-4-turbo` towards padding, in points per sentence; the biased judge scales it.
pub(crate) const GPT_4_TURBO: Taste =
    Taste { scale: 1.2, padding: 1.5, courtesy: 0.75, filler: 0.0, constraint: 0.0, first: 0.0 };

const WEAK_LLM_MEDIUM: Taste =
    Taste { scale: 2.2, padding: 1.0, courtesy: 0.5, filler: 0.0, constraint: -0.5, first: 0.75 };

const WEAK_LLM_SMALL: Taste =
    Taste { scale: 4.0, padding: 1.5, courtesy: 0.25, filler: 0.5, constraint: -1.0, first: 2.0 };

const fn person(padding: f64, courtesy: f64, filler: f64, constraint: f64) -> Taste {
    Taste { scale: HUMAN_SCALE, padding, courtesy, filler, constraint, first: 0.0 }
}

/// Noise of a human choice.
const HUMAN_SCALE: f64 = 2.4;

/// The panel of `human`: the biases nearly cancel.
const PANEL: [Taste; 8] = [
    person(-0.8, 0.0, -0.5, 0.5),
    person(0.6, 0.5, 0.0, 0.0),
    person(0.0, -0.5, 0.5, -0.5),
    person(-0.4, 0.5, -1.0, 0.0),
    person(0.4, 0.0, 0.5, 0.5),
    person(0.0, 0.8, 0.0, -0.5),
    person(-0.4, -0.8, 0.0, 1.0),
    person(0.4, -0.4, 0.5, -1.0),
];

impl Taste {
    /// Quality plus taste.
    pub(crate) fn utility(&self, assessment: &Assessment) -> f64 {
        let share = |held: bool| f64::from(u8::from(held));
        assessment.quality()
            + self.padding * assessment.padding.min(2) as f64
            + self.courtesy * share(assessment.courtesy)
            + self.filler * share(assessment.filler)
            + self.constraint * share(assessment.constraint)
    }
}

fn gold_label(assessed: &[Assessment]) -> Label {
    let quality: Vec<f64> = assessed.iter().map(Assessment::quality).collect();
    let best = quality.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut at_best = (0..quality.len()).filter(|index| quality[*index] == best);
    match (at_best.next(), at_best.next()) {
        (Some(index), None) => Label::Prefers(index),
        _ => Label::Tie,
    }
}

/// A standard Gumbel draw; the difference of two is standard logistic.
fn gumbel(rng: &mut Stream) -> f64 {
    let uniform = rng.random::<f64>().max(f64::MIN_POSITIVE);
    -(-uniform.ln()).ln()
}
