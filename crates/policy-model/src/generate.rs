//! Batched generation with a preallocated key-value cache.

use std::collections::VecDeque;

use tch::{Device, Kind, Tensor};

use crate::attention::{Masks, Packed, PackedRows, Padded, ScoreMask};
use crate::cache::{Cache, Prefill};
use crate::error::PolicyError;
use crate::families::Family;
use crate::on_device::on_device;
use crate::policy::Policy;
use crate::rope::RopeScaling;
use crate::sampling::{Decision, Sampling, decide};

/// A prompt to continue.
#[derive(Clone, Debug)]
pub struct GenerationRequest {
    /// Token ids; at least one.
    pub prompt: Vec<u32>,
    /// The sampling parameters.
    pub sampling: Sampling,
    /// The random numbers of this request, one per sampled token. They depend neither on the batch nor on the order of requests.
    pub stream: seeds::Stream,
}

/// Batching of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationOptions {
    /// Sequences that are computed at a time.
    pub max_batch: usize,
}

/// A continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// New token ids, without the stop token.
    pub tokens: Vec<u32>,
    /// The reason of its end.
    pub finish: Finish,
    /// One per decision, the stop token included: the distance of the probability from another choice. Greedy: the lead of the
    /// likeliest token over the second. Sampled: the distance of the uniform draw from the nearer end of the token's interval in
    /// the cumulative distribution, or from a change at the edge of `top_k` or `top_p` that could change the choice. Rounding
    /// differs between batch sizes, so answers may differ where a margin is about as small as the rounding.
    pub margins: Vec<f32>,
}

/// The reason of the end of a continuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// This stop token was generated.
    Stop(u32),
    /// `max_new_tokens` were generated.
    Length,
}

/// More tokens than any model reads. Larger requests are mistakes, and their column numbers might overflow.
const MAX_TOKENS: usize = 1 << 24;

impl Policy {
    /// Continues all requests, and returns the results in their order.
    ///
    /// Computes up to `max_batch` requests at a time, those with the longest prompts first. Waiting requests take the places of
    /// finished ones, a quarter of the batch at a time; without any, the batch shrinks when at most half of it is still running.
    ///
    /// # Errors
    /// A prompt is empty or has an id outside the vocabulary, sampling parameters are out of range, the cache exceeds the
    /// memory, a kernel fails, or the model's probabilities are NaN.
    pub fn generate(
        &self,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
    ) -> Result<Vec<Generation>, PolicyError> {
        for (index, request) in requests.iter().enumerate() {
            self.check_request(index, request)?;
        }
        let longest = requests.iter().map(|r| r.prompt.len() + r.sampling.max_new_tokens).max().unwrap_or(0);
        let context = self.config().max_position_embeddings;
        if longest > context {
            tracing::warn!(longest, context, "answers may exceed the context length of the model");
        }
        let mut order: Vec<usize> =
            (0..requests.len()).filter(|&i| requests[i].sampling.max_new_tokens > 0).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(requests[index].prompt.len()));
        let nothing = Generation { tokens: Vec::new(), finish: Finish::Length, margins: Vec::new() };
        let mut generations = vec![nothing; requests.len()];
        tch::no_grad(|| {
            let mut waiting: Waiting<'_> =
                order.into_iter().map(|index| Sequence::new(index, &requests[index])).collect();
            let first = take(&mut waiting, options.max_batch.max(1));
            if !first.is_empty() {
                Batch::new(self, first)?.run(waiting, &mut generations)?;
            }
            Ok(generations)
        })
    }

    fn check_request(&self, index: usize, request: &GenerationRequest) -> Result<(), PolicyError> {
        let bad = |problem: String| Err(PolicyError::BadRequest { index, problem });
        if request.prompt.is_empty() {
            return bad("the prompt has no tokens; start it with the BOS token, for example".to_owned());
        }
        if let Some(problem) = request.sampling.problem() {
            return bad(problem);
        }
        if request.prompt.len().saturating_add(request.sampling.max_new_tokens) > MAX_TOKENS {
            return bad(format!("prompt and max_new_tokens together exceed {MAX_TOKENS} tokens"));
        }
        match self.config().check_tokens(&request.prompt) {
            Err(PolicyError::TokenOutOfRange { token, position, vocab_size }) => bad(format!(
                "token id {token} at position {position} of the prompt is outside the vocabulary of {vocab_size}; \
                 check that the tokenizer belongs to this model"
            )),
            other => other,
        }
    }
}

