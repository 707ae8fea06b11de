//! A local chat-completions server with realistic faults.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How a [`MockServer`] behaves.
#[derive(Clone, Debug)]
pub struct MockBehaviour {
    /// Time before an answer or an error.
    pub latency: Duration,
    /// Of a thousand requests, how many meet each fault; the rest are answered.
    pub faults: Vec<(u16, MockFault)>,
    /// The key that must come as a bearer token, if any.
    pub key: Option<String>,
    /// Seed of the faults.
    pub seed: u64,
}

/// An outcome of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum MockFault {
    /// An error with this status, these headers (`retry-after: 1\r\n`) and this body.
    Status(u16, String, String),
    /// Nothing is ever sent.
    Hang,
    /// The answer is truncated.
    CutBody,
}

/// Names, in lower case, and values.
type Headers = Vec<(String, String)>;

/// A received request and its outcome.
#[derive(Clone, Debug)]
pub struct MockCall {
    /// The request's path with its query.
    pub path: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Value,
    /// Whether it got a whole answer, which a provider would bill.
    pub paid: bool,
    /// When it arrived, since the server began.
    pub at: Duration,
}

/// A server on a port of its own, with a thread for each connection. It ends when it is dropped.
#[derive(Debug)]
pub struct MockServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// Maps the body of a request to the model's text.
type Says = Box<dyn Fn(&Value) -> String + Send + Sync>;

struct Shared {
    behaviour: MockBehaviour,
    says: Says,
    calls: Mutex<Vec<MockCall>>,
    under_way: Mutex<(usize, usize)>,
    closed: AtomicBool,
    start: Instant,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("behaviour", &self.behaviour).finish_non_exhaustive()
    }
}

impl MockBehaviour {
    /// Answers at once and never fails.
    pub fn perfect() -> Self {
        Self { latency: Duration::ZERO, faults: Vec::new(), key: None, seed: 0 }
    }

    /// Answers after 200 ms. Of a hundred requests five exceed the rate limit (with a `retry-after` of a second). Two
    /// get a server error, one hangs and one gets a truncated answer.
    pub fn flaky(seed: u64) -> Self {
        Self {
            latency: Duration::from_millis(200),
            faults: vec![
                (50, MockFault::rate_limit(Some(1))),
                (20, MockFault::Status(500, String::new(), "the server is out of sorts".to_owned())),
                (10, MockFault::Hang),
                (10, MockFault::CutBody),
            ],
            key: None,
            seed,
        }
    }
}

impl MockFault {
    /// Too many requests, with the seconds to wait if any.
    pub fn rate_limit(seconds: Option<u32>) -> Self {
        let header = seconds.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
        let error = json!({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}});
        Self::Status(429, header, error.to_string())
    }
}

impl MockServer {
    /// Starts a server whose answers are `says` of a request's body.
    ///
    /// # Panics
    ///
    /// If no port is available.
    pub fn start(behaviour: MockBehaviour, says: impl Fn(&Value) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of this machine");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            behaviour,
            says: Box::new(says),
            calls: Mutex::default(),
            under_way: Mutex::default(),
            closed: AtomicBool::new(false),
            start: Instant::now(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.closed.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A client that closed its connection is not a server error.
                std::thread::spawn(move || stream.and_then(|stream| shared.serve(stream)));
            }
        });
        Self { address, shared }
    }

    /// Starts a file server: `file` maps a request's path to content, which is empty for a missing file.
    ///
    /// # Panics
    ///
    /// If no port is available.
    pub fn files(file: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start(MockBehaviour::perfect(), move |path| file(path.as_str().unwrap_or("")))
    }

    /// The base URL that clients are given.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Every request so far, in the order of arrival.
    pub fn calls(&self) -> Vec<MockCall> {
        lock(&self.shared.calls).clone()
    }

    /// Returns the number of requests with a complete answer.
    pub fn paid(&self) -> usize {
        lock(&self.shared.calls).iter().filter(|call| call.paid).count()
    }

    /// Returns the maximum number of concurrent requests.
    pub fn most_at_a_time(&self) -> usize {
        lock(&self.shared.under_way).1
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts, so that it sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let (path, headers, body) = read_request(&stream)?;
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
        let _under_way = UnderWay::enter(&self.under_way);
        if let Some(key) = &self.behaviour.key {
            let sent = headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value);
            if sent != Some(&format!("Bearer {key}")) {
                let said = format!("Incorrect API key provided: {}", sent.map_or("", String::as_str));
                return respond(&mut stream, 401, "", &json!({"error": {"message": said}}).to_string());
            }
        }
        let fault = self.fault(index);
        if fault == Some(&MockFault::Hang) {
            // Until the client gives up and closes its end.
            return stream.read(&mut [0]).map(|_| ());
        }
        std::thread::sleep(self.behaviour.latency);
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

    /// Returns the fault of request number `index`.
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

/// Path, headers and JSON body of a request.
fn read_request(stream: &TcpStream) -> io::Result<(String, Headers, Value)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("").to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok((path, headers, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

fn respond(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} Mock\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())
}

/// Counts a request while it is under way: how many there are, and how many there were at most.
struct UnderWay<'a>(&'a Mutex<(usize, usize)>);

impl<'a> UnderWay<'a> {
    fn enter(counts: &'a Mutex<(usize, usize)>) -> Self {
        let mut count = lock(counts);
        count.0 += 1;
        count.1 = count.1.max(count.0);
        Self(counts)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(self.0).0 -= 1;
    }
}

/// A mixing function: the fault of an index is the same in each run.
fn mixed(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
