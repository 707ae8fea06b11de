//! Statistics of an annotator's labels: position bias, length bias, agreement with other annotators.

use std::collections::BTreeSet;

use pref_data::{AgreementMatrix, Label, PreferenceRecord, Text};
use report::table::{Align, Column, Table, Value};
use serde::{Deserialize, Serialize};

use crate::proportion::Proportion;
use crate::run::Annotation;
use crate::verdict::Verdict;

/// Statistics of one annotator's labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnotatorStatistics {
    /// The annotator.
    pub annotator: String,
    /// Records with a label.
    pub labels: u64,
    /// Ties among them.
    pub ties: u64,
    /// Decided labels of pairs that prefer the first response.
    pub prefers_first: Proportion,
    /// Decided labels of pairs with responses of different lengths that prefer the longer one, in characters.
    pub prefers_longer: Proportion,
}

/// The dependence of a model's verdicts on the order of the responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionBias {
    /// Decided answers that prefer the response shown first. Half is no bias, since each pair is shown in both orders.
    pub first: Proportion,
    /// Records whose two answers have the same verdict.
    pub consistent: Proportion,
    /// Answers without a verdict.
    pub unreadable: u64,
}

impl AnnotatorStatistics {
    /// Returns the statistics of each annotator of the records, by name.
    pub fn of(records: &[PreferenceRecord]) -> Vec<Self> {
        let names: BTreeSet<&String> = records.iter().flat_map(|record| record.labels.keys()).collect();
        names.into_iter().map(|name| Self::of_one(records, name)).collect()
    }

    fn of_one(records: &[PreferenceRecord], annotator: &str) -> Self {
        let mut statistics = Self {
            annotator: annotator.to_owned(),
            labels: 0,
            ties: 0,
            prefers_first: Proportion::default(),
            prefers_longer: Proportion::default(),
        };
        for record in records {
            let Some(label) = record.labels.get(annotator) else { continue };
            statistics.labels += 1;
            let (&Label::Prefers(best), [first, second]) = (label, &record.responses[..]) else {
                statistics.ties += u64::from(*label == Label::Tie);
                continue;
            };
            statistics.prefers_first.add(best == 0);
            let lengths = [first, second].map(characters);
            if lengths[0] != lengths[1] {
                statistics.prefers_longer.add((lengths[0] > lengths[1]) == (best == 0));
            }
        }
        statistics
    }
}

impl PositionBias {
    /// Computes the position bias of a log.
    pub fn of(annotations: &[Annotation]) -> Self {
        let mut bias = Self::default();
        for annotation in annotations {
            let games = &annotation.judgement.games;
            for game in games {
                match game.verdict {
                    Some(Verdict::Tie) => {}
                    Some(verdict) => bias.first.add(verdict == Verdict::First),
                    None => bias.unreadable += u64::from(!game.is_read()),
                }
            }
            if let [Some(one), Some(other)] = games.iter().map(|game| game.verdict).collect::<Vec<_>>()[..] {
                bias.consistent.add(one == other.swapped());
            }
        }
        bias
    }
}

/// Returns a table of the biases of all annotators, one row each. `position` adds the position bias of a model with a log.
pub fn bias_table(statistics: &[AnnotatorStatistics], position: Option<(&str, PositionBias)>) -> Table {
    let headers = [
        "Labels",
        "Ties",
        "Prefers the first, %",
        "Prefers the longer, %",
        "Shown first, %",
        "Consistent, %",
    ];
    let mut columns = vec![Column::new("Annotator", Align::Left)];
    columns.extend(headers.map(|header| Column::new(header, Align::Right)));
    let rows = statistics.iter().map(|one| {
        let of_model = position.filter(|(name, _)| *name == one.annotator).map(|(_, bias)| bias);
        let game = |share: fn(PositionBias) -> Proportion| {
            of_model.map_or_else(|| Value::missing("no log"), |bias| share(bias).cell())
        };
        vec![
            Value::text(&one.annotator),
            Value::Count(one.labels),
            Value::Count(one.ties),
            one.prefers_first.cell(),
            one.prefers_longer.cell(),
            game(|bias| bias.first),
            game(|bias| bias.consistent),
        ]
    });
    let mut notes = vec![
        "Intervals are 95% Wilson intervals. \"Shown first\" is the percentage of decided answers that prefer the \
         response shown first, in either order: 50 is no bias."
            .to_owned(),
    ];
    if let Some((name, bias)) = position
        && bias.unreadable > 0
    {
        notes.push(format!("{} answers of {name} have no verdict.", bias.unreadable));
    }
    Table {
        id: "annotators".to_owned(),
        title: "Annotator biases".to_owned(),
        columns,
        rows: rows.collect(),
        notes,
    }
}

/// Returns a table of the agreement of `annotator` with each other annotator.
pub fn agreement_table(matrix: &AgreementMatrix, annotator: &str) -> Table {
    let others = matrix.annotators.iter().filter(|name| *name != annotator);
    let rows = others.map(|other| {
        let Some(agreement) = matrix.between(annotator, other) else {
            let none = || Value::missing("no record has both labels");
            return vec![Value::text(other), Value::Count(0), none(), none()];
        };
        let kappa = agreement.kappa.value();
        vec![
            Value::text(other),
            Value::Count(agreement.items as u64),
            Value::Number { value: 100.0 * agreement.observed, decimals: 1 },
            kappa.map_or_else(
                || Value::missing("all labels are the same"),
                |value| Value::Number { value, decimals: 3 },
            ),
        ]
    });
    let headers = ["Records", "Same label, %", "Kappa"];
    let mut columns = vec![Column::new("With", Align::Left)];
    columns.extend(headers.map(|header| Column::new(header, Align::Right)));
    Table {
        id: "agreement".to_owned(),
        title: format!("Agreement of {annotator} with the others"),
        columns,
        rows: rows.collect(),
        notes: vec!["Kappa is Fleiss' kappa for two raters (Scott's pi).".to_owned()],
    }
}

fn characters(text: &Text) -> usize {
    match text {
        Text::Plain(text) => text.chars().count(),
        Text::Chat(messages) => messages.iter().map(|message| message.content().chars().count()).sum(),
    }
}