/// A running sequence.
struct Sequence<'a> {
    /// Its index among the requests.
    index: usize,
    prompt: &'a [u32],
    sampling: &'a Sampling,
    stream: seeds::Stream,
    tokens: Vec<u32>,
    margins: Vec<f32>,
    finish: Option<Finish>,
}

impl<'a> Sequence<'a> {
    fn new(index: usize, request: &'a GenerationRequest) -> Self {
        Self {
            index,
            prompt: &request.prompt,
            sampling: &request.sampling,
            stream: request.stream.clone(),
            tokens: Vec::new(),
            margins: Vec::new(),
            finish: None,
        }
    }

    fn take(&mut self, probabilities: &[f32]) -> Result<(), PolicyError> {
        let decision = decide(probabilities, self.sampling, &mut self.stream);
        let Some(Decision { token, margin }) = decision else {
            return Err(PolicyError::NotANumber { index: self.index, tokens: self.tokens.len() });
        };
        self.margins.push(margin);
        if self.sampling.stop_tokens.contains(&token) {
            self.finish = Some(Finish::Stop(token));
            return Ok(());
        }
        self.tokens.push(token);
        if self.tokens.len() >= self.sampling.max_new_tokens {
            self.finish = Some(Finish::Length);
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.finish.is_none()
    }

    /// Tokens of the prompt and of the answer.
    fn length(&self) -> usize {
        self.prompt.len() + self.tokens.len()
    }

    /// Returns the input of the next forward pass. A finished sequence in the batch repeats its last token, and its result is
    /// ignored.
    fn last_token(&self) -> i64 {
        i64::from(self.tokens.last().or(self.prompt.last()).copied().unwrap_or(0))
    }
}

/// Sequences that share a cache. They are aligned on the right, so that all of them write the same column.
struct Batch<'a> {
    policy: &'a Policy,
    sequences: Vec<Sequence<'a>>,
    cache: Cache,
    /// `[B, 1]` i64: the column of each sequence's first token.
    first_columns: Tensor,
    /// `[B]` i64: the first column that attention reads of each sequence; of a finished one only the newest.
    first_visible: Tensor,
    /// `[B, 1]` Float: divisors of the logits; `None` if all are 1.
    temperatures: Option<Tensor>,
    probabilities: Vec<f32>,
}

impl<'a> Batch<'a> {
    /// Allocates the cache for `sequences` (at least one).
    fn new(policy: &'a Policy, sequences: Vec<Sequence<'a>>) -> Result<Self, PolicyError> {
        let rest = longest_rest(&sequences);
        Self::with_spare(policy, sequences, rest)
    }

    /// As [`Batch::new`], with so many columns after the prompts.
    fn with_spare(
        policy: &'a Policy,
        sequences: Vec<Sequence<'a>>,
        spare: usize,
    ) -> Result<Self, PolicyError> {
        let width = sequences.iter().map(|s| s.prompt.len()).max().unwrap_or(0);
        let first_columns: Vec<i64> = sequences.iter().map(|s| (width - s.prompt.len()) as i64).collect();
        let cache = Cache::new(policy, sequences.len(), (width + spare) as i64)?;
        let mut batch = Self {
            policy,
            sequences,
            cache,
            first_columns: Tensor::new(),
            first_visible: Tensor::new(),
            temperatures: None,
            probabilities: Vec::new(),
        };
        batch.set_columns(&first_columns);
        Ok(batch)
    }

