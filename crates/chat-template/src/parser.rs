//! Tokens as a tree, by Jinja's grammar.

mod expressions;

use std::sync::Arc;

use crate::ast::{Args, Expr, For, Macro, Stmt, StmtKind, Target};
use crate::error::{Problem, Result, TemplateError};
use crate::lexer::{self, Token};

/// The depth of the tree of expressions and blocks, which takes stack.
const MAX_DEPTH: usize = 250;

/// Parses a template.
pub(crate) fn parse(source: &str) -> std::result::Result<Vec<Stmt>, TemplateError> {
    let tokens = lexer::tokens(source).map_err(|(problem, line)| TemplateError { line, problem })?;
    let mut parser = Parser { tokens, at: 0, depth: 0, loops: 0, names: Vec::new() };
    let parsed = parser.body(&[]);
    let line = parser.line();
    match parsed {
        Ok(body) if parser.at == parser.tokens.len() => Ok(body),
        Ok(_) => {
            let problem = Problem::Syntax(format!("unexpected {}", parser.found()));
            Err(TemplateError { line, problem })
        }
        Err(problem) => Err(TemplateError { line, problem }),
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    /// Loops around this place, for `break` and `continue`.
    loops: usize,
    /// Names that are read, for what macros use.
    names: Vec<Arc<str>>,
}

impl Parser {
    fn line(&self) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(1, |(_, line)| *line)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn found(&self) -> String {
        match self.peek() {
            None => "end of the template".to_owned(),
            Some(Token::Name(name)) => format!("`{name}`"),
            Some(Token::Op(op)) => format!("`{op}`"),
            Some(Token::BlockEnd) => "`%}`".to_owned(),
            Some(Token::PrintEnd) => "`}}`".to_owned(),
            Some(Token::Str(text)) => format!("{text:?}"),
            Some(Token::Int(number)) => format!("`{number}`"),
            Some(Token::Float(number)) => format!("`{number}`"),
            Some(Token::Data(_)) => "text".to_owned(),
            Some(Token::BlockBegin) => "`{%`".to_owned(),
            Some(Token::PrintBegin) => "`{{`".to_owned(),
        }
    }

    fn fail<T>(&self, expected: &str) -> Result<T> {
        Err(Problem::Syntax(format!("expected {expected}, found {}", self.found())))
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Some(Token::Op(found)) if *found == op)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let is = self.is_op(op);
        self.at += usize::from(is);
        is
    }

    fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) { Ok(()) } else { self.fail(&format!("`{op}`")) }
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if &**found == name)
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        self.at += usize::from(is);
        is
    }

    fn name(&mut self) -> Result<Arc<str>> {
        match self.peek() {
            Some(Token::Name(name)) if !name.starts_with(|c: char| c.is_numeric()) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => self.fail("a name"),
        }
    }

    fn block_end(&mut self) -> Result<()> {
        if self.peek() == Some(&Token::BlockEnd) {
            self.at += 1;
            return Ok(());
        }
        self.fail("`%}`")
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let depth = self.depth;
        self.deepen()?;
        let parsed = inner(self);
        self.depth = depth;
        parsed
    }

    /// Counts one more level, which the `nested` around it takes back: also a link of `a + b + c`, since the tree of it
    /// leans to the left.
    fn deepen(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Problem::Syntax(format!("expressions or blocks nest more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }

    /// Statements up to a block that begins with one of `ends`, whose name stays.
    fn body(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        self.nested(|parser| {
            let mut body = Vec::new();
            while parser.peek().is_some() {
                let line = parser.line();
                let kind = match parser.next() {
                    Some(Token::Data(text)) => StmtKind::Text(text),
                    Some(Token::PrintBegin) => {
                        let expr = parser.tuple(Parser::expr)?;
                        if parser.next() != Some(Token::PrintEnd) {
                            parser.at -= 1;
                            return parser.fail("`}}`");
                        }
                        StmtKind::Print(expr)
                    }
                    Some(Token::BlockBegin) => {
                        if ends.iter().any(|end| parser.is_name(end)) {
                            return Ok(body);
                        }
                        parser.nested(Self::block)?
                    }
                    _ => {
                        parser.at -= 1;
                        return parser.fail("text or a tag");
                    }
                };
                body.push(Stmt { line, kind });
            }
            if ends.is_empty() { Ok(body) } else { parser.fail(&format!("`{}`", ends.join("` or `"))) }
        })
    }

    /// A body with its end tag.
    fn closed_body(&mut self, end: &str) -> Result<Vec<Stmt>> {
        self.block_end()?;
        let body = self.body(&[end])?;
        self.at += 1;
        Ok(body)
    }

    fn block(&mut self) -> Result<StmtKind> {
        let name = self.name()?;
        match &*name {
            "if" => self.if_block(),
            "for" => self.for_block(),
            "set" => self.set_block(),
            "macro" => {
                let name = self.name()?;
                Ok(StmtKind::Macro(self.signature_and_body(name, "endmacro")?))
            }
            "call" => self.call_block(),
            "filter" => {
                let name = self.name()?;
                let args = if self.skip_op("(") { self.args()? } else { Args::default() };
                let first = Expr::Filter(Box::new(Expr::Captured), name, args);
                let expr = self.filters(first)?;
                let body = self.closed_body("endfilter")?;
                self.block_end()?;
                Ok(StmtKind::FilterBlock(expr, body))
            }
            "with" => self.with_block(),
            "generation" => self.scope("endgeneration"),
            "autoescape" => {
                self.expr()?;
                self.scope("endautoescape")
            }
            "block" => {
                self.name()?;
                while self.skip_name("scoped") || self.skip_name("required") {}
                self.block_end()?;
                let body = self.body(&["endblock"])?;
                self.at += 1;
                if matches!(self.peek(), Some(Token::Name(_))) {
                    self.at += 1;
                }
                self.block_end()?;
                Ok(StmtKind::With(Vec::new(), body))
            }
            "break" | "continue" if self.loops > 0 => {
                self.block_end()?;
                Ok(if &*name == "break" { StmtKind::Break } else { StmtKind::Continue })
            }
            "break" | "continue" => Err(Problem::Syntax(format!("`{name}` outside of a loop"))),
            "extends" | "include" | "import" | "from" => {
                Err(Problem::Syntax(format!("`{name}` needs other templates, and a chat template has none")))
            }
            _ => Err(Problem::Syntax(format!("unknown tag `{name}`"))),
        }
    }

    fn scope(&mut self, end: &str) -> Result<StmtKind> {
        let body = self.closed_body(end)?;
        self.block_end()?;
        Ok(StmtKind::With(Vec::new(), body))
    }

    fn if_block(&mut self) -> Result<StmtKind> {
        let mut branches = Vec::new();
        loop {
            let test = self.nested(|parser| parser.tuple(Self::or))?;
            self.block_end()?;
            let body = self.body(&["elif", "else", "endif"])?;
            branches.push((test, body));
            if self.skip_name("elif") {
                continue;
            }
            let mut otherwise = Vec::new();
            if self.skip_name("else") {
                self.block_end()?;
                otherwise = self.body(&["endif"])?;
            }
            self.at += 1;
            self.block_end()?;
            return Ok(StmtKind::If(branches, otherwise));
        }
    }

    fn for_block(&mut self) -> Result<StmtKind> {
        let target = self.target()?;
        if !self.skip_name("in") {
            return self.fail("`in`");
        }
        let iter = self.tuple(Self::or)?;
        let test = if self.skip_name("if") { Some(self.expr()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.block_end()?;
        self.loops += 1;
        let body = self.body(&["endfor", "else"]);
        self.loops -= 1;
        let body = body?;
        let mut otherwise = Vec::new();
        if self.skip_name("else") {
            self.block_end()?;
            otherwise = self.body(&["endfor"])?;
        }
        self.at += 1;
        self.block_end()?;
        Ok(StmtKind::For(For { target, iter, test, recursive, body, otherwise }))
    }

    fn set_block(&mut self) -> Result<StmtKind> {
        let target = self.target()?;
        if self.skip_op("=") {
            let value = self.tuple(Self::expr)?;
            self.block_end()?;
            return Ok(StmtKind::Set(target, value));
        }
        let expr = self.filters(Expr::Captured)?;
        let body = self.closed_body("endset")?;
        self.block_end()?;
        Ok(StmtKind::SetBlock(target, expr, body))
    }

    fn with_block(&mut self) -> Result<StmtKind> {
        let mut assignments = Vec::new();
        while self.peek() != Some(&Token::BlockEnd) {
            if !assignments.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target()?;
            self.expect_op("=")?;
            assignments.push((target, self.expr()?));
        }
        let body = self.closed_body("endwith")?;
        self.block_end()?;
        Ok(StmtKind::With(assignments, body))
    }

    fn call_block(&mut self) -> Result<StmtKind> {
        let start = self.at;
        // The parameters come first, the call after them, and only then the body.
        let params = if self.is_op("(") { self.params()? } else { Vec::new() };
        let call = self.unary(true)?;
        if !matches!(call, Expr::Call(..)) {
            self.at = start;
            return self.fail("a call");
        }
        let body = self.macro_body("caller".into(), params, "endcall")?;
        Ok(StmtKind::Call(call, body))
    }

    fn signature_and_body(&mut self, name: Arc<str>, end: &str) -> Result<Arc<Macro>> {
        let params = self.params()?;
        self.macro_body(name, params, end)
    }

    fn params(&mut self) -> Result<Vec<(Arc<str>, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut params = Vec::new();
        while !self.skip_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.name()?;
            let default = if self.skip_op("=") { Some(self.expr()?) } else { None };
            params.push((name, default));
        }
        Ok(params)
    }

    fn macro_body(
        &mut self,
        name: Arc<str>,
        params: Vec<(Arc<str>, Option<Expr>)>,
        end: &str,
    ) -> Result<Arc<Macro>> {
        let (loops, names) = (std::mem::take(&mut self.loops), self.names.len());
        let body = self.closed_body(end);
        self.loops = loops;
        let body = body?;
        self.block_end()?;
        let uses = ["varargs", "kwargs", "caller"]
            .map(|used| self.names[names..].iter().any(|name| &**name == used));
        Ok(Arc::new(Macro { name, params, uses, body }))
    }

    fn target(&mut self) -> Result<Target> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            if self.skip_op("(") {
                targets.push(self.nested(Self::target)?);
                self.expect_op(")")?;
            } else {
                let name = self.name()?;
                if self.skip_op(".") {
                    targets.push(Target::Field(name, self.name()?));
                } else if matches!(&*name, "true" | "false" | "none" | "True" | "False" | "None") {
                    return Err(Problem::Syntax(format!("cannot assign to `{name}`")));
                } else {
                    targets.push(Target::Name(name));
                }
            }
            if !self.skip_op(",") {
                break;
            }
            is_tuple = true;
            if self.is_name("in") || self.is_op("=") {
                break;
            }
        }
        match targets.pop() {
            Some(only) if !is_tuple => Ok(only),
            Some(last) => {
                targets.push(last);
                Ok(Target::Tuple(targets))
            }
            None => self.fail("a name"),
        }
    }
}
