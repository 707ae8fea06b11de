//! The interface of models that answer questions.

use std::error::Error;

/// A conversation without its next answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation<'a> {
    /// The question. With the turn it names the random stream of the answer.
    pub question_id: u64,
    /// The turn to answer: 1 or 2.
    pub turn: u8,
    /// The user's messages, one a turn.
    pub user: Vec<&'a str>,
    /// The model's messages: one fewer than `user`.
    pub assistant: Vec<&'a str>,
    /// Sampling temperature; below 1e-4 greedy.
    pub temperature: f64,
}

/// Answers conversations: a local policy, or a model behind an endpoint.
pub trait Responder {
    /// Returns the answers to `conversations`, in their order.
    ///
    /// # Errors
    ///
    /// Any failure of the model. No answer of the wave is then kept.
    fn respond(
        &mut self,
        conversations: &[Conversation<'_>],
    ) -> Result<Vec<String>, Box<dyn Error + Send + Sync>>;
}
