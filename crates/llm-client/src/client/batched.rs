//! Calls in batches: calls wait in a queue until no job can go on, and are then submitted together.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use seeds::{Seeds, Stream};
use tokio::sync::oneshot;

use super::{Client, lock};
use crate::batch_api::{Batch, BatchApi, MOST_INPUT_BYTES, Outcomes, RequestCounts, input_line};
use crate::batch_store::{BatchRecord, BatchStore, Stage};
use crate::cache::{Entry, RequestKey};
use crate::chat::{ChatRequest, Reply};
use crate::error::Error;
use crate::failure::Failure;

/// How a [`Client`] submits batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchSettings {
    /// The price of a call in a batch, as a share of the list price.
    pub price_share: f64,
    /// The most calls of one batch.
    pub most_calls: usize,
    /// The first pause between two requests for a batch's state. It doubles each time.
    pub first_poll: Duration,
    /// The longest pause.
    pub longest_poll: Duration,
}

impl Default for BatchSettings {
    /// OpenAI's: half the price and 50 000 calls. A batch is polled after 5 seconds, and every 5 minutes in the end.
    fn default() -> Self {
        Self {
            price_share: 0.5,
            most_calls: 50_000,
            first_poll: Duration::from_secs(5),
            longest_poll: Duration::from_secs(300),
        }
    }
}

/// The queue and the batches of a client.
pub(super) struct Batches {
    api: BatchApi,
    store: BatchStore,
    settings: BatchSettings,
    queue: Mutex<Vec<Queued>>,
}

/// A call that waits for a batch.
struct Queued {
    request: ChatRequest,
    key: RequestKey,
    answer: oneshot::Sender<Result<Result<Reply, Failure>, Error>>,
}

/// The results of one batch.
struct Collected {
    outcomes: Outcomes,
    /// The cost of the calls that were not booked before, in USD.
    usd: f64,
    /// Why calls without an outcome are not made in another batch.
    refused: Option<Error>,
}

impl Client {
    /// Makes all calls of [`run_each`](Self::run_each) in batches, at the price of batches.
    ///
    /// A call waits until no job can go on without an answer. All waiting calls are then submitted, one model and at most
    /// [`BatchSettings::most_calls`] a batch. Calls that a batch did not make, or that failed for another transient reason,
    /// are part of the next one. The budget limits the maximum cost of each batch. Limits on rate do not apply.
    ///
    /// A batch has a record on disk before the server has it. After a kill the next client with batches collects it, also if
    /// the server's id of the batch was not received. [`chat`](Self::chat) outside of `run_each` waits forever.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a client without a folder and for a share of the price outside of 0 to 1.
    pub fn with_batches(mut self, api: BatchApi, settings: BatchSettings) -> Result<Self, Error> {
        let share = settings.price_share;
        if !(0.0..=1.0).contains(&share) {
            let wanted = "a share from 0 to 1";
            return Err(Error::Setting { what: "the price of batches", given: share.to_string(), wanted });
        }
        let wanted = "a folder, which keeps the batches";
        let Some(store) = self.store.as_ref().map(|store| store.batches.clone()) else {
            return Err(Error::Setting { what: "the client's folder", given: "none".to_owned(), wanted });
        };
        self.batches = Some(Batches { api, store, settings, queue: Mutex::default() });
        Ok(self)
    }

    /// Waits for the batch with `request`.
    pub(super) async fn in_batch(
        &self,
        batches: &Batches,
        request: &ChatRequest,
        key: &RequestKey,
    ) -> Result<Result<Reply, Failure>, Error> {
        self.go_on()?;
        let (answer, answered) = oneshot::channel();
        lock(&batches.queue).push(Queued { request: request.clone(), key: key.clone(), answer });
        answered.await.unwrap_or(Err(Error::Stopped))
    }

    /// Collects open batches and submits the queue. Every queued call gets an answer.
    pub(super) async fn submit_queue(&self, batches: &Batches) {
        let mut queue = std::mem::take(&mut *lock(&batches.queue));
        let worked = self.work_off(batches, &mut queue).await;
        // The first call gets the error, and the others end.
        let mut error = worked.err();
        for queued in queue {
            let _ = queued.answer.send(Err(error.take().unwrap_or(Error::Stopped)));
        }
    }

    async fn work_off(&self, batches: &Batches, queue: &mut Vec<Queued>) -> Result<(), Error> {
        self.go_on()?;
        let address = self.transport.address();
        let records = batches.store.records()?;
        let mut number = records.last().map_or(1, |record| record.number + 1);
        for record in records.into_iter().filter(|record| record.is_open() && record.address == address) {
            if let Some(record) = self.adopt(batches, record).await? {
                let collected = self.collect(batches, record, None).await?;
                self.budget.spend(collected.usd);
                self.answer(queue, collected)?;
            }
        }
        while !queue.is_empty() {
            self.go_on()?;
            let (calls, most) = self.next_batch(batches, queue)?;
            let reservation = self.budget.take(most);
            let keys: BTreeSet<RequestKey> = queue[..calls].iter().map(|queued| queued.key.clone()).collect();
            let record = self.submit(batches, number, &queue[..calls], reservation.most()).await?;
            number += 1;
            let collected = self.collect(batches, record, Some(&keys)).await?;
            reservation.settle(collected.usd);
            self.answer(queue, collected)?;
        }
        Ok(())
    }

