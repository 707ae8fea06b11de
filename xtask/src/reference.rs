//! Reference pages that are generated from the code: the keys of recipes and the files of a run.
//!
//! The generator reads Rust as text: structs whose fields are keys, their documentation, their `Default`, and the checks of
//! their ranges. `cargo xtask book` writes the pages, and `tidy` fails on a page that is not current.

use std::collections::BTreeSet;

use crate::rust_items::{Field, Items};
use crate::tracked::{Files, Violations};

/// The committed page of recipe keys.
const KEYS: &str = "docs/reference/recipe.md";
/// A page that maps settings of other tools to recipe keys, in the second column of its tables.
const FROM_OTHERS: &str = "docs/coming-from.md";
/// The committed page of a run's files.
const RUN: &str = "docs/reference/run.md";
/// Methods of this type return the paths of a run's files.
const RUN_FOLDER: &str = "RunDir";

/// The recipes: the struct, the heading, and the program.
const RECIPES: [(&str, &str, &str); 2] = [
    ("Recipe", "Training", "Recipes of `pref-train`."),
    (
        "StudyRecipe",
        "Study",
        "Recipes of `study` and `rq1` to `rq4`. Sections that training has too are described there.",
    ),
];

/// Returns a line for each page that does not fit the code.
pub(crate) fn stale(files: &Files) -> Violations {
    let is_current = |(path, text): &(&str, String)| files.get(*path).is_some_and(|found| found == text);
    let [keys, run] = pages(files);
    let unknown = keys.1.lines().filter(|row| row.starts_with("| `")).filter_map(|row| {
        let mut cells = row.split(" | ");
        let key = cells.next()?.trim_start_matches("| ");
        // After the type.
        let is_unknown = cells.nth(1)?.trim().is_empty();
        is_unknown.then(|| format!("the default of {key} is computed; document it as `[default: value]`"))
    });
    let mut found: Violations = unknown.collect();
    let from_others = files.get(FROM_OTHERS).map_or("", String::as_str);
    found.extend(unknown_keys(from_others, &keys.1));
    let stale = [&keys, &run].into_iter().filter(|page| !is_current(page));
    found.extend(
        stale.map(|(path, _)| format!("{path} does not fit the code; run `cargo xtask book --write`")),
    );
    found
}

/// Returns a line for each `section.key` in the second column of `page` that the page of recipe keys lacks.
fn unknown_keys(page: &str, keys: &str) -> Violations {
    let (mut known, mut section) = (BTreeSet::new(), String::new());
    for line in keys.lines() {
        if let Some(path) = line.strip_prefix("### `") {
            section = path.replace(['[', ']', '`'], "");
            known.insert(section.clone());
        } else if let Some(key) = line.strip_prefix("| `").and_then(|row| row.split('`').next()) {
            let key = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            known.insert(key);
        }
    }
    let cells = page.lines().filter(|line| line.starts_with('|')).filter_map(|row| row.split(" | ").nth(1));
    let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let keys = spans.filter(|span| !span.contains([' ', '"']) && !known.contains(*span));
    keys.map(|key| format!("{FROM_OTHERS}: there is no recipe key `{key}`")).collect()
}

