//! `annotate stats` and `annotate show`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use annotate::{AnnotatorStatistics, PositionBias, agreement_table, bias_table, page, read_log};
use clap::Args;
use pref_data::{AgreementMatrix, PreferenceRecord};
use report::table::Format;

use super::Data;
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
}

impl ShowArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let records = self.data.read()?;
        let at = match &self.id {
            None => self.number,
            Some(id) => match records.iter().position(|record| record.id == *id) {
                Some(index) => index + 1,
                None => return Err(annotate::AnnotateError::UnknownRecord { id: id.clone() }.into()),
            },
        };
        let mut at = at.clamp(1, records.len());
        loop {
            print_result(page(&records[at - 1], at, records.len()))?;
            let is_browsed = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
            match if is_browsed { next(at, &records)? } else { None } {
                Some(number) => at = number,
                None => return Ok(()),
            }
        }
    }
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
