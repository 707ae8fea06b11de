//! Overlap with benchmarks and held-out sets.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use files::json_lines::{self, JsonLinesError};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use crate::dataset::Dataset;
use crate::duplicates::PairKey;
use crate::error::AuditError;
use crate::fault::{Fault, Hits};
use crate::{near, text};

/// The n-gram of GPT-3's contamination analysis (Brown et al. 2020, appendix C).
const GRAM: usize = 13;
/// The n-gram of containment, and the share of a question's n-grams from which it counts as contained (`PaLM`, Chowdhery
/// et al. 2022, §8).
const SHORT_GRAM: usize = 8;
const CONTAINED: f64 = 0.7;

/// The questions of a benchmark.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The file.
    pub path: PathBuf,
    /// The turns of all questions, each with the number of its question.
    turns: Vec<(usize, String)>,
    questions: usize,
}

/// Overlap with one benchmark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leakage {
    /// Pairs with a request that equals a question, whatever case and punctuation.
    pub exact: usize,
    /// Pairs that share 13 words in a row with a question.
    pub ngram: usize,
    /// Pairs that contain at least 70% of a question's runs of 8 words.
    pub contained: usize,
    /// Pairs with any of these.
    pub pairs: usize,
    /// Questions of which a turn is in any pair.
    pub questions: usize,
    /// All questions.
    pub of_questions: usize,
}

/// Overlap with one held-out set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldOutOverlap {
    /// Pairs with a prompt of the held-out set.
    pub exact: usize,
    /// Pairs with a near-duplicate of a prompt of the held-out set.
    pub near: usize,
}

impl Bench {
    /// Reads questions, one JSON object a line: `turns` as FastChat's or Arena-Hard's, or `prompt`, `question` or
    /// `instruction`.
    ///
    /// # Errors
    ///
    /// [`AuditError::Bench`] for a file that cannot be read, [`AuditError::NoQuestion`].
    pub fn read(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| JsonLinesError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let (mut turns, mut questions) = (Vec::new(), 0);
        for row in json_lines::numbered::<Value>(path, &text) {
            let (line, value) = row?;
            let before = turns.len();
            turns.extend(texts(&value).into_iter().map(|text| (questions, text)));
            questions += 1;
            if turns.len() == before {
                return Err(AuditError::NoQuestion { path: path.to_owned(), line });
            }
        }
        if questions == 0 {
            return Err(AuditError::NoQuestion { path: path.to_owned(), line: 1 });
        }
        Ok(Self { path: path.to_owned(), turns, questions })
    }

    /// Returns the number of questions.
    pub fn questions(&self) -> usize {
        self.questions
    }
}

fn texts(question: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
    let found: Vec<String> = match question.get("turns").and_then(Value::as_array) {
        Some(turns) => turns.iter().filter_map(text).collect(),
        None => ["prompt", "question", "instruction"]
            .iter()
            .find_map(|key| text(question.get(key)?))
            .into_iter()
            .collect(),
    };
    found.into_iter().filter(|text| !text::words(text).is_empty()).collect()
}

/// The n-grams of a benchmark's turns.
struct Index {
    whole: HashMap<u64, usize>,
    long: HashMap<u64, usize>,
    short: HashMap<u64, Vec<usize>>,
    short_counts: Vec<usize>,
}

/// How a pair overlaps with a benchmark.
#[derive(Clone, Copy, Default)]
struct Overlap {
    exact: Option<usize>,
    long: Option<usize>,
    contained: Option<usize>,
}

impl Index {
    fn new(turns: &[(usize, String)]) -> Self {
        let mut index = Self {
            whole: HashMap::new(),
            long: HashMap::new(),
            short: HashMap::new(),
            short_counts: Vec::new(),
        };
        for (turn, (_, text)) in turns.iter().enumerate() {
            let words = text::words(text);
            index.whole.entry(text::joint_key(&words)).or_insert(turn);
            text::grams(&words, GRAM).for_each(|gram| {
                index.long.entry(gram).or_insert(turn);
            });
            let mut short: Vec<u64> = text::grams(&words, SHORT_GRAM).collect();
            short.sort_unstable();
            short.dedup();
            index.short_counts.push(short.len());
            short.into_iter().for_each(|gram| index.short.entry(gram).or_default().push(turn));
        }
        index
    }

