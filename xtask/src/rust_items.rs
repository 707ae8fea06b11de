//! Structs, enums and their documentation, read from Rust source as text.

use crate::source::before_tests;
use crate::tracked::Files;

/// The non-test source of all crates.
pub(crate) struct Items<'a> {
    sources: Vec<&'a str>,
    /// The items of each source.
    items: Vec<Vec<Item<'a>>>,
}

/// A public field of a struct.
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) about: String,
    kind: String,
    attributes: String,
}

impl Field {
    /// The field's type without `Option`.
    pub(crate) fn inner_type(&self) -> &str {
        inner(&self.kind, "Option").unwrap_or(&self.kind)
    }

    /// The type of the section that the field is, or of each of its sections.
    pub(crate) fn section_type(&self) -> &str {
        inner(self.inner_type(), "Vec").unwrap_or(self.inner_type())
    }

    /// Whether the field is a list, such as an array of tables.
    pub(crate) fn is_list(&self) -> bool {
        inner(self.inner_type(), "Vec").is_some()
    }
}

/// A line that may follow documentation and attributes, with both.
struct Item<'a> {
    about: String,
    attributes: String,
    line: &'a str,
}

impl<'a> Items<'a> {
    pub(crate) fn new(files: &'a Files) -> Self {
        let is_source = |path: &&String| path.starts_with("crates/") && path.contains("/src/");
        let sources = files.iter().filter(|(path, _)| path.ends_with(".rs") && is_source(path));
        let sources: Vec<_> = sources.map(|(_, text)| before_tests(text)).collect();
        Self { items: sources.iter().map(|source| items(source)).collect(), sources }
    }

    /// The fields of a struct that is a table in TOML; none for other types.
    pub(crate) fn fields(&self, name: &str) -> Vec<Field> {
        let Some((attributes, body)) = self.block(&format!("pub struct {name} {{")) else {
            return Vec::new();
        };
        if attributes.contains("try_from = \"String\"") {
            return Vec::new();
        }
        let items = items(body).into_iter().filter(|item| !item.attributes.contains("(skip)"));
        items
            .filter_map(|item| {
                let (name, kind) = item.line.strip_prefix("pub ")?.trim_end_matches(',').split_once(": ")?;
                let Item { about, attributes, .. } = item;
                Some(Field { name: name.to_owned(), about, kind: kind.to_owned(), attributes })
            })
            .collect()
    }

    /// The documentation of a struct.
    pub(crate) fn about(&self, name: &str) -> String {
        let declarations = [format!("pub struct {name} {{"), format!("pub struct {name}(")];
        let mut all = self.items.iter().flatten();
        let found = all.find(|item| declarations.iter().any(|start| item.line.starts_with(start.as_str())));
        found.map_or(String::new(), |item| item.about.clone())
    }

    /// What a recipe may hold for a field.
    pub(crate) fn kind(&self, field: &Field) -> String {
        let optional = if inner(&field.kind, "Option").is_some() { ", optional" } else { "" };
        format!("{}{optional}", self.kind_of(field.inner_type()))
    }

    fn kind_of(&self, kind: &str) -> String {
        if let Some(element) = inner(kind, "Vec") {
            let element = self.kind_of(element);
            return format!("list of {}", if element == "number" { "numbers" } else { &element });
        }
        match kind {
            "bool" => "boolean".to_owned(),
            "f64" | "f32" => "number".to_owned(),
            "String" | "PathBuf" => "text".to_owned(),
            _ if kind.starts_with(['u', 'i']) || kind.starts_with("NonZero") => "integer".to_owned(),
            _ if kind.starts_with("BTreeMap") || kind.starts_with("Map") => "table".to_owned(),
            _ if kind.starts_with("[String") => "list of text".to_owned(),
            _ if kind.starts_with('[') => "list of numbers".to_owned(),
            _ => match self.words(kind) {
                words if !words.is_empty() => words.join(", "),
                _ if self.wrapped(kind).is_some_and(|inner| inner.starts_with('f')) => "number".to_owned(),
                _ if self.number(kind).is_some() => "number".to_owned(),
                _ if self.held(kind).is_some_and(|inner| self.wrapped(inner).is_some()) => {
                    "number or text".to_owned()
                }
                _ => "text".to_owned(),
            },
        }
    }

    /// The words of an enum without fields, as code.
    fn words(&self, name: &str) -> Vec<String> {
        let variants = self.variants(name).into_iter();
        variants.map(|(variant, attributes)| code(&self.word(name, &variant, &attributes))).collect()
    }

