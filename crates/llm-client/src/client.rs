//! The client: calls under limits, again where that helps, never twice for one answer.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use seeds::Stream;
use tokio::sync::{Semaphore, watch};

use crate::cache::{Cache, RequestKey};
use crate::ledger::{ANSWERED, Budget, Ledger, LedgerRow, Reservation, Totals};
use crate::limit::Pacer;
use crate::{
    ChatRequest, Clock, Error, Failure, Limits, Price, Prices, Reply, RetryPolicy, Transport, Usage,
};

/// How a [`Client`] goes about its calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How much may be asked at a time and a minute.
    pub limits: Limits,
    /// When to ask again.
    pub retry: RetryPolicy,
    /// What models cost.
    pub prices: Prices,
    /// The most that this client may spend, in USD: a call that could exceed it is not made.
    pub max_cost: Option<f64>,
}

/// Asks one endpoint, as fast as limits allow, and pays for no answer twice.
///
/// Answers lie in a folder under a hash of what was asked, each written in one piece as soon as it is received. Who is
/// killed and starts again asks only for what was not received.
pub struct Client {
    transport: Box<dyn Transport>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    slots: Semaphore,
    budget: Budget,
    store: Option<Store>,
    state: Mutex<State>,
    /// One lock a request under way, so that equal requests share one answer.
    flights: Mutex<BTreeMap<RequestKey, Arc<tokio::sync::Mutex<()>>>>,
    stopping: watch::Sender<bool>,
}

#[derive(Debug)]
struct Store {
    cache: Cache,
    _lock: File,
}

struct State {
    pacer: Pacer,
    jitter: Stream,
    ledger: Option<Ledger>,
    totals: Totals,
}

/// An answer, and whether it was paid for now or before.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The answer.
    pub reply: Reply,
    /// Where it came from.
    pub source: Source,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the endpoint, now.
    Endpoint,
    /// From the cache.
    Cache,
}

/// The name of the ledger in a client's folder.
pub const LEDGER: &str = "ledger.jsonl";

/// How often a signal to stop is looked for.
const STOP_POLL: Duration = Duration::from_millis(50);

impl Client {
    /// A client over `transport`. `folder` keeps answers (`replies/`) and costs ([`LEDGER`]) and belongs to one client at a
    /// time; without one, nothing is kept. Pauses draw their chance from `jitter`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Locked`] for the folder, [`Error::Setting`] for a limit on costs that is no amount.
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
        let (store, ledger) = match folder {
            Some(folder) => {
                let store = Store::open(folder)?;
                (Some(store), Some(Ledger::open(&folder.join(LEDGER))?))
            }
            None => (None, None),
        };
        Ok(Self {
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

    /// What this client's calls come to so far. Answers from the cache cost nothing and do not count.
    pub fn totals(&self) -> Totals {
        self.state().totals
    }

    /// The answer to `request` if it was received before.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn cached(&self, request: &ChatRequest) -> Result<Option<Reply>, Error> {
        let key = RequestKey::new(self.transport.address(), request);
        self.store.as_ref().map_or(Ok(None), |store| store.cache.get(&key))
    }

    /// The most that a call can cost in USD, where the model's price is known.
    pub fn most_cost(&self, request: &ChatRequest) -> Option<f64> {
        Some(self.settings.prices.of(&request.model)?.cost(Usage {
            prompt_tokens: request.most_prompt_tokens(),
            completion_tokens: request.sampling.max_tokens.into(),
        }))
    }

    /// The answer to `request`: from the cache, or from the endpoint, which is asked again as the [`RetryPolicy`] says.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] when it gives up, [`Error::Budget`] and [`Error::NoPrice`] before a call that costs could not be kept
    /// in bounds, [`Error::Stopped`], [`Error::Io`].
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
        for attempt in 1.. {
            let failure = match self.attempt(request, key).await? {
                Ok(reply) => return Ok(Answered { reply, source: Source::Endpoint }),
                Err(failure) => failure,
            };
            let pause = self.settings.retry.pause(attempt, &failure, &mut self.state().jitter);
            let model = request.model.as_str();
            let Some(pause) = pause else {
                return Err(Error::Call { model: model.to_owned(), attempts: attempt, source: failure });
            };
            let seconds = pause.as_secs_f64();
            tracing::debug!(model, attempt, kind = failure.kind(), seconds, %failure, "asking again after a pause");
            self.sleep(pause).await?;
        }
        unreachable!("attempts are counted in 32 bits, and the policy ends them")
    }