    /// Computes the sequences, and those of `waiting` in the places of finished ones.
    fn run(mut self, mut waiting: Waiting<'a>, generations: &mut [Generation]) -> Result<(), PolicyError> {
        let places = self.sequences.len();
        let mut hidden = self.prefill()?;
        let mut before = places;
        loop {
            self.choose(&hidden)?;
            let mut running = self.running();
            while running < self.sequences.len() {
                let free = places - running;
                let arriving = if 4 * free >= places { take(&mut waiting, free) } else { Vec::new() };
                if arriving.is_empty() && 2 * running > self.sequences.len() {
                    break;
                }
                self.replace_finished(arriving, generations)?;
                // An answer may end with its first token.
                running = self.running();
                before = self.sequences.len();
            }
            if running == 0 {
                return Ok(());
            }
            if running < before {
                self.mask_finished();
            }
            before = running;
            hidden = self.step()?;
        }
    }

    fn running(&self) -> usize {
        self.sequences.iter().filter(|sequence| sequence.is_running()).count()
    }

    /// Computes the prompts with their new tokens, if any, and returns the hidden states `[B, hidden]` of their last tokens.
    /// Prompts are packed: there is no padding, and no prompt depends on another.
    fn prefill(&mut self) -> Result<Tensor, PolicyError> {
        let (device, decoder) = (self.policy.device(), self.policy.decoder());
        let texts: Vec<Vec<u32>> =
            self.sequences.iter().map(|sequence| [sequence.prompt, &sequence.tokens].concat()).collect();
        let lengths: Vec<i64> = texts.iter().map(|text| text.len() as i64).collect();
        let columns = match self.cache.filled {
            0 => lengths.iter().copied().max().unwrap_or(0),
            filled => filled + 1,
        };
        let rows = PackedRows::causal(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>(), device);
        let mut end = -1;
        let last: Vec<i64> = lengths
            .iter()
            .map(|length| {
                end += length;
                end
            })
            .collect();
        let packed = Packed::new(&rows, decoder.window(), self.policy.kind());
        let mut backend = Prefill { packed, lengths, columns, cache: &mut self.cache };
        let hidden = decoder.forward(&decoder.embed(&rows.ids), &rows.positions, &mut backend, None)?;
        Ok(hidden.index_select(0, &on_device(&last, device)))
    }

    /// Computes one token of each sequence, and returns its hidden states `[B, hidden]`.
    fn step(&mut self) -> Result<Tensor, PolicyError> {
        if self.sequences.iter().any(|sequence| self.outgrows_short_factors(sequence)) {
            return self.prefill();
        }
        let last: Vec<i64> = self.sequences.iter().map(Sequence::last_token).collect();
        let ids = on_device(&last, self.policy.device());
        let positions = self.cache.filled - &self.first_columns;
        let columns = self.cache.filled + 1;
        let first_visible = self.first_visible.clamp_max(self.cache.filled);
        let over = |first: i64| ScoreMask::From((&first_visible - first).clamp_min(0));
        // In sliding layers the cache returns the columns of the window only.
        let sliding = self.policy.decoder().window().map(|window| over((columns - window).max(0)));
        let masks = Masks { full: over(0), sliding };
        self.forward(&ids, &positions, masks)
    }

    /// Whether the last token of a Phi-3 sequence is the first one beyond the short factors of its positions. The cached keys have
    /// those, so that all are computed again, as in transformers.
    fn outgrows_short_factors(&self, sequence: &Sequence<'_>) -> bool {
        let config = self.policy.config();
        match config.rope.scaling {
            RopeScaling::LongRope { original_max_position_embeddings: context, .. } => {
                config.family == Family::Phi3
                    && sequence.is_running()
                    && sequence.length() == context as usize + 1
            }
            _ => false,
        }
    }

    /// Returns the hidden states `[B·T, hidden]` of new tokens: `ids [B·T]`, `positions [B, T]`.
    fn forward(&mut self, ids: &Tensor, positions: &Tensor, masks: Masks) -> Result<Tensor, PolicyError> {
        let rows = self.sequences.len() as i64;
        let mut backend = Padded { rows, masks, cache: &mut self.cache, dropout: None, routing: None };
        let decoder = self.policy.decoder();
        decoder.forward(&decoder.embed(ids), &positions.reshape(-1), &mut backend, None)
    }