    fn go_on(&self) -> Result<(), Error> {
        if *self.stopping.borrow() { Err(Error::Stopped) } else { Ok(()) }
    }

    /// The number of calls of the next batch, at the front of the queue after this, and their maximum cost.
    fn next_batch(&self, batches: &Batches, queue: &mut [Queued]) -> Result<(usize, f64), Error> {
        // A batch has one model.
        let model = queue[0].request.model.clone();
        queue.sort_by_key(|queued| queued.request.model != model);
        let (rest, limit) = self.budget.rest();
        let (mut calls, mut bytes, mut usd) = (0, 0, 0.0);
        for queued in queue.iter().take_while(|queued| queued.request.model == model) {
            let most = self.most_cost(&queued.request).unwrap_or(0.0);
            let line = input_line(&queued.key, &queued.request).len();
            if usd + most > rest && calls == 0 {
                return Err(Error::Budget { spent: limit - rest, limit, next: most });
            }
            if calls == batches.settings.most_calls.max(1)
                || usd + most > rest
                || (calls > 0 && bytes + line > MOST_INPUT_BYTES)
            {
                break;
            }
            (calls, bytes, usd) = (calls + 1, bytes + line, usd + most);
        }
        Ok((calls, usd))
    }

    /// Uploads the calls and creates their batch. The record is on disk before the server has the batch.
    async fn submit(
        &self,
        batches: &Batches,
        number: u64,
        calls: &[Queued],
        most_usd: f64,
    ) -> Result<BatchRecord, Error> {
        let Batches { api, store, .. } = batches;
        let model = &calls[0].request.model;
        let name = format!("calls-{number:06}.jsonl");
        let lines: String = calls.iter().map(|queued| input_line(&queued.key, &queued.request)).collect();
        let file = self.patiently(model, || api.upload(&name, &lines)).await?;
        files::fault::point("llm-client.batch.uploaded");
        let mut record = BatchRecord {
            number,
            address: self.transport.address().to_owned(),
            model: model.clone(),
            stage: Stage::Uploaded { file: file.clone() },
            keys: calls.iter().map(|queued| queued.key.as_str().to_owned()).collect(),
            most_usd: self.settings.prices.of(model).map(|_| most_usd),
        };
        store.save(&record)?;
        files::fault::point("llm-client.batch.recorded");
        let batch = self.patiently(model, || self.create_once(batches, &file)).await?;
        files::fault::point("llm-client.batch.created");
        record.stage = Stage::Created { file, batch: batch.id.clone() };
        store.save(&record)?;
        let (id, calls) = (&batch.id, calls.len());
        tracing::info!(
            "batch {id} has {calls} calls to {model}; if stopped, the same command goes on with it"
        );
        files::fault::point("llm-client.batch.saved");
        Ok(record)
    }

    /// Creates the batch of `file`. After an attempt whose answer was lost, the server may have it already.
    async fn create_once(&self, batches: &Batches, file: &str) -> Result<Batch, Failure> {
        match batches.api.create(file).await {
            Err(failure) if failure.is_transient() => match batches.api.find(file).await {
                Ok(Some(batch)) => Ok(batch),
                Ok(None) => Err(failure),
                // Without a list, another attempt might create a second batch.
                Err(Failure::Refused { status, message }) => Err(Failure::Refused { status, message }),
                Err(_) => Err(failure),
            },
            created => created,
        }
    }

    /// Finds the batch of an earlier process; `None` if the server does not have it.
    async fn adopt(&self, batches: &Batches, mut record: BatchRecord) -> Result<Option<BatchRecord>, Error> {
        let calls = record.keys.len();
        let batch = match &record.stage {
            Stage::Uploaded { file } => {
                let file = file.clone();
                let Some(batch) = self.patiently("the list of batches", || batches.api.find(&file)).await?
                else {
                    batches.store.remove(record.number)?;
                    return Ok(None);
                };
                record.stage = Stage::Created { file, batch: batch.id.clone() };
                batches.store.save(&record)?;
                batch.id
            }
            Stage::Created { batch, .. } | Stage::Collected { batch, .. } => batch.clone(),
        };
        tracing::info!("going on with batch {batch} of an earlier process, which has {calls} calls");
        Ok(Some(record))
    }

