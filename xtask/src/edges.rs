//! Which crate may depend on which, and that no modules depend on each other in a circle.
//!
//! An edge that must be absent is checked like any other promise.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::workspace::{Workspace, output};
use crate::{circles, tracked};

/// Links libtorch wherever it appears.
const LIBTORCH: &str = "torch-sys";

/// Crates that never link libtorch, not even in their tests: they build and run where none is installed.
const LIBTORCH_FREE: &[&str] = &[
    "annotate",
    "audit",
    "chat-template",
    "compare",
    "files",
    "hub",
    "human-study",
    "llm-client",
    "mtbench",
    "pref-data",
    "report",
    "sandbox",
    "seeds",
    "stats",
    "test-support",
    "xtask",
];

/// Crates that do. Were `LIBTORCH` misspelt, everything would seem free of it; these notice.
const LIBTORCH_BOUND: &[&str] = &["distributed", "policy-model", "pref-loss", "torch-ext", "trainer"];

/// The crates of this workspace that each crate may use outside of its tests. Edges run from later lines to earlier.
const LAYERS: &[(&str, &[&str])] = &[
    ("chat-template", &[]),
    ("files", &[]),
    ("seeds", &[]),
    ("test-support", &[]),
    ("xtask", &[]),
    ("torch-ext", &[]),
    ("distributed", &["files", "torch-ext"]),
    ("pref-loss", &[]),
    ("report", &["files"]),
    ("stats", &["seeds"]),
    ("hub", &["files"]),
    ("compare", &["files", "report", "seeds", "stats"]),
    ("llm-client", &["files", "seeds"]),
    ("pref-data", &["chat-template", "files", "seeds", "stats"]),
    ("audit", &["files", "pref-data", "report", "seeds", "stats"]),
    ("annotate", &["files", "llm-client", "pref-data", "report", "seeds", "stats"]),
    ("mtbench", &["files", "llm-client", "report", "seeds", "stats"]),
    ("human-study", &["files", "mtbench", "report", "seeds", "stats"]),
    ("policy-model", &["files", "seeds", "torch-ext"]),
    ("sandbox", &["files", "mtbench", "pref-data", "seeds"]),
    (
        "trainer",
        &["distributed", "files", "hub", "policy-model", "pref-data", "pref-loss", "seeds", "torch-ext"],
    ),
    ("inference", &["distributed", "mtbench", "policy-model", "pref-data", "seeds", "trainer"]),
    (
        "experiment",
        &[
            "distributed",
            "files",
            "inference",
            "llm-client",
            "mtbench",
            "policy-model",
            "pref-data",
            "pref-loss",
            "report",
            "sandbox",
            "seeds",
            "stats",
            "trainer",
        ],
    ),
    (
        "study",
        &[
            "compare",
            "experiment",
            "files",
            "hub",
            "human-study",
            "mtbench",
            "pref-data",
            "pref-loss",
            "report",
            "sandbox",
            "seeds",
            "stats",
            "trainer",
        ],
    ),
    (
        "preflab",
        &[
            "annotate",
            "audit",
            "chat-template",
            "compare",
            "distributed",
            "experiment",
            "hub",
            "human-study",
            "inference",
            "llm-client",
            "mtbench",
            "policy-model",
            "pref-data",
            "pref-loss",
            "report",
            "sandbox",
            "seeds",
            "stats",
            "study",
            "trainer",
        ],
    ),
    (
        "bins",
        &[
            "annotate",
            "audit",
            "compare",
            "distributed",
            "experiment",
            "files",
            "hub",
            "human-study",
            "inference",
            "llm-client",
            "mtbench",
            "policy-model",
            "pref-data",
            "report",
            "sandbox",
            "seeds",
            "stats",
            "study",
            "trainer",
        ],
    ),
    ("own-annotator", &["pref-data"]),
    ("own-judge", &["mtbench", "report", "seeds"]),
    ("own-question", &["distributed", "experiment", "pref-data", "report", "study", "trainer"]),
];

/// Checks every edge of the dependency graph that the architecture names, and every crate's modules.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut broken = layer_violations(&members(workspace)?);
    for package in LIBTORCH_FREE {
        let all = dependencies(workspace, &["-p", package, "-e", "normal,build,dev"])?;
        broken.extend(must_be_absent(package, &all));
    }
    let kernels =
        dependencies(workspace, &["-p", "pref-loss", "--no-default-features", "-e", "normal,build,dev"])?;
    broken.extend(must_be_absent("pref-loss --no-default-features", &kernels));
    for package in LIBTORCH_BOUND {
        if !dependencies(workspace, &["-p", package, "-e", "normal"])?.contains(LIBTORCH) {
            broken.push(format!("{package} no longer depends on {LIBTORCH}: is the name still right?"));
        }
    }
    broken.extend(circles::violations(&tracked::read(workspace)?));
    if !broken.is_empty() {
        bail!("{} wrong edges:\n  {}", broken.len(), broken.join("\n  "));
    }
    Ok(())
}

