//! Two audits side by side.

use std::collections::BTreeMap;

use report::table::{Align, Column, Table, Value};
use serde::Serialize;

use crate::fault::Fault;
use crate::noise::NoiseEstimate;
use crate::result::Audit;

/// What differs between two files.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Both files.
    pub files: [String; 2],
    /// Pairs of both files with the same label.
    pub same: usize,
    /// Pairs of both files with opposite labels.
    pub relabeled: usize,
    /// Pairs that only the first file has.
    pub only_first: usize,
    /// Pairs that only the second file has.
    pub only_second: usize,
    /// Numbers of both audits.
    pub numbers: Vec<Difference>,
}

/// One number of both audits; `None` where an audit lacks it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The number's name.
    pub name: String,
    /// In the first audit.
    pub first: Option<f64>,
    /// In the second audit.
    pub second: Option<f64>,
    /// Whether it is a count.
    pub is_count: bool,
}

/// Compares two audits. Pairs are the same if prompt and both responses are, whatever their ids.
pub fn diff(first: &Audit, second: &Audit) -> Diff {
    let labels = |audit: &Audit| -> BTreeMap<[u64; 3], bool> {
        audit.keys.iter().map(|key| (key.unordered(), key.prefers_smaller())).collect()
    };
    let [ours, theirs] = [labels(first), labels(second)];
    let common: Vec<bool> =
        ours.iter().filter_map(|(key, label)| theirs.get(key).map(|other| other == label)).collect();
    let same = common.iter().filter(|is_same| **is_same).count();
    Diff {
        files: [first.file.clone(), second.file.clone()],
        same,
        relabeled: common.len() - same,
        only_first: ours.len() - common.len(),
        only_second: theirs.len() - common.len(),
        numbers: numbers(first, second),
    }
}

fn numbers(first: &Audit, second: &Audit) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut count = |name: &str, of: &dyn Fn(&Audit) -> usize| {
        let [first, second] = [first, second].map(|audit| Some(of(audit) as f64));
        all.push(Difference { name: name.to_owned(), first, second, is_count: true });
    };
    count("rows", &|audit| audit.rows);
    count("pairs", &|audit| audit.pairs);
    count("usable pairs", &|audit| audit.usable_pairs);
    count("prompts", &|audit| audit.contents.prompts);
    count("unreadable rows", &|audit| audit.contents.unreadable);
    for fault in Fault::ALL.into_iter().filter(|fault| first.count(*fault) + second.count(*fault) > 0) {
        count(fault.title(), &|audit| audit.count(fault));
    }
    let features = first.shortcuts.iter().chain(&second.shortcuts).map(|shortcut| shortcut.feature);
    let mut seen = Vec::new();
    for feature in features {
        if !seen.contains(&feature) {
            seen.push(feature);
            let [first, second] =
                [first, second].map(|audit| audit.shortcut(feature).map(|shortcut| shortcut.auc.auc));
            all.push(Difference { name: format!("AUC of {feature}"), first, second, is_count: false });
        }
    }
    let noise = |audit: &Audit| {
        let identified = |noise: &&NoiseEstimate| noise.method.identifies();
        audit.noise.iter().find(identified).map(|noise| noise.estimate)
    };
    all.push(Difference {
        name: "label noise".to_owned(),
        first: noise(first),
        second: noise(second),
        is_count: false,
    });
    all
}

impl Diff {
    /// Returns the comparison as tables: which pairs both files have, and the numbers of both audits.
    pub fn tables(&self) -> [Table; 2] {
        let count = |name: &str, number: usize| vec![Value::text(name), Value::Count(number as u64)];
        let pairs = Table {
            id: "pairs".to_owned(),
            title: format!("{} and {}", self.files[0], self.files[1]),
            columns: vec![Column::new("Pairs", Align::Left), Column::new("Number", Align::Right)],
            rows: vec![
                count("in both, same label", self.same),
                count("in both, opposite label", self.relabeled),
                count("in the first only", self.only_first),
                count("in the second only", self.only_second),
            ],
            notes: vec!["Different pairs; copies within a file count once.".to_owned()],
        };
        let number = |value: Option<f64>, is_count: bool| match value {
            Some(value) if is_count => Value::Count(value as u64),
            Some(value) => Value::Number { value, decimals: 3 },
            None => Value::missing("not computed"),
        };
        let row = |difference: &Difference| {
            let Difference { name, first, second, is_count } = difference;
            vec![Value::text(name), number(*first, *is_count), number(*second, *is_count)]
        };
        let numbers = Table {
            id: "numbers".to_owned(),
            title: "Audits of both".to_owned(),
            columns: vec![
                Column::new("Number", Align::Left),
                Column::new("First", Align::Right),
                Column::new("Second", Align::Right),
            ],
            rows: self.numbers.iter().map(row).collect(),
            notes: Vec::new(),
        };
        [pairs, numbers]
    }

    /// Returns the comparison as JSON, indented.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a comparison has string keys and plain values only")
    }
}
