//! The client: limits, retries, and one payment for one answer.

mod batched;

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{self, StreamExt as _};
use seeds::Stream;
use tokio::sync::{Semaphore, watch};

use crate::cache::{Entry, FULL_PRICE, RequestKey};
use crate::chat::{ChatRequest, Reply, Usage};
use crate::clock::Clock;
use crate::endpoint::Transport;
use crate::error::Error;
use crate::failure::Failure;
use crate::ledger::{ANSWERED, Budget, Ledger, LedgerRow, Reservation, SENT, Totals};
use crate::limit::{Limits, Pacer};
use crate::prices::{Price, Prices};
use crate::retry::RetryPolicy;
use crate::store::{Recovery, Store};

pub use batched::BatchSettings;
use batched::{Batches, open_calls};

/// The settings of a [`Client`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Limits on concurrency and rate.
    pub limits: Limits,
    /// When a failed attempt is repeated.
    pub retry: RetryPolicy,
    /// The prices of models.
    pub prices: Prices,
    /// The budget of this client, in USD. A call that could exceed it is not made.
    pub max_cost: Option<f64>,
}

/// Makes calls to one endpoint as fast as limits allow, and pays once for one answer.
///
/// Replies are stored in a folder under a hash of their requests, each atomically and at once. The ledger has a row before
/// each call and one after it; before a call in a batch there is the batch's record. After a kill only calls without a reply
/// are made again; those that were in flight outside of batches may be billed twice, and [`recovery`](Self::recovery)
/// counts them.
pub struct Client {
    transport: Box<dyn Transport>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    slots: Semaphore,
    budget: Budget,
    store: Option<Store>,
    /// Calls are made in batches.
    batches: Option<Batches>,
    /// Calls of batches that are not collected, with the numbers of their records.
    open_calls: BTreeMap<RequestKey, u64>,
    state: Mutex<State>,
    /// One lock a request in flight, so that equal requests share one answer.
    flights: Mutex<BTreeMap<RequestKey, Arc<tokio::sync::Mutex<()>>>>,
    stopping: watch::Sender<bool>,
    recovery: Recovery,
}

struct State {
    pacer: Pacer,
    jitter: Stream,
    ledger: Option<Ledger>,
    totals: Totals,
}

/// A reply and its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The reply.
    pub reply: Reply,
    /// Its source.
    pub source: Source,
}

/// The estimated cost of calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Calls answered before, at no cost.
    pub cached: u64,
    /// Calls of batches that are not collected. They are paid already.
    pub in_batches: u64,
    /// The estimated prompt tokens of the other calls.
    pub prompt_tokens: u64,
    /// USD, if an answer has [`LIKELY_TOKENS`]; none if a price is unknown.
    pub likely_usd: Option<f64>,
    /// USD at most, if no call is made twice; none if a price is unknown.
    pub most_usd: Option<f64>,
}

/// The tokens of an answer in an [`Estimate`], about the length of a judgment.
pub const LIKELY_TOKENS: u64 = 300;

/// The source of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the endpoint, now.
    Endpoint,
    /// From the cache.
    Cache,
}

/// The interval at which a request to stop is noticed.
const STOP_POLL: Duration = Duration::from_millis(50);

/// The most time of one call, with all of its attempts and pauses.
const LONGEST_CALL: Duration = Duration::from_secs(30 * 60);

