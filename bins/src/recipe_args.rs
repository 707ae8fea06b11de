//! The arguments that choose a study's recipe.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use hub::Hub;
use study::recipe::{Preset, StudyRecipe};

/// The recipe and the folder of a study.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// A built-in recipe
    #[arg(long, value_name = "NAME", value_parser = preset(), conflicts_with = "recipe")]
    preset: Option<Preset>,
    /// A recipe file
    #[arg(long, value_name = "FILE", required_unless_present = "preset")]
    recipe: Option<PathBuf>,
    /// Override one key of the recipe, such as study.seeds=4; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Number of replicates, each with its own data, labels, order, generation and judge
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Output folder; existing results in it are reused
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Reads the recipe of the arguments, and downloads what it names on the Hub.
pub(crate) fn recipe(args: &RecipeArgs) -> anyhow::Result<StudyRecipe> {
    let mut recipe = recipe_of(args)?;
    recipe.fetch(&Hub::from_environment(|name| std::env::var(name).ok()))?;
    Ok(recipe)
}

/// Reads the recipe of the arguments, with ids of the Hub in place of paths.
pub(crate) fn recipe_of(args: &RecipeArgs) -> anyhow::Result<StudyRecipe> {
    let mut overrides = args.overrides.clone();
    if let Some(seeds) = args.seeds {
        overrides.push(format!("study.seeds={seeds}"));
    }
    if let Some(out) = &args.out {
        overrides.push(format!("output.dir={}", out.display()));
    }
    Ok(match (&args.recipe, args.preset) {
        (Some(path), _) => StudyRecipe::load(path, &overrides)?,
        (None, preset) => StudyRecipe::preset(preset.unwrap_or(Preset::Sandbox), &overrides)?,
    })
}

/// Parses the name of a preset.
fn preset() -> impl TypedValueParser<Value = Preset> {
    PossibleValuesParser::new(Preset::ALL.map(Preset::name)).map(|name| {
        let found = Preset::ALL.into_iter().find(|preset| preset.name() == name);
        found.expect("the parser accepts names of presets only")
    })
}
