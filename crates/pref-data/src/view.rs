//! Records to pairs, by the labels of one or several annotators.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use seeds::Seeds;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::order::{permutation, share};
use crate::record::{Label, Pair, PreferenceRecord, Votes};
use crate::text::counted;

/// Counts of a view: what it kept and what it left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewReport {
    /// All records.
    pub records: usize,
    /// Records without a label of this annotator.
    pub unlabelled: usize,
    /// Records that the annotator labeled a tie.
    pub ties: usize,
    /// Pairs: one for each response that a label prefers another to.
    pub pairs: usize,
}

impl std::ops::AddAssign for ViewReport {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.unlabelled += other.unlabelled;
        self.ties += other.ties;
        self.pairs += other.pairs;
    }
}

impl fmt::Display for ViewReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} from {} ({} without a label of this annotator, {})",
            counted(self.pairs, "pair"),
            counted(self.records, "record"),
            self.unlabelled,
            counted(self.ties, "tie")
        )
    }
}

/// The annotators whose labels make the pairs.
///
/// As text a name (`human`), a vote (`majority of human, gpt-4-turbo, llama-2-70b-chat` or `majority of all`) or a
/// mixture (`70% gpt-4-turbo, 30% human`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LabelSource {
    /// One annotator.
    Annotator(String),
    /// The majority label of these annotators, or of all where none is named. Equal counts are a tie. An annotator that
    /// did not label a record does not vote on it.
    Majority(BTreeSet<String>),
    /// For each record that all these annotators labeled, the label of one of them. Which one is random, so that each
    /// labels its share of these records.
    Mixture(Mixture),
}

/// Annotators and their shares, which add up to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture(Vec<(String, f64)>);

impl Mixture {
    /// The tolerance of the sum of the shares.
    const SLACK: f64 = 1e-6;

    /// Creates a mixture.
    ///
    /// # Errors
    ///
    /// [`DataError::OutOfRange`] for a share outside (0, 1] and for shares that do not add up to 1.
    pub fn new(shares: Vec<(String, f64)>) -> Result<Self, DataError> {
        for &(_, value) in &shares {
            if !(value > 0.0 && value <= 1.0) {
                return Err(DataError::OutOfRange { name: "a mixture's share", value, range: "(0, 1]" });
            }
        }
        let value = shares.iter().map(|(_, share)| share).sum::<f64>();
        if (value - 1.0).abs() > Self::SLACK {
            return Err(DataError::OutOfRange {
                name: "the sum of a mixture's shares",
                value,
                range: "[1, 1]",
            });
        }
        Ok(Self(shares))
    }

    /// Returns the annotators with their shares.
    pub fn shares(&self) -> &[(String, f64)] {
        &self.0
    }
}

/// The annotator of pairs that a vote makes.
const MAJORITY: &str = "majority";

/// The beginning of the text of a vote.
const MAJORITY_OF: &str = "majority of ";

impl TryFrom<String> for LabelSource {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        let names = |list: &str| list.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        if let Some(list) = text.strip_prefix(MAJORITY_OF) {
            let names = names(list);
            return match &names[..] {
                [one] if one == "all" => Ok(Self::Majority(BTreeSet::new())),
                _ if names.iter().any(String::is_empty) => Err(DataError::LabelSource { text }),
                _ => Ok(Self::Majority(names.into_iter().collect())),
            };
        }
        if !text.contains('%') {
            return if text.trim().is_empty() {
                Err(DataError::LabelSource { text })
            } else {
                Ok(Self::Annotator(text))
            };
        }
        let part = |part: String| {
            let (share, name) = part.split_once('%')?;
            let name = name.trim();
            (!name.is_empty()).then_some((name.to_owned(), share.trim().parse::<f64>().ok()? / 100.0))
        };
        match names(&text).into_iter().map(part).collect() {
            Some(shares) => Mixture::new(shares).map(Self::Mixture),
            None => Err(DataError::LabelSource { text }),
        }
    }
}

