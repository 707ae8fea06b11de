//! A file without the pairs that an audit flags.

use std::path::{Path, PathBuf};

use pref_data::{Pair, write_pairs};
use serde::Serialize;

use crate::dataset::Dataset;
use crate::error::AuditError;
use crate::fault::Fault;
use crate::result::Audit;

/// What is removed and what is relabeled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanOptions {
    /// Faults whose pairs are removed.
    pub remove: Vec<Fault>,
    /// Faults whose pairs get the other label: [`Fault::Outvoted`], and [`Fault::Contradiction`] where a majority has the
    /// other label. Of other faults nothing is relabeled.
    pub relabel: Vec<Fault>,
}

impl Default for CleanOptions {
    fn default() -> Self {
        Self { remove: Fault::UNUSABLE.to_vec(), relabel: Vec::new() }
    }
}

/// A change of one pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The id of the pair.
    pub id: String,
    /// The line or row.
    pub place: String,
    /// What was done.
    pub action: Action,
    /// The fault.
    pub fault: &'static str,
}

/// What is done with a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The pair is not written.
    Removed,
    /// The responses are swapped.
    Relabeled,
}

/// What cleaning did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CleanReport {
    /// Pairs of the audited file.
    pub pairs: usize,
    /// Pairs that were written.
    pub written: usize,
    /// All changes, in the order of the file. Rows that cannot be read are not among them.
    pub changes: Vec<Change>,
    /// The log of the changes, one a line.
    pub log: PathBuf,
}

/// Writes the pairs of an audited file to `out`, without those that `options` removes, and the changes to `OUT.log.jsonl`.
/// Both writes are atomic.
///
/// A pair that is relabeled and then repeats a pair that is kept is removed as a duplicate.
///
/// # Errors
///
/// [`AuditError::SameFile`] if `out` is the audited file, [`AuditError::SingleResponses`] for a file without pairs; [`AuditError::Data`] and [`AuditError::Write`] for files that cannot
/// be written.
pub fn clean(
    data: &Dataset,
    audit: &Audit,
    options: &CleanOptions,
    out: &Path,
) -> Result<CleanReport, AuditError> {
    if out.canonicalize().is_ok_and(|out| data.path.canonicalize().is_ok_and(|path| path == out)) {
        return Err(AuditError::SameFile { path: data.path.clone() });
    }
    if data.unpaired.is_some() {
        return Err(AuditError::SingleResponses { path: data.path.clone() });
    }
    let (mut kept, mut changes) = (Vec::new(), Vec::new());
    let mut taken = std::collections::BTreeSet::new();
    for pair in 0..data.pairs.len() {
        let mut row = data.pair(pair);
        let change = |row: &Pair, action, fault: Fault| Change {
            id: row.id.clone(),
            place: data.place(pair),
            action,
            fault: fault.name(),
        };
        let (removed, relabeled) = decide(audit, options, pair);
        if let Some(fault) = removed {
            changes.push(change(&row, Action::Removed, fault));
            continue;
        }
        let mut key = audit.keys[pair];
        if let Some(fault) = relabeled {
            std::mem::swap(&mut row.chosen, &mut row.rejected);
            std::mem::swap(&mut key.chosen, &mut key.rejected);
            changes.push(change(&row, Action::Relabeled, fault));
        }
        let is_new = taken.insert(key);
        if !is_new && options.remove.contains(&Fault::Duplicate) {
            changes.push(change(&row, Action::Removed, Fault::Duplicate));
            continue;
        }
        kept.push(row);
    }
    write_pairs(out, &kept)?;
    let mut log = out.as_os_str().to_owned();
    log.push(".log.jsonl");
    let log = PathBuf::from(log);
    files::json_lines::write(&log, &changes)
        .map_err(|source| AuditError::Write { path: log.clone(), source })?;
    Ok(CleanReport { pairs: data.pairs.len(), written: kept.len(), changes, log })
}

/// Returns the faults for which a pair is removed and relabeled.
fn decide(audit: &Audit, options: &CleanOptions, pair: usize) -> (Option<Fault>, Option<Fault>) {
    let faults = audit.faults[pair];
    let mut remove = options.remove.clone();
    let mut relabeled = None;
    if options.relabel.contains(&Fault::Outvoted) {
        remove.retain(|fault| *fault != Fault::Outvoted);
        relabeled = faults.has(Fault::Outvoted).then_some(Fault::Outvoted);
    }
    if options.relabel.contains(&Fault::Contradiction)
        && let Some(is_majority) = audit.majority.get(&pair)
    {
        remove.retain(|fault| *fault != Fault::Contradiction);
        // The majority's copies are duplicates of each other, which the caller removes.
        remove.retain(|fault| *fault != Fault::Duplicate);
        relabeled = (!is_majority).then_some(Fault::Contradiction);
    }
    (faults.first_of(&remove), relabeled)
}
