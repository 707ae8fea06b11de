//! Ports for tests whose processes meet.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The first of the ports to choose from, and how many there are: below those that the system hands out by itself, of which a
/// connection or another test may have any a moment later.
const FIRST: u32 = 20_000;
const PORTS: u32 = 12_000;

/// A port of this machine that nobody listens on. Every call of a process names another, and processes begin at different ones.
///
/// # Panics
///
/// Where all are taken.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ports = std::iter::repeat_with(|| {
        let next = process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        (FIRST + next % PORTS) as u16
    });
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(PORTS as usize).find(is_free).expect("a port of this machine")
}
