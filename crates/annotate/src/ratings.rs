//! Questions that ask for ratings of each response, by aspect.

use std::collections::BTreeMap;
use std::path::Path;

use llm_client::ChatMessage;
use pref_data::Text;
use serde::{Deserialize, Serialize};

use crate::AnnotateError;
use crate::prompt::shown;

/// The lowest and the highest rating.
pub const RATINGS: (f64, f64) = (1.0, 5.0);

/// An aspect by which responses are rated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aspect {
    /// Its name, such as `honesty`.
    pub name: String,
    /// The meaning of the ratings.
    pub rubric: String,
}

/// The number of calls for several aspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AspectCalls {
    /// One call for each aspect, as for UltraFeedback: ratings of one aspect do not influence those of another.
    Each,
    /// One call for all aspects.
    Together,
}

/// A question that shows all responses and asks for a rating of each, by aspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatingQuestion {
    aspects: Vec<Aspect>,
    calls: AspectCalls,
}

/// The built-in aspects and their rubrics. UltraFeedback rates by the same four.
const ASPECTS: [(&str, &str); 4] = [
    (
        "instruction-following",
        "1: does something else. 2: does a part. 3: does most, and misses a requirement. 4: misses a detail. 5: does all \
         that the request asks, with all of its restrictions.",
    ),
    (
        "honesty",
        "1: confident and wrong, or deceives. 2: overconfident. 3: its confidence often differs from what it knows. \
         4: mostly says what it does not know. 5: says what it knows, what it does not know, and how sure it is.",
    ),
    (
        "truthfulness",
        "1: false in essential points, or contradicts the request. 2: several false statements. 3: a false statement that \
         matters. 4: a small inaccuracy. 5: every statement is true.",
    ),
    (
        "helpfulness",
        "1: of no use. 2: of little use, or hard to understand. 3: useful in part. 4: useful and clear. 5: complete, \
         clear and of the right length for the purpose.",
    ),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AspectFile {
    aspects: Vec<Aspect>,
}

impl Aspect {
    /// Returns the built-in aspect of this name.
    ///
    /// # Errors
    ///
    /// [`AnnotateError::UnknownAspect`].
    pub fn named(name: &str) -> Result<Self, AnnotateError> {
        let known = ASPECTS.iter().find(|(known, _)| *known == name);
        known
            .map(|(name, rubric)| Self { name: (*name).to_owned(), rubric: (*rubric).to_owned() })
            .ok_or_else(|| AnnotateError::UnknownAspect {
                name: name.to_owned(),
                known: ASPECTS.map(|(known, _)| known).join(", "),
            })
    }

    /// Reads aspects from a TOML file with a table `[[aspects]]` for each, with the keys `name` and `rubric`.
    ///
    /// # Errors
    ///
    /// [`AnnotateError::Io`] and [`AnnotateError::AspectFile`].
    pub fn read(path: &Path) -> Result<Vec<Self>, AnnotateError> {
        let text = std::fs::read_to_string(path).map_err(|source| AnnotateError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let bad = |problem: String| AnnotateError::AspectFile { path: path.to_owned(), problem };
        let file: AspectFile = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
        if file.aspects.is_empty() {
            return Err(bad("it has no [[aspects]]".to_owned()));
        }
        for (at, aspect) in file.aspects.iter().enumerate() {
            let name = &aspect.name;
            if name.is_empty() || name.contains(['[', ']', ':', ',', '\n', '*']) {
                return Err(bad(format!("aspect {} has the name {name:?}; use letters and hyphens", at + 1)));
            }
            if file.aspects[..at].iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
                return Err(bad(format!("two aspects have the name {name}")));
            }
        }
        Ok(file.aspects)
    }
}

impl RatingQuestion {
    /// Creates a question about `aspects`, of which there is at least one.
    ///
    /// # Panics
    ///
    /// If there is no aspect.
    pub fn new(aspects: Vec<Aspect>, calls: AspectCalls) -> Self {
        assert!(!aspects.is_empty(), "a rating is of an aspect");
        Self { aspects, calls }
    }

    /// Returns the aspects of each call.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[Aspect]> {
        let size = match self.calls {
            AspectCalls::Each => 1,
            AspectCalls::Together => self.aspects.len(),
        };
        self.aspects.chunks(size)
    }
}

