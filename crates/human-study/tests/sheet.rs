//! The sheet is one file without external references, whatever the answers contain.

use human_study::{ComparisonItem, ComparisonSheet};

fn sheet(answer: &str) -> ComparisonSheet {
    ComparisonSheet {
        study: "0123456789abcdef".to_owned(),
        rater: "<Ann>".to_owned(),
        instructions: "Choose.".to_owned(),
        items: vec![ComparisonItem {
            item: "1".to_owned(),
            category: "writing".to_owned(),
            prompts: vec!["Why?".to_owned()],
            answers: [vec![answer.to_owned()], vec!["Because.".to_owned()]],
        }],
    }
}

#[test]
fn answers_cannot_escape_their_element() {
    let html = sheet("</script><script>alert(1)</script><!-- ").to_html();
    assert_eq!(html.matches("</script>").count(), 2, "one for the data and one for the program");
    assert!(!html.contains("alert(1)</script>") && html.contains("\\u003c/script>"));
    assert!(html.contains("<title>Compare answers: &lt;Ann&gt;</title>"));
    let (_, data) = html.split_once("id=\"sheet\">").unwrap();
    let data: serde_json::Value = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(data["items"][0]["answers"][0][0], "</script><script>alert(1)</script><!-- ");
}

#[test]
fn nothing_is_fetched_or_sent() {
    let html = sheet("x").to_html();
    assert!(html.contains("default-src 'none'"));
    for way_out in
        ["http:", "https:", "src=", "@import", "url(", "fetch(", "XMLHttpRequest", "<link", "sendBeacon"]
    {
        assert!(!html.contains(way_out), "{way_out}");
    }
}
