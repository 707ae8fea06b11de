//! How many tokens a second a model folder generates: one half of `benches/generate.py`.
//!
//! ```text
//! generate MODEL_FOLDER float32|bfloat16 BATCH NEW_TOKENS < PROMPTS
//! ```
//!
//! A line of standard input is a prompt, as token ids. Greedy, without stop tokens, so that every answer has the same length;
//! loading is not counted.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "an example's output is its purpose")]

use std::error::Error;
use std::io::stdin;
use std::path::Path;
use std::time::Instant;

use policy_model::{GenerationOptions, GenerationRequest, Policy, Sampling};
use seeds::Seeds;
use tch::{Device, Kind};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, kind, batch, new_tokens] = &arguments[..] else {
        return Err("give a model folder, float32 or bfloat16, a batch size and a number of tokens".into());
    };
    let kind = if kind == "bfloat16" { Kind::BFloat16 } else { Kind::Float };
    let (max_batch, new_tokens) = (batch.parse()?, new_tokens.parse()?);
    let policy = Policy::load(Path::new(folder), kind, Device::Cpu)?;
    let mut requests = Vec::new();
    for line in stdin().lines() {
        let prompt = line?.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        let sampling = Sampling::greedy(new_tokens, Vec::new());
        requests.push(GenerationRequest { prompt, sampling, stream: Seeds::new(0).stream("unused") });
    }
    let start = Instant::now();
    let answers = policy.generate(&requests, &GenerationOptions { max_batch })?;
    let seconds = start.elapsed().as_secs_f64();
    let tokens: usize = answers.iter().map(|answer| answer.tokens.len()).sum();
    println!("{tokens} {seconds}");
    Ok(())
}
