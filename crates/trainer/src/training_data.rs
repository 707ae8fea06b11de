//! The data of a source as records: read, and split into those for training and held-out ones.

use pref_data::{
    Preferences, ReadOptions, ReadReport, Text, hold_out, read_demonstrations, read_preferences,
    read_records_with,
};
use seeds::Seeds;

use crate::error::TrainError;
use crate::recipe::{DataSection, LossKind, Recipe};

/// What a recipe's data file holds.
pub(crate) struct TrainingData {
    /// The preferences to train on.
    pub(crate) preferences: Preferences,
    /// The records that `data.held_out` or `data.split` takes out of them.
    pub(crate) held_out: Option<Preferences>,
    pub(crate) read: ReadReport,
}

/// Reads the training data of the source with the index `at`: pairs, for KTO also unpaired preferences, and for supervised
/// training also demonstrations.
///
/// # Errors
///
/// As [`read_preferences`]; [`TrainError::PairsOnly`] for single responses and a key that only pairs have;
/// [`TrainError::NoExamples`] if all records are held out.
pub(crate) fn read_training(recipe: &Recipe, at: usize) -> Result<TrainingData, TrainError> {
    let (section, seeds) = (&recipe.data[at], recipe.seeds_of(at));
    let (path, reading, loss) = (&section.path, section.reading(&seeds), recipe.loss.kind);
    let (preferences, read) = match loss {
        LossKind::Kto => read_preferences(path, &reading)?,
        _ => read_held_out(loss, path, &reading)?,
    };
    let key_of_pairs = section.key_of_pairs(loss == LossKind::Sft);
    if let (Preferences::Unpaired(_), Some(key)) = (&preferences, key_of_pairs) {
        return Err(TrainError::PairsOnly { key, path: path.clone() });
    }
    let (preferences, held_out) = match preferences {
        Preferences::Paired(records) => {
            let (records, held_out) = split(section, records, |record| &record.prompt, &seeds)?;
            (Preferences::Paired(records), held_out.map(Preferences::Paired))
        }
        Preferences::Unpaired(records) => {
            let (records, held_out) = split(section, records, |record| &record.prompt, &seeds)?;
            (Preferences::Unpaired(records), held_out.map(Preferences::Unpaired))
        }
    };
    Ok(TrainingData { preferences, held_out, read })
}

/// Reads held-out examples: pairs, or those of supervised training.
pub(crate) fn read_held_out(
    loss: LossKind,
    path: &str,
    reading: &ReadOptions,
) -> Result<(Preferences, ReadReport), TrainError> {
    if loss != LossKind::Sft {
        let (records, read) = read_records_with(path, reading)?;
        return Ok((Preferences::Paired(records), read));
    }
    let (mut examples, read) = read_demonstrations(path, reading)?;
    if let Preferences::Unpaired(records) = &mut examples {
        let all = records.len();
        records.retain(|record| record.is_desirable);
        if records.len() < all {
            tracing::warn!("{path}: undesirable responses that are left out: {}", all - records.len());
        }
    }
    Ok((examples, read))
}

/// Takes the records of `data.held_out` or `data.split` out of all.
fn split<R>(
    section: &DataSection,
    records: Vec<R>,
    prompt: impl Fn(&R) -> &Text,
    seeds: &Seeds,
) -> Result<(Vec<R>, Option<Vec<R>>), TrainError> {
    let all = records.len();
    let Some(count) = section.held_out_records(all) else { return Ok((records, None)) };
    let (records, held_out) = hold_out(records, prompt, count, seeds);
    if records.is_empty() {
        let key = section.held_out_in_words();
        return Err(TrainError::NoExamples(format!("{key} takes all {all} records")));
    }
    Ok((records, Some(held_out)))
}