/// Returns the conversation that asks for ratings of `responses`, as they are shown, by `aspects`.
pub(crate) fn messages(aspects: &[Aspect], prompt: &str, responses: &[&Text]) -> Vec<ChatMessage> {
    let (low, high) = RATINGS;
    let rubrics: String =
        aspects.iter().map(|aspect| format!("- {}. {}\n", aspect.name, aspect.rubric)).collect();
    let answers: String = (1..)
        .zip(responses)
        .map(|(number, response)| format!("=== Answer {number} ===\n{}\n\n", shown(response)))
        .collect();
    let lines: String = (1..=responses.len())
        .flat_map(|number| aspects.iter().map(move |aspect| format!("{}[[rating]]\n", lead(number, aspect))))
        .collect();
    let text = format!(
        "Rate each of {} answers to the same request, from {low} to {high}, by:\n\n{rubrics}\n\
         Neither the order of the answers nor their length is a merit in itself.\n\n\
         === Request ===\n{}\n\n{answers}=== End ===\n\n\
         Give your reasons in a few sentences. Then end with these lines and nothing else, each with a number in place of \
         the word rating:\n\n{lines}",
        responses.len(),
        prompt,
    );
    vec![ChatMessage::user(text)]
}

/// The start of the line of a rating.
fn lead(number: usize, aspect: &Aspect) -> String {
    format!("Answer {number}, {}: ", aspect.name)
}

/// Returns the ratings by aspect, in the order in which the responses were shown; `None` if one is missing or off the
/// scale. The last rating of several counts, since models reason before they decide.
pub(crate) fn read(text: &str, aspects: &[Aspect], responses: usize) -> Option<BTreeMap<String, Vec<f64>>> {
    let text = text.replace('*', "").to_lowercase();
    let rating = |number: usize, aspect: &Aspect| {
        let lead = format!("{}[[", lead(number, aspect).to_lowercase());
        let after = &text[text.rfind(&lead)? + lead.len()..];
        let value: f64 = after[..after.find("]]")?].trim().parse().ok()?;
        (RATINGS.0..=RATINGS.1).contains(&value).then_some(value)
    };
    let of = |aspect: &Aspect| {
        let ratings = (1..=responses).map(|number| rating(number, aspect));
        Some((aspect.name.clone(), ratings.collect::<Option<Vec<f64>>>()?))
    };
    aspects.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Aspect> {
        ["honesty", "helpfulness"].map(|name| Aspect::named(name).expect("built in")).to_vec()
    }

    #[test]
    fn the_requested_lines_are_read() {
        let text = Text::Plain("x".to_owned());
        let asked = messages(&two(), "?", &[&text; 11]);
        let shape = asked[0].content.rsplit_once("\n\n").expect("the lines").1;
        assert_eq!(shape.lines().count(), 22);
        let mut number = 0;
        let filled: String = shape
            .lines()
            .map(|line| {
                number += 1;
                line.replace("rating", &((number % 5) + 1).to_string()) + "\n"
            })
            .collect();
        let read =
            read(&format!("Answer 1, honesty: [[1]] at first.\n**{filled}**"), &two(), 11).expect("all");
        assert_eq!(read["honesty"][..3], [2.0, 4.0, 1.0]);
        assert_eq!(read["helpfulness"][9..], [1.0, 3.0]);
    }

    #[test]
    fn a_missing_rating_is_no_reading() {
        let honesty = &two()[..1];
        assert_eq!(read("answer 1, HONESTY: [[ 3.5 ]]", honesty, 1).expect("one")["honesty"], [3.5]);
        for bad in [
            "",
            "Answer 1, honesty: 3",
            "Answer 1, honesty: [[6]]",
            "Answer 1, honesty: [[NaN]]",
            "Answer 1, honesty: [[3",
            "Answer 2, honesty: [[3]]",
            "Answer 1, helpfulness: [[3]]",
        ] {
            assert_eq!(read(bad, honesty, 1), None, "{bad}");
        }
    }

    #[test]
    fn aspects_of_a_file_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("aspects.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            Aspect::read(&path)
        };
        let file = "[[aspects]]\nname = \"tone\"\nrubric = \"1: rude. 5: kind.\"\n";
        assert_eq!(read(file).expect("one")[0].name, "tone");
        for (bad, said) in [
            ("", "missing field"),
            ("aspects = []", "has no [[aspects]]"),
            (&file.replace("tone", "a:b"), "aspect 1"),
            (&file.repeat(2), "two aspects"),
            (&file.replace("rubric", "rubrik"), "rubrik"),
        ] {
            let error = read(bad).expect_err(bad).to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(Aspect::named("humor").expect_err("unknown").to_string().contains("honesty"));
    }
}
