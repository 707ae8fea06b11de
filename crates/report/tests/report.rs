//! The report page.

mod markup;

use std::collections::BTreeSet;
use std::fs;

use markup::{Element, parse};
use report::figure::{GroupedBars, Series};
use report::page::{Dialogue, Page, Report, Section};
use report::table::{Align, Column, Table, Value};
use test_support::Chromium;

fn table(id: &str) -> Table {
    Table {
        id: id.into(),
        title: "Scores & <more>".into(),
        columns: vec![
            Column::new("Policy", Align::Left),
            Column::grouped("Judge", "Score", Align::Right),
            Column::grouped("Judge", "Difference", Align::Right),
        ],
        rows: vec![vec![
            Value::text("<script>alert(1)</script>"),
            Value::missing("not \"judged\""),
            Value::Difference { value: 0.5, low: 0.25, high: 0.75, decimals: 2 },
        ]],
        notes: vec!["One note.".into()],
    }
}

fn report() -> Report {
    let figure = GroupedBars {
        title: "Bars".into(),
        y_label: "Score".into(),
        y_range: (1.0, 10.0),
        groups: vec!["Writing".into()],
        series: vec![Series { name: "DPO".into(), values: vec![Some((5.0, 4.0, 6.0))] }],
    };
    let dialogue = Dialogue {
        heading: "Writing".into(),
        turns: vec![("User".into(), "a < b\n  && c".into()), ("Policy".into(), "</p></article>".into())],
        note: Some("Gold 7.".into()),
    };
    Report {
        title: "What <preferences> do".into(),
        lead: vec!["Run `rq1 --set 'a=\"b\"'` & see; a lone ` stays.".into()],
        sections: vec![
            Section {
                heading: "Scores".into(),
                paragraphs: vec!["Words.".into()],
                tables: vec![table("table-1"), table("table-2")],
                figures: vec![(figure.to_svg(), "First.".into()), (figure.to_svg(), "Second.".into())],
                dialogues: vec![dialogue],
                pages: vec![Page {
                    heading: "A <claim>".into(),
                    paragraphs: vec!["Alone.".into()],
                    tables: vec![table("table-1")],
                    figures: vec![(figure.to_svg(), "Third.".into())],
                }],
            },
            // Names that would claim one anchor.
            Section { heading: "Scores".into(), tables: vec![table("scores")], ..Section::default() },
            Section { heading: "Provenance".into(), ..Section::default() },
        ],
        provenance: vec![
            ("Seeds".into(), "0, 1".into()),
            ("Recipe".into(), "seed = 0\n[loss]\nbeta = 0.1\n".into()),
        ],
        files: vec![("every score".into(), "results.parquet".into())],
    }
}

fn page() -> (String, Vec<Element>, Vec<String>) {
    let html = report().to_html();
    let (elements, words) = parse(&html);
    (html, elements, words)
}

#[test]
fn the_page_needs_nothing_from_outside() {
    let (html, elements, _) = page();
    for element in &elements {
        assert!(!["script", "link", "img", "iframe"].contains(&element.name.as_str()), "{element:?}");
        for (name, value) in &element.attributes {
            assert!(name == "xmlns" || !value.contains("//"), "{element:?}");
            assert!(!name.starts_with("on") && name != "src", "{element:?}");
        }
    }
    assert!(!html.contains("url(") && !html.contains("@import"));
}

#[test]
fn every_link_has_its_target_and_every_anchor_is_one() {
    let (_, elements, _) = page();
    let ids: Vec<_> = elements.iter().filter_map(|element| element.attribute("id")).collect();
    let unique: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
    let links: Vec<_> = elements.iter().filter_map(|element| element.attribute("href")).collect();
    assert_eq!(links.len(), 3 + 3 + 1 + 1, "sections, tables, provenance, a file beside the page");
    assert!(links.contains(&"results.parquet"));
    for link in links.into_iter().filter(|link| link.starts_with('#')) {
        assert!(unique.contains(link.trim_start_matches('#')), "{link} in {unique:?}");
    }
    assert!(unique.contains("table-1") && unique.contains("figure-3"));
}

