//! The sandbox: tokenizer, supervised policy, preferences, questions.
//!
//! Everything is created once in the store, and then read like a given model and given data.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use inference::{PolicyResponder, Request};
use mtbench::{Answer, Choice, Question};
use policy_model::{ModelConfig, Policy};
use pref_data::{Message, PreferenceRecord, Text, Tokenizer, tokenize_dialogue, write_records};
use rand::RngExt;
use sandbox::{Mixture, Size, TrainingPrompt};
use seeds::Seeds;
use serde::Serialize;
use tch::{Device, Kind};
use trainer::{
    AdamWSettings, Context, Decay, Length, MicroBatch, MomentKind, Order, Outcome, RunDir, Start,
    SupervisedRun, TrainSettings, Trained, run_supervised,
};

use crate::error::ExperimentError;
use crate::setup::{SandboxSection, Setup};
use crate::store::{Key, ResultStore, create_folder};

/// Temperature of sampled responses.
const RESPONSE_TEMPERATURE: f64 = 1.0;
/// Shares of each policy among the responses.
const RESPONDENTS: [(Respondent, f64); 3] =
    [(Respondent::Supervised, 0.5), (Respondent::Strong, 0.25), (Respondent::Weak, 0.25)];
/// Responses per prompt.
const RESPONSES: usize = 2;
/// Conversations per batch.
const BATCH: usize = 256;
/// Maximum length of a demonstration; none is longer.
const MAX_LENGTH: usize = 256;
/// Demonstrations that represent the sandbox's code in the address.
const FINGERPRINT_DIALOGUES: usize = 256;

/// The sandbox as a data source.
#[derive(Debug)]
pub(crate) struct SandboxSource {
    folder: PathBuf,
    pub(super) key: Key,
    pub(super) seeds: Seeds,
    section: SandboxSection,
    pub(super) questions: Vec<Question>,
    pub(super) further: Vec<Question>,
    pub(super) references: Vec<Answer>,
    tokenizer: OnceCell<Tokenizer>,
}

/// What determines the address of a sandbox.
#[derive(Serialize)]
struct SourceContent<'a> {
    seed: u64,
    sandbox: &'a SandboxSection,
    /// A digest of what the code generates from the seed.
    code: String,
}

/// A file of records to create.
struct RecordSet {
    seed: u64,
    /// The name of its random stream.
    stream: &'static str,
    pairs: usize,
    path: PathBuf,
}

/// A policy that samples responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Respondent {
    Supervised,
    Strong,
    Weak,
}

impl SandboxSource {
    pub(super) fn new(setup: &Setup, store: &ResultStore) -> Result<Self, ExperimentError> {
        let seeds = Seeds::new(setup.seed).child("sandbox");
        let mut questions = sandbox::questions(&seeds);
        super::keep_evenly(&mut questions, setup.questions)?;
        let section = setup.sandbox.clone();
        let content = SourceContent { seed: setup.seed, sandbox: &section, code: fingerprint(&seeds) };
        let key = Key::of("sandbox", &content);
        Ok(Self {
            folder: store.source(&key),
            further: sandbox::further_questions(&seeds, section.further_questions),
            references: references(&questions),
            questions,
            key,
            seeds,
            section,
            tokenizer: OnceCell::new(),
        })
    }

    pub(super) fn model(&self) -> PathBuf {
        self.run_folder("sft").join("model")
    }

    pub(super) fn records(&self, seed: u64) -> PathBuf {
        self.folder.join(format!("records-{seed}.jsonl"))
    }

    pub(super) fn held_out(&self, seed: u64) -> Option<PathBuf> {
        (self.section.held_out > 0).then(|| self.folder.join(format!("held-out-{seed}.jsonl")))
    }

    pub(super) fn max_new_tokens(&self) -> usize {
        self.section.max_new_tokens
    }

    fn replicate(&self, seed: u64) -> Seeds {
        self.seeds.child(&format!("replicate-{seed}"))
    }

    pub(super) fn pairs(&self) -> Result<u64, ExperimentError> {
        Ok(self.section.pairs as u64)
    }

    pub(super) fn tokenizer(&self) -> Result<&Tokenizer, ExperimentError> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = Tokenizer::from_folder(self.tokenizer_folder())?;
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    pub(super) fn is_prepared(&self, seeds: u64) -> bool {
        self.model().exists() && self.missing(seeds).is_empty()
    }

    pub(super) fn preparation_left(&self, seeds: u64) -> (u64, u64) {
        let section = &self.section;
        let mut steps = 0;
        for (name, dialogues) in [("sft", section.demonstrations), ("strong", section.strong_demonstrations)]
        {
            if RunDir::open_finished(&self.run_folder(name)).is_err() {
                steps += dialogues.div_ceil(section.sft_batch_size) as u64;
            }
        }
        let pairs: usize = self.missing(seeds).iter().map(|set| set.pairs).sum();
        (steps, (pairs * RESPONSES) as u64)
    }

