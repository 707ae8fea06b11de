//! A whole set put to a model, and the log of what it said.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use atomic_write_file::AtomicWriteFile;
use llm_client::{Client, Totals};
use pref_data::{Label, PreferenceRecord};
use serde::{Deserialize, Serialize};

use crate::AnnotateError;
use crate::ask::{Judgement, LlmAnnotator, Unlabelled};

/// What a model said of one record: a line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// The record's identifier.
    pub id: String,
    /// Who said it.
    pub annotator: String,
    /// What was said and what came of it.
    #[serde(flatten)]
    pub judgement: Judgement,
}

/// What annotating came to.
#[derive(Clone, Debug)]
pub struct AnnotateReport {
    /// One for each record that was put to the model, in the records' order.
    pub annotations: Vec<Annotation>,
    /// Records that carried a label of this annotator before.
    pub labelled_before: usize,
    /// What the calls came to.
    pub totals: Totals,
}

impl AnnotateReport {
    /// The records that have no label, and why.
    pub fn unlabelled(&self) -> impl Iterator<Item = (&str, &Unlabelled)> {
        let annotations = self.annotations.iter();
        annotations.filter_map(|one| Some((one.id.as_str(), one.judgement.unlabelled.as_ref()?)))
    }
}

impl fmt::Display for AnnotateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |wanted: fn(&Judgement) -> bool| {
            self.annotations.iter().filter(|one| wanted(&one.judgement)).count()
        };
        let ties = count(|judgement| judgement.label == Some(Label::Tie));
        let decided = count(|judgement| matches!(judgement.label, Some(Label::Prefers(_))));
        write!(f, "of {} records {decided} decided, {ties} ties", self.annotations.len())?;
        let mut why: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, unlabelled) in self.unlabelled() {
            *why.entry(unlabelled.name()).or_default() += 1;
        }
        for (name, records) in why {
            write!(f, ", {records} {name}")?;
        }
        if self.labelled_before > 0 {
            write!(f, "; {} were labelled before", self.labelled_before)?;
        }
        Ok(())
    }
}

/// Puts every record that does not carry a label of `annotator` to it, and enters its labels. `heard` is called after
/// each record with the number that is done.
///
/// Nothing is lost when this ends early, by an error, a signal or a kill: answers lie in the client's folder, and the
/// same call goes on from there without paying for one twice.
///
/// # Errors
///
/// [`AnnotateError::Client`] for what stops everything: a wrong key, an exhausted budget, `stop`. Records stay as they
/// are then.
pub fn annotate(
    records: &mut [PreferenceRecord],
    annotator: &LlmAnnotator,
    client: &Client,
    stop: &AtomicBool,
    mut heard: impl FnMut(usize),
) -> Result<AnnotateReport, AnnotateError> {
    let open: Vec<usize> =
        (0..records.len()).filter(|&at| !records[at].labels.contains_key(&annotator.name)).collect();
    let mut judgements: BTreeMap<usize, Judgement> = BTreeMap::new();
    let mut failed = None;
    let asked: &[PreferenceRecord] = records;
    let job = |job: usize| annotator.judge(&asked[open[job]], client);
    client.run_each(open.len(), stop, job, |job, judged| match judged {
        Ok(judgement) => {
            judgements.insert(open[job], judgement);
            heard(judgements.len());
            ControlFlow::Continue(())
        }
        // What ends the others is told, not that they ended.
        Err(llm_client::Error::Stopped) if failed.is_some() => ControlFlow::Break(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if judgements.len() < open.len() {
        return Err(llm_client::Error::Stopped.into());
    }
    let labelled_before = records.len() - open.len();
    let annotations = judgements.into_iter().map(|(at, judgement)| {
        if let Some(label) = judgement.label {
            records[at].labels.insert(annotator.name.clone(), label);
        }
        Annotation { id: records[at].id.clone(), annotator: annotator.name.clone(), judgement }
    });
    Ok(AnnotateReport { annotations: annotations.collect(), labelled_before, totals: client.totals() })
}

/// Writes annotations as JSONL. The file appears whole or not at all.
///
/// # Errors
///
/// [`AnnotateError::Io`].
pub fn write_log(path: &Path, annotations: &[Annotation]) -> Result<(), AnnotateError> {
    let write = || {
        let mut file = AtomicWriteFile::open(path)?;
        let mut buffer = BufWriter::new(&mut file);
        for annotation in annotations {
            serde_json::to_writer(&mut buffer, annotation)?;
            buffer.write_all(b"\n")?;
        }
        buffer.flush()?;
        drop(buffer);
        file.commit()
    };
    write().map_err(|source| AnnotateError::Io { action: "write", path: path.to_owned(), source })
}

/// Reads what [`write_log`] wrote.
///
/// # Errors
///
/// [`AnnotateError::Io`], [`AnnotateError::Log`].
pub fn read_log(path: &Path) -> Result<Vec<Annotation>, AnnotateError> {
    let text = std::fs::read_to_string(path).map_err(|source| AnnotateError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let line = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|source| AnnotateError::Log {
            path: path.to_owned(),
            line: index + 1,
            source,
        })
    };
    lines.map(line).collect()
}
