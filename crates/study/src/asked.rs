//! Which questions were answered in an output folder, and under which recipes.
//!
//! `questions/rqN.toml` holds the recipe under which a question was last answered there, `questions/rqN.begun.toml` the one
//! under which somebody began to answer it and did not come to an end yet. Report and `results.parquet`
//! are made of all of them, every time from the store: nothing that stands on the page can differ from what the store
//! holds, and no order of running the questions gives other bytes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::StudyError;
use crate::grid::Question;
use crate::recipe::StudyRecipe;
use crate::runner::{Collected, Runner};
use crate::store::write_file;

/// Notes that `question` was answered under `recipe` in the folder `output`.
pub(crate) fn record(output: &Path, question: Question, recipe: &StudyRecipe) -> Result<(), StudyError> {
    write(&file(output, question), recipe)?;
    let begun = begun_file(output, question);
    match fs::remove_file(&begun) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StudyError::io("cannot remove", begun)(error))
        }
        _ => Ok(()),
    }
}

/// Notes that somebody begins to answer `question` under `recipe`.
pub(crate) fn begin(output: &Path, question: Question, recipe: &StudyRecipe) -> Result<(), StudyError> {
    write(&begun_file(output, question), recipe)
}

/// Every recipe under which a question was answered in the folder `output`, or begun, in the order of the questions.
pub(crate) fn begun(output: &Path) -> Result<Vec<(Question, StudyRecipe)>, StudyError> {
    let mut all = Vec::new();
    for question in Question::ALL {
        for path in [file(output, question), begun_file(output, question)] {
            if path.exists() {
                let mut recipe = StudyRecipe::load(&path, &[])?;
                // The folder may have been moved since.
                recipe.output.dir = output.to_owned();
                all.push((question, recipe));
            }
        }
    }
    Ok(all)
}

/// What `question` came to when it was last answered in `runner`'s output folder; `None` where it was not, or in
/// another study, whose results do not belong beside `runner`'s.
pub(crate) fn answered(
    runner: &Runner,
    question: Question,
) -> Result<Option<(Runner, Collected)>, StudyError> {
    let path = file(&runner.output(), question);
    if !path.exists() {
        return Ok(None);
    }
    let leave_out = |why: String| {
        let name = question.name();
        tracing::warn!(
            "the report leaves out {name}, answered here earlier: {why}; run {name} again to have it"
        );
        Ok(None)
    };
    let mut recipe = match StudyRecipe::load(&path, &[]) {
        Ok(recipe) => recipe,
        Err(error) => return leave_out(error.to_string()),
    };
    if let Some(difference) = runner.recipe().difference(&recipe) {
        return leave_out(format!("it was another study ({difference})"));
    }
    // The folder may have been moved since.
    recipe.output.dir = runner.output();
    let earlier = Runner::new(recipe)?;
    match earlier.stored(&earlier.grid(&[question])?)? {
        Some(collected) => Ok(Some((earlier, collected))),
        None => leave_out("its results are no longer in the store".to_owned()),
    }
}

fn write(path: &Path, recipe: &StudyRecipe) -> Result<(), StudyError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(StudyError::io("cannot create", folder))?;
    write_file(path, trainer::recipe::to_toml(recipe).as_bytes())
}

fn begun_file(output: &Path, question: Question) -> PathBuf {
    file(output, question).with_extension("begun.toml")
}

fn file(output: &Path, question: Question) -> PathBuf {
    output.join("questions").join(format!("{}.toml", question.name()))
}