/// Returns each page with its path from the root.
pub(crate) fn pages(files: &Files) -> [(&'static str, String); 2] {
    let items = Items::new(files);
    [(KEYS, keys(&items)), (RUN, run_files(&items))]
}

const NOTE: &str = "<!-- Generated from the code by `cargo xtask book --write`. -->\n";

fn keys(items: &Items<'_>) -> String {
    let mut page = format!(
        "# Recipe keys\n\n{NOTE}\nA recipe is a TOML file; `--set section.key=value` replaces a value.\n"
    );
    let mut seen = BTreeSet::new();
    for (recipe, title, about) in RECIPES {
        page += &format!("\n## {title}\n\n{}\n", about.replace(". ", ".\n"));
        section(items, recipe, "", &mut seen, &mut page);
    }
    page
}

/// Appends the table of a struct and those of the sections in it, each struct once.
fn section(items: &Items<'_>, name: &str, path: &str, seen: &mut BTreeSet<String>, page: &mut String) {
    let fields = items.fields(name);
    let (sections, keys): (Vec<&Field>, Vec<&Field>) =
        fields.iter().partition(|field| !items.fields(field.section_type()).is_empty());
    if !path.is_empty() {
        *page += &format!("\n### `[{path}]`\n\n{}\n", one_sentence_a_line(&items.about(name)));
    }
    if !keys.is_empty() {
        *page += "\n| key | type | default | range | meaning |\n|---|---|---|---|---|\n";
    }
    for field in keys {
        let [kind, default, range] =
            [items.kind(field), items.default(name, field), items.range(name, field)];
        let cells = [format!("`{}`", field.name), kind, default, range, field.about.clone()];
        *page += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    for field in sections {
        let inner = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        // TOML's arrays of tables have two brackets.
        let inner = if field.is_list() { format!("[{inner}]") } else { inner };
        if seen.insert(field.section_type().to_owned()) {
            section(items, field.section_type(), &inner, seen, page);
        }
    }
}

fn one_sentence_a_line(text: &str) -> String {
    text.replace(". ", ".\n")
}

fn run_files(items: &Items<'_>) -> String {
    let mut page = format!(
        "# Files of a run\n\n{NOTE}\nPaths below `output.dir` of a training run.\n\n| path | content |\n|---|---|\n"
    );
    for (path, about) in items.paths(RUN_FOLDER) {
        page += &format!("| `{path}` | {about} |\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = r#"
/// How it trains.
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// Passes over
    /// the data.
    pub epochs: u64,
    /// The loss's strength.
    pub beta: Beta,
    /// The schedule.
    pub scheduler: Decay,
}
impl Default for TrainSection {
    fn default() -> Self {
        Self { epochs: 3, beta: Beta::DEFAULT, scheduler: Decay::LinearDown }
    }
}
impl TrainSection {
    fn check(&self) { in_range("epochs", self.epochs, |e| e > 0, "above 0")?; }
}
/// A positive strength.
pub struct Beta(f64);
impl Beta {
    pub const DEFAULT: Self = Self(0.1);
}
number! {
    /// A weight.
    Weight, "weight", "finite and at least 0", |value| value.is_finite() && value >= 0.0
}
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// None.
    Constant,
    LinearDown,
}
pub struct Recipe {
    /// The seed.
    #[serde(default)]
    pub seed: u64,
    /// A folder.
    pub path: Option<String>,
    /// A weight of `a` [default: 0.1], or of `b` [default: 50].
    #[serde(default)]
    pub weight: Option<Weight>,
    /// A word [default: `"x"`].
    #[serde(default)]
    pub word: Option<String>,
    /// A name [default: that of the folder].
    #[serde(default)]
    pub name: Option<String>,
    /// Words [default: 0.5, `"all"`].
    #[serde(default = "computed")]
    pub words: Vec<Word>,
    /// The first two.
    #[serde(default)]
    pub slice: Option<Slice>,
    pub train: TrainSection,
}
#[serde(try_from = "String")]
pub struct Slice {
    pub keep: bool,
}
fn computed() -> Vec<Word> {
    vec![half(), Word::All]
}
impl RunDir {
    /// The metrics.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }
}
"#;

    #[test]
    fn keys_have_type_default_range_and_meaning() {
        let files = Files::from([("crates/x/src/lib.rs".to_owned(), CODE.to_owned())]);
        let [(_, keys), (_, run)] = pages(&files);
        for line in [
            "| `seed` | integer | `0` |  | The seed. |",
            "| `path` | text, optional | none |  | A folder. |",
            "| `weight` | number, optional | `0.1` or `50` | finite and at least 0 | A weight of `a`",
            "| `word` | text, optional | `\"x\"` |  | A word",
            "| `name` | text, optional | none |  | A name [default: that of the folder]. |",
            "| `words` | list of text | `[0.5, \"all\"]` |  | Words [default: 0.5, `\"all\"`]. |",
            "| `slice` | text, optional | none |  | The first two. |",
            "### `[train]`\n\nHow it trains.\n",
            "| `epochs` | integer | `3` | above 0 | Passes over the data. |",
            "| `beta` | number | `0.1` | A positive strength. | The loss's strength. |",
            "| `scheduler` | `\"constant\"`, `\"linear-down\"` | `\"linear-down\"` |  | The schedule. |",
        ] {
            assert!(keys.contains(line), "{line}\n{keys}");
        }
        assert!(run.contains("| `metrics.jsonl` | The metrics. |"), "{run}");
        assert_eq!(stale(&files).len(), 2);
        let code = CODE.replace(" [default: 0.5, `\"all\"`]", "");
        let found = stale(&Files::from([("crates/x/src/lib.rs".to_owned(), code)]));
        assert!(found[0].contains("the default of `words` is computed"), "{found:?}");
    }

    #[test]
    fn keys_of_other_pages_exist() {
        let keys = "| `seed` | integer |\n### `[[data]]`\n| `path` | text |\n### `[data.columns]`\n";
        let page = "| a | `seed`, `data.path` | |\n| b | `data.columns` | `x` |\n| c | `data.paths` | |\n| d | `run --e` |";
        let found = unknown_keys(page, keys);
        assert_eq!(found, ["docs/coming-from.md: there is no recipe key `data.paths`"]);
    }
}
