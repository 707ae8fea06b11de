//! Style control: strengths of models in comparisons at equal length and format of the answers.

use std::collections::{BTreeMap, BTreeSet};

use report::table::{Align, Column, Table, Value};
use stats::{LogisticFit, LogisticRow, logistic_regression};

use crate::answer::Answer;
use crate::pair::{PairJudgment, Winner};
use crate::pair_scores::counted;
use crate::rating::Mode;
use crate::verdict::{GradedVerdict, parse_graded_verdict};

/// The style of one answer, outside of code blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Its length, in characters.
    pub characters: usize,
    /// Headings.
    pub headings: usize,
    /// Items of lists.
    pub list_items: usize,
    /// Passages in bold.
    pub bold: usize,
}

/// The names of the covariates.
const COVARIATES: [&str; 4] = ["length", "headings", "list items", "bold"];

/// Elo points of a log-odds of 1.
const ELO: f64 = 400.0 / std::f64::consts::LN_10;

/// The z of a 95% interval.
const Z: f64 = 1.959_963_984_540_054;

impl Style {
    /// Counts the style of Markdown text.
    ///
    /// ```
    /// use mtbench::Style;
    ///
    /// let style = Style::of("# One\n- **bold** text\n2. second\n```\n# code\n```\n");
    /// assert_eq!((style.headings, style.list_items, style.bold), (1, 2, 1));
    /// ```
    pub fn of(text: &str) -> Self {
        let mut style = Self { characters: text.chars().count(), ..Self::default() };
        let mut in_code = false;
        for line in text.lines() {
            let line = line.trim_start();
            if line.starts_with("```") {
                in_code = !in_code;
            } else if !in_code {
                style.headings += usize::from(is_heading(line));
                style.list_items += usize::from(is_list_item(line));
                style.bold += line.matches("**").count() / 2 + line.matches("__").count() / 2;
            }
        }
        style
    }

    fn counts(self) -> [f64; 4] {
        [self.characters, self.headings, self.list_items, self.bold].map(|count| count as f64)
    }
}

fn is_heading(line: &str) -> bool {
    let rest = line.trim_start_matches('#');
    (1..=6).contains(&(line.len() - rest.len())) && rest.starts_with(' ')
}

fn is_list_item(line: &str) -> bool {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = rest.len() < line.len() && (rest.starts_with(". ") || rest.starts_with(") "));
    numbered || ["- ", "* ", "+ "].iter().any(|sign| line.starts_with(sign))
}

/// The inputs of style-controlled strengths.
#[derive(Clone, Copy, Debug)]
pub struct StyleControl<'a> {
    /// The comparisons.
    pub judgments: &'a [PairJudgment],
    /// The answers of the compared models.
    pub answers: &'a [Answer],
    /// The model of strength 0; the first by name if it has no comparison.
    pub baseline: &'a str,
    /// How repeated comparisons count.
    pub mode: Mode,
    /// The number of games that a much better answer (`[[A>>B]]`) wins. Arena-Hard counts three.
    pub strong_games: u32,
}

/// Strengths with and without style control, and the effects of style.
#[derive(Clone, Debug, PartialEq)]
pub struct StyleFit {
    /// The models; the first is the baseline.
    pub models: Vec<String>,
    /// Games with a verdict and answers of both models.
    pub games: usize,
    /// Games without one of these.
    pub left_out: usize,
    /// Strengths over the baseline in log-odds, of all models but the first; `None` if they are not finite.
    pub plain: Option<LogisticFit>,
    /// The same, followed by the effect of one standard deviation of each covariate.
    pub controlled: Option<LogisticFit>,
    /// The standard deviation of each covariate; those without variation are left out of the fit.
    pub deviations: [f64; 4],
}

