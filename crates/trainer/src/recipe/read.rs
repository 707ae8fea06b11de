//! Reads TOML text and overrides into a validated recipe of any type.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::de::{Problem, ProblemKind, from_table};
use super::error::{Complaint, Origin, RecipeError};

/// The minimum similarity (1 for equal names) of a suggestion: about one edit in three letters.
const ALIKE: f64 = 0.66;

/// A recipe type: a struct of sections with `#[serde(deny_unknown_fields)]`.
pub trait RecipeRoot: Serialize + DeserializeOwned {
    /// Rewrites a document before it is read.
    ///
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    fn prepare(_: &mut Table) -> Result<(), Complaint> {
        Ok(())
    }

    /// Derives values from other keys, then validates what types cannot express. It is idempotent.
    ///
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    fn finish(&mut self) -> Result<(), Complaint>;
}

/// Reads a recipe of any type from a file, then applies `overrides`, each `section.key=value`.
///
/// # Errors
/// [`RecipeError`], which names the line or the override, the key, and the accepted values.
pub fn read_toml<T: RecipeRoot>(path: &Path, overrides: &[String]) -> Result<T, RecipeError> {
    let text =
        fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
    parse_toml(&path.display().to_string(), &text, overrides)
}

/// Like [`read_toml`], from text; errors call it `name`.
///
/// # Errors
/// Like [`read_toml`].
pub fn parse_toml<T: RecipeRoot>(name: &str, text: &str, overrides: &[String]) -> Result<T, RecipeError> {
    let mut document = Document::parse(name, text)?;
    for text in overrides {
        document.apply(text)?;
    }
    T::prepare(&mut document.table).map_err(|complaint| {
        let origin = document.origin(&complaint.key);
        complaint.at(origin)
    })?;
    let mut recipe: T = from_table(&document.table)
        .map_err(|problem| document.error(missing_within::<T>(&document.table, problem)))?;
    recipe.finish().map_err(|complaint| {
        let origin = document.origin(&complaint.key);
        complaint.at(origin)
    })?;
    Ok(recipe)
}

/// Returns a recipe of any type as TOML, with all defaults.
pub fn to_toml<T: RecipeRoot>(recipe: &T) -> String {
    toml::to_string(recipe)
        .expect("recipes hold tables with string keys, and no integer beyond 63 bits but seeds")
}

/// Finds the missing key of a missing section.
///
/// serde reports "`model` is missing"; the useful message is about `model.path`.
fn missing_within<T: RecipeRoot>(table: &Table, problem: Problem) -> Problem {
    let ProblemKind::MissingKey { key } = problem.kind else { return problem };
    if !problem.path.is_empty() {
        return problem;
    }
    let mut with_section = table.clone();
    with_section.insert(key.to_owned(), Value::Table(Table::new()));
    match from_table::<T>(&with_section) {
        Err(inner)
            if matches!(inner.kind, ProblemKind::MissingKey { .. })
                && inner.path.first().is_some_and(|first| first == key) =>
        {
            inner
        }
        _ => problem,
    }
}

/// A TOML document with the location of every key.
struct Document {
    name: String,
    table: Table,
    lines: BTreeMap<Vec<String>, usize>,
    overrides: BTreeMap<Vec<String>, String>,
}

impl Document {
    fn parse(name: &str, text: &str) -> Result<Self, RecipeError> {
        let syntax = |error: &toml::de::Error| RecipeError::Syntax {
            origin: Origin::File {
                name: name.into(),
                line: error.span().map(|span| line_of(text, span.start)),
            },
            message: error.message().to_owned(),
        };
        let spanned = DeTable::parse(text).map_err(|error| syntax(&error))?;
        let mut lines = BTreeMap::new();
        record_lines(spanned.get_ref(), text, &mut Vec::new(), &mut lines);
        let table = Table::from_str(text).map_err(|error| syntax(&error))?;
        Ok(Self { name: name.to_owned(), table, lines, overrides: BTreeMap::new() })
    }

    fn apply(&mut self, text: &str) -> Result<(), RecipeError> {
        let wrong = |reason: String| RecipeError::Override { text: text.to_owned(), reason };
        let (key, value) =
            text.split_once('=').ok_or_else(|| wrong("expected section.key=value".to_owned()))?;
        let path: Vec<String> = key.trim().split('.').map(|part| part.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(wrong("expected section.key=value, but a part of the key is empty".to_owned()));
        }
        let value = parse_value(value.trim()).map_err(wrong)?;
        insert(&mut self.table, &path, value).map_err(wrong)?;
        self.overrides.insert(path, text.to_owned());
        Ok(())
    }

