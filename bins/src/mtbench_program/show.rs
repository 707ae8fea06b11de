//! `mtbench show`, `compare`, `browse`: scores and comparisons.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use mtbench::{
    BenchDir, Browsed, Games, Mode, ModelScores, PairJudgment, PairScores, Pool, PositionBias, Question,
    Resampling, Shown, StyleControl, bars, browser, category_table, compared_models, comparison_table,
    difference_table, length_table, missing_table, pair_table, radar, score_table,
};
use report::figure::Svg;
use report::table::{Format, Table};
use report::{write_figures, write_page};
use seeds::Seeds;

use super::Data;
use super::fastchat_args::{FastChatMode, ModeArgs, ModelArgs};
use crate::program::print_result;

/// The judgments, and how they are parsed.
#[derive(Debug, Args)]
struct Judgments {
    #[command(flatten)]
    data: Data,
    /// The judge
    #[arg(long, visible_alias = "judge-model", value_name = "NAME", default_value = "gpt-4")]
    judge: String,
    #[command(flatten)]
    mode: ModeArgs,
    #[command(flatten)]
    models: ModelArgs,
    /// How several opinions of a judge on one answer become one rating
    #[arg(long, value_enum, default_value = "median")]
    repeats: PoolArg,
    /// The seed of the intervals
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
        self.mode.parsing().into()
    }

    fn resampling(&self) -> Resampling {
        Resampling::new(Seeds::new(self.seed).child("mtbench"))
    }

    fn pool(&self) -> Pool {
        match self.repeats {
            PoolArg::Median => Pool::Median,
            PoolArg::Mean => Pool::Mean,
        }
    }

    fn shown(&self) -> Result<Shown, mtbench::Error> {
        Shown::read(&self.bench(), &self.judge, self.mode(), self.pool(), &self.models.named())
    }

    /// The command that compares the shown models, if there are two or more.
    fn pointer(&self, scores: &[ModelScores]) -> Option<String> {
        let models = match scores {
            [] | [_] => return None,
            [(first, _), (second, _)] => format!("{first} {second}"),
            _ => "MODEL MODEL".to_owned(),
        };
        let (judge, data) = (&self.judge, self.data.folder());
        Some(format!(
            "difference with interval: mtbench compare {models} --judge {judge} --data {}",
            data.display()
        ))
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
    /// The table [default: scores]
    #[arg(long, value_enum)]
    table: Option<TableArg>,
    /// The baseline of pairwise-baseline and style
    #[arg(long, visible_alias = "baseline-model", value_name = "MODEL", default_value = "gpt-3.5-turbo")]
    baseline: String,
    /// style: the games that a much better answer ([[A>>B]]) wins
    #[arg(long, value_name = "N", default_value_t = 3)]
    strong_games: u32,
    /// The format of the tables
    #[arg(long, default_value = "text", value_parser = Format::from_str)]
    format: Format,
    /// Write radar.svg and bars.svg into figures/ of this folder
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
}

