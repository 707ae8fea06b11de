//! The log in the folder of a run or a study.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::launch::is_launched;
use crate::terminal;

/// The file's name.
pub(crate) const NAME: &str = "log.txt";
/// The most bytes that wait for the folder.
const MOST_WAITING: usize = 1 << 20;

static LOG: Mutex<Log> = Mutex::new(Log::Waiting(Vec::new()));

#[derive(Debug)]
enum Log {
    /// The folder does not exist yet: refused input leaves no folder.
    Waiting(Vec<u8>),
    Open(File),
    /// The file cannot be written.
    Closed,
}

/// Opens the log in an existing folder, if it is not open, and writes what was logged before. Announces its path if `announces`.
pub(crate) fn open(folder: &Path, announces: bool) {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let Log::Waiting(waiting) = &*log else { return };
    let path = folder.join(NAME);
    // Several processes append whole lines.
    let opened = OpenOptions::new().create(true).append(true).open(&path);
    *log = match opened.and_then(|mut file| file.write_all(waiting).map(|()| file)) {
        Ok(file) => {
            if announces {
                terminal::print_line(&format!("log: {}", path.display()));
            }
            Log::Open(file)
        }
        Err(error) => {
            terminal::print_line(&format!("no log: cannot write {}: {error}", path.display()));
            Log::Closed
        }
    };
}

/// The writer of the log, which gets one event a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let rank = env::var("LOCAL_RANK").ok().filter(|_| is_launched());
        let prefix = rank.map_or_else(String::new, |rank| format!("[rank {rank}] "));
        let line = [prefix.as_bytes(), event].concat();
        match &mut *LOG.lock().unwrap_or_else(PoisonError::into_inner) {
            Log::Waiting(waiting) if waiting.len() < MOST_WAITING => waiting.extend(line),
            Log::Open(file) => file.write_all(&line)?,
            Log::Waiting(_) | Log::Closed => {}
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
