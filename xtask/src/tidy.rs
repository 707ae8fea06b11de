//! House rules that no compiler lint states, each a function over the tracked files.

mod errors;
mod manifest;
mod words;

use anyhow::{Result, bail};

use crate::reference;
use crate::tracked::{self, Files, Violations};
use crate::workspace::Workspace;

const RULES: [fn(&Files) -> Violations; 11] = [
    modules_open_with_their_doc,
    nothing_is_left_to_do,
    files_stay_short,
    unsafe_stays_in_torch_ext,
    libraries_forbid_unsafe,
    no_machine_paths,
    manifest::crates_take_the_workspace_lints,
    manifest::targets_are_no_benchmarks,
    errors::sources_are_printed_once,
    words::plain_words,
    reference::stale,
];

/// The only place for `unsafe`.
const UNSAFE_HOME: &str = "crates/torch-ext/";

/// Above this a file is doing two things.
const MOST_LINES: usize = 600;

/// Checks every rule.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let files = tracked::read(workspace)?;
    let broken: Violations = RULES.iter().flat_map(|rule| rule(&files)).collect();
    if !broken.is_empty() {
        bail!("{} untidy places:\n  {}", broken.len(), broken.join("\n  "));
    }
    Ok(())
}

/// Files of one kind.
fn ending<'a>(files: &'a Files, endings: &[&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    files
        .iter()
        .filter(|(path, _)| endings.iter().any(|ending| path.ends_with(ending)))
        .map(|(path, text)| (path.as_str(), text.as_str()))
}

/// `path:line: what` for each line that `found` objects to.
fn lines(path: &str, text: &str, found: impl Fn(&str) -> Option<String>) -> Violations {
    let numbered = text.lines().enumerate();
    numbered.filter_map(|(index, line)| Some(format!("{path}:{}: {}", index + 1, found(line)?))).collect()
}

fn modules_open_with_their_doc(files: &Files) -> Violations {
    ending(files, &[".rs"])
        .filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#![doc = include_str!("))
        .map(|(path, _)| format!("{path}:1: a module opens with `//!` and what it is for"))
        .collect()
}

fn nothing_is_left_to_do(files: &Files) -> Violations {
    let marks = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let found = |line: &str| {
        let mark = marks.iter().find(|mark| code(line).contains(mark.as_str()))?;
        Some(format!("`{mark}` stays out of what is committed"))
    };
    ending(files, &[".rs"]).flat_map(|(path, text)| lines(path, text, found)).collect()
}

fn files_stay_short(files: &Files) -> Violations {
    ending(files, &[".rs", ".py", ".cpp", ".cu", ".h"])
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, count)| *count > MOST_LINES)
        .map(|(path, count)| {
            format!("{path}: {count} lines, {MOST_LINES} at most: what is the second thing in it?")
        })
        .collect()
}

fn unsafe_stays_in_torch_ext(files: &Files) -> Violations {
    let keyword = concat!("un", "safe");
    let found = |line: &str| {
        opens(code(line), keyword)
            .then(|| format!("`{keyword}` belongs in {UNSAFE_HOME}, behind a safe function"))
    };
    let elsewhere = ending(files, &[".rs"]).filter(|(path, _)| !path.starts_with(UNSAFE_HOME));
    elsewhere.flat_map(|(path, text)| lines(path, text, found)).collect()
}

fn libraries_forbid_unsafe(files: &Files) -> Violations {
    let line = "#![forbid(unsafe_code)]";
    ending(files, &["src/lib.rs"])
        .filter(|(path, text)| !path.starts_with(UNSAFE_HOME) && !text.lines().any(|found| found == line))
        .map(|(path, _)| format!("{path}: a library states `{line}`"))
        .collect()
}

fn no_machine_paths(files: &Files) -> Violations {
    let roots = ["work", "root", "home", "Users"].map(|name| format!("/{name}/"));
    let found = |line: &str| {
        let root = roots.iter().find(|root| names_path(line, root))?;
        Some(format!("a path under `{root}` exists on one machine only"))
    };
    files.iter().flat_map(|(path, text)| lines(path, text, found)).collect()
}

