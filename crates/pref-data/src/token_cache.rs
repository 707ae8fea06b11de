//! Tokens on disk, under a hash of their inputs, and read in ranges.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::record::Pair;
use crate::tokenize::{Preset, TokenPair, TokenizeOptions, TokenizeReport, Truncation, tokenize_pairs};
use crate::tokenizer::Tokenizer;

/// A folder of token files. Pairs are tokenized once for the same tokenizer, template and options.
#[derive(Clone, Debug)]
pub struct TokenCache {
    folder: PathBuf,
}

/// The tokens of a set of pairs, on disk. Opening it compares the file with its checksum, and keeps an index of eight
/// bytes a pair.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
    report: TokenizeReport,
    /// The start of each pair, and the end of the last one.
    offsets: Vec<u64>,
}

/// Opens a file; its last character is the layout's version.
const MAGIC: [u8; 8] = *b"PREFTOK3";

impl TokenCache {
    /// Returns the cache in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Returns the pairs as [`tokenize_pairs`] does. The tokens are read from their file, or computed and written to it.
    ///
    /// ```
    /// use pref_data::{Format, TokenCache, TokenizeOptions, Tokenizer, annotator_view, read_records};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("pairs.jsonl");
    /// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny");
    /// std::fs::write(&file, r#"{"prompt": "2 + 2 =", "chosen": " four", "rejected": " five"}"#)?;
    /// let (pairs, _) = annotator_view(&read_records(&file, Format::Pairs)?, "human")?;
    /// let options = TokenizeOptions::new(64);
    /// let cache = TokenCache::new(folder.path().join("tokens"));
    /// let tokens = cache.tokenize(&pairs, &Tokenizer::from_folder(model)?, &options)?;
    /// assert_eq!(tokens.read(0..1)?[0].id, "1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`tokenize_pairs`]; [`DataError::Io`] if the file cannot be written. A damaged file is replaced.
    pub fn tokenize(
        &self,
        pairs: &[Pair],
        tokenizer: &Tokenizer,
        options: &TokenizeOptions,
    ) -> Result<TokenFile, DataError> {
        let path = self.folder.join(format!("{}.tokens", key(pairs, tokenizer, options)));
        match path.exists().then(|| TokenFile::open(&path)) {
            Some(Ok(tokens)) => return Ok(tokens),
            Some(Err(_)) => {
                tracing::warn!("{} is damaged: its pairs are tokenized again", path.display());
            }
            None => {}
        }
        let (tokens, report) = tokenize_pairs(pairs, tokenizer, options)?;
        let failed = |source| DataError::Io { action: "write", path: path.clone(), source };
        write(&path, &tokens, &report).map_err(failed)?;
        TokenFile::open(&path)
    }
}

impl TokenFile {
    /// Opens a file of tokens.
    ///
    /// # Errors
    ///
    /// [`DataError::TokenFile`] if it is cut off or has another format.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::TokenFile { path: path.to_owned(), source };
        if !files::is_sealed(path).map_err(failed)? {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it differs from its checksum")));
        }
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len() - files::HASH_BYTES as u64;
        let mut magic = MAGIC;
        file.read_exact(&mut magic).map_err(failed)?;
        if magic != MAGIC {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it is not of this version")));
        }
        let cut_off = || failed(io::ErrorKind::UnexpectedEof.into());
        let [pairs, report_length] = [read_u64(&mut file), read_u64(&mut file)];
        let (pairs, report_length) = (pairs.map_err(failed)?, report_length.map_err(failed)?);
        let start = MAGIC.len() as u64 + 16;
        let index = pairs.checked_add(1).and_then(|n| n.checked_mul(8)).filter(|&bytes| bytes < length);
        let data = index.and_then(|bytes| bytes.checked_add(report_length)?.checked_add(start));
        let (Some(index), Some(data)) = (index, data.filter(|&data| data <= length)) else {
            return Err(cut_off());
        };
        let mut report = vec![0; as_len(report_length)];
        file.read_exact(&mut report).map_err(failed)?;
        let report = serde_json::from_slice(&report).map_err(|error| failed(error.into()))?;
        let mut bytes = vec![0; as_len(index)];
        file.read_exact(&mut bytes).map_err(failed)?;
        let (offsets, _) = bytes.as_chunks::<8>();
        let offsets: Vec<u64> =
            offsets.iter().map(|bytes| data.saturating_add(u64::from_le_bytes(*bytes))).collect();
        if !offsets.is_sorted() || offsets.last() != Some(&length) {
            return Err(cut_off());
        }
        Ok(Self { path: path.to_owned(), report, offsets })
    }

    /// Returns the number of pairs.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Returns whether it has no pair.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the report of tokenization.
    pub fn report(&self) -> &TokenizeReport {
        &self.report
    }

    /// Returns the pairs of a range, in their order, and reads nothing else.
    ///
    /// # Errors
    ///
    /// [`DataError::TokenFile`] for a range beyond the file, or if reading fails.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<TokenPair>, DataError> {
        let failed = |source| DataError::TokenFile { path: self.path.clone(), source };
        let invalid = || failed(io::Error::new(io::ErrorKind::InvalidData, "a pair's lengths do not add up"));
        let (Some(&start), Some(&end)) = (self.offsets.get(range.start), self.offsets.get(range.end)) else {
            let message = format!("pairs {range:?} of {}", self.len());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, message)));
        };
        let mut bytes = vec![0; as_len(end.saturating_sub(start))];
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        file.read_exact(&mut bytes).map_err(failed)?;
        let mut rest = bytes.as_slice();
        let pairs = range.map(|_| take_pair(&mut rest).ok_or_else(invalid)).collect::<Result<Vec<_>, _>>()?;
        if rest.is_empty() { Ok(pairs) } else { Err(invalid()) }
    }
}

