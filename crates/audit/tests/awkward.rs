//! Files in the forms that people publish: every layout is detected, and what cannot be audited is refused by name.

use std::path::Path;

use audit::{Audit, AuditError, Dataset, Fault, Options, Plan, ReadAs, Unpaired, audit};
use pref_data::Text;

fn read(name: &str, content: &str) -> Result<Dataset, AuditError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("the folder is writable");
    Dataset::read(&path, &ReadAs::default())
}

fn audited(name: &str, content: &str) -> (String, Audit) {
    let data = read(name, content).unwrap_or_else(|error| panic!("{name}: {error}"));
    let found = audit(&data, &Options::new(Plan::MT_BENCH)).expect("an audit");
    assert!(found.to_text().lines().all(|line| line.chars().count() <= 100), "{}", found.to_text());
    assert!(found.to_html().contains("</html>") && found.to_markdown().starts_with("# Audit"));
    (data.layout().to_owned(), found)
}

#[test]
fn layouts_are_detected() {
    let shp = |at: usize| {
        format!(
            "{{\"post_id\": \"p{at}\", \"domain\": \"cooking_train\", \"history\": \"How {at}?\", \"c_root_id_A\": \"a\", \
             \"c_root_id_B\": \"b\", \"human_ref_A\": \"So.\", \"human_ref_B\": \"Not so.\", \"labels\": {}, \
             \"score_ratio\": 5.0}}\n",
            at % 2
        )
    };
    let dialogue = "\\n\\nHuman: Hi\\n\\nAssistant: Hello\\n\\nHuman: Why?\\n\\nAssistant:";
    for (layout, name, content) in [
        ("pairs", "a.jsonl", r#"{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}"#.to_owned()),
        ("pairs", "a.json", r#"[{"question": "2 + 2?", "chosen": "4", "rejected": "5"}]"#.to_owned()),
        ("pairs", "a.tsv", "prompt\tchosen\trejected\n2 + 2?\t4\t5\n".to_owned()),
        ("pairs", "bom.csv", "\u{feff}prompt,chosen,rejected\n2 + 2?,4,5\n".to_owned()),
        (
            "pairs",
            "sharegpt.jsonl",
            r#"{"prompt": [{"from": "human", "value": "Hi"}], "chosen": [{"from": "gpt", "value": "A"}], "rejected": [{"from": "gpt", "value": "B"}]}"#.to_owned(),
        ),
        ("hh-rlhf", "hh.jsonl", format!(r#"{{"chosen": "{dialogue} So.", "rejected": "{dialogue} No."}}"#)),
        ("shp", "shp.jsonl", (0..4).map(shp).collect()),
        (
            "gair",
            "gair.jsonl",
            r#"{"query": "Why?", "response_1": {"content": "So."}, "response_2": {"content": "No."}, "preference_labels": {"human": "response_1", "gpt-4": "response_2"}, "scenario_auto-j": "chat"}"#.to_owned(),
        ),
        (
            "records",
            "records.jsonl",
            r#"{"id": "1", "prompt": "Why?", "responses": ["So.", "No.", "Because."], "labels": {"human": 2}}"#.to_owned(),
        ),
    ] {
        let (found, audit) = audited(name, &content);
        assert_eq!(found, layout, "{name}");
        assert!(audit.pairs > 0 && audit.usable_pairs == audit.pairs, "{name}: {:?}", audit.findings);
    }
}

#[test]
fn other_files_are_refused_with_what_to_do() {
    for (name, content, expected) in [
        (
            "lfs.jsonl",
            "version https://git-lfs.github.com/spec/v1\noid sha256:4958\nsize 752801\n",
            "git lfs pull",
        ),
        (
            "unpaired.jsonl",
            r#"{"prompt": "The sky is", "completion": " blue.", "label": true}"#,
            "no prompt with a desirable and an undesirable response",
        ),
        (
            "labels.csv",
            "prompt,completion,label\na,x,maybe\na,y,0\n",
            "1 single responses and 1 unreadable rows",
        ),
        (
            "images.jsonl",
            r#"{"images": ["a.png"], "prompt": "What?", "chosen": "A cat", "rejected": "A dog"}"#,
            "images",
        ),
        ("other.jsonl", r#"{"text": "nothing of this kind"}"#, "the columns are `text`"),
        (
            "repr.csv",
            "prompt,chosen,rejected\nHi,\"[{'role': 'user', 'content': 'x'}]\",b\n",
            "Python's text",
        ),
    ] {
        let error = read(name, content).expect_err(name);
        assert!(error.is_bad_input() && error.to_string().contains(expected), "{name}: {error}");
    }
}

#[test]
fn single_responses_are_paired_under_their_prompt() {
    let row = |prompt: &str, completion: &str, label: bool| {
        format!("{{\"prompt\": \"{prompt}\", \"completion\": \"{completion}\", \"label\": {label}}}\n")
    };
    let content = [
        row("2 + 2?", "5", false),
        row("1 + 1?", "2", true),
        row("2 + 2?", "4", true),
        row("2 + 2?", "four", true),
        row("1 + 1?", "2", false),
        row("3 + 3?", "6", true),
    ]
    .concat();
    let (layout, found) = audited("unpaired.jsonl", &content);
    assert_eq!((layout.as_str(), found.rows, found.pairs), ("unpaired", 6, 2));
    assert_eq!(found.contents.unpaired, Some(Unpaired { responses: 6, unmatched: 2 }));
    let identical =
        found.findings.iter().find(|finding| finding.fault == Fault::Identical).expect("both labels");
    assert_eq!((identical.count, identical.examples[0].place.as_str()), (1, "line 2"));
    let words = found.to_text().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("no counterpart: 2 responses") && words.contains("Remove 1 unusable pair"),
        "{words}"
    );

    let data = read("unpaired.jsonl", &content).expect("pairs");
    let texts = |pair: usize| [data.chosen(pair).clone(), data.rejected(pair).clone()];
    let plain = |texts: [&str; 2]| texts.map(|text| Text::Plain(text.to_owned()));
    assert_eq!([texts(0), texts(1)], [plain(["2", "2"]), plain(["4", "5"])]);
    let out = tempfile::tempdir().expect("a folder");
    let options = audit::CleanOptions::default();
    let error = audit::clean(&data, &found, &options, &out.path().join("clean.jsonl")).expect_err("no pairs");
    assert!(matches!(error, AuditError::SingleResponses { .. }) && error.is_bad_input());
}

#[test]
fn bad_rows_are_counted_and_shown() {
    let content = [
        r#"{"prompt": "1?", "chosen": "A", "rejected": "B"}"#,
        r#"{"prompt": "2?", "chosen": "", "rejected": "B"}"#,
        r#"{"prompt": "3?", "chosen": "broken \ud83d", "rejected": "B"}"#,
        r#"{"prompt": [{"role": "user", "content": "4?"}], "chosen": [{"role": "user", "content": "A"}], "rejected": [{"role": "assistant", "content": "B"}]}"#,
        r#"{"prompt": [{"role": "user", "content": "5?"}, {"role": "assistant", "content": "6"}], "chosen": "A", "rejected": "B"}"#,
    ]
    .join("\n");
    let (_, found) = audited("rows.jsonl", &content);
    assert_eq!((found.rows, found.pairs, found.contents.unreadable), (5, 2, 3));
    let first = &found.contents.unreadable_examples[0];
    assert_eq!(
        (first.place.as_str(), first.text.as_str()),
        ("rows.jsonl, line 2", "field `chosen` is empty; fill it or remove the record")
    );
    let roles = found.findings.iter().find(|finding| finding.fault == Fault::Roles).expect("wrong roles");
    assert_eq!((roles.count, roles.examples[0].place.as_str()), (1, "line 5"));
    assert!(found.shortcuts.is_empty(), "two pairs predict nothing");
    assert!(found.verdict.starts_with("Too few pairs for a verdict: 2 of 2 pairs"), "{}", found.verdict);
    assert!(found.to_text().contains("; 3 rows cannot be read"));
}

#[test]
fn tools_make_prompts_different() {
    let row = |tool: &str, chosen: &str, rejected: &str| {
        format!(
            "{{\"prompt\": [{{\"role\": \"user\", \"content\": \"Now?\"}}], \"chosen\": [{{\"role\": \"assistant\", \
             \"content\": \"{chosen}\"}}], \"rejected\": [{{\"role\": \"assistant\", \"content\": \"{rejected}\"}}], \
             \"tools\": [{{\"name\": \"{tool}\"}}]}}\n"
        )
    };
    let (_, found) = audited("tools.jsonl", &(row("a", "x", "y") + &row("b", "y", "x")));
    assert_eq!((found.contradictions, found.contents.prompts), (0, 2));
    let (_, found) = audited("tools.jsonl", &(row("a", "x", "y") + &row("a", "y", "x")));
    assert_eq!((found.contradictions, found.contents.prompts), (1, 1));
}

#[test]
fn calls_of_tools_are_no_empty_response() {
    let call = r#"{"role": "assistant", "content": null, "tool_calls": [{"name": "now", "arguments": {"zone": "A"}}]}"#;
    let content = format!(
        r#"{{"prompt": [{{"role": "user", "content": "Now?"}}], "chosen": [{call}], "rejected": [{}]}}"#,
        call.replace("\"A\"", "\"B\"")
    );
    let (_, found) = audited("calls.jsonl", &content);
    assert_eq!((found.count(Fault::EmptyResponse), found.count(Fault::Identical)), (0, 0));
}

#[test]
fn real_dialogues_are_audited_where_they_are() {
    let Some(folder) = std::env::var_os("PREF_REAL_DATA") else { return };
    let folder = Path::new(&folder);
    let data = Dataset::read(&folder.join("hh-rlhf/harmless-base-test.jsonl.gz"), &ReadAs::default())
        .expect("pairs");
    let bench = audit::Bench::read(&folder.join("mt_bench/question.jsonl")).expect("questions");
    let found =
        audit(&data, &Options { benches: vec![bench], ..Options::new(Plan::MT_BENCH) }).expect("an audit");
    assert_eq!((data.layout(), found.pairs), ("hh-rlhf", 2312));
    // The set is known for identical and repeated pairs, and for answers to some of which a refusal is preferred.
    assert!(found.usable_pairs > 2000 && found.usable_pairs < 2312);
}
