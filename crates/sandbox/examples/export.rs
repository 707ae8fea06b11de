//! Writes the world's texts as files for other tools: `cargo run -p sandbox --example export -- DIR [SEED]`.
//!
//! `tokenizer/`, `config.json`, `question.jsonl`, `further.jsonl` (MT-Bench's format), `demonstrations.jsonl` and
//! `demonstrations-strong.jsonl` (a list of messages a line), `prompts.jsonl` (`id`, `category`, `messages`).

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sandbox::{Mixture, Size};
use seeds::Seeds;
use serde::Serialize;
use serde_json::json;

const DEMONSTRATIONS: usize = 48_000;
const PROMPTS: usize = 1_500;
const FURTHER: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: export DIR [SEED]")?);
    let seeds = Seeds::new(arguments.next().map_or(Ok(0), |seed| seed.parse())?);

    let vocab_size = sandbox::write_tokenizer_folder(&dir.join("tokenizer"), &seeds)?;
    let config = sandbox::model_config(Size::Small, vocab_size);
    fs::write(dir.join("config.json"), format!("{config:#}\n"))?;
    lines(&dir.join("question.jsonl"), sandbox::questions(&seeds))?;
    lines(&dir.join("further.jsonl"), sandbox::further_questions(&seeds, FURTHER))?;
    for (name, mixture) in
        [("demonstrations.jsonl", Mixture::Ordinary), ("demonstrations-strong.jsonl", Mixture::Strong)]
    {
        lines(&dir.join(name), sandbox::demonstrations(&seeds, DEMONSTRATIONS, mixture))?;
    }
    let prompts = sandbox::training_prompts(&seeds, PROMPTS);
    let prompts = prompts
        .iter()
        .map(|prompt| json!({"id": prompt.id, "category": prompt.category, "messages": prompt.messages}));
    lines(&dir.join("prompts.jsonl"), prompts)?;
    Ok(())
}

fn lines<T: Serialize>(path: &Path, rows: impl IntoIterator<Item = T>) -> Result<(), Box<dyn Error>> {
    let mut file = BufWriter::new(File::create(path)?);
    for row in rows {
        serde_json::to_writer(&mut file, &row)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}
