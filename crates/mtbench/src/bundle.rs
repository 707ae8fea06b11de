//! Bundles: the questions, answers and judgments of one judge in a folder with digests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::bench_dir::BenchDir;
use crate::error::Error;
use crate::question_id::question_label;

/// The name of a bundle's description.
const DESCRIPTION: &str = "bundle.json";

/// The version of the layout.
const VERSION: u32 = 1;

/// A description of a bundle: its `bundle.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The version of the layout.
    pub version: u32,
    /// The judge.
    pub judge: String,
    /// The judged models.
    pub models: Vec<String>,
    /// The number of questions.
    pub questions: usize,
    /// The number of judgments of single answers.
    pub judgments: usize,
    /// The number of comparisons.
    pub comparisons: usize,
}

/// What an import adds to a benchmark's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The bundle.
    pub bundle: Bundle,
    /// Models whose answers were not there.
    pub new_models: usize,
    /// Judgments and comparisons that were not there.
    pub new_judgments: usize,
}

/// Writes the questions, the answers of `models`, and all judgments of them by `judge` into the new folder `folder`.
///
/// The folder has the layout of a benchmark, so that its judgments can be shown, compared and repeated in place. Its file
/// `checksums.b3` has the digest of each file. The write is atomic.
///
/// # Errors
///
/// [`Error::Bundle`] if `folder` exists or there is nothing to export; those of [`BenchDir`].
pub fn export_bundle(
    bench: &BenchDir,
    judge: &str,
    models: &[String],
    folder: &Path,
) -> Result<Bundle, Error> {
    if folder.exists() {
        return Err(problem(folder, "it exists; name a new folder"));
    }
    let has = |model: &String| models.contains(model);
    let singles: Vec<_> = bench.judgments_on_file(judge)?.into_iter().filter(|row| has(&row.model)).collect();
    let pairs: Vec<_> = bench
        .pair_judgments_on_file(judge)?
        .into_iter()
        .filter(|row| has(&row.model_1) && has(&row.model_2))
        .collect();
    if singles.is_empty() && pairs.is_empty() {
        return Err(problem(folder, &format!("{judge} has judged none of the models; judge them first")));
    }
    let (questions, references) = (bench.questions()?, bench.references_on_file(judge)?);
    let answers = models.iter().map(|model| bench.answers(model)).collect::<Result<Vec<_>, _>>()?;
    let bundle = Bundle {
        version: VERSION,
        judge: judge.to_owned(),
        models: models.to_vec(),
        questions: questions.len(),
        judgments: singles.len(),
        comparisons: pairs.len(),
    };
    files::create_dir(folder, |partial| {
        let copy = BenchDir::new(partial);
        copy.write_questions(&questions)?;
        for (model, answers) in models.iter().zip(&answers) {
            copy.write_answers(model, answers)?;
        }
        if !references.is_empty() {
            copy.write_references(judge, &references)?;
        }
        if !singles.is_empty() {
            copy.write_judgments(judge, &singles)?;
        }
        if !pairs.is_empty() {
            copy.write_pair_judgments(judge, &pairs)?;
        }
        let json = serde_json::to_string_pretty(&bundle).expect("a description has string keys");
        let path = partial.join(DESCRIPTION);
        fs::write(&path, json + "\n").map_err(|source| Failure(Error::Write { path, source }))?;
        Ok(bundle)
    })
    .map_err(|Failure(error)| error)
}

/// An error of filling a folder.
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(source: std::io::Error) -> Self {
        Self(Error::Write { path: DESCRIPTION.into(), source })
    }
}

