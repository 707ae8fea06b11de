//! Agreement of annotators, and the records on which two agree or disagree.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use stats::{Agreement, fleiss_kappa};

use crate::error::DataError;
use crate::record::{Label, PreferenceRecord};
use crate::view::known_as;

/// The agreement of every pair of annotators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgreementMatrix {
    /// The annotators by name.
    pub annotators: Vec<String>,
    /// The agreement of each annotator (in the order of `annotators`) with each other one, on the records that both
    /// labeled; `None` without such records, and for an annotator with itself.
    pub cells: Vec<Vec<Option<Agreement>>>,
}

impl AgreementMatrix {
    /// Computes the agreement of every pair of the records' annotators. The categories are the preferred response and a
    /// tie. Kappa is Fleiss' kappa for two raters, which is Scott's π.
    ///
    /// ```
    /// use pref_data::{AgreementMatrix, Format, read_records};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("records.jsonl");
    /// let line = |id: &str, gpt: usize| {
    ///     format!(r#"{{"id": "{id}", "prompt": "p", "responses": ["x", "y"], "labels": {{"human": 0, "gpt-4": {gpt}}}}}"#)
    /// };
    /// std::fs::write(&path, [line("a", 0), line("b", 1)].join("\n"))?;
    /// let matrix = AgreementMatrix::of(&read_records(&path, Format::Records)?);
    /// let agreement = matrix.between("human", "gpt-4").expect("both labelled both records");
    /// assert_eq!((agreement.items, agreement.observed), (2, 0.5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(records: &[PreferenceRecord]) -> Self {
        let annotators: BTreeSet<&String> = records.iter().flat_map(|record| record.labels.keys()).collect();
        let annotators: Vec<String> = annotators.into_iter().cloned().collect();
        let categories = records.iter().map(|record| record.responses.len()).max().unwrap_or(0) + 1;
        let mut cells = vec![vec![None; annotators.len()]; annotators.len()];
        for (i, one) in annotators.iter().enumerate() {
            for (j, other) in annotators.iter().enumerate().skip(i + 1) {
                let agreement = agreement(records, one, other, categories);
                cells[i][j] = agreement;
                cells[j][i] = agreement;
            }
        }
        Self { annotators, cells }
    }

    /// Returns the agreement of two annotators by name.
    pub fn between(&self, one: &str, other: &str) -> Option<Agreement> {
        let index = |name: &str| self.annotators.iter().position(|annotator| annotator == name);
        self.cells[index(one)?][index(other)?]
    }
}

/// The records on which two annotators agree, or those on which they disagree.
///
/// As text `human = gpt-4-turbo` or `human != gpt-4-turbo`. Records that one of them did not label are in neither slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgreementSlice {
    /// The two annotators.
    pub annotators: [String; 2],
    /// The records that are kept.
    pub keep: Keep,
}

/// The records that a slice keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Records with the same label.
    Same,
    /// Records with different labels.
    Different,
}

impl AgreementSlice {
    /// Returns the records of the slice, in their order.
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownAnnotator`] where no record carries a label of one of the two.
    pub fn of(&self, records: Vec<PreferenceRecord>) -> Result<Vec<PreferenceRecord>, DataError> {
        let [one, other] = &self.annotators;
        let (one, other) = (known_as(&records, one)?, known_as(&records, other)?);
        let keeps = |record: &PreferenceRecord| match (record.labels.get(&one), record.labels.get(&other)) {
            (Some(a), Some(b)) => (a == b) == (self.keep == Keep::Same),
            _ => false,
        };
        Ok(records.into_iter().filter(keeps).collect())
    }
}

impl TryFrom<String> for AgreementSlice {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        let (names, keep) = match (text.split_once("!="), text.split_once('=')) {
            (Some(names), _) => (names, Keep::Different),
            (None, Some(names)) => (names, Keep::Same),
            (None, None) => return Err(DataError::AgreementSlice { text }),
        };
        let annotators = [names.0, names.1].map(|name| name.trim().to_owned());
        if annotators.iter().any(String::is_empty) || annotators[0] == annotators[1] {
            return Err(DataError::AgreementSlice { text });
        }
        Ok(Self { annotators, keep })
    }
}

impl From<AgreementSlice> for String {
    fn from(slice: AgreementSlice) -> Self {
        slice.to_string()
    }
}

impl fmt::Display for AgreementSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = &self.annotators;
        let sign = match self.keep {
            Keep::Same => "=",
            Keep::Different => "!=",
        };
        write!(f, "{one} {sign} {other}")
    }
}

fn agreement(records: &[PreferenceRecord], one: &str, other: &str, categories: usize) -> Option<Agreement> {
    let row = |record: &PreferenceRecord| {
        let mut row = vec![0; categories];
        for name in [one, other] {
            match *record.labels.get(name)? {
                Label::Prefers(index) => *row.get_mut(index)? += 1,
                Label::Tie => row[categories - 1] += 1,
            }
        }
        Some(row)
    };
    let table: Vec<Vec<u64>> = records.iter().filter_map(row).collect();
    // The only possible error is a table without records.
    fleiss_kappa(&table).ok()
}

#[cfg(test)]
mod tests;
