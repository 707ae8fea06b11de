//! Ground truth: the quality of an answer, computed from the text of the prompt.

use std::borrow::Cow;

use pref_data::{Message, PreferenceRecord, Text};

use crate::behavior::{COURTESY, EVASION, FILLER, PADDING};
use crate::family::{self, CATEGORIES};
use crate::task::{Constraint, Content};

/// The lowest quality.
pub const LOWEST: f64 = 1.0;
/// The highest quality.
pub const HIGHEST: f64 = 10.0;

const CORE_POINTS: f64 = 4.0;
const CONSTRAINT_POINTS: f64 = 2.25;
const FORM_POINTS: f64 = 1.5;
const LENGTH_POINTS: f64 = 1.25;
/// Surplus sentences that only cost [`LENGTH_POINTS`]; each further one costs a whole point.
const FREE_SURPLUS: usize = 2;
/// Points above [`LOWEST`] for an honest refusal.
const DECLINED_POINTS: f64 = 0.5;

/// The type of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A sentence of the expected form.
    Answered,
    /// An admission that it does not know.
    Declined,
    /// Neither: an empty answer, an echo of the prompt, noise, or a prompt outside of this world.
    Neither,
}

/// The properties of an answer that quality and biases depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The type of the answer.
    pub attempt: Attempt,
    /// Whether the first sentence that answers is right.
    pub core: bool,
    /// Whether it meets the constraint.
    pub constraint: bool,
    /// Whether there is an "um".
    pub filler: bool,
    /// Whether the answer opens with "Sure": style, worth nothing.
    pub courtesy: bool,
    /// Whether the last sentence ends with a full stop.
    pub full_stop: bool,
    /// Sentences in addition to the one that answers.
    pub surplus: usize,
    /// Those of the surplus that are stock phrases of politeness.
    pub padding: usize,
}

impl Assessment {
    /// Quality in [1, 10].
    ///
    /// Returns `1 + 4 core + 2.25 constraint + 1.5 form + 1.25 length`. Form is half for no filler and half for a
    /// full stop. Length loses half per surplus sentence. Every surplus sentence beyond the second costs one point.
    /// An answer that declines is worth 1.5, one that does neither 1.
    pub fn quality(&self) -> f64 {
        match self.attempt {
            Attempt::Neither => return LOWEST,
            Attempt::Declined => return LOWEST + DECLINED_POINTS,
            Attempt::Answered => {}
        }
        let share = |held: bool| f64::from(u8::from(held));
        let form = 0.5 * share(!self.filler) + 0.5 * share(self.full_stop);
        let length = (1.0 - 0.5 * self.surplus as f64).max(0.0);
        let rambling = self.surplus.saturating_sub(FREE_SURPLUS) as f64;
        let quality = LOWEST
            + CORE_POINTS * share(self.core)
            + CONSTRAINT_POINTS * share(self.constraint)
            + FORM_POINTS * form
            + LENGTH_POINTS * length
            - rambling;
        quality.clamp(LOWEST, HIGHEST)
    }
}

/// Computes the quality of `response` as an answer to `prompt`, in [1, 10].
///
/// The user turns of `prompt` determine the task and its ground truth; see [`Assessment::quality`] for the formula.
/// For a prompt outside of this world the quality is 1.
///
/// ```
/// use pref_data::Message;
/// use sandbox::gold_quality;
///
/// let prompt = [Message::user("Count 3 hats and 5 cups.")];
/// assert_eq!(gold_quality(&prompt, "There are 8, from 3 and 5."), 10.0);
/// assert_eq!(gold_quality(&prompt, "Um, there are 9. I hope this helps"), 1.625);
/// assert_eq!(gold_quality(&prompt, ""), 1.0);
/// ```
pub fn gold_quality(prompt: &[Message], response: &str) -> f64 {
    assess(prompt, response).quality()
}

/// Assesses `response` as an answer to `prompt`.
pub fn assess(prompt: &[Message], response: &str) -> Assessment {
    let task = family::recognise(prompt);
    let text = response.trim();
    let opening =
        |opening: &str| text.get(..opening.len()).is_some_and(|head| head.eq_ignore_ascii_case(opening));
    let mut assessment = Assessment {
        attempt: Attempt::Neither,
        core: false,
        constraint: false,
        filler: says_um(text),
        courtesy: opening(COURTESY),
        full_stop: text.ends_with('.') && !text.ends_with(".."),
        surplus: 0,
        padding: 0,
    };
    for sentence in sentences(text) {
        let sentence = without_opening(sentence);
        let grade = task.as_ref().and_then(|(_, task)| task.grade(sentence));
        match (assessment.attempt, grade) {
            (Attempt::Neither | Attempt::Declined, Some((content, constraint))) => {
                // An earlier refusal is a surplus sentence now.
                assessment.surplus += usize::from(assessment.attempt == Attempt::Declined);
                assessment.attempt = Attempt::Answered;
                assessment.core = content == Content::Right;
                assessment.constraint = constraint == Constraint::Met;
            }
            (Attempt::Neither, None) if task.is_some() && sentence.eq_ignore_ascii_case(EVASION) => {
                assessment.attempt = Attempt::Declined;
            }
            _ => {
                assessment.surplus += 1;
                assessment.padding +=
                    usize::from(PADDING.iter().any(|phrase| sentence.eq_ignore_ascii_case(phrase)));
            }
        }
    }
    assessment
}

/// Returns the category of `prompt`, or `None` for a prompt outside of this world.
///
/// ```
/// use pref_data::Message;
/// assert_eq!(sandbox::category_of(&[Message::user("Tell Ann who wrote Faust.")]), Some("humanities"));
/// ```
pub fn category_of(prompt: &[Message]) -> Option<&'static str> {
    family::recognise(prompt).map(|(index, _)| CATEGORIES[index])
}

/// Returns the prompt of a record as messages; plain text is one user message.
pub(crate) fn prompt_messages(record: &PreferenceRecord) -> Vec<Message> {
    match &record.prompt {
        Text::Plain(text) => vec![Message::user(text)],
        Text::Chat(messages) => messages.clone(),
    }
}

/// A response as text: the last message's content where it is a list of messages.
pub(crate) fn response_text(response: &Text) -> Cow<'_, str> {
    match response {
        Text::Plain(text) => text.into(),
        Text::Chat(messages) => messages.last().map_or("".into(), Message::content),
    }
}

/// Sentences end with ". " or with the text; empty ones do not count.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['.', '!', '?', '\n'])
        .map(|sentence| sentence.trim().trim_end_matches('.').trim_end())
        .filter(|sentence| !sentence.is_empty())
}

fn without_opening(sentence: &str) -> &str {
    [FILLER, COURTESY]
        .iter()
        .find_map(|opening| {
            let head = sentence.get(..opening.len())?;
            head.eq_ignore_ascii_case(opening).then(|| sentence[opening.len()..].trim_start())
        })
        .unwrap_or(sentence)
}

fn says_um(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.eq_ignore_ascii_case("um"))
}
