//! The elements of a JSON array, one at a time, so that the array is never held as a whole.

use std::io::{self, BufRead};

/// Splits an array at the commas between its elements. The elements themselves are not checked.
pub(super) struct Elements<R> {
    text: R,
    line: usize,
    longest: u64,
    element: Vec<u8>,
    is_long: bool,
    is_closed: bool,
}

/// Where the scanner is within an element.
#[derive(Default)]
struct State {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

/// What a byte means for the element.
#[derive(PartialEq)]
enum Byte {
    Inside,
    Comma,
    Close,
}

impl<R: BufRead> Elements<R> {
    /// Splits `text`, which follows the opening bracket on `line`. Elements have at most `longest` bytes.
    pub(super) fn new(text: R, line: usize, longest: u64) -> Self {
        Self { text, line, longest, element: Vec::new(), is_long: false, is_closed: false }
    }

    /// Returns the line that was read last.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Returns the element, or `None` if it is longer than the limit.
    pub(super) fn element(&self) -> Option<&[u8]> {
        (!self.is_long).then(|| self.element.trim_ascii_end())
    }

    /// Reads the next element and returns the line where it begins, or `None` after the last.
    pub(super) fn advance(&mut self) -> io::Result<Option<usize>> {
        self.element.clear();
        self.is_long = false;
        if self.is_closed {
            return Ok(None);
        }
        let (mut state, mut begins) = (State::default(), None);
        loop {
            let Some(&byte) = self.text.fill_buf()?.first() else { return Err(unclosed()) };
            self.text.consume(1);
            match state.step(byte) {
                Byte::Inside => {}
                end => {
                    self.is_closed = end == Byte::Close;
                    break;
                }
            }
            if begins.is_none() && !byte.is_ascii_whitespace() {
                begins = Some(self.line);
            }
            self.line += usize::from(byte == b'\n');
            self.is_long |= self.element.len() as u64 >= self.longest;
            if begins.is_some() && !self.is_long {
                self.element.push(byte);
            }
        }
        if self.is_closed {
            self.check_end()?;
            return Ok(begins);
        }
        Ok(Some(begins.unwrap_or(self.line)))
    }

    /// Checks that only white space follows the array.
    fn check_end(&mut self) -> io::Result<()> {
        loop {
            let rest = self.text.fill_buf()?;
            match rest.iter().position(|byte| !byte.is_ascii_whitespace()) {
                Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "text follows the array")),
                None if rest.is_empty() => return Ok(()),
                None => {
                    let length = rest.len();
                    self.text.consume(length);
                }
            }
        }
    }
}

impl State {
    fn step(&mut self, byte: u8) -> Byte {
        if self.in_string {
            let ends = byte == b'"' && !self.is_escaped;
            self.is_escaped = byte == b'\\' && !self.is_escaped;
            self.in_string = !ends;
            return Byte::Inside;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b']' if self.depth == 0 => return Byte::Close,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' if self.depth == 0 => return Byte::Comma,
            _ => {}
        }
        Byte::Inside
    }
}

fn unclosed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the array is not closed")
}
