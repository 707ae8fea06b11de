//! A file of preferences as pairs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pref_data::{
    DEFAULT_ANNOTATOR, DataError, FieldProblem, Format, Label, Note, Pair, PairColumns, PreferenceRecord,
    Preferences, ReadOptions, ReadReport, ScoreRatio, Text, Unit, UnpairedRecord, Votes, read_preferences,
};

use serde::Serialize;

use crate::error::AuditError;
use crate::text;

/// Bad rows up to this number are counted and shown; one more ends reading, since the file probably has another layout.
const MOST_BAD_ROWS: usize = 100_000;

/// How a file is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadAs {
    /// The layout [default: detected].
    pub format: Option<Format>,
    /// Columns of pairs with other names than those that are recognized.
    pub columns: Option<PairColumns>,
    /// The annotator of the labels [default: `human`, or the first in the order of names].
    pub annotator: Option<String>,
}

/// The records of a file and the pairs that one annotator's labels make of them.
#[derive(Debug)]
pub struct Dataset {
    /// The file.
    pub path: PathBuf,
    /// Its layout.
    pub format: Format,
    /// The annotator whose labels are audited.
    pub annotator: String,
    /// All annotators of the file.
    pub annotators: BTreeSet<String>,
    /// The records.
    pub records: Vec<PreferenceRecord>,
    /// The pairs, in the order of the records.
    pub pairs: Vec<LabeledPair>,
    /// Records without a label of the annotator.
    pub unlabelled: usize,
    /// Records that the annotator labeled a tie.
    pub ties: usize,
    /// What reading found.
    pub report: ReadReport,
    /// The responses of a file of single responses, of which the pairs are made; `None` for a file of pairs.
    pub unpaired: Option<Unpaired>,
}

/// Single responses, labeled desirable or undesirable. Under each prompt, the desirable ones are paired with the undesirable ones
/// in the order of the file, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unpaired {
    /// The responses.
    pub responses: usize,
    /// Those without a counterpart of the other label under their prompt, which are not audited.
    pub unmatched: usize,
}

/// A preference, as indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabeledPair {
    /// The record.
    pub record: usize,
    /// The preferred response of the record.
    pub chosen: usize,
    /// The other response.
    pub rejected: usize,
}

impl Dataset {
    /// Reads a file of preferences. Bad rows are skipped and reported.
    ///
    /// Without a layout the file is read as pairs. If its columns are those of another layout, it is read as that one.
    ///
    /// # Errors
    ///
    /// [`AuditError::Data`] for a file that cannot be read or holds no good row, [`AuditError::UnknownAnnotator`],
    /// [`AuditError::NoPairs`], and [`AuditError::NoCounterparts`] for single responses that no pair can be made of.
    pub fn read(path: &Path, read_as: &ReadAs) -> Result<Self, AuditError> {
        let (format, preferences, report) = read_detecting(path, read_as)?;
        let (records, unpaired) = match preferences {
            Preferences::Paired(records) => (records, None),
            Preferences::Unpaired(responses) => {
                let (records, unpaired) = paired(responses);
                if records.is_empty() {
                    let (responses, unreadable) = (unpaired.responses, report.skipped.len());
                    return Err(AuditError::NoCounterparts { path: path.to_owned(), responses, unreadable });
                }
                (records, Some(unpaired))
            }
        };
        let annotators: BTreeSet<String> =
            records.iter().flat_map(|record| record.labels.keys().cloned()).collect();
        let unknown = |annotator: String| AuditError::UnknownAnnotator {
            path: path.to_owned(),
            annotator,
            known: annotators.iter().cloned().collect(),
        };
        let annotator = match &read_as.annotator {
            Some(name) if annotators.contains(name) => name.clone(),
            Some(name) => return Err(unknown(name.clone())),
            None if annotators.contains(DEFAULT_ANNOTATOR) => DEFAULT_ANNOTATOR.to_owned(),
            None => annotators.first().cloned().ok_or_else(|| unknown(DEFAULT_ANNOTATOR.to_owned()))?,
        };
        let label = |record: &PreferenceRecord| record.labels.get(&annotator).copied();
        let unlabelled = records.iter().filter(|record| label(record).is_none()).count();
        let ties = records.iter().filter(|record| label(record) == Some(Label::Tie)).count();
        let pairs = pairs_of(&records, &annotator);
        if pairs.is_empty() {
            let (path, unreadable) = (path.to_owned(), report.skipped.len());
            return Err(AuditError::NoPairs { path, annotator, unlabelled, ties, unreadable });
        }
        Ok(Self {
            path: path.to_owned(),
            format,
            annotator,
            annotators,
            records,
            pairs,
            unlabelled,
            ties,
            report,
            unpaired,
        })
    }

