//! A parsed template.

use std::sync::Arc;

use crate::value::Value;

#[derive(Debug)]
pub(crate) enum Expr {
    Const(Value),
    Name(Arc<str>),
    Tuple(Vec<Expr>),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// `then if test else other`.
    Cond {
        test: Box<Expr>,
        then: Box<Expr>,
        other: Option<Box<Expr>>,
    },
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    Pos(Box<Expr>),
    Compare(Box<Expr>, Vec<(CompareOp, Expr)>),
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a ~ b`.
    Concat(Vec<Expr>),
    Attr(Box<Expr>, Arc<str>),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
    Call(Box<Expr>, Args),
    Filter(Box<Expr>, Arc<str>, Args),
    Test(Box<Expr>, Arc<str>, Args),
    /// The text that a filter block or a `set` block captured.
    Captured,
}

#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) positional: Vec<Expr>,
    pub(crate) keyword: Vec<(Arc<str>, Expr)>,
    /// `*list`.
    pub(crate) list: Option<Box<Expr>>,
    /// `**dict`.
    pub(crate) dict: Option<Box<Expr>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

impl BinaryOp {
    /// The operator as Python's errors name it.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::FloorDiv => "//",
            Self::Mod => "%",
            Self::Pow => "** or pow()",
        }
    }
}

/// What is assigned to.
#[derive(Debug)]
pub(crate) enum Target {
    Name(Arc<str>),
    /// `namespace.name`.
    Field(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(crate) struct Stmt {
    pub(crate) line: usize,
    pub(crate) kind: StmtKind,
}

#[derive(Debug)]
pub(crate) enum StmtKind {
    Text(Arc<str>),
    Print(Expr),
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    For(For),
    Set(Target, Expr),
    /// The expression holds [`Expr::Captured`].
    SetBlock(Target, Expr, Vec<Stmt>),
    Macro(Arc<Macro>),
    /// `{% call(…) f(…) %}`.
    Call(Expr, Arc<Macro>),
    /// The expression holds [`Expr::Captured`].
    FilterBlock(Expr, Vec<Stmt>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    Break,
    Continue,
}

#[derive(Debug)]
pub(crate) struct For {
    pub(crate) target: Target,
    pub(crate) iter: Expr,
    pub(crate) test: Option<Expr>,
    pub(crate) recursive: bool,
    pub(crate) body: Vec<Stmt>,
    pub(crate) otherwise: Vec<Stmt>,
}

#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) name: Arc<str>,
    pub(crate) params: Vec<(Arc<str>, Option<Expr>)>,
    /// Whether the body uses `varargs`, `kwargs` and `caller`: only then may they be given.
    pub(crate) uses: [bool; 3],
    pub(crate) body: Vec<Stmt>,
}

impl Expr {
    /// Calls `visit` with the expression and all within it.
    pub(crate) fn for_each<'e>(&'e self, visit: &mut dyn FnMut(&'e Self)) {
        visit(self);
        match self {
            Self::Const(_) | Self::Name(_) | Self::Captured => {}
            Self::Tuple(items) | Self::List(items) | Self::Concat(items) => {
                items.iter().for_each(|item| item.for_each(visit));
            }
            Self::Dict(entries) => {
                for (key, value) in entries {
                    key.for_each(visit);
                    value.for_each(visit);
                }
            }
            Self::Cond { test, then, other } => {
                test.for_each(visit);
                then.for_each(visit);
                other.iter().for_each(|other| other.for_each(visit));
            }
            Self::And(a, b) | Self::Or(a, b) | Self::Binary(_, a, b) | Self::Item(a, b) => {
                a.for_each(visit);
                b.for_each(visit);
            }
            Self::Not(inner) | Self::Neg(inner) | Self::Pos(inner) | Self::Attr(inner, _) => {
                inner.for_each(visit)
            }
            Self::Compare(first, rest) => {
                first.for_each(visit);
                rest.iter().for_each(|(_, right)| right.for_each(visit));
            }
            Self::Slice(value, parts) => {
                value.for_each(visit);
                parts.iter().flatten().for_each(|part| part.for_each(visit));
            }
            Self::Call(value, args) | Self::Filter(value, _, args) | Self::Test(value, _, args) => {
                value.for_each(visit);
                args.positional.iter().for_each(|arg| arg.for_each(visit));
                args.keyword.iter().for_each(|(_, arg)| arg.for_each(visit));
                args.list.iter().chain(&args.dict).for_each(|arg| arg.for_each(visit));
            }
        }
    }
}

impl StmtKind {
    /// The bodies within the statement.
    pub(crate) fn bodies(&self) -> Vec<&[Stmt]> {
        match self {
            Self::If(branches, otherwise) => {
                branches.iter().map(|(_, body)| body).chain([otherwise]).map(Vec::as_slice).collect()
            }
            Self::For(for_loop) => vec![&for_loop.body, &for_loop.otherwise],
            Self::SetBlock(_, _, body) | Self::FilterBlock(_, body) | Self::With(_, body) => vec![body],
            Self::Macro(definition) | Self::Call(_, definition) => vec![&definition.body],
            Self::Text(_) | Self::Print(_) | Self::Set(..) | Self::Break | Self::Continue => Vec::new(),
        }
    }

    /// The expressions of the statement, without those of its bodies.
    pub(crate) fn expressions(&self) -> Vec<&Expr> {
        match self {
            Self::Print(expr)
            | Self::Set(_, expr)
            | Self::SetBlock(_, expr, _)
            | Self::FilterBlock(expr, _) => {
                vec![expr]
            }
            Self::If(branches, _) => branches.iter().map(|(test, _)| test).collect(),
            Self::For(for_loop) => [&for_loop.iter].into_iter().chain(&for_loop.test).collect(),
            Self::Macro(definition) => definition.defaults().collect(),
            Self::Call(expr, definition) => definition.defaults().chain([expr]).collect(),
            Self::With(assignments, _) => assignments.iter().map(|(_, expr)| expr).collect(),
            Self::Text(_) | Self::Break | Self::Continue => Vec::new(),
        }
    }
}

impl Macro {
    fn defaults(&self) -> impl Iterator<Item = &Expr> {
        self.params.iter().filter_map(|(_, default)| default.as_ref())
    }
}
