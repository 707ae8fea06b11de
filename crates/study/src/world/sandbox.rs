//! The offline world: tokenizer, supervised policy, preference records, questions.
//!
//! Everything here is made once, kept in the store, and from then on read like a model and data of the user's own.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use mtbench::{Answer, Choice, Question};
use policy_model::{ModelConfig, Policy};
use pref_data::{Message, PreferenceRecord, Text, Tokenizer, tokenize_dialogue, write_records};
use rand::RngExt;
use sandbox::{Mixture, Size, TrainingPrompt};
use seeds::Seeds;
use tch::{Device, Kind};
use trainer::{
    AdamWSettings, Context, Decay, MicroBatch, Order, Outcome, RunDir, Start, SupervisedRun, TrainSettings,
    Trained, run_supervised,
};

use crate::error::StudyError;
use crate::recipe::{SandboxSection, StudyRecipe};
use crate::responder::{Asked, PolicyResponder};
use crate::store::{Key, ResultStore, create_folder};

/// Temperature at which responses for preference records are sampled: that of the policy as it was trained.
const RESPONSE_TEMPERATURE: f64 = 1.0;
/// Shares of the supervised, the strong and the weak policy among the responses.
const RESPONDENTS: [(Respondent, f64); 3] =
    [(Respondent::Supervised, 0.5), (Respondent::Strong, 0.25), (Respondent::Weak, 0.25)];
/// Responses to a prompt of preference records.
const RESPONSES: usize = 2;
/// Conversations answered at a time.
const BATCH: usize = 256;
/// Longer demonstrations are cut; none is, in this world.
const MAX_LENGTH: usize = 256;
/// Demonstrations that stand for the world's code in its address.
const FINGERPRINT_DIALOGUES: usize = 256;

/// What a sandbox study starts from.
#[derive(Debug)]
pub(crate) struct SandboxWorld {
    folder: PathBuf,
    pub(super) key: Key,
    pub(super) seeds: Seeds,
    section: SandboxSection,
    pub(super) questions: Vec<Question>,
    pub(super) further: Vec<Question>,
    pub(super) references: Vec<Answer>,
    tokenizer: OnceCell<Tokenizer>,
}

/// A file of records to make.
struct RecordSet {
    seed: u64,
    /// The stream that everything in it draws from.
    stream: &'static str,
    pairs: usize,
    path: PathBuf,
}

/// A policy that answers the prompts of preference records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Respondent {
    Supervised,
    Strong,
    Weak,
}

impl SandboxWorld {
    /// The world of `recipe`, as far as it is made already; [`prepare`](Self::prepare) makes the rest.
    ///
    /// # Errors
    ///
    /// Where the recipe asks for more questions than the benchmark has.
    pub(super) fn new(recipe: &StudyRecipe, store: &ResultStore) -> Result<Self, StudyError> {
        let seeds = Seeds::new(recipe.seed).child("sandbox");
        let mut questions = sandbox::questions(&seeds);
        super::keep_evenly(&mut questions, recipe.study.questions)?;
        let section = recipe.sandbox.clone();
        let described = format!("{section:?} seed {}", recipe.seed);
        let key = Key::of(&["sandbox world", &described, &fingerprint(&seeds)]);
        Ok(Self {
            folder: store.world(&key),
            further: sandbox::further_questions(&seeds, section.further_questions),
            references: references(&questions),
            questions,
            key,
            seeds,
            section,
            tokenizer: OnceCell::new(),
        })
    }

    /// The supervised policy, a Hugging Face folder; there after [`prepare`](Self::prepare).
    pub(super) fn model(&self) -> PathBuf {
        self.run_folder("sft").join("model")
    }

    /// The preference records of one replicate; there after [`prepare`](Self::prepare).
    pub(super) fn records(&self, seed: u64) -> PathBuf {
        self.folder.join(format!("records-{seed}.jsonl"))
    }

    /// Records of the same replicate that are not trained on; none where the recipe wants none.
    pub(super) fn held_out(&self, seed: u64) -> Option<PathBuf> {
        (self.section.held_out > 0).then(|| self.folder.join(format!("held-out-{seed}.jsonl")))
    }

    /// The longest answer, in tokens.
    pub(super) fn max_new_tokens(&self) -> usize {
        self.section.max_new_tokens
    }

    fn replicate(&self, seed: u64) -> Seeds {
        self.seeds.child(&format!("replicate-{seed}"))
    }

    pub(super) fn pairs(&self) -> Result<u64, StudyError> {
        Ok(self.section.pairs as u64)
    }

    /// The tokenizer of all policies; there after [`prepare`](Self::prepare).
    ///
    /// # Errors
    ///
    /// Where its folder cannot be read.
    pub(super) fn tokenizer(&self) -> Result<&Tokenizer, StudyError> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = Tokenizer::from_folder(self.tokenizer_folder())?;
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    /// Whether everything is made that `seeds` replicates start from.
    pub(super) fn is_prepared(&self, seeds: u64) -> bool {
        self.model().exists() && self.missing(seeds).is_empty()
    }

    /// What [`prepare`](Self::prepare) has left to do for `seeds` replicates: optimiser steps, and answers to sample.
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

