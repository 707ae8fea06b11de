//! The records of a file or folder as they come in: each id once, bad rows counted, samples drawn.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

use rand::RngExt;
use seeds::Stream;

use super::{Read, ReadOptions, ReadReport};
use crate::error::{DataError, Place};
use crate::record::{PreferenceRecord, Text};

/// The records read so far.
pub(super) struct Seen {
    kept: Kept,
    places: BTreeMap<String, Place>,
    report: ReadReport,
    skip_bad: usize,
}

/// The records that stay.
enum Kept {
    All(Vec<PreferenceRecord>),
    Sample(Box<Reservoir>),
}

/// Of all records those that drew the smallest lots.
struct Reservoir {
    most: usize,
    lots: Stream,
    drawn: usize,
    heap: BinaryHeap<Ranked>,
}

struct Ranked {
    lot: u64,
    index: usize,
    record: PreferenceRecord,
}

impl Seen {
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

    /// Takes a row's record, or skips what is wrong with the row while that is allowed.
    pub(super) fn add(&mut self, place: &Place, read: Result<Read, DataError>) -> Result<(), DataError> {
        let error = match read {
            Ok(Read::Filtered) => {
                self.report.filtered += 1;
                return Ok(());
            }
            Ok(Read::Record(record)) => match self.places.get(&record.id) {
                None => {
                    self.places.insert(record.id.clone(), place.clone());
                    match &mut self.kept {
                        Kept::All(records) => records.push(record),
                        Kept::Sample(reservoir) => reservoir.add(record),
                    }
                    return Ok(());
                }
                Some(first) => {
                    DataError::DuplicateId { place: place.clone(), id: record.id, first: first.clone() }
                }
            },
            Err(error) => error,
        };
        if self.report.skipped.len() == self.skip_bad {
            return Err(error);
        }
        self.report.skipped.push(error);
        Ok(())
    }

    pub(super) fn finish(mut self, path: &Path) -> Result<(Vec<PreferenceRecord>, ReadReport), DataError> {
        let records = match self.kept {
            Kept::All(records) => records,
            Kept::Sample(reservoir) => {
                self.report.unsampled = reservoir.drawn - reservoir.heap.len();
                reservoir.in_order()
            }
        };
        if records.is_empty() {
            return Err(DataError::NoRecords { path: path.to_owned() });
        }
        let blank = records.iter().filter(|record| record.responses.iter().any(is_blank)).count();
        if blank > 0 {
            tracing::warn!(path = %path.display(), records = blank, "some records have a response of nothing but spaces");
        }
        self.report.records = records.len();
        Ok((records, self.report))
    }
}

impl Reservoir {
    fn add(&mut self, record: PreferenceRecord) {
        self.heap.push(Ranked { lot: self.lots.random(), index: self.drawn, record });
        self.drawn += 1;
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }

    fn in_order(self) -> Vec<PreferenceRecord> {
        let mut ranked = self.heap.into_vec();
        ranked.sort_unstable_by_key(|ranked| ranked.index);
        ranked.into_iter().map(|ranked| ranked.record).collect()
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.lot, self.index).cmp(&(other.lot, other.index))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

fn is_blank(response: &Text) -> bool {
    match response {
        Text::Plain(text) => text.trim().is_empty(),
        Text::Chat(messages) => messages.last().is_some_and(|message| match message.plain_content() {
            Some(content) => content.trim().is_empty(),
            None => message.is_empty(),
        }),
    }
}
