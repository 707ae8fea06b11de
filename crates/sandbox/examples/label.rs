//! Labels preference records: `cargo run -p sandbox --example label -- [SEED] < records.jsonl > labelled.jsonl`.
//!
//! Every annotator labels every record; the gold quality of each response goes to stderr, tab-separated.

use std::error::Error;
use std::io::{BufRead, Write};

use pref_data::{Message, PreferenceRecord, Text};
use sandbox::gold_quality;
use seeds::Seeds;

fn main() -> Result<(), Box<dyn Error>> {
    let seeds = Seeds::new(std::env::args().nth(1).map_or(Ok(0), |seed| seed.parse())?);
    let mut records = Vec::new();
    for line in std::io::stdin().lock().lines() {
        records.push(serde_json::from_str::<PreferenceRecord>(&line?)?);
    }
    sandbox::label_all(&mut records, &seeds);
    let mut out = std::io::stdout().lock();
    let mut log = std::io::stderr().lock();
    for record in &records {
        serde_json::to_writer(&mut out, record)?;
        out.write_all(b"\n")?;
        let prompt = match &record.prompt {
            Text::Plain(text) => vec![Message::user(text)],
            Text::Chat(messages) => messages.clone(),
        };
        let scores = record.responses.iter().map(|response| match response {
            Text::Plain(text) => gold_quality(&prompt, text),
            Text::Chat(messages) => messages.last().map_or(1.0, |m| gold_quality(&prompt, &m.content())),
        });
        let scores: Vec<String> = scores.map(|score| score.to_string()).collect();
        writeln!(log, "{}", scores.join("\t"))?;
    }
    Ok(())
}
