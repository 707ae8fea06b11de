//! Labels for a set of records, and the log of a model's answers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use llm_client::{Client, Estimate, Totals};
use pref_data::{Label, PreferenceRecord};
use serde::{Deserialize, Serialize};

use crate::AnnotateError;
use crate::ask::{Game, Judgement, LlmAnnotator, Unlabelled};
use crate::candidates::record_digest;
use crate::proportion::Proportion;

/// A model's judgement of one record: a line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Annotation {
    /// The record's identifier.
    pub id: String,
    /// The digest of the record's prompt and responses; empty in logs of earlier versions.
    #[serde(default)]
    pub digest: String,
    /// The annotator.
    pub annotator: String,
    /// The label and the answers.
    #[serde(flatten)]
    pub judgement: Judgement,
}

/// The results of [`annotate`].
#[derive(Clone, Debug)]
pub struct AnnotateReport {
    /// One for each record that the model was asked about, in the records' order.
    pub annotations: Vec<Annotation>,
    /// Records that already had a label of this annotator.
    pub labelled_before: usize,
    /// Calls, tokens and cost.
    pub totals: Totals,
}

impl AnnotateReport {
    /// Returns the records without a label, each with the reason.
    pub fn unlabelled(&self) -> impl Iterator<Item = (&str, &Unlabelled)> {
        let annotations = self.annotations.iter();
        annotations.filter_map(|one| Some((one.id.as_str(), one.judgement.unlabelled.as_ref()?)))
    }
}

impl AnnotateReport {
    /// Returns the number of records whose verdict changes with the order of the responses, of those judged in both.
    pub fn order_dependent(&self) -> Proportion {
        let judged = self.annotations.iter().map(|one| &one.judgement);
        let judged = judged.filter(|one| matches!(one.unlabelled, None | Some(Unlabelled::Disagreement)));
        let judged = judged.filter(|one| one.games.iter().all(Game::is_read));
        judged.fold(Proportion::default(), |sum, one| sum.and(one.order_dependent))
    }

    /// Returns the server's names of the model with their fingerprints, as far as reported, and the number of answers of each.
    /// More than one shows that the model changed between answers.
    pub fn served(&self) -> BTreeMap<String, usize> {
        let mut served = BTreeMap::new();
        for game in self.annotations.iter().flat_map(|one| &one.judgement.games) {
            let name = match (&game.model, &game.fingerprint) {
                (Some(model), Some(fingerprint)) => format!("{model} with fingerprint {fingerprint}"),
                (Some(name), None) | (None, Some(name)) => name.clone(),
                (None, None) => continue,
            };
            *served.entry(name).or_default() += 1;
        }
        served
    }

    /// Returns the number of labels that are mean probabilities of both orders.
    pub fn labels_by_probability(&self) -> usize {
        self.annotations.iter().filter(|one| one.judgement.probability.is_some()).count()
    }

    /// Returns the number of answers without a verdict, of all answers. Only the last answer to a repeated question counts.
    pub fn without_verdict(&self) -> Proportion {
        let games = self.annotations.iter().flat_map(|one| &one.judgement.games);
        games.fold(Proportion::default(), |sum, game| sum.and(!game.is_read()))
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
        let (changed, silent) = (self.order_dependent(), self.without_verdict());
        write!(f, "\n{changed} judgements changed with the order, {silent} answers had no verdict")?;
        if self.labels_by_probability() > 0 {
            write!(f, "\n{} labels are mean probabilities of both orders", self.labels_by_probability())?;
        }
        Ok(())
    }
}

/// The calls that [`annotate`] would make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnnotatePlan {
    /// Records without a label of the annotator to which its question applies.
    pub records: usize,
    /// Records that already have a label of this annotator.
    pub labelled_before: usize,
    /// Records with more than two responses, about which a pairwise question cannot be asked.
    pub not_pairs: usize,
    /// The calls, those in the cache included, without repeats for answers that have no verdict.
    pub calls: usize,
    /// Their estimated cost.
    pub estimate: Estimate,
}

/// Returns the calls of [`annotate`] and their estimated cost. Makes no call.
///
/// # Errors
///
/// [`AnnotateError::Client`] if the cache cannot be read.
pub fn plan(
    records: &[PreferenceRecord],
    annotator: &LlmAnnotator,
    client: &Client,
) -> Result<AnnotatePlan, AnnotateError> {
    let open: Vec<_> = records.iter().filter(|record| !record.labels.contains_key(&annotator.name)).collect();
    let by_record = open.iter().map(|record| annotator.requests(record));
    let asked: Vec<_> = by_record.filter(|requests| !requests.is_empty()).collect();
    let requests: Vec<_> = asked.iter().flatten().cloned().collect();
    Ok(AnnotatePlan {
        records: asked.len(),
        labelled_before: records.len() - open.len(),
        not_pairs: open.len() - asked.len(),
        calls: requests.len(),
        estimate: client.estimate(&requests)?,
    })
}

/// Asks `annotator` about every record without its label, and adds the labels to the records. Calls `progress` after
/// each record with the number of records done.
///
/// An error, a signal or a crash loses nothing: answers are in the client's folder, and the same call resumes from them
/// without paying for one twice.
///
/// # Errors
///
/// [`AnnotateError::Client`] for an error that every further call would meet: a wrong key, an exhausted budget, `stop`.
/// The records are then unchanged.
pub fn annotate(
    records: &mut [PreferenceRecord],
    annotator: &LlmAnnotator,
    client: &Client,
    stop: &AtomicBool,
    mut progress: impl FnMut(usize),
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
            progress(judgements.len());
            ControlFlow::Continue(())
        }
        // The first error ended the other calls; theirs say nothing new.
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
        Annotation {
            id: records[at].id.clone(),
            digest: record_digest(&records[at]),
            annotator: annotator.name.clone(),
            judgement,
        }
    });
    Ok(AnnotateReport { annotations: annotations.collect(), labelled_before, totals: client.totals() })
}

/// Writes annotations as JSON lines. The write is atomic.
///
/// # Errors
///
/// [`AnnotateError::Io`].
pub fn write_log(path: &Path, annotations: &[Annotation]) -> Result<(), AnnotateError> {
    files::json_lines::write(path, annotations).map_err(|source| AnnotateError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// Reads a file of [`write_log`].
///
/// # Errors
///
/// [`AnnotateError::Log`].
pub fn read_log(path: &Path) -> Result<Vec<Annotation>, AnnotateError> {
    Ok(files::json_lines::read(path)?)
}
