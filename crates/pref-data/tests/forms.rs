//! The forms in which people publish preferences: what is read of each, what is noted, what is refused.

use std::fs;

use pref_data::{Format, PreferenceRecord, ReadOptions, ReadReport, read_records_with};

/// A file of pairs, and the JSON of prompt, chosen and rejected of each row, or the end of the error.
struct Case {
    file: &'static str,
    content: &'static str,
    records: &'static [[&'static str; 3]],
    notes: &'static [&'static str],
}

const fn case(
    file: &'static str,
    content: &'static str,
    records: &'static [[&'static str; 3]],
    notes: &'static [&'static str],
) -> Case {
    Case { file, content, records, notes }
}

/// Reads a file of pairs with this name and content.
fn pairs(file: &str, content: &[u8]) -> Result<(Vec<PreferenceRecord>, ReadReport), pref_data::DataError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(file);
    fs::write(&path, content).expect("written");
    read_records_with(path, &ReadOptions::new(Format::Pairs))
}

fn notes(report: &ReadReport) -> Vec<String> {
    report.notes.iter().map(ToString::to_string).collect()
}

fn texts(record: &PreferenceRecord) -> [String; 3] {
    [&record.prompt, &record.responses[0], &record.responses[1]]
        .map(|text| serde_json::to_string(text).expect("JSON"))
}

const USER: &str = r#"[{"role":"user","content":"q"}]"#;
const SYSTEM_USER: &str = r#"[{"role":"system","content":"s"},{"role":"user","content":"q"}]"#;
const GOOD: &str = r#"[{"role":"assistant","content":"a"}]"#;
const BAD: &str = r#"[{"role":"assistant","content":"b"}]"#;
const PLAIN: &[[&str; 3]] = &[["\"q\"", "\"a\"", "\"b\""]];
const CHAT: &[[&str; 3]] = &[[USER, GOOD, BAD]];
const TWO: &[[&str; 3]] = &[["\"q\"", "\"a\"", "\"b\""], ["\"r\"", "\"c\"", "\"d\""]];
const MIXED: &[&str] = &["text next to messages is read as a message in 1 record"];
const SYSTEM_SCORED: &[&str] =
    &[MIXED[0], "in 1 record a response begins with a system message, which is scored"];
const JSON_TEXT: &[&str] = &[MIXED[0], "JSON in 1 text is read as messages"];

const COLUMNS: &[Case] = &[
    case(
        "alpaca.jsonl",
        r#"{"instruction": "Add.", "input": "1 and 2", "chosen": "a", "rejected": "b"}
{"instruction": "Sing.", "input": "", "chosen": "a", "rejected": "b"}"#,
        &[["\"Add.\\n1 and 2\"", "\"a\"", "\"b\""], ["\"Sing.\"", "\"a\"", "\"b\""]],
        &["reads `instruction` as the prompt", "reads `input` as the end of the prompt"],
    ),
    case(
        "input.jsonl",
        r#"{"input": "q", "chosen": "a", "rejected": "b"}"#,
        PLAIN,
        &["reads `input` as the prompt"],
    ),
    case(
        "question.jsonl",
        r#"{"question": "q", "response_j": "a", "response_k": "b"}"#,
        PLAIN,
        &[
            "reads `question` as the prompt",
            "reads `response_j` as the chosen response",
            "reads `response_k` as the rejected response",
        ],
    ),
    case(
        "system.jsonl",
        r#"{"system": "s", "question": "q", "chosen": "a", "rejected": "b"}
{"system": "", "question": "q", "chosen": "a", "rejected": "b"}"#,
        &[[SYSTEM_USER, GOOD, BAD], ["\"q\"", "\"a\"", "\"b\""]],
        &["reads `question` as the prompt", "reads `system` as the system message"],
    ),
    case(
        "sharegpt.jsonl",
        r#"{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}],
 "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}"#,
        &[[SYSTEM_USER, GOOD, BAD]],
        &["reads `conversations` as the prompt"],
    ),
    case(
        "binarized.jsonl",
        r#"{"prompt": "q", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
 "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
 "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#,
        CHAT,
        &[],
    ),
    case(
        "system-in-the-conversation.jsonl",
        r#"{"prompt": [{"role": "user", "content": "q"}],
 "chosen": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
 "rejected": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#,
        &[[SYSTEM_USER, GOOD, BAD]],
        &[],
    ),
    case(
        "another-prompt.jsonl",
        r#"{"prompt": "something else",
 "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
 "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#,
        CHAT,
        &["in 1 record the responses are conversations without the text of `prompt`, which is left aside"],
    ),
    case(
        "unknown-prompt.jsonl",
        r#"{"task": "q", "chosen": "The one.", "rejected": "The other.", "id": 3}"#,
        &[["\"The o\"", "\"ne.\"", "\"ther.\""]],
        &[
            "no column holds the prompt: in 1 record it is what both responses begin with, first \"The o\"; columns left \
           aside: `task`; data.columns names the prompt's",
        ],
    ),
    case(
        "implicit.jsonl",
        r#"{"chosen": "It is good.", "rejected": "It is bad."}"#,
        &[["\"It is\"", "\" good.\"", "\" bad.\""]],
        &["no column holds the prompt: in 1 record it is what both responses begin with, first \"It is\""],
    ),
];

