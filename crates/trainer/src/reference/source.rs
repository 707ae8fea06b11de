//! The reference model that a recipe names.

use std::path::{Path, PathBuf};

use distributed::ProcessGroup;
use policy_model::{Policy, base_folder};
use tch::Kind;

use crate::error::TrainError;
use crate::gathered::load_like;
use crate::recipe::{Complaint, Origin, Recipe};

/// The values of `model.reference` that are not folders.
const BASE: &str = "base";
const ADAPTER: &str = "adapter";

/// The reference of a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReferenceSource {
    /// The policy before training, with its adapters.
    Start,
    /// The weights below the policy's adapters; all weights without adapters.
    Below,
    /// Another model's folder.
    Folder(PathBuf),
}

impl ReferenceSource {
    /// Returns the reference of a recipe.
    ///
    /// # Errors
    ///
    /// If `model.reference` names adapters, and there are none.
    pub(crate) fn of(recipe: &Recipe) -> Result<Self, TrainError> {
        let policy = recipe.policy_folder()?;
        let has_adapters = recipe.lora.init.is_some();
        let merged = if has_adapters { None } else { base_folder(&policy)? };
        let named = recipe.model.reference.as_deref();
        if let Some(word) = named.filter(|word| [BASE, ADAPTER].contains(word)) {
            let is_folder = Path::new(word).exists();
            match has_adapters || merged.is_some() {
                true if is_folder => tracing::warn!(
                    "model.reference = {word:?} names the policy's own weights; the folder of this name is \"./{word}\""
                ),
                true => {}
                false if is_folder => return Ok(Self::Folder(word.into())),
                false => {
                    let reason = format!(
                        "is {word:?}, but neither is model.path a folder of adapters nor is lora.init set; remove the key"
                    );
                    let complaint = Complaint::invalid("reference", reason).within("model");
                    return Err(complaint.at(Origin::Code).into());
                }
            }
        }
        Ok(match (named, merged) {
            (None | Some(ADAPTER), _) if has_adapters => Self::Start,
            (Some(BASE), Some(base)) => Self::Folder(base),
            (Some(BASE), None) | (None | Some(ADAPTER), _) => Self::Below,
            (Some(folder), _)
                if Path::new(folder) == policy || !has_adapters && folder == recipe.model.path =>
            {
                Self::Below
            }
            (Some(folder), _) => Self::Folder(folder.into()),
        })
    }

    /// Returns the reference for computation in `kind`, as `policy` before training shares its weights.
    pub(crate) fn load(
        &self,
        policy: &Policy,
        kind: Kind,
        group: &ProcessGroup,
    ) -> Result<Policy, TrainError> {
        match self {
            Self::Start => Ok(with_adapters_in(policy, kind)?),
            Self::Below if policy.adapters().is_none() => Ok(policy.to_kind(kind)?),
            Self::Below => Ok(policy.without_adapters()?.to_kind(kind)?),
            Self::Folder(folder) => load_like(policy, folder, kind, group),
        }
    }
}

/// Returns the policy with weights and adapters in `kind`, in which training computes both.
fn with_adapters_in(policy: &Policy, kind: Kind) -> Result<Policy, TrainError> {
    let converted = policy.to_kind(kind)?;
    let Some(adapters) = policy.adapters() else { return Ok(converted) };
    let parameters = adapters.parameters().iter().map(|(name, tensor)| (name.clone(), tensor.to_kind(kind)));
    Ok(converted.with_adapters(adapters.lora().clone(), parameters.collect())?)
}
