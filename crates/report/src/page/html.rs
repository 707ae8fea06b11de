//! The markup of the page; its style is in `page.css`.

use std::collections::BTreeSet;

use super::{Dialogue, Page, Report, Section};
use crate::escape::escape;
use crate::figure::Svg;
use crate::table::{Table, caption, scrollable, table_html};

const STYLE: &str = include_str!("page.css");

/// Forbids all outside resources.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

pub(super) fn render(report: &Report) -> String {
    let title = escape(&report.title);
    let anchors = Anchors::new(report);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
    );
    push_paragraphs(&mut html, &report.lead, " class=\"lead\"");
    html.push_str("</header>\n");
    html.push_str(&contents(report, &anchors));
    html.push_str("<main>\n");
    let mut figures = 0;
    for (section, anchors) in report.sections.iter().zip(&anchors.sections) {
        push_section(&mut html, section, anchors, &mut figures);
    }
    html.push_str(&provenance(report, &anchors.provenance));
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

/// The anchors of the list of contents, each unique on the page.
struct Anchors {
    sections: Vec<SectionAnchors>,
    provenance: String,
}

struct SectionAnchors {
    heading: String,
    tables: Vec<String>,
}

impl Anchors {
    fn new(report: &Report) -> Self {
        let mut taken = BTreeSet::new();
        // Tables first, so that links to `#table-1` hold whatever the sections are called.
        let tables: Vec<Vec<_>> = report
            .sections
            .iter()
            .map(|section| section.tables.iter().map(|table| claim(&mut taken, &slug(&table.id))).collect())
            .collect();
        let sections = report
            .sections
            .iter()
            .zip(tables)
            .map(|(section, tables)| SectionAnchors {
                heading: claim(&mut taken, &slug(&section.heading)),
                tables,
            })
            .collect();
        Self { sections, provenance: claim(&mut taken, "provenance") }
    }
}

fn claim(taken: &mut BTreeSet<String>, wanted: &str) -> String {
    let mut anchor = wanted.to_owned();
    let mut copy = 1;
    while !taken.insert(anchor.clone()) {
        copy += 1;
        anchor = format!("{wanted}-{copy}");
    }
    anchor
}

