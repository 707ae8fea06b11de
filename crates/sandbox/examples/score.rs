//! Scores answers: `cargo run -p sandbox --example score -- [SEED] < answers.jsonl`.
//!
//! Reads `{"question_id", "category", "turns": [...], "answers": [...]}` a line and prints, tab-separated, gold quality
//! and the ratings of the unbiased judge and of the judge that shares `gpt-4-turbo`'s taste, one line an answer.

use std::error::Error;
use std::io::{BufRead, Write};

use mtbench::{Draw, JudgeRequest, Question};
use pref_data::Message;
use sandbox::{SandboxJudge, gold_quality};
use seeds::Seeds;
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    question_id: u64,
    category: String,
    turns: Vec<String>,
    answers: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let seeds = Seeds::new(std::env::args().nth(1).map_or(Ok(0), |seed| seed.parse())?);
    let judges = [SandboxJudge::unbiased(&seeds), SandboxJudge::sharing_taste(&seeds)];
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line: Line = serde_json::from_str(&line?)?;
        let question = Question {
            question_id: line.question_id,
            category: line.category,
            turns: line.turns,
            reference: None,
            required_temperature: None,
        };
        let mut prompt = Vec::new();
        for (index, answer) in line.answers.iter().enumerate() {
            prompt.push(Message::user(question.turns.get(index).ok_or("more answers than turns")?));
            let request = JudgeRequest {
                question: &question,
                model: "policy",
                answers: &line.answers[..=index],
                rival: None,
                turn: u8::try_from(index + 1)?,
                system_prompt: String::new(),
                user_prompt: String::new(),
                draw: Draw::default(),
            };
            let [fair, biased] = [&judges[0], &judges[1]].map(|judge| judge.rating(&request));
            writeln!(out, "{}\t{fair}\t{biased}", gold_quality(&prompt, answer))?;
            prompt.push(Message::assistant(answer));
        }
    }
    Ok(())
}