fn must_be_absent(package: &str, dependencies: &BTreeSet<String>) -> Option<String> {
    dependencies.contains(LIBTORCH).then(|| {
        format!(
            "{package} links libtorch ({LIBTORCH}); find the way in with `cargo tree -e all -i {LIBTORCH}`"
        )
    })
}

/// The names of all packages that `cargo tree` prints for `selection`.
fn dependencies(workspace: &Workspace, selection: &[&str]) -> Result<BTreeSet<String>> {
    let printed = tree(workspace, &[selection, &["--prefix", "none"]].concat())?;
    Ok(printed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// What each member uses directly, outside of its tests.
fn members(workspace: &Workspace) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let selection = ["--workspace", "-e", "normal", "--depth", "1", "--prefix", "depth", "--no-dedupe"];
    Ok(parse_members(&tree(workspace, &selection)?))
}

fn tree(workspace: &Workspace, arguments: &[&str]) -> Result<String> {
    output(workspace.cargo_command().args(["tree", "--format", "{p}"]).args(arguments))
}

/// Lines such as `0trainer v0.1.0 (path)` and, for each direct dependency, `1tch v0.26.0`.
fn parse_members(printed: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = None;
    for name in printed.lines().filter_map(|line| line.split_whitespace().next()) {
        if let Some(member) = name.strip_prefix('0') {
            current = Some(members.entry(member.to_owned()).or_default());
        } else if let (Some(name), Some(used)) = (name.strip_prefix('1'), &mut current) {
            used.insert(name.to_owned());
        }
    }
    members
}

fn layer_violations(members: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut broken = Vec::new();
    for (member, used) in members {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| name == member) else {
            broken.push(format!("{member} has no line in LAYERS of xtask/src/edges.rs: say what it may use"));
            continue;
        };
        for name in used.iter().filter(|name| members.contains_key(*name)) {
            if !allowed.contains(&name.as_str()) {
                broken.push(format!("{member} uses {name}, which lies outside of its layer"));
            }
        }
        if member == "xtask" && used.iter().any(|name| name != "anyhow") {
            broken.push(format!("xtask uses more than anyhow, and every set-up waits for it: {used:?}"));
        }
    }
    for (name, _) in LAYERS.iter().filter(|(name, _)| !members.contains_key(*name)) {
        broken.push(format!("LAYERS of xtask/src/edges.rs speaks of {name}, which is no member"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> BTreeMap<String, BTreeSet<String>> {
        LAYERS
            .iter()
            .map(|(name, used)| ((*name).to_owned(), used.iter().map(|used| (*used).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn the_layers_as_written_hold() {
        assert_eq!(layer_violations(&whole()), Vec::<String>::new());
        for (index, (name, used)) in LAYERS.iter().enumerate() {
            let earlier: Vec<_> = LAYERS[..index].iter().map(|(name, _)| name).collect();
            assert!(used.iter().all(|used| earlier.contains(&used)), "{name} points upwards");
        }
    }

    #[test]
    fn an_edge_out_of_its_layer_is_named() {
        let mut members = whole();
        members.get_mut("policy-model").unwrap().insert("pref-data".to_owned());
        assert_eq!(
            layer_violations(&members),
            ["policy-model uses pref-data, which lies outside of its layer"]
        );
    }

    #[test]
    fn unknown_missing_and_heavy_members_are_named() {
        let mut members = whole();
        members.insert("novel".to_owned(), BTreeSet::new());
        members.remove("stats");
        members.get_mut("xtask").unwrap().insert("serde".to_owned());
        let broken = layer_violations(&members).join("\n");
        assert!(broken.contains("novel has no line in LAYERS"), "{broken}");
        assert!(broken.contains("speaks of stats, which is no member"), "{broken}");
        assert!(broken.contains("xtask uses more than anyhow"), "{broken}");
    }

    #[test]
    fn a_way_to_libtorch_is_reported() {
        let with = BTreeSet::from([LIBTORCH.to_owned()]);
        assert!(must_be_absent("stats", &with).unwrap().starts_with("stats links libtorch"));
        assert_eq!(must_be_absent("stats", &BTreeSet::new()), None);
    }

    #[test]
    fn direct_dependencies_are_read_member_by_member() {
        let printed =
            "0stats v0.1.0 (x)\n1rand v0.10.4\n1seeds v0.1.0 (x)\n\n0seeds v0.1.0 (x)\n1blake3 v1.8.7\n";
        let members = parse_members(printed);
        assert_eq!(members["stats"], BTreeSet::from(["rand".to_owned(), "seeds".to_owned()]));
        assert_eq!(members["seeds"], BTreeSet::from(["blake3".to_owned()]));
    }
}
