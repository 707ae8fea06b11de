//! A chat-completions server on this machine that fails as real ones do, and that a test can hold at a chosen request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{Headers, Request, respond};

/// How a [`MockServer`] behaves.
#[derive(Clone, Debug)]
pub struct MockBehaviour {
    /// The time before an answer or an error.
    pub latency: Duration,
    /// Of a thousand requests, the number with each fault; the rest are answered.
    pub faults: Vec<(u16, MockFault)>,
    /// The key that requests must send as a bearer token, if any.
    pub key: Option<String>,
    /// The seed of the faults.
    pub seed: u64,
    /// The first requests, this many, are answered only when all of them have arrived.
    pub together: usize,
}

/// What can happen to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum MockFault {
    /// An error with this status, these headers (`retry-after: 1\r\n`) and this body.
    Status(u16, String, String),
    /// Nothing is ever sent.
    Hang,
    /// The answer breaks off in the middle.
    CutBody,
}

/// A request, and whether it was answered.
#[derive(Clone, Debug)]
pub struct MockCall {
    /// The request's path with its query.
    pub path: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Value,
    /// Whether the server sent a complete answer, which a provider would bill.
    pub paid: bool,
    /// The time of its arrival since the server's start.
    pub at: Duration,
}

/// A server on a port of its own, with a thread for each connection. Dropping it closes the port.
#[derive(Debug)]
pub struct MockServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// Returns the model's text for the body of a request.
type Says = Box<dyn Fn(&Value) -> String + Send + Sync>;

struct Shared {
    behaviour: MockBehaviour,
    says: Says,
    calls: Mutex<Vec<MockCall>>,
    traffic: Mutex<Traffic>,
    changed: Condvar,
    closed: AtomicBool,
    start: Instant,
}

/// The path of a request that is answered and not recorded.
const BARRIER: &str = "/barrier";

/// Connections and requests, as far as tests wait for them.
#[derive(Default)]
struct Traffic {
    /// Connections that are accepted and not yet closed.
    open: usize,
    /// Requests that have arrived.
    arrived: usize,
    /// Requests between their arrival and the end of their answer.
    under_way: usize,
    /// The largest value of `under_way`.
    most: usize,
    /// Requests from this index on are held.
    held_from: Option<usize>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("behaviour", &self.behaviour).finish_non_exhaustive()
    }
}

impl MockBehaviour {
    /// Answers without delay and never fails.
    pub fn perfect() -> Self {
        Self { latency: Duration::ZERO, faults: Vec::new(), key: None, seed: 0, together: 0 }
    }

    /// Answers after 200 ms. Of a hundred requests five exceed a rate limit (with a `retry-after` of a second), two get a
    /// server error, one hangs and one gets a truncated answer.
    pub fn flaky(seed: u64) -> Self {
        Self {
            latency: Duration::from_millis(200),
            faults: vec![
                (50, MockFault::rate_limit(Some(1))),
                (20, MockFault::Status(500, String::new(), "the server is out of sorts".to_owned())),
                (10, MockFault::Hang),
                (10, MockFault::CutBody),
            ],
            seed,
            ..Self::perfect()
        }
    }
}

impl MockFault {
    /// A rate limit, with the seconds of `retry-after` if any.
    pub fn rate_limit(seconds: Option<u32>) -> Self {
        let header = seconds.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
        let error = json!({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}});
        Self::Status(429, header, error.to_string())
    }
}

