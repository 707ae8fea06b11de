//! The model of all ranks.

use std::path::Path;

use distributed::Fact;
use policy_model::model_folders;
use trainer::TrainError;

/// Returns a fact about the model in `folder`, for the comparison of ranks.
///
/// # Errors
///
/// If its files, or those of its base model, cannot be read.
pub fn model_fact(folder: &Path, remedy: &'static str) -> Result<Fact, TrainError> {
    Ok(Fact::of_model(&model_folders(folder)?, remedy)?)
}