/// Whether `root` begins a path in `line`, rather than going on within one (`docs/home/x`, `site.org/home/`).
fn names_path(line: &str, root: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || "._-/}*~".contains(c);
    line.match_indices(root).any(|(at, _)| !line[..at].chars().next_back().is_some_and(inner))
}

/// A line without its `//` comment. A string that holds `//` is cut too, which these rules can bear.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// Whether `keyword` stands in `line` as code: before a block, an item or an attribute's parenthesis.
fn opens(line: &str, keyword: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(keyword).any(|(at, _)| {
        let after = line[at + keyword.len()..].trim_start();
        let item = ["{", "(", "fn ", "impl", "extern", "trait "].iter().any(|item| after.starts_with(item));
        !line[..at].chars().next_back().is_some_and(joins) && (item || after.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `rule` says of one file, without the rest of each line.
    fn places(rule: fn(&Files) -> Violations, path: &str, text: &str) -> Vec<String> {
        let found = rule(&Files::from([(path.to_owned(), text.to_owned())]));
        found.iter().map(|line| line.split(": ").next().unwrap_or_default().to_owned()).collect()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn a_module_without_its_doc_is_named() {
        let rule = modules_open_with_their_doc;
        assert_eq!(places(rule, "crates/x/src/a.rs", "use std::fs;\n"), ["crates/x/src/a.rs:1"]);
        assert_eq!(places(rule, "crates/x/src/a.rs", "//! Reads.\n"), NONE);
        assert_eq!(places(rule, "crates/x/src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n"), NONE);
    }

    #[test]
    fn unfinished_marks_are_named() {
        let rule = nothing_is_left_to_do;
        for name in ["todo", "unimplemented", "dbg"] {
            assert_eq!(places(rule, "a.rs", &format!("//! A.\nfn f() {{ {name}!() }}\n")), ["a.rs:2"]);
        }
        assert_eq!(places(rule, "a.rs", "// a todo!() in words is none\nlet mastodon = 1;\n"), NONE);
    }

    #[test]
    fn a_long_file_is_named() {
        let text = "x\n".repeat(MOST_LINES);
        assert_eq!(places(files_stay_short, "a.py", &text), NONE);
        assert_eq!(places(files_stay_short, "a.py", &format!("{text}x\n")), ["a.py"]);
        assert_eq!(places(files_stay_short, "a.jsonl", &format!("{text}x\n")), NONE);
    }

    #[test]
    fn unsafe_elsewhere_is_named() {
        let rule = unsafe_stays_in_torch_ext;
        let keyword = concat!("un", "safe");
        for rest in [" { f() };", " fn f() {}", " impl Send for X {}", " extern \"C\" {}", "(no_mangle)]", ""]
        {
            let text = format!("x = {keyword}{rest}\n");
            assert_eq!(places(rule, "crates/trainer/src/a.rs", &text), ["crates/trainer/src/a.rs:1"]);
            assert_eq!(places(rule, "crates/torch-ext/src/a.rs", &text), NONE);
        }
        assert_eq!(places(rule, "a.rs", &format!("let policy = \"{keyword}-inline\";\n")), NONE);
        assert_eq!(places(rule, "crates/trainer/src/lib.rs", "#![forbid(unsafe_code)] // unsafe\n"), NONE);
    }

    #[test]
    fn a_library_that_allows_unsafe_is_named() {
        let rule = libraries_forbid_unsafe;
        assert_eq!(places(rule, "crates/x/src/lib.rs", "//! X.\n"), ["crates/x/src/lib.rs"]);
        assert_eq!(places(rule, "crates/x/src/lib.rs", "//! X.\n#![forbid(unsafe_code)]\n"), NONE);
        assert_eq!(places(rule, "crates/torch-ext/src/lib.rs", "//! X.\n"), NONE);
    }

    #[test]
    fn a_machine_path_is_named() {
        let rule = no_machine_paths;
        for root in ["work", "root", "home", "Users"] {
            assert_eq!(places(rule, "a.md", &format!("see\n`/{root}/x`\n")), ["a.md:2"]);
        }
        assert_eq!(places(rule, "a.md", "example.org/home/x, ~/work/x, ${A}/work/x, docs/home/\n"), NONE);
    }
}