    pub(super) fn prepare(&self, seeds: u64, context: &mut Context<'_>) -> Result<(), ExperimentError> {
        if self.is_prepared(seeds) {
            return Ok(());
        }
        if !self.tokenizer_folder().exists() {
            create_folder(&self.tokenizer_folder(), |partial| {
                sandbox::write_tokenizer_folder(partial, &self.seeds).map(drop).map_err(ExperimentError::from)
            })?;
        }
        self.fine_tune("sft", Mixture::Ordinary, context)?;
        self.fine_tune("strong", Mixture::Strong, context)?;
        for set in self.missing(seeds) {
            self.make_records(&set, context)?;
        }
        Ok(())
    }

    /// Returns the missing files of records of `seeds` replicates.
    fn missing(&self, seeds: u64) -> Vec<RecordSet> {
        let sets = (0..seeds).flat_map(|seed| {
            let trained_on =
                RecordSet { seed, stream: "records", pairs: self.section.pairs, path: self.records(seed) };
            let held_out = self.held_out(seed).map(|path| RecordSet {
                seed,
                stream: "held-out",
                pairs: self.section.held_out,
                path,
            });
            [trained_on].into_iter().chain(held_out)
        });
        sets.filter(|set| !set.path.exists()).collect()
    }

    fn tokenizer_folder(&self) -> PathBuf {
        self.folder.join("tokenizer")
    }

    fn run_folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Fine-tunes a policy; the strong one starts from the supervised one.
    fn fine_tune(
        &self,
        name: &str,
        mixture: Mixture,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        let described = format!("# {name} policy of the sandbox\n{:#?}\n", self.section);
        let dir = RunDir::open(&self.run_folder(name), &described, Start::FreshOrResume)?;
        if dir.is_finished() {
            return Ok(());
        }
        let tokenizer = self.tokenizer()?;
        let seeds = self.seeds.child(name);
        let (policy, count, rate, checkpoints) = match mixture {
            Mixture::Ordinary => {
                let config =
                    ModelConfig::from_json(sandbox::model_config(Size::Small, tokenizer.vocab_size()))?;
                let policy = Policy::initialize(config, &seeds, Kind::Float, Device::Cpu)?;
                let section = &self.section;
                (policy, section.demonstrations, section.sft_learning_rate, vec![section.weak_after, 1.0])
            }
            Mixture::Strong => {
                let policy = Policy::load(&self.model(), Kind::Float, Device::Cpu)?;
                (policy, self.section.strong_demonstrations, self.section.sft_learning_rate / 4.0, vec![1.0])
            }
        };
        let dialogues = sandbox::demonstrations(&seeds, count, mixture)
            .iter()
            .map(|dialogue| tokenize_dialogue(dialogue, tokenizer, MAX_LENGTH))
            .collect::<Result<Vec<_>, _>>()?;
        let run = SupervisedRun {
            policy: &policy,
            companions: &self.tokenizer_folder(),
            dialogues: &dialogues,
            settings: sft_settings(self.section.sft_batch_size, rate, checkpoints, seeds),
            dir: &dir,
        };
        match run_supervised(run, context)? {
            Outcome::Finished => Ok(()),
            Outcome::Stopped(_) => Err(ExperimentError::Stopped),
        }
    }

    /// Returns the folder of a respondent's policy.
    fn respondent(&self, respondent: Respondent) -> Result<PathBuf, ExperimentError> {
        Ok(match respondent {
            Respondent::Supervised => self.model(),
            Respondent::Strong => self.run_folder("strong").join("model"),
            Respondent::Weak => {
                let dir = RunDir::open_finished(&self.run_folder("sft"))?;
                let checkpoints = dir.list_checkpoints()?;
                let (_, first) = checkpoints.into_iter().next().ok_or_else(|| {
                    ExperimentError::Unsupported("the supervised run has no early checkpoint".to_owned())
                })?;
                first
            }
        })
    }

