//! A policy that answers the benchmark.

use std::error::Error;

use mtbench::{Conversation, Responder};
use policy_model::{GenerationOptions, GenerationRequest, Policy, Sampling};
use pref_data::{Message, RenderMode, Tokenizer};
use seeds::Seeds;

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
    /// Where answers draw from.
    pub seeds: Seeds,
    /// The longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Conversations answered at a time.
    pub max_batch: usize,
}

impl PolicyResponder<'_> {
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
#[derive(Clone, Debug)]
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
        let asked: Vec<Asked> = conversations
            .iter()
            .map(|conversation| Asked {
                messages: messages(conversation),
                temperature: conversation.temperature,
                stream: (format!("answer-turn-{}", conversation.turn), conversation.question_id),
            })
            .collect();
        self.answer(&asked)
    }
}

fn messages(conversation: &Conversation<'_>) -> Vec<Message> {
    let mut messages = Vec::new();
    for (turn, user) in conversation.user.iter().enumerate() {
        messages.push(Message::user(*user));
        if let Some(answer) = conversation.assistant.get(turn) {
            messages.push(Message::assistant(*answer));
        }
    }
    messages
}
