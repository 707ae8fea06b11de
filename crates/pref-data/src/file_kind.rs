//! File kinds, recognized by the end of a file's name.

use std::path::Path;

/// How a file stores its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// JSON lines, or one JSON array.
    Json,
    /// Text with a separator between cells.
    Delimited(u8),
    Parquet,
    Arrow,
}

/// How a text file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
}

/// The endings that are read.
pub(crate) const READ: &str =
    ".jsonl, .ndjson, .json, .csv or .tsv (each also with .gz), .parquet, .arrow or .feather";

const TEXT: [(&str, FileKind); 5] = [
    (".jsonl", FileKind::Json),
    (".ndjson", FileKind::Json),
    (".json", FileKind::Json),
    (".csv", FileKind::Delimited(b',')),
    (".tsv", FileKind::Delimited(b'\t')),
];

const TABLES: [(&str, FileKind); 4] = [
    (".parquet", FileKind::Parquet),
    (".arrow", FileKind::Arrow),
    (".ipc", FileKind::Arrow),
    (".feather", FileKind::Arrow),
];

/// Returns the kind of a file that is read. Whether text is compressed shows in its first bytes.
pub(crate) fn kind(path: &Path) -> Option<FileKind> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let text = name.strip_suffix(".gz").unwrap_or(&name);
    let of = |name: &str, kinds: &[(&str, FileKind)]| {
        kinds.iter().find(|(ending, _)| name.ends_with(ending)).map(|&(_, kind)| kind)
    };
    of(text, &TEXT).or_else(|| of(&name, &TABLES))
}

/// Returns the compression of JSON lines to be written, or `None` for another name.
pub(crate) fn lines(path: &Path) -> Option<Compression> {
    let name = path.file_name()?.to_str()?;
    let endings = [(".jsonl", Compression::None), (".jsonl.gz", Compression::Gzip)];
    endings.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, compression)| compression)
}