impl StyleControl<'_> {
    /// Fits Bradley–Terry models with and without style. A game is an observation, and a tie is half a win. Standard errors
    /// are clustered by question.
    ///
    /// A covariate is the difference of the two answers' counts over their sum, as in Chatbot Arena's style control, divided
    /// by its standard deviation.
    pub fn fit(&self) -> StyleFit {
        let rows: Vec<&PairJudgment> = counted(&self.judgments.iter().collect::<Vec<_>>(), self.mode);
        let names: BTreeSet<&str> =
            rows.iter().flat_map(|row| [row.model_1.as_str(), &row.model_2]).collect();
        let mut models: Vec<String> = names.into_iter().map(str::to_owned).collect();
        models.sort_by_key(|model| model != self.baseline);
        let styles = self.styles();
        let (mut games, mut left_out) = (Vec::new(), 0);
        for row in rows {
            let of = |model: &str| -> Option<Style> {
                let turns = styles.get(&(model, row.question_id))?;
                turns.get(usize::from(row.turn).checked_sub(1)?).copied()
            };
            for (game, winner, text) in
                [(1, row.g1_winner, &row.g1_judgment), (2, row.g2_winner, &row.g2_judgment)]
            {
                match (of(&row.model_1), of(&row.model_2), share(winner)) {
                    (Some(one), Some(two), Some(won)) => games.push(Game {
                        models: [&row.model_1, &row.model_2].map(|name| {
                            models.iter().position(|model| model == name).expect("models of the rows")
                        }),
                        style: difference(one, two),
                        won,
                        weight: self.weight(game, winner, text),
                        question: row.question_id,
                    }),
                    _ => left_out += 1,
                }
            }
        }
        let deviations = deviations(&games);
        let plain = logistic_regression(
            &games.iter().map(|game| game.observation(models.len(), None)).collect::<Vec<_>>(),
        );
        let styled: Vec<LogisticRow> =
            games.iter().map(|game| game.observation(models.len(), Some(&deviations))).collect();
        StyleFit {
            models,
            games: games.len(),
            left_out,
            plain,
            controlled: logistic_regression(&styled),
            deviations,
        }
    }

    /// The style of each turn, by model and question.
    fn styles(&self) -> BTreeMap<(&str, u64), Vec<Style>> {
        let answers = self.answers.iter();
        answers
            .map(|answer| {
                let turns = answer.turns().iter().map(|turn| Style::of(turn)).collect();
                ((answer.model_id.as_str(), answer.question_id), turns)
            })
            .collect()
    }

    /// The number of games that count for a verdict.
    fn weight(&self, game: u8, winner: Winner, text: &str) -> f64 {
        let graded = parse_graded_verdict(text);
        let is_strong = graded.is_some_and(|GradedVerdict { preference, strong }| {
            strong && Winner::of_game(game, crate::verdict::Verdict::Preference(preference)) == winner
        });
        if is_strong { f64::from(self.strong_games.max(1)) } else { 1.0 }
    }
}

/// One game with a verdict.
struct Game {
    models: [usize; 2],
    style: [f64; 4],
    won: f64,
    weight: f64,
    question: u64,
}

impl Game {
    fn observation(&self, models: usize, deviations: Option<&[f64; 4]>) -> LogisticRow {
        let mut x = vec![0.0; models - 1];
        for (model, sign) in self.models.into_iter().zip([1.0, -1.0]) {
            if model > 0 {
                x[model - 1] += sign;
            }
        }
        let varying =
            deviations.into_iter().flatten().zip(self.style).filter(|(deviation, _)| **deviation > 0.0);
        x.extend(varying.map(|(deviation, difference)| difference / deviation));
        LogisticRow { x, y: self.won, weight: self.weight, cluster: self.question }
    }
}

/// The share of a game that the first model won.
fn share(winner: Winner) -> Option<f64> {
    match winner {
        Winner::Model1 => Some(1.0),
        Winner::Model2 => Some(0.0),
        Winner::Tie => Some(0.5),
        Winner::Error => None,
    }
}

