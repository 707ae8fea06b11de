//! Writes shell completions and manual pages of all programs: `cargo run -p bins --example dist -- DIR`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum as _;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("name the folder")?;
    let (completions, pages) = (folder.join("completions"), folder.join("man"));
    for folder in [&completions, &pages] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    for command in bins::commands() {
        let name = command.get_name().to_owned();
        for shell in Shell::value_variants() {
            clap_complete::generate_to(*shell, &mut command.clone(), &name, &completions)?;
        }
        clap_mangen::generate_to(command, &pages)?;
    }
    Ok(())
}
