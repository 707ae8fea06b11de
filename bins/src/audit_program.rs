//! `audit`: whether preference data are good enough, a cleaned file, and a comparison of two files.

use std::path::{Path, PathBuf};

use audit::{
    Audit, Bench, CleanOptions, CleanReport, Dataset, Fault, Options, PairDeltas, Plan, Prices, ReadAs,
    audit, clean, diff,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hub::{Hub, RepoId, RepoKind};
use pref_data::{ChatSettings, PairColumns, Tokenizer};
use report::table;
use seeds::Seeds;

use crate::annotate_program::{FormatArg, columns};
use crate::program::print_result;

/// Width of tables on a terminal.
const WIDTH: usize = 80;

/// Are these preference pairs good enough, and what would help most?
///
/// One sentence and three numbers, then what is in the file: faults, duplicates, leakage, shortcuts, label noise.
#[derive(Debug, Parser)]
#[command(name = "audit", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Clean(CleanArgs),
    Diff(DiffArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// A file of preferences, a folder, or an id of the Hugging Face Hub (owner/name@revision:file)
    #[arg(value_name = "FILE", required = true)]
    file: Option<String>,
    #[command(flatten)]
    audited: Audited,
    /// How the audit is written
    #[arg(long, value_enum, default_value_t = FormatChoice::Text)]
    format: FormatChoice,
}

/// How a file is read, and what it is compared with.
#[derive(Debug, Args)]
struct Audited {
    /// The layout of the files [default: detected]
    #[arg(long, value_enum)]
    layout: Option<FormatArg>,
    /// Columns of pairs with other names: prompt=ask,chosen=good; the keys are those of data.columns in a recipe
    #[arg(long, value_name = "KEY=COLUMN,...", value_parser = columns)]
    columns: Option<PairColumns>,
    /// The annotator whose labels are audited [default: human, or the first by name]
    #[arg(long, value_name = "NAME")]
    annotator: Option<String>,
    /// A benchmark that the pairs must not contain, as FastChat's question.jsonl; may be repeated
    #[arg(long = "bench", value_name = "FILE")]
    benches: Vec<PathBuf>,
    /// Held-out preferences whose prompts the file must not contain; may be repeated
    #[arg(long = "held-out", value_name = "FILE")]
    held_out: Vec<String>,
    /// Labels of the same pairs by another annotator, or by the same in swapped order; may be repeated
    #[arg(long = "second", value_name = "LABELS")]
    second: Vec<String>,
    /// The `pair_deltas.parquet` of a run on this file: which labels a policy contradicts before it trains on them
    #[arg(long, value_name = "FILE")]
    pair_deltas: Option<PathBuf>,
    /// A model's folder: lengths in tokens, truncation and problems of its chat template
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The most tokens of a prompt with one response
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, requires = "model")]
    max_length: usize,
    /// Questions of the planned comparison [default: those of the first --bench, or 80]
    #[arg(long, value_name = "N")]
    questions: Option<usize>,
    /// Training seeds of the planned comparison
    #[arg(long, value_name = "N", default_value_t = Plan::MT_BENCH.seeds)]
    seeds: usize,
    /// Comparisons that share an error rate of 5%
    #[arg(long, value_name = "N", default_value_t = Plan::MT_BENCH.comparisons)]
    comparisons: usize,
    /// Standard deviation over questions of the difference between two runs, in points
    #[arg(long, value_name = "POINTS", default_value_t = Plan::MT_BENCH.deviation, value_parser = positive)]
    deviation: f64,
    /// The price of one label, in USD: what more pairs cost
    #[arg(long, value_name = "USD", value_parser = positive)]
    label_price: Option<f64>,
    /// The price of one call of the judge, in USD: what more questions or seeds cost
    #[arg(long, value_name = "USD", value_parser = positive)]
    judge_price: Option<f64>,
}

/// How an audit is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatChoice {
    /// For a terminal
    Text,
    /// One object with every number
    Json,
    /// A self-contained page
    Html,
    /// Markdown
    Md,
}

/// Write the pairs without those that are unusable, and a log of each change
#[derive(Debug, Args)]
struct CleanArgs {
    /// A file of preferences, a folder, or an id of the Hugging Face Hub
    #[arg(value_name = "FILE")]
    file: String,
    #[command(flatten)]
    audited: Audited,
    /// The cleaned pairs: .jsonl, .jsonl.gz, .parquet, .arrow or .csv; the log of changes is OUT.log.jsonl
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// Faults to remove, as `audit --format json` names them
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',', default_values_t = Fault::UNUSABLE)]
    remove: Vec<Fault>,
    /// Faults whose pairs get the other label: contradiction (by majority), outvoted
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',')]
    relabel: Vec<Fault>,
}

