//! The page of the re-analysis.

use report::table::{Align, Column, Format, Table, Value};

use super::claims::domain_sums;
use super::overfitting::{self, checkpoints};
use super::trends::{self, by_noise, by_volume};
use super::{Error, PaperTable, PrintedClaim, claims, grid, losses, power, tables};

/// Returns the table of claims and verdicts.
///
/// # Errors
///
/// Those of [`tables`](super::tables()).
pub fn summary() -> Result<Table, Error> {
    let rows = claims(&tables()?)?.into_iter().map(|PrintedClaim { place, says, verdict, finding }| {
        vec![Value::text(place), Value::text(says), Value::text(verdict.to_string()), Value::text(finding)]
    });
    let header = |name: &str| Column::new(name, Align::Left);
    Ok(Table {
        id: "claims".to_owned(),
        title: "The paper’s claims tested on its printed numbers".to_owned(),
        columns: vec![header("Where"), header("Claim"), header("Verdict"), header("Finding")],
        rows: rows.collect(),
        notes: vec![],
    })
}

/// Returns the re-analysis as Markdown: `docs/paper-reanalysis.md`.
///
/// # Errors
///
/// Those of [`tables`](super::tables()).
pub fn reanalysis() -> Result<String, Error> {
    let tables = tables()?;
    let mut page = INTRODUCTION.to_owned();
    let mut section =
        |heading: &str, body: String| page += &format!("\n## {heading}\n\n{}\n", body.trim_end());
    section("Claims", list(&claims(&tables)?));
    section("One run or four?", runs(&tables)?);
    let volume = trends::table("volume", "Scores by volume", &by_volume(&tables)?)?;
    section("Volume", VOLUME.to_owned() + "\n\n" + &volume.render(Format::Markdown));
    let noise = trends::table("noise", "Scores by share of flipped labels", &by_noise(&tables)?)?;
    section("Noise", NOISE.to_owned() + "\n\n" + &noise.render(Format::Markdown));
    let overfitting = overfitting::table(&checkpoints(&tables[4])?)?;
    section("Overfitting", overfitting.render(Format::Markdown));
    section(
        "Losses",
        LOSSES.to_owned() + "\n\n" + &losses::table(&checkpoints(&tables[4])?).render(Format::Markdown),
    );
    section("Power", POWER.to_owned() + "\n\n" + &power_of_differences(&tables)?.render(Format::Markdown));
    section("Domains", domains(&tables)?.render(Format::Markdown));
    section("Print", PRINT.to_owned());
    Ok(page)
}

const INTRODUCTION: &str = "# The paper's tables, read again

<!-- Made by `cargo run -p study --example reanalysis`; a test compares. Do not edit. -->

[`paper/`](paper) has Tables 1 to 14 of *The Paradox of Preference* as printed.
This page tests the paper's claims on those numbers alone.
*Survives*: the numbers support the claim, as far as one run per cell can.
*Contradicted*: the numbers contradict the claim.
*Not distinguishable*: the numbers support neither the claim nor its opposite.
*Inconsistent*: the numbers contradict each other.
";

const VOLUME: &str = "Four levels have 24 orders, so the smallest two-sided p of one column is 1/12: no column can be significant alone.";

const NOISE: &str = "Five levels have 120 orders, and 1/60 is the smallest two-sided p.
`p, Holm` is for all columns together.
The column `DPO` of either source shares its first row with `cDPO`.";

const LOSSES: &str = "A training loss bounds the mean margin from below.
The bounds tell a sum of log-probabilities over tokens from their mean: a margin of 5 nats a token does not occur.";

const POWER: &str = "The paper prints no spread.
GPT-4's judgments of two runs of a Mistral-7B model differ by question with a standard deviation of 1.9 to 2.7 points.
With those, the paper's differences are not detectable by one run per cell on 80 questions.";

const PRINT: &str = "- Table 14 calls 20% what Table 12 calls 25%; the scores of that row are the same.
- Table 5 has two columns headed IPO (Tuned) for human preferences.
  The first ends at 7.184, which Table 8 gives for DPO (Tuned); the second ends at 7.113, which is IPO (Tuned).
- The scores that are in several tables (6.994 in Tables 1, 3, 4 and 5; 7.225 in Tables 10 to 14) agree.";

fn list(claims: &[PrintedClaim]) -> String {
    let item = |claim: &PrintedClaim| {
        let text = format!("**{}** ({}): “{}”. {}", claim.verdict, claim.place, claim.says, claim.finding);
        format!("- {}\n", by_sentence(&text, "  "))
    };
    claims.iter().map(item).collect()
}

fn runs(tables: &[PaperTable]) -> Result<String, Error> {
    let found = grid(tables)?;
    let others: Vec<String> = found
        .off_grid
        .iter()
        .map(|(score, rows)| {
            let rows: Vec<String> = rows.iter().rev().take(2).map(u32::to_string).collect();
            format!("{score} (fits {} rows)", rows.join(" or "))
        })
        .collect();
    Ok(by_sentence(
        &format!(
            "The paper reports means of four runs. Ratings are half points over 160 rows, so the mean of one run is on a grid \
             of 1/320, the mean of four on one of 1/1280. Of {} distinct printed scores {} are on the coarse grid. The others are \
             {}: means over fewer rows, as when FastChat drops unreadable ratings. If all scores were means of four runs, {:.0}% of \
             them would print like one run's, and {} or more of {} with a probability of 10^{:.0}. The scores are most likely of single runs.",
            found.scores,
            found.on_grid,
            others.join(", "),
            100.0 * found.by_chance,
            found.on_grid,
            found.scores,
            found.log10_p
        ),
        "",
    ))
}

/// Returns the power for the differences that the paper's text rests on.
fn power_of_differences(tables: &[PaperTable]) -> Result<Table, Error> {
    let (llm, human) = (tables[0].column("GPT4-Turbo")?, tables[0].column("Human")?);
    let tuned = tables[7].column("Human, Loss = DPO (Tuned)")?[0];
    power::table(&[
        ("DPO on GPT-4-Turbo − DPO on human", llm[1] - human[1]),
        ("DPO on GPT-4-Turbo − SFT", llm[1] - llm[0]),
        ("tuned DPO − DPO", tuned - human[1]),
    ])
}

fn domains(tables: &[PaperTable]) -> Result<Table, Error> {
    let summed = domain_sums(&tables[5])?;
    let printed = tables[6].column("# Samples - GAIR (Train)")?;
    let rows = tables[6].labels().zip(printed).map(|(domain, printed)| {
        let sum = summed.iter().find(|(name, _)| name == domain).map_or(0.0, |(_, sum)| *sum);
        let number = |value: f64| Value::Number { value, decimals: 0 };
        vec![Value::text(domain), number(sum), number(printed), number(sum - printed)]
    });
    let header = |name: &str| Column::new(name, Align::Right);
    Ok(Table {
        id: "domains".to_owned(),
        title: "Samples by domain: summed from Table 6, and as Table 7 prints them".to_owned(),
        columns: vec![
            Column::new("Domain", Align::Left),
            header("Table 6, summed"),
            header("Table 7"),
            header("Difference"),
        ],
        rows: rows.collect(),
        notes: vec!["A row of Table 6 with several domains counts in each.".to_owned()],
    })
}

/// Returns text with one sentence per line, and `indent` before all lines but the first.
fn by_sentence(text: &str, indent: &str) -> String {
    text.replace(". ", &format!(".\n{indent}"))
}