    /// Returns the pairs that another annotator's labels make.
    pub(crate) fn pairs_of(&self, annotator: &str) -> Vec<LabeledPair> {
        pairs_of(&self.records, annotator)
    }

    /// Returns the name of the layout.
    pub fn layout(&self) -> &'static str {
        match self.format {
            _ if self.unpaired.is_some() => "unpaired",
            Format::Pairs => "pairs",
            Format::HhRlhf => "hh-rlhf",
            Format::Gair => "gair",
            Format::Ultrafeedback => "ultrafeedback",
            Format::Shp(_) => "shp",
            Format::Records => "records",
        }
    }

    /// Returns the number of rows that are read.
    pub(crate) fn rows(&self) -> usize {
        self.unpaired.map_or(self.records.len(), |unpaired| unpaired.responses)
    }

    /// Returns whether the layout itself puts the preferred response first.
    pub fn puts_chosen_first(&self) -> bool {
        matches!(self.format, Format::Pairs | Format::HhRlhf)
    }

    /// Returns the prompt of a pair.
    pub fn prompt(&self, pair: usize) -> &Text {
        &self.records[self.pairs[pair].record].prompt
    }

    /// Returns the preferred response of a pair.
    pub fn chosen(&self, pair: usize) -> &Text {
        let LabeledPair { record, chosen, .. } = self.pairs[pair];
        &self.records[record].responses[chosen]
    }

    /// Returns the other response of a pair.
    pub fn rejected(&self, pair: usize) -> &Text {
        let LabeledPair { record, rejected, .. } = self.pairs[pair];
        &self.records[record].responses[rejected]
    }

    /// Returns the texts of both responses, the preferred one first.
    pub(crate) fn responses(&self, pair: usize) -> [Cow<'_, str>; 2] {
        [text::flat(self.chosen(pair)), text::flat(self.rejected(pair))]
    }

    /// Returns the place of a pair's record: `line 12`, or with the file's name where there are several files.
    pub(crate) fn place(&self, pair: usize) -> String {
        let record = &self.records[self.pairs[pair].record];
        let Some(place) = self.report.places.of(&record.id) else { return record.id.clone() };
        let row = match place.unit {
            Unit::Element { .. } => format!("row {}", place.number),
            unit => format!("{unit} {}", place.number),
        };
        match place.path.file_name() {
            Some(name) if *place.path != *self.path => format!("{}, {row}", name.to_string_lossy()),
            _ => row,
        }
    }

    /// Returns the id of a pair: the record's, with the rejected response where a record has several pairs.
    pub(crate) fn pair_id(&self, pair: usize) -> String {
        let LabeledPair { record, rejected, .. } = self.pairs[pair];
        let record = &self.records[record];
        if record.responses.len() == 2 { record.id.clone() } else { format!("{}#{rejected}", record.id) }
    }

    /// Returns a pair with its texts.
    pub(crate) fn pair(&self, pair: usize) -> Pair {
        let record = &self.records[self.pairs[pair].record];
        Pair {
            id: self.pair_id(pair),
            prompt: record.prompt.clone(),
            chosen: self.chosen(pair).clone(),
            rejected: self.rejected(pair).clone(),
            domain: record.domain.clone(),
            context: record.context.clone(),
            annotator: self.annotator.clone(),
            votes: Votes::default(),
            flipped: false,
        }
    }
}

