//! Expressions.

use super::Parser;
use crate::ast::{Args, BinaryOp, CompareOp, Expr};
use crate::error::Result;
use crate::lexer::Token;
use crate::value::Value;

impl Parser {
    /// One expression, or several with commas between them as a tuple.
    pub(super) fn tuple(&mut self, item: fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
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

    pub(super) fn expr(&mut self) -> Result<Expr> {
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

    pub(super) fn or(&mut self) -> Result<Expr> {
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

    pub(super) fn unary(&mut self, with_filters: bool) -> Result<Expr> {
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
    pub(super) fn args(&mut self) -> Result<Args> {
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

    pub(super) fn filters(&mut self, mut expr: Expr) -> Result<Expr> {
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
