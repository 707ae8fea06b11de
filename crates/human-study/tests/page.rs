//! Tests the raters' page in a real browser: keys, stored progress, the returned file.
//!
//! The tests need `chromium` (the Debian package of that name) on the path; without it, they print that they are skipped,
//! and pass.

mod support;

use std::fs;
use std::path::Path;

use human_study::StudySheets;
use seeds::Seeds;
use stats::Choice;
use support::{comparison, raters};
use test_support::Chromium;

/// Returns the page's DOM after `keys` were pressed.
fn visit(browser: Chromium, page: &Path, keys: &str) -> String {
    browser.visit(page, &format!("#keys={keys}"))
}

/// Returns the text of the element with this id.
fn text<'a>(dom: &'a str, id: &str) -> &'a str {
    let (_, from) = dom.split_once(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id} in {dom}"));
    let (_, from) = from.split_once('>').unwrap();
    from.split_once("</").unwrap().0
}

fn written(dir: &Path) -> StudySheets {
    let study = comparison(3).sheets(&raters(), &Seeds::new(5)).unwrap();
    study.write(dir).unwrap();
    study
}

#[test]
fn keys_rate_and_progress_survives_a_restart_of_the_browser() {
    let Some(browser) = Chromium::find("keys_rate_and_progress_survives_a_restart_of_the_browser") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let study = written(dir.path());
    let page = dir.path().join("sheet-cid--dr-.html");

    let dom = visit(browser, &page, "Enter,1,2,x,=,ArrowLeft,1");
    assert_eq!((text(&dom, "position"), text(&dom, "done")), ("4 of 6", "· 3 rated"), "x is not a choice");
    let dom = visit(browser, &page, "");
    assert_eq!((text(&dom, "position"), text(&dom, "done")), ("4 of 6", "· 3 rated"), "after a restart");
    let dom = visit(browser, &page, "2,2,=");
    assert_eq!(text(&dom, "end-title"), "Done. Thank you!");

    let file = dir.path().join("ratings.csv");
    fs::write(&file, text(&dom, "ratings")).unwrap();
    let ratings = study.key.unblind(&[file]).unwrap();
    let sheet = &study.sheets[2];
    let pressed = ["1", "2", "1", "2", "2", "="];
    for (item, pressed) in sheet.items.iter().zip(pressed) {
        let dpo_is = if item.answers[0][0].contains("dpo") { "1" } else { "2" };
        let expected = match pressed {
            "=" => Choice::Equal,
            _ if pressed == dpo_is => Choice::Model1,
            _ => Choice::Model2,
        };
        let question = item.prompts[0].trim_start_matches("What is ").split(',').next().unwrap();
        let name = format!("{}-{}", 81 + question.parse::<u64>().unwrap(), item.prompts.len());
        let rating = ratings.iter().find(|rating| rating.item == name).unwrap();
        assert_eq!(rating.choice, expected, "{name}");
    }
}

#[test]
fn answers_are_shown_as_text_and_code_not_as_markup() {
    let Some(browser) = Chromium::find("answers_are_shown_as_text_and_code_not_as_markup") else { return };
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let dom = visit(browser, &dir.path().join("sheet-ann.html"), "Enter,1");
    let (_, shown) = dom.split_once("id=\"answer-1\"").unwrap();
    let shown = shown.split_once("<footer").unwrap().0;
    assert!(shown.contains("&lt;/script&gt;") && !shown.contains("<b>"), "{shown}");
    assert!(shown.contains("<pre>code, "), "fenced text of the earlier answer is code: {shown}");
    assert!(text(&dom, "category").contains("turn 2"));
}
