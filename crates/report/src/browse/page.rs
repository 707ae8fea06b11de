//! The markup of the page; its style is in `page.css`, its filters in `page.js`.

use super::{BrowsedAnswer, BrowsedComparison, BrowsedQuestion, BrowsedTurn, Browser};
use crate::escape::escape;
use crate::table::{scrollable, table_html};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Forbids outside resources and all scripts except the page's, by its SHA-256, so that no model's text can run.
/// A test runs the page in a browser, which refuses the script if the hash is wrong.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-+nNcLmpJX9im4aU969u/hjp/IKLdOft33PkQmX824BQ='";

pub(super) fn render(browser: &Browser) -> String {
    let title = escape(&browser.title);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    html.push_str(&finder(browser, &title));
    html.push_str("<main>\n");
    html.push_str(&overview(browser));
    for question in &browser.questions {
        push_question(&mut html, browser, question);
    }
    html.push_str("<p class=\"nothing\" hidden>No question passes the filters.</p>\n</main>\n");
    html.push_str(&format!("<script>{SCRIPT}</script>\n</body>\n</html>\n"));
    html
}

/// Renders title, filters and the list of questions.
fn finder(browser: &Browser, title: &str) -> String {
    let mut categories: Vec<&str> = Vec::new();
    for question in &browser.questions {
        if !categories.contains(&question.category.as_str()) {
            categories.push(&question.category);
        }
    }
    let options: String =
        categories.iter().map(|name| format!("<option>{}</option>", escape(name))).collect();
    let (low, high) = browser.scale;
    let score = |id: &str, label: &str, value: f64| {
        format!(
            "<label>{label} <input id=\"{id}\" type=\"number\" min=\"{low}\" max=\"{high}\" step=\"0.5\" \
             value=\"{value}\"></label>"
        )
    };
    let models: String = browser
        .models
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let name = escape(name);
            format!(
                "<label class=\"chip\"><input type=\"checkbox\" data-model=\"{at}\" checked> {name}</label>\n"
            )
        })
        .collect();
    let entries: String = browser.questions.iter().map(|question| entry(browser, question)).collect();
    format!(
        "<aside>\n<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n<details class=\"finder\" open>\n\
         <summary>Questions <output id=\"count\">{}</output></summary>\n<form>\n\
         <label class=\"wide\">Category <select id=\"category\"><option value=\"\">all</option>{options}</select></label>\n\
         {}\n{}\n<label class=\"wide\">Words <input id=\"words\" type=\"search\" placeholder=\"in question, answers, verdicts\"></label>\n\
         <label class=\"wide check\"><input id=\"missing\" type=\"checkbox\"> only where a verdict is missing</label>\n\
         <fieldset><legend>Models</legend>\n{models}</fieldset>\n</form>\n\
         <ol class=\"list\">\n<li><a href=\"#overview\">Overview</a></li>\n{entries}</ol>\n</details>\n</aside>\n",
        escape(&browser.lead),
        browser.questions.len(),
        score("low", "Score from", low),
        score("high", "to", high),
    )
}

/// Renders a question's line in the list, with a score of each model.
fn entry(browser: &Browser, question: &BrowsedQuestion) -> String {
    let scores: String = (0..browser.models.len())
        .map(|model| {
            let score = question.scores.get(model).copied().flatten();
            badge(score, browser.scale, &format!(" data-model=\"{model}\""))
        })
        .collect();
    let words = question.turns.first().map_or("", |turn| turn.prompt.trim());
    let words: String = words.chars().take(90).collect();
    format!(
        "<li data-question=\"{0}\"><a href=\"#q{0}\"><span class=\"id\">{0}</span> \
         <span class=\"category\">{1}</span><span class=\"scores\">{scores}</span>\
         <span class=\"words\">{2}</span></a></li>\n",
        escape(&question.id),
        escape(&question.category),
        escape(&words),
    )
}

