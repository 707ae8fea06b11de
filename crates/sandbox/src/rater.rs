//! Three simulated raters of pairs of answers.

use pref_data::Message;
use rand::RngExt;
use seeds::{Seeds, Stream};

use crate::annotator::Taste;
use crate::gold::assess;

/// A rater's preference between two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RaterChoice {
    /// The first model's answer is better.
    Model1,
    /// The second model's answer is better.
    Model2,
    /// No difference worth naming.
    Equal,
}

/// An answer with its conversation, which in the second turn contains the model's first answer.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The conversation up to the question.
    pub prompt: &'a [Message],
    /// The answer.
    pub answer: &'a str,
}

/// A simulated rater.
///
/// The preference is a deterministic function of the texts: they name the stream of the noise.
#[derive(Clone, Debug)]
pub struct Rater {
    name: &'static str,
    taste: Taste,
    seeds: Seeds,
}

/// Differences of less than this many points are ties.
const JUST_NOTICEABLE: f64 = 0.7;

/// The three raters: individual tastes around the truth, noise, and a just-noticeable difference.
pub fn raters(seeds: &Seeds) -> [Rater; 3] {
    let seeds = seeds.child("sandbox").child("raters");
    let rater = |name, padding, courtesy, filler| Rater {
        name,
        taste: Taste { scale: RATER_SCALE, padding, courtesy, filler, constraint: 0.0, first: 0.0 },
        seeds: seeds.child(name),
    };
    [rater("rater-1", -0.5, 0.0, -0.5), rater("rater-2", 0.4, 0.4, 0.0), rater("rater-3", 0.0, -0.4, 0.5)]
}

/// Noise of a rater, smaller than that of an annotator.
const RATER_SCALE: f64 = 0.6;

impl Rater {
    /// The rater's name, as ratings record it.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Which of two answers is better.
    pub fn rate(&self, model_1: Candidate<'_>, model_2: Candidate<'_>) -> RaterChoice {
        let utility =
            |candidate: Candidate<'_>| self.taste.utility(&assess(candidate.prompt, candidate.answer));
        let mut rng = self.stream(model_1, model_2);
        let difference = utility(model_1) - utility(model_2) + self.taste.scale * logistic(&mut rng);
        if difference.abs() < JUST_NOTICEABLE {
            RaterChoice::Equal
        } else if difference > 0.0 {
            RaterChoice::Model1
        } else {
            RaterChoice::Model2
        }
    }

    fn stream(&self, model_1: Candidate<'_>, model_2: Candidate<'_>) -> Stream {
        let mut name = String::new();
        for candidate in [model_1, model_2] {
            for text in candidate.prompt.iter().map(Message::content).chain([candidate.answer.into()]) {
                name.push_str(&text);
                name.push('\u{1f}');
            }
            name.push('\u{1e}');
        }
        self.seeds.stream(&name)
    }
}

fn logistic(rng: &mut Stream) -> f64 {
    let uniform = rng.random::<f64>().clamp(f64::MIN_POSITIVE, 1.0 - f64::EPSILON);
    (uniform / (1.0 - uniform)).ln()
}