    fn variants(&self, name: &str) -> Vec<(String, String)> {
        let Some((attributes, body)) = self.block(&format!("pub enum {name} {{")) else { return Vec::new() };
        let variants = items(body).into_iter().filter(|item| item.line.starts_with(char::is_uppercase));
        let plain = |item: Item<'_>| (item.line.trim_end_matches(',').to_owned(), item.attributes);
        let variants: Vec<_> = variants.map(plain).collect();
        let is_plain = variants.iter().all(|(name, _)| name.chars().all(char::is_alphanumeric));
        if is_plain && attributes.contains("rename_all") { variants } else { Vec::new() }
    }

    fn word(&self, name: &str, variant: &str, attributes: &str) -> String {
        if let Some((_, rest)) = attributes.split_once("rename = \"") {
            return format!("\"{}\"", rest.split('"').next().unwrap_or_default());
        }
        let (container, _) = self.block(&format!("pub enum {name} {{")).unwrap_or_default();
        let separator = ["kebab-case", "snake_case"].into_iter().find(|style| container.contains(style));
        let mut word = String::new();
        for c in variant.chars() {
            match separator {
                Some(style) if c.is_uppercase() && !word.is_empty() => {
                    word.push(if style == "kebab-case" { '-' } else { '_' });
                }
                _ => {}
            }
            word.extend(c.to_lowercase());
        }
        format!("\"{word}\"")
    }

