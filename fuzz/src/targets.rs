//! What the fuzz targets call: each function that reads bytes from elsewhere, through its public entry.
//!
//! A target fails if the function panics, takes seconds, or needs gigabytes. Errors are the expected result.

use std::fs;
use std::path::Path;

use chat_template::{Date, Inputs, Template};
use mtbench::{Answer, Judgment, Mode, PairJudgment, Question, Verdict};
use pref_data::{Format, ReadOptions, RenderMode, ScoreRatio, Tokenizer};

/// The formats of preferences.
const FORMATS: [Format; 5] =
    [Format::Pairs, Format::HhRlhf, Format::Gair, Format::Ultrafeedback, Format::Shp(ScoreRatio::PAPER)];
/// Files of the tokenizer tests.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/pref-data/tests/fixtures/tiny");

/// A judge's text.
pub fn verdict(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for mode in [Mode::FastChat, Mode::Strict] {
        let _ = Verdict::of_single(&text, mode);
        let _ = Verdict::of_game(&text, mode);
    }
}

/// Rows of text: JSON lines, a JSON array, CSV, TSV, gzip.
pub fn rows(bytes: &[u8]) {
    read(bytes, &["rows.jsonl", "rows.json", "rows.csv", "rows.tsv"]);
}

/// Parquet files.
pub fn parquet(bytes: &[u8]) {
    read(bytes, &["rows.parquet"]);
}

/// Arrow files and streams.
pub fn arrow(bytes: &[u8]) {
    read(bytes, &["rows.arrow"]);
}

fn read(bytes: &[u8], names: &[&str]) {
    in_folder(|folder| {
        for name in names {
            let path = folder.join(name);
            fs::write(&path, bytes).expect("a temporary file");
            for format in FORMATS {
                let options = ReadOptions { skip_bad: 3, ..ReadOptions::new(format) };
                let _ = pref_data::read_records_with(&path, &options);
                let _ = pref_data::read_preferences(&path, &options);
            }
        }
    });
}

/// A chat template, rendered with two turns.
pub fn template(bytes: &[u8]) {
    let Ok(template) = Template::parse(&String::from_utf8_lossy(bytes)) else { return };
    let messages =
        serde_json::json!([{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]);
    let messages = serde_json::from_value(messages).expect("objects");
    let inputs = Inputs { messages, add_generation_prompt: true, ..Inputs::default() };
    let _ = template.render(&inputs, Date::default());
}

/// `tokenizer_config.json` next to an intact `tokenizer.json`.
pub fn tokenizer_config(bytes: &[u8]) {
    tokenizer("tokenizer_config.json", bytes);
}

/// `tokenizer.json`.
pub fn tokenizer_json(bytes: &[u8]) {
    tokenizer("tokenizer.json", bytes);
}

fn tokenizer(name: &str, bytes: &[u8]) {
    in_folder(|folder| {
        for copied in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(Path::new(TINY).join(copied), folder.join(copied)).expect("a fixture");
        }
        fs::write(folder.join(name), bytes).expect("a temporary file");
        let Ok(tokenizer) = Tokenizer::from_folder(folder) else { return };
        let ids = tokenizer.encode("What is 2 + 2? ü").unwrap_or_default();
        let _ = tokenizer.decode(&ids);
        let _ =
            tokenizer.render_chat(&[pref_data::Message::user("hello".to_owned())], RenderMode::AwaitAnswer);
    });
}

/// FastChat's files.
pub fn fastchat(bytes: &[u8]) {
    in_folder(|folder| {
        let path = folder.join("rows.jsonl");
        fs::write(&path, bytes).expect("a temporary file");
        let _ = mtbench::read_lines::<Question>(&path);
        let _ = mtbench::read_lines::<Answer>(&path);
        let _ = mtbench::read_lines::<Judgment>(&path);
        let _ = mtbench::read_lines::<PairJudgment>(&path);
    });
}

/// The ledger of paid calls.
pub fn ledger(bytes: &[u8]) {
    in_folder(|folder| {
        let path = folder.join("ledger.jsonl");
        fs::write(&path, bytes).expect("a temporary file");
        let _ = llm_client::read_ledger(&path);
    });
}

/// Manifests, checksums of lines, and files that carry their own.
pub fn checksums(bytes: &[u8]) {
    in_folder(|folder| {
        fs::write(folder.join("weights"), "w").expect("a temporary file");
        for name in ["checksums.b3", "rows.jsonl", "rows.jsonl.crc32c", "reply.json", "k.tokens"] {
            fs::write(folder.join(name), bytes).expect("a temporary file");
        }
        let _ = files::verify(folder);
        let _ = files::check_folder(folder);
        let _ = pref_data::TokenFile::open(&folder.join("k.tokens"));
    });
}

/// Calls `work` with a temporary folder.
pub fn in_folder(work: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    work(folder.path());
}
