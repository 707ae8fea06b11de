//! What the ranks of a group agree on after each subject: that it is done, or why it failed.

use serde::{Deserialize, Serialize};
use trainer::Context;

use super::failures::with_causes;
use crate::cell::Subject;
use crate::error::ExperimentError;

/// The stage at which a subject failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    Training,
    Evaluation,
}

/// An error with the stage at which it occurred.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) stage: Stage,
    pub(super) error: ExperimentError,
}

/// A failure of one rank, as all ranks see it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) stage: Stage,
    pub(super) reason: String,
    scope: Scope,
}

/// What a failure affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Scope {
    /// One trained policy.
    Policy,
    /// All policies.
    Study,
    /// This rank, because another one failed.
    AnotherRank,
}

impl Report {
    fn of(Failed { stage, error }: &Failed, subject: &Subject) -> Self {
        let scope = match (error, subject) {
            (error, _) if error.is_from_another_rank() => Scope::AnotherRank,
            // The supervised policy is part of every result.
            (error, Subject::Trained { .. }) if error.is_of_one_policy() => Scope::Policy,
            _ => Scope::Study,
        };
        Self { stage: *stage, reason: with_causes(error), scope }
    }
}

/// Returns the failure of `subject` alone that the ranks agree on; `None` if no rank failed.
///
/// An error ends the exchanges of a group, so that the ranks join a new one, which `context` then has.
///
/// # Errors
///
/// The error of this rank, if it or another rank's affects more than one policy; if a rank has died.
pub(super) fn agree(
    made: Result<(), Failed>,
    subject: &Subject,
    context: &mut Context<'_>,
) -> Result<Option<Report>, ExperimentError> {
    let made = match made {
        Err(Failed { error, .. }) if matches!(error, ExperimentError::Stopped) || error.is_lost_rank() => {
            return Err(error);
        }
        made => made,
    };
    let own = made.as_ref().err().map(|failed| Report::of(failed, subject));
    let sent = serde_json::to_vec(&own).expect("a report has string field names");
    let gathered = match &made {
        Ok(()) => match context.group.all_gather_bytes(sent.clone()) {
            Err(error) if error.is_lost_rank() => return Err(error.into()),
            gathered => gathered.ok(),
        },
        Err(Failed { error, .. }) => {
            context.group.abort(error);
            None
        }
    };
    let gathered = match gathered {
        Some(reports) => reports,
        None => {
            context.group = context.group.renewed()?;
            context.group.all_gather_bytes(sent)?
        }
    };
    let mut reports = Vec::new();
    for report in &gathered {
        let report: Option<Report> = serde_json::from_slice(report).map_err(|error| {
            ExperimentError::AnotherRank { reason: format!("its report cannot be read: {error}") }
        })?;
        reports.extend(report);
    }
    conclude(made, reports)
}

/// Returns the first failure with a cause of its own, or an error if more than one policy is affected.
fn conclude(made: Result<(), Failed>, reports: Vec<Report>) -> Result<Option<Report>, ExperimentError> {
    let affects_all = |report: &Report| report.scope == Scope::Study;
    let fatal = reports.iter().position(affects_all);
    let cause = fatal.or_else(|| reports.iter().position(|report| report.scope == Scope::Policy));
    let cause = cause.or((!reports.is_empty()).then_some(0));
    let Some(report) = cause.and_then(|cause| reports.into_iter().nth(cause)) else { return Ok(None) };
    match (report.scope, made) {
        (Scope::Policy, _) => Ok(Some(report)),
        (_, Err(failed)) => Err(failed.error),
        (_, Ok(())) => Err(ExperimentError::AnotherRank { reason: report.reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(scope: Scope) -> Report {
        Report { stage: Stage::Training, reason: format!("{scope:?}"), scope }
    }

    fn failed() -> Result<(), Failed> {
        Err(Failed { stage: Stage::Training, error: ExperimentError::AnotherRank { reason: "x".into() } })
    }

    #[test]
    fn the_rank_with_a_cause_of_its_own_determines_the_outcome() {
        assert!(conclude(Ok(()), Vec::new()).unwrap().is_none());
        let of_policy = conclude(failed(), vec![report(Scope::AnotherRank), report(Scope::Policy)]);
        assert_eq!(of_policy.unwrap().unwrap().reason, "Policy");
        let of_study = conclude(Ok(()), vec![report(Scope::Policy), report(Scope::Study)]);
        assert!(matches!(of_study, Err(ExperimentError::AnotherRank { reason }) if reason == "Study"));
        assert!(conclude(failed(), vec![report(Scope::AnotherRank)]).is_err());
    }
}