impl MockServer {
    /// Starts a server that answers a request's body with the text of `says`.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn start(behaviour: MockBehaviour, says: impl Fn(&Value) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of this machine");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            behaviour,
            says: Box::new(says),
            calls: Mutex::default(),
            traffic: Mutex::default(),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
            start: Instant::now(),
        });
        let accepted = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if accepted.closed.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepted);
                shared.update(|traffic| traffic.open += 1);
                thread::spawn(move || {
                    let _open = Open(&shared);
                    // A client that went away is no failure of the server.
                    let _ = stream.and_then(|stream| shared.serve(stream));
                });
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Starts a server of files: `file` returns the content of a path, or an empty string if there is none.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn files(file: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start(MockBehaviour::perfect(), move |path| file(path.as_str().unwrap_or("")))
    }

    /// The base URL for clients.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Every request so far, in the order of arrival.
    pub fn calls(&self) -> Vec<MockCall> {
        lock(&self.shared.calls).clone()
    }

    /// The number of requests that got a complete answer.
    pub fn paid(&self) -> usize {
        lock(&self.shared.calls).iter().filter(|call| call.paid).count()
    }

    /// The largest number of requests that were under way at a time.
    pub fn most_at_a_time(&self) -> usize {
        lock(&self.shared.traffic).most
    }

    /// Answers the first `requests` and holds later ones until [`MockServer::release`].
    pub fn hold_after(&self, requests: usize) {
        self.shared.update(|traffic| traffic.held_from = Some(requests));
    }

    /// Answers held and later requests.
    pub fn release(&self) {
        self.shared.update(|traffic| traffic.held_from = None);
    }

    /// Blocks until `requests` have arrived since the server's start.
    pub fn wait_for_requests(&self, requests: usize) {
        self.shared.wait(|traffic| traffic.arrived >= requests);
    }

    /// Blocks until every connection that was opened before this call is closed.
    ///
    /// # Panics
    ///
    /// If the server accepts no connection.
    pub fn wait_until_idle(&self) {
        // Connections are accepted in order: the answer to this one shows that all earlier ones are counted.
        let answered = TcpStream::connect(self.address).and_then(|mut stream| {
            stream.write_all(format!("GET {BARRIER} HTTP/1.1\r\n\r\n").as_bytes())?;
            stream.read_to_end(&mut Vec::new())
        });
        answered.expect("a server that accepts connections");
        self.shared.wait(|traffic| traffic.open == 0);
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.release();
        // Wakes the accepting thread, so that it reads the flag, and waits until it has closed the port.
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.accepting.take().map(JoinHandle::join);
        }
    }
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Traffic)) {
        change(&mut lock(&self.traffic));
        self.changed.notify_all();
    }

    fn wait(&self, is_so: impl Fn(&Traffic) -> bool) {
        let waited = self.changed.wait_while(lock(&self.traffic), |traffic| !is_so(traffic));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let Request { path, headers, body, .. } = Request::read(&stream)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        match path.as_str() {
            BARRIER => return respond(&mut stream, 200, "", ""),
            // The client ended before it sent its request.
            "" => return Ok(()),
            _ => {}
        }
        let index = {
            let mut calls = lock(&self.calls);
            let at = self.start.elapsed();
            calls.push(MockCall { path, headers: headers.clone(), body: body.clone(), paid: false, at });
            calls.len() - 1
        };
        if body.is_null() {
            let path = lock(&self.calls)[index].path.clone();
            let file = (self.says)(&path.into());
            return respond(&mut stream, if file.is_empty() { 404 } else { 200 }, "", &file);
        }
        let _under_way = UnderWay::enter(self);
        self.wait(|traffic| {
            let waits_for_others =
                index < self.behaviour.together && traffic.arrived < self.behaviour.together;
            !waits_for_others && traffic.held_from.is_none_or(|from| index < from)
        });
        if let Some(key) = &self.behaviour.key {
            let sent = headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value);
            if sent != Some(&format!("Bearer {key}")) {
                let said = format!("Incorrect API key provided: {}", sent.map_or("", String::as_str));
                return respond(&mut stream, 401, "", &json!({"error": {"message": said}}).to_string());
            }
        }
        let fault = self.fault(index);
        if fault == Some(&MockFault::Hang) {
            // Blocks until the client gives up and closes its end.
            return stream.read(&mut [0]).map(|_| ());
        }
        thread::sleep(self.behaviour.latency);
        if let Some(MockFault::Status(status, headers, body)) = fault {
            return respond(&mut stream, *status, headers, body);
        }
        let text = (self.says)(&body);
        let prompt: usize = body["messages"].as_array().map_or(0, |messages| {
            messages.iter().filter_map(|message| message["content"].as_str()).map(str::len).sum()
        });
        let answer = json!({
            "id": format!("mock-{index}"),
            "object": "chat.completion",
            "model": body["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt / 4, "completion_tokens": text.len() / 4},
        })
        .to_string();
        if fault == Some(&MockFault::CutBody) {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
            return stream.write_all(format!("{head}{}", &answer[..answer.len() / 2]).as_bytes());
        }
        lock(&self.calls)[index].paid = true;
        respond(&mut stream, 200, "content-type: application/json\r\n", &answer)
    }

    /// Draws the fault of request `index`.
    fn fault(&self, index: usize) -> Option<&MockFault> {
        let mut draw = mixed(self.behaviour.seed.wrapping_mul(0x9e37).wrapping_add(index as u64)) % 1000;
        for (of_a_thousand, fault) in &self.behaviour.faults {
            if draw < u64::from(*of_a_thousand) {
                return Some(fault);
            }
            draw -= u64::from(*of_a_thousand);
        }
        None
    }
}

/// Counts a connection as closed when it is dropped, also by a panic.
struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.update(|traffic| traffic.open -= 1);
    }
}

/// Counts a request as under way until it is dropped.
struct UnderWay<'a>(&'a Shared);

impl<'a> UnderWay<'a> {
    fn enter(shared: &'a Shared) -> Self {
        shared.update(|traffic| {
            traffic.arrived += 1;
            traffic.under_way += 1;
            traffic.most = traffic.most.max(traffic.under_way);
        });
        Self(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.update(|traffic| traffic.under_way -= 1);
    }
}

/// Mixes an index into a number that is the same in each run.
fn mixed(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
