//! What a file holds.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::{Dataset, Unpaired};
use crate::fault::Example;
use crate::text;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contents {
    /// Rows that cannot be read.
    pub unreadable: usize,
    /// The first of them, with file, line and problem.
    pub unreadable_examples: Vec<Example>,
    /// Records without a label of the annotator.
    pub unlabelled: usize,
    /// Records that the annotator labeled a tie.
    pub ties: usize,
    /// Rows that the layout's filter leaves out.
    pub filtered: usize,
    /// Different prompts.
    pub prompts: usize,
    /// Pairs with a prompt of several turns of the user.
    pub several_turns: usize,
    /// The largest domains with their numbers of pairs.
    pub domains: Vec<(String, usize)>,
    /// Lengths of prompts.
    pub prompt: Lengths,
    /// Lengths of chosen responses.
    pub chosen: Lengths,
    /// Lengths of rejected responses.
    pub rejected: Lengths,
    /// The responses of a file of single responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpaired: Option<Unpaired>,
    /// Remarks of the reader.
    pub notes: Vec<String>,
}

/// Quantiles of lengths in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The least length.
    pub least: usize,
    /// A tenth of the texts is at most this long.
    pub tenth: usize,
    /// The median.
    pub median: usize,
    /// Nine tenths of the texts are at most this long.
    pub ninth: usize,
    /// The greatest length.
    pub most: usize,
}

const DOMAINS: usize = 6;
const EXAMPLES: usize = 5;

impl Contents {
    pub(crate) fn of(data: &Dataset, prompts: usize) -> Self {
        let lengths = |of: &(dyn Fn(usize) -> usize + Sync)| {
            let mut all: Vec<usize> = (0..data.pairs.len()).into_par_iter().map(of).collect();
            all.sort_unstable();
            let at = |tenths: usize| all[(all.len() - 1) * tenths / 10];
            Lengths { least: at(0), tenth: at(1), median: at(5), ninth: at(9), most: at(10) }
        };
        let words = |text: &pref_data::Text| text::flat(text).split_whitespace().count();
        let unreadable = data.report.skipped.iter().take(EXAMPLES).map(|error| {
            let text = error.to_string();
            // The place comes first: "FILE, line 3: problem".
            let (place, text) = text.split_once(": ").unwrap_or(("", &text));
            let place = place.rsplit_once('/').map_or(place, |(_, name)| name);
            Example { place: place.to_owned(), text: text.to_owned() }
        });
        Self {
            unreadable: data.report.skipped.len(),
            unreadable_examples: unreadable.collect(),
            unlabelled: data.unlabelled,
            ties: data.ties,
            filtered: data.report.filtered,
            prompts,
            several_turns: (0..data.pairs.len()).filter(|&pair| text::turns(data.prompt(pair)) > 1).count(),
            domains: domains(data),
            prompt: lengths(&|pair| words(data.prompt(pair))),
            chosen: lengths(&|pair| words(data.chosen(pair))),
            rejected: lengths(&|pair| words(data.rejected(pair))),
            unpaired: data.unpaired,
            notes: data.report.notes.iter().map(ToString::to_string).collect(),
        }
    }
}

fn domains(data: &Dataset) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in &data.pairs {
        if let Some(domain) = &data.records[pair.record].domain {
            *counts.entry(domain).or_default() += 1;
        }
    }
    let mut domains: Vec<(String, usize)> =
        counts.into_iter().map(|(domain, count)| (domain.to_owned(), count)).collect();
    domains.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    domains.truncate(DOMAINS);
    domains
}
