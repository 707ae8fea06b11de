//! The addresses of runs, answers and evaluations.
//!
//! Field names and their order are part of every address. Renaming a field orphans stored results; a test freezes the
//! address of a sample of each kind.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;

use pref_data::{ChatSettings, Date};
use serde::Serialize;
use serde_json::{Map, Value};
use trainer::recipe::Dtype;

use super::Runner;
use crate::cell::{Cell, Subject};
use crate::setup::JudgeIdentity;
use crate::store::Key;

/// What determines a policy.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum PolicyContent {
    Baseline,
    Trained { run: Key, checkpoint: usize },
}

/// What determines the answers of a policy.
#[derive(Serialize)]
struct AnswersContent<'a> {
    source: &'a Key,
    policy: PolicyContent,
    seed: u64,
    max_new_tokens: u32,
    batch: NonZeroU16,
    system: Option<&'a str>,
    dtype: Dtype,
    questions: Vec<QuestionContent<'a>>,
    /// Absent with the default settings, as in the addresses of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat: Option<ChatContent<'a>>,
    /// Absent for the first sample, as in the addresses of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<u64>,
}

/// The properties of a chat template on which answers depend.
#[derive(Serialize)]
struct ChatContent<'a> {
    template: Option<&'a str>,
    date: String,
    variables: Map<String, Value>,
}

/// The properties of a question on which answers depend.
#[derive(Serialize)]
struct QuestionContent<'a> {
    id: u64,
    category: &'a str,
    turns: &'a [String],
}

/// What determines an evaluation in the sandbox, whose judges have no settings.
#[derive(Serialize)]
struct SandboxScoresContent<'a> {
    source: &'a Key,
    policy: PolicyContent,
    seed: u64,
    questions: Vec<u64>,
    /// Absent for the first sample, as in the addresses of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<u64>,
    /// Absent for one rating, as in the addresses of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeats: Option<NonZeroU32>,
}

/// What determines an evaluation by judges behind endpoints.
#[derive(Serialize)]
struct ScoresContent<'a> {
    answers: Key,
    judges: Vec<JudgeIdentity<'a>>,
    references: Vec<ReferenceContent<'a>>,
}

/// A reference answer that judges see.
#[derive(Serialize)]
struct ReferenceContent<'a> {
    question: u64,
    turns: &'a [String],
}

impl Runner {
    /// Returns the address of a cell: its recipe, with the content of model, data and chat template in place of their
    /// paths.
    ///
    /// For a policy that was trained elsewhere, the content of its files.
    pub fn run_key(&self, cell: &Cell) -> Key {
        if let Some(given) = self.given.of(cell) {
            return given.key.clone();
        }
        let source = self.source.key().as_str();
        let data = format!("{source}/records-{}", cell.seed);
        let held_out = self.source.held_out(cell.seed).map(|_| format!("{source}/held-out-{}", cell.seed));
        let held_out = held_out.as_deref().map(Path::new);
        let anywhere = Path::new("anywhere");
        let mut recipe = self.setup.run_recipe(cell, Path::new(source), Path::new(&data), held_out, anywhere);
        if let Some(template) = self.source.template() {
            recipe.data[0].chat_template = Some(template.to_owned());
        }
        Key::of("run", &recipe.to_toml())
    }

    /// Returns the address of a sample of a subject's answers.
    pub(super) fn answers_key(&self, subject: &Subject, sample: u64) -> Key {
        let answers = &self.setup.answers;
        let questions = self.source.questions().iter();
        Key::of(
            "answers",
            &AnswersContent {
                source: self.source.key(),
                policy: self.policy(subject),
                seed: subject.seed(),
                max_new_tokens: answers.max_new_tokens,
                batch: answers.batch,
                system: answers.system.as_deref(),
                dtype: self.setup.model.dtype,
                questions: questions
                    .map(|q| QuestionContent { id: q.question_id, category: &q.category, turns: &q.turns })
                    .collect(),
                chat: self.chat(),
                sample: (sample > 0).then_some(sample),
            },
        )
    }

