//! Writes scalars to TensorBoard's event files.
//!
//! A file is a sequence of TFRecord frames: length, masked CRC-32C of the length, payload, masked CRC-32C of the
//! payload. Each payload is an `Event` protocol buffer. A scalar needs four of its fields, so they are encoded here.
//! `tests/fixtures/events.py` reads the result with TensorBoard's reader.

use std::io::{self, Write};

/// `Event.wall_time`, a double.
const WALL_TIME: u8 = 1 << 3 | 1;
/// `Event.step`, a varint.
const STEP: u8 = 2 << 3;
/// `Event.file_version`, a string.
const FILE_VERSION: u8 = 3 << 3 | 2;
/// `Event.summary`, a message.
const SUMMARY: u8 = 5 << 3 | 2;
/// `Summary.value`, a repeated message.
const VALUE: u8 = 1 << 3 | 2;
/// `Summary.Value.tag`, a string.
const TAG: u8 = 1 << 3 | 2;
/// `Summary.Value.simple_value`, a float.
const SIMPLE_VALUE: u8 = 2 << 3 | 5;

/// Writes scalars as TensorBoard events.
#[derive(Debug)]
pub struct EventWriter<W: Write> {
    out: W,
}

impl<W: Write> EventWriter<W> {
    /// Starts an event file on `out`; `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// Errors of `out`.
    pub fn new(out: W, wall_time: f64) -> io::Result<Self> {
        let mut writer = Self { out };
        let mut event = head(wall_time, 0);
        bytes(&mut event, FILE_VERSION, b"brain.Event:2");
        writer.frame(&event)?;
        Ok(writer)
    }

    /// Continues an event file whose header `out` already contains.
    pub fn continued(out: W) -> Self {
        Self { out }
    }

    /// Writes the scalars of one step.
    ///
    /// # Errors
    ///
    /// Errors of the underlying writer.
    pub fn scalars(&mut self, step: u64, wall_time: f64, scalars: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            bytes(&mut entry, TAG, tag.as_bytes());
            entry.push(SIMPLE_VALUE);
            entry.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, VALUE, &entry);
        }
        let mut event = head(wall_time, step);
        bytes(&mut event, SUMMARY, &summary);
        self.frame(&event)
    }

    /// Flushes buffered events.
    ///
    /// # Errors
    ///
    /// Errors of the underlying writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn frame(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = (payload.len() as u64).to_le_bytes();
        self.out.write_all(&length)?;
        self.out.write_all(&masked_crc(&length).to_le_bytes())?;
        self.out.write_all(payload)?;
        self.out.write_all(&masked_crc(payload).to_le_bytes())
    }
}

fn head(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = vec![WALL_TIME];
    event.extend(wall_time.to_le_bytes());
    // Protocol buffers omit default values.
    if step != 0 {
        event.push(STEP);
        varint(&mut event, step);
    }
    event
}

fn bytes(out: &mut Vec<u8>, key: u8, content: &[u8]) {
    out.push(key);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// TFRecord masks a checksum because a checksum of data that contains checksums may degenerate.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first frame that TensorBoard's writer makes at wall time 1.5, as printed by `tests/fixtures/events.py`.
    const VERSION_FRAME: &str =
        "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c";

    #[test]
    fn the_first_frame_matches_tensorboard() {
        let mut out = Vec::new();
        EventWriter::new(&mut out, 1.5).unwrap();
        let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, VERSION_FRAME);
    }

    #[test]
    fn varints_use_seven_bits_per_byte() {
        let mut out = Vec::new();
        varint(&mut out, 300);
        assert_eq!(out, [0xac, 0x02]);
    }
}
