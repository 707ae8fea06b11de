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

/// The polling interval.
const POLL: Duration = Duration::from_millis(5);

/// A key-value store for all processes: c10d's `TCPStore`. Clones share a connection.
///
/// A request returns or fails within the store's timeout, even without a response from the network: requests run on a thread of
/// their own, and a blocked one is abandoned.
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
    /// Serves a store on `port` (0 for any free port) and connects to it. It listens on the interface with the address `host`
    /// only: for `127.0.0.1` on the loopback interface, which other machines cannot reach.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::PortTaken`], [`TorchExtError::Listen`], also if `host` is no address of this machine.
    pub fn serve(host: &str, port: u16, timeout: Duration) -> Result<Self, TorchExtError> {
        let failed = |source: std::io::Error| match source.kind() {
            ErrorKind::AddrInUse => TorchExtError::PortTaken { host: host.to_owned(), port },
            _ => TorchExtError::Listen { host: host.to_owned(), port, source },
        };
        let mut addresses: Vec<_> = (host, port).to_socket_addrs().map_err(failed)?.collect();
        addresses.sort_by_key(|address| !address.ip().is_loopback());
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Self::open(host, port, Some(listener), timeout)
    }

    /// Connects to the store at `host:port`. Waits until it is served.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::NoStore`] at the timeout.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self, TorchExtError> {
        let began = Instant::now();
        while let Err(source) = connect_once(host, port, timeout.saturating_sub(began.elapsed())) {
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
            let mut out = std::ptr::null_mut();
            call("open the store", |message| {
                // SAFETY: the name outlives the call, `out` is written on success, and the shim owns the socket.
                unsafe {
                    ffi::torch_ext_store_open(
                        ffi::Bytes::of(name.as_bytes()),
                        port,
                        socket,
                        milliseconds(timeout),
                        &raw mut out,
                        message,
                    )
                }
            })?;
            *handle = Some(StoreHandle::new(out));
            Ok(())
        })?;
        Ok(Self { service, host: host.to_owned(), port, timeout, prefix: String::new() })
    }

    /// Returns the same store with the key prefix `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { prefix: format!("{}{name}/", self.prefix), ..self.clone() }
    }

    /// Returns the same store with another timeout of requests.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Returns the port of the store.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the timeout of requests.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    ///
    /// The store does not answer.
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

    /// Returns the value of `key`. Waits until it is set, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// [`TorchExtError::TimedOut`] if it is not set; the store does not answer.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, TorchExtError> {
        let began = Instant::now();
        // Polls, since a wait in the store would block other requests of this connection.
        while !self.contains(key)? {
            if began.elapsed() >= timeout {
                let message = format!("`{key}` was not set within {:.1} s", timeout.as_secs_f64());
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

    /// Sets `key` to `desired` if its value is `expected` (or `expected` is empty and the key is not set). Returns the new value.
    ///
    /// # Errors
    ///
    /// The store does not answer.
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

    /// Adds `amount` to the number under `key`, initially 0, and returns the sum.
    ///
    /// # Errors
    ///
    /// The store does not answer.
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

    /// Returns whether `key` is set.
    ///
    /// # Errors
    ///
    /// The store does not answer.
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

    /// Returns the address of this machine that faces the store, at which other ranks can connect.
    pub(crate) fn own_address(&self) -> Result<String, TorchExtError> {
        let facing = |host: &str| {
            let to = (host, self.port).to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            // Connecting a datagram socket sends nothing: it looks up the route.
            socket.connect(to)?;
            Ok(socket.local_addr()?.ip().to_string())
        };
        facing(&self.host).map_err(|source| TorchExtError::Listen {
            host: self.host.clone(),
            port: 0,
            source,
        })
    }

    /// Runs `request` with the store's handle, for at most `timeout`.
    pub(crate) fn with_handle<T: Send + 'static>(
        &self,
        what: &'static str,
        timeout: Duration,
        request: impl FnOnce(&StoreHandle) -> Result<T, TorchExtError> + Send + 'static,
    ) -> Result<T, TorchExtError> {
        self.service.request(what, timeout, move |handle| {
            request(handle.as_ref().expect("a store exists once it was opened"))
        })
    }

    /// Returns `key` with the prefix of this store.
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
        timeout: Duration,
        request: impl FnOnce(&mut Option<StoreHandle>) -> Result<T, TorchExtError> + Send + 'static,
    ) -> Result<T, TorchExtError> {
        let silent = || TorchExtError::TimedOut {
            what,
            message: format!("the store has not answered for {:.1} s", timeout.as_secs_f64()),
        };
        let (reply, replied) = mpsc::channel();
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let requests = state.requests.as_ref().ok_or_else(silent)?;
        // The receiver is gone after a timeout.
        let request: Request = Box::new(move |handle| drop(reply.send(request(handle))));
        requests.send(request).map_err(|_| silent())?;
        match replied.recv_timeout(timeout) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                // Abandons the blocked thread.
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
            // Frees the port before the drop ends. The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

fn connect_once(host: &str, port: u16, timeout: Duration) -> std::io::Result<()> {
    let mut last = std::io::Error::from(ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout.max(POLL)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Repeats a request with a larger buffer if the answer is longer than the first one.
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
