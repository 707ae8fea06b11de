//! One task: the sentence that answers it, in full, without its constraint, or wrong.

use crate::template::{self, fill};

/// The claim of a sentence: the right value or the family's distractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Right,
    Distractor,
}

/// Whether a sentence meets the constraint.
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

    /// Sets the right value of `gap`.
    pub(crate) fn right(mut self, gap: &'static str, value: impl Into<String>) -> Self {
        self.right.push((gap, value.into()));
        self
    }

    /// Sets the distractor's value of `gap`.
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

    /// Returns the right parts of `sentence` if it has one of the answer's two forms; `None` otherwise.
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

    /// Returns whether every value of `gap` is right, ignoring case.
    fn holds(&self, values: &template::Values<'_>, gap: &str) -> bool {
        let right = self.right.iter().find(|(name, _)| *name == gap);
        values
            .iter()
            .filter(|(name, _)| *name == gap)
            .all(|(_, value)| right.is_some_and(|(_, right)| right.eq_ignore_ascii_case(value)))
    }
}
