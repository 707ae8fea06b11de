//! `mtbench show`, `compare`, `browse`: what judgments amount to.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use mtbench::{
    BenchDir, Browsed, Games, Mode, ModelScores, PairJudgment, PairScores, Pool, PositionBias, Question,
    Resampling, Shown, bars, browser, category_table, difference_table, length_table, missing_table,
    pair_table, radar, score_table,
};
use report::figure::Svg;
use report::table::{Format, Table};
use report::{write_figures, write_page};
use seeds::Seeds;

use super::{Data, ModeArg};
use crate::program::print_result;

/// Which judgments, and how they are read.
#[derive(Debug, Args)]
struct Judgments {
    #[command(flatten)]
    data: Data,
    /// The judge
    #[arg(long, value_name = "NAME", default_value = "gpt-4")]
    judge: String,
    /// How verdicts are read and scores are aggregated
    #[arg(long, value_enum, default_value = "strict")]
    mode: ModeArg,
    /// These models only [default: all that were judged]
    #[arg(long = "model-id", value_name = "ID")]
    models: Vec<String>,
    /// What several opinions of a judge on one answer amount to
    #[arg(long, value_enum, default_value = "median")]
    repeats: PoolArg,
    /// What intervals draw from
    #[arg(long, value_name = "SEED", default_value = "0")]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolArg {
    Median,
    Mean,
}

impl Judgments {
    fn bench(&self) -> BenchDir {
        self.data.bench()
    }

    fn mode(&self) -> Mode {
        self.mode.into()
    }

    fn resampling(&self) -> Resampling {
        Resampling::new(Seeds::new(self.seed).child("mtbench"))
    }

    fn shown(&self) -> Result<Shown, mtbench::Error> {
        let pool = match self.repeats {
            PoolArg::Median => Pool::Median,
            PoolArg::Mean => Pool::Mean,
        };
        Shown::read(&self.bench(), &self.judge, self.mode(), pool, &self.models)
    }

    fn pairs(&self) -> Result<Vec<PairJudgment>, mtbench::Error> {
        let pairs = self.bench().pair_judgments_on_file(&self.judge)?;
        Ok(match self.mode() {
            Mode::FastChat => pairs,
            Mode::Strict => pairs.into_iter().map(|row| row.reread(Mode::Strict)).collect(),
        })
    }
}

/// Show scores by turn, by category, or comparisons
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    judgments: Judgments,
    /// What is shown
    #[arg(long, value_enum, default_value = "scores")]
    table: TableArg,
    /// The baseline of pairwise-baseline
    #[arg(long, value_name = "MODEL", default_value = "gpt-3.5-turbo")]
    baseline: String,
    /// How tables are printed
    #[arg(long, default_value = "text", value_parser = Format::from_str)]
    format: Format,
    /// Write radar.svg and bars.svg into figures/ of this folder
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TableArg {
    /// Each model's turns and average
    Scores,
    /// The same by category
    Categories,
    /// Turns without a rating, and why
    Missing,
    /// Comparisons with the baseline
    PairwiseBaseline,
    /// Comparisons of all models
    PairwiseAll,
}

pub(super) fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let (judge, mode) = (args.judgments.judge.as_str(), args.judgments.mode());
    let resampling = args.judgments.resampling();
    let pairs = |games| -> anyhow::Result<Table> {
        let path = args.judgments.bench().pair_judgment_file(judge)?;
        anyhow::ensure!(
            path.exists(),
            "{}: no comparisons; run `mtbench judge --games …` first",
            path.display()
        );
        Ok(pair_table(&PairScores::new(&args.judgments.pairs()?, games, mode), judge))
    };
    let table = match args.table {
        TableArg::PairwiseBaseline => pairs(Games::Baseline(&args.baseline))?,
        TableArg::PairwiseAll => pairs(Games::All)?,
        TableArg::Scores | TableArg::Categories | TableArg::Missing => {
            let shown = args.judgments.shown()?;
            if let Some(folder) = &args.figures {
                write_figures(folder, &figures(&shown.scores, judge, &resampling)?)?;
            }
            match args.table {
                TableArg::Categories => category_table(&shown.scores, judge, mode, &resampling)?,
                TableArg::Missing => missing_table(&shown.scores, judge),
                _ => score_table(&shown.scores, judge, mode, &resampling)?,
            }
        }
    };
    Ok(print_result(table.render(args.format).trim_end())?)
}

fn figures(
    scores: &[ModelScores],
    judge: &str,
    resampling: &Resampling,
) -> anyhow::Result<Vec<(String, Svg)>> {
    let bars = bars(scores, judge, resampling)?;
    Ok(vec![("radar".to_owned(), radar(scores, judge)), ("bars".to_owned(), bars)])
}

/// Compare two models on the questions that both have a score of
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    judgments: Judgments,
    /// The first model
    first: String,
    /// The second model
    second: String,
    /// How tables are printed
    #[arg(long, default_value = "text", value_parser = Format::from_str)]
    format: Format,
}

pub(super) fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let (bench, judge) = (args.judgments.bench(), args.judgments.judge.as_str());
    let (shown, resampling) = (args.judgments.shown()?, args.judgments.resampling());
    let (first, second) = (shown.of(&args.first)?, shown.of(&args.second)?);
    let mut tables = vec![difference_table(first, second, judge, &resampling)?];
    let answers = [bench.answers_on_file(&args.first)?, bench.answers_on_file(&args.second)?];
    tables.push(length_table(first, second, [&answers[0], &answers[1]], &resampling)?);
    let pairs = args.judgments.pairs()?;
    if !pairs.is_empty() {
        tables.push(PositionBias::new(&pairs, args.judgments.mode()).table(judge, resampling.level));
    }
    let text: Vec<String> = tables.iter().map(|table| table.render(args.format)).collect();
    Ok(print_result(text.join("\n").trim_end())?)
}

/// Write one self-contained HTML page with every question, the answers side by side, and the verdicts
#[derive(Debug, Args)]
pub(super) struct BrowseArgs {
    #[command(flatten)]
    judgments: Judgments,
    /// The page [default: browse.html in the benchmark's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn browse(args: &BrowseArgs) -> anyhow::Result<()> {
    let (bench, judge) = (args.judgments.bench(), args.judgments.judge.as_str());
    let (shown, resampling) = (args.judgments.shown()?, args.judgments.resampling());
    let models: Vec<String> = shown.scores.iter().map(|(model, _)| model.clone()).collect();
    let mut answers = Vec::new();
    for model in &models {
        answers.extend(bench.answers_on_file(model)?);
    }
    let browsed = Browsed {
        questions: &shown.questions,
        scores: &shown.scores,
        answers: &answers,
        references: &bench.references_on_file(judge)?,
        judgments: &shown.judgments,
        comparisons: &args.judgments.pairs()?,
    };
    let tables = vec![score_table(&shown.scores, judge, args.judgments.mode(), &resampling)?];
    let caption = "The mean score of each category.".to_owned();
    let figures = vec![(radar(&shown.scores, judge), caption)];
    let lead = lead(&shown.questions, &models, judge);
    let page = browser("MT-Bench", &lead, &browsed, tables, figures);
    let path = args.out.clone().unwrap_or_else(|| bench.root().join("browse.html"));
    write_page(&path, &page.to_html()).context("the page")?;
    Ok(print_result(path.display())?)
}

fn lead(questions: &[Question], models: &[String], judge: &str) -> String {
    format!("{} questions, {} models, judged by {judge}.", questions.len(), models.len())
}