/// Renders a score as a mark whose color is its position on the scale.
fn badge(score: Option<f64>, (low, high): (f64, f64), attributes: &str) -> String {
    match score.filter(|score| score.is_finite()) {
        Some(score) => {
            let share = if high > low { ((score - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 };
            let digits = format!("{score:.1}");
            let digits = digits.strip_suffix(".0").unwrap_or(&digits);
            format!("<span class=\"score\" style=\"--share:{share:.2}\"{attributes}>{digits}</span>")
        }
        None => format!("<span class=\"score none\" title=\"no score\"{attributes}>–</span>"),
    }
}

fn overview(browser: &Browser) -> String {
    let mut html = String::from("<article id=\"overview\">\n<h2>Overview</h2>\n");
    for (svg, caption) in &browser.figures {
        html.push_str(&format!(
            "<figure class=\"chart\">{}{svg}</div><figcaption>{}</figcaption></figure>\n",
            scrollable(caption),
            escape(caption)
        ));
    }
    for table in &browser.tables {
        html.push_str(&table_html(table, &format!("table-{}", escape(&table.id))));
    }
    html.push_str("</article>\n");
    html
}

fn push_question(html: &mut String, browser: &Browser, question: &BrowsedQuestion) {
    html.push_str(&format!(
        "<article id=\"q{0}\" data-question=\"{0}\" data-category=\"{1}\">\n<header><h2>Question {0} \
         <span class=\"category\">{1}</span></h2><nav><a class=\"step\" data-step=\"-1\" href=\"#\">← previous</a> \
         <a class=\"step\" data-step=\"1\" href=\"#\">next →</a></nav></header>\n",
        escape(&question.id),
        escape(&question.category)
    ));
    for (at, turn) in question.turns.iter().enumerate() {
        push_turn(html, browser, turn, at + 1);
    }
    html.push_str("</article>\n");
}

fn push_turn(html: &mut String, browser: &Browser, turn: &BrowsedTurn, number: usize) {
    html.push_str(&format!(
        "<section>\n<h3>Turn {number}</h3>\n<div class=\"prompt\">{}</div>\n",
        escape(turn.prompt.trim_end())
    ));
    if let Some(reference) = &turn.reference {
        html.push_str(&format!(
            "<details class=\"reference\"><summary>Reference answer</summary>{}</details>\n",
            said(reference)
        ));
    }
    html.push_str("<div class=\"answers\">\n");
    for (at, model) in browser.models.iter().enumerate() {
        let answer = turn.answers.get(at).and_then(Option::as_ref);
        html.push_str(&answer_card(browser, at, model, answer));
    }
    html.push_str("</div>\n");
    if !turn.comparisons.is_empty() {
        html.push_str("<div class=\"comparisons\">\n");
        html.extend(turn.comparisons.iter().map(comparison));
        html.push_str("</div>\n");
    }
    html.push_str("</section>\n");
}

fn answer_card(browser: &Browser, at: usize, model: &str, answer: Option<&BrowsedAnswer>) -> String {
    let model = escape(model);
    let Some(answer) = answer else {
        return format!(
            "<div class=\"answer\" data-model=\"{at}\"><h4>{model}</h4><p class=\"muted\">no answer</p></div>\n"
        );
    };
    let badges: String = answer
        .verdicts
        .iter()
        .map(|verdict| {
            let attributes = match verdict.score {
                Some(score) => format!(" data-score=\"{score}\" title=\"{}\"", escape(&verdict.judge)),
                None => " data-score=\"\"".to_owned(),
            };
            badge(verdict.score, browser.scale, &attributes)
        })
        .collect();
    let verdicts: String = answer
        .verdicts
        .iter()
        .map(|verdict| {
            format!(
                "<details class=\"verdict\"><summary>{} says</summary>{}</details>\n",
                escape(&verdict.judge),
                said(&verdict.text)
            )
        })
        .collect();
    format!(
        "<div class=\"answer\" data-model=\"{at}\"><h4>{model}<span class=\"scores\">{badges}</span></h4>\
         {}\n{verdicts}</div>\n",
        said(&answer.text)
    )
}

/// Renders a message, with fenced code blocks.
fn said(words: &str) -> String {
    let mut html = String::from("<div class=\"said\">");
    let mut code = false;
    for (at, line) in words.trim_end().lines().enumerate() {
        if line.trim_start().starts_with("```") {
            html.push_str(if code { "</code>" } else { "<code>" });
            code = !code;
        } else {
            let after_mark = html.ends_with("code>");
            html.push_str(if at == 0 || after_mark { "" } else { "\n" });
            html.push_str(&escape(line));
        }
    }
    html.push_str(if code { "</code></div>" } else { "</div>" });
    html
}

fn comparison(comparison: &BrowsedComparison) -> String {
    let games: String = comparison
        .games
        .iter()
        .map(|(first, second, words)| {
            format!("<h5>A is {}, B is {}</h5>{}", escape(first), escape(second), said(words))
        })
        .collect();
    format!(
        "<details class=\"verdict\"><summary>{} compares: <b>{}</b></summary>{games}</details>\n",
        escape(&comparison.judge),
        escape(&comparison.outcome)
    )
}
