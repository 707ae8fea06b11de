//! What judges are told: FastChat's prompt templates and how they are filled in.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Error, Question, files};

/// A judge prompt. Field order is that of FastChat's `judge_prompts.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgePrompt {
    /// The name by which judgments record it, such as `single-v1`.
    pub name: String,
    /// `single` or `pairwise`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The system prompt, sent as it is.
    pub system_prompt: String,
    /// The user prompt with `{placeholders}`.
    pub prompt_template: String,
    /// What it is for, in words.
    pub description: String,
    /// `general` or `math`.
    pub category: String,
    /// What the verdict looks like: `[[rating]]` or `[[A]]`.
    pub output_format: String,
}

impl JudgePrompt {
    /// The user prompt with each `{name}` replaced by its value, in one pass: braces in values stay as they are.
    ///
    /// As in Python's `str.format`, `{{` and `}}` stand for single braces.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] for a placeholder that `values` lacks and for a brace without its partner.
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
                    problem(
                        brace,
                        format!("nothing to put in for {{{name}}}; there are: {}", known.join(", ")),
                    )
                })?;
                filled.push_str(value);
                at = brace + length + 1;
            }
        }
        filled.push_str(&template[at..]);
        Ok(filled)
    }

    /// How many turns of the reference answer the template shows.
    pub(crate) fn reference_turns(&self) -> usize {
        if self.prompt_template.contains("{ref_answer_2}") {
            2
        } else {
            usize::from(self.prompt_template.contains("{ref_answer_1}"))
        }
    }
}

/// The prompts that judging chooses from, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgePrompts {
    prompts: Vec<JudgePrompt>,
}

/// FastChat's prompts; `data/NOTICE` says whose they are.
const FASTCHAT: &str = include_str!("../data/judge_prompts.jsonl");

impl JudgePrompts {
    /// The eight prompts of FastChat, which this crate carries.
    pub fn fastchat() -> Self {
        let prompts = files::parse_lines(Path::new("judge_prompts.jsonl"), FASTCHAT);
        Self { prompts: prompts.expect("a test reads the embedded file") }
    }

    /// The prompts of a file in the format of FastChat's `judge_prompts.jsonl`.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Line`], and [`Error::Inconsistent`] for a name that comes twice.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Ok(Self { prompts: files::read_unique(path, "name", |prompt: &JudgePrompt| prompt.name.clone())? })
    }

    /// All prompts, in the order of their file.
    pub fn all(&self) -> &[JudgePrompt] {
        &self.prompts
    }

    /// The prompt called `name`.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrompt`] with the names that there are.
    pub fn named(&self, name: &str) -> Result<&JudgePrompt, Error> {
        let found = self.prompts.iter().find(|prompt| prompt.name == name);
        found.ok_or_else(|| Error::NoPrompt {
            name: name.to_owned(),
            known: self.prompts.iter().map(|prompt| prompt.name.clone()).collect(),
        })
    }

    /// The single-answer prompt for turn `turn` of `question`: `single-v1`, its math variant where the category
    /// [needs a reference](Question::needs_reference), and the multi-turn variant of either from turn 2 on.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrompt`] if it is not among the prompts.
    pub fn single(&self, question: &Question, turn: u8) -> Result<&JudgePrompt, Error> {
        self.named(match (question.needs_reference(), turn) {
            (false, ..=1) => "single-v1",
            (true, ..=1) => "single-math-v1",
            (false, _) => "single-v1-multi-turn",
            (true, _) => "single-math-v1-multi-turn",
        })
    }

    /// The prompt for comparing answers to turn `turn` of `question`: `pair-v2`, or `pair-math-v1` where the category
    /// [needs a reference](Question::needs_reference), and the multi-turn variant of either from turn 2 on.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrompt`] if it is not among the prompts.
    pub fn pair(&self, question: &Question, turn: u8) -> Result<&JudgePrompt, Error> {
        self.named(match (question.needs_reference(), turn) {
            (false, ..=1) => "pair-v2",
            (true, ..=1) => "pair-math-v1",
            (false, _) => "pair-v2-multi-turn",
            (true, _) => "pair-math-v1-multi-turn",
        })
    }
}
