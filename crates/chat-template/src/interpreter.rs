//! Evaluates a parsed template.

mod calls;
mod expressions;
mod filters;
mod methods;
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::args::CallArgs;
use crate::ast::{Expr, For, Macro, Stmt, StmtKind, Target};
use crate::date::Date;
use crate::error::{Problem, Result, value_error};
use crate::limits::Budget;
use crate::value::{Dict, Function, Value};

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Normal,
    Break,
    Continue,
}

/// The state of one rendering.
pub(crate) struct Interpreter<'t> {
    pub(crate) budget: Budget,
    pub(crate) out: String,
    /// The line of the statement that runs.
    pub(crate) line: usize,
    /// Keys of watched dicts that were looked at.
    pub(crate) seen_keys: BTreeSet<Arc<str>>,
    /// Of the first variables of the first scope, those that were looked at.
    pub(crate) seen_variables: Vec<bool>,
    date: &'t Date,
    scopes: Vec<Scope>,
    current: usize,
    captured: Vec<Value>,
    pub(crate) namespaces: Vec<Vec<(Arc<str>, Value)>>,
    macros: Vec<(&'t Macro, usize)>,
    pub(crate) loops: Vec<LoopState<'t>>,
    pub(crate) iterators: Vec<std::vec::IntoIter<Value>>,
    pub(crate) cyclers: Vec<(Vec<Value>, usize)>,
    pub(crate) joiners: Vec<(Arc<str>, bool)>,
}

/// The variables of a body.
struct Scope {
    parent: Option<usize>,
    variables: Vec<(Arc<str>, Value)>,
    /// Whether a macro refers to it, so that it must stay.
    kept: bool,
}

/// What a `for` loop knows of itself.
pub(crate) struct LoopState<'t> {
    pub(crate) items: Arc<[Value]>,
    pub(crate) index: usize,
    pub(crate) depth: usize,
    pub(crate) changed: Option<Vec<Value>>,
    recursive: Option<(&'t For, usize)>,
}

impl<'t> Interpreter<'t> {
    pub(crate) fn new(variables: Vec<(Arc<str>, Value)>, date: &'t Date) -> Self {
        Self {
            budget: Budget::new(),
            out: String::new(),
            line: 1,
            seen_keys: BTreeSet::new(),
            seen_variables: vec![false; variables.len()],
            date,
            scopes: vec![Scope { parent: None, variables, kept: true }],
            current: 0,
            captured: Vec::new(),
            namespaces: Vec::new(),
            macros: Vec::new(),
            loops: Vec::new(),
            iterators: Vec::new(),
            cyclers: Vec::new(),
            joiners: Vec::new(),
        }
    }

    /// Renders `body` into `out`.
    pub(crate) fn run(&mut self, body: &'t [Stmt]) -> Result<()> {
        self.body(body).map(drop)
    }

    fn body(&mut self, body: &'t [Stmt]) -> Result<Flow> {
        self.budget.enter()?;
        for stmt in body {
            self.line = stmt.line;
            let flow = self.statement(&stmt.kind)?;
            if flow != Flow::Normal {
                self.budget.leave();
                return Ok(flow);
            }
        }
        self.budget.leave();
        Ok(Flow::Normal)
    }

