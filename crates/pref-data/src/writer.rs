//! Writers: records and pairs to files.

use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use files::AtomicWriteFile;
use files::json_lines::write_row;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression as PageCompression;
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use crate::error::{BoxedError, DataError};
use crate::file_kind::{Compression, FileKind, kind, lines};
use crate::message::{Message, TemplateContext};
use crate::record::{Pair, PreferenceRecord, Text};

/// Writes records as `.jsonl` or `.jsonl.gz`, one a line, for [`Format::Records`](crate::Format::Records). The write is
/// atomic.
///
/// # Errors
///
/// [`DataError::Record`] for a record that could not be read back, [`DataError::UnknownExtension`] for another name,
/// [`DataError::Io`] where writing fails.
pub fn write_records(path: impl AsRef<Path>, records: &[PreferenceRecord]) -> Result<(), DataError> {
    write_record_file(path.as_ref(), records)
}

/// Not generic, as [`write_pair_file`]: otherwise each dependent crate would compile the writers of all file kinds again.
fn write_record_file(path: &Path, records: &[PreferenceRecord]) -> Result<(), DataError> {
    let Some(compression) = lines(path) else {
        return Err(DataError::UnknownExtension { path: path.to_owned(), expected: ".jsonl or .jsonl.gz" });
    };
    for record in records {
        record.check().map_err(|(field, problem)| DataError::Record {
            id: record.id.clone(),
            field,
            problem,
        })?;
    }
    write(path, |out| write_lines(out, compression, records))
}

/// Writes pairs as `.jsonl`, `.jsonl.gz`, `.parquet`, `.arrow`, `.feather` or `.csv`, for
/// [`Format::Pairs`](crate::Format::Pairs) and other trainers: `id`, `prompt`, `chosen`, `rejected`, `domain`. The write
/// is atomic.
///
/// Whether noise flipped a pair is not written; see [`NoiseLog`](crate::NoiseLog).
///
/// ```
/// use pref_data::{Format, annotator_view, read_records, write_pairs};
///
/// # let folder = tempfile::tempdir()?;
/// # let (jsonl, parquet) = (folder.path().join("pairs.jsonl"), folder.path().join("pairs.parquet"));
/// std::fs::write(&jsonl, r#"{"id": "a", "prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}"#)?;
/// let records = read_records(&jsonl, Format::Pairs)?;
/// write_pairs(&parquet, &annotator_view(&records, "human")?.0)?;
/// assert_eq!(read_records(&parquet, Format::Pairs)?, records);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`DataError::UnknownExtension`] for another name, [`DataError::MixedForms`] for a table in which some pairs are text
/// and others messages, and for messages in CSV, [`DataError::NotTabular`] for a table of messages with further keys,
/// [`DataError::Io`] where writing fails.
pub fn write_pairs(path: impl AsRef<Path>, pairs: &[Pair]) -> Result<(), DataError> {
    write_pair_file(path.as_ref(), pairs)
}

fn write_pair_file(path: &Path, pairs: &[Pair]) -> Result<(), DataError> {
    if let Some(compression) = lines(path) {
        let rows: Vec<Row<'_>> = pairs.iter().map(Row::of).collect();
        return write(path, |out| write_lines(out, compression, &rows));
    }
    // Tables are not compressed as a whole.
    match kind(path).filter(|_| path.extension().is_none_or(|extension| extension != "gz")) {
        Some(FileKind::Delimited(b',')) => {
            let rows = pairs.iter().map(cells).collect::<Result<Vec<_>, _>>()?;
            write(path, |out| write_csv(out, &rows))
        }
        Some(FileKind::Parquet) => {
            let batch = pair_batch(pairs)?;
            write(path, |out| write_parquet(out, &batch))
        }
        Some(FileKind::Arrow) => {
            let batch = pair_batch(pairs)?;
            write(path, |out| write_arrow(out, &batch))
        }
        _ => Err(DataError::UnknownExtension {
            path: path.to_owned(),
            expected: ".jsonl, .jsonl.gz, .parquet, .arrow, .feather or .csv",
        }),
    }
}

/// A pair as a line.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    prompt: &'a Text,
    chosen: &'a Text,
    rejected: &'a Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
    #[serde(flatten)]
    context: &'a TemplateContext,
}

impl<'a> Row<'a> {
    fn of(pair: &'a Pair) -> Self {
        Self {
            id: &pair.id,
            prompt: &pair.prompt,
            chosen: &pair.chosen,
            rejected: &pair.rejected,
            domain: pair.domain.as_deref(),
            context: &pair.context,
        }
    }
}

const COLUMNS: [&str; 5] = ["id", "prompt", "chosen", "rejected", "domain"];

/// The file that is being written.
type Out<'a> = BufWriter<&'a mut AtomicWriteFile>;