    /// Returns the chat settings of answers where they are not the default ones.
    fn chat(&self) -> Option<ChatContent<'_>> {
        let ChatSettings { template, date, variables, .. } = self.setup.answer_chat();
        let is_default = template.is_none() && date == Date::Unset && variables.is_empty();
        let template = self.source.template();
        (!is_default).then(|| ChatContent { template, date: format!("{date:?}"), variables })
    }

    /// Returns the address of the evaluation of a sample of a subject's answers.
    pub(super) fn scores_key(&self, subject: &Subject, sample: u64) -> Key {
        if self.source.is_sandbox() {
            let content = SandboxScoresContent {
                source: self.source.key(),
                policy: self.policy(subject),
                seed: subject.seed(),
                questions: self.source.questions().iter().map(|q| q.question_id).collect(),
                sample: (sample > 0).then_some(sample),
                repeats: Some(self.setup.judge.repeats).filter(|repeats| repeats.get() > 1),
            };
            return Key::of("scores", &content);
        }
        let references = self.source.references().iter();
        Key::of(
            "scores",
            &ScoresContent {
                answers: self.answers_key(subject, sample),
                judges: self.setup.judge.identities().collect(),
                references: references
                    .map(|answer| ReferenceContent { question: answer.question_id, turns: answer.turns() })
                    .collect(),
            },
        )
    }

    fn policy(&self, subject: &Subject) -> PolicyContent {
        match subject {
            Subject::Baseline { .. } => PolicyContent::Baseline,
            Subject::Trained { cell, checkpoint } => {
                PolicyContent::Trained { run: self.run_key(cell), checkpoint: *checkpoint }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use trainer::recipe::{LossKind, Recipe, parse_toml};

    use super::*;
    use crate::setup::{AnswersSection, JudgeSection, SandboxSection, Setup, StoreSection};

    const RECIPE: &str = r#"
        [model]
        path = "sandbox"
        [data]
        path = "sandbox"
        format = "sandbox"
        annotator = "human"
        [output]
        dir = "OUT"
    "#;

    fn sandbox() -> (tempfile::TempDir, Runner) {
        sandbox_with(|_| {})
    }

    fn sandbox_with(change: impl FnOnce(&mut Setup)) -> (tempfile::TempDir, Runner) {
        let folder = tempfile::tempdir().unwrap();
        let text = RECIPE.replace("OUT", &folder.path().display().to_string());
        let recipe: Recipe = parse_toml("a sample", &text, &[]).unwrap();
        let mut setup = Setup {
            seed: 0,
            bench: None,
            questions: 8,
            seeds: 1,
            policies: Vec::new(),
            judge: JudgeSection::sandbox(),
            answers: AnswersSection::default(),
            sandbox: SandboxSection::default(),
            model: recipe.model,
            data: recipe.data[0].clone(),
            loss: recipe.loss,
            train: recipe.train,
            optimizer: recipe.optimizer,
            speed: recipe.speed,
            watch: recipe.watch,
            lora: recipe.lora,
            distributed: recipe.distributed,
            output: recipe.output,
            store: StoreSection::default(),
        };
        change(&mut setup);
        (folder, Runner::new(setup).unwrap())
    }

    #[test]
    fn keys_of_answers_differ_by_date_and_by_template_variables() {
        let key = |change: fn(&mut Setup)| {
            let (_folder, runner) = sandbox_with(change);
            runner.answers_key(&Subject::Baseline { seed: 0 }, 0)
        };
        let keys = [
            key(|_| {}),
            key(|setup| setup.data.date = Some("2026-11-29".to_owned())),
            key(|setup| setup.data.date = Some("2026-11-30".to_owned())),
            key(|setup| setup.data.date = Some("none".to_owned())),
            key(|setup| drop(setup.data.chat_template_kwargs.insert("enable_thinking".into(), true.into()))),
            key(|setup| drop(setup.data.chat_template_kwargs.insert("enable_thinking".into(), false.into()))),
            key(|setup| drop(setup.answers.chat_template_kwargs.insert("a".into(), 1.into()))),
        ];
        let distinct: std::collections::BTreeSet<&str> = keys.iter().map(Key::as_str).collect();
        assert_eq!(distinct.len(), keys.len(), "{keys:?}");
        let of_both = key(|setup| {
            setup.data.chat_template_kwargs.insert("enable_thinking".into(), true.into());
            setup.answers.chat_template_kwargs.insert("enable_thinking".into(), false.into());
        });
        assert_eq!(of_both, keys[5], "the variables of answers take precedence");
    }

    fn cell(runner: &Runner) -> Cell {
        Cell::new("human", LossKind::Dpo, runner.setup().loss.beta, 0)
    }

    /// A change of these values orphans stored results. If it is intended, raise the version of the store's layout.
    #[test]
    fn the_keys_of_samples_are_frozen() {
        let (_folder, runner) = sandbox();
        let cell = cell(&runner);
        let trained = Subject::Trained { cell: cell.clone(), checkpoint: 3 };
        let turns = ["Why?".to_owned()];
        let endpoint = ScoresContent {
            answers: Key::of("answers", &0),
            judges: vec![JudgeIdentity {
                model: Some("lab/judge"),
                name: None,
                temperature: 0.5,
                max_tokens: 2048,
                repeats: NonZeroU32::MIN,
                reasks: 2,
            }],
            references: vec![ReferenceContent { question: 81, turns: &turns }],
        };
        let answers = AnswersContent {
            source: &Key::of("source", &0),
            policy: PolicyContent::Baseline,
            seed: 1,
            max_new_tokens: 64,
            batch: NonZeroU16::MIN,
            system: Some(""),
            dtype: Dtype::Bfloat16,
            questions: vec![QuestionContent { id: 81, category: "writing", turns: &turns }],
            chat: None,
            sample: None,
        };
        let keys = [
            runner.source.key().clone(),
            runner.run_key(&cell),
            runner.answers_key(&trained, 0),
            runner.scores_key(&trained, 0),
            runner.scores_key(&Subject::Baseline { seed: 0 }, 0),
            Key::of("answers", &answers),
            Key::of("scores", &endpoint),
        ];
        assert_eq!(
            keys.each_ref().map(Key::as_str),
            [
                "a470748df885a9e1",
                "2f302d022e7dbe6d",
                "6fb87732b178efd5",
                "227bf567e6e8a989",
                "2a4684d896c4b7ca",
                "9418a0bbaff485db",
                "a591d30a73c337c9",
            ],
            "source, run, answers, scores of a run and of SFT, answers of a given source, scores of endpoints"
        );
        assert_ne!(runner.answers_key(&trained, 1), runner.answers_key(&trained, 0));
        assert_ne!(runner.scores_key(&trained, 1), runner.scores_key(&trained, 0));
    }
}