    fn make_records(&self, set: &RecordSet, context: &mut Context<'_>) -> Result<(), ExperimentError> {
        let seeds = self.replicate(set.seed).child(set.stream);
        let prompts = sandbox::training_prompts(&seeds, set.pairs);
        context.progress.begin(&format!("sampling responses, {}, seed {}", set.stream, set.seed), 3);
        let first = self.responses(&prompts, "first", &seeds)?;
        context.progress.advance(1, "");
        let mut second = self.responses(&prompts, "second", &seeds)?;
        context.progress.advance(2, "");
        // Equal responses have no preference: sample once more, then leave the prompt out.
        let equal: Vec<usize> = (0..prompts.len()).filter(|&i| first[i] == second[i]).collect();
        let again: Vec<TrainingPrompt> = equal.iter().map(|&i| prompts[i].clone()).collect();
        for (i, response) in equal.iter().zip(self.responses(&again, "third", &seeds)?) {
            second[*i] = response;
        }
        context.progress.end();
        let mut records: Vec<PreferenceRecord> = prompts
            .into_iter()
            .zip(first.into_iter().zip(second))
            .filter(|(_, (a, b))| a != b && !a.is_empty() && !b.is_empty())
            .map(|(prompt, (a, b))| PreferenceRecord {
                id: prompt.id,
                prompt: Text::Chat(prompt.messages),
                responses: [a, b].map(|answer| Text::Chat(vec![Message::assistant(answer)])).into(),
                labels: BTreeMap::new(),
                domain: Some(prompt.category.to_owned()),
                context: Default::default(),
            })
            .collect();
        sandbox::label_all(&mut records, &seeds);
        write_records(&set.path, &records)?;
        Ok(())
    }

    /// Samples one response to every prompt, each by a random respondent.
    fn responses(
        &self,
        prompts: &[TrainingPrompt],
        which: &str,
        seeds: &Seeds,
    ) -> Result<Vec<String>, ExperimentError> {
        let mut by_respondent: BTreeMap<Respondent, Vec<usize>> = BTreeMap::new();
        for i in 0..prompts.len() {
            let draw: f64 = seeds.indexed(&format!("{which}-respondent"), i as u64).random();
            by_respondent.entry(respondent(draw)).or_default().push(i);
        }
        let tokenizer = self.tokenizer()?;
        let mut responses = vec![String::new(); prompts.len()];
        for (respondent, indices) in by_respondent {
            let policy = Policy::load(&self.respondent(respondent)?, Kind::Float, Device::Cpu)?;
            let responder = PolicyResponder {
                policy: &policy,
                tokenizer,
                system: None,
                seeds: *seeds,
                max_new_tokens: self.section.max_new_tokens,
                max_batch: BATCH,
            };
            let requests: Vec<Request> = indices
                .iter()
                .map(|&i| Request {
                    messages: prompts[i].messages.clone(),
                    temperature: RESPONSE_TEMPERATURE,
                    stream: (format!("{which}-response"), i as u64),
                })
                .collect();
            let answers = responder.answer(&requests).map_err(ExperimentError::Responder)?;
            for (i, answer) in indices.into_iter().zip(answers) {
                responses[i] = answer;
            }
        }
        Ok(responses)
    }
}

fn respondent(draw: f64) -> Respondent {
    let mut below = 0.0;
    for (respondent, share) in RESPONDENTS {
        below += share;
        if draw < below {
            return respondent;
        }
    }
    Respondent::Weak
}

/// Returns a digest of what the sandbox's code generates, so that changed code has another address.
fn fingerprint(seeds: &Seeds) -> String {
    let mut hasher = blake3::Hasher::new();
    for dialogue in sandbox::demonstrations(seeds, FINGERPRINT_DIALOGUES, Mixture::Ordinary) {
        for (k, message) in dialogue.iter().enumerate() {
            hasher.update(message.content().as_bytes());
            hasher.update(&sandbox::gold_quality(&dialogue[..k], &message.content()).to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// Returns the ideal answers in FastChat's format.
fn references(questions: &[Question]) -> Vec<Answer> {
    let reference = |question: &Question| {
        Some(Answer {
            question_id: question.question_id,
            answer_id: Some(format!("reference-{}", question.question_id)),
            model_id: "sandbox-reference".to_owned(),
            choices: vec![Choice::new(sandbox::reference_turns(question)?)],
            tstamp: Some(0.0),
            extra: serde_json::Map::new(),
        })
    };
    questions.iter().filter_map(reference).collect()
}

fn sft_settings(batch_size: usize, learning_rate: f64, checkpoints: Vec<f64>, seeds: Seeds) -> TrainSettings {
    TrainSettings {
        length: Length::Epochs(1.0),
        batch_size,
        micro_batch: MicroBatch::Examples(batch_size),
        learning_rate,
        warmup_ratio: 0.05,
        decay: Decay::Linear,
        adamw: AdamWSettings {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            moments: MomentKind::Float,
        },
        max_grad_norm: 1.0,
        checkpoints,
        kind: Kind::Float,
        trained: Trained::All,
        order: Order::Shuffled,
        seeds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn respondents_have_their_shares() {
        assert_eq!(respondent(0.0), Respondent::Supervised);
        assert_eq!(respondent(0.49), Respondent::Supervised);
        assert_eq!(respondent(0.5), Respondent::Strong);
        assert_eq!(respondent(0.75), Respondent::Weak);
        assert_eq!(respondent(0.999_999), Respondent::Weak);
    }
}
