//! The question manifest of an output folder: the recipes of its questions.
//!
//! `questions/NAME.toml` is the recipe of a finished question, `questions/NAME.begun.toml` that of an unfinished one.
//! Report and `results.parquet` are always made from the store for all finished questions, so that their bytes do not
//! depend on the order of runs.

use std::fs;
use std::path::{Path, PathBuf};

use experiment::{Collected, ExperimentError};

use crate::error::StudyError;
use crate::question::{Question, Questions};
use crate::recipe::StudyRecipe;
use crate::study::Study;

/// Records that `question` is finished under `recipe` in the folder `output`.
pub(crate) fn record(output: &Path, question: &dyn Question, recipe: &StudyRecipe) -> Result<(), StudyError> {
    write(&file(output, question), recipe)?;
    let begun = begun_file(output, question);
    match fs::remove_file(&begun) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ExperimentError::io("cannot remove", begun)(error).into())
        }
        _ => Ok(()),
    }
}

/// Records that `question` is started under `recipe`.
pub(crate) fn begin(output: &Path, question: &dyn Question, recipe: &StudyRecipe) -> Result<(), StudyError> {
    write(&begun_file(output, question), recipe)
}

/// Reads the recipes of the started and finished questions in the folder `output`, each with its question's index.
pub(crate) fn begun(output: &Path, questions: Questions) -> Result<Vec<(usize, StudyRecipe)>, StudyError> {
    let mut all = Vec::new();
    for (at, &question) in questions.iter().enumerate() {
        for path in [file(output, question), begun_file(output, question)] {
            if path.exists() {
                let mut recipe = StudyRecipe::load(&path, &[])?;
                // The folder may have moved.
                recipe.output.dir = output.to_owned();
                all.push((at, recipe));
            }
        }
    }
    Ok(all)
}

/// Reads the results of a finished question in `study`'s folder; `None` if it is not finished, or belongs to another study.
pub(crate) fn answered(
    study: &Study,
    question: &dyn Question,
) -> Result<Option<(Study, Collected)>, StudyError> {
    let output = study.runner().output();
    let path = file(&output, question);
    if !path.exists() {
        return Ok(None);
    }
    let leave_out = |why: String| {
        let name = question.about().name;
        tracing::warn!(
            "the report leaves out the earlier results of {name}: {why}; run {name} again to include it"
        );
        Ok(None)
    };
    let mut recipe = match StudyRecipe::load(&path, &[]) {
        Ok(recipe) => recipe,
        Err(error) => return leave_out(error.to_string()),
    };
    if let Some(difference) = study.recipe().difference(&recipe) {
        return leave_out(format!("it belongs to another study ({difference})"));
    }
    // The folder may have moved.
    recipe.output.dir = output;
    let earlier = Study::new(recipe, study.questions())?;
    match earlier.stored(question)? {
        Some(collected) => Ok(Some((earlier, collected))),
        None => leave_out("its results are not in the store".to_owned()),
    }
}

fn write(path: &Path, recipe: &StudyRecipe) -> Result<(), StudyError> {
    let written = files::write(path, trainer::recipe::to_toml(recipe).as_bytes());
    Ok(written.map_err(ExperimentError::io("cannot write", path))?)
}

fn begun_file(output: &Path, question: &dyn Question) -> PathBuf {
    file(output, question).with_extension("begun.toml")
}

fn file(output: &Path, question: &dyn Question) -> PathBuf {
    output.join("questions").join(format!("{}.toml", question.about().name))
}
