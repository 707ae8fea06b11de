//! Decisions that all ranks of a group must make alike.

use trainer::Context;

use crate::error::ExperimentError;

/// Returns rank 0's decision on all ranks.
pub(crate) fn decide(
    context: &Context<'_>,
    decision: impl FnOnce() -> Result<bool, ExperimentError>,
) -> Result<bool, ExperimentError> {
    Ok(context.group.compute_on_rank0(|| Ok::<_, ExperimentError>(vec![u8::from(decision()?)]))? == [1])
}
