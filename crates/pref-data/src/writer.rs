//! Records and pairs written to files, for this crate's readers and for other programs.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use atomic_write_file::AtomicWriteFile;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression as PageCompression;
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use crate::error::{BoxedError, DataError};
use crate::files::{Compression, FileKind, kind};
use crate::message::{Message, TemplateContext};
use crate::record::{Pair, PreferenceRecord, Text};

/// Writes records as `.jsonl` or `.jsonl.gz`, one a line, such as [`Format::Records`](crate::Format::Records) reads. The
/// file appears whole or not at all.
///
/// # Errors
///
/// [`DataError::Record`] for a record that could not be read back, [`DataError::UnknownExtension`] for another name,
/// [`DataError::Io`] where writing fails.
pub fn write_records(path: impl AsRef<Path>, records: &[PreferenceRecord]) -> Result<(), DataError> {
    let path = path.as_ref();
    let Some(FileKind::Lines(compression)) = kind(path) else {
        return Err(DataError::UnknownExtension { path: path.to_owned(), expected: ".jsonl or .jsonl.gz" });
    };
    for record in records {
        record.check().map_err(|(field, problem)| DataError::Record {
            id: record.id.clone(),
            field,
            problem,
        })?;
    }
    write(path, |file| write_lines(file, compression, records))
}

/// Writes pairs as `.jsonl`, `.jsonl.gz`, `.parquet`, `.arrow`, `.feather` or `.csv`, such as
/// [`Format::Pairs`](crate::Format::Pairs) and other trainers read: `id`, `prompt`, `chosen`, `rejected`, `domain`. The
/// file appears whole or not at all.
///
/// What noise did to a pair is not written: see [`NoiseLog`](crate::NoiseLog).
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
    let path = path.as_ref();
    match kind(path) {
        Some(FileKind::Lines(compression)) => {
            let rows: Vec<Row<'_>> = pairs.iter().map(Row::of).collect();
            write(path, |file| write_lines(file, compression, &rows))
        }
        Some(FileKind::Csv) => {
            let rows = pairs.iter().map(cells).collect::<Result<Vec<_>, _>>()?;
            write(path, |file| write_csv(file, &rows))
        }
        Some(FileKind::Parquet) => {
            let batch = table(pairs)?;
            write(path, |file| write_parquet(file, &batch))
        }
        Some(FileKind::Arrow) => {
            let batch = table(pairs)?;
            write(path, |file| write_arrow(file, &batch))
        }
        None => Err(DataError::UnknownExtension {
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

fn write(
    path: &Path,
    content: impl FnOnce(&mut AtomicWriteFile) -> Result<(), BoxedError>,
) -> Result<(), DataError> {
    let failed = |source| DataError::Io { action: "write", path: path.to_owned(), source };
    let mut file = AtomicWriteFile::open(path).map_err(failed)?;
    content(&mut file).map_err(|error| failed(io::Error::other(error)))?;
    file.commit().map_err(failed)
}

fn write_lines(
    file: &mut AtomicWriteFile,
    compression: Compression,
    rows: &[impl Serialize],
) -> Result<(), BoxedError> {
    let lines = |out: &mut dyn Write| -> Result<(), BoxedError> {
        for row in rows {
            serde_json::to_writer(&mut *out, row)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    };
    let mut buffer = BufWriter::new(file);
    match compression {
        Compression::None => lines(&mut buffer)?,
        Compression::Gzip => {
            let mut gzip = GzEncoder::new(&mut buffer, flate2::Compression::default());
            lines(&mut gzip)?;
            gzip.finish()?;
        }
    }
    Ok(buffer.flush()?)
}

/// A pair's cells. CSV has no way to say that a text is empty and not missing; a prompt may be.
fn cells(pair: &Pair) -> Result<[&str; COLUMNS.len()], DataError> {
    match (&pair.prompt, &pair.chosen, &pair.rejected) {
        (Text::Plain(prompt), Text::Plain(chosen), Text::Plain(rejected)) if !prompt.is_empty() => {
            Ok([&pair.id, prompt, chosen, rejected, pair.domain.as_deref().unwrap_or_default()])
        }
        _ => Err(DataError::MixedForms { id: pair.id.clone() }),
    }
}

fn write_csv(file: &mut AtomicWriteFile, rows: &[[&str; COLUMNS.len()]]) -> Result<(), BoxedError> {
    let mut csv = csv::Writer::from_writer(file);
    csv.write_record(COLUMNS)?;
    for row in rows {
        csv.write_record(row)?;
    }
    Ok(csv.flush()?)
}

fn write_parquet(file: &mut AtomicWriteFile, batch: &RecordBatch) -> Result<(), BoxedError> {
    let properties = WriterProperties::builder().set_compression(PageCompression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(())
}

fn write_arrow(file: &mut AtomicWriteFile, batch: &RecordBatch) -> Result<(), BoxedError> {
    let mut writer = arrow_ipc::writer::FileWriter::try_new_buffered(file, &batch.schema())?;
    writer.write(batch)?;
    Ok(writer.finish()?)
}

fn table(pairs: &[Pair]) -> Result<RecordBatch, DataError> {
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
