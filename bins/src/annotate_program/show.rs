//! `annotate stats` and `annotate show`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use annotate::{AnnotatorStatistics, PositionBias, agreement_table, bias_table, page, read_log};
use clap::Args;
use pref_data::{
    AgreementMatrix, ChatSettings, DataError, Date, Pair, PairPreview, PreferenceRecord, TokenizeOptions,
    Tokenizer, Votes, preview_pair,
};
use report::table::Format;

use super::Data;
use crate::preview_text::write_part;
use crate::program::print_result;

/// Show what annotators' labels are worth: tastes for position and length, agreement with the others
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    data: Data,
    /// Whose agreement with the others is shown
    #[arg(long, value_name = "NAME")]
    annotator: Option<String>,
    /// The annotations.jsonl of `annotate llm`, which knows of position bias
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How tables are written: text, md, csv, tex or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

impl StatsArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let records = self.data.read()?;
        let log = self.log.as_deref().map(read_log).transpose()?;
        let of_log =
            log.as_deref().and_then(|log| Some((log.first()?.annotator.clone(), PositionBias::of(log))));
        let position = of_log.as_ref().map(|(name, bias)| (name.as_str(), *bias));
        let table = bias_table(&AnnotatorStatistics::of(&records), position);
        print_result(table.render(self.format).trim_end())?;
        let annotator = self.annotator.as_deref().or(position.map(|(name, _)| name));
        if let Some(annotator) = annotator {
            let table = agreement_table(&AgreementMatrix::of(&records), annotator);
            print_result(format_args!("\n{}", table.render(self.format).trim_end()))?;
        }
        Ok(())
    }
}

/// Look at records, one at a time
///
/// On a terminal Enter shows the next one, b the one before, a number that one, q ends. Elsewhere one is printed.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    data: Data,
    /// The record's id
    #[arg(long, conflicts_with = "number")]
    id: Option<String>,
    /// The record's number, from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    number: usize,
    /// Show the rendered text and the token ids, too, as `pref-train --preview` does
    #[arg(long, requires = "model")]
    render: bool,
    /// The model's folder, for --render
    #[arg(long, value_name = "DIR", requires = "render")]
    model: Option<PathBuf>,
    /// The most tokens of a prompt with one response, for --render
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, requires = "render")]
    max_length: usize,
    /// The date that the chat template prints: a day (2026-11-29), today, or none
    #[arg(long, value_name = "DAY", value_parser = crate::program::date, requires = "render")]
    date: Option<Date>,
}

impl ShowArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let (records, report) = self.data.read_with_report()?;
        let chat = ChatSettings { date: self.date.unwrap_or_default(), ..ChatSettings::default() };
        let tokenizer = self.model.as_deref().map(|folder| Tokenizer::open(folder, &chat)).transpose()?;
        let at = match &self.id {
            None => self.number,
            Some(id) => match records.iter().position(|record| record.id == *id) {
                Some(index) => index + 1,
                None => return Err(annotate::AnnotateError::UnknownRecord { id: id.clone() }.into()),
            },
        };
        let mut at = at.clamp(1, records.len());
        loop {
            let record = &records[at - 1];
            print_result(page(record, at, records.len()))?;
            if let Some(tokenizer) = &tokenizer {
                let rendered = rendered(record, tokenizer, self.max_length);
                print_result(rendered.map_err(|error| error.located(&report.places))?)?;
            }
            let is_browsed = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
            match if is_browsed { next(at, &records)? } else { None } {
                Some(number) => at = number,
                None => return Ok(()),
            }
        }
    }
}

/// Returns the text and the tokens of the prompt and of the first response with each of the others.
fn rendered(
    record: &PreferenceRecord,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<String, DataError> {
    let options = TokenizeOptions::new(max_length);
    let mut text = String::new();
    for other in 1..record.responses.len() {
        let pair = Pair {
            id: record.id.clone(),
            prompt: record.prompt.clone(),
            chosen: record.responses[0].clone(),
            rejected: record.responses[other].clone(),
            domain: None,
            context: record.context.clone(),
            annotator: String::new(),
            votes: Votes::default(),
            flipped: false,
        };
        let PairPreview { prompt, chosen, rejected, tokens, truncated } =
            preview_pair(&pair, tokenizer, &options)?;
        let [prompt_ids, first_ids, other_ids] =
            tokens.map_or_else(Default::default, |tokens| [tokens.prompt, tokens.chosen, tokens.rejected]);
        let name = format!("response {}", other + 1);
        write_part(&mut text, ("prompt", "not scored"), &prompt, &prompt_ids, truncated.prompt);
        write_part(&mut text, ("response 1", "scored"), &chosen, &first_ids, truncated.chosen);
        write_part(&mut text, (&name, "scored"), &rejected, &other_ids, truncated.rejected);
    }
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// The number that is asked for after record `at`; `None` to end.
fn next(at: usize, records: &[PreferenceRecord]) -> std::io::Result<Option<usize>> {
    write!(std::io::stdout(), "[Enter: next, b: before, number, q: end] ")?;
    std::io::stdout().flush()?;
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(match line.trim() {
        "q" => None,
        "b" => Some(at.saturating_sub(1).max(1)),
        "" => (at < records.len()).then_some(at + 1),
        word => Some(word.parse().unwrap_or(at).clamp(1, records.len())),
    })
}
