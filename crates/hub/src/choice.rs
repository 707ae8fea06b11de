//! The choice of a repository's files.

use crate::error::HubError;
use crate::repo::{RepoId, RepoKind};

/// The files of a model.
const MODEL_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

/// The endings of data files.
const DATA_ENDINGS: [&str; 7] = [".parquet", ".jsonl", ".ndjson", ".arrow", ".feather", ".csv", ".tsv"];

/// Names of JSON files that describe a dataset, or the files of a split.
const DESCRIPTIONS: [&str; 4] =
    ["dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"];

/// The files to download, and their path in the repository: a file, a pattern, or nothing for all files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) files: Vec<String>,
    pub(crate) path: String,
}

pub(crate) fn choose(repo: &RepoId, all: &[String]) -> Result<Choice, HubError> {
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    all.sort_unstable();
    if let Some(pattern) = repo.file() {
        let files = matching(&all, pattern);
        return if files.is_empty() {
            Err(HubError::NoSuchFile { repo: repo.clone(), known: data_files(&all) })
        } else {
            Ok(Choice { files, path: pattern.to_owned() })
        };
    }
    match repo.kind() {
        RepoKind::Model => {
            // Old repositories hold the same weights in other formats as well.
            let is_wanted = |file: &&str| {
                MODEL_FILES.contains(file) || (file.ends_with(".safetensors") && !file.contains('/'))
            };
            let files: Vec<String> = all.into_iter().filter(is_wanted).map(str::to_owned).collect();
            Ok(Choice { files, path: String::new() })
        }
        RepoKind::Dataset => {
            let data = data_files(&all);
            let pattern = training_pattern(&data);
            match pattern {
                Some(path) => Ok(Choice { files: matching(&all, &path), path }),
                None => Err(HubError::WhichFile { repo: repo.clone(), known: data }),
            }
        }
    }
}

fn data_files(all: &[&str]) -> Vec<String> {
    let is_data = |file: &&&str| {
        let plain = file.strip_suffix(".gz").unwrap_or(file);
        let name = plain.rsplit('/').next().unwrap_or(plain);
        DATA_ENDINGS.iter().any(|ending| plain.ends_with(ending))
            || plain.ends_with(".json") && !DESCRIPTIONS.contains(&name)
    };
    all.iter().filter(is_data).map(|file| (*file).to_owned()).collect()
}

/// The only file, or all parts of the only training split: `data/train-*.parquet`.
fn training_pattern(data: &[String]) -> Option<String> {
    if let [only] = data {
        return Some(only.clone());
    }
    let pattern = |file: &String| {
        let (folder, name) =
            file.rsplit_once('/').map_or(("", file.as_str()), |(folder, name)| (folder, name));
        let end = name.find(['-', '.'])?;
        let (split, rest) = name.split_at(end);
        let ending = rest.find('.').map(|at| &rest[at..])?;
        let separator = if folder.is_empty() { "" } else { "/" };
        // A split in parts is `train-00000-of-00002`, a whole one `train`.
        let star = if rest.starts_with('-') { "-*" } else { "" };
        (split == "train").then(|| format!("{folder}{separator}{split}{star}{ending}"))
    };
    let mut patterns: Vec<String> = data.iter().filter_map(pattern).collect();
    patterns.dedup();
    match &patterns[..] {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// The files that match a pattern: a path with `*` for any text in its last part.
fn matching(all: &[&str], pattern: &str) -> Vec<String> {
    let split = |path: &str| {
        path.rsplit_once('/').map_or((String::new(), path.to_owned()), |(a, b)| (a.to_owned(), b.to_owned()))
    };
    let (folder, name) = split(pattern);
    let fits = |file: &&&str| {
        let (its_folder, its_name) = split(file);
        its_folder == folder && fits_name(&its_name, &name)
    };
    all.iter().filter(fits).map(|file| (*file).to_owned()).collect()
}

fn fits_name(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| fits_name(&name[at..], rest))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(kind: RepoKind, id: &str, files: &[&str]) -> Result<(Vec<String>, String), String> {
        let repo = RepoId::parse(kind, id).expect("an id");
        let all: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        choose(&repo, &all).map(|choice| (choice.files, choice.path)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_training_split_is_what_a_set_without_a_file_means() {
        let set = |id: &str, files: &[&str]| chosen(RepoKind::Dataset, id, files);
        let one = set("a/b", &["README.md", "flan.jsonl"]).expect("the only file");
        assert_eq!(one, (vec!["flan.jsonl".to_owned()], "flan.jsonl".to_owned()));
        let parts = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
        let (files, path) =
            set("a/b", &["data/test-00000-of-00001.parquet", parts[0], parts[1]]).expect("a split");
        assert_eq!((files, path.as_str()), (parts.map(str::to_owned).to_vec(), "data/train-*.parquet"));
        let (_, path) = set("a/b", &["train.jsonl.gz", "test.jsonl.gz"]).expect("a split");
        assert_eq!(path, "train.jsonl.gz");
        for name in ["rows.ndjson", "rows.ndjson.gz", "rows.json", "rows.tsv", "rows.csv.gz", "rows.json.gz"]
        {
            let (_, path) =
                set("a/b", &["dataset_infos.json", "README.md", name]).expect("the only data file");
            assert_eq!(path, name);
        }
        // Two candidates: the user has to choose.
        let h4 = ["data/train_prefs-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"];
        let error = set("a/b", &h4).expect_err("two");
        assert!(error.contains("a/b:FILE") && error.contains(h4[1]), "{error}");
        let (files, path) = set("a/b:data/train_prefs-*.parquet", &h4).expect("one pattern");
        assert_eq!((files, path.as_str()), (vec![h4[0].to_owned()], "data/train_prefs-*.parquet"));
        let error = set("a/b:data/x", &h4).expect_err("none");
        assert!(error.contains("holds no such file") && error.contains(h4[0]), "{error}");
    }

    #[test]
    fn a_model_is_its_folder_without_other_formats() {
        let all = [
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "onnx/model.safetensors",
            "tokenizer.json",
        ];
        let (files, path) = chosen(RepoKind::Model, "a/b", &all).expect("a model");
        assert_eq!(
            (files, path.as_str()),
            (["config.json", "model.safetensors", "tokenizer.json"].map(str::to_owned).to_vec(), "")
        );
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (name, pattern, fits) in [
            ("train-0.parquet", "train-*.parquet", true),
            ("train-0.parquet", "*", true),
            ("train", "train*", true),
            ("train-ü", "*-*", true),
            ("train", "*-*", false),
            ("test-0.parquet", "train-*.parquet", false),
        ] {
            assert_eq!(fits_name(name, pattern), fits, "{name} {pattern}");
        }
    }
}
