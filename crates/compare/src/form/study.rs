//! A study's `results.parquet`: the policies at the end of training, on the benchmark's questions.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, distinct, required, score, text};
use crate::place::Row;

/// The question set of the benchmark.
const BENCHMARK: &str = "mt-bench";

/// Share of flipped labels from which seeds vary more than on clean labels, as a study has it.
const HEAVILY_FLIPPED: f64 = 0.1;

/// The names of a study's policies.
#[derive(Debug, Default)]
pub(crate) struct Policies(BTreeMap<Policy, String>);

/// The properties of a policy, as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Policy {
    loss: String,
    annotator: String,
    slice: String,
    fraction: String,
    flip_rate: String,
    beta: String,
    others: Vec<String>,
}

/// Properties that are named only where they distinguish policies.
const OTHERS: [&str; 4] = ["label_smoothing", "logp_reduction", "learning_rate", "epochs"];

impl Policy {
    /// Returns the policy of a row; `None` before the end of training.
    pub(crate) fn of(row: &Row) -> Option<Self> {
        let cell = |column: &str| text(row, column).unwrap_or_default();
        let loss = cell("loss");
        (loss == "sft" || cell("progress") == "1").then(|| Self {
            annotator: cell("annotator"),
            slice: cell("slice"),
            fraction: cell("fraction"),
            flip_rate: cell("flip_rate"),
            beta: cell("beta"),
            others: OTHERS.map(cell).to_vec(),
            loss,
        })
    }

    /// Returns the name without β and the other properties, such as `dpo human 25% flip 5%`.
    fn name(&self) -> String {
        let percent =
            |share: &str| share.parse::<f64>().map_or(f64::NAN, |share| (1000.0 * share).round() / 10.0);
        let mut words = vec![self.loss.clone()];
        words.extend([&self.annotator, &self.slice].into_iter().filter(|word| !word.is_empty()).cloned());
        words.extend((self.fraction != "1").then(|| format!("{}%", percent(&self.fraction))));
        words.extend((self.flip_rate != "0").then(|| format!("flip {}%", percent(&self.flip_rate))));
        words.join(" ")
    }
}

impl Policies {
    /// Names policies: short where that is unique.
    pub(crate) fn new(policies: BTreeSet<Policy>) -> Self {
        let by_beta = distinct(policies.iter().cloned(), Policy::name, |policy| format!("β {}", policy.beta));
        let of_beta = |policy: &Policy| by_beta.get(policy).cloned().unwrap_or_default();
        let differs = |policy: &Policy, at: usize| {
            let alike = policies.iter().filter(|other| of_beta(other) == of_beta(policy));
            alike.map(|other| &other.others[at]).collect::<BTreeSet<_>>().len() > 1
        };
        Self(distinct(policies.iter().cloned(), of_beta, |policy| {
            let named = OTHERS.iter().zip(&policy.others).enumerate();
            let words = named
                .filter(|(at, _)| differs(policy, *at))
                .map(|(_, (name, value))| format!("{name} {value}"));
            words.collect::<Vec<_>>().join(" ")
        }))
    }
}

impl Policies {
    /// Returns the name of the policy of a row; `None` before the end of training.
    pub(crate) fn name(&self, row: &Row) -> Option<&str> {
        Policy::of(row).and_then(|policy| self.0.get(&policy)).map(String::as_str)
    }
}

pub(super) fn scores(row: &Row, policies: &Policies) -> Result<Vec<Found>, String> {
    if text(row, "question_set").as_deref() != Some(BENCHMARK) {
        return Ok(Vec::new());
    }
    let flip_rate = score(row, "flip_rate")?.unwrap_or_default();
    let Some(arm) = policies.name(row) else { return Ok(Vec::new()) };
    Ok(vec![Found {
        arm: arm.to_owned(),
        seed: text(row, "seed"),
        sample: text(row, "sample"),
        question: required(row, "question_id")?,
        turn: text(row, "turn"),
        scorer: text(row, "scorer"),
        category: text(row, "category"),
        score: score(row, "score")?,
        characters: score(row, "characters")?,
        group: Some(u64::from(flip_rate >= HEAVILY_FLIPPED)),
        ..Found::default()
    }])
}
