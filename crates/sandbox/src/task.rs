//! One question that waits for an answer: the sentence that answers it, in full, bare or wrong.

use crate::template::{self, fill};

/// What a sentence claims: the right thing or the family's one distractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Right,
    Distractor,
}

/// Whether a sentence does the second thing that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constraint {
    Met,
    Missed,
}

/// A task, resolved: its answer's two shapes, the right values and the distractor's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    full: &'static str,
    bare: &'static str,
    right: Vec<(&'static str, String)>,
    wrong: Vec<(&'static str, String)>,
}

impl Task {
    /// A task that `full` answers with its constraint met and `bare` without.
    ///
    /// The gaps of `bare` are the task's core, those of `full` alone its constraint.
    pub(crate) fn new(full: &'static str, bare: &'static str) -> Self {
        Self { full, bare, right: Vec::new(), wrong: Vec::new() }
    }

    /// States what belongs into `gap`.
    pub(crate) fn right(mut self, gap: &'static str, value: impl Into<String>) -> Self {
        self.right.push((gap, value.into()));
        self
    }

    /// States what the distractor puts into `gap`.
    pub(crate) fn wrong(mut self, gap: &'static str, value: impl Into<String>) -> Self {
        self.wrong.push((gap, value.into()));
        self
    }

    /// The answering sentence, without its full stop.
    pub(crate) fn answer(&self, content: Content, constraint: Constraint) -> String {
        let shape = match constraint {
            Constraint::Met => self.full,
            Constraint::Missed => self.bare,
        };
        let mut values = Vec::with_capacity(self.right.len() + self.wrong.len());
        if content == Content::Distractor {
            values.extend_from_slice(&self.wrong);
        }
        values.extend_from_slice(&self.right);
        fill(shape, &values)
    }

    /// What `sentence` gets right if it has one of the answer's two shapes; `None` otherwise.
    pub(crate) fn grade(&self, sentence: &str) -> Option<(Content, Constraint)> {
        let full = template::read(self.full, sentence);
        let values = full.clone().or_else(|| template::read(self.bare, sentence))?;
        let core = template::gaps(self.bare).all(|gap| self.holds(&values, gap));
        let met = full.is_some_and(|values| {
            template::gaps(self.full)
                .filter(|gap| template::gaps(self.bare).all(|core| core != *gap))
                .all(|gap| self.holds(&values, gap))
        });
        Some((
            if core { Content::Right } else { Content::Distractor },
            if met { Constraint::Met } else { Constraint::Missed },
        ))
    }

    /// Whether every value that was read for `gap` is the right one, letter case aside.
    fn holds(&self, values: &template::Values<'_>, gap: &str) -> bool {
        let right = self.right.iter().find(|(name, _)| *name == gap);
        values
            .iter()
            .filter(|(name, _)| *name == gap)
            .all(|(_, value)| right.is_some_and(|(_, right)| right.eq_ignore_ascii_case(value)))
    }
}