const MESSAGES: &[Case] = &[
    case(
        "text-responses.jsonl",
        r#"{"prompt": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"}"#,
        CHAT,
        MIXED,
    ),
    case(
        "text-prompt.jsonl",
        r#"{"prompt": "q", "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}"#,
        CHAT,
        MIXED,
    ),
    case(
        "json-text.jsonl",
        r#"{"prompt": "[{\"role\": \"user\", \"content\": \"q\"}]", "chosen": "a", "rejected": "b"}"#,
        CHAT,
        JSON_TEXT,
    ),
    case(
        "keys.jsonl",
        r#"{"prompt": [{"role": "developer", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "q"}]},
 {"role": "assistant", "content": null, "tool_calls": [{"name": "f"}]}, {"role": "tool", "name": "f", "content": "1"}],
 "chosen": [{"role": "assistant", "content": "a", "reasoning_content": "r"}], "rejected": [{"role": "assistant", "content": "", "tool_calls": [1]}]}"#,
        &[[
            r#"[{"role":"developer","content":"be kind"},{"role":"user","content":[{"type":"text","text":"q"}]},{"role":"assistant","content":null,"tool_calls":[{"name":"f"}]},{"role":"tool","name":"f","content":"1"}]"#,
            r#"[{"role":"assistant","content":"a","reasoning_content":"r"}]"#,
            r#"[{"role":"assistant","content":"","tool_calls":[1]}]"#,
        ]],
        &[],
    ),
    case(
        "shared-turns.jsonl",
        r#"{"prompt": "q", "chosen": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}, {"role": "assistant", "content": "a"}],
 "rejected": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}, {"role": "assistant", "content": "b"}]}"#,
        &[[
            USER,
            r#"[{"role":"assistant","content":"x"},{"role":"user","content":"y"},{"role":"assistant","content":"a"}]"#,
            r#"[{"role":"assistant","content":"x"},{"role":"user","content":"y"},{"role":"assistant","content":"b"}]"#,
        ]],
        MIXED,
    ),
];

