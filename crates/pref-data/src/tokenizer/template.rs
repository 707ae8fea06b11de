//! Chat templates, rendered as transformers renders them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, context};
use serde::Serialize;
use serde_json::ser::Formatter;

use super::strftime::strftime;
use super::{Clock, RenderMode};
use crate::error::DataError;
use crate::message::Message;

/// A parsed chat template in an environment like the one transformers builds.
#[derive(Clone)]
pub(super) struct ChatTemplate {
    // Behind an `Arc` since an environment is large and a tokenizer is cloned into threads.
    environment: Arc<Environment<'static>>,
    source: String,
    variables: BTreeMap<&'static str, String>,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Parses `source`. `variables` are the special tokens, by name.
    pub(super) fn new(
        folder: &Path,
        source: &str,
        variables: &BTreeMap<&'static str, String>,
        clock: Option<Clock>,
    ) -> Result<Self, DataError> {
        let mut environment = environment(clock);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|source| DataError::Template { folder: folder.to_owned(), source })?;
        Ok(Self {
            environment: Arc::new(environment),
            source: source.to_owned(),
            variables: variables.clone(),
        })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn render(&self, messages: &[Message], mode: RenderMode) -> Result<String, Error> {
        let variables = context! {
            messages => messages,
            tools => Value::from(()),
            documents => Value::from(()),
            add_generation_prompt => mode == RenderMode::AwaitAnswer,
            ..Value::from_serialize(&self.variables)
        };
        self.environment.get_template(NAME)?.render(variables)
    }
}

fn environment(clock: Option<Clock>) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_formatter(print_as_python);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", tojson);
    // To minijinja `none` is iterable, to Python it is not; templates ask `tools is iterable`.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: String| match &clock {
        Some(clock) => Ok(strftime(&format, clock())),
        None => Err(Error::new(
            ErrorKind::InvalidOperation,
            "it asks for today's date; give the tokenizer a clock, or use a template without a date",
        )),
    });
    environment
}

/// Prints the values whose Python spelling differs from minijinja's as Python does.
fn print_as_python(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.write_str("None").map_err(Error::from),
        ValueKind::Bool => {
            let text = if value.is_true() { "True" } else { "False" };
            out.write_str(text).map_err(Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// Takes out the tags `{% generation %}` and `{% endgeneration %}`, with which transformers finds the assistant's
/// part. What they enclose is rendered as it is; a `with` block keeps the scope and the whitespace control.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        // Behind the opening: in `{%}` the one percent sign is no end.
        let Some(end) = tag[2..].find("%}").map(|end| end + 4) else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end);
        let word = tag[2..end - 2].trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match word {
            "generation" => out.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// `json.dumps` with the options that transformers' own `tojson` takes. Unlike Jinja's it escapes no HTML.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = indent.filter(|indent| !indent.is_none());
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let indent = indent.map(|indent| match indent.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => usize::try_from(indent).map(|n| " ".repeat(n)),
    });
    let indent = indent.transpose()?;
    let [item, key] = match separators {
        None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
        Some(pair) => <[String; 2]>::try_from(pair)
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson: separators must be two strings"))?,
    };
    let mut json = serde_json::to_value(value).map_err(json_error)?;
    if sort_keys == Some(true) {
        json.sort_all_objects();
    }
    let formatter = PythonJson { item, key, indent, depth: 0, non_empty: false, ascii: ascii == Some(true) };
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    json.serialize(&mut serializer).map_err(json_error)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "tojson").with_source(error))?;
    Ok(Value::from_safe_string(text))
}

fn json_error(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::BadSerialization, "tojson").with_source(error)
}

/// The layout of Python's `json.dumps`.
struct PythonJson {
    item: String,
    key: String,
    indent: Option<String>,
    depth: usize,
    non_empty: bool,
    ascii: bool,
}

impl PythonJson {
    fn new_line<W: ?Sized + std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
        if let Some(indent) = &self.indent {
            writer.write_all(b"\n")?;
            for _ in 0..self.depth {
                writer.write_all(indent.as_bytes())?;
            }
        }
        Ok(())
    }

    fn open<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> std::io::Result<()> {
        self.depth += 1;
        self.non_empty = false;
        writer.write_all(bracket)
    }

    fn close<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> std::io::Result<()> {
        self.depth -= 1;
        if self.non_empty {
            self.new_line(writer)?;
        }
        self.non_empty = true;
        writer.write_all(bracket)
    }

    fn next<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.new_line(writer)
    }
}

impl Formatter for PythonJson {
    fn begin_array<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.next(writer, first)
    }

    fn end_array_value<W: ?Sized + std::io::Write>(&mut self, _: &mut W) -> std::io::Result<()> {
        self.non_empty = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + std::io::Write>(&mut self, _: &mut W) -> std::io::Result<()> {
        self.non_empty = true;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for c in fragment.chars() {
            if c.is_ascii() {
                write!(writer, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}
