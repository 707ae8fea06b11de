//! A policy that answers on several ranks.

use std::error::Error;

use mtbench::{Conversation, Responder};
use serde::{Deserialize, Serialize};

use crate::responder::{PolicyResponder, Request};

type Failure = Box<dyn Error + Send + Sync>;

/// A policy that is loaded on several ranks. Rank 0 is a [`Responder`]; the other ranks [`follow`](Self::follow) it.
///
/// The requests are cut into waves of `max_batch`, which are dealt to the ranks in turn.
/// An answer depends on its conversation, its stream and its wave only.
/// Its bytes are therefore the same on any number of ranks, if each computes with as many threads and all conversations
/// have as many turns.
/// A single process answers all requests at once: it sorts them by length before it cuts them into batches.
#[derive(Debug)]
pub struct DistributedResponder<'a> {
    /// The responder of this rank.
    pub responder: PolicyResponder<'a>,
    /// The ranks.
    pub group: distributed::ProcessGroup,
}

/// How answering ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// All questions are answered.
    Finished,
    /// Rank 0 was asked to stop.
    Stopped,
}

/// A message of rank 0 to the other ranks.
#[derive(Debug, Serialize, Deserialize)]
enum Call {
    Answer(Vec<Request>),
    End(Ending),
}

impl DistributedResponder<'_> {
    /// Answers this rank's waves until rank 0 calls [`end`](Self::end).
    ///
    /// # Errors
    ///
    /// As [`PolicyResponder::answer`], and if another rank fails.
    pub fn follow(&self) -> Result<Ending, Failure> {
        loop {
            let call = self.group.broadcast_from_rank0(Vec::new())?;
            match serde_json::from_slice(&call)? {
                Call::Answer(requests) => drop(self.answer(&requests)?),
                Call::End(ending) => return Ok(ending),
            }
        }
    }

    /// Ends [`follow`](Self::follow) on the other ranks. Rank 0 calls it.
    ///
    /// # Errors
    ///
    /// If another rank has ended.
    pub fn end(&self, ending: Ending) -> Result<(), Failure> {
        let call = serde_json::to_vec(&Call::End(ending))?;
        self.group.broadcast_from_rank0(call)?;
        Ok(())
    }

    /// Returns the answers to all requests, of which this rank computes its waves.
    fn answer(&self, requests: &[Request]) -> Result<Vec<String>, Failure> {
        if !self.group.is_distributed() {
            return self.responder.answer(requests);
        }
        let waves = || requests.chunks(self.responder.max_batch.max(1));
        let mut own = Vec::new();
        for (_, wave) in waves().enumerate().filter(|(number, _)| self.group.owns(*number)) {
            own.push(self.responder.answer(wave)?);
        }
        // Ranks that share the layers take part in the others' waves.
        self.responder.policy.finish_passes()?;
        let mut ranks = Vec::new();
        for part in self.group.all_gather_bytes(serde_json::to_vec(&own)?)? {
            let answered: Vec<Vec<String>> = serde_json::from_slice(&part)?;
            ranks.push(answered.into_iter());
        }
        let count = ranks.len();
        let in_order = (0..waves().len()).filter_map(|number| ranks[number % count].next());
        Ok(in_order.flatten().collect())
    }
}

impl Responder for DistributedResponder<'_> {
    fn respond(&mut self, conversations: &[Conversation<'_>]) -> Result<Vec<String>, Failure> {
        let call = serde_json::to_vec(&Call::Answer(self.responder.requests(conversations)))?;
        // Rank 0 too reads the message that the others read.
        match serde_json::from_slice(&self.group.broadcast_from_rank0(call)?)? {
            Call::Answer(requests) => self.answer(&requests),
            Call::End(_) => Err("only rank 0 takes questions; the other ranks follow it".into()),
        }
    }
}
