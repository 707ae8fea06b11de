//! The store through which processes find each other.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::IntoRawFd;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::ffi::{self, StoreHandle};
use crate::TorchExtError;
use crate::ffi::call;

/// How long it takes until somebody who waits looks again.
const POLL: Duration = Duration::from_millis(5);

/// A key-value store that all processes reach: c10d's `TCPStore`. Clones speak through the same connection.
///
/// A request is answered or fails within the store's timeout, even where the network has gone silent: requests run on a
/// thread of their own, and one that is stuck there is left behind.
///
/// ```
/// use std::time::Duration;
/// use torch_ext::distributed::Store;
///
/// let store = Store::serve("127.0.0.1", 0, Duration::from_secs(5))?;
/// let client = Store::connect("127.0.0.1", store.port(), Duration::from_secs(5))?;
/// client.set("greeting", b"hello")?;
/// assert_eq!(store.get("greeting", Duration::from_secs(1))?, b"hello");
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    service: Arc<Service>,
    host: String,
    port: u16,
    timeout: Duration,
    prefix: String,
}

impl Store {
    /// Serves a store on `port` (0 for any that is free) and connects to it. Where `host` is this machine's loopback, nobody
    /// else can reach it; otherwise it listens on all addresses.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::PortTaken`], [`TorchExtError::Listen`], [`TorchExtError::NoStore`] where `host` is another machine.
    pub fn serve(host: &str, port: u16, timeout: Duration) -> Result<Self, TorchExtError> {
        let failed = |source: std::io::Error| match source.kind() {
            ErrorKind::AddrInUse => TorchExtError::PortTaken { host: host.to_owned(), port },
            _ => TorchExtError::Listen { host: host.to_owned(), port, source },
        };
        let mut addresses = (host, port).to_socket_addrs().map_err(failed)?;
        let loopback = addresses.find(|address| address.ip().is_loopback());
        let listener = match loopback {
            Some(address) => TcpListener::bind(address),
            None => TcpListener::bind(("0.0.0.0", port)),
        };
        let listener = listener.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Self::open(host, port, Some(listener), timeout)
    }

    /// Connects to the store at `host:port`, waiting for it to be served.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::NoStore`] where nobody answers in time.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self, TorchExtError> {
        let began = Instant::now();
        while let Err(source) = reach(host, port, timeout.saturating_sub(began.elapsed())) {
            if began.elapsed() >= timeout {
                let seconds = timeout.as_secs_f64();
                return Err(TorchExtError::NoStore { host: host.to_owned(), port, seconds, source });
            }
            thread::sleep(10 * POLL);
        }
        Self::open(host, port, None, timeout)
    }

    fn open(
        host: &str,
        port: u16,
        listener: Option<TcpListener>,
        timeout: Duration,
    ) -> Result<Self, TorchExtError> {
        let service = Arc::new(Service::start());
        let socket = listener.map_or(-1, IntoRawFd::into_raw_fd);
        let name = host.to_owned();
        service.request("open the store", timeout, move |handle| {
            let mut made = std::ptr::null_mut();
            call("open the store", |message| {
                // SAFETY: the name outlives the call, `made` is written where the call is done, and the socket is handed over.
                unsafe {
                    ffi::torch_ext_store_open(
                        ffi::Bytes::of(name.as_bytes()),
                        port,
                        socket,
                        milliseconds(timeout),
                        &raw mut made,
                        message,
                    )
                }
            })?;
            *handle = Some(StoreHandle::new(made));
            Ok(())
        })?;
        Ok(Self { service, host: host.to_owned(), port, timeout, prefix: String::new() })
    }

    /// The same store, where each key begins with `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { prefix: format!("{}{name}/", self.prefix), ..self.clone() }
    }

    /// The same store, for requests that are given up after `timeout`.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Where it is served.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How long a request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    ///
    /// Where the store is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), TorchExtError> {
        let (key, value) = (self.key(key), value.to_vec());
        self.request("write to the store", move |store| {
            call("write to the store", |message| {
                let (key, value) = (ffi::Bytes::of(key.as_bytes()), ffi::Bytes::of(&value));
                // SAFETY: store, key and value outlive the call.
                unsafe { ffi::torch_ext_store_set(store.as_ptr(), key, value, message) }
            })
        })
    }

    /// The value of `key`, which somebody sets within `patience`.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::TimedOut`] where nobody did; where the store is gone.
    pub fn get(&self, key: &str, patience: Duration) -> Result<Vec<u8>, TorchExtError> {
        let began = Instant::now();
        // Nobody waits inside of the store, where others could not speak meanwhile.
        while !self.contains(key)? {
            if began.elapsed() >= patience {
                let message = format!("nobody set `{key}` within {:.1} s", patience.as_secs_f64());
                return Err(TorchExtError::TimedOut { what: "read from the store", message });
            }
            thread::sleep(POLL);
        }
        let (key, timeout) = (self.key(key), milliseconds(self.timeout));
        self.request("read from the store", move |store| {
            answer("read from the store", |answer, message| {
                // SAFETY: store, key and answer outlive the call.
                unsafe {
                    let key = ffi::Bytes::of(key.as_bytes());
                    ffi::torch_ext_store_get(store.as_ptr(), key, timeout, answer, message)
                }
            })
        })
    }

    /// Sets `key` to `desired` if it is `expected` now (or empty and not there), and returns what it is afterwards.
    ///
    /// # Errors
    ///
    /// Where the store is gone.
    pub fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, TorchExtError> {
        let (key, expected, desired) = (self.key(key), expected.to_vec(), desired.to_vec());
        self.request("write to the store", move |store| {
            answer("write to the store", |answer, message| {
                // SAFETY: store, key, values and answer outlive the call.
                unsafe {
                    ffi::torch_ext_store_compare_set(
                        store.as_ptr(),
                        ffi::Bytes::of(key.as_bytes()),
                        ffi::Bytes::of(&expected),
                        ffi::Bytes::of(&desired),
                        answer,
                        message,
                    )
                }
            })
        })
    }

    /// Adds `amount` to the number under `key`, 0 at first, and returns the sum.
    ///
    /// # Errors
    ///
    /// Where the store is gone.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, TorchExtError> {
        let key = self.key(key);
        self.request("count in the store", move |store| {
            let mut sum = 0;
            call("count in the store", |message| {
                let key = ffi::Bytes::of(key.as_bytes());
                // SAFETY: store, key and sum outlive the call.
                unsafe { ffi::torch_ext_store_add(store.as_ptr(), key, amount, &raw mut sum, message) }
            })?;
            Ok(sum)
        })
    }

    /// Whether somebody set `key`.
    ///
    /// # Errors
    ///
    /// Where the store is gone.
    pub fn contains(&self, key: &str) -> Result<bool, TorchExtError> {
        let key = self.key(key);
        self.request("look into the store", move |store| {
            let mut is_there = 0;
            call("look into the store", |message| {
                let key = ffi::Bytes::of(key.as_bytes());
                // SAFETY: store, key and flag outlive the call.
                unsafe { ffi::torch_ext_store_check(store.as_ptr(), key, &raw mut is_there, message) }
            })?;
            Ok(is_there != 0)
        })
    }

    /// The address of this machine that faces the store: where other ranks can reach this one.
    pub(crate) fn own_address(&self) -> Result<String, TorchExtError> {
        let facing = |host: &str| {
            let to = (host, self.port).to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            // Connecting a datagram socket sends nothing: it asks for the route.
            socket.connect(to)?;
            Ok(socket.local_addr()?.ip().to_string())
        };
        facing(&self.host).map_err(|source| TorchExtError::Listen {
            host: self.host.clone(),
            port: 0,
            source,
        })
    }

    /// Runs `request` with the store's handle; `patience` is how long it may take.
    pub(crate) fn with_handle<T: Send + 'static>(
        &self,
        what: &'static str,
        patience: Duration,
        request: impl FnOnce(&StoreHandle) -> Result<T, TorchExtError> + Send + 'static,
    ) -> Result<T, TorchExtError> {
        self.service.request(what, patience, move |handle| {
            request(handle.as_ref().expect("a store exists once it was opened"))
        })
    }

    /// Where keys of a name lie.
    pub(crate) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn request<T: Send + 'static>(
        &self,
        what: &'static str,
        request: impl FnOnce(&StoreHandle) -> Result<T, TorchExtError> + Send + 'static,
    ) -> Result<T, TorchExtError> {
        self.with_handle(what, self.timeout, request)
    }
}

