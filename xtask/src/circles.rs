//! Circles of `use` between the modules of a crate.
//!
//! Module A depends on module B when A's file names a path into B, in a `use` or in place. A name that a module imports or
//! re-exports stands for the module that it comes from. Tests do not count. A module's use of its own descendants does not
//! count either: a parent declares and calls its children, and a child may use its parent's types. Every other circle
//! fails: two siblings that use each other, or a child that imports a module which leads back to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{before_tests, without_comments_and_strings};

use crate::tracked::Files;

/// The path of a module within its crate; empty for the root.
type Module = Vec<String>;

/// Modules that depend on each other, as `a::b`, each with those of them that it uses itself.
pub(crate) type Circle = BTreeMap<String, Vec<String>>;

/// Names that a module imports or re-exports, with the paths that they come from.
type Imports = BTreeMap<String, Vec<String>>;

/// What one file says.
#[derive(Default)]
struct Source {
    /// Every path that starts at the crate, the module or its parent.
    paths: Vec<Vec<String>>,
    imports: Imports,
}

/// Returns a line for each circle.
pub(crate) fn violations(files: &Files) -> Vec<String> {
    let line = |(name, circle): (&str, Circle)| {
        let uses: Vec<_> =
            circle.iter().map(|(module, used)| format!("{module} uses {}", used.join(", "))).collect();
        format!("{name}: a circle; move what the modules share into its own: {}", uses.join("; "))
    };
    of_all(files).into_iter().map(line).collect()
}

/// The circles of all crates, each with the crate's folder name.
fn of_all(files: &Files) -> Vec<(&str, Circle)> {
    let mut circles = Vec::new();
    let roots = ["/src/lib.rs", "/src/main.rs"];
    let folders = files.keys().filter_map(|path| roots.iter().find_map(|root| path.strip_suffix(root)));
    for folder in folders.collect::<BTreeSet<_>>() {
        let sources = files.iter().filter_map(|(path, text)| {
            let path = path.strip_prefix(folder)?.strip_prefix("/src/")?;
            path.ends_with(".rs").then_some((path, text.as_str()))
        });
        let name = folder.rsplit('/').next().unwrap_or(folder);
        circles.extend(find(sources).into_iter().map(|circle| (name, circle)));
    }
    circles
}

/// Finds the circles of a crate from its files: paths below `src`, with their text.
pub(crate) fn find<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Circle> {
    let files: Vec<_> = files.filter(|(path, _)| !path.starts_with("bin/")).collect();
    let for_tests: BTreeSet<Module> =
        files.iter().flat_map(|(path, text)| test_modules(&module_of(path), text)).collect();
    let sources: BTreeMap<Module, Source> = files
        .iter()
        .map(|(path, text)| (module_of(path), read(text)))
        .filter(|(module, _)| !(1..=module.len()).any(|length| for_tests.contains(&module[..length])))
        .collect();
    let uses: BTreeMap<&Module, BTreeSet<&Module>> =
        sources.iter().map(|(module, source)| (module, targets(&sources, module, source))).collect();
    components(&uses)
}

fn module_of(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if matches!(path, "lib" | "main") { Module::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// The modules that a file declares for tests only, as `#[cfg(test)] mod name;`.
fn test_modules(module: &[String], text: &str) -> Vec<Module> {
    let after_mark = text.split("#[cfg(test)]").skip(1);
    let names = after_mark.filter_map(|rest| {
        let rest = rest.trim_start().strip_prefix("mod ")?;
        let name = rest.split(|c| !is_word(c)).next()?;
        rest[name.len()..].starts_with(';').then_some(name)
    });
    names.map(|name| [module, &[name.to_owned()]].concat()).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn read(text: &str) -> Source {
    let code = without_comments_and_strings(before_tests(text));
    let mut source = Source::default();
    let mut rest = code.as_str();
    while let Some(at) = next_word(rest, "use") {
        inline_paths(&rest[..at], &mut source.paths);
        let statement = rest[at + "use".len()..].split(';').next().unwrap_or_default();
        expand(&[], statement, &mut source);
        rest = &rest[at + "use".len() + statement.len()..];
    }
    inline_paths(rest, &mut source.paths);
    source
}

/// The position of `word` in `text` where whitespace follows it and no identifier runs into it.
fn next_word(text: &str, word: &str) -> Option<usize> {
    text.match_indices(word).map(|(at, _)| at).find(|&at| {
        !text[..at].ends_with(is_word) && text[at + word.len()..].starts_with(char::is_whitespace)
    })
}

/// Collects `crate::…`, `super::…` and `self::…` outside of `use`.
fn inline_paths(code: &str, paths: &mut Vec<Vec<String>>) {
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            if !code[..at].ends_with(|c: char| is_word(c) || c == ':' || c == '$') {
                let end = code[at..].find(|c: char| !is_word(c) && c != ':').unwrap_or(code.len() - at);
                paths.push(segments(&code[at..at + end]));
            }
        }
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// Collects the paths of a `use`, groups expanded, and the names that it brings in.
fn expand(prefix: &[String], tree: &str, source: &mut Source) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let prefix = [prefix, &segments(head)].concat();
        let inner = group.trim_end().strip_suffix('}').unwrap_or(group);
        split_top(inner).into_iter().for_each(|part| expand(&prefix, part, source));
        return;
    }
    let (path, alias) =
        tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
    let mut full = [prefix, &segments(path)].concat();
    if full.len() > 1 && full.last().is_some_and(|last| last == "self") {
        full.pop();
    }
    if let Some(last) = full.last().filter(|last| *last != "*") {
        source.imports.insert(alias.unwrap_or(last).to_owned(), full.clone());
        source.paths.push(full);
    }
}

/// Splits at the commas that are in no inner group.
fn split_top(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

/// The modules that `module` depends on, without itself and its descendants.
fn targets<'a>(
    sources: &'a BTreeMap<Module, Source>,
    module: &Module,
    source: &Source,
) -> BTreeSet<&'a Module> {
    let resolved = source.paths.iter().filter_map(|path| resolve(sources, module, path, 0));
    resolved.filter(|target| !target.starts_with(module)).collect()
}