fn pairs_of(records: &[PreferenceRecord], annotator: &str) -> Vec<LabeledPair> {
    let mut pairs = Vec::new();
    for (index, record) in records.iter().enumerate() {
        if let Some(&Label::Prefers(chosen)) = record.labels.get(annotator) {
            let others = (0..record.responses.len()).filter(|other| *other != chosen);
            pairs.extend(others.map(|rejected| LabeledPair { record: index, chosen, rejected }));
        }
    }
    pairs
}

/// Pairs single responses of the same prompt, in the order of the desirable ones.
fn paired(responses: Vec<UnpairedRecord>) -> (Vec<PreferenceRecord>, Unpaired) {
    let count = responses.len();
    let mut prompts: BTreeMap<String, [Vec<(usize, UnpairedRecord)>; 2]> = BTreeMap::new();
    for (order, response) in responses.into_iter().enumerate() {
        let prompt = serde_json::to_string(&(&response.prompt, &response.context));
        let of_prompt = prompts.entry(prompt.unwrap_or_else(|_| order.to_string())).or_default();
        of_prompt[usize::from(!response.is_desirable)].push((order, response));
    }
    let of_prompts =
        prompts.into_values().flat_map(|[desirable, undesirable]| desirable.into_iter().zip(undesirable));
    let mut pairs: Vec<_> = of_prompts.collect();
    pairs.sort_by_key(|((order, _), _)| *order);
    let record = |((_, desirable), (_, undesirable)): ((usize, UnpairedRecord), (usize, UnpairedRecord))| {
        PreferenceRecord {
            id: desirable.id,
            prompt: desirable.prompt,
            responses: vec![desirable.completion, undesirable.completion],
            labels: [(DEFAULT_ANNOTATOR.to_owned(), Label::Prefers(0))].into(),
            domain: desirable.domain,
            context: desirable.context,
        }
    };
    let unmatched = count - 2 * pairs.len();
    (pairs.into_iter().map(record).collect(), Unpaired { responses: count, unmatched })
}

type Read = (Format, Preferences, ReadReport);

fn read_detecting(path: &Path, read_as: &ReadAs) -> Result<Read, DataError> {
    let read = |format: Format| -> Result<Read, DataError> {
        let columns = read_as.columns.clone().filter(|_| format == Format::Pairs);
        let options = ReadOptions { skip_bad: MOST_BAD_ROWS, columns, ..ReadOptions::new(format) };
        let (preferences, report) = read_preferences(path, &options)?;
        Ok((format, preferences, report))
    };
    if let Some(format) = read_as.format {
        return read(format);
    }
    match read(Format::Pairs) {
        Ok((_, _, report)) if is_dialogues(&report.notes) => read(Format::HhRlhf),
        Err(error) => match format_of(&error) {
            Some(format) => read(format),
            None => Err(error),
        },
        pairs => pairs,
    }
}

/// Whether rows without a prompt are dialogues as in hh-rlhf.
fn is_dialogues(notes: &[Note]) -> bool {
    notes
        .iter()
        .any(|note| matches!(note, Note::SharedPrompt { example, .. } if example.starts_with("\n\nHuman:")))
}

/// Returns the layout that the columns of a file of pairs belong to.
fn format_of(error: &DataError) -> Option<Format> {
    let DataError::Field { problem: FieldProblem::NoColumn { format, .. }, .. } = error else { return None };
    Some(match (*format)? {
        "shp" => Format::Shp(ScoreRatio::PAPER),
        "gair" => Format::Gair,
        "ultrafeedback" => Format::Ultrafeedback,
        _ => Format::Records,
    })
}
