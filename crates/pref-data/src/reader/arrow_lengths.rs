//! Checks that the lengths in an Arrow file fit into it. The Arrow reader allocates any length that a file states.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use arrow_ipc::reader::read_footer_length;
use arrow_ipc::{Block, CompressionType, MetadataVersion, RecordBatch, root_as_footer, root_as_message};
use arrow_schema::ArrowError;

/// The highest compression ratio of LZ4, and of zstd, whose shortest block has four bytes and at most 128 KiB of content.
const MOST_OF_LZ4: u64 = 255;
const MOST_OF_ZSTD: u64 = 32 << 10;

/// The first word of a message in all but the oldest files.
const CONTINUATION: u32 = u32::MAX;

/// The size of the footer's length and the magic after it.
const TRAILER: u64 = 10;

/// Checks every message of a file with an index.
pub(super) fn check_file(file: &mut File) -> Result<(), ArrowError> {
    let length = file.metadata()?.len();
    let mut trailer = [0; TRAILER as usize];
    file.seek(SeekFrom::Start(length.checked_sub(TRAILER).ok_or_else(cut_off)?))?;
    file.read_exact(&mut trailer)?;
    let footer_length = read_footer_length(trailer)? as u64;
    let start = length.checked_sub(TRAILER + footer_length).ok_or_else(cut_off)?;
    let bytes = read_at(file, start, footer_length)?;
    let footer = root_as_footer(&bytes).map_err(parse)?;
    let blocks: Vec<&Block> = footer
        .recordBatches()
        .into_iter()
        .chain(footer.dictionaries())
        .flat_map(|blocks| blocks.iter())
        .collect();
    for block in blocks {
        let [offset, metadata, body] =
            [block.offset(), block.metaDataLength().into(), block.bodyLength()].map(u64::try_from);
        let (Ok(offset), Ok(metadata), Ok(body)) = (offset, metadata, body) else { return Err(cut_off()) };
        let end = offset.checked_add(metadata).and_then(|end| end.checked_add(body));
        if end.is_none_or(|end| end > length) {
            return Err(cut_off());
        }
        file.seek(SeekFrom::Start(offset))?;
        // The reader takes the position of the body from the index.
        if check_message(file, length)? != Some(Body { start: offset + metadata, length: body }) {
            return Err(cut_off());
        }
    }
    Ok(())
}

/// Checks every message of a stream.
pub(super) fn check_stream(file: &mut File) -> Result<(), ArrowError> {
    let length = file.metadata()?.len();
    file.rewind()?;
    while check_message(file, length)?.is_some() {}
    Ok(())
}

/// The place of a message's buffers.
#[derive(PartialEq)]
struct Body {
    start: u64,
    length: u64,
}

/// Checks the message at the file's position and moves to its end; `None` after the last message.
fn check_message(file: &mut File, length: u64) -> Result<Option<Body>, ArrowError> {
    let mut word = [0; 4];
    match file.read_exact(&mut word) {
        // A stream may end without a marker.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if u32::from_le_bytes(word) == CONTINUATION {
        file.read_exact(&mut word)?;
    }
    let metadata = u64::from(u32::from_le_bytes(word));
    if metadata == 0 {
        return Ok(None);
    }
    let start = file.stream_position()?;
    let body = start.checked_add(metadata).filter(|&end| end <= length).ok_or_else(cut_off)?;
    let bytes = read_at(file, start, metadata)?;
    let message = root_as_message(&bytes).map_err(parse)?;
    let body_length = u64::try_from(message.bodyLength()).map_err(|_| cut_off())?;
    let end = body.checked_add(body_length).filter(|&end| end <= length).ok_or_else(cut_off)?;
    let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    if let Some(batch) = message.header_as_record_batch().or(dictionary) {
        if message.version() < MetadataVersion::V4 {
            return Err(ArrowError::IpcError("is of a version before 1.0".to_owned()));
        }
        check_buffers(file, &batch, body, body_length)?;
    }
    file.seek(SeekFrom::Start(end))?;
    Ok(Some(Body { start: body, length: body_length }))
}

fn check_buffers(file: &mut File, batch: &RecordBatch<'_>, body: u64, length: u64) -> Result<(), ArrowError> {
    let most = match batch.compression().map(|compression| compression.codec()) {
        Some(CompressionType::ZSTD) => MOST_OF_ZSTD,
        _ => MOST_OF_LZ4,
    };
    for buffer in batch.buffers().into_iter().flat_map(|buffers| buffers.iter()) {
        let (Ok(offset), Ok(size)) = (u64::try_from(buffer.offset()), u64::try_from(buffer.length())) else {
            return Err(cut_off());
        };
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(cut_off());
        }
        // A compressed buffer begins with its decompressed length, or -1 if it is not compressed.
        if batch.compression().is_some() && size >= 8 {
            let mut stated = [0; 8];
            file.seek(SeekFrom::Start(body + offset))?;
            file.read_exact(&mut stated)?;
            let stated = i64::from_le_bytes(stated);
            if stated < -1 || u64::try_from(stated).is_ok_and(|stated| stated > size.saturating_mul(most)) {
                return Err(cut_off());
            }
        }
    }
    Ok(())
}

fn read_at(file: &mut File, start: u64, length: u64) -> Result<Vec<u8>, ArrowError> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(cut_off()) }
}

fn parse(error: impl std::fmt::Display) -> ArrowError {
    ArrowError::ParseError(error.to_string())
}

fn cut_off() -> ArrowError {
    ArrowError::IpcError(
        "a length that it states does not fit into it: it may be cut off or damaged".to_owned(),
    )
}