fn write(path: &Path, content: impl FnOnce(&mut Out<'_>) -> Result<(), BoxedError>) -> Result<(), DataError> {
    files::write_with(path, content).map_err(|error| {
        let source = error.downcast().map_or_else(io::Error::other, |error| *error);
        DataError::Io { action: "write", path: path.to_owned(), source }
    })
}

fn write_lines(
    out: &mut Out<'_>,
    compression: Compression,
    rows: &[impl Serialize],
) -> Result<(), BoxedError> {
    match compression {
        Compression::None => rows.iter().try_for_each(|row| write_row(out, row))?,
        Compression::Gzip => {
            let mut gzip = GzEncoder::new(out, flate2::Compression::default());
            rows.iter().try_for_each(|row| write_row(&mut gzip, row))?;
            gzip.finish()?;
        }
    }
    Ok(())
}

/// Returns a pair's cells. CSV cannot tell an empty text from a missing one.
fn cells(pair: &Pair) -> Result<[&str; COLUMNS.len()], DataError> {
    match (&pair.prompt, &pair.chosen, &pair.rejected) {
        (Text::Plain(prompt), Text::Plain(chosen), Text::Plain(rejected)) if !prompt.is_empty() => {
            Ok([&pair.id, prompt, chosen, rejected, pair.domain.as_deref().unwrap_or_default()])
        }
        _ => Err(DataError::MixedForms { id: pair.id.clone() }),
    }
}

fn write_csv(out: &mut Out<'_>, rows: &[[&str; COLUMNS.len()]]) -> Result<(), BoxedError> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(COLUMNS)?;
    for row in rows {
        csv.write_record(row)?;
    }
    Ok(csv.flush()?)
}

fn write_parquet(out: &mut Out<'_>, batch: &RecordBatch) -> Result<(), BoxedError> {
    let properties = WriterProperties::builder().set_compression(PageCompression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(())
}

fn write_arrow(out: &mut Out<'_>, batch: &RecordBatch) -> Result<(), BoxedError> {
    let mut writer = arrow_ipc::writer::FileWriter::try_new(out, &batch.schema())?;
    writer.write(batch)?;
    Ok(writer.finish()?)
}

/// Returns pairs as a record batch with the columns of [`write_pairs`], for a data frame.
/// [`read_record_batches`](crate::read_record_batches) reads it.
///
/// # Errors
///
/// [`DataError::MixedForms`] if some pairs are text and others messages, [`DataError::NotTabular`] for messages with
/// further keys.
pub fn pair_batch(pairs: &[Pair]) -> Result<RecordBatch, DataError> {
    if let Some(pair) = pairs.iter().find(|pair| !pair.context.is_empty()) {
        return Err(DataError::NotTabular { id: pair.id.clone() });
    }
    let ids: StringArray = pairs.iter().map(|pair| Some(pair.id.as_str())).collect();
    let domains: StringArray = pairs.iter().map(|pair| pair.domain.as_deref()).collect();
    let columns: [fn(&Pair) -> &Text; 3] = [|pair| &pair.prompt, |pair| &pair.chosen, |pair| &pair.rejected];
    let is_chat = matches!(pairs.first(), Some(Pair { prompt: Text::Chat(_), .. }));
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(ids)];
    for text in columns {
        arrays.push(if is_chat { chats(pairs, text)? } else { texts(pairs, text)? });
    }
    arrays.push(Arc::new(domains));
    let fields = COLUMNS.iter().zip(&arrays);
    let fields: Vec<Field> =
        fields.map(|(name, array)| Field::new(*name, array.data_type().clone(), *name == "domain")).collect();
    let schema = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new(schema, arrays).expect("the columns were built with these types and lengths"))
}

fn texts(pairs: &[Pair], column: fn(&Pair) -> &Text) -> Result<ArrayRef, DataError> {
    let mut builder = StringBuilder::new();
    for pair in pairs {
        match column(pair) {
            Text::Plain(text) => builder.append_value(text),
            Text::Chat(_) => return Err(DataError::MixedForms { id: pair.id.clone() }),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn chats(pairs: &[Pair], column: fn(&Pair) -> &Text) -> Result<ArrayRef, DataError> {
    let fields: Fields =
        ["role", "content"].map(|name| Field::new(name, DataType::Utf8, false)).to_vec().into();
    let message = StructBuilder::from_fields(fields, 0);
    let mut builder = ListBuilder::new(message);
    for pair in pairs {
        match column(pair) {
            Text::Chat(messages) => {
                for message in messages {
                    append(builder.values(), pair, message)?;
                }
                builder.append(true);
            }
            Text::Plain(_) => return Err(DataError::MixedForms { id: pair.id.clone() }),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn append(builder: &mut StructBuilder, pair: &Pair, message: &Message) -> Result<(), DataError> {
    let content = message.plain_content().ok_or_else(|| DataError::NotTabular { id: pair.id.clone() })?;
    for (index, text) in [message.role(), content].into_iter().enumerate() {
        let column = builder.field_builder::<StringBuilder>(index);
        column.expect("both fields were declared as text").append_value(text);
    }
    builder.append(true);
    Ok(())
}