impl From<LabelSource> for String {
    fn from(source: LabelSource) -> Self {
        source.to_string()
    }
}

impl fmt::Display for LabelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Annotator(name) => f.write_str(name),
            Self::Majority(voters) if voters.is_empty() => write!(f, "{MAJORITY_OF}all"),
            Self::Majority(voters) => {
                let voters: Vec<&str> = voters.iter().map(String::as_str).collect();
                write!(f, "{MAJORITY_OF}{}", voters.join(", "))
            }
            Self::Mixture(mixture) => {
                // Shares are read as percent; rounding removes the error of the division.
                let percent = |share: f64| (share * 1e10).round() / 1e8;
                let parts = mixture.0.iter().map(|(name, share)| format!("{}% {name}", percent(*share)));
                f.write_str(&parts.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Returns the pairs of one annotator's labels, in the records' order.
///
/// A record of more than two responses gives one pair for each response but the preferred one. Their ids are the
/// record's with `#` and the rejected response's index. Ties and missing labels give no pair and are counted. Where no
/// record has the annotator `gpt-4-turbo`, it means `gpt-4-1106-preview`, GAIR's name for that model.
///
/// # Errors
///
/// [`DataError::UnknownAnnotator`] where no record carries a label of this annotator, [`DataError::Record`] where a
/// labelled record is at fault.
pub fn annotator_view(
    records: &[PreferenceRecord],
    annotator: &str,
) -> Result<(Vec<Pair>, ViewReport), DataError> {
    // The view of one annotator draws nothing.
    label_view(records, &LabelSource::Annotator(annotator.to_owned()), &Seeds::new(0))
}

/// Returns the pairs of the labels of `source`, in the form of [`annotator_view`]. A mixture draws from the stream
/// `mixture`; with the same seeds, an annotator with a larger share keeps the records of a smaller one.
///
/// ```
/// use pref_data::{Format, LabelSource, label_view, read_records};
/// use seeds::Seeds;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("records.jsonl");
/// let line = r#"{"id": "a", "prompt": "p", "responses": ["x", "y"], "labels": {"human": 0, "gpt-4": 1, "llama": 1}}"#;
/// std::fs::write(&path, line)?;
/// let records = read_records(&path, Format::Records)?;
/// let majority = LabelSource::try_from("majority of human, gpt-4, llama".to_owned())?;
/// let (pairs, _) = label_view(&records, &majority, &Seeds::new(0))?;
/// assert_eq!(pairs[0].chosen, records[0].responses[1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`annotator_view`], for each annotator that `source` names.
pub fn label_view(
    records: &[PreferenceRecord],
    source: &LabelSource,
    seeds: &Seeds,
) -> Result<(Vec<Pair>, ViewReport), DataError> {
    let labelled: Vec<Option<(String, Label)>> = match source {
        LabelSource::Annotator(name) => {
            let name = known_as(records, name)?;
            records.iter().map(|record| Some((name.clone(), *record.labels.get(&name)?))).collect()
        }
        LabelSource::Majority(voters) => {
            let voters: BTreeSet<String> =
                voters.iter().map(|name| known_as(records, name)).collect::<Result<_, _>>()?;
            let label = |record| Some((MAJORITY.to_owned(), majority(record, &voters)?));
            records.iter().map(label).collect()
        }
        LabelSource::Mixture(mixture) => mixed(records, mixture, seeds)?,
    };
    let mut report = ViewReport { records: records.len(), ..ViewReport::default() };
    let mut pairs = Vec::with_capacity(records.len());
    for (record, label) in records.iter().zip(labelled) {
        match label {
            None => report.unlabelled += 1,
            Some((_, Label::Tie)) => report.ties += 1,
            Some((annotator, Label::Prefers(best))) => {
                record.check().map_err(|(field, problem)| DataError::Record {
                    id: record.id.clone(),
                    field,
                    problem,
                })?;
                pairs.extend(pairs_of(record, best, &annotator));
            }
        }
    }
    report.pairs = pairs.len();
    Ok((pairs, report))
}

/// Annotators by the name of the literature and by that of the set.
const ALIASES: [(&str, &str); 1] = [("gpt-4-turbo", "gpt-4-1106-preview")];

/// Returns the records' name of an annotator.
pub(crate) fn known_as(records: &[PreferenceRecord], name: &str) -> Result<String, DataError> {
    let is_known = |name: &str| records.iter().any(|record| record.labels.contains_key(name));
    let alias = || ALIASES.into_iter().find(|(alias, _)| *alias == name).map(|(_, theirs)| theirs);
    if is_known(name) {
        return Ok(name.to_owned());
    }
    if let Some(theirs) = alias().filter(|theirs| is_known(theirs)) {
        return Ok(theirs.to_owned());
    }
    let known: BTreeSet<&String> = records.iter().flat_map(|record| record.labels.keys()).collect();
    Err(DataError::UnknownAnnotator {
        annotator: name.to_owned(),
        known: known.into_iter().cloned().collect(),
    })
}

fn majority(record: &PreferenceRecord, voters: &BTreeSet<String>) -> Option<Label> {
    let mut votes: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    for (annotator, label) in &record.labels {
        if voters.is_empty() || voters.contains(annotator) {
            let choice = match *label {
                Label::Prefers(index) => Some(index),
                Label::Tie => None,
            };
            *votes.entry(choice).or_default() += 1;
        }
    }
    let most = votes.values().copied().max()?;
    let mut leaders = votes.into_iter().filter(|&(_, votes)| votes == most).map(|(choice, _)| choice);
    match (leaders.next(), leaders.next()) {
        (Some(Some(index)), None) => Some(Label::Prefers(index)),
        _ => Some(Label::Tie),
    }
}

/// Returns each record's annotator and label; none where an annotator of the mixture did not label it.
fn mixed(
    records: &[PreferenceRecord],
    mixture: &Mixture,
    seeds: &Seeds,
) -> Result<Vec<Option<(String, Label)>>, DataError> {
    let mut ends = Vec::with_capacity(mixture.0.len());
    let mut end = 0.0;
    for (name, share) in &mixture.0 {
        end += share;
        ends.push((known_as(records, name)?, end));
    }
    let by_all = |record: &PreferenceRecord| ends.iter().all(|(name, _)| record.labels.contains_key(name));
    let eligible: Vec<usize> = (0..records.len()).filter(|&index| by_all(&records[index])).collect();
    let mut labelled = vec![None; records.len()];
    for (rank, place) in permutation(eligible.len(), seeds.stream("mixture")).into_iter().enumerate() {
        let of_rank = ends.iter().find(|(_, end)| rank < share(*end, eligible.len())).or(ends.last());
        let record = &records[eligible[place]];
        labelled[eligible[place]] =
            of_rank.and_then(|(name, _)| Some((name.clone(), *record.labels.get(name)?)));
    }
    Ok(labelled)
}

fn pairs_of<'a>(
    record: &'a PreferenceRecord,
    best: usize,
    annotator: &'a str,
) -> impl Iterator<Item = Pair> + 'a {
    let several = record.responses.len() > 2;
    let votes = |index: usize| {
        let votes = record.labels.values().filter(|label| **label == Label::Prefers(index)).count();
        u32::try_from(votes).unwrap_or(u32::MAX)
    };
    record.responses.iter().enumerate().filter(move |&(index, _)| index != best).map(
        move |(index, rejected)| Pair {
            id: if several { format!("{}#{index}", record.id) } else { record.id.clone() },
            prompt: record.prompt.clone(),
            chosen: record.responses[best].clone(),
            rejected: rejected.clone(),
            domain: record.domain.clone(),
            context: record.context.clone(),
            annotator: annotator.to_owned(),
            votes: Votes { chosen: votes(best), rejected: votes(index) },
            flipped: false,
        },
    )
}

#[cfg(test)]
pub(crate) mod tests;
