//! A parsed template and what it is rendered with.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::ast::{Expr, Stmt, StmtKind};
use crate::date::Date;
use crate::error::{Problem, TemplateError};
use crate::interpreter::Interpreter;
use crate::parser;
use crate::value::Value;

/// A parsed chat template, which renders conversations as transformers renders them.
///
/// ```
/// use chat_template::{Date, Inputs, Template};
///
/// let template = Template::parse("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")?;
/// let messages = serde_json::from_str(r#"[{"role": "user", "content": "Hi"}]"#)?;
/// let rendered = template.render(&Inputs { messages, ..Inputs::default() }, Date::Unset)?;
/// assert_eq!(rendered.text, "<user>Hi");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Template {
    body: Arc<[Stmt]>,
    reads_parts: bool,
}

/// What a conversation is rendered with.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The messages.
    pub messages: Vec<Map<String, Json>>,
    /// The functions that the model may call.
    pub tools: Option<Vec<Json>>,
    /// Documents for retrieval.
    pub documents: Option<Vec<Json>>,
    /// Whether the text ends with the opening of the assistant's next message.
    pub add_generation_prompt: bool,
    /// Further variables; they overrule special tokens of the same name.
    pub variables: Map<String, Json>,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// What the template looked at: keys of messages other than role and content, and variables.
    pub seen: BTreeSet<String>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    ///
    /// Where it is not valid Jinja, or uses tags that need other templates.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let body = parser::parse(source)?;
        let mut reads_parts = false;
        expressions(&body, &mut |expr, is_iterated| reads_parts |= looks_into_content(expr, is_iterated));
        Ok(Self { body: body.into(), reads_parts })
    }

    /// Returns whether the template knows that a message's content may be a list of parts: whether it loops over the
    /// content or tests its type.
    pub fn reads_parts(&self) -> bool {
        self.reads_parts
    }

    /// Renders a conversation.
    ///
    /// # Errors
    ///
    /// Where the template raises an error, applies an operation to values for which Python has none, asks for a date
    /// that is not given, or takes more than a conversation may take.
    pub fn render(&self, inputs: &Inputs, date: Date) -> Result<Rendered, TemplateError> {
        let at_start = |problem| TemplateError { line: 1, problem };
        let variables = variables(inputs).map_err(at_start)?;
        let mut interpreter = Interpreter::new(variables.clone(), &date);
        let result = interpreter.run(&self.body);
        result.map_err(|problem| TemplateError { line: interpreter.line, problem })?;
        let mut seen: BTreeSet<String> = interpreter.seen_keys.iter().map(|key| key.to_string()).collect();
        let looked_at = variables.iter().zip(&interpreter.seen_variables).filter(|(_, seen)| **seen);
        seen.extend(looked_at.map(|((name, _), _)| name.to_string()));
        Ok(Rendered { text: interpreter.out, seen })
    }

    /// The literal text of the template and its string constants, one after the other, with a null character between
    /// them.
    pub fn literal_text(&self) -> String {
        let mut literals = Vec::new();
        texts(&self.body, &mut |text| literals.push(text.to_owned()));
        expressions(&self.body, &mut |expr, _| {
            if let Expr::Const(Value::Str(text)) = expr {
                literals.push(text.to_string());
            }
        });
        literals.join("\0")
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").finish_non_exhaustive()
    }
}

fn variables(inputs: &Inputs) -> Result<Vec<(Arc<str>, Value)>, Problem> {
    let message = |message: &Map<String, Json>| {
        // Every template reads role and content.
        let watched = message.keys().any(|key| !matches!(key.as_str(), "role" | "content"));
        Ok(Value::Dict(Value::dict_from_json(message.iter(), watched)?))
    };
    let messages = inputs.messages.iter().map(message).collect::<Result<_, Problem>>()?;
    let list = |items: &Option<Vec<Json>>| match items {
        Some(items) => Value::list(items.iter().map(Value::from_json).collect::<Result<_, Problem>>()?),
        None => Ok(Value::None),
    };
    let mut variables: Vec<(Arc<str>, Value)> = vec![
        ("messages".into(), Value::list(messages)?),
        ("tools".into(), list(&inputs.tools)?),
        ("documents".into(), list(&inputs.documents)?),
        ("add_generation_prompt".into(), Value::Bool(inputs.add_generation_prompt)),
    ];
    for (name, value) in &inputs.variables {
        let value = Value::from_json(value)?;
        match variables.iter_mut().find(|(known, _)| **known == **name) {
            Some((_, old)) => *old = value,
            None => variables.push((name.as_str().into(), value)),
        }
    }
    Ok(variables)
}

/// Whether an expression loops over a content or tests its type.
fn looks_into_content(expr: &Expr, is_iterated: bool) -> bool {
    let is_content = |expr: &Expr| match expr {
        Expr::Attr(_, name) | Expr::Name(name) => name.contains("content"),
        Expr::Item(_, key) => matches!(&**key, Expr::Const(Value::Str(key)) if &**key == "content"),
        _ => false,
    };
    match expr {
        Expr::Test(value, name, _) => {
            matches!(&**name, "string" | "sequence" | "iterable" | "mapping") && is_content(value)
        }
        expr => is_iterated && is_content(expr),
    }
}

/// Calls `visit` with all literal text.
fn texts(body: &[Stmt], visit: &mut dyn FnMut(&str)) {
    for stmt in body {
        if let StmtKind::Text(text) = &stmt.kind {
            visit(text);
        }
        stmt.kind.bodies().into_iter().for_each(|body| texts(body, visit));
    }
}

/// Calls `visit` with all expressions and those within them, and whether a loop iterates over them.
fn expressions(body: &[Stmt], visit: &mut dyn FnMut(&Expr, bool)) {
    for stmt in body {
        let iterated = match &stmt.kind {
            StmtKind::For(for_loop) => Some(&for_loop.iter),
            _ => None,
        };
        for expr in stmt.kind.expressions() {
            let is_iterated = iterated.is_some_and(|iterated| std::ptr::eq(iterated, expr));
            expr.for_each(&mut |part| visit(part, is_iterated && std::ptr::eq(part, expr)));
        }
        stmt.kind.bodies().into_iter().for_each(|body| expressions(body, visit));
    }
}
