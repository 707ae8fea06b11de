//! A server of OpenAI's Batch API on this machine: files, batches, results, and the ways in which batches end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use crate::http::{Request, respond};

/// The end of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchFate {
    /// All calls are made.
    Complete,
    /// Every call whose number is divisible by this one fails with HTTP status 500; the others are made.
    FailEvery(usize),
    /// The batch expires after this many calls.
    ExpireAfter(usize),
    /// Somebody cancels the batch after this many calls.
    CancelAfter(usize),
    /// The validation fails with this code.
    Reject(String),
    /// All calls are made, but the client gets no answer to the request that created the batch.
    LoseAnswer,
}

/// How a [`MockBatchServer`] behaves.
#[derive(Clone, Debug, Default)]
pub struct MockBatchBehaviour {
    /// The fate of each batch in the order of creation. Later batches are completed.
    pub fates: Vec<BatchFate>,
    /// The number of requests for a batch's state that show it unfinished.
    pub polls: usize,
    /// The key that requests must send as a bearer token, if any.
    pub key: Option<String>,
}

/// A server on a port of its own. Dropping it closes the port.
#[derive(Debug)]
pub struct MockBatchServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

type Says = Box<dyn Fn(&Value) -> String + Send + Sync>;

struct Shared {
    behaviour: MockBatchBehaviour,
    says: Says,
    state: Mutex<State>,
    held: AtomicBool,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, String>,
    batches: Vec<MockBatch>,
    billed: BTreeMap<String, usize>,
    requests: Vec<String>,
}

#[derive(Debug)]
struct MockBatch {
    id: String,
    input: String,
    /// The state at the end, with counts and files.
    end: Value,
    polled: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("behaviour", &self.behaviour).finish_non_exhaustive()
    }
}

impl MockBatchServer {
    /// Starts a server that answers the body of each call with the text of `says`.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn start(
        behaviour: MockBatchBehaviour,
        says: impl Fn(&Value) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of this machine");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            behaviour,
            says: Box::new(says),
            state: Mutex::default(),
            held: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let accepted = Arc::clone(&shared);
        // One request at a time.
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if accepted.closed.load(Ordering::Relaxed) {
                    return;
                }
                // A client that went away is no failure of the server.
                let _ = stream.and_then(|stream| accepted.serve(stream));
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// The base URL for clients.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Shows all batches unfinished until [`MockBatchServer::release`].
    pub fn hold(&self) {
        self.shared.held.store(true, Ordering::Relaxed);
    }

    /// Shows the true state of batches.
    pub fn release(&self) {
        self.shared.held.store(false, Ordering::Relaxed);
    }

    /// The number of times that each call was made and billed, by `custom_id`.
    pub fn billed(&self) -> BTreeMap<String, usize> {
        lock(&self.shared.state).billed.clone()
    }

    /// The number of batches.
    pub fn batches(&self) -> usize {
        lock(&self.shared.state).batches.len()
    }

    /// The method and the path of each request.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.state).requests.clone()
    }
}

impl Drop for MockBatchServer {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.accepting.take().map(JoinHandle::join);
        }
    }
}

/// A status and a body; `None` closes the connection without an answer.
type Answer = Option<(u16, String)>;