    /// The type that a tuple struct wraps.
    fn wrapped(&self, name: &str) -> Option<&'a str> {
        let start = format!("pub struct {name}(");
        let rest = self.sources.iter().find_map(|source| source.split_once(&start))?.1;
        rest.split(')').next()
    }

    /// The range of a number that the macro `number!` defines: `Name, "key", "range", |value| …`.
    fn number(&self, name: &str) -> Option<&'a str> {
        let start = format!("{name}, \"");
        let blocks = self.sources.iter().flat_map(|source| source.split("number! {").skip(1));
        let mut lines = blocks.filter_map(|block| {
            block.lines().find(|line| !line.trim_start().starts_with("//") && !line.trim().is_empty())
        });
        lines.find(|line| line.trim_start().starts_with(&start))?.split('"').nth(3)
    }

    /// The type in the first variant of an enum, such as a number next to named rules.
    fn held(&self, name: &str) -> Option<&'a str> {
        let (_, body) = self.block(&format!("pub enum {name} {{"))?;
        items(body).into_iter().find_map(|item| item.line.split_once('(')?.1.split(')').next())
    }

    /// The value of a field that a recipe leaves out, as code. What the code computes is taken from the documentation.
    pub(crate) fn default(&self, owner: &str, field: &Field) -> String {
        if inner(&field.kind, "Option").is_some() {
            let stated = stated_defaults(field);
            return if stated.is_empty() { "none".to_owned() } else { stated.join(" or ") };
        }
        let written = self.written_default(owner, field);
        if written.is_empty() || written.contains("::") || written.contains('(') {
            return stated_defaults(field).join(" or ");
        }
        written
    }

    /// The default in the code, as far as it is a literal.
    fn written_default(&self, owner: &str, field: &Field) -> String {
        let (container, _) = self.block(&format!("pub struct {owner} {{")).unwrap_or_default();
        let of_field = field.attributes.contains("default");
        if !of_field && !container.contains("default") {
            return "required".to_owned();
        }
        if let Some((_, rest)) = field.attributes.split_once("default = \"") {
            let function = rest.split('"').next().unwrap_or_default().rsplit("::").next().unwrap_or_default();
            let body = self.block(&format!("fn {function}() -> {} {{", field.kind));
            return body.map_or(String::new(), |(_, body)| code(&self.value(body.trim())));
        }
        let written = self.block(&format!("impl Default for {owner} {{")).and_then(|(_, body)| {
            let (_, fields) = body.rsplit_once("Self {")?;
            let written = split_top(fields.rsplit_once("}\n").map_or(fields, |(fields, _)| fields));
            written.into_iter().find_map(|part| part.trim().strip_prefix(&format!("{}: ", field.name)))
        });
        match written.filter(|_| !of_field) {
            Some(value) => code(&self.value(value.trim().trim_end_matches(['}', ' ']))),
            None => code(&self.zero(&field.kind)),
        }
    }

    fn zero(&self, kind: &str) -> String {
        let marked =
            self.variants(kind).into_iter().find(|(_, attributes)| attributes.contains("#[default]"));
        match (kind, marked) {
            (_, Some((variant, attributes))) => self.word(kind, &variant, &attributes),
            ("bool", _) => "false".to_owned(),
            ("f64", _) => "0.0".to_owned(),
            ("String" | "PathBuf", _) => "\"\"".to_owned(),
            _ if kind.starts_with(['u', 'i']) => "0".to_owned(),
            _ if inner(kind, "Vec").is_some() => "[]".to_owned(),
            _ if kind.starts_with("BTreeMap") || kind.starts_with("Map") => "{}".to_owned(),
            _ => {
                let variant = self.block(&format!("pub enum {kind} {{")).and_then(|(_, body)| {
                    items(body).into_iter().find(|item| item.attributes.contains("#[default]"))
                });
                variant.map_or(String::new(), |item| {
                    format!("\"{}\"", item.line.trim_end_matches(',').to_lowercase())
                })
            }
        }
    }

    /// A value as TOML has it, where the expression is a constant or a variant.
    fn value(&self, expression: &str) -> String {
        let text = expression.replace("vec![", "[").replace(".to_owned()", "").replace(".into()", "");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.starts_with('[') {
            let inner = text.trim_start_matches('[').trim_end_matches([']', ',', ' ']);
            let values = split_top(inner).into_iter().map(|value| self.value(value.trim()));
            return format!("[{}]", values.collect::<Vec<_>>().join(", "));
        }
        if let Some((_, literal)) = text.split_once("let values = [") {
            return format!("[{}]", literal.split(']').next().unwrap_or_default());
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return text.replace('_', "");
        }
        match text.as_str() {
            "Vec::new()" => return "[]".to_owned(),
            "Map::new()" | "BTreeMap::new()" => return "{}".to_owned(),
            _ => {}
        }
        // The field of another section.
        if let Some((kind, name)) = text.split_once("::default().") {
            let field = self.fields(kind).into_iter().find(|field| field.name == name);
            return field.map_or(text.clone(), |field| self.default(kind, &field).replace('`', ""));
        }
        // A variant that holds a list or a word.
        if let Some((_, held)) = text.strip_suffix(')').and_then(|text| text.split_once('('))
            && held.starts_with(['[', '"'])
        {
            return self.value(held);
        }
        if let Some(number) = text.strip_prefix("NonZero").and_then(|rest| rest.split_once("::new(")) {
            return self.value(number.1.split(").").next().unwrap_or_default());
        }
        let constant = text.rsplit("::").next().unwrap_or_default();
        if constant.chars().all(|c| c.is_uppercase() || c == '_') && !text.contains("Self") {
            let declaration = format!("pub const {constant}: ");
            let declared = self.sources.iter().find_map(|source| source.split_once(&declaration));
            let value = declared.and_then(|(_, rest)| rest.split(';').next()?.split_once(" = "));
            if let Some((_, value)) = value.filter(|(kind, _)| *kind != "Self") {
                return self.value(value);
            }
        }
        let Some((kind, name)) = text.split_once("::") else { return text };
        if let Some((variant, attributes)) =
            self.variants(kind).into_iter().find(|(variant, _)| variant == name)
        {
            return self.word(kind, &variant, &attributes);
        }
        let constant = format!("const {name}: Self = Self(");
        let inside = |source: &&'a str| {
            let (_, body) = source.split_once(&format!("impl {kind} {{"))?;
            body.split_once(&constant).and_then(|(_, rest)| rest.split_once(')')).map(|(value, _)| value)
        };
        // A constant of an enum whose variant holds the value.
        let held = |source: &&'a str| {
            let (_, body) = source.split_once(&format!("impl {kind} {{"))?;
            let (_, rest) = body.split_once(&format!("const {name}: Self = Self::"))?;
            rest.split(')').next()?.split_once('(').map(|(_, value)| value)
        };
        if let Some(value) = self.sources.iter().find_map(held) {
            return self.value(value);
        }
        let of_number = if text.starts_with("NonZero") && name == "MIN" { "1" } else { &text };
        self.sources.iter().find_map(inside).unwrap_or(of_number).to_owned()
    }

    /// The range that a section's check states for a field, or the documentation of its type if it wraps a number.
    pub(crate) fn range(&self, owner: &str, field: &Field) -> String {
        let start = format!("in_range(\"{}\", ", field.name);
        let body = self.sources.iter().find_map(|source| source.split_once(&format!("impl {owner} {{")));
        let call = body.and_then(|(_, body)| body.split_once(&start));
        // The range is the last argument.
        let call = call.and_then(|(_, rest)| rest.split_once("\")"));
        let stated = call.and_then(|(call, _)| call.rsplit('"').next());
        let stated = stated.or_else(|| self.number(field.inner_type()));
        let of_type = || match self.wrapped(field.inner_type()) {
            Some(_) => first_sentence(&self.about(field.inner_type())),
            None => String::new(),
        };
        stated.map_or_else(of_type, str::to_owned)
    }

    /// The files that methods of a type name, each with the method's documentation.
    pub(crate) fn paths(&self, name: &str) -> Vec<(String, String)> {
        let start = format!("impl {name} {{");
        let bodies = self.sources.iter().flat_map(|source| source.split(start.as_str()).skip(1));
        let mut paths = Vec::new();
        for body in bodies.map(|body| body.split("\n}").next().unwrap_or_default()) {
            for item in items(body).iter().filter(|item| item.line.ends_with("(&self) -> PathBuf {")) {
                let after = body.split_once(item.line).map_or("", |(_, after)| after);
                let argument = after.split_once(".join(").and_then(|(_, rest)| rest.split(')').next());
                let argument = argument.unwrap_or_default();
                let name = argument.rsplit("::").next().unwrap_or_default();
                let constant = self
                    .sources
                    .iter()
                    .find_map(|source| source.split_once(&format!("const {name}: &str = ")));
                let value = constant.map_or(argument, |(_, rest)| rest.split(';').next().unwrap_or_default());
                if value.starts_with('"') {
                    paths.push((value.trim_matches('"').to_owned(), item.about.clone()));
                }
            }
        }
        paths
    }

    /// The attributes and the body of the item that starts with `start`.
    fn block(&self, start: &str) -> Option<(String, &'a str)> {
        let found = self.sources.iter().zip(&self.items).filter_map(|(source, items)| {
            let item = items.iter().find(|item| item.line.ends_with(start))?;
            let (_, rest) = source.split_once(start)?;
            let body = &rest[..rest.find("\n}").map_or(rest.len(), |at| at + 1)];
            Some((item.attributes.clone(), body))
        });
        // A type of a recipe is one that serde reads; another crate may have one of the same name.
        found.max_by_key(|(attributes, _)| attributes.contains("serde"))
    }
}

