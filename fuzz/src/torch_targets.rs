//! Targets of crates that link libtorch.

use std::fs;

use super::targets::in_folder;

/// A recipe.
pub fn recipe(bytes: &[u8]) {
    let _ = trainer::recipe::Recipe::parse("recipe.toml", &String::from_utf8_lossy(bytes), &[]);
}

/// The headers of weights, and the index of shards.
pub fn safetensors(bytes: &[u8]) {
    const LLAMA: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/policy-model/tests/fixtures/llama/config.json");
    for name in ["model.safetensors", "model.safetensors.index.json", "config.json"] {
        in_folder(|folder| {
            fs::copy(LLAMA, folder.join("config.json")).expect("a fixture");
            fs::write(folder.join(name), bytes).expect("a temporary file");
            let _ = policy_model::Policy::inspect(folder);
            let _ = policy_model::Policy::stored_kind(folder);
        });
    }
}
