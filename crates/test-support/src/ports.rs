//! Ports for tests with several processes.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The first port and the number of ports. They are below the ephemeral ports, which a connection or another test may
/// take at any time.
const FIRST: u32 = 20_000;
const PORTS: u32 = 12_000;

/// Returns a free local port. Every call in a process returns another one, and processes start at different ones.
///
/// # Panics
///
/// If all are taken.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ports = std::iter::repeat_with(|| {
        let next = process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        (FIRST + next % PORTS) as u16
    });
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(PORTS as usize).find(is_free).expect("a port of this machine")
}
