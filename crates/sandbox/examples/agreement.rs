//! Prints each annotator's agreement with gold, and the raters' with each other: `cargo run -p sandbox --example agreement -- [SEED]`.
//!
//! On 6,000 records whose two responses are an ordinary demonstrator's and, by halves, another's or a strong one's.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;

use pref_data::{PreferenceRecord, Text};
use sandbox::{Candidate, Mixture, Rater, RaterChoice, demonstrate_answer};
use seeds::Seeds;
use stats::Choice;

const RECORDS: usize = 6_000;

fn main() -> Result<(), Box<dyn Error>> {
    let seeds = Seeds::new(std::env::args().nth(1).map_or(Ok(0), |seed| seed.parse())?);
    let mut rng = seeds.stream("agreement");
    let mut records: Vec<PreferenceRecord> = sandbox::training_prompts(&seeds, RECORDS)
        .into_iter()
        .enumerate()
        .map(|(index, prompt)| {
            let other = if index % 2 == 0 { Mixture::Ordinary } else { Mixture::Strong };
            let responses = [Mixture::Ordinary, other]
                .into_iter()
                .filter_map(|mixture| demonstrate_answer(&prompt.messages, mixture, &mut rng))
                .map(Text::Plain)
                .collect();
            PreferenceRecord {
                id: prompt.id,
                prompt: Text::Chat(prompt.messages),
                responses,
                labels: BTreeMap::new(),
                domain: Some(prompt.category.to_owned()),
                context: Default::default(),
            }
        })
        .collect();
    sandbox::label_all(&mut records, &seeds);
    let mut out = std::io::stdout().lock();
    writeln!(out, "| annotator | agreement with gold | records |\n|---|---|---|")?;
    for row in sandbox::agreement(&records) {
        writeln!(out, "| `{}` | {:.1}% | {} |", row.annotator, 100.0 * row.share, row.n)?;
    }
    writeln!(out, "\n{}", raters_line(&records, &seeds)?)?;
    Ok(())
}

fn raters_line(records: &[PreferenceRecord], seeds: &Seeds) -> Result<String, Box<dyn Error>> {
    let raters = sandbox::raters(seeds);
    let mut ratings = Vec::new();
    for record in records {
        let (Text::Chat(prompt), [Text::Plain(one), Text::Plain(two)]) =
            (&record.prompt, &record.responses[..])
        else {
            continue;
        };
        let candidate = |answer| Candidate { prompt, answer };
        let rate = |rater: &Rater| match rater.rate(candidate(one), candidate(two)) {
            RaterChoice::Model1 => Choice::Model1,
            RaterChoice::Model2 => Choice::Model2,
            RaterChoice::Equal => Choice::Equal,
        };
        ratings.push(raters.each_ref().map(rate));
    }
    let kappa = stats::fleiss_kappa(&stats::choice_counts(&ratings))?.kappa.value();
    let equal = ratings.iter().flatten().filter(|choice| **choice == Choice::Equal).count();
    let share = 100.0 * equal as f64 / (3 * ratings.len()).max(1) as f64;
    Ok(format!("Fleiss' kappa of the raters {:.2}, \"equal\" {share:.0}%", kappa.unwrap_or(f64::NAN)))
}
