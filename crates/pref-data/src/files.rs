//! What the names of files say of their content.

use std::path::Path;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Lines(Compression),
    Parquet,
    Arrow,
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
}

const KINDS: [(&str, FileKind); 7] = [
    (".jsonl", FileKind::Lines(Compression::None)),
    (".jsonl.gz", FileKind::Lines(Compression::Gzip)),
    (".parquet", FileKind::Parquet),
    (".arrow", FileKind::Arrow),
    (".ipc", FileKind::Arrow),
    (".feather", FileKind::Arrow),
    (".csv", FileKind::Csv),
];

pub(crate) fn kind(path: &Path) -> Option<FileKind> {
    let name = path.file_name()?.to_str()?;
    KINDS.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, kind)| kind)
}