    fn statement(&mut self, stmt: &'t StmtKind) -> Result<Flow> {
        match stmt {
            StmtKind::Text(text) => {
                self.budget.steps(1)?;
                self.budget.bytes(text.len() as u128)?;
                self.out.push_str(text);
            }
            StmtKind::Print(expr) => {
                let value = self.eval(expr)?;
                self.note_all(&value);
                value.write_str(&mut self.out, &mut self.budget)?;
            }
            StmtKind::If(branches, otherwise) => {
                for (test, body) in branches {
                    if self.eval(test)?.is_true() {
                        return self.body(body);
                    }
                }
                return self.body(otherwise);
            }
            StmtKind::For(for_loop) => {
                let value = self.eval(&for_loop.iter)?;
                let items = self.iterate(&value)?;
                self.for_loop(for_loop, items, self.current, 0)?;
            }
            StmtKind::Set(target, expr) => {
                let value = self.eval(expr)?;
                self.assign(target, value)?;
            }
            StmtKind::SetBlock(target, expr, body) => {
                let value = self.with_captured(expr, body)?;
                self.assign(target, value)?;
            }
            StmtKind::FilterBlock(expr, body) => {
                let value = self.with_captured(expr, body)?;
                value.write_str(&mut self.out, &mut self.budget)?;
            }
            StmtKind::Macro(definition) => {
                let value = self.define(definition)?;
                self.set(&definition.name, value);
            }
            StmtKind::Call(expr, body) => {
                let caller = self.define(body)?;
                let Expr::Call(callee, args) = expr else { return value_error("a call block needs a call") };
                let callee = self.eval(callee)?;
                let mut args = self.args(args)?;
                args.keyword.push(("caller".into(), caller));
                let value = self.call(&callee, args)?;
                value.write_str(&mut self.out, &mut self.budget)?;
            }
            StmtKind::With(assignments, body) => {
                // All values are computed before any name is set.
                let mut values = Vec::with_capacity(assignments.len());
                for (_, expr) in assignments {
                    values.push(self.eval(expr)?);
                }
                return self.scoped(self.current, |this| {
                    for ((target, _), value) in assignments.iter().zip(values) {
                        this.assign(target, value)?;
                    }
                    this.body(body)
                });
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Normal)
    }

    /// Runs `inner` in a new scope below `parent`.
    fn scoped<T>(&mut self, parent: usize, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.budget.bytes(64)?;
        let (outer, scope) = (self.current, self.scopes.len());
        self.scopes.push(Scope { parent: Some(parent), variables: Vec::new(), kept: false });
        self.current = scope;
        let result = inner(self)?;
        self.current = outer;
        if self.scopes.len() == scope + 1 && !self.scopes[scope].kept {
            self.scopes.pop();
        }
        Ok(result)
    }

    /// The text that `inner` renders.
    fn capture(&mut self, inner: impl FnOnce(&mut Self) -> Result<()>) -> Result<Value> {
        let outer = std::mem::take(&mut self.out);
        inner(self)?;
        let text = std::mem::replace(&mut self.out, outer);
        Ok(Value::str(text))
    }

    fn with_captured(&mut self, expr: &'t Expr, body: &'t [Stmt]) -> Result<Value> {
        let text = self.capture(|this| this.scoped(this.current, |this| this.body(body)).map(drop))?;
        self.captured.push(text);
        let value = self.eval(expr);
        self.captured.pop();
        value
    }

    fn for_loop(&mut self, for_loop: &'t For, items: Vec<Value>, parent: usize, depth: usize) -> Result<()> {
        let items = match &for_loop.test {
            None => items,
            Some(test) => {
                let mut kept = Vec::new();
                for item in items {
                    let keep = self.scoped(parent, |this| {
                        this.assign(&for_loop.target, item.clone())?;
                        Ok(this.eval(test)?.is_true())
                    })?;
                    if keep {
                        kept.push(item);
                    }
                }
                kept
            }
        };
        if items.is_empty() {
            return self.scoped(parent, |this| this.body(&for_loop.otherwise)).map(drop);
        }
        self.budget.bytes(128)?;
        let state = self.loops.len();
        let recursive = for_loop.recursive.then_some((for_loop, parent));
        self.loops.push(LoopState { items: items.into(), index: 0, depth, changed: None, recursive });
        let count = self.loops[state].items.len();
        for index in 0..count {
            let item = self.loops[state].items[index].clone();
            self.loops[state].index = index;
            let flow = self.scoped(parent, |this| {
                this.set_new("loop".into(), Value::Loop(state));
                this.assign(&for_loop.target, item)?;
                this.body(&for_loop.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// `loop(items)` within a recursive loop.
    pub(crate) fn recurse(&mut self, state: usize, items: &Value) -> Result<Value> {
        let LoopState { recursive, depth, .. } = &self.loops[state];
        let Some((for_loop, parent)) = *recursive else {
            return value_error("the loop must have the 'recursive' marker to be called recursively");
        };
        let depth = depth + 1;
        let items = self.iterate(items)?;
        self.budget.enter()?;
        let text = self.capture(|this| this.for_loop(for_loop, items, parent, depth))?;
        self.budget.leave();
        Ok(text)
    }

    fn define(&mut self, definition: &'t Macro) -> Result<Value> {
        self.budget.bytes(64)?;
        let mut scope = Some(self.current);
        while let Some(index) = scope {
            self.scopes[index].kept = true;
            scope = self.scopes[index].parent;
        }
        self.macros.push((definition, self.current));
        Ok(Value::Macro(self.macros.len() - 1))
    }

    pub(crate) fn macro_name(&self, index: usize) -> Arc<str> {
        self.macros[index].0.name.clone()
    }

    pub(crate) fn call_macro(&mut self, index: usize, mut args: CallArgs) -> Result<Value> {
        let (definition, scope) = self.macros[index];
        self.budget.enter()?;
        let [uses_varargs, uses_kwargs, uses_caller] = definition.uses;
        let name = &definition.name;
        let caller = args.take("caller");
        let mut positional = args.positional.into_iter();
        let text = self.capture(|this| {
            this.scoped(scope, |this| {
                let keyword = &mut args.keyword;
                for (param, default) in &definition.params {
                    let given = positional.next().or_else(|| {
                        let at = keyword.iter().position(|(name, _)| name == param)?;
                        Some(keyword.remove(at).1)
                    });
                    let value = match (given, default) {
                        (Some(value), _) => value,
                        (None, Some(default)) => this.eval(default)?,
                        (None, None) => Value::undefined(format!("parameter '{param}' was not provided")),
                    };
                    this.set(param, value);
                }
                let rest: Vec<Value> = positional.collect();
                if !rest.is_empty() && !uses_varargs {
                    let most = definition.params.len();
                    return value_error(format!("macro '{name}' takes not more than {most} argument(s)"));
                }
                if let Some((unknown, _)) = keyword.first().filter(|_| !uses_kwargs) {
                    return value_error(format!("macro '{name}' takes no keyword argument '{unknown}'"));
                }
                if uses_varargs {
                    this.set_new("varargs".into(), Value::tuple(rest)?);
                }
                if uses_kwargs {
                    let entries = keyword.drain(..).map(|(name, value)| (Value::Str(name), value)).collect();
                    let kwargs = Value::Dict(Dict::new(entries, &mut this.budget)?);
                    this.set_new("kwargs".into(), kwargs);
                }
                match caller {
                    Some(_) if !uses_caller => {
                        return value_error(format!(
                            "macro '{name}' was invoked with two values for the special caller argument"
                        ));
                    }
                    Some(caller) => this.set_new("caller".into(), caller),
                    None if uses_caller => {
                        this.set_new("caller".into(), Value::undefined("No caller defined"));
                    }
                    None => {}
                }
                this.body(&definition.body).map(drop)
            })
        })?;
        self.budget.leave();
        Ok(text)
    }

    fn assign(&mut self, target: &Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.set(name, value),
            Target::Field(namespace, field) => match self.lookup(namespace) {
                Value::Namespace(_) if field.starts_with('_') => {
                    return value_error(format!(
                        "cannot store underscore-prefixed attribute {field:?} on a namespace"
                    ));
                }
                Value::Namespace(index) => {
                    let fields = &mut self.namespaces[index];
                    match fields.iter_mut().find(|(name, _)| name == field) {
                        Some((_, old)) => *old = value,
                        None => fields.push((field.clone(), value)),
                    }
                }
                _ => return value_error("cannot assign attribute on non-namespace object"),
            },
            Target::Tuple(targets) => {
                let values = self.iterate(&value)?;
                if values.len() != targets.len() {
                    let (expected, got) = (targets.len(), values.len());
                    let which = if got > expected { "too many" } else { "not enough" };
                    return value_error(format!("{which} values to unpack (expected {expected}, got {got})"));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value)?;
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &Arc<str>, value: Value) {
        let variables = &mut self.scopes[self.current].variables;
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => variables.push((name.clone(), value)),
        }
    }

    fn set_new(&mut self, name: Arc<str>, value: Value) {
        self.scopes[self.current].variables.push((name, value));
    }

    fn lookup(&mut self, name: &Arc<str>) -> Value {
        let mut scope = Some(self.current);
        while let Some(index) = scope {
            let variables = &self.scopes[index].variables;
            if let Some(at) = variables.iter().position(|(known, _)| known == name) {
                if index == 0 && at < self.seen_variables.len() {
                    self.seen_variables[at] = true;
                }
                return variables[at].1.clone();
            }
            scope = self.scopes[index].parent;
        }
        match &**name {
            "range" => Value::Function(Function::Range),
            "dict" => Value::Function(Function::Dict),
            "namespace" => Value::Function(Function::Namespace),
            "cycler" => Value::Function(Function::Cycler),
            "joiner" => Value::Function(Function::Joiner),
            "raise_exception" => Value::Function(Function::RaiseException),
            "strftime_now" if !matches!(self.date, Date::Absent) => Value::Function(Function::StrftimeNow),
            _ => Value::undefined(format!("'{name}' is undefined")),
        }
    }

    pub(crate) fn date(&self, pattern: &str) -> Result<Value> {
        match self.date {
            Date::At(seconds) => Ok(Value::str(crate::strftime::strftime(pattern, *seconds))),
            Date::Unset | Date::Absent => Err(Problem::NoDate),
        }
    }

    /// Notes that a template looks at all of a watched dict, or at those within a list.
    pub(crate) fn note_all(&mut self, value: &Value) {
        match value {
            Value::Dict(dict) if dict.watched => {
                let keys = dict.entries.iter().filter_map(|(key, _)| match key {
                    Value::Str(key) => Some(key.clone()),
                    _ => None,
                });
                self.seen_keys.extend(keys);
            }
            Value::List(seq)
                if seq.items.iter().any(|item| matches!(item, Value::Dict(dict) if dict.watched)) =>
            {
                for item in &seq.items {
                    self.note_all(item);
                }
            }
            _ => {}
        }
    }
}
