//! Recipes that name models and data by their ids on the Hugging Face Hub.

use std::path::Path;

use hub::{Hub, HubError, RepoId, RepoKind};

use super::Recipe;

impl Recipe {
    /// Puts local paths in the place of ids (`owner/name@revision:file`), after bringing what they name. What exists as a
    /// path is one. A path that it puts in names the commit, so that the resolved recipe is pinned.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn fetch(&mut self, hub: &Hub) -> Result<(), HubError> {
        let reference = self.model.reference.as_mut();
        let models = [&mut self.model.path].into_iter().chain(reference).map(|path| (path, RepoKind::Model));
        for (path, kind) in models.chain([(&mut self.data.path, RepoKind::Dataset)]) {
            if Path::new(path.as_str()).exists() {
                continue;
            }
            if let Some(repo) = RepoId::parse(kind, path) {
                *path = hub.fetch(&repo)?.display().to_string();
            }
        }
        Ok(())
    }
}
