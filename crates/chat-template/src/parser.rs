//! Tokens as a tree, by Jinja's grammar.

use std::sync::Arc;

use crate::ast::{Args, BinaryOp, CompareOp, Expr, For, Macro, Stmt, StmtKind, Target};
use crate::error::{Problem, Result, TemplateError};
use crate::lexer::{self, Token};
use crate::value::Value;

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

    /// One expression, or several with commas between them as a tuple.
    fn tuple(&mut self, item: fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let first = item(self)?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op(",") {
            if matches!(self.peek(), None | Some(Token::BlockEnd | Token::PrintEnd)) || self.is_op(")") {
                break;
            }
            items.push(item(self)?);
        }
        Ok(Expr::Tuple(items))
    }

    fn expr(&mut self) -> Result<Expr> {
        self.nested(|parser| {
            let mut expr = parser.or()?;
            while parser.skip_name("if") {
                parser.deepen()?;
                let test = Box::new(parser.or()?);
                let other = if parser.skip_name("else") { Some(Box::new(parser.expr()?)) } else { None };
                expr = Expr::Cond { test, then: Box::new(expr), other };
            }
            Ok(expr)
        })
    }

    fn or(&mut self) -> Result<Expr> {
        let mut expr = self.and()?;
        while self.skip_name("or") {
            self.deepen()?;
            expr = Expr::Or(Box::new(expr), Box::new(self.and()?));
        }
        Ok(expr)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut expr = self.not()?;
        while self.skip_name("and") {
            self.deepen()?;
            expr = Expr::And(Box::new(expr), Box::new(self.not()?));
        }
        Ok(expr)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return self.nested(|parser| Ok(Expr::Not(Box::new(parser.not()?))));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let op = match self.peek() {
                Some(Token::Op("==")) => CompareOp::Eq,
                Some(Token::Op("!=")) => CompareOp::Ne,
                Some(Token::Op("<")) => CompareOp::Lt,
                Some(Token::Op("<=")) => CompareOp::Le,
                Some(Token::Op(">")) => CompareOp::Gt,
                Some(Token::Op(">=")) => CompareOp::Ge,
                Some(Token::Name(name)) if &**name == "in" => CompareOp::In,
                Some(Token::Name(name)) if &**name == "not" => {
                    let next = self.tokens.get(self.at + 1);
                    if !matches!(next, Some((Token::Name(name), _)) if &**name == "in") {
                        break;
                    }
                    self.at += 1;
                    CompareOp::NotIn
                }
                _ => break,
            };
            self.at += 1;
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    /// Operators of one precedence, from the left.
    fn binary(&mut self, ops: &[(&str, BinaryOp)], operand: fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let mut expr = operand(self)?;
        while let Some(&(symbol, op)) = ops.iter().find(|(symbol, _)| self.is_op(symbol)) {
            self.expect_op(symbol)?;
            self.deepen()?;
            expr = Expr::Binary(op, Box::new(expr), Box::new(operand(self)?));
        }
        Ok(expr)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.binary(&[("+", BinaryOp::Add), ("-", BinaryOp::Sub)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        let ops =
            [("*", BinaryOp::Mul), ("/", BinaryOp::Div), ("//", BinaryOp::FloorDiv), ("%", BinaryOp::Mod)];
        self.binary(&ops, |parser| parser.binary(&[("**", BinaryOp::Pow)], |parser| parser.unary(true)))
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        self.nested(|parser| {
            let expr = if parser.skip_op("-") {
                Expr::Neg(Box::new(parser.unary(false)?))
            } else if parser.skip_op("+") {
                Expr::Pos(Box::new(parser.unary(false)?))
            } else {
                parser.primary()?
            };
            let expr = parser.postfix(expr)?;
            if with_filters { parser.filters(expr) } else { Ok(expr) }
        })
    }

    fn primary(&mut self) -> Result<Expr> {
        let expr = match self.peek().cloned() {
            Some(Token::Name(name)) => match &*name {
                "true" | "True" => Expr::Const(Value::Bool(true)),
                "false" | "False" => Expr::Const(Value::Bool(false)),
                "none" | "None" => Expr::Const(Value::None),
                "not" | "and" | "or" | "in" | "is" | "if" | "else" => return self.fail("a value"),
                _ => {
                    self.names.push(name.clone());
                    Expr::Name(name)
                }
            },
            Some(Token::Str(mut text)) => {
                // Strings that follow one another are one.
                while let Some((Token::Str(more), _)) = self.tokens.get(self.at + 1) {
                    text.push_str(more);
                    self.at += 1;
                }
                Expr::Const(Value::Str(text.into()))
            }
            Some(Token::Int(number)) => Expr::Const(Value::Int(number)),
            Some(Token::Float(number)) => Expr::Const(Value::Float(number)),
            Some(Token::Op("(")) => {
                self.at += 1;
                if self.skip_op(")") {
                    return Ok(Expr::Tuple(Vec::new()));
                }
                let expr = self.tuple(Self::expr)?;
                self.expect_op(")")?;
                return Ok(expr);
            }
            Some(Token::Op("[")) => {
                self.at += 1;
                return Ok(Expr::List(self.items("]", Self::expr)?));
            }
            Some(Token::Op("{")) => {
                self.at += 1;
                let pair = |parser: &mut Self| {
                    let key = parser.expr()?;
                    parser.expect_op(":")?;
                    Ok((key, parser.expr()?))
                };
                return Ok(Expr::Dict(self.items("}", pair)?));
            }
            _ => return self.fail("a value"),
        };
        self.at += 1;
        Ok(expr)
    }

    /// Items with commas between them up to `end`.
    fn items<T>(&mut self, end: &str, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.skip_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.skip_op(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn postfix(&mut self, mut expr: Expr) -> Result<Expr> {
        loop {
            if self.is_op(".") || self.is_op("[") || self.is_op("(") {
                self.deepen()?;
            }
            if self.skip_op(".") {
                expr = match self.peek() {
                    Some(Token::Int(number)) => {
                        let index = Expr::Const(Value::Int(*number));
                        self.at += 1;
                        Expr::Item(Box::new(expr), Box::new(index))
                    }
                    _ => Expr::Attr(Box::new(expr), self.name()?),
                };
            } else if self.skip_op("[") {
                expr = self.subscript(expr)?;
            } else if self.skip_op("(") {
                expr = Expr::Call(Box::new(expr), self.args()?);
            } else {
                return Ok(expr);
            }
        }
    }

    fn subscript(&mut self, value: Expr) -> Result<Expr> {
        let value = Box::new(value);
        let mut parts: [Option<Box<Expr>>; 3] = [None, None, None];
        let ends = |parser: &Self| parser.is_op(":") || parser.is_op("]");
        if !ends(self) {
            let first = self.tuple(Self::expr)?;
            if self.skip_op("]") {
                return Ok(Expr::Item(value, Box::new(first)));
            }
            parts[0] = Some(Box::new(first));
        }
        for part in &mut parts[1..] {
            if self.skip_op(":") && !ends(self) {
                *part = Some(Box::new(self.expr()?));
            }
        }
        self.expect_op("]")?;
        Ok(Expr::Slice(value, parts))
    }

    /// Arguments up to `)`, which is taken.
    fn args(&mut self) -> Result<Args> {
        let mut args = Args::default();
        let mut is_first = true;
        while !self.skip_op(")") {
            if !is_first {
                self.expect_op(",")?;
                if self.skip_op(")") {
                    break;
                }
            }
            is_first = false;
            let is_keyword = matches!(
                (self.peek(), self.tokens.get(self.at + 1)),
                (Some(Token::Name(_)), Some((Token::Op("="), _)))
            );
            if self.skip_op("**") {
                args.dict = Some(Box::new(self.expr()?));
            } else if self.skip_op("*") {
                args.list = Some(Box::new(self.expr()?));
            } else if is_keyword {
                let name = self.name()?;
                self.expect_op("=")?;
                args.keyword.push((name, self.expr()?));
            } else if args.keyword.is_empty() {
                args.positional.push(self.expr()?);
            } else {
                return self.fail("a keyword argument");
            }
        }
        Ok(args)
    }

    fn filters(&mut self, mut expr: Expr) -> Result<Expr> {
        loop {
            if self.is_op("|") || self.is_name("is") {
                self.deepen()?;
            }
            if self.skip_op("|") {
                let name = self.name()?;
                let args = if self.skip_op("(") { self.args()? } else { Args::default() };
                expr = Expr::Filter(Box::new(expr), name, args);
            } else if self.skip_name("is") {
                expr = self.test(expr)?;
            } else if self.skip_op("(") {
                expr = Expr::Call(Box::new(expr), self.args()?);
            } else {
                return Ok(expr);
            }
        }
    }

    fn test(&mut self, value: Expr) -> Result<Expr> {
        let negated = self.skip_name("not");
        let name = self.name()?;
        let mut args = Args::default();
        if self.skip_op("(") {
            args = self.args()?;
        } else {
            let takes = match self.peek() {
                Some(Token::Name(name)) => {
                    !matches!(&**name, "else" | "or" | "and" | "is" | "if" | "in" | "not" | "recursive")
                }
                Some(Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Op("[" | "{")) => true,
                _ => false,
            };
            if takes {
                let argument = self.primary()?;
                args.positional.push(self.postfix(argument)?);
            }
        }
        let test = Expr::Test(Box::new(value), name, args);
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }
}
