//! The records read so far: distinct ids, skipped rows, random samples.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

use rand::RngExt;
use seeds::Stream;

use super::notes::Notes;
use super::options::{ReadOptions, ReadReport};
use crate::error::DataError;
use crate::place::{Place, Places};
use crate::record::{PreferenceRecord, Text, UnpairedRecord};

/// A record of either layout.
pub(super) trait Item {
    fn id(&mut self) -> &mut String;
    fn responses(&self) -> &[Text];
    /// Returns whether the only response is desirable; `None` for a record of several responses.
    fn label(&self) -> Option<bool>;
}

/// A record of a file whose layout is not known in advance.
pub(super) enum Either {
    Paired(PreferenceRecord),
    Unpaired(UnpairedRecord),
}

impl Item for PreferenceRecord {
    fn id(&mut self) -> &mut String {
        &mut self.id
    }

    fn responses(&self) -> &[Text] {
        &self.responses
    }

    fn label(&self) -> Option<bool> {
        None
    }
}

impl Item for Either {
    fn id(&mut self) -> &mut String {
        match self {
            Self::Paired(record) => &mut record.id,
            Self::Unpaired(record) => &mut record.id,
        }
    }

    fn responses(&self) -> &[Text] {
        match self {
            Self::Paired(record) => &record.responses,
            Self::Unpaired(record) => std::slice::from_ref(&record.completion),
        }
    }

    fn label(&self) -> Option<bool> {
        match self {
            Self::Paired(_) => None,
            Self::Unpaired(record) => Some(record.is_desirable),
        }
    }
}

/// The records read so far.
pub(super) struct Seen<T> {
    kept: Kept<T>,
    places: BTreeMap<String, Place>,
    report: ReadReport,
    skip_bad: usize,
}

/// The records that are kept.
enum Kept<T> {
    All(Vec<T>),
    Sample(Box<Reservoir<T>>),
}

/// The records with the smallest random numbers.
struct Reservoir<T> {
    most: usize,
    lots: Stream,
    drawn: usize,
    heap: BinaryHeap<Ranked<T>>,
}

struct Ranked<T> {
    lot: u64,
    index: usize,
    record: T,
}

impl<T: Item> Seen<T> {
    pub(super) fn new(options: &ReadOptions) -> Self {
        let kept = match options.sample {
            None => Kept::All(Vec::new()),
            Some(sample) => Kept::Sample(Box::new(Reservoir {
                most: sample.records.get(),
                lots: sample.seeds.stream("sample"),
                drawn: 0,
                heap: BinaryHeap::new(),
            })),
        };
        Self { kept, places: BTreeMap::new(), report: ReadReport::default(), skip_bad: options.skip_bad }
    }

    /// Takes the record of a row, or nothing where the format's filter leaves it out. Skips a bad row while that is
    /// allowed.
    pub(super) fn add(
        &mut self,
        place: &Place,
        read: Result<Option<T>, DataError>,
        notes: &mut Notes,
    ) -> Result<(), DataError> {
        match read {
            Ok(None) => self.report.filtered += 1,
            Ok(Some(record)) => self.keep(place, record, notes),
            Err(error) if self.report.skipped.len() == self.skip_bad => return Err(error),
            Err(error) => self.report.skipped.push(error),
        }
        Ok(())
    }

    fn keep(&mut self, place: &Place, mut record: T, notes: &mut Notes) {
        let id = record.id();
        if self.places.contains_key(id) {
            notes.repeated(id, place);
            let unused =
                (2..).map(|number: usize| format!("{id}:{number}")).find(|id| !self.places.contains_key(id));
            *id = unused.unwrap_or_default();
        }
        self.places.insert(id.clone(), place.clone());
        match &mut self.kept {
            Kept::All(records) => records.push(record),
            Kept::Sample(reservoir) => reservoir.add(record),
        }
    }

    /// Returns the records with the report, to which the notes are still to be added.
    pub(super) fn finish(
        mut self,
        path: &Path,
        left: &[String],
        notes: &mut Notes,
    ) -> Result<(Vec<T>, ReadReport), DataError> {
        let records = match self.kept {
            Kept::All(records) => records,
            Kept::Sample(reservoir) => {
                self.report.unsampled = reservoir.drawn - reservoir.heap.len();
                reservoir.in_order()
            }
        };
        if records.is_empty() {
            let first = self.report.skipped.into_iter().next();
            return Err(
                first.unwrap_or_else(|| DataError::NoRecords { path: path.to_owned(), left: left.to_vec() })
            );
        }
        for record in &records {
            let responses = record.responses();
            notes.blank += usize::from(responses.iter().any(is_blank));
            if let Some(is_desirable) = record.label() {
                let [undesirable, desirable] = &mut notes.unpaired;
                *if is_desirable { desirable } else { undesirable } += 1;
            }
            if let [first, rest @ ..] = responses
                && !rest.is_empty()
            {
                self.report.identical += usize::from(rest.iter().any(|response| response == first));
                self.report.shared_turns += usize::from(share_turns(responses));
            }
        }
        self.report.records = records.len();
        self.report.places = Places(self.places);
        Ok((records, self.report))
    }
}

impl<T> Reservoir<T> {
    fn add(&mut self, record: T) {
        self.heap.push(Ranked { lot: self.lots.random(), index: self.drawn, record });
        self.drawn += 1;
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }

    fn in_order(self) -> Vec<T> {
        let mut ranked = self.heap.into_vec();
        ranked.sort_unstable_by_key(|ranked| ranked.index);
        ranked.into_iter().map(|ranked| ranked.record).collect()
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.lot, self.index).cmp(&(other.lot, other.index))
    }
}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Ranked<T> {}

fn is_blank(response: &Text) -> bool {
    match response {
        Text::Plain(text) => text.trim().is_empty(),
        Text::Chat(messages) => messages.last().is_some_and(|message| {
            message.plain_content().map_or_else(|| message.is_empty(), |text| text.trim().is_empty())
        }),
    }
}

/// Whether all responses begin with the same turns and then differ.
fn share_turns(responses: &[Text]) -> bool {
    let mut firsts = responses.iter().map(|response| match response {
        Text::Chat(messages) if messages.len() > 1 => messages.first(),
        _ => None,
    });
    let first = firsts.next().flatten();
    first.is_some() && firsts.all(|other| other == first)
}