    /// Waits for the end of a batch, stores its replies and books them. `queued` are the calls of this process.
    async fn collect(
        &self,
        batches: &Batches,
        mut record: BatchRecord,
        queued: Option<&BTreeSet<RequestKey>>,
    ) -> Result<Collected, Error> {
        let Stage::Created { batch, .. } = &record.stage else {
            return Ok(Collected { outcomes: Outcomes::new(), usd: 0.0, refused: None });
        };
        let batch = self.wait_for(batches, batch).await?;
        let mut outcomes = self.patiently("the results of a batch", || batches.api.results(&batch)).await?;
        let keys: BTreeSet<RequestKey> = record.keys().collect();
        outcomes.retain(|key, _| keys.contains(key));
        let refused = match batch.status.as_str() {
            "failed" | "cancelled" => Some(Error::Batch {
                id: batch.id.clone(),
                status: batch.status.clone(),
                problem: batch.problem(),
            }),
            _ => None,
        };
        if refused.is_none() {
            for key in queued.into_iter().flatten() {
                let missing = || Err(Failure::in_batch("", "the results have no line for it"));
                outcomes.entry(key.clone()).or_insert_with(missing);
            }
        }
        let usd = self.book_batch(batches, &record, &outcomes)?;
        files::fault::point("llm-client.batch.booked");
        let failed = outcomes.values().filter(|outcome| outcome.is_err()).count();
        let answered = outcomes.len() - failed;
        tracing::info!(
            "batch {} is {}: {answered} answers, {failed} failures, {usd:.4} USD",
            batch.id,
            batch.status
        );
        record.stage = Stage::Collected { batch: batch.id.clone(), status: batch.status };
        batches.store.save(&record)?;
        Ok(Collected { outcomes, usd, refused })
    }

    /// Waits for the end of a batch.
    async fn wait_for(&self, batches: &Batches, id: &str) -> Result<Batch, Error> {
        let (mut pause, longest) = (batches.settings.first_poll, batches.settings.longest_poll);
        let mut shown = (String::new(), RequestCounts::default());
        loop {
            let batch = self.patiently(id, || batches.api.get(id)).await?;
            files::fault::point("llm-client.batch.polled");
            if batch.is_ended() {
                return Ok(batch);
            }
            let counts = batch.request_counts.unwrap_or_default();
            let now = (batch.status, counts);
            if now != shown {
                let RequestCounts { total, completed, failed } = counts;
                tracing::info!("batch {id} is {}: {completed} of {total} calls made, {failed} failed", now.0);
                shown = now;
            }
            self.sleep(pause.min(longest)).await?;
            pause = pause.saturating_mul(2);
        }
    }

    /// Stores and books the outcomes of a batch that are not stored yet, and returns their cost in USD.
    fn book_batch(&self, batches: &Batches, record: &BatchRecord, outcomes: &Outcomes) -> Result<f64, Error> {
        let Some(store) = &self.store else { return Ok(0.0) };
        let mut sum = 0.0;
        for (key, outcome) in outcomes {
            if store.cache.get(key)?.is_some() {
                continue;
            }
            let share = batches.settings.price_share;
            let (model, address) = (record.model.clone(), record.address.clone());
            let price = self.settings.prices.of(&model);
            let usage = outcome.as_ref().ok().and_then(|reply| reply.usage);
            let usd = price.map(|price| match (outcome, usage) {
                (Ok(_), Some(usage)) => share * price.cost(usage),
                (Err(failure), _) if !failure.may_be_billed() => 0.0,
                // The upper bound of the batch, in equal parts.
                _ => record.most_usd.unwrap_or(0.0) / record.keys.len().max(1) as f64,
            });
            if let Ok(reply) = outcome {
                let entry = Entry { reply: reply.clone(), address, model, price_share: share };
                store.cache.put(key, &entry)?;
                files::fault::point("llm-client.batch.reply");
            }
            self.book_end(&record.model, key, outcome, usd)?;
            sum += usd.unwrap_or(0.0);
        }
        Ok(sum)
    }

    /// Answers the queued calls that have an outcome, and removes them from the queue.
    fn answer(&self, queue: &mut Vec<Queued>, collected: Collected) -> Result<(), Error> {
        let Collected { mut outcomes, refused, .. } = collected;
        for queued in std::mem::take(queue) {
            match outcomes.remove(&queued.key) {
                // A job that no longer waits has ended.
                Some(outcome) => drop(queued.answer.send(Ok(outcome))),
                None => queue.push(queued),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Repeats a request about a batch by the [`RetryPolicy`](crate::RetryPolicy).
    async fn patiently<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        what: &str,
        request: impl Fn() -> F,
    ) -> Result<T, Error> {
        let mut jitter: Stream = Seeds::new(0).stream("batch-jitter");
        for attempt in 1.. {
            let failure = match request().await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let Some(pause) = self.settings.retry.pause(attempt, &failure, &mut jitter) else {
                return Err(Error::Call { model: what.to_owned(), attempts: attempt, source: failure });
            };
            self.sleep(pause).await?;
        }
        unreachable!("attempts are counted in 32 bits, and the policy ends them")
    }
}

impl Batches {
    pub(super) fn waiting(&self) -> usize {
        lock(&self.queue).len()
    }

    pub(super) fn price_share(&self) -> f64 {
        self.settings.price_share
    }
}

/// The keys of open batches of the server at `address`, with the numbers of their records.
pub(super) fn open_calls(store: &BatchStore, address: &str) -> Result<BTreeMap<RequestKey, u64>, Error> {
    let records = store.records()?.into_iter();
    let open = records.filter(|record| record.is_open() && record.address == address);
    Ok(open.flat_map(|record| record.keys().map(|key| (key, record.number)).collect::<Vec<_>>()).collect())
}