fn error(status: u16, message: &str) -> Answer {
    Some((status, json!({"error": {"message": message, "type": "invalid_request_error"}}).to_string()))
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let request = Request::read(&stream)?;
        if request.path.is_empty() {
            return Ok(());
        }
        lock(&self.state).requests.push(format!("{} {}", request.method, request.path));
        match self.answer(&request) {
            Some((status, body)) => respond(&mut stream, status, "", &body),
            None => Ok(()),
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        if let Some(key) = &self.behaviour.key
            && request.header("authorization") != Some(&format!("Bearer {key}"))
        {
            return error(401, "Incorrect API key provided");
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        match (request.method.as_str(), &parts[..]) {
            ("POST", ["files"]) => self.upload(request),
            ("GET", ["files", id, "content"]) => match lock(&self.state).files.get(*id) {
                Some(text) => Some((200, text.clone())),
                None => error(404, "No such file"),
            },
            ("POST", ["batches"]) => self.create(&request.body),
            ("GET", ["batches"]) => Some((200, self.list(query).to_string())),
            ("GET", ["batches", id]) => self.state_of(id),
            _ => error(404, "Unknown request URL"),
        }
    }

    /// Stores the file of a form with the fields `purpose` and `file`.
    fn upload(&self, request: &Request) -> Answer {
        let kind = request.header("content-type").unwrap_or_default();
        let Some(boundary) = kind.strip_prefix("multipart/form-data; boundary=") else {
            return error(400, "the body is no form");
        };
        let body = String::from_utf8_lossy(&request.body);
        let boundary = format!("--{boundary}");
        let parts = body.split(&boundary).filter_map(|part| {
            let (head, content) = part.split_once("\r\n\r\n")?;
            Some((head.to_ascii_lowercase(), content.strip_suffix("\r\n")?.to_owned()))
        });
        let parts: Vec<(String, String)> = parts.collect();
        let field = |name: &str| {
            let of = parts.iter().find(|(head, _)| head.contains(&format!("name=\"{name}\"")));
            of.map(|(_, content)| content.clone())
        };
        if field("purpose").as_deref() != Some("batch") {
            return error(400, "the purpose is not batch");
        }
        let Some(content) = field("file") else { return error(400, "there is no file") };
        let mut state = lock(&self.state);
        let id = format!("file-in-{}", state.files.len());
        let answer = json!({"id": id, "object": "file", "bytes": content.len(), "purpose": "batch"});
        state.files.insert(id, content);
        Some((200, answer.to_string()))
    }

    /// Creates a batch, and makes its calls at once.
    fn create(&self, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let input = body["input_file_id"].as_str().unwrap_or_default().to_owned();
        if body["completion_window"] != "24h" || body["endpoint"] != "/v1/chat/completions" {
            return error(400, "Invalid completion_window or endpoint");
        }
        let mut state = lock(&self.state);
        let Some(lines) = state.files.get(&input).cloned() else { return error(400, "No such file") };
        let number = state.batches.len();
        let fate = self.behaviour.fates.get(number).cloned().unwrap_or(BatchFate::Complete);
        let (id, end) = (format!("batch_{number}"), self.run(&mut state, &lines, &fate));
        state.batches.push(MockBatch { id, input, end, polled: 0 });
        let answer = shown(&state.batches[number], "validating").to_string();
        (fate != BatchFate::LoseAnswer).then_some((200, answer))
    }

    /// The batches from the newest to the oldest, two a page, whatever the client's limit.
    fn list(&self, query: &str) -> Value {
        let state = lock(&self.state);
        let after = query.split('&').find_map(|pair| pair.strip_prefix("after="));
        let newest_first = state.batches.iter().rev();
        let rest: Vec<&MockBatch> = match after {
            Some(after) => newest_first.skip_while(|batch| batch.id != after).skip(1).collect(),
            None => newest_first.collect(),
        };
        let page: Vec<Value> = rest.iter().take(2).map(|batch| shown(batch, "in_progress")).collect();
        json!({"object": "list", "data": page, "has_more": rest.len() > 2})
    }

    fn state_of(&self, id: &str) -> Answer {
        let mut state = lock(&self.state);
        let Some(batch) = state.batches.iter_mut().find(|batch| batch.id == id) else {
            return error(404, "No such batch");
        };
        batch.polled += 1;
        let left = (self.behaviour.polls + 1).saturating_sub(batch.polled);
        let answer = match left {
            _ if self.held.load(Ordering::Relaxed) => Some(shown(batch, "in_progress")),
            0 => batch.end.as_object().cloned().map(|mut end| {
                end.extend([
                    ("id".to_owned(), json!(batch.id)),
                    ("input_file_id".to_owned(), json!(batch.input)),
                ]);
                Value::Object(end)
            }),
            1 => Some(shown(batch, "finalizing")),
            _ => Some(shown(batch, "in_progress")),
        };
        Some((200, answer.unwrap_or_default().to_string()))
    }

    /// Validates a batch and makes its calls. Returns its state at the end.
    fn run(&self, state: &mut State, lines: &str, fate: &BatchFate) -> Value {
        let failed = |code: &str, line: Option<usize>| {
            json!({
                "object": "batch", "status": "failed", "output_file_id": null, "error_file_id": null,
                "errors": {"object": "list", "data": [{"code": code, "message": "refused", "line": line}]},
            })
        };
        let calls: Vec<Value> = match lines.lines().map(serde_json::from_str).collect() {
            Ok(calls) => calls,
            Err(_) => return failed("invalid_json_line", Some(1)),
        };
        if let Some((code, line)) = invalid(&calls) {
            return failed(code, line);
        }
        if let BatchFate::Reject(code) = fate {
            return failed(code, None);
        }
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        for (index, call) in calls.iter().enumerate() {
            let id = call["custom_id"].as_str().unwrap_or_default();
            let ended = |code: &str, message: &str| json!({"id": format!("r{index}"), "custom_id": id, "response": null, "error": {"code": code, "message": message}});
            match fate {
                BatchFate::ExpireAfter(made) if index >= *made => errors.push(ended(
                    "batch_expired",
                    "This request could not be executed before the completion window expired.",
                )),
                BatchFate::CancelAfter(made) if index >= *made => {}
                BatchFate::FailEvery(every) if index.is_multiple_of(*every) => errors.push(json!({
                    "id": format!("r{index}"), "custom_id": id, "error": null,
                    "response": {"status_code": 500, "request_id": "q", "body": {"error": {"message": "out of sorts"}}},
                })),
                _ => {
                    *state.billed.entry(id.to_owned()).or_default() += 1;
                    let text = (self.says)(&call["body"]);
                    let body = json!({
                        "object": "chat.completion", "model": call["body"]["model"],
                        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
                    });
                    output.push(json!({
                        "id": format!("r{index}"), "custom_id": id, "error": null,
                        "response": {"status_code": 200, "request_id": "q", "body": body},
                    }));
                }
            }
        }
        let status = match fate {
            BatchFate::ExpireAfter(_) => "expired",
            BatchFate::CancelAfter(_) => "cancelled",
            _ => "completed",
        };
        let counts = json!({"total": calls.len(), "completed": output.len(), "failed": errors.len()});
        let mut file = |lines: Vec<Value>| {
            let id = format!("file-out-{}", state.files.len());
            // The order of results is not that of the calls.
            let text: String = lines.iter().rev().map(|line| format!("{line}\n")).collect();
            (!text.is_empty()).then(|| {
                state.files.insert(id.clone(), text);
                id
            })
        };
        json!({
            "object": "batch", "status": status, "endpoint": "/v1/chat/completions", "request_counts": counts,
            "output_file_id": file(output), "error_file_id": file(errors),
        })
    }
}

fn shown(batch: &MockBatch, status: &str) -> Value {
    json!({
        "id": batch.id, "object": "batch", "endpoint": "/v1/chat/completions", "status": status, "errors": null,
        "input_file_id": batch.input, "completion_window": "24h", "output_file_id": null, "error_file_id": null,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
    })
}

/// The code and the line of the first mistake in an input file.
fn invalid(calls: &[Value]) -> Option<(&'static str, Option<usize>)> {
    if calls.is_empty() {
        return Some(("empty_file", None));
    }
    if calls.len() > 50_000 {
        return Some(("too_many_tasks", None));
    }
    let mut ids = BTreeSet::new();
    for (line, call) in (1..).zip(calls) {
        let problem = match call {
            call if !call["custom_id"].is_string() || call["method"] != "POST" => Some("invalid_request"),
            call if call["custom_id"].as_str().is_some_and(|id| id.len() > 64) => Some("invalid_request"),
            call if call["url"] != "/v1/chat/completions" => Some("url_mismatch"),
            call if call["body"]["model"] != calls[0]["body"]["model"] => Some("model_mismatch"),
            call if !ids.insert(call["custom_id"].to_string()) => Some("duplicate_custom_id"),
            _ => None,
        };
        if let Some(code) = problem {
            return Some((code, Some(line)));
        }
    }
    None
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
