//! Judge prompts: FastChat's templates and their substitution.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::question::Question;
use crate::rows::{self, BadLines};

/// A judge prompt. Field order is that of FastChat's `judge_prompts.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgePrompt {
    /// The name in judgments, such as `single-v1`.
    pub name: String,
    /// `single` or `pairwise`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The system prompt, without placeholders.
    pub system_prompt: String,
    /// The user prompt with `{placeholders}`.
    pub prompt_template: String,
    /// The purpose of the prompt, in words.
    pub description: String,
    /// `general` or `math`.
    pub category: String,
    /// The format of the verdict: `[[rating]]` or `[[A]]`.
    pub output_format: String,
}

impl JudgePrompt {
    /// Replaces each `{name}` by its value, in one pass: braces in values stay unchanged.
    ///
    /// As in Python's `str.format`, `{{` and `}}` are single braces.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] for a placeholder without a value and for a single brace.
    pub fn fill(&self, values: &BTreeMap<&str, &str>) -> Result<String, Error> {
        let template = self.prompt_template.as_str();
        let problem = |at: usize, problem: String| Error::Template { prompt: self.name.clone(), at, problem };
        let mut filled = String::with_capacity(template.len());
        let mut at = 0;
        while let Some(brace) = template[at..].find(['{', '}']).map(|offset| at + offset) {
            filled.push_str(&template[at..brace]);
            let rest = &template[brace..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                filled.push_str(&rest[..1]);
                at = brace + 2;
            } else if rest.starts_with('}') {
                return Err(problem(brace, "a single `}`: write `}}` for a brace".to_owned()));
            } else {
                let length = rest.find('}').ok_or_else(|| {
                    problem(brace, "`{` without its `}`: write `{{` for a brace".to_owned())
                })?;
                let name = &rest[1..length];
                let value = values.get(name).ok_or_else(|| {
                    let known: Vec<&str> = values.keys().copied().collect();
                    problem(brace, format!("no value for {{{name}}}; there are: {}", known.join(", ")))
                })?;
                filled.push_str(value);
                at = brace + length + 1;
            }
        }
        filled.push_str(&template[at..]);
        Ok(filled)
    }

    /// The number of turns of the reference answer in the template.
    pub(crate) fn reference_turns(&self) -> usize {
        if self.prompt_template.contains("{ref_answer_2}") {
            2
        } else {
            usize::from(self.prompt_template.contains("{ref_answer_1}"))
        }
    }
}

/// A set of prompts, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgePrompts {
    prompts: Vec<JudgePrompt>,
}

/// FastChat's prompts; `data/NOTICE` names their authors.
const FASTCHAT: &str = include_str!("../data/judge_prompts.jsonl");

impl JudgePrompts {
    /// Returns the eight prompts of FastChat.
    pub fn fastchat() -> Self {
        let prompts = rows::parse_lines(Path::new("judge_prompts.jsonl"), FASTCHAT);
        Self { prompts: prompts.expect("a test reads the embedded file") }
    }

    /// Reads a file in the format of FastChat's `judge_prompts.jsonl`.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Line`], and [`Error::Inconsistent`] for a repeated name.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = |prompt: &JudgePrompt| prompt.name.clone();
        Ok(Self { prompts: rows::read_unique(path, BadLines::Refuse, "name", name, name)? })
    }

    /// Returns all prompts, in the order of their file.
    pub fn all(&self) -> &[JudgePrompt] {
        &self.prompts
    }

    /// Returns the prompt `name`.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrompt`] with the known names.
    pub fn named(&self, name: &str) -> Result<&JudgePrompt, Error> {
        let found = self.prompts.iter().find(|prompt| prompt.name == name);
        found.ok_or_else(|| Error::NoPrompt {
            name: name.to_owned(),
            known: self.prompts.iter().map(|prompt| prompt.name.clone()).collect(),
        })
    }

    /// Returns the single-answer prompt for turn `turn` of `question`: `single-v1`, its math variant where the category
    /// [needs a reference](Question::needs_reference), and the multi-turn variant of either from turn 2 on.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrompt`] if the set lacks it.
    pub fn single(&self, question: &Question, turn: u8) -> Result<&JudgePrompt, Error> {
        self.named(match (question.needs_reference(), turn) {
            (false, ..=1) => "single-v1",
            (true, ..=1) => "single-math-v1",
            (false, _) => "single-v1-multi-turn",
            (true, _) => "single-math-v1-multi-turn",
        })
    }

    /// Returns the pairwise prompt for turn `turn` of `question`: `pair-v2`, or `pair-math-v1` where the category
    /// [needs a reference](Question::needs_reference), and the multi-turn variant of either from turn 2 on.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrompt`] if the set lacks it.
    pub fn pair(&self, question: &Question, turn: u8) -> Result<&JudgePrompt, Error> {
        self.named(match (question.needs_reference(), turn) {
            (false, ..=1) => "pair-v2",
            (true, ..=1) => "pair-math-v1",
            (false, _) => "pair-v2-multi-turn",
            (true, _) => "pair-math-v1-multi-turn",
        })
    }
}