    fn overlap(&self, data: &Dataset, pair: usize) -> Overlap {
        let request = text::words(&text::last_request(data.prompt(pair)));
        let mut overlap =
            Overlap { exact: self.whole.get(&text::joint_key(&request)).copied(), ..Overlap::default() };
        let [chosen, rejected] = data.responses(pair);
        let mut shared: Vec<(usize, u64)> = Vec::new();
        for part in [text::flat(data.prompt(pair)), chosen, rejected] {
            let words = text::words(&part);
            overlap.long = overlap
                .long
                .or_else(|| text::grams(&words, GRAM).find_map(|gram| self.long.get(&gram).copied()));
            for gram in text::grams(&words, SHORT_GRAM) {
                shared.extend(self.short.get(&gram).into_iter().flatten().map(|turn| (*turn, gram)));
            }
        }
        shared.sort_unstable();
        shared.dedup();
        overlap.contained = shared
            .chunk_by(|a, b| a.0 == b.0)
            .find(|grams| grams.len() as f64 >= CONTAINED * self.short_counts[grams[0].0] as f64)
            .map(|grams| grams[0].0);
        overlap
    }
}

/// Finds the pairs that contain questions of a benchmark.
pub(crate) fn with_bench(data: &Dataset, bench: &Bench, hits: &mut Hits<'_>) -> Leakage {
    let index = Index::new(&bench.turns);
    let found: Vec<Overlap> =
        (0..data.pairs.len()).into_par_iter().map(|pair| index.overlap(data, pair)).collect();
    let mut leaked: Vec<usize> = Vec::new();
    let count = |has: fn(&Overlap) -> bool| found.iter().filter(|overlap| has(overlap)).count();
    for (pair, overlap) in found.iter().enumerate() {
        if let Some(turn) = overlap.exact.or(overlap.long).or(overlap.contained) {
            leaked.push(bench.turns[turn].0);
            let name = bench.path.file_name().unwrap_or_default().to_string_lossy();
            hits.add(Fault::Leak, pair, || format!("{name}: {}", text::excerpt(&bench.turns[turn].1)));
        }
    }
    let pairs = leaked.len();
    leaked.sort_unstable();
    leaked.dedup();
    Leakage {
        exact: count(|overlap| overlap.exact.is_some()),
        ngram: count(|overlap| overlap.long.is_some()),
        contained: count(|overlap| overlap.contained.is_some()),
        pairs,
        questions: leaked.len(),
        of_questions: bench.questions,
    }
}

/// Finds the pairs with a prompt that is also in a held-out set.
pub(crate) fn with_held_out(
    data: &Dataset,
    keys: &[PairKey],
    held_out: &Dataset,
    hits: &mut Hits<'_>,
) -> HeldOutOverlap {
    let other_keys = PairKey::of_all(held_out);
    let mut firsts: Vec<(u64, usize)> =
        other_keys.iter().enumerate().map(|(pair, key)| (key.prompt, pair)).collect();
    firsts.sort_unstable();
    firsts.dedup_by_key(|(key, _)| *key);
    let (mut exact, mut rest) = (0, Vec::new());
    for (pair, key) in keys.iter().enumerate() {
        match firsts.binary_search_by_key(&key.prompt, |(key, _)| *key) {
            Ok(at) => {
                exact += 1;
                hits.add(Fault::HeldOut, pair, || {
                    format!("prompt of {} there", held_out.place(firsts[at].1))
                });
            }
            Err(_) => rest.push(pair),
        }
    }
    let mine = |at: usize| -> Cow<'_, str> { text::flat(data.prompt(rest[at])) };
    let theirs = |at: usize| -> Cow<'_, str> { text::flat(held_out.prompt(firsts[at].1)) };
    let similar = near::overlap(&mine, rest.len(), &theirs, firsts.len());
    for (at, other) in similar.iter().enumerate() {
        if let Some(other) = other {
            let place = || format!("similar to {} there", held_out.place(firsts[*other].1));
            hits.add(Fault::HeldOut, rest[at], place);
        }
    }
    HeldOutOverlap { exact, near: similar.iter().flatten().count() }
}