    /// Returns the origin of `path`: the last override of it, of a table around it or of a key in it, otherwise the
    /// file.
    fn origin(&self, path: &[String]) -> Origin {
        let prefixes = || (1..=path.len()).rev().map(|length| &path[..length]);
        if let Some(text) = prefixes().find_map(|prefix| self.overrides.get(prefix)) {
            return Origin::Override(text.clone());
        }
        let line = prefixes().find_map(|prefix| self.lines.get(prefix)).copied();
        Origin::File { name: self.name.as_str().into(), line }
    }

    fn error(&self, problem: Problem) -> RecipeError {
        let Problem { mut path, kind } = problem;
        match kind {
            ProblemKind::UnknownKey { key, known } => {
                let nearest = nearest(&key, known);
                path.push(key);
                RecipeError::UnknownKey {
                    origin: self.unknown_origin(&path),
                    key: path.join("."),
                    nearest,
                    known,
                }
            }
            ProblemKind::MissingKey { key } => {
                let key = joined(&path.join("."), key);
                RecipeError::MissingKey {
                    origin: Origin::File { name: self.name.as_str().into(), line: None },
                    key,
                }
            }
            ProblemKind::WrongType { found, expected } => {
                RecipeError::WrongType { origin: self.origin(&path), key: path.join("."), found, expected }
            }
            ProblemKind::UnknownValue { found, known } => {
                let nearest = nearest(&found, known);
                RecipeError::UnknownValue {
                    origin: self.origin(&path),
                    key: path.join("."),
                    nearest,
                    found,
                    known,
                }
            }
            ProblemKind::Refused { reason } => {
                let reason = after_key(&reason, path.last().map_or("", String::as_str));
                RecipeError::Invalid { origin: self.origin(&path), key: path.join("."), reason }
            }
        }
    }

    /// An override of a key may have created an unknown section.
    fn unknown_origin(&self, path: &[String]) -> Origin {
        let inside = self.overrides.iter().find(|(key, _)| key.starts_with(path));
        match inside {
            Some((_, text)) if !self.lines.contains_key(path) => Origin::Override(text.clone()),
            _ => self.origin(path),
        }
    }
}

fn record_lines(
    table: &DeTable<'_>,
    text: &str,
    path: &mut Vec<String>,
    lines: &mut BTreeMap<Vec<String>, usize>,
) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        lines.insert(path.clone(), line_of(text, key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => record_lines(inner, text, path, lines),
            DeValue::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    let DeValue::Table(inner) = value.get_ref() else { continue };
                    path.push(index.to_string());
                    lines.insert(path.clone(), line_of(text, value.span().start));
                    record_lines(inner, text, path, lines);
                    path.pop();
                }
            }
            _ => {}
        }
        path.pop();
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// Parses a TOML value. Text that is not TOML, and does not start like it, is a string.
fn parse_value(text: &str) -> Result<Value, String> {
    match Value::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) if text.starts_with(['[', '{', '"', '\'']) => {
            Err(format!("the value is not valid TOML: {}", error.message()))
        }
        Err(_) => Ok(Value::String(text.to_owned())),
    }
}

fn insert(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let (last, sections) = path.split_last().ok_or("the key is empty")?;
    let mut table = table;
    let mut sections = sections.iter().enumerate();
    while let Some((depth, section)) = sections.next() {
        let name = path[..=depth].join(".");
        let entry = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        table = match entry {
            Value::Table(table) => table,
            Value::Array(tables) if tables.iter().all(Value::is_table) => {
                let count = tables.len();
                let (_, index) = sections.next().ok_or_else(|| {
                    format!("{name} is a list; name one of its tables, as in {name}.0.{last}")
                })?;
                let table = index.parse().ok().and_then(|index: usize| tables.get_mut(index));
                table
                    .and_then(Value::as_table_mut)
                    .ok_or_else(|| format!("{name} has {count} tables, numbered from 0"))?
            }
            _ => return Err(format!("{name} is a value, not a section")),
        };
    }
    table.insert(last.clone(), value);
    Ok(())
}

fn nearest(name: &str, known: &'static [&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|candidate| (likeness(name, candidate), *candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .map(|(_, candidate)| candidate)
}

/// Similarity by edits, where a transposition is one edit. A known name with `key` as its prefix counts as one edit
/// away.
fn likeness(name: &str, known: &str) -> f64 {
    let likeness = strsim::normalized_damerau_levenshtein(name, known);
    if name.len() >= 3 && known.starts_with(name) { likeness.max(ALIKE) } else { likeness }
}

/// Constructors name what they check ("beta is 0: it must be ..."); after the key the name would be repeated.
fn after_key(reason: &str, key: &str) -> String {
    match reason.strip_prefix(key) {
        Some(rest) if rest.starts_with(' ') => rest.trim_start().to_owned(),
        _ if reason.starts_with("is ") => reason.to_owned(),
        _ => format!("is invalid: {reason}"),
    }
}

fn joined(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}
