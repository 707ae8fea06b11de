//! A policy that answers conversations.

use std::error::Error;
use std::path::Path;

use distributed::{Exchange, ProcessGroup};
use mtbench::{Conversation, Responder};
use policy_model::{Finish, GenerationOptions, GenerationRequest, Policy, Sampling};
use pref_data::{ChatSettings, Message, RenderMode, Tokenizer};
use seeds::Seeds;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::InferenceError;

/// Answers conversations with a policy, in batches.
///
/// Each answer draws from its own random stream, named after question and turn.
/// An answer therefore does not depend on the other conversations of its batch.
#[derive(Debug)]
pub struct PolicyResponder<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Its tokenizer and chat template.
    pub tokenizer: &'a Tokenizer,
    /// The system message of every conversation. FastChat's template for Zephyr has an empty one.
    pub system: Option<String>,
    /// The random streams of the answers.
    pub seeds: Seeds,
    /// Maximum length of an answer, in tokens.
    pub max_new_tokens: usize,
    /// Conversations per batch.
    pub max_batch: usize,
}

/// A model that can answer: weights, tokenizer and chat template.
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
    /// If the folder cannot be read or has no chat template.
    pub fn open(folder: &Path) -> Result<Self, InferenceError> {
        Self::open_on(folder, Device::Cpu, &ChatSettings::default())
    }

    /// Reads the folder to compute in fp32 on `device`, with the chat settings `chat`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on(folder: &Path, device: Device, chat: &ChatSettings) -> Result<Self, InferenceError> {
        Self::open_in(folder, Kind::Float, device, chat)
    }

    /// Reads the folder to compute in `kind` on `device`; in fp32 on processors without bfloat16 arithmetic.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_in(
        folder: &Path,
        kind: Kind,
        device: Device,
        chat: &ChatSettings,
    ) -> Result<Self, InferenceError> {
        let tokenizer = tokenizer_with_template(folder, chat)?;
        Ok(Self { policy: Policy::load(folder, supported(kind, device), device)?, tokenizer })
    }

    /// Reads the folder, of which each rank of `group` keeps its shard: the ranks answer together, and gather each layer while it
    /// computes.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_over_ranks(
        folder: &Path,
        kind: Kind,
        chat: &ChatSettings,
        (group, exchange): (&ProcessGroup, Exchange),
    ) -> Result<Self, InferenceError> {
        let tokenizer = tokenizer_with_template(folder, chat)?;
        let device = group.device().unwrap_or(Device::Cpu);
        let policy = trainer::load_over_ranks(folder, (supported(kind, device), device), group, exchange)?;
        Ok(Self { policy, tokenizer })
    }

    /// Takes a policy that was trained on `folder`'s weights in this process, as [`open_in`](Self::open_in) would read it from
    /// `folder`. Returns `None` if it computes in another kind or on another device.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn of_trained(
        policy: &Policy,
        folder: &Path,
        (kind, device): (Kind, Device),
        chat: &ChatSettings,
    ) -> Result<Option<Self>, InferenceError> {
        if policy.kind() != kind || policy.device() != device {
            return Ok(None);
        }
        // Separate tensors, as in a policy that is read: memory for training is freed, and products round in the same way.
        let copied = policy.parameters().iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy()));
        let policy = Policy::from_parameters(policy.config().clone(), copied.collect())?;
        Ok(Some(Self { policy, tokenizer: tokenizer_with_template(folder, chat)? }))
    }

    /// Returns a responder without a system message.
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

/// Returns `kind`, or fp32 on processors without bfloat16 arithmetic.
fn supported(kind: Kind, device: Device) -> Kind {
    let is_emulated = kind == Kind::BFloat16 && !policy_model::native_bf16(device);
    if is_emulated { Kind::Float } else { kind }
}

/// Reads the tokenizer of a model folder, which must have a chat template.
///
/// # Errors
///
/// If the tokenizer cannot be read, and [`InferenceError::NoChatTemplate`].
pub fn tokenizer_with_template(folder: &Path, chat: &ChatSettings) -> Result<Tokenizer, InferenceError> {
    let tokenizer = Tokenizer::open(folder, chat)?;
    if !tokenizer.has_chat_template() {
        return Err(InferenceError::NoChatTemplate { folder: folder.to_owned() });
    }
    Ok(tokenizer)
}

impl PolicyResponder<'_> {
    /// Returns the requests for conversations of the benchmark.
    pub(crate) fn requests(&self, conversations: &[Conversation<'_>]) -> Vec<Request> {
        let request = |conversation: &Conversation<'_>| Request {
            messages: chat_messages(conversation, self.system.as_deref()),
            temperature: conversation.temperature,
            stream: (format!("answer-turn-{}", conversation.turn), conversation.question_id),
        };
        conversations.iter().map(request).collect()
    }

    /// Answers conversations, each with its own temperature and stream.
    ///
    /// # Errors
    ///
    /// If a conversation cannot be rendered or exceeds the context of the policy.
    pub fn answer(&self, requests: &[Request]) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        let stop_tokens = self.tokenizer.stop_tokens().to_vec();
        let mut prompts = Vec::with_capacity(requests.len());
        for request in requests {
            let text = self.tokenizer.render_chat(&request.messages, RenderMode::AwaitAnswer)?;
            let sampling = Sampling {
                temperature: request.temperature,
                top_k: None,
                top_p: 1.0,
                max_new_tokens: self.max_new_tokens,
                stop_tokens: stop_tokens.clone(),
            };
            let stream = self.seeds.indexed(&request.stream.0, request.stream.1);
            prompts.push(GenerationRequest { prompt: self.tokenizer.encode(&text)?, sampling, stream });
        }
        let options = GenerationOptions { max_batch: self.max_batch };
        let answers = self.policy.generate(&prompts, &options)?;
        let cut = answers.iter().filter(|answer| answer.finish == Finish::Length).count();
        if cut > 0 {
            let (all, most) = (answers.len(), self.max_new_tokens);
            tracing::info!("{cut} of {all} answers end at the limit of {most} tokens");
        }
        answers.iter().map(|answer| Ok(self.tokenizer.decode(&answer.tokens)?.trim().to_owned())).collect()
    }
}

/// A conversation to continue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The messages; the last one is the user's.
    pub messages: Vec<Message>,
    /// Sampling temperature; greedy below 1e-4.
    pub temperature: f64,
    /// Name and index of the answer's random stream.
    pub stream: (String, u64),
}

impl Responder for PolicyResponder<'_> {
    fn respond(
        &mut self,
        conversations: &[Conversation<'_>],
    ) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
        self.answer(&self.requests(conversations))
    }
}

/// Returns the messages of a conversation, after the system message `system`.
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