/// The difference of counts over their sum, from -1 to 1.
fn difference(one: Style, two: Style) -> [f64; 4] {
    let (one, two) = (one.counts(), two.counts());
    std::array::from_fn(|at| {
        let sum = one[at] + two[at];
        if sum > 0.0 { (one[at] - two[at]) / sum } else { 0.0 }
    })
}

/// The standard deviation of each covariate about 0, since the order of the two models is arbitrary.
fn deviations(games: &[Game]) -> [f64; 4] {
    let count = games.len().max(1) as f64;
    std::array::from_fn(|at| (games.iter().map(|game| game.style[at].powi(2)).sum::<f64>() / count).sqrt())
}

impl StyleFit {
    /// Returns the table of strengths and the table of style's effects.
    pub fn tables(&self, judge: &str) -> Vec<Table> {
        let cell = |fit: &Option<LogisticFit>, at: usize, scale: f64, decimals| match fit {
            None => Value::missing("one model wins or loses every game, or the covariates are collinear"),
            Some(fit) => {
                let (value, half) = (scale * fit.coefficients[at], scale * Z * fit.standard_errors[at]);
                Value::Difference { value, low: value - half, high: value + half, decimals }
            }
        };
        let Some((baseline, others)) = self.models.split_first() else { return Vec::new() };
        let strengths = others.iter().enumerate().map(|(at, model)| {
            vec![Value::text(model), cell(&self.plain, at, ELO, 0), cell(&self.controlled, at, ELO, 0)]
        });
        let (games, left_out) = (self.games, self.left_out);
        let strengths = Table {
            id: "style".to_owned(),
            title: format!("Elo over {baseline}, by {judge}"),
            columns: vec![
                Column::new("model", Align::Left),
                Column::new("as judged", Align::Right),
                Column::new("at equal style", Align::Right),
            ],
            rows: strengths.collect(),
            notes: vec![
                format!("{games} games; {left_out} without a verdict or an answer are left out. A tie is half a win."),
                "95% intervals, clustered by question.".to_owned(),
                "Style is the difference in length, headings, list items and bold. Better answers may differ in style for \
                 good reasons: this is a correlation, not a cause."
                    .to_owned(),
            ],
        };
        let varying = (0..4).filter(|at| self.deviations[*at] > 0.0).enumerate();
        let effects = varying.map(|(place, at)| {
            let place = others.len() + place;
            vec![Value::text(COVARIATES[at]), cell(&self.controlled, place, 1.0, 2)]
        });
        let effects = Table {
            id: "style-effects".to_owned(),
            title: format!("Effects of style on {judge}"),
            columns: vec![
                Column::new("covariate", Align::Left),
                Column::new("log-odds of one standard deviation", Align::Right),
            ],
            rows: effects.collect(),
            notes: Vec::new(),
        };
        vec![strengths, effects]
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;
    use seeds::Seeds;

    use super::*;
    use crate::answer::Choice;
    use crate::judgment::JudgedBy;

    fn answer(model: &str, question_id: u64, text: &str) -> Answer {
        Answer {
            question_id,
            answer_id: None,
            model_id: model.to_owned(),
            choices: vec![Choice::new(vec![text.to_owned()])],
            tstamp: None,
            extra: serde_json::Map::new(),
        }
    }

    fn judgment(models: [&str; 2], question_id: u64, winners: [Winner; 2], text: &str) -> PairJudgment {
        PairJudgment {
            question_id,
            model_1: models[0].to_owned(),
            model_2: models[1].to_owned(),
            g1_winner: winners[0],
            g2_winner: winners[1],
            judge: JudgedBy::default(),
            g1_user_prompt: String::new(),
            g1_judgment: text.to_owned(),
            g2_user_prompt: String::new(),
            g2_judgment: text.to_owned(),
            turn: 1,
            tstamp: None,
            extra: serde_json::Map::new(),
        }
    }

    fn fit_of(judgments: &[PairJudgment], answers: &[Answer], strong_games: u32) -> StyleFit {
        StyleControl { judgments, answers, baseline: "b", mode: Mode::Strict, strong_games }.fit()
    }

    #[test]
    fn markdown_is_counted_outside_of_code() {
        let text = "Intro **a** and **b**.\n## Part\n#hashtag\n1. one\n  - two\n10) three\n-dash\n```sh\n# no\n- no\n**no**\n```\n__c__\n";
        let style = Style::of(text);
        assert_eq!((style.headings, style.list_items, style.bold), (1, 3, 3));
        assert_eq!(Style::of(""), Style::default());
    }

    /// A judge that prefers long answers only: one model is as good as the other, and often longer.
    #[test]
    fn a_preference_for_length_is_no_strength_at_equal_style() {
        let mut rng = Seeds::new(5).stream("judge");
        let (mut answers, mut judgments) = (Vec::new(), Vec::new());
        for question in 0..400 {
            let lengths: [usize; 2] = [rng.random_range(60..200), rng.random_range(20..160)];
            answers.push(answer("a", question, &"x".repeat(lengths[0])));
            answers.push(answer("b", question, &"x".repeat(lengths[1])));
            let difference = (lengths[0] as f64 - lengths[1] as f64) / (lengths[0] + lengths[1]) as f64;
            let mut game = || {
                let won = rng.random_range(0.0..1.0) < 1.0 / (1.0 + (-3.0 * difference).exp());
                if won { Winner::Model1 } else { Winner::Model2 }
            };
            judgments.push(judgment(["a", "b"], question, [game(), game()], ""));
        }
        let fit = fit_of(&judgments, &answers, 3);
        assert_eq!(
            (fit.models.as_slice(), fit.games, fit.left_out),
            (&["b".to_owned(), "a".to_owned()][..], 800, 0)
        );
        let z = |fit: &LogisticFit, at: usize| fit.coefficients[at] / fit.standard_errors[at];
        let (plain, controlled) = (fit.plain.as_ref().unwrap(), fit.controlled.as_ref().unwrap());
        assert!(z(plain, 0) > 4.0, "{plain:?}");
        assert!(z(controlled, 0).abs() < 2.5 && z(controlled, 1) > 5.0, "{controlled:?}");
        let per_unit = controlled.coefficients[1] / fit.deviations[0];
        assert!(
            (per_unit - 3.0).abs() < 2.5 * controlled.standard_errors[1] / fit.deviations[0],
            "{per_unit}"
        );
        assert_eq!(fit.deviations[1..], [0.0; 3]);
        let tables = fit.tables("j");
        assert_eq!((tables[0].rows.len(), tables[1].rows.len()), (1, 1));
    }

    #[test]
    fn a_much_better_answer_wins_several_games() {
        let answers: Vec<Answer> =
            (0..8).flat_map(|q| [answer("a", q, "xx"), answer("b", q, "yy")]).collect();
        let won = |question, text: &str| judgment(["a", "b"], question, [Winner::Model1, Winner::Tie], text);
        let lost = |question| judgment(["a", "b"], question, [Winner::Model2; 2], "[[B]]");
        let of = |text: &str, games| {
            let judgments: Vec<_> = (0..5).map(|q| won(q, text)).chain((5..8).map(lost)).collect();
            fit_of(&judgments, &answers, games).plain.unwrap().coefficients[0]
        };
        // 5 wins, 5 ties, 6 losses, and the same with wins that count three times.
        let log_odds = |won: f64, lost: f64| (won / lost).ln();
        assert!((of("[[A>B]]", 3) - log_odds(7.5, 8.5)).abs() < 1e-9);
        assert!((of("[[A>>B]]", 3) - log_odds(17.5, 8.5)).abs() < 1e-9);
        assert!((of("[[A>>B]]", 1) - log_odds(7.5, 8.5)).abs() < 1e-9);
        let unanswered = fit_of(&[won(99, "")], &answers, 3);
        assert_eq!((unanswered.games, unanswered.left_out, unanswered.plain), (0, 2, None));
    }
}
