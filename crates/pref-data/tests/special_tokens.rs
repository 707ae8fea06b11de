//! Special tokens and stop tokens of folders, as transformers reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pref_data::{DataError, Tokenizer};
use serde::Deserialize;
use serde_json::Value;

/// The recording of `fixtures/special_tokens.py`.
#[derive(Deserialize)]
struct Recording {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    padding: Value,
    files: BTreeMap<String, Value>,
    special: BTreeMap<String, (Option<String>, Option<u32>)>,
    eos_ids: Vec<u32>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(name)).unwrap()).unwrap()
}

/// Writes the folder of a case, and reads its tokenizer.
fn open(case: &Case) -> Result<Tokenizer, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let mut tokenizer = read("tiny/tokenizer.json");
    tokenizer["padding"] = case.padding.clone();
    for (name, value) in
        [("tokenizer.json", &tokenizer)].into_iter().chain(case.files.iter().map(|(n, v)| (n.as_str(), v)))
    {
        fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    Tokenizer::from_folder(folder.path())
}

#[test]
fn special_tokens_and_stop_tokens_are_those_of_transformers() {
    let recording: Recording = serde_json::from_value(read("special_tokens.json")).unwrap();
    assert!(recording.cases.len() > 15);
    for case in &recording.cases {
        let tokenizer = open(case).unwrap();
        let (eos, eos_id) = &case.special["eos_token"];
        assert_eq!(tokenizer.bos_id(), case.special["bos_token"].1, "{}", case.name);
        assert_eq!((tokenizer.eos_token(), tokenizer.eos_id()), (eos.as_deref(), *eos_id), "{}", case.name);
        // TRL pads with the end of a sequence if there is no padding.
        let pad = case.special["pad_token"].1.or(*eos_id).unwrap_or(0);
        assert_eq!(tokenizer.pad_id(), pad, "{}", case.name);
        // The tokenizer's end is added, and announced.
        let added = eos_id.filter(|id| !case.eos_ids.contains(id));
        let stops: Vec<u32> = case.eos_ids.iter().copied().chain(added).collect();
        assert_eq!(tokenizer.stop_tokens(), stops, "{}", case.name);
    }
}

#[test]
fn an_unknown_token_names_its_file() {
    let mut recording: Recording = serde_json::from_value(read("special_tokens.json")).unwrap();
    let mut case = recording.cases.swap_remove(1);
    case.files.get_mut("special_tokens_map.json").unwrap()["eos_token"] = "<end>".into();
    let error = open(&case).err().unwrap().to_string();
    assert!(error.contains("special_tokens_map.json: eos_token is \"<end>\""), "{error}");
}

#[test]
fn a_folder_without_a_tokenizer_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = || Tokenizer::from_folder(folder.path()).err().unwrap().to_string();
    assert!(error().ends_with("has no tokenizer.json; copy the tokenizer's files from the folder of the model that this one comes from"));
    fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
    assert!(error().ends_with("copy the tokenizer's files from the folder of the base model"), "{}", error());
    fs::write(folder.path().join("tokenizer.model"), "").unwrap();
    assert!(error().contains("make it: python -c \"from transformers import AutoTokenizer"), "{}", error());
}
