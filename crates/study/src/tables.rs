//! Tables that several questions share, from evaluated subjects.

mod categories;
mod controls;
mod judges;
mod labels;
mod levels;
mod overfitting;

pub(crate) use categories::categories;
pub(crate) use controls::controls;
pub(crate) use judges::judges;
pub(crate) use labels::labels;
pub(crate) use levels::{TableText, by_level};
pub(crate) use overfitting::{Policy, overfitting, progress};

use experiment::Subject;

/// A selection of subjects with its label.
pub(crate) struct Slice<'a> {
    pub(crate) label: String,
    pub(crate) keep: Box<dyn Fn(&Subject) -> bool + 'a>,
}

impl<'a> Slice<'a> {
    pub(crate) fn new(label: impl Into<String>, keep: impl Fn(&Subject) -> bool + 'a) -> Self {
        Self { label: label.into(), keep: Box::new(keep) }
    }
}

/// Returns whether a subject is the supervised policy.
pub(crate) fn is_baseline(subject: &Subject) -> bool {
    matches!(subject, Subject::Baseline { .. })
}