/// Compare two files: common pairs, changed labels, and the numbers of both audits
#[derive(Debug, Args)]
struct DiffArgs {
    /// The first file
    #[arg(value_name = "A")]
    one: String,
    /// The second file
    #[arg(value_name = "B")]
    other: String,
    #[command(flatten)]
    audited: Audited,
    /// How the comparison is written: text, md or json
    #[arg(long, default_value = "text")]
    format: table::Format,
}

/// Parses a positive number.
fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "give a number above 0".to_owned())
}

impl AuditArgs {
    /// Does what the arguments ask for.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the files.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            None => self.show.run(),
            Some(Command::Clean(args)) => args.run(),
            Some(Command::Diff(args)) => args.run(),
        }
    }
}

impl ShowArgs {
    fn run(&self) -> anyhow::Result<()> {
        let audit = self.audited.audit(&self.audited.read(self.file.as_deref().unwrap_or_default())?)?;
        Ok(match self.format {
            FormatChoice::Text => print_result(audit.to_text()),
            FormatChoice::Json => print_result(audit.to_json()),
            FormatChoice::Html => print_result(audit.to_html().trim_end()),
            FormatChoice::Md => print_result(audit.to_markdown()),
        }?)
    }
}

impl CleanArgs {
    fn run(&self) -> anyhow::Result<()> {
        let data = self.audited.read(&self.file)?;
        let audit = self.audited.audit(&data)?;
        let options = CleanOptions { remove: self.remove.clone(), relabel: self.relabel.clone() };
        let CleanReport { pairs, written, changes, log } = clean(&data, &audit, &options, &self.out)?;
        let out = self.out.display();
        let unread = data.report.skipped.len();
        if unread + data.unlabelled + data.ties > 0 {
            let Dataset { unlabelled, ties, annotator, .. } = &data;
            tracing::warn!(
                "rows that {out} lacks: {unread} unreadable, {unlabelled} without a label of {annotator}, {ties} ties"
            );
        }
        Ok(print_result(format_args!(
            "{out}: {written} of {pairs} pairs; {} changes, in {}",
            changes.len(),
            log.display()
        ))?)
    }
}

impl DiffArgs {
    fn run(&self) -> anyhow::Result<()> {
        // The first file's texts are not needed once it is audited.
        let first = self.audited.audit(&self.audited.read(&self.one)?)?;
        let second = self.audited.audit(&self.audited.read(&self.other)?)?;
        let diff = diff(&first, &second);
        if self.format == table::Format::Json {
            return Ok(print_result(diff.to_json())?);
        }
        for table in diff.tables() {
            let text = match self.format {
                table::Format::Text => table.render_within(WIDTH),
                format => table.render(format),
            };
            print_result(text)?;
        }
        Ok(())
    }
}

impl Audited {
    fn read(&self, file: &str) -> anyhow::Result<Dataset> {
        let read_as = ReadAs {
            format: self.layout.map(FormatArg::format),
            columns: self.columns.clone(),
            annotator: self.annotator.clone(),
        };
        Ok(Dataset::read(&local(file)?, &read_as)?)
    }

    fn audit(&self, data: &Dataset) -> anyhow::Result<Audit> {
        let benches = self.benches.iter().map(|path| Bench::read(path)).collect::<Result<Vec<_>, _>>()?;
        let detected = |file: &String| {
            let other = Dataset::read(&local(file)?, &ReadAs::default())?;
            if let Some(first) = other.report.skipped.first() {
                tracing::warn!(
                    "{file}: {} rows cannot be read; the first: {first}",
                    other.report.skipped.len()
                );
            }
            Ok(other)
        };
        let all = |files: &[String]| files.iter().map(detected).collect::<anyhow::Result<Vec<_>>>();
        let questions = self.questions.or_else(|| Some(benches.first()?.questions()));
        let plan = Plan {
            questions: questions.unwrap_or(Plan::MT_BENCH.questions),
            seeds: self.seeds,
            comparisons: self.comparisons,
            deviation: self.deviation,
            ..Plan::MT_BENCH
        };
        let prices = Prices { label: self.label_price, judge_call: self.judge_price };
        let deltas = self.pair_deltas.as_deref().map(PairDeltas::read).transpose()?;
        let (held_out, second) = (all(&self.held_out)?, all(&self.second)?);
        let open = |folder: &PathBuf| Tokenizer::open(folder, &ChatSettings::default());
        let tokenizer =
            self.model.as_ref().map(open).transpose()?.map(|tokenizer| (tokenizer, self.max_length));
        Ok(audit(
            data,
            &Options { benches, held_out, second, plan, prices, deltas, tokenizer, seeds: Seeds::new(0) },
        )?)
    }
}

/// Returns the local path of a file, after a download if it is an id of the Hub. An existing path is no id.
fn local(file: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(file);
    match RepoId::parse(RepoKind::Dataset, file).filter(|_| !path.exists()) {
        None => Ok(path.to_owned()),
        Some(repo) => Ok(Hub::from_environment(|name| std::env::var(name).ok()).fetch(&repo)?),
    }
}