impl Client {
    /// A client over `transport`. `folder` holds replies (`replies/`) and the ledger ([`LEDGER`](crate::LEDGER)) and belongs
    /// to one client at a time. Without a folder nothing is kept. `jitter` draws the random part of pauses.
    ///
    /// Replies and ledger of an earlier process that was killed are brought into agreement; see [`Recovery`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Locked`] for the folder, [`Error::Setting`] for a budget that is no amount.
    pub fn new(
        transport: impl Transport + 'static,
        settings: Settings,
        folder: Option<&Path>,
        clock: Arc<dyn Clock>,
        jitter: Stream,
    ) -> Result<Self, Error> {
        if let Some(limit) = settings.max_cost.filter(|usd| usd.is_nan() || *usd < 0.0) {
            let wanted = "an amount of USD from 0";
            return Err(Error::Setting { what: "the limit on costs", given: limit.to_string(), wanted });
        }
        let (store, ledger, recovery) = match folder {
            Some(folder) => {
                let (store, ledger, recovery) = Store::open(folder, &settings.prices, clock.unix_seconds())?;
                recovery.log();
                (Some(store), Some(ledger), recovery)
            }
            None => (None, None, Recovery::default()),
        };
        let open_calls = match &store {
            Some(store) => open_calls(&store.batches, transport.address())?,
            None => BTreeMap::new(),
        };
        Ok(Self {
            recovery,
            batches: None,
            open_calls,
            transport: Box::new(transport),
            clock,
            slots: Semaphore::new(settings.limits.concurrency.get() as usize),
            budget: Budget::new(settings.max_cost),
            store,
            state: Mutex::new(State {
                pacer: Pacer::new(&settings.limits),
                jitter,
                ledger,
                totals: Totals::default(),
            }),
            flights: Mutex::default(),
            stopping: watch::Sender::new(false),
            settings,
        })
    }

    /// Returns the sums of this client's calls so far. Replies from the cache cost nothing and do not count.
    pub fn totals(&self) -> Totals {
        self.state().totals
    }

