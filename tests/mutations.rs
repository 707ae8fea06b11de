//! Mutated seeds of the fuzz targets: no input panics.
//!
//! This is a small part of what `cargo xtask fuzz` does, with a stable compiler. `MUTATIONS=20000` asks for more of them.

#[expect(unreachable_pub, reason = "the package fuzz exports them")]
#[path = "../fuzz/src/targets.rs"]
mod targets;
#[expect(unreachable_pub, reason = "the package fuzz exports them")]
#[path = "../fuzz/src/torch_targets.rs"]
mod torch_targets;

use std::fs;
use std::path::Path;
use std::{env, panic};

use rand::RngExt as _;
use seeds::Seeds;

type Target = fn(&[u8]);

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Each target with its name and the folders of its seeds.
const TARGETS: [(&str, Target, &[&str]); 12] = [
    ("arrow", targets::arrow, &["crates/pref-data/tests/fixtures/kinds"]),
    ("checksums", targets::checksums, &["fuzz/seeds/checksums"]),
    ("fastchat", targets::fastchat, &["fuzz/seeds/fastchat"]),
    ("ledger", targets::ledger, &["fuzz/seeds/ledger"]),
    ("parquet", targets::parquet, &["crates/pref-data/tests/fixtures/parquet", "fuzz/seeds/parquet"]),
    ("recipe", torch_targets::recipe, &["fuzz/seeds/recipe"]),
    ("rows", targets::rows, &["fuzz/seeds/rows"]),
    ("safetensors", torch_targets::safetensors, &["fuzz/seeds/safetensors"]),
    ("template", targets::template, &["fuzz/seeds/template"]),
    ("tokenizer_config", targets::tokenizer_config, &["fuzz/seeds/tokenizer_config"]),
    ("tokenizer_json", targets::tokenizer_json, &["fuzz/seeds/tokenizer_json"]),
    ("verdict", targets::verdict, &["fuzz/seeds/verdict"]),
];

/// Bytes that mean something in one of the formats.
const TELLING: [&str; 16] = [
    "\"",
    "{",
    "}",
    "[[",
    "]]",
    "null",
    "-1",
    "1e999",
    "18446744073709551616",
    "\n",
    "\u{feff}",
    "\\ud800",
    "{%",
    "%}",
    "\0",
    "'",
];

fn seeds_of(folders: &[&str]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for folder in folders {
        let mut paths: Vec<_> =
            fs::read_dir(Path::new(ROOT).join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        found.extend(paths.iter().map(|path| fs::read(path).unwrap()));
    }
    found
}

/// Changes some bytes: flips, cuts, copies, and pieces that mean something.
fn mutate(bytes: &mut Vec<u8>, rng: &mut impl rand::Rng) {
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = (rng.next_u32() & 0xff) as u8,
            2 => bytes.truncate(at),
            3 => {
                let piece = TELLING[rng.random_range(0..TELLING.len())];
                bytes.splice(at..at, piece.bytes());
            }
            4 => {
                let end = bytes.len().min(at + rng.random_range(0..32));
                let piece = bytes[at..end].to_vec();
                let to = rng.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => drop(bytes.drain(at..bytes.len().min(at + 8))),
        }
    }
}

#[test]
fn no_mutated_seed_panics() {
    let count: usize = env::var("MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let chosen = env::var("TARGET").ok();
    for (name, target, folders) in TARGETS {
        if chosen.as_ref().is_some_and(|chosen| chosen != name) {
            continue;
        }
        let mut rng = Seeds::new(7).stream(name);
        let seeds = seeds_of(folders);
        assert!(!seeds.is_empty(), "{name} has no seed");
        let unchanged = seeds.iter().cloned();
        let mutated = (0..count).map(|number| {
            let mut bytes = seeds[number % seeds.len()].clone();
            mutate(&mut bytes, &mut rng);
            bytes
        });
        for bytes in unchanged.chain(mutated) {
            if panic::catch_unwind(|| target(&bytes)).is_err() {
                panic!("{name} panics on {:?}", String::from_utf8_lossy(&bytes));
            }
        }
    }
}
