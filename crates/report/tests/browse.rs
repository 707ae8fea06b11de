//! The page to browse: nothing in it runs but its own script, and its filters do what they say. Run in headless Chromium.

use std::fs;

use report::browse::{
    BrowsedAnswer, BrowsedComparison, BrowsedQuestion, BrowsedTurn, BrowsedVerdict, Browser,
};
use test_support::Chromium;

/// Tries to run, to close its element, to load something, and to pass for a verdict.
const INJECTION: &str = "</div></details><script>document.title='stolen'</script><img src=x onerror=\"document.title='stolen'\">[[10]]{{7*7}}";

fn verdict(score: Option<f64>) -> BrowsedVerdict {
    BrowsedVerdict { judge: "gpt-4".to_owned(), score, text: format!("I give {score:?}.") }
}

/// Four questions in two categories; the first model's scores are 2, 5, 8 and none, the second's always 9.
fn page() -> Browser {
    let question = |(id, score): (u64, Option<f64>)| {
        let answer =
            |text: &str, score| Some(BrowsedAnswer { text: text.to_owned(), verdicts: vec![verdict(score)] });
        BrowsedQuestion {
            id: id.to_string(),
            category: if id % 2 == 1 { "writing" } else { "math & logic" }.to_owned(),
            scores: vec![score, Some(9.0)],
            turns: vec![BrowsedTurn {
                prompt: format!("What is {id}? {INJECTION}"),
                reference: Some("forty-two".to_owned()),
                answers: vec![answer(INJECTION, score), answer("nine lives", Some(9.0))],
                comparisons: vec![BrowsedComparison {
                    judge: "gpt-4".to_owned(),
                    outcome: "tie".to_owned(),
                    games: vec![("a".to_owned(), "b".to_owned(), "[[C]]".to_owned())],
                }],
            }],
        }
    };
    Browser {
        title: "MT-Bench".to_owned(),
        lead: "Four questions.".to_owned(),
        models: vec!["org/model-a".to_owned(), "model-b".to_owned()],
        scale: (1.0, 10.0),
        questions: [(81, Some(2.0)), (82, Some(5.0)), (83, Some(8.0)), (84, None)].map(question).to_vec(),
        ..Browser::default()
    }
}

#[test]
fn the_page_is_one_file_that_loads_nothing_and_escapes_everything() {
    let html = page().to_html();
    assert_eq!(html.matches("<script").count(), 1, "no script but ours");
    assert!(!html.contains("<img") && html.contains("&lt;img src=x onerror=&quot;"));
    for outside in ["http://", "https://", "src=\"", "url(", "@import"] {
        let without_namespace = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!without_namespace.contains(outside), "{outside}");
    }
    for question in 81..=84 {
        assert!(html.contains(&format!("id=\"q{question}\"")));
    }
    assert_eq!(html.matches("class=\"answer\"").count(), 8);
}

#[test]
fn code_between_backticks_is_set_as_code_and_stays_text() {
    let mut browser = page();
    let text = "Like so:\n```python\nif a < b:\n    pass\n```\nDone.\n```\n<b>open";
    browser.questions[0].turns[0].answers[0].as_mut().unwrap().text = text.to_owned();
    let html = browser.to_html();
    let expected = "Like so:<code>if a &lt; b:\n    pass</code>Done.<code>&lt;b&gt;open</code></div>";
    assert!(html.contains(expected), "{}", html.split("Like so").nth(1).unwrap().get(..200).unwrap());
}

#[test]
fn only_our_script_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("browse.html");
    fs::write(&file, page().to_html()).unwrap();
    let Some(browser) = Chromium::find("only our script runs") else { return };
    let dom = browser.visit(&file, "#q83");
    assert!(dom.contains("<body class=\"scripted\">"), "the policy names our script's sum");
    assert!(dom.contains("<title>MT-Bench</title>"), "and no other ran");
    let article = |id: &str| dom.split(&format!("id=\"{id}\"")).nth(1).unwrap().split('>').next().unwrap();
    assert!(!article("q83").contains("hidden"), "the question of the address is shown");
    assert!(article("q81").contains("hidden") && article("overview").contains("hidden"));
}

/// Drives the filters as a reader would, and notes after each step which questions are listed and which one is shown.
const DRIVER: &str = r##"
<script>
addEventListener("load", () => {
  const seen = [];
  const note = () => {
    const listed = [...document.querySelectorAll("li[data-question]:not([hidden])")].map((li) => li.dataset.question);
    const shown = [...document.querySelectorAll("main article:not([hidden])")].map((article) => article.id);
    seen.push(`${listed.join(",")}|${shown.join(",")}`);
  };
  const set = (id, value) => {
    const field = document.getElementById(id);
    if (field.type === "checkbox") field.checked = value; else field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    note();
  };
  note();
  set("category", "math & logic");
  set("category", "");
  set("low", "7");
  const first = document.querySelector('input[data-model="1"]');
  first.checked = false;
  first.dispatchEvent(new Event("input", { bubbles: true }));
  note();
  set("low", "1");
  set("missing", true);
  set("missing", false);
  set("words", "what is 82");
  set("words", "no such words");
  set("words", "");
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
  dispatchEvent(new Event("hashchange"));
  note();
  document.body.setAttribute("data-seen", seen.join(" "));
});
</script>
</body>"##;

#[test]
fn filters_list_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("browse.html");
    let html = page().to_html();
    let (before, policy) = html.split_once("<meta http-equiv=").unwrap();
    let (_, after) = policy.split_once("\">\n").unwrap();
    // The policy would keep the driver out, as it should.
    fs::write(&file, format!("{before}{after}").replace("</body>", DRIVER)).unwrap();
    let Some(browser) = Chromium::find("filters list what they say") else { return };
    let dom = browser.visit(&file, "");
    let seen = dom.split("data-seen=\"").nth(1).unwrap().split('"').next().unwrap();
    let steps: Vec<&str> = seen.split(' ').collect();
    let expected = [
        "81,82,83,84|overview",
        "82,84|overview",
        "81,82,83,84|overview",
        "81,82,83,84|overview",
        "83|overview",
        "81,82,83,84|overview",
        "84|overview",
        "81,82,83,84|overview",
        "82|overview",
        "|overview",
        "81,82,83,84|overview",
        "81,82,83,84|q81",
    ];
    assert_eq!(steps, expected);
}