    /// Returns what an earlier process left in the folder.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Returns the reply to `request` if it was received before.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn cached(&self, request: &ChatRequest) -> Result<Option<Reply>, Error> {
        let key = RequestKey::new(self.transport.address(), request);
        self.store.as_ref().map_or(Ok(None), |store| store.cache.get(&key))
    }

    /// Returns the maximum cost of a call in USD, if the model's price is known.
    pub fn most_cost(&self, request: &ChatRequest) -> Option<f64> {
        let usage = Usage {
            prompt_tokens: request.most_prompt_tokens(),
            completion_tokens: request.sampling.max_tokens.into(),
        };
        Some(self.price_share() * self.settings.prices.of(&request.model)?.cost(usage))
    }

    /// The price of a call as a share of the list price.
    fn price_share(&self) -> f64 {
        self.batches.as_ref().map_or(FULL_PRICE, Batches::price_share)
    }

    /// Estimates the cost of `requests`. Makes no call.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn estimate(&self, requests: &[ChatRequest]) -> Result<Estimate, Error> {
        let mut estimate = Estimate {
            cached: 0,
            in_batches: 0,
            prompt_tokens: 0,
            likely_usd: Some(0.0),
            most_usd: Some(0.0),
        };
        for request in requests {
            if self.cached(request)?.is_some() {
                estimate.cached += 1;
                continue;
            }
            if self.open_calls.contains_key(&RequestKey::new(self.transport.address(), request)) {
                estimate.in_batches += 1;
                continue;
            }
            let usage = Usage {
                prompt_tokens: request.likely_prompt_tokens(),
                completion_tokens: LIKELY_TOKENS.min(request.sampling.max_tokens.into()),
            };
            estimate.prompt_tokens += usage.prompt_tokens;
            let likely =
                self.settings.prices.of(&request.model).map(|price| self.price_share() * price.cost(usage));
            let add = |sum: Option<f64>, more: Option<f64>| Some(sum? + more?);
            estimate.likely_usd = add(estimate.likely_usd, likely);
            estimate.most_usd = add(estimate.most_usd, self.most_cost(request));
        }
        Ok(estimate)
    }

    /// Returns the reply to `request`, from the cache or from the endpoint, with retries by the [`RetryPolicy`].
    ///
    /// # Errors
    ///
    /// [`Error::Call`] after the last attempt, [`Error::Budget`] and [`Error::NoPrice`] before a call that could exceed the
    /// budget, [`Error::Stopped`], [`Error::Io`].
    pub async fn chat(&self, request: &ChatRequest) -> Result<Answered, Error> {
        let key = RequestKey::new(self.transport.address(), request);
        let flight = Arc::clone(lock(&self.flights).entry(key.clone()).or_default());
        let alone = flight.lock().await;
        let answered = self.chat_alone(request, &key).await;
        drop(alone);
        lock(&self.flights).retain(|_, flight| Arc::strong_count(flight) > 1);
        answered
    }

    async fn chat_alone(&self, request: &ChatRequest, key: &RequestKey) -> Result<Answered, Error> {
        if let Some(store) = &self.store
            && let Some(reply) = store.cache.get(key)?
        {
            return Ok(Answered { reply, source: Source::Cache });
        }
        let started = self.clock.now();
        for attempt in 1.. {
            let failure = match self.attempt(request, key).await? {
                Ok(reply) => return Ok(Answered { reply, source: Source::Endpoint }),
                Err(failure) => failure,
            };
            let pause = self.settings.retry.pause(attempt, &failure, &mut self.state().jitter);
            let spent = self.clock.now().saturating_sub(started);
            let pause = pause.filter(|pause| self.batches.is_some() || spent + *pause < LONGEST_CALL);
            let model = request.model.as_str();
            let Some(pause) = pause else {
                return Err(Error::Call { model: model.to_owned(), attempts: attempt, source: failure });
            };
            let seconds = pause.as_secs_f64();
            tracing::debug!(model, attempt, kind = failure.kind(), seconds, %failure, "another attempt after a pause");
            // The next batch is pause enough.
            if self.batches.is_none() {
                self.sleep(pause).await?;
            }
        }
        unreachable!("attempts are counted in 32 bits, and the policy ends them")
    }

    /// Makes one attempt, when limits and budget allow it, and books it.
    async fn attempt(
        &self,
        request: &ChatRequest,
        key: &RequestKey,
    ) -> Result<Result<Reply, Failure>, Error> {
        let price = self.settings.prices.of(&request.model);
        if price.is_none() && self.budget.has_limit() {
            return Err(Error::NoPrice { model: request.model.clone() });
        }
        if let Some(batches) = &self.batches {
            return self.in_batch(batches, request, key).await;
        }
        if let (Some(number), Some(store)) = (self.open_calls.get(key), &self.store) {
            return Err(Error::OpenBatch { path: store.batches.record_path(*number) });
        }
        let slot = self.slots.acquire().await.map_err(|_| Error::Stopped)?;
        if *self.stopping.borrow() {
            return Err(Error::Stopped);
        }
        let reservation = self.budget.reserve(self.most_cost(request).unwrap_or(0.0)).await?;
        let expected =
            request.likely_prompt_tokens() + u64::from(request.sampling.max_tokens) / EXPECTED_PART;
        let wait = self.state().pacer.wait(self.clock.now(), expected);
        if !wait.is_zero() {
            self.sleep(wait).await?;
        }
        // Before the call: if this process is killed, the next one knows what was in flight.
        let most = price.map(|_| reservation.most());
        self.append(&self.row(&request.model, key, SENT, None, most))?;
        let outcome = self.transport.send(request).await;
        drop(slot);
        if let (Ok(reply), Some(store)) = (&outcome, &self.store) {
            // Before the ledger: a reply on disk is not paid again, whatever happens next.
            let (address, model) = (self.transport.address().to_owned(), request.model.clone());
            let entry = Entry { reply: reply.clone(), address, model, price_share: FULL_PRICE };
            store.cache.put(key, &entry)?;
        }
        self.book(request, key, price, expected, reservation, &outcome)?;
        Ok(outcome)
    }

    fn book(
        &self,
        request: &ChatRequest,
        key: &RequestKey,
        price: Option<Price>,
        expected: u64,
        reservation: Reservation<'_>,
        outcome: &Result<Reply, Failure>,
    ) -> Result<(), Error> {
        let usage = outcome.as_ref().ok().and_then(|reply| reply.usage);
        let usd = price.map(|price| match (outcome, usage) {
            (Ok(_), Some(usage)) => price.cost(usage),
            (Err(failure), _) if !failure.may_be_billed() => 0.0,
            // The token counts are unknown: only the upper bound keeps the budget.
            _ => reservation.most(),
        });
        reservation.settle(usd.unwrap_or(0.0));
        if let Some(usage) = usage {
            let used = usage.prompt_tokens.saturating_add(usage.completion_tokens);
            self.state().pacer.settle(expected, used);
        }
        self.book_end(&request.model, key, outcome, usd)
    }

    /// Adds the end of a call to the ledger and the totals.
    fn book_end(
        &self,
        model: &str,
        key: &RequestKey,
        outcome: &Result<Reply, Failure>,
        usd: Option<f64>,
    ) -> Result<(), Error> {
        let usage = outcome.as_ref().ok().and_then(|reply| reply.usage);
        let kind = outcome.as_ref().err().map_or(ANSWERED, Failure::kind);
        let row = self.row(model, key, kind, usage, usd);
        if outcome.as_ref().err().is_none_or(Failure::may_be_billed) {
            self.state().totals.add(&row);
        }
        self.append(&row)
    }

    fn row(
        &self,
        model: &str,
        key: &RequestKey,
        outcome: &str,
        usage: Option<Usage>,
        usd: Option<f64>,
    ) -> LedgerRow {
        LedgerRow {
            unix_seconds: self.clock.unix_seconds(),
            address: self.transport.address().to_owned(),
            model: model.to_owned(),
            key: key.as_str().to_owned(),
            outcome: outcome.to_owned(),
            usage,
            usd,
        }
    }

    fn append(&self, row: &LedgerRow) -> Result<(), Error> {
        self.state().ledger.as_mut().map_or(Ok(()), |ledger| ledger.append(row))
    }

    /// Waits for `duration` or for a request to stop.
    async fn sleep(&self, duration: Duration) -> Result<(), Error> {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            () = self.clock.sleep(duration) => Ok(()),
            _ = stopping.wait_for(|stopping| *stopping) => Err(Error::Stopped),
        }
    }

    /// Runs `jobs` jobs, up to [`Limits::concurrency`] at a time, and passes each outcome to `done`. Jobs make their calls
    /// with [`chat`](Self::chat). Blocks until all jobs end.
    ///
    /// Once `done` breaks or `stop` is set, no further call is made. Calls in flight are paid, so their outcomes are waited
    /// for. Waiting jobs end with [`Error::Stopped`]; jobs that have not begun are not reported.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] if there is no event loop.
    pub fn run_each<T, F: Future<Output = T>>(
        &self,
        jobs: usize,
        stop: &AtomicBool,
        job: impl Fn(usize) -> F,
        mut done: impl FnMut(usize, T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Setup { source: source.into() })?;
        self.stopping.send_replace(false);
        let concurrency = match self.batches {
            // All jobs wait for their batch together.
            Some(_) => jobs.max(1),
            None => self.settings.limits.concurrency.get() as usize,
        };
        runtime.block_on(async {
            let open = || !stop.load(Ordering::Relaxed) && !*self.stopping.borrow();
            let begun = stream::iter(0..jobs).take_while(|_| std::future::ready(open()));
            let running = begun.map(|index| {
                let outcome = job(index);
                async move { (index, outcome.await) }
            });
            let mut running = std::pin::pin!(running.buffer_unordered(concurrency));
            let mut submitting: Option<LocalBoxFuture<'_, ()>> = None;
            let mut waiting = None;
            loop {
                let queued = self.batches.as_ref().filter(|batches| batches.waiting() > 0);
                tokio::select! {
                    biased;
                    next = running.next() => match next {
                        Some((index, outcome)) => {
                            waiting = None;
                            if done(index, outcome).is_break() {
                                self.stopping.send_replace(true);
                            }
                        }
                        None => break,
                    },
                    () = async { if let Some(submitting) = &mut submitting { submitting.await } },
                        if submitting.is_some() => submitting = None,
                    // Jobs were polled since the last count: if no call was added, none can go on without an answer.
                    () = tokio::task::yield_now(), if submitting.is_none() && queued.is_some() => {
                        let now = queued.map(Batches::waiting);
                        if waiting == now {
                            submitting = queued.map(|batches| self.submit_queue(batches).boxed_local());
                        }
                        waiting = now.filter(|_| submitting.is_none());
                    }
                    () = tokio::time::sleep(STOP_POLL), if !*self.stopping.borrow() => {
                        if stop.load(Ordering::Relaxed) {
                            self.stopping.send_replace(true);
                        }
                    }
                }
            }
        });
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Answers rarely reach the limit on tokens: until its length is known, an answer counts as this part of the limit.
const EXPECTED_PART: u64 = 4;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.transport.address())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