impl ShowArgs {
    /// Returns the table, which FastChat's `--mode` may name.
    fn table(&self) -> TableArg {
        let of_mode = self.judgments.mode.games().map(|games| match games {
            FastChatMode::Single => TableArg::Scores,
            FastChatMode::PairwiseBaseline => TableArg::PairwiseBaseline,
            FastChatMode::PairwiseAll => TableArg::PairwiseAll,
        });
        self.table.or(of_mode).unwrap_or(TableArg::Scores)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TableArg {
    /// Each model's turns and average
    Scores,
    /// The same by category
    Categories,
    /// Turns without a rating, with reasons
    Missing,
    /// Comparisons with the baseline
    PairwiseBaseline,
    /// Comparisons of all models
    PairwiseAll,
    /// Strengths in comparisons, as judged and at equal length and format
    Style,
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
        let pairs = args.judgments.pairs()?;
        if let Games::Baseline(baseline) = games {
            check_baseline(&pairs, judge, baseline)?;
        }
        Ok(pair_table(&PairScores::new(&pairs, games, mode), judge, mode))
    };
    let table = match args.table() {
        TableArg::Style => return show_style(args),
        TableArg::PairwiseBaseline => pairs(Games::Baseline(&args.baseline))?,
        TableArg::PairwiseAll => pairs(Games::All)?,
        TableArg::Scores | TableArg::Categories | TableArg::Missing => {
            let shown = args.judgments.shown()?;
            if let Some(folder) = &args.figures {
                write_figures(folder, &figures(&shown.scores, judge, &resampling)?)?;
            }
            match args.table() {
                TableArg::Categories => category_table(&shown.scores, judge, mode, &resampling)?,
                TableArg::Missing => missing_table(&shown.scores, judge),
                _ => {
                    let mut table = score_table(&shown.scores, judge, mode, &resampling)?;
                    table.notes.extend(args.judgments.pointer(&shown.scores));
                    table
                }
            }
        }
    };
    Ok(print_result(table.render(args.format).trim_end())?)
}

/// Shows strengths with and without style control.
fn show_style(args: &ShowArgs) -> anyhow::Result<()> {
    let (judgments, judge) = (args.judgments.pairs()?, args.judgments.judge.as_str());
    let models = &args.judgments.models.named();
    let is_shown = |model: &String| models.is_empty() || models.contains(model);
    let judgments: Vec<PairJudgment> =
        judgments.into_iter().filter(|row| is_shown(&row.model_1) && is_shown(&row.model_2)).collect();
    anyhow::ensure!(
        !judgments.is_empty(),
        mtbench::Error::NoModel {
            model: models.join(", "),
            what: format!("comparisons by {judge}"),
            known: compared_models(&args.judgments.pairs()?).into_iter().map(str::to_owned).collect(),
        }
    );
    let bench = args.judgments.bench();
    let mut answers = Vec::new();
    for model in compared_models(&judgments) {
        answers.extend(bench.answers_on_file(model)?);
    }
    let (baseline, mode, strong_games) = (args.baseline.as_str(), args.judgments.mode(), args.strong_games);
    let control = StyleControl { judgments: &judgments, answers: &answers, baseline, mode, strong_games };
    let tables = control.fit().tables(judge);
    let text: Vec<String> = tables.iter().map(|table| table.render(args.format)).collect();
    Ok(print_result(text.join("\n").trim_end())?)
}

/// Checks that the judge compared other models with `baseline`.
fn check_baseline(pairs: &[PairJudgment], judge: &str, baseline: &str) -> Result<(), mtbench::Error> {
    let known = compared_models(pairs);
    if known.contains(&baseline) {
        return Ok(());
    }
    Err(mtbench::Error::NoModel {
        model: baseline.to_owned(),
        what: format!("comparisons by {judge}"),
        known: known.into_iter().map(str::to_owned).collect(),
    })
}

fn figures(
    scores: &[ModelScores],
    judge: &str,
    resampling: &Resampling,
) -> anyhow::Result<Vec<(String, Svg)>> {
    let bars = bars(scores, judge, resampling)?;
    Ok(vec![("radar".to_owned(), radar(scores, judge)), ("bars".to_owned(), bars)])
}

/// Compare two models: scores on the same questions, answer lengths, and comparisons by the judge
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    judgments: Judgments,
    /// The first model
    first: String,
    /// The second model
    second: String,
    /// The format of the tables
    #[arg(long, default_value = "text", value_parser = Format::from_str)]
    format: Format,
}

pub(super) fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let (judgments, first, second) = (&args.judgments, args.first.as_str(), args.second.as_str());
    let tables = [score_tables(judgments, first, second)?, pair_tables(judgments, first, second)?].concat();
    if tables.is_empty() {
        let judge = judgments.judge.clone();
        let (first, second) = (first.to_owned(), second.to_owned());
        return Err(mtbench::Error::NotCompared { judge, first, second }.into());
    }
    let text: Vec<String> = tables.iter().map(|table| table.render(args.format)).collect();
    Ok(print_result(text.join("\n").trim_end())?)
}

/// The tables of single-answer scores; none unless both models have judgments.
fn score_tables(args: &Judgments, first: &str, second: &str) -> anyhow::Result<Vec<Table>> {
    let (bench, judge, resampling) = (args.bench(), args.judge.as_str(), args.resampling());
    let models = [first.to_owned(), second.to_owned()];
    let shown = Shown::read_on_file(&bench, judge, args.mode(), args.pool(), &models)?;
    let (Ok(one), Ok(two)) = (shown.of(first), shown.of(second)) else { return Ok(Vec::new()) };
    let answers = [bench.answers_on_file(first)?, bench.answers_on_file(second)?];
    Ok(vec![
        difference_table(one, two, judge, args.mode(), &resampling)?,
        length_table(one, two, [&answers[0], &answers[1]], &resampling)?,
    ])
}

/// The tables of the two models' comparisons; none without comparisons.
fn pair_tables(args: &Judgments, first: &str, second: &str) -> anyhow::Result<Vec<Table>> {
    let (judge, mode, resampling) = (args.judge.as_str(), args.mode(), args.resampling());
    let pairs = args.pairs()?;
    let Some(wins) = comparison_table([first, second], &pairs, judge, mode, &resampling)? else {
        return Ok(Vec::new());
    };
    Ok(vec![wins, PositionBias::new(&pairs, mode).table(judge, resampling.level)])
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
    let mut table = score_table(&shown.scores, judge, args.judgments.mode(), &resampling)?;
    table.notes.extend(args.judgments.pointer(&shown.scores));
    let tables = vec![table];
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