/// Returns a hash of everything that determines the tokens.
fn key(pairs: &[Pair], tokenizer: &Tokenizer, options: &TokenizeOptions) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&MAGIC).update(&tokenizer.fingerprint());
    let truncation = match options.truncation {
        Truncation::KeepStart => "keep_start",
        Truncation::KeepEnd => "keep_end",
    };
    let preset = match options.preset {
        Preset::Modern => "modern".to_owned(),
        Preset::Trl0710 { max_prompt_length } => format!("trl-0.7.10/{max_prompt_length}"),
    };
    let TokenizeOptions { max_length, shared_turns, identical, skip_bad, .. } = options;
    let settings = format!("{max_length}/{truncation}/{preset}/{shared_turns:?}/{identical:?}/{skip_bad}");
    hasher.update(settings.as_bytes());
    for pair in pairs {
        let row = (&pair.id, &pair.prompt, &pair.chosen, &pair.rejected, pair.flipped);
        serde_json::to_writer(&mut hasher, &row).expect("a hasher takes any bytes, and text is JSON");
        if !pair.context.is_empty() {
            serde_json::to_writer(&mut hasher, &pair.context)
                .expect("a hasher takes any bytes, and text is JSON");
        }
        hasher.update(b"\n");
    }
    hasher.finalize().to_hex().to_string()
}

fn write(path: &Path, pairs: &[TokenPair], report: &TokenizeReport) -> io::Result<()> {
    let report = serde_json::to_vec(report)?;
    files::write_sealed(path, |out| write_to(out, pairs, &report))
}

fn write_to(out: &mut impl Write, pairs: &[TokenPair], report: &[u8]) -> io::Result<()> {
    out.write_all(&MAGIC)?;
    for number in [pairs.len(), report.len()] {
        out.write_all(&(number as u64).to_le_bytes())?;
    }
    out.write_all(report)?;
    let mut offset = 0_u64;
    out.write_all(&offset.to_le_bytes())?;
    for pair in pairs {
        offset += (pair.id.len() + 4 * 4 + 1 + 4 * pair.unique_tokens()) as u64;
        out.write_all(&offset.to_le_bytes())?;
    }
    for pair in pairs {
        for length in [pair.id.len(), pair.prompt.len(), pair.chosen.len(), pair.rejected.len()] {
            let length = u32::try_from(length).map_err(io::Error::other)?;
            out.write_all(&length.to_le_bytes())?;
        }
        out.write_all(&[u8::from(pair.flipped)])?;
        out.write_all(pair.id.as_bytes())?;
        for ids in [&pair.prompt, &pair.chosen, &pair.rejected] {
            for id in ids {
                out.write_all(&id.to_le_bytes())?;
            }
        }
    }
    Ok(())
}

/// Removes the pair at the start of `bytes` and returns it.
fn take_pair(bytes: &mut &[u8]) -> Option<TokenPair> {
    let (lengths, rest) = bytes.split_first_chunk::<16>()?;
    let (&flipped, rest) = rest.split_first()?;
    let (lengths, _) = lengths.as_chunks::<4>();
    let length = |index: usize| u32::from_le_bytes(lengths[index]) as usize;
    let (id, mut rest) = rest.split_at_checked(length(0))?;
    let mut ids = |count: usize| {
        let (ids, after) = rest.split_at_checked(count.checked_mul(4)?)?;
        rest = after;
        Some(ids.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect::<Vec<u32>>())
    };
    let pair = TokenPair {
        id: String::from_utf8(id.to_vec()).ok()?,
        prompt: ids(length(1))?,
        chosen: ids(length(2))?,
        rejected: ids(length(3))?,
        flipped: flipped != 0,
    };
    *bytes = rest;
    Some(pair)
}

fn read_u64(file: &mut File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Converts a length that was compared with that of a file. With 32 bits a longer one cannot be allocated.
fn as_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
