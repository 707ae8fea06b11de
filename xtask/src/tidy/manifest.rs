//! Rules about the crates' manifests.

use crate::tracked::{Files, Violations};

/// One table of a manifest: its header and its `key = value` lines.
struct Table<'a> {
    header: &'a str,
    entries: Vec<(&'a str, &'a str)>,
}

impl Table<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(found, _)| *found == key).map(|(_, value)| *value)
    }
}

/// Each package of the workspace with its manifest: its folder (empty for the root, else ending in `/`) and its tables.
fn packages(files: &Files) -> impl Iterator<Item = (&str, Vec<Table<'_>>)> {
    let manifests =
        files.iter().filter_map(|(path, text)| Some((path.strip_suffix("Cargo.toml")?, tables(text))));
    manifests.filter(|(folder, tables)| {
        let has = |header: &str| tables.iter().any(|table| table.header == header);
        // A package that is a workspace of its own stands outside of ours, as an example for strangers does.
        let ours = folder.is_empty() || folder.ends_with('/') && !has("[workspace]");
        ours && has("[package]")
    })
}

/// Reads the lines that these rules ask about; values stay as they are written.
fn tables(text: &str) -> Vec<Table<'_>> {
    let mut tables = vec![Table { header: "", entries: Vec::new() }];
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if line.starts_with('[') && line.ends_with(']') {
            tables.push(Table { header: line, entries: Vec::new() });
        } else if let (Some((key, value)), Some(table)) = (line.split_once('='), tables.last_mut()) {
            table.entries.push((key.trim(), value.trim()));
        }
    }
    tables
}

pub(super) fn crates_take_the_workspace_lints(files: &Files) -> Violations {
    packages(files)
        .filter(|(_, tables)| {
            let lints = tables.iter().find(|table| table.header == "[lints]");
            lints.and_then(|table| table.get("workspace")) != Some("true")
        })
        .map(|(folder, _)| format!("{folder}Cargo.toml: `[lints] workspace = true` is missing"))
        .collect()
}

/// The harness that `cargo bench` would start for a library, binary or example refuses criterion's options, so
/// `cargo bench -- --save-baseline x` works only where each says `bench = false`.
pub(super) fn targets_are_no_benchmarks(files: &Files) -> Violations {
    let mut broken = Vec::new();
    for (folder, tables) in packages(files) {
        let package = tables.iter().find(|table| table.header == "[package]");
        let package = package.and_then(|table| table.get("name")).unwrap_or_default();
        let silent = |header: &str, name: &str| {
            tables.iter().any(|table| {
                table.header == header
                    && (header == "[lib]" || table.get("name") == Some(name))
                    && table.get("bench") == Some("false")
            })
        };
        for (header, name) in targets(files, folder, package, &tables) {
            if !silent(header, &name) {
                broken.push(format!("{folder}Cargo.toml: `bench = false` is missing for {header} {name}"));
            }
        }
    }
    broken
}

/// The targets of a package, written or found by cargo, as table header and quoted name.
fn targets(files: &Files, folder: &str, package: &str, tables: &[Table<'_>]) -> Vec<(&'static str, String)> {
    let mut targets = Vec::new();
    for header in ["[[bin]]", "[[example]]"] {
        let written = tables.iter().filter(|table| table.header == header);
        targets
            .extend(written.map(|table| (header, table.get("name").unwrap_or("without a name").to_owned())));
    }
    let off =
        |key: &str| tables.iter().any(|table| table.header == "[package]" && table.get(key) == Some("false"));
    for path in files.keys().filter_map(|path| path.strip_prefix(folder)) {
        match path {
            "src/lib.rs" => targets.push(("[lib]", package.to_owned())),
            "src/main.rs" if !off("autobins") => targets.push(("[[bin]]", package.to_owned())),
            _ => {
                let found =
                    |prefix| path.strip_prefix(prefix).and_then(discovered).map(|name| format!("\"{name}\""));
                targets.extend(found("src/bin/").filter(|_| !off("autobins")).map(|name| ("[[bin]]", name)));
                targets.extend(
                    found("examples/").filter(|_| !off("autoexamples")).map(|name| ("[[example]]", name)),
                );
            }
        }
    }
    targets.sort();
    targets.dedup();
    targets
}

/// The target that cargo finds at `NAME.rs` or `NAME/main.rs`.
fn discovered(path: &str) -> Option<&str> {
    let name = path.strip_suffix("/main.rs").or_else(|| path.strip_suffix(".rs"))?;
    (!name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = "[package]\nname = \"x\"\n";

    fn with(manifest: &str, sources: &[&str]) -> Files {
        let sources = sources.iter().map(|path| (format!("crates/x/{path}"), String::new()));
        sources.chain([("crates/x/Cargo.toml".to_owned(), format!("{PACKAGE}{manifest}"))]).collect()
    }

    #[test]
    fn a_crate_without_the_workspace_lints_is_named() {
        let expected = ["crates/x/Cargo.toml: `[lints] workspace = true` is missing"];
        assert_eq!(crates_take_the_workspace_lints(&with("", &[])), expected);
        assert_eq!(crates_take_the_workspace_lints(&with("[lints]\nworkspace = false\n", &[])), expected);
        let whole = with("[lints]\nworkspace = true # all of them\n", &[]);
        assert_eq!(crates_take_the_workspace_lints(&whole), Vec::<String>::new());
    }

    #[test]
    fn targets_that_cargo_finds_itself_are_named() {
        let sources = [
            "src/lib.rs",
            "src/main.rs",
            "src/bin/a.rs",
            "src/bin/b/main.rs",
            "src/bin/b/part.rs",
            "examples/e.rs",
        ];
        let broken = targets_are_no_benchmarks(&with("", &sources));
        let named: Vec<_> = broken.iter().filter_map(|line| line.split("for ").nth(1)).collect();
        let expected =
            ["[[bin]] \"a\"", "[[bin]] \"b\"", "[[bin]] \"x\"", "[[example]] \"e\"", "[lib] \"x\""];
        assert_eq!(named, expected);
    }

    #[test]
    fn written_targets_must_say_it_each() {
        let manifest = "[lib]\nbench = false\n[[bin]]\nname = \"a\"\nbench = false\n[[bin]]\nname = \"b\"\n";
        let broken =
            targets_are_no_benchmarks(&with(manifest, &["src/lib.rs", "src/bin/a.rs", "src/bin/b.rs"]));
        assert_eq!(broken, ["crates/x/Cargo.toml: `bench = false` is missing for [[bin]] \"b\""]);
    }

    #[test]
    fn what_cargo_is_told_not_to_look_for_is_no_target() {
        let manifest = "autobins = false\n[lib]\nbench = false\n";
        let broken = targets_are_no_benchmarks(&with(manifest, &["src/lib.rs", "src/bin/a.rs"]));
        assert_eq!(broken, Vec::<String>::new());
    }
}
