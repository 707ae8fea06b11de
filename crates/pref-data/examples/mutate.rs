//! Feeds damaged files to the readers and damaged templates to the renderer, and looks for panics.
//!
//! ```text
//! cargo run -p pref-data --example mutate -- SECONDS [SEED]
//! ```
//!
//! It starts from the test fixtures and changes, cuts, doubles and swaps pieces of them. A file that makes a reader panic is
//! left in the temporary folder and named. Coverage-guided fuzzing needs a nightly compiler; this needs nothing.

use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pref_data::{Format, Message, ReadOptions, RenderMode, ScoreRatio, Tokenizer, read_records_with};
use rand::{Rng, RngExt};
use seeds::Seeds;

const FORMATS: [Format; 6] = [
    Format::Pairs,
    Format::HhRlhf,
    Format::Gair,
    Format::Ultrafeedback,
    Format::Shp(ScoreRatio::PAPER),
    Format::Records,
];

#[expect(clippy::print_stdout, reason = "an example's result")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().ok_or("give the seconds that it may take")?.parse()?;
    let seed: u64 = arguments.next().map_or(Ok(0), |seed| seed.parse())?;
    let mut rng = Seeds::new(seed).stream("mutate");
    let corpus = corpus()?;
    let folder = std::env::temp_dir().join(format!("pref-data-mutate-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    // Panics are counted and named at the end; their messages would drown that.
    std::panic::set_hook(Box::new(|_| {}));
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut tried, mut found) = (0_u64, 0_u64);
    while Instant::now() < end {
        let (name, bytes) = &corpus[rng.random_range(0..corpus.len())];
        let mutated = mutate(bytes, &mut rng);
        let path = folder.join(format!("{tried}-{name}"));
        fs::write(&path, &mutated)?;
        let is_fine = catch_unwind(AssertUnwindSafe(|| feed(&path, &mut rng))).is_ok();
        tried += 1;
        if is_fine {
            fs::remove_file(&path)?;
        } else {
            found += 1;
            println!("panics: {}", path.display());
        }
    }
    println!("{tried} damaged files, {found} panics");
    if found == 0 { Ok(fs::remove_dir_all(folder)?) } else { Err("some files make a reader panic".into()) }
}

/// Files by name.
type Corpus = Vec<(String, Vec<u8>)>;

/// The fixtures: files of every kind, and templates.
fn corpus() -> Result<Corpus, Box<dyn Error>> {
    const LARGEST: usize = 200_000;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut corpus = vec![
        ("lines.jsonl".to_owned(), LINES.as_bytes().to_vec()),
        ("template.jinja".to_owned(), TEMPLATE.as_bytes().to_vec()),
    ];
    for folder in ["parquet", "kinds", "tiny"] {
        for entry in fs::read_dir(fixtures.join(folder))? {
            let path: PathBuf = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let bytes = fs::read(&path)?;
            if bytes.len() <= LARGEST && !name.ends_with(".json") {
                corpus.push((name, bytes));
            }
        }
    }
    Ok(corpus)
}

const LINES: &str = r#"{"id": "a", "prompt": "p", "responses": ["x", [{"role": "assistant", "content": "y"}]], "labels": {"human": 0, "m": "tie"}}
{"prompt": [{"role": "user", "content": "why"}], "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c", "id": 3}
{"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"}
{"query": "q", "response_1": {"content": "a"}, "response_2": {"content": "b"}, "preference_labels": {"human": "response_1"}}
{"instruction": "q", "completions": [{"response": "a", "overall_score": 1e308, "annotations": {"honesty": {"Rating": "N/A"}}}]}
"#;

const TEMPLATE: &str = "{%- for message in messages[::-1] %}{{ message.role | upper }} {{ message | tojson(indent=2) }} \
    {{ message.content.strip().split(' ')[-1] }}{% if loop.index0 > 3 %}{% break %}{% endif %}{%- endfor %}\
    {{ raise_exception('no') if false }}{% macro f(x) %}{{ f(x - 1) if x > 0 }}{% endmacro %}{{ f(3) }}{{ 7 // 2 }}";

fn mutate(bytes: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.random_range(1..6) {
        if out.is_empty() {
            break;
        }
        let at = rng.random_range(0..out.len());
        let end = (at + rng.random_range(1..64)).min(out.len());
        match rng.random_range(0..7) {
            0 => out[at] = rng.random(),
            1 => out[at] ^= 1 << rng.random_range(0..8),
            2 => drop(out.drain(at..end)),
            3 => out.truncate(at),
            4 => {
                let piece = out[at..end].to_vec();
                let to = rng.random_range(0..=out.len());
                out.splice(to..to, piece);
            }
            5 => out[at..end].fill([0x00, 0xff, 0x80, b'{', b'"'][rng.random_range(0..5)]),
            _ => {
                let piece = bytes[rng.random_range(0..bytes.len())..].iter().take(32).copied();
                out.splice(at..end, piece.collect::<Vec<u8>>());
            }
        }
    }
    out
}

/// Reads a file as each format in turn, or renders a conversation with a template.
fn feed(path: &Path, rng: &mut impl Rng) {
    if path.extension().is_some_and(|extension| extension == "jinja") {
        return render(path);
    }
    let format = FORMATS[rng.random_range(0..FORMATS.len())];
    let options = ReadOptions { skip_bad: rng.random_range(0..4), ..ReadOptions::new(format) };
    // Almost all of them are refused, which is what should happen.
    drop(read_records_with(path, &options));
}

fn render(template: &Path) {
    let Some(folder) = template.parent().map(|folder| folder.join("model")) else { return };
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    let copied = fs::create_dir_all(&folder)
        .and_then(|()| fs::copy(tiny.join("tokenizer.json"), folder.join("tokenizer.json")))
        .and_then(|_| fs::copy(template, folder.join("chat_template.jinja")));
    if copied.is_err() {
        return;
    }
    let Ok(tokenizer) = Tokenizer::from_folder(&folder) else { return };
    let messages = [Message::system(""), Message::user("why \u{1f642}?"), Message::assistant("because ")];
    for mode in [RenderMode::Complete, RenderMode::AwaitAnswer] {
        drop(tokenizer.render_chat(&messages, mode));
    }
}
