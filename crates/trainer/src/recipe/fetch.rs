//! Recipes with models and data on the Hugging Face Hub.

use std::path::Path;

use hub::{Hub, HubError, RepoId, RepoKind};

use super::{DataSection, ModelSection, Recipe};

impl Recipe {
    /// Downloads what ids (`owner/name@revision:file`) refer to and replaces the ids by local paths. An existing path
    /// is not an id. The new path contains the commit, so that the resolved recipe is pinned.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn fetch(&mut self, hub: &Hub) -> Result<(), HubError> {
        self.model.fetch(hub)?;
        self.lora.init.as_mut().map_or(Ok(()), |folder| local(hub, RepoKind::Model, folder))?;
        self.data.iter_mut().try_for_each(|source| source.fetch(hub))
    }
}

impl ModelSection {
    /// Like [`Recipe::fetch`], for the policy and its reference.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn fetch(&mut self, hub: &Hub) -> Result<(), HubError> {
        local(hub, RepoKind::Model, &mut self.path)?;
        self.reference.as_mut().map_or(Ok(()), |reference| local(hub, RepoKind::Model, reference))
    }
}

impl DataSection {
    /// Like [`Recipe::fetch`], for the preference data.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn fetch(&mut self, hub: &Hub) -> Result<(), HubError> {
        local(hub, RepoKind::Dataset, &mut self.path)?;
        self.eval_path.as_mut().map_or(Ok(()), |path| local(hub, RepoKind::Dataset, path))
    }
}

fn local(hub: &Hub, kind: RepoKind, path: &mut String) -> Result<(), HubError> {
    if Path::new(path.as_str()).exists() {
        return Ok(());
    }
    if let Some(repo) = RepoId::parse(kind, path) {
        *path = hub.fetch(&repo)?.display().to_string();
    }
    Ok(())
}
