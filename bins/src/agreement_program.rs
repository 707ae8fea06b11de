//! `agreement`: human comparisons of two models: sheets for raters, their files back, what they say.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Parser, Subcommand};
use human_study::{Comparison, Key, RatingKey, StudyReport, answer_ratings_csv, ratings_csv, read_ratings};
use report::table::Format;
use report::{write_figures, write_report, write_tables};
use seeds::Seeds;

use crate::console_args::ConsoleArgs;
use crate::program::{Logging, print_result, run};
use crate::rating_program::study_rating_sheets;

/// Which of two models do people prefer, do they agree, and could it be chance?
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct AgreementArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a blinded sheet for each rater, as a page and as a spreadsheet, and the key to them: comparisons of two models'
    /// answers, or ratings of a study's answers
    Make {
        /// The questions, as FastChat's question.jsonl
        #[arg(long, value_name = "FILE", required_unless_present = "from")]
        questions: Option<PathBuf>,
        /// The first model's answers, in FastChat's format
        #[arg(long, value_name = "FILE", required_unless_present = "from")]
        model_1: Option<PathBuf>,
        /// The second model's answers
        #[arg(long, value_name = "FILE", required_unless_present = "from")]
        model_2: Option<PathBuf>,
        /// A study's folder, whose answers are rated from 1 to 10; `study compare --ratings` corrects its judge by the ratings
        #[arg(long, value_name = "STUDY", conflicts_with_all = ["questions", "model_1", "model_2"])]
        from: Option<PathBuf>,
        /// The number of the study's questions to rate, drawn within categories
        #[arg(long, value_name = "N", default_value_t = 20, requires = "from")]
        rate: usize,
        /// Rate the answers of this arm of the study, as `study compare` names it [default: all arms]
        #[arg(long = "arm", value_name = "ARM", requires = "from")]
        arms: Vec<String>,
        /// The raters' names; three or more, an odd number, settles most items
        #[arg(long, value_name = "NAME,NAME,...", value_delimiter = ',', required = true)]
        raters: Vec<String>,
        /// Draws orders and sides; the same seed makes the same sheets
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Where key.json and the sheets go; keep the key from the raters
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Read raters' files back and print one file of ratings, which `report` reads, or `study compare --ratings`
    Collect {
        /// The key of the sheets
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The raters' files: downloaded from the page, or filled spreadsheets saved as CSV
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print wins, agreement, rates by category, and whether the difference could be chance
    Report {
        /// A CSV file with `item`, `rater`, `choice` (`model_1`, `model_2`, `equal`), and `category` if there are some
        ratings: PathBuf,
        /// The first model's name
        #[arg(long, value_name = "NAME", default_value = "model 1")]
        model_1: String,
        /// The second model's name
        #[arg(long, value_name = "NAME", default_value = "model 2")]
        model_2: String,
        /// Confidence level of the intervals
        #[arg(long, default_value_t = 0.95)]
        level: f64,
        /// How tables are printed; json prints one object with every number
        #[arg(long, default_value = "text", value_parser = Format::from_str)]
        format: Format,
        /// Also write tables, figures and report.html there
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Print what the paper's own tables say of its claims
    Paper {
        /// text and md print the page that is docs/paper-reanalysis.md, the others its table of claims
        #[arg(long, default_value = "text", value_parser = Format::from_str)]
        format: Format,
    },
}

impl AgreementArgs {
    /// Runs the program.
    pub(crate) fn run(&self, console: ConsoleArgs) -> ExitCode {
        run(Logging::SHOWN, console, |_| answer(&self.command))
    }
}

fn answer(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Make { from: Some(study), rate, arms, raters, seed, out, .. } => {
            print_paths(&study_rating_sheets(study, *rate, arms, raters, *seed)?.write(out)?)?;
        }
        Command::Make {
            questions: Some(questions),
            model_1: Some(one),
            model_2: Some(other),
            raters,
            seed,
            out,
            ..
        } => {
            let sheets = Comparison::read(questions, one, other)?.sheets(raters, &Seeds::new(*seed))?;
            print_paths(&sheets.write(out)?)?;
        }
        Command::Make { .. } => {
            anyhow::bail!("name the answers by --from, or by --questions, --model-1 and --model-2")
        }
        Command::Collect { key, files } if RatingKey::is_key(key) => {
            let ratings = RatingKey::read(key)?.unblind(files)?;
            print_result(answer_ratings_csv(&ratings).trim_end())?;
        }
        Command::Collect { key, files } => {
            let ratings = Key::read(key)?.unblind(files)?;
            print_result(ratings_csv(&ratings).trim_end())?;
        }
        Command::Report { ratings, model_1, model_2, level, format, out } => {
            let report = StudyReport::new(&read_ratings(ratings)?, [model_1, model_2], *level)?;
            if let Some(out) = out {
                write_tables(out, &report.tables())?;
                write_figures(
                    out,
                    &report.figure().map(|svg| ("figure-2".to_owned(), svg)).into_iter().collect::<Vec<_>>(),
                )?;
                tracing::info!("report: {}", write_report(out, &report.page())?.display());
            }
            match format {
                Format::Json => print_result(report.to_json())?,
                _ => report.tables().iter().try_for_each(|table| print_result(table.render(*format)))?,
            }
        }
        Command::Paper { format: Format::Text | Format::Markdown } => {
            print_result(study::paper::reanalysis()?.trim_end())?
        }
        Command::Paper { format } => print_result(study::paper::summary()?.render(*format).trim_end())?,
    }
    Ok(())
}

fn print_paths(paths: &[PathBuf]) -> anyhow::Result<()> {
    paths.iter().try_for_each(|path| Ok(print_result(path.display())?))
}
