//! The seam between the benchmark and whoever answers its questions.

use std::error::Error;

/// A conversation that waits for its next answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation<'a> {
    /// The question that it belongs to; with the turn it names the random stream of the answer.
    pub question_id: u64,
    /// The turn to answer: 1 or 2.
    pub turn: u8,
    /// What the user has said so far, one entry a turn.
    pub user: Vec<&'a str>,
    /// What the model has answered so far: one entry fewer than `user`.
    pub assistant: Vec<&'a str>,
    /// Sampling temperature; below 1e-4 greedy.
    pub temperature: f64,
}

/// Answers conversations: a policy of ours, or a model behind an endpoint.
pub trait Responder {
    /// Answers all of `conversations`, in their order.
    ///
    /// # Errors
    ///
    /// Whatever keeps the model from answering; no answer of the wave is kept then.
    fn respond(
        &mut self,
        conversations: &[Conversation<'_>],
    ) -> Result<Vec<String>, Box<dyn Error + Send + Sync>>;
}
