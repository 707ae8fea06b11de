//! Tokens on disk are the tokens in memory.

use std::fs;
use std::path::{Path, PathBuf};

use pref_data::{
    DataError, Pair, Preset, Text, TokenCache, TokenFile, TokenizeOptions, Tokenizer, Truncation, Votes,
    tokenize_pairs,
};

fn tiny() -> Tokenizer {
    Tokenizer::from_folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny"))
        .expect("a folder")
}

fn pairs(n: usize) -> Vec<Pair> {
    let text = |text: String| Text::Plain(text);
    let pair = |index: usize| Pair {
        id: format!("id {index} ü"),
        prompt: text(format!("What is {index}?")),
        chosen: text(" four".repeat(index + 1)),
        rejected: text(" the dog".to_owned()),
        domain: None,
        context: Default::default(),
        annotator: "human".to_owned(),
        votes: Votes::default(),
        flipped: index.is_multiple_of(3),
    };
    (0..n).map(pair).collect()
}

const OPTIONS: TokenizeOptions = TokenizeOptions::new(40);

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).expect("the cache").map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn ranges_are_those_of_the_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = TokenCache::new(folder.path().join("tokens"));
    let pairs = pairs(20);
    let (expected, report) = tokenize_pairs(&pairs, &tiny(), &OPTIONS).expect("tokenised");
    let tokens = cache.tokenize(&pairs, &tiny(), &OPTIONS).expect("tokenised");
    assert_eq!((tokens.len(), tokens.report()), (expected.len(), &report));
    for range in [0..20, 0..0, 7..13, 19..20, 20..20] {
        assert_eq!(tokens.read(range.clone()).expect("read"), expected[range]);
    }
    assert!(matches!(tokens.read(15..21), Err(DataError::TokenFile { .. })));
    assert!(cache.tokenize(&[], &tiny(), &OPTIONS).expect("nothing").is_empty());
}

#[test]
fn what_decides_the_tokens_decides_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = TokenCache::new(folder.path());
    let tokenize = |pairs: &[Pair], options: &TokenizeOptions| {
        cache.tokenize(pairs, &tiny(), options).expect("tokenised");
        files(folder.path()).len()
    };
    let shorter = TokenizeOptions { max_length: 30, ..OPTIONS };
    let old = TokenizeOptions { preset: Preset::Trl0710 { max_prompt_length: 8 }, ..OPTIONS };
    assert_eq!(tokenize(&pairs(5), &OPTIONS), 1);
    assert_eq!(tokenize(&pairs(5), &OPTIONS), 1);
    assert_eq!(tokenize(&pairs(6), &OPTIONS), 2);
    assert_eq!(tokenize(&pairs(5), &shorter), 3);
    assert_eq!(tokenize(&pairs(5), &TokenizeOptions { truncation: Truncation::KeepEnd, ..OPTIONS }), 4);
    assert_eq!(tokenize(&pairs(5), &old), 5);
    let noted = pairs(5).into_iter().map(|pair| Pair { domain: Some("x".to_owned()), ..pair });
    assert_eq!(tokenize(&noted.collect::<Vec<_>>(), &OPTIONS), 5, "a domain decides no token");
}

#[test]
fn a_damaged_file_is_an_error_and_a_damaged_cache_is_made_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    TokenCache::new(folder.path()).tokenize(&pairs(5), &tiny(), &OPTIONS).expect("tokenised");
    let path = files(folder.path()).remove(0);
    let bytes = fs::read(&path).expect("a file");
    for cut in [0, 5, 20, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).expect("written");
        assert!(matches!(TokenFile::open(&path), Err(DataError::TokenFile { .. })), "{cut}");
    }
    for at in [0, 8, 20, bytes.len() / 2, bytes.len() - 40, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        fs::write(&path, &flipped).expect("written");
        assert!(matches!(TokenFile::open(&path), Err(DataError::TokenFile { .. })), "byte {at}");
        TokenCache::new(folder.path()).tokenize(&pairs(5), &tiny(), &OPTIONS).expect("made again");
        assert_eq!(fs::read(&path).expect("a file"), bytes);
    }
}