    fn choose(&mut self, hidden: &Tensor) -> Result<(), PolicyError> {
        let mut logits = self.policy.decoder().decoded_logits(hidden)?.to_kind(Kind::Float);
        if let Some(temperatures) = &self.temperatures {
            logits /= temperatures;
        }
        let probabilities = logits.softmax(-1, Kind::Float).to_device(Device::Cpu);
        self.probabilities.resize(probabilities.numel(), 0.0);
        probabilities
            .f_copy_data(&mut self.probabilities, probabilities.numel())
            .map_err(PolicyError::torch("read probabilities"))?;
        let rows = self.probabilities.chunks_exact(self.policy.config().vocab_size);
        let running = self.sequences.iter_mut().zip(rows).filter(|(sequence, _)| sequence.is_running());
        for (sequence, row) in running {
            sequence.take(row)?;
        }
        Ok(())
    }

    /// Moves finished sequences to `generations`, and replaces them by `arriving` ones, of which it computes the first tokens.
    fn replace_finished(
        &mut self,
        arriving: Vec<Sequence<'a>>,
        generations: &mut [Generation],
    ) -> Result<(), PolicyError> {
        let (running, finished): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sequences).into_iter().enumerate().partition(|(_, s)| s.is_running());
        for (_, Sequence { index, tokens, margins, finish, .. }) in finished {
            generations[index] = Generation { tokens, finish: finish.unwrap_or(Finish::Length), margins };
        }
        let rows: Vec<i64> = running.iter().map(|(row, _)| *row as i64).collect();
        self.sequences = running.into_iter().map(|(_, sequence)| sequence).collect();
        let mut arrived = None;
        if !arriving.is_empty() {
            let mut batch = Self::with_spare(self.policy, arriving, 0)?;
            let hidden = batch.prefill()?;
            batch.choose(&hidden)?;
            self.sequences.append(&mut batch.sequences);
            arrived = Some(batch.cache);
        }
        if self.sequences.is_empty() {
            return Ok(());
        }
        let rows = on_device(&rows, self.policy.device());
        let longest = self.sequences.iter().map(Sequence::length).max().unwrap_or(0);
        // The newest token of each sequence is not in the cache yet.
        let filled = longest - 1;
        let columns = longest + longest_rest(&self.sequences);
        self.cache.replace(&rows, arrived, filled as i64, columns as i64)?;
        let firsts: Vec<i64> = self.sequences.iter().map(|s| (longest - s.length()) as i64).collect();
        self.set_columns(&firsts);
        Ok(())
    }

    /// Masks the columns of finished sequences, whose results are ignored, to save their attention.
    fn mask_finished(&mut self) {
        let finished: Vec<bool> = self.sequences.iter().map(|sequence| !sequence.is_running()).collect();
        let finished = on_device(&finished, self.policy.device());
        self.first_visible = self.first_columns.squeeze_dim(-1).masked_fill(&finished, i64::MAX);
    }

    /// Sets the fields that depend on the sequences and their first columns.
    fn set_columns(&mut self, first_columns: &[i64]) {
        let device = self.policy.device();
        self.first_columns = on_device(first_columns, device).unsqueeze(-1);
        self.first_visible = self.first_columns.squeeze_dim(-1);
        let divisor =
            |s: &Sequence<'_>| if s.sampling.is_greedy() { 1.0 } else { s.sampling.temperature as f32 };
        let divisors: Vec<f32> = self.sequences.iter().map(divisor).collect();
        self.temperatures = divisors
            .iter()
            .any(|&divisor| divisor != 1.0)
            .then(|| on_device(&divisors, device).unsqueeze(-1));
    }
}

/// Requests that no place is free for yet.
type Waiting<'a> = VecDeque<Sequence<'a>>;

/// Removes the first `count` requests, or all.
fn take<'a>(waiting: &mut Waiting<'a>, count: usize) -> Vec<Sequence<'a>> {
    waiting.drain(..count.min(waiting.len())).collect()
}

fn longest_rest(sequences: &[Sequence<'_>]) -> usize {
    sequences.iter().map(|s| s.sampling.max_new_tokens - s.tokens.len()).max().unwrap_or(0)
}