    /// Asks once, when limits and budget allow it, and books what came of it.
    async fn attempt(
        &self,
        request: &ChatRequest,
        key: &RequestKey,
    ) -> Result<Result<Reply, Failure>, Error> {
        let price = self.settings.prices.of(&request.model);
        if price.is_none() && self.budget.has_limit() {
            return Err(Error::NoPrice { model: request.model.clone() });
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
        let outcome = self.transport.send(request).await;
        drop(slot);
        if let (Ok(reply), Some(store)) = (&outcome, &self.store) {
            // Before the books: an answer that is on disk is not paid again, whatever happens next.
            store.cache.put(key, reply)?;
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
            // Nobody knows how many tokens it had: the bound keeps the budget's promise.
            _ => reservation.most(),
        });
        reservation.settle(usd.unwrap_or(0.0));
        let mut state = self.state();
        if let Some(usage) = usage {
            state.pacer.settle(expected, usage.prompt_tokens + usage.completion_tokens);
        }
        let outcome = match outcome {
            Ok(_) => ANSWERED,
            Err(failure) if failure.may_be_billed() => failure.kind(),
            Err(_) => return Ok(()),
        };
        let row = LedgerRow {
            unix_seconds: self.clock.unix_seconds(),
            address: self.transport.address().to_owned(),
            model: request.model.clone(),
            key: key.as_str().to_owned(),
            outcome: outcome.to_owned(),
            usage,
            usd,
        };
        state.totals.add(&row);
        state.ledger.as_mut().map_or(Ok(()), |ledger| ledger.append(&row))
    }

    /// Waits, unless somebody asks to stop.
    async fn sleep(&self, duration: Duration) -> Result<(), Error> {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            () = self.clock.sleep(duration) => Ok(()),
            _ = stopping.wait_for(|stopping| *stopping) => Err(Error::Stopped),
        }
    }

    /// Runs `jobs` jobs, as many at a time as [`Limits::concurrency`] allows, and hands each one's outcome to `done` as it
    /// comes. The calling thread works until all are done; jobs make their calls with [`chat`](Self::chat).
    ///
    /// Once `done` breaks or `stop` is set, no further call is made: calls under way are waited for, since they are paid,
    /// and their outcomes handed over; jobs that wait for their turn end with [`Error::Stopped`], and what was not begun is
    /// not reported.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] where no event loop can be had.
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
        let concurrency = self.settings.limits.concurrency.get() as usize;
        runtime.block_on(async {
            let open = || !stop.load(Ordering::Relaxed) && !*self.stopping.borrow();
            let begun = stream::iter(0..jobs).take_while(|_| std::future::ready(open()));
            let running = begun.map(|index| {
                let outcome = job(index);
                async move { (index, outcome.await) }
            });
            let mut running = std::pin::pin!(running.buffer_unordered(concurrency));
            loop {
                tokio::select! {
                    next = running.next() => match next {
                        Some((index, outcome)) => {
                            if done(index, outcome).is_break() {
                                self.stopping.send_replace(true);
                            }
                        }
                        None => break,
                    },
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

/// Answers are rarely as long as they may be: a limit on tokens takes them for this part of it until they are known.
const EXPECTED_PART: u64 = 4;

impl Store {
    fn open(folder: &Path) -> Result<Self, Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action: "write", path, source }
        };
        fs::create_dir_all(folder).map_err(io(folder))?;
        let path = folder.join("lock");
        let file = File::create(&path).map_err(io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { cache: Cache::new(folder.join("replies")), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path }),
            Err(TryLockError::Error(source)) => Err(io(&path)(source)),
        }
    }
}

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