    /// Makes what is missing: tokenizer, policies, and the records of `seeds` replicates.
    ///
    /// # Errors
    ///
    /// Where a folder cannot be written, training fails, or somebody asks to stop.
    pub(super) fn prepare(&self, seeds: u64, context: &mut Context<'_>) -> Result<(), StudyError> {
        if self.is_prepared(seeds) {
            return Ok(());
        }
        if !self.tokenizer_folder().exists() {
            create_folder(&self.tokenizer_folder(), |partial| {
                sandbox::write_tokenizer_folder(partial, &self.seeds).map(drop).map_err(StudyError::from)
            })?;
        }
        self.fine_tune("sft", Mixture::Ordinary, context)?;
        self.fine_tune("strong", Mixture::Strong, context)?;
        for set in self.missing(seeds) {
            self.make_records(&set, context)?;
        }
        Ok(())
    }

    /// The files of records that `seeds` replicates lack.
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

    /// Supervised fine-tuning; the strong policy goes on from the supervised one with better demonstrations.
    fn fine_tune(&self, name: &str, mixture: Mixture, context: &mut Context<'_>) -> Result<(), StudyError> {
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
            Outcome::Stopped(_) => Err(StudyError::Stopped),
        }
    }

    /// The folder of the policy that answers as `respondent`.
    fn respondent(&self, respondent: Respondent) -> Result<PathBuf, StudyError> {
        Ok(match respondent {
            Respondent::Supervised => self.model(),
            Respondent::Strong => self.run_folder("strong").join("model"),
            Respondent::Weak => {
                let dir = RunDir::open_finished(&self.run_folder("sft"))?;
                let checkpoints = dir.list_checkpoints()?;
                let (_, first) = checkpoints.into_iter().next().ok_or_else(|| {
                    StudyError::Unsupported("the supervised run left no early checkpoint".to_owned())
                })?;
                first
            }
        })
    }

    fn make_records(&self, set: &RecordSet, context: &mut Context<'_>) -> Result<(), StudyError> {
        let seeds = self.replicate(set.seed).child(set.stream);
        let prompts = sandbox::training_prompts(&seeds, set.pairs);
        context.progress.begin(&format!("sampling responses, {}, seed {}", set.stream, set.seed), 3);
        let first = self.responses(&prompts, "first", &seeds)?;
        context.progress.advance(1, "");
        let mut second = self.responses(&prompts, "second", &seeds)?;
        context.progress.advance(2, "");
        // Two equal responses carry no preference: ask once more, and leave the prompt out if that does not help.
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
            })
            .collect();
        sandbox::label_all(&mut records, &seeds);
        write_records(&set.path, &records)?;
        Ok(())
    }

    /// One response to every prompt, each by a policy that is drawn.
    fn responses(
        &self,
        prompts: &[TrainingPrompt],
        which: &str,
        seeds: &Seeds,
    ) -> Result<Vec<String>, StudyError> {
        let mut by_respondent: BTreeMap<Respondent, Vec<usize>> = BTreeMap::new();
        for i in 0..prompts.len() {
            let draw: f64 = seeds.indexed(&format!("{which}-respondent"), i as u64).random();
            by_respondent.entry(respondent(draw)).or_default().push(i);
        }
        let tokenizer = self.tokenizer()?;
        let mut responses = vec![String::new(); prompts.len()];
        for (who, indices) in by_respondent {
            let policy = Policy::load(&self.respondent(who)?, Kind::Float, Device::Cpu)?;
            let responder = PolicyResponder {
                policy: &policy,
                tokenizer,
                system: None,
                seeds: *seeds,
                max_new_tokens: self.section.max_new_tokens,
                max_batch: BATCH,
            };
            let asked: Vec<Asked> = indices
                .iter()
                .map(|&i| Asked {
                    messages: prompts[i].messages.clone(),
                    temperature: RESPONSE_TEMPERATURE,
                    stream: (format!("{which}-response"), i as u64),
                })
                .collect();
            let answers = responder.answer(&asked).map_err(StudyError::responder)?;
            for (i, answer) in indices.into_iter().zip(answers) {
                responses[i] = answer;
            }
        }
        Ok(responses)
    }
}

fn respondent(draw: f64) -> Respondent {
    let mut below = 0.0;
    for (who, share) in RESPONDENTS {
        below += share;
        if draw < below {
            return who;
        }
    }
    Respondent::Weak
}

/// What the sandbox's code makes of `seeds`, in short: a changed world has another address.
fn fingerprint(seeds: &Seeds) -> String {
    let mut hasher = blake3::Hasher::new();
    for dialogue in sandbox::demonstrations(seeds, FINGERPRINT_DIALOGUES, Mixture::Ordinary) {
        for (k, message) in dialogue.iter().enumerate() {
            hasher.update(message.content.as_bytes());
            hasher.update(&sandbox::gold_quality(&dialogue[..k], &message.content).to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The ideal answers, in the form of FastChat's reference files.
fn references(questions: &[Question]) -> Vec<Answer> {
    let reference = |question: &Question| {
        Some(Answer {
            question_id: question.question_id,
            answer_id: format!("reference-{}", question.question_id),
            model_id: "sandbox-reference".to_owned(),
            choices: vec![Choice { index: 0, turns: sandbox::reference_turns(question)? }],
            tstamp: 0.0,
            extra: serde_json::Map::new(),
        })
    };
    questions.iter().filter_map(reference).collect()
}

fn sft_settings(batch_size: usize, learning_rate: f64, checkpoints: Vec<f64>, seeds: Seeds) -> TrainSettings {
    TrainSettings {
        epochs: 1,
        batch_size,
        micro_batch: MicroBatch::Examples(batch_size),
        learning_rate,
        warmup_ratio: 0.05,
        decay: Decay::Linear,
        adamw: AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 },
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
