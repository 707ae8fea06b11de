//! Several processes that answer as one.

use std::error::Error;

use mtbench::{Conversation, Responder};
use serde::{Deserialize, Serialize};

use crate::responder::{Asked, PolicyResponder};

type Failure = Box<dyn Error + Send + Sync>;

/// A policy that answers in several processes, each of which has loaded it: rank 0 is asked, as any [`Responder`], and the
/// others [`follow`](Self::follow).
///
/// What is asked at once is cut into waves of `max_batch`, and the waves are dealt out in turn. So an answer has the same bytes
/// however many ranks there are, as long as each computes with as many threads and all conversations have as many turns: nothing
/// of it depends on anything but its conversation, its stream and the wave that it is computed in. Ask for as many waves at a time as there are ranks.
#[derive(Debug)]
pub struct AnsweringTogether<'a> {
    /// This rank's.
    pub responder: PolicyResponder<'a>,
    /// The ranks.
    pub group: distributed::ProcessGroup,
}

/// How answering ends, as rank 0 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// All is answered.
    Finished,
    /// Somebody asked rank 0 to stop.
    Stopped,
}

/// What rank 0 has to say to the others.
#[derive(Debug, Serialize, Deserialize)]
enum Call {
    Answer(Vec<Asked>),
    End(Ending),
}

impl AnsweringTogether<'_> {
    /// Answers this rank's part of whatever rank 0 is asked, until that [ends](Self::end) it.
    ///
    /// # Errors
    ///
    /// As [`PolicyResponder::answer`]; where another rank fails or does not come.
    pub fn follow(&self) -> Result<Ending, Failure> {
        loop {
            let call = self.group.broadcast_from_rank0(Vec::new())?;
            match serde_json::from_slice(&call)? {
                Call::Answer(asked) => drop(self.answer(&asked)?),
                Call::End(ending) => return Ok(ending),
            }
        }
    }

    /// Rank 0: lets those that follow go.
    ///
    /// # Errors
    ///
    /// Where one of them is gone already.
    pub fn end(&self, ending: Ending) -> Result<(), Failure> {
        let call = serde_json::to_vec(&Call::End(ending))?;
        self.group.broadcast_from_rank0(call)?;
        Ok(())
    }

    /// The answers to all that is asked, of which this rank makes its part.
    fn answer(&self, asked: &[Asked]) -> Result<Vec<String>, Failure> {
        let waves = || asked.chunks(self.responder.max_batch.max(1));
        let mut own = Vec::new();
        for (_, wave) in waves().enumerate().filter(|(number, _)| self.group.owns(*number)) {
            own.push(self.responder.answer(wave)?);
        }
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

impl Responder for AnsweringTogether<'_> {
    fn respond(&mut self, conversations: &[Conversation<'_>]) -> Result<Vec<String>, Failure> {
        let call = serde_json::to_vec(&Call::Answer(self.responder.asked(conversations)))?;
        // What went to the others and came back is what all of them read.
        match serde_json::from_slice(&self.group.broadcast_from_rank0(call)?)? {
            Call::Answer(asked) => self.answer(&asked),
            Call::End(_) => Err("rank 0 alone is asked; the others follow".into()),
        }
    }
}
