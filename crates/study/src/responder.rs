//! A policy that answers the benchmark.

use std::error::Error;
use std::path::Path;

use mtbench::{Conversation, Responder};
use policy_model::{GenerationOptions, GenerationRequest, Policy, Sampling};
use pref_data::{Message, RenderMode, Tokenizer};
use seeds::Seeds;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::error::StudyError;

/// Answers conversations with a policy, many at a time.
///
/// Each answer draws from a stream of its own, named after question and turn, so that no answer depends on which
/// others are asked with it.
#[derive(Debug)]
pub struct PolicyResponder<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Its tokenizer and chat template.
    pub tokenizer: &'a Tokenizer,
    /// What stands before every dialogue, if anything. FastChat puts an empty system message before Zephyr's.
    pub system: Option<String>,
    /// Where answers draw from.
    pub seeds: Seeds,
    /// The longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Conversations answered at a time.
    pub max_batch: usize,
}

/// A model folder that can answer: weights, tokenizer and chat template.
#[derive(Debug)]
pub struct LoadedPolicy {
    policy: Policy,
    tokenizer: Tokenizer,
}

impl LoadedPolicy {
    /// Reads the Hugging Face folder `folder`, in fp32.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, and where it holds no chat template: a guess at how questions are put would be silently
    /// wrong.
    pub fn open(folder: &Path) -> Result<Self, StudyError> {
        Self::open_on(folder, Device::Cpu)
    }

    /// As [`open`](Self::open), to compute on `device`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on(folder: &Path, device: Device) -> Result<Self, StudyError> {
        Self::open_in(folder, Kind::Float, device)
    }

    /// As [`open`](Self::open), to compute in `kind` on `device`; in fp32 where the processor has no bfloat16 arithmetic.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_in(folder: &Path, kind: Kind, device: Device) -> Result<Self, StudyError> {
        let tokenizer = tokenizer_with_template(folder)?;
        let emulated = kind == Kind::BFloat16 && !policy_model::native_bf16(device);
        let kind = if emulated { Kind::Float } else { kind };
        Ok(Self { policy: Policy::load(folder, kind, device)?, tokenizer })
    }

    /// Who answers with it: `max_batch` conversations at a time, each with at most `max_new_tokens` tokens, and no system
    /// message.
    pub fn responder(&self, seeds: Seeds, max_new_tokens: u32, max_batch: u16) -> PolicyResponder<'_> {
        PolicyResponder {
            policy: &self.policy,
            tokenizer: &self.tokenizer,
            system: None,
            seeds,
            max_new_tokens: max_new_tokens as usize,
            max_batch: usize::from(max_batch),
        }
    }
}

/// The tokenizer of a model folder that says how questions are put.
///
/// # Errors
///
/// Where it cannot be read, and where it holds no chat template.
pub fn tokenizer_with_template(folder: &Path) -> Result<Tokenizer, StudyError> {
    let tokenizer = Tokenizer::from_folder(folder)?;
    if !tokenizer.has_chat_template() {
        return Err(StudyError::Unsupported(format!(
            "{} has no chat template: add `chat_template` to its tokenizer_config.json, or a file chat_template.jinja, that \
             puts questions as the model was trained on them",
            folder.display()
        )));
    }
    Ok(tokenizer)
}

impl PolicyResponder<'_> {
    /// What conversations of the benchmark come to, each with the stream that its question and turn name.
    pub(crate) fn asked(&self, conversations: &[Conversation<'_>]) -> Vec<Asked> {
        let asked = |conversation: &Conversation<'_>| Asked {
            messages: chat_messages(conversation, self.system.as_deref()),
            temperature: conversation.temperature,
            stream: (format!("answer-turn-{}", conversation.turn), conversation.question_id),
        };
        conversations.iter().map(asked).collect()
    }

    /// Answers conversations, each with its own temperature and stream.
    ///
    /// # Errors
    ///
    /// Where a conversation cannot be rendered or does not fit the policy.
    pub fn answer(&self, asked: &[Asked]) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        let stop_tokens = self.tokenizer.stop_tokens().to_vec();
        let mut requests = Vec::with_capacity(asked.len());
        for asked in asked {
            let text = self.tokenizer.render_chat(&asked.messages, RenderMode::AwaitAnswer)?;
            let sampling = Sampling {
                temperature: asked.temperature,
                top_k: None,
                top_p: 1.0,
                max_new_tokens: self.max_new_tokens,
                stop_tokens: stop_tokens.clone(),
            };
            let stream = self.seeds.indexed(&asked.stream.0, asked.stream.1);
            requests.push(GenerationRequest { prompt: self.tokenizer.encode(&text)?, sampling, stream });
        }
        let options = GenerationOptions { max_batch: self.max_batch };
        let answers = self.policy.generate(&requests, &options)?;
        answers.iter().map(|answer| Ok(self.tokenizer.decode(&answer.tokens)?.trim().to_owned())).collect()
    }
}

/// A conversation that waits for an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// What was said so far; the last message is the user's.
    pub messages: Vec<Message>,
    /// Sampling temperature; below 1e-4 greedy.
    pub temperature: f64,
    /// Name and index of the answer's random stream.
    pub stream: (String, u64),
}

impl Responder for PolicyResponder<'_> {
    fn respond(
        &mut self,
        conversations: &[Conversation<'_>],
    ) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        self.answer(&self.asked(conversations))
    }
}

/// The messages of a conversation that waits for its next answer, behind `system` if there is one.
pub fn chat_messages(conversation: &Conversation<'_>, system: Option<&str>) -> Vec<Message> {
    let mut messages: Vec<Message> = system.map(Message::system).into_iter().collect();
    for (turn, user) in conversation.user.iter().enumerate() {
        messages.push(Message::user(*user));
        if let Some(answer) = conversation.assistant.get(turn) {
            messages.push(Message::assistant(*answer));
        }
    }
    messages
}