/// The lines of code with the documentation and attributes above them.
fn items(text: &str) -> Vec<Item<'_>> {
    let (mut about, mut attributes) = (Vec::new(), String::new());
    let mut items = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            about.push(doc.trim());
        } else if line.starts_with("#[") {
            attributes += line;
        } else {
            let paragraph = about.split(|line| line.is_empty()).next().unwrap_or_default().join(" ");
            items.push(Item { about: plain(&paragraph), attributes: std::mem::take(&mut attributes), line });
            about.clear();
        }
    }
    items
}

/// Documentation without links between items.
fn plain(text: &str) -> String {
    let text = &text.replace("\\[", "[").replace("\\]", "]");
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some((before, link)) = rest.split_once('[') {
        plain += before;
        let Some((shown, after)) = link.split_once(']') else { return plain + "[" + link };
        let is_link = shown.starts_with('`') || after.starts_with('(');
        plain += &if is_link { shown.to_owned() } else { format!("[{shown}]") };
        rest =
            if after.starts_with('(') { after.split_once(')').map_or("", |(_, after)| after) } else { after };
    }
    plain + rest
}

/// The values that documentation gives as `[default: value]`: numbers, words in quotes, or the elements of a list.
fn stated_defaults(field: &Field) -> Vec<String> {
    let stated = field.about.split("[default: ").skip(1).filter_map(|rest| rest.split(']').next());
    let values = stated.map(|value| value.replace('`', ""));
    let is_literal = |value: &str| value.parse::<f64>().is_ok() || value.starts_with('"');
    let literals = values.filter(|value| value.split(", ").all(is_literal));
    literals.map(|value| code(&if field.is_list() { format!("[{value}]") } else { value })).collect()
}

fn first_sentence(text: &str) -> String {
    text.split_once(". ").map_or(text.to_owned(), |(first, _)| format!("{first}."))
}

/// The parameter of `wrapper<…>`.
fn inner<'t>(kind: &'t str, wrapper: &str) -> Option<&'t str> {
    kind.strip_prefix(wrapper)?.strip_prefix('<')?.strip_suffix('>')
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// Splits at the commas that are in no bracket.
fn split_top(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}