const KINDS: &[Case] = &[
    case(
        "array.json",
        "[\n {\"prompt\": \"q\",\n  \"chosen\": \"a\", \"rejected\": \"b\"},\n {\"prompt\": \"r\", \"chosen\": \"c\", \"rejected\": \"d\"}\n]\n",
        TWO,
        &[],
    ),
    case(
        "array.jsonl",
        r#"[{"prompt": "q", "chosen": "a", "rejected": "b"},{"prompt": "r", "chosen": "c", "rejected": "d"}]"#,
        TWO,
        &[],
    ),
    case(
        "lines.json",
        "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}\n{\"prompt\": \"r\", \"chosen\": \"c\", \"rejected\": \"d\"}\n",
        TWO,
        &[],
    ),
    case(
        "LINES.NDJSON",
        "\r\n{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}\r\n\r\n{\"prompt\": \"r\", \"chosen\": \"c\", \"rejected\": \"d\"}",
        TWO,
        &[],
    ),
    case("bom.jsonl", "\u{feff}{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}", PLAIN, &[]),
    case("bom.json", "\u{feff}[{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}]", PLAIN, &[]),
    case("bom.csv", "\u{feff}prompt,chosen,rejected\nq,a,b\n", PLAIN, &[]),
    case("tab.tsv", "prompt\tchosen\trejected\nq\ta\tb\n\"r\"\tc\td\n", TWO, &[]),
    case(
        "messages.csv",
        "prompt,chosen,rejected\n\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"q\"\"}]\",a,b\n",
        CHAT,
        JSON_TEXT,
    ),
    case(
        "nan.jsonl",
        r#"{"prompt": "q", "chosen": "a", "rejected": "b", "score": NaN, "other": [Infinity, "\ud83d", -Infinity]}"#,
        PLAIN,
        &[],
    ),
    case(
        "separator.jsonl",
        "{\"prompt\": \"q\u{2028}\", \"chosen\": \"a\u{85}\", \"rejected\": \"b\"}",
        &[["\"q\u{2028}\"", "\"a\u{85}\"", "\"b\""]],
        &[],
    ),
];