#[test]
fn words_are_words_and_code_is_code() {
    let (html, _, words) = page();
    let has = |wanted: &str| words.iter().any(|words| words == wanted);
    assert!(has("rq1 --set 'a=\"b\"'"), "code between backticks");
    assert!(has(" & see; a lone ` stays."));
    assert!(has("<script>alert(1)</script>"));
    assert!(has("a < b\n  && c"), "line breaks of a turn");
    assert!(has("</p></article>"));
    assert!(html.contains("<strong>+0.50 <span class=\"ci\">[+0.25, +0.75]</span></strong>"));
    assert!(has("\nseed = 0\n[loss]\nbeta = 0.1"), "{words:?}");
}

#[test]
fn rows_of_a_table_fill_its_columns() {
    let (_, elements, _) = page();
    let start = elements.iter().position(|element| element.name == "table").expect("a table");
    let header = |element: &&Element| element.name == "th" && element.attribute("scope") != Some("row");
    let first: Vec<_> = elements[start..].iter().skip_while(|element| element.name != "tr").skip(1).collect();
    let top = first.iter().take_while(|element| element.name != "tr").filter(|element| header(element));
    let wide: f64 = top.map(|cell| cell.attribute("colspan").map_or(1.0, |_| cell.number("colspan"))).sum();
    assert_eq!(wide, 3.0);
}

#[test]
fn the_same_report_is_the_same_page() {
    assert_eq!(report().to_html(), report().to_html());
}

#[test]
fn an_empty_report_is_a_page() {
    parse(&Report::default().to_html());
}

/// Shows the page as it is in frames of these widths and notes, frame by frame: how far it is wider than its frame, how many
/// figures have a size, and which links lead nowhere.
fn frames(html: &str, widths: &[u32]) -> String {
    let quoted = html.replace('&', "&amp;").replace('"', "&quot;");
    let frame = |width: &u32| {
        format!("<iframe style=\"width:{width}px;height:800px;border:0\" srcdoc=\"{quoted}\"></iframe>\n")
    };
    let frames: String = widths.iter().map(frame).collect();
    format!("<!DOCTYPE html>\n<body>\n{frames}{MEASURE}</body>\n")
}

const MEASURE: &str = r##"<script>
addEventListener("load", () => {
  const measured = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument;
    const wider = Math.max(0, page.documentElement.scrollWidth - frame.clientWidth);
    const drawn = [...page.querySelectorAll("svg")].filter((svg) => svg.getBoundingClientRect().width > 100).length;
    const links = [...page.querySelectorAll("a")].map((link) => link.getAttribute("href"));
    const broken = links.filter((href) => href.startsWith("#") && !page.getElementById(href.slice(1)));
    return `${wider}|${drawn}|${links.length > 0}|${broken.join(",")}`;
  });
  document.body.setAttribute("data-measured", measured.join(" "));
});
</script>
"##;

#[test]
fn it_fits_a_desktop_and_a_phone() {
    let Some(browser) = Chromium::find("it_fits_a_desktop_and_a_phone") else { return };
    let mut report = report();
    // A table that no phone is wide enough for, and a word that is as long.
    let columns = (0..24).map(|at| Column::new(format!("Column {at}"), Align::Right)).collect();
    let row = (0..24).map(|_| Value::Interval { value: 5.0, low: 4.0, high: 6.0, decimals: 2 }).collect();
    report.sections[0].tables.push(Table { columns, rows: vec![row], ..table("wide") });
    report.sections[0].paragraphs.push("m".repeat(300));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("frames.html");
    fs::write(&file, frames(&report.to_html(), &[1280, 390])).unwrap();
    let dom = browser.visit(&file, "");
    let measured = dom.rsplit("data-measured=\"").next().unwrap().split('"').next().unwrap();
    assert_eq!(measured, "0|3|true| 0|3|true|");
}