fn slug(words: &str) -> String {
    let mut slug = String::new();
    for character in words.chars() {
        if character.is_alphanumeric() {
            slug.extend(character.to_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "section".to_owned() } else { slug.to_owned() }
}

fn contents(report: &Report, anchors: &Anchors) -> String {
    let link = |anchor: &str, words: &str| format!("<a href=\"#{anchor}\">{}</a>", inline(words));
    let table_link =
        |(anchor, table): (&String, &Table)| format!("<li>{}</li>\n", link(anchor, &caption(table)));
    let mut html =
        String::from("<nav aria-label=\"Contents\">\n<details>\n<summary>Contents</summary>\n<ol>\n");
    for (section, anchors) in report.sections.iter().zip(&anchors.sections) {
        html.push_str(&format!("<li>{}", link(&anchors.heading, &section.heading)));
        if !section.tables.is_empty() {
            let tables: String = anchors.tables.iter().zip(&section.tables).map(table_link).collect();
            html.push_str(&format!("\n<ul>\n{tables}</ul>\n"));
        }
        html.push_str("</li>\n");
    }
    if has_provenance(report) {
        html.push_str(&format!("<li>{}</li>\n", link(&anchors.provenance, PROVENANCE)));
    }
    html.push_str("</ol>\n</details>\n</nav>\n");
    html
}

const PROVENANCE: &str = "Provenance";

fn push_section(html: &mut String, section: &Section, anchors: &SectionAnchors, figures: &mut usize) {
    html.push_str(&format!(
        "<section aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1}</h2>\n",
        anchors.heading,
        inline(&section.heading)
    ));
    push_paragraphs(html, &section.paragraphs, "");
    for (table, anchor) in section.tables.iter().zip(&anchors.tables) {
        html.push_str(&table_html(table, anchor));
    }
    push_figures(html, &section.figures, figures);
    if !section.dialogues.is_empty() {
        html.push_str("<div class=\"dialogues\">\n");
        html.extend(section.dialogues.iter().map(dialogue));
        html.push_str("</div>\n");
    }
    for (number, page) in (1..).zip(&section.pages) {
        push_page(html, page, &format!("{}-{number}", anchors.heading), figures);
    }
    html.push_str("</section>\n");
}

fn push_page(html: &mut String, page: &Page, anchor: &str, figures: &mut usize) {
    html.push_str(&format!("<article class=\"page\">\n<h3>{}</h3>\n", inline(&page.heading)));
    push_paragraphs(html, &page.paragraphs, "");
    for (number, table) in (1..).zip(&page.tables) {
        html.push_str(&table_html(table, &format!("{anchor}-table-{number}")));
    }
    push_figures(html, &page.figures, figures);
    html.push_str("</article>\n");
}

fn push_figures(html: &mut String, all: &[(Svg, String)], figures: &mut usize) {
    for (svg, caption) in all {
        *figures += 1;
        html.push_str(&format!(
            "<figure class=\"chart\" id=\"figure-{figures}\">\n{}{svg}</div>\n\
             <figcaption><b>Figure {figures}.</b> {}</figcaption>\n</figure>\n",
            scrollable(&format!("Figure {figures}")),
            inline(caption)
        ));
    }
}

fn dialogue(dialogue: &Dialogue) -> String {
    let mut html = format!("<article class=\"dialogue\">\n<h3>{}</h3>\n", inline(&dialogue.heading));
    let asks = dialogue.turns.first().map(|(speaker, _)| speaker);
    for (speaker, text) in &dialogue.turns {
        let side = if Some(speaker) == asks { "ask" } else { "answer" };
        html.push_str(&format!(
            "<div class=\"turn {side}\"><span class=\"speaker\">{}</span><p>{}</p></div>\n",
            escape(speaker),
            escape(text.trim_end())
        ));
    }
    if let Some(note) = &dialogue.note {
        html.push_str(&format!("<p class=\"note\">{}</p>\n", inline(note)));
    }
    html.push_str("</article>\n");
    html
}

fn provenance(report: &Report, anchor: &str) -> String {
    if !has_provenance(report) {
        return String::new();
    }
    let mut html = format!(
        "<section class=\"provenance\" aria-labelledby=\"{anchor}\">\n<h2 id=\"{anchor}\">{PROVENANCE}</h2>\n<dl>\n"
    );
    for (name, value) in &report.provenance {
        let value = if value.trim_end().contains('\n') {
            // A line break right after `<pre>` is dropped by readers; this one is theirs.
            format!("<pre tabindex=\"0\">\n{}</pre>", escape(value.trim_end()))
        } else {
            inline(value)
        };
        html.push_str(&format!("<dt>{}</dt><dd>{value}</dd>\n", escape(name)));
    }
    if !report.files.is_empty() {
        let link = |(what, path): &(String, String)| {
            format!("<li><a href=\"{}\">{}</a>: {}</li>\n", escape(path), escape(path), inline(what))
        };
        let links: String = report.files.iter().map(link).collect();
        html.push_str(&format!("<dt>Files</dt><dd><ul class=\"files\">\n{links}</ul></dd>\n"));
    }
    html.push_str("</dl>\n</section>\n");
    html
}

fn has_provenance(report: &Report) -> bool {
    !report.provenance.is_empty() || !report.files.is_empty()
}

fn push_paragraphs(html: &mut String, paragraphs: &[String], attributes: &str) {
    for paragraph in paragraphs {
        html.push_str(&format!("<p{attributes}>{}</p>\n", inline(paragraph)));
    }
}

/// Returns escaped text with `` `code` `` as code; a single backtick stays.
fn inline(words: &str) -> String {
    let mut html = String::new();
    let mut rest = words;
    while let Some((before, code, after)) = next_code(rest) {
        html.push_str(&escape(before));
        html.push_str(&format!("<code>{}</code>", escape(code)));
        rest = after;
    }
    html.push_str(&escape(rest));
    html
}

fn next_code(words: &str) -> Option<(&str, &str, &str)> {
    let (before, from) = words.split_once('`')?;
    let (code, after) = from.split_once('`')?;
    Some((before, code, after))
}