#[test]
fn every_form_is_read_as_meant_and_noted() {
    for case in COLUMNS.iter().chain(MESSAGES).chain(KINDS).chain(ANNOUNCED) {
        // Rows of the table that extend over several lines are one line in the file.
        let content = if case.file.ends_with(".jsonl") {
            case.content.replace("\n \"", " \"").replace("\n {", " {")
        } else {
            case.content.to_owned()
        };
        let (records, report) =
            pairs(case.file, content.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", case.file));
        assert_eq!(records.iter().map(texts).collect::<Vec<_>>(), case.records, "{}", case.file);
        assert_eq!(notes(&report), case.notes, "{}", case.file);
    }
}

/// What is read in one of several possible ways, and said.
const ANNOUNCED: &[Case] = &[
    case(
        "history.jsonl",
        r#"{"instruction": "q", "input": "", "history": [["u", "m"]], "chosen": "a", "rejected": "b"}"#,
        PLAIN,
        &[
            "reads `instruction` as the prompt",
            "leaves `history` aside, which may belong to the prompt; data.columns names the columns to read",
        ],
    ),
    case(
        "two-prompts.csv",
        "prompt,instruction,context,system_message,chosen,rejected\nq,do this,c,s,a,b\n",
        PLAIN,
        &[
            "leaves `context`, `instruction`, `system_message` aside, which may belong to the prompt; data.columns names the \
           columns to read",
        ],
    ),
    case(
        "same-prompt-twice.jsonl",
        r#"{"prompt": "q", "question": "q", "chosen": "a", "rejected": "b"}"#,
        PLAIN,
        &[],
    ),
    case(
        "prompt-in-responses.jsonl",
        r#"{"prompt": "q", "chosen": "q a", "rejected": "q b"}"#,
        &[["\"q\"", "\"q a\"", "\"q b\""]],
        &["in 1 record both responses begin with the text of the prompt, which the model then sees twice"],
    ),
    case(
        "system-in-one-response.jsonl",
        r#"{"prompt": "q", "chosen": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}],
 "rejected": [{"role": "assistant", "content": "b"}]}"#,
        &[[USER, r#"[{"role":"system","content":"s"},{"role":"assistant","content":"a"}]"#, BAD]],
        SYSTEM_SCORED,
    ),
    case(
        "blank-prompt.jsonl",
        r#"{"prompt": " ", "chosen": "a", "rejected": "b"}"#,
        &[["\" \"", "\"a\"", "\"b\""]],
        &["prompts of white space only in 1 record"],
    ),
    case(
        "two-layouts.jsonl",
        r#"{"prompt": "q", "chosen": "a", "rejected": "b"}
{"question": "r", "chosen": "c", "rejected": "d"}"#,
        TWO,
        &["reads `question` as the prompt"],
    ),
    case("gzip-without-gzip.jsonl.gz", r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#, PLAIN, &[]),
];

const REFUSED: &[(&str, &str, &str)] = &[
    (
        "twice.jsonl",
        r#"{"prompt": "first", "chosen": "a", "rejected": "b", "prompt": "second"}"#,
        ", line 1: field `prompt`: occurs twice in the row; which one counts is not clear (column 60); a row must be one whole \
         JSON object",
    ),
    (
        "untyped-image.jsonl",
        r#"{"prompt": [{"role": "user", "content": [{"image": "a.png"}, {"text": "q"}]}], "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `prompt[0].content[0].image` is \"image\"; only parts of type \"text\" are supported",
    ),
    (
        "image-in-a-text-part.jsonl",
        r#"{"prompt": [{"role": "user", "content": [{"type": "text", "text": "q", "image_url": {"url": "u"}}]}], "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `prompt[0].content[0].image_url` is \"image_url\"; only parts of type \"text\" are supported",
    ),
    (
        "part-without-text.jsonl",
        r#"{"prompt": [{"role": "user", "content": [{"value": "q"}]}], "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `prompt[0].content[0]` is \"an object without `text`\"; only parts of type \"text\" are supported",
    ),
    (
        "zip.jsonl",
        "PK\u{3}\u{4}and more",
        ": is a zip archive, whatever its name; unpack it, or compress it with gzip",
    ),
    (
        "xz.csv",
        "BZh91AY",
        ": is compressed with bzip2, whatever its name; unpack it, or compress it with gzip",
    ),
    (
        "pairs.jsonl.zst",
        "x",
        ": the end of the name does not give the kind of file; it must be .jsonl, .ndjson, .json, .csv or .tsv (each also with \
         .gz), .parquet, .arrow or .feather",
    ),
    (
        "nested.jsonl",
        r#"{"data": {"prompt": "q", "chosen": "a", "rejected": "b"}}"#,
        ", line 1: field `chosen` is missing; the columns are `data`; name its column in data.columns",
    ),
    (
        "several-rejected.jsonl",
        r#"{"prompt": "q", "chosen": "a", "rejected": ["b", "c"]}"#,
        ", line 1: field `rejected[0]` is text; it must be a message {role, content}",
    ),
    (
        "commas-after-rows.jsonl",
        "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"},\n",
        ", line 1: trailing characters (column 48); a row must be one whole JSON object",
    ),
    (
        "short.csv",
        "prompt,chosen,rejected\nq,a\n",
        ", line 2: has 2 cells, but the first row names 3; every row must have the cells that the first row names",
    ),
    (
        "user-last.jsonl",
        r#"{"prompt": "q", "chosen": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "u"}], "rejected": "b"}"#,
        ", line 1: field `chosen` ends with a message that is not the assistant's; end it with the answer",
    ),
    (
        "repr.csv",
        "prompt,chosen,rejected\nq,\"[{'role': 'assistant', 'content': 'a'}]\",b\n",
        ", line 2: field `chosen` is Python's text of a list of messages; write parquet or JSON lines, for example with \
         `datasets.to_json`",
    ),
    (
        "surrogate.jsonl",
        r#"{"prompt": "q", "chosen": "a", "rejected": "b \ud83d"}"#,
        ", line 1: field `rejected`: has half of a surrogate pair, which is not Unicode (column 53); a row must be one whole JSON object",
    ),
    (
        "empty-last.jsonl",
        r#"{"prompt": "q", "chosen": "a", "rejected": [{"role": "assistant", "content": ""}]}"#,
        ", line 1: field `rejected[0].content` is empty; fill it or remove the record",
    ),
    (
        "lfs.jsonl",
        "version https://git-lfs.github.com/spec/v1\noid sha256:49\nsize 7\n",
        ": is a Git LFS pointer and not the data; fetch the data with `git lfs pull`",
    ),
    (
        "lfs.parquet",
        "version https://git-lfs.github.com/spec/v1\noid sha256:49\nsize 7\n",
        ": is a Git LFS pointer and not the data; fetch the data with `git lfs pull`",
    ),
    (
        "page.csv",
        "<!doctype html><html>",
        ": is a web page or XML and not the data; download the file itself",
    ),
    ("utf-16.csv", "UTF-16", ": is UTF-16; save it as UTF-8"),
    (
        "images.jsonl",
        r#"{"images": ["a.png"], "prompt": "q", "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `images` is set: images, video and audio are not supported; remove the record, or the field if it \
         is not needed",
    ),
    (
        "part.jsonl",
        r#"{"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `prompt[0].content[0].type` is \"image\"; only parts of type \"text\" are supported",
    ),
    (
        "image.csv",
        "image,prompt,chosen,rejected\n,q,a,b\n",
        ": column `image`: images, video and audio are not supported; remove the column if it is not needed",
    ),
    (
        "unpaired.jsonl",
        r#"{"prompt": "q", "completion": "a", "label": true}"#,
        ", line 1: field `completion` belongs to an unpaired preference, which only loss.kind = \"kto\" can use; give \
         `chosen` and `rejected`",
    ),
    (
        "empty-prompt.jsonl",
        r#"{"prompt": "", "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `prompt` is empty; fill it or remove the record",
    ),
    (
        "empty-turn.jsonl",
        r#"{"prompt": [{"role": "user", "content": ""}], "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `prompt` is empty; fill it or remove the record",
    ),
    (
        "nothing-shared.jsonl",
        r#"{"task": "q", "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `prompt` is missing; the columns are `task`, `chosen`, `rejected`; name its column in data.columns",
    ),
    (
        "answers-shared.jsonl",
        r#"{"chosen": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "b"}]}"#,
        ", line 1: field `prompt` is missing; the columns are `chosen`, `rejected`; name its column in data.columns",
    ),
    (
        "shp.json",
        r#"[{"history": "h", "human_ref_A": "a", "human_ref_B": "b", "labels": 1}]"#,
        ", line 1, row 1: field `chosen` is missing; the columns are `history`, `human_ref_A`, `human_ref_B`, `labels`; \
         data.format = \"shp\" has such columns",
    ),
    (
        "semicolons.csv",
        "prompt;chosen;rejected\nq;a;b\n",
        ", line 2: field `chosen` is missing; the columns are `prompt;chosen;rejected`; name its column in data.columns",
    ),
    (
        "sender.jsonl",
        r#"{"prompt": [{"from": "bot", "value": "q"}], "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `prompt[0].from` is \"bot\"; it must be human, gpt, system or tool",
    ),
    (
        "number.jsonl",
        r#"{"prompt": [{"role": "user", "content": 3}], "chosen": "a", "rejected": "b"}"#,
        ", line 1: field `prompt[0].content` is a number; it must be text or a list of text parts",
    ),
    (
        "columns.json",
        r#"{"prompt": {"0": "q"}, "chosen": {"0": "a"}, "rejected": {"0": "b"}}"#,
        ", line 1: field `chosen` is an object; it must be text or a list of messages {role, content}",
    ),
    (
        "pretty.json",
        "{\n \"prompt\": \"q\"\n}\n",
        ": holds one JSON object over several lines; write an array of objects or one object a line, for example with \
         pandas' `to_json(path, orient=\"records\", lines=True)`",
    ),
    (
        "python.jsonl",
        "{'prompt': 'q'}",
        ", line 1: is Python's text of a dict, not JSON (write it with json.dumps); a row must be one whole JSON object",
    ),
    (
        "syntax.json",
        "[\n{\"prompt\": \"q\",\n \"chosen\" 1}]",
        ", line 3, row 1: field `chosen`: expected `:` (column 11); a row must be one whole JSON object",
    ),
    (
        "open.json",
        "[{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}, ",
        ", line 1, row 2: cannot be read: the array is not closed; the file may be cut off or damaged, so fetch it again",
    ),
    (
        "rest.json",
        "[] {}",
        ", line 1, row 1: cannot be read: text follows the array; the file may be cut off or damaged, so fetch it again",
    ),
    ("empty.json", "[]", ": holds no records; check that it was written completely"),
];

#[test]
fn what_cannot_be_used_is_refused_with_its_place_and_a_way_out() {
    for (file, content, expected) in REFUSED {
        let content = match *content {
            "UTF-16" => b"\xff\xfep\0".to_vec(),
            content => content.as_bytes().to_vec(),
        };
        let error = pairs(file, &content).expect_err(file).to_string();
        assert_eq!(error.split_once(file).expect("the file's name").1, *expected, "{file}");
    }
}
