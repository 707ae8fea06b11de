//! How many pairs a minute are tokenised, on one thread and on all, with lengths like GAIR's: prompts of about 60 words,
//! responses of about 220, cut out of hh-rlhf.
//!
//! ```text
//! cargo run -p pref-data --example tokenize -- MODEL_FOLDER harmless-base-test.jsonl.gz
//! ```

use std::error::Error;
use std::time::Instant;

use pref_data::{
    Format, Message, Pair, Text, TokenizeOptions, Tokenizer, Votes, read_records, tokenize_pairs,
};

const PAIRS: usize = 5240;
const PROMPT_WORDS: usize = 60;
const RESPONSE_WORDS: usize = 220;
const RUNS: usize = 3;

#[expect(clippy::print_stdout, reason = "an example's result")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, data] = &arguments[..] else {
        return Err("give a model's folder and a file of hh-rlhf".into());
    };
    let tokenizer = Tokenizer::from_folder(model)?;
    let pairs = pairs(&read_records(data, Format::HhRlhf)?);
    let options = TokenizeOptions::new(1024);
    for threads in [1, 0] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let start = Instant::now();
            let (tokens, report) = pool.install(|| tokenize_pairs(&pairs, &tokenizer, &options))?;
            best = best.min(start.elapsed().as_secs_f64());
            if threads == 1 {
                println!("{} pairs: {report}", tokens.len());
            }
        }
        let rate = pairs.len() as f64 / best * 60.0;
        println!("{} threads: {rate:.0} pairs a minute", pool.current_num_threads());
    }
    Ok(())
}

/// Pairs of real English in GAIR's lengths.
fn pairs(records: &[pref_data::PreferenceRecord]) -> Vec<Pair> {
    let text = |text: &Text| match text {
        Text::Plain(text) => text.clone(),
        Text::Chat(_) => String::new(),
    };
    let words: Vec<String> = records
        .iter()
        .flat_map(|record| [text(&record.prompt), text(&record.responses[0])])
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let mut from = 0;
    let mut take = |count: usize| {
        let taken: Vec<&str> = (from..from + count).map(|at| words[at % words.len()].as_str()).collect();
        from += count;
        taken.join(" ")
    };
    let mut pair = |index: usize| Pair {
        id: index.to_string(),
        prompt: Text::Chat(vec![Message::user(take(PROMPT_WORDS))]),
        chosen: Text::Chat(vec![Message::assistant(take(RESPONSE_WORDS))]),
        rejected: Text::Chat(vec![Message::assistant(take(RESPONSE_WORDS))]),
        domain: None,
        context: Default::default(),
        annotator: String::new(),
        votes: Votes::default(),
        flipped: false,
    };
    (0..PAIRS).map(&mut pair).collect()
}