/// The thread that owns the handle.
#[derive(Debug)]
struct Service {
    state: Mutex<ServiceState>,
}

#[derive(Debug)]
struct ServiceState {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

type Request = Box<dyn FnOnce(&mut Option<StoreHandle>) + Send>;

impl Service {
    fn start() -> Self {
        let (requests, received) = mpsc::channel::<Request>();
        let thread = thread::spawn(move || {
            let mut handle = None;
            for request in received {
                request(&mut handle);
            }
        });
        Self { state: Mutex::new(ServiceState { requests: Some(requests), thread: Some(thread) }) }
    }

    fn request<T: Send + 'static>(
        &self,
        what: &'static str,
        patience: Duration,
        request: impl FnOnce(&mut Option<StoreHandle>) -> Result<T, TorchExtError> + Send + 'static,
    ) -> Result<T, TorchExtError> {
        let silent = || TorchExtError::TimedOut {
            what,
            message: format!("the store has not answered for {:.1} s", patience.as_secs_f64()),
        };
        let (reply, replied) = mpsc::channel();
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let requests = state.requests.as_ref().ok_or_else(silent)?;
        // Whoever has stopped waiting does not hear the answer.
        let request: Request = Box::new(move |handle| drop(reply.send(request(handle))));
        requests.send(request).map_err(|_| silent())?;
        match replied.recv_timeout(patience) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                // The thread is stuck, and is left to itself.
                *state = ServiceState { requests: None, thread: None };
                Err(silent())
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.requests = None;
        if let Some(thread) = state.thread.take() {
            // So that a port is free again when its store is dropped. A panic there has been reported by then.
            let _ = thread.join();
        }
    }
}

fn reach(host: &str, port: u16, patience: Duration) -> std::io::Result<()> {
    let mut last = std::io::Error::from(ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience.max(POLL)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Asks again with more room where an answer is longer than expected.
fn answer(
    what: &'static str,
    mut ask: impl FnMut(ffi::Answer, crate::ffi::Message) -> i32,
) -> Result<Vec<u8>, TorchExtError> {
    let mut bytes = vec![0; 512];
    loop {
        let (capacity, mut length) = (bytes.len(), 0);
        let answer = ffi::Answer { data: bytes.as_mut_ptr(), capacity, length: &raw mut length };
        call(what, |message| ask(answer, message))?;
        bytes.resize(length, 0);
        if length <= capacity {
            return Ok(bytes);
        }
    }
}