/// Adds a bundle to the benchmark's folder `bench`, after a comparison with its digests.
///
/// Rows that are there already are kept. Nothing is written if the bundle is damaged or contradicts the folder.
///
/// # Errors
///
/// [`Error::Bundle`] for a folder that is no bundle, is damaged, or has other questions, answers or references than `bench`;
/// those of [`BenchDir`].
pub fn import_bundle(folder: &Path, bench: &BenchDir) -> Result<Imported, Error> {
    let bundle = read_bundle(folder)?;
    let source = BenchDir::new(folder);
    let judge = bundle.judge.as_str();
    let questions = source.questions()?;
    let found = (
        questions.len(),
        source.judgments_on_file(judge)?.len(),
        source.pair_judgments_on_file(judge)?.len(),
    );
    if found != (bundle.questions, bundle.judgments, bundle.comparisons) {
        return Err(problem(folder, &format!("{DESCRIPTION} describes other files; get the bundle again")));
    }
    let known = crate::rows::if_present(bench.questions())?;
    for question in &questions {
        let other = known.iter().find(|other| other.question_id == question.question_id);
        if other.is_some_and(|other| other != question) {
            let label = question_label(question.question_id);
            return Err(problem(folder, &format!("question {label} is another one in {}", shown(bench))));
        }
    }
    let mut new_answers = Vec::new();
    for model in &bundle.models {
        let (theirs, ours) = (source.answers(model)?, bench.answers_on_file(model)?);
        if ours.is_empty() {
            new_answers.push((model, theirs));
        } else if texts(&theirs) != texts(&ours) {
            let problem_text =
                format!("{model} has other answers in {}; give it another name there", shown(bench));
            return Err(problem(folder, &problem_text));
        }
    }
    let (references, ours) = (source.references_on_file(judge)?, bench.references_on_file(judge)?);
    if !ours.is_empty() && !references.is_empty() && texts(&references) != texts(&ours) {
        return Err(problem(folder, &format!("{judge} has other reference answers in {}", shown(bench))));
    }
    let new_models = new_answers.len();
    if known.is_empty() {
        bench.write_questions(&questions)?;
    } else {
        let is_new = |id: u64| known.iter().all(|other| other.question_id != id);
        let more: Vec<_> = questions.into_iter().filter(|question| is_new(question.question_id)).collect();
        if !more.is_empty() {
            bench.write_questions(&[known, more].concat())?;
        }
    }
    for (model, answers) in new_answers {
        bench.write_answers(model, &answers)?;
    }
    if ours.is_empty() && !references.is_empty() {
        bench.write_references(judge, &references)?;
    }
    let new_judgments = add_judgments(&source, bench, judge)?;
    Ok(Imported { bundle, new_models, new_judgments })
}

/// Adds judgments that are not on file, and returns their number. Judgments on file stay.
fn add_judgments(source: &BenchDir, bench: &BenchDir, judge: &str) -> Result<usize, Error> {
    let known: BTreeSet<_> = bench.judgments_on_file(judge)?.iter().map(|row| row.key()).collect();
    let singles: Vec<_> =
        source.judgments_on_file(judge)?.into_iter().filter(|row| !known.contains(&row.key())).collect();
    let known: BTreeSet<_> = bench.pair_judgments_on_file(judge)?.iter().map(|row| row.key()).collect();
    let pairs: Vec<_> =
        source.pair_judgments_on_file(judge)?.into_iter().filter(|row| !known.contains(&row.key())).collect();
    let added = singles.len() + pairs.len();
    if !singles.is_empty() {
        bench.add_judgments(judge, singles)?;
    }
    if !pairs.is_empty() {
        bench.add_pair_judgments(judge, pairs)?;
    }
    Ok(added)
}

/// Reads a bundle's description, after a comparison of all files with their digests.
///
/// # Errors
///
/// [`Error::Bundle`] for a folder that is no bundle, or is damaged.
pub fn read_bundle(folder: &Path) -> Result<Bundle, Error> {
    let digests = folder.join("checksums.b3");
    if !digests.exists() {
        return Err(problem(folder, "it has no checksums.b3; it is no bundle of `mtbench export`"));
    }
    let verified = files::verify(folder).map_err(|source| Error::Read { path: folder.to_owned(), source })?;
    if let Some(damage) = verified.damaged.first() {
        return Err(problem(folder, &format!("{damage}; get the bundle again")));
    }
    if let Some(path) = verified.unchecked.first() {
        return Err(problem(folder, &format!("{} has no digest; remove it", path.display())));
    }
    let path = folder.join(DESCRIPTION);
    let text = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let bundle: Bundle =
        serde_json::from_slice(&text).map_err(|error| problem(folder, &format!("{DESCRIPTION}: {error}")))?;
    if bundle.version > VERSION {
        let version = bundle.version;
        return Err(problem(
            folder,
            &format!("it has version {version} of the layout; take a newer mtbench"),
        ));
    }
    Ok(bundle)
}

fn problem(folder: &Path, problem: &str) -> Error {
    Error::Bundle { path: folder.to_owned(), problem: problem.to_owned() }
}

fn shown(bench: &BenchDir) -> String {
    bench.root().display().to_string()
}

/// The texts of answers by question.
fn texts(answers: &[Answer]) -> BTreeMap<u64, Vec<String>> {
    answers.iter().map(|answer| (answer.question_id, answer.turns().to_vec())).collect()
}
