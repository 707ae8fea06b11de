//! JSON objects whose first field is the CRC-32C of the rest of the file: `{"crc32c":"…",` and the other fields.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};

use crate::manifest::Damage;

const START: &[u8] = b"{\"crc32c\":\"";
const END: &[u8] = b"\",";
/// The length of a checksum, in hexadecimal digits.
const DIGITS: usize = 8;

/// Replaces the file `path` with the fields of `value`, after their checksum.
///
/// # Errors
///
/// Any error of the file system, and [`io::ErrorKind::InvalidData`] for a value that is no JSON object with fields.
pub fn write_checked_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(value)?;
    let rest = json.strip_prefix(b"{").filter(|rest| rest.len() > 1);
    let rest = rest.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no fields"))?;
    let sum = format!("{:08x}", crc32c::crc32c(rest));
    crate::write(path, &[START, sum.as_bytes(), END, rest].concat())
}

/// Reads a file that [`write_checked_json`] wrote, or an object without a checksum.
///
/// # Errors
///
/// [`Damage`] in an [`io::Error`] if the content differs from its checksum, [`io::ErrorKind::InvalidData`] if it is no
/// `T`, or any error of the file system.
pub fn read_checked_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    let Some((sum, rest)) = split(&bytes) else { return Ok(serde_json::from_slice(&bytes)?) };
    if is_sum(sum, rest) {
        return Ok(serde_json::from_slice(&[b"{", rest].concat())?);
    }
    let (problem, remedy) = ("differs from its checksum".to_owned(), "delete it".to_owned());
    Err(Damage { path: PathBuf::new(), problem, remedy }.error())
}

/// Returns whether a file of this form is intact; `None` for another form.
pub(crate) fn is_intact(bytes: &[u8]) -> Option<bool> {
    split(bytes).map(|(sum, rest)| is_sum(sum, rest))
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sum, rest) = bytes.strip_prefix(START)?.split_at_checked(DIGITS)?;
    Some((sum, rest.strip_prefix(END)?))
}

fn is_sum(sum: &[u8], rest: &[u8]) -> bool {
    sum == format!("{:08x}", crc32c::crc32c(rest)).as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        usd: f64,
        text: String,
    }

    #[test]
    fn a_flipped_bit_never_gives_another_value() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("reply.json");
        let row = Row { usd: 0.1, text: "yes".to_owned() };
        write_checked_json(&path, &row).unwrap();
        assert_eq!(read_checked_json::<Row>(&path).unwrap(), row);
        let intact = fs::read(&path).unwrap();
        let other: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&intact).unwrap();
        assert_eq!(other["usd"], 0.1, "other programs read it");
        for bit in 0..8 * intact.len() {
            let mut flipped = intact.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            assert!(read_checked_json::<Row>(&path).is_err(), "bit {bit}");
        }
        fs::write(&path, r#"{"usd": 0.5, "text": ""}"#).unwrap();
        assert_eq!(read_checked_json::<Row>(&path).unwrap().usd, 0.5, "of an earlier version");
    }
}