/// The module whose item `path` names, seen from `module`; `None` for another crate's.
fn resolve<'a>(
    sources: &'a BTreeMap<Module, Source>,
    module: &Module,
    path: &[String],
    depth: usize,
) -> Option<&'a Module> {
    // A chain of re-exports is short; a longer one is a circle of names.
    const LONGEST: usize = 8;
    let mut target = module.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (target, rest) = (Module::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {}
        // A path of edition 2018 starts at a child or at another crate.
        first if !sources.contains_key(&[module.as_slice(), &[first.to_owned()]].concat()) => return None,
        _ => {}
    }
    while let Some((_, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
        target.pop();
        rest = after;
    }
    while let Some((first, after)) = rest.split_first() {
        target.push(first.clone());
        if !sources.contains_key(&target) {
            target.pop();
            break;
        }
        rest = after;
    }
    let (found, source) = sources.get_key_value(&target)?;
    let import = rest.first().and_then(|name| source.imports.get(name)).filter(|_| depth < LONGEST);
    let origin = import.and_then(|import| resolve(sources, found, import, depth + 1));
    Some(origin.unwrap_or(found))
}

/// The strongly connected components of more than one module.
fn components(uses: &BTreeMap<&Module, BTreeSet<&Module>>) -> Vec<Circle> {
    let reachable: BTreeMap<&Module, BTreeSet<&Module>> =
        uses.keys().map(|module| (*module, reachable(uses, module))).collect();
    let name = |module: &Module| if module.is_empty() { "crate".to_owned() } else { module.join("::") };
    let mut circles = BTreeSet::new();
    for (module, reached) in &reachable {
        let members: BTreeSet<&Module> =
            reached.iter().copied().filter(|other| reachable[*other].contains(module)).collect();
        let used = |member: &Module| uses[member].intersection(&members).map(|used| name(used)).collect();
        let circle: Circle = members.iter().map(|member| (name(member), used(member))).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn reachable<'a>(uses: &BTreeMap<&'a Module, BTreeSet<&'a Module>>, from: &Module) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Module> = uses[from].iter().copied().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(&uses[module]);
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        find(files.iter().copied()).into_iter().map(|circle| circle.into_keys().collect()).collect()
    }

    const NONE: [[&str; 0]; 0] = [];

    #[test]
    fn a_circle_is_reported_with_its_crate() {
        let files = [
            ("crates/x/src/lib.rs", "mod a; mod b;"),
            ("crates/x/src/a.rs", "use crate::b;"),
            ("crates/x/src/b.rs", "use crate::a;"),
            ("crates/x-y/src/lib.rs", "mod a;"),
            ("crates/x-y/src/a.rs", ""),
        ];
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
        let found = violations(&files);
        assert!(
            matches!(&found[..], [line] if line.starts_with("x: a circle") && line.ends_with("a uses b; b uses a")),
            "{found:?}"
        );
    }

    #[test]
    fn siblings_that_use_each_other_are_a_circle() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::{b::B, Unrelated};"),
            ("b.rs", "fn f() { crate::a::g() }"),
        ]);
        assert_eq!(found, [["a", "b"]]);
    }

    #[test]
    fn a_longer_circle_is_found_through_re_exports() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b; mod c; pub use c::{inner::C as D};"),
            ("a.rs", "use super::b;"),
            ("b/mod.rs", "use crate::D;"),
            ("c.rs", "mod inner;"),
            ("c/inner.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found, [["a", "b", "c::inner"]]);
    }

    #[test]
    fn parents_and_their_children_are_no_circle() {
        let found = circles(&[
            ("lib.rs", "mod a; pub use a::A; pub struct Root; fn f() { a::x::f() }"),
            ("a.rs", "mod x; use x::X; use self::x::f; pub struct A;"),
            ("a/x.rs", "use super::A; use crate::Root;"),
        ]);
        assert_eq!(found, NONE);
    }

    #[test]
    fn children_that_use_each_other_are_a_circle() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a.rs", "mod x; mod y;"),
            ("a/x.rs", "use super::y::Y;"),
            ("a/y.rs", "use super::x;"),
        ];
        assert_eq!(circles(&files), [["a::x", "a::y"]]);
    }

    #[test]
    fn tests_comments_and_strings_do_not_count() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b; #[cfg(test)]\nmod fixtures;"),
            ("a.rs", "use crate::b;"),
            ("b.rs", "// crate::a\nconst X: &str = \"crate::a\";\n#[cfg(test)]\nmod tests { use crate::a; }"),
            ("fixtures.rs", "use crate::a;"),
        ]);
        assert_eq!(found, NONE);
    }
}
