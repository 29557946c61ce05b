//! What is refused before a template is compiled.
//!
//! The engine's parser and compiler follow long chains (`a + a + …`, `{% elif %}` after `{% elif %}`) by recursion
//! without a bound, and the compiler works out constant expressions, which the meter never sees:
//! `['x' * 100000000, …]` fills the memory before anything is rendered.

use minijinja::machinery::ast::{self, BinOpKind, CallArg, Expr, Stmt, UnaryOpKind};
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

use crate::{Error, Result};

/// How deep an expression may nest, operators in a chain counted.
const MAX_DEPTH: u64 = 300;

/// How many `elif` a template may have.
const MAX_ELIF: u64 = 300;

/// How large a constant may be that the compiler makes, in bytes.
const MAX_CONST: u64 = 4096;

/// Refuses templates whose compilation would take the stack or the memory. What does not parse passes: the
/// compiler says why.
pub(super) fn check(source: &str, syntax: &SyntaxConfig) -> Result<()> {
    if !chains(source, syntax)? {
        return Ok(());
    }
    match parse(source, "", syntax.clone()) {
        Ok(template) => statement(&template),
        Err(_) => Ok(()),
    }
}

fn limit(what: &'static str, max: u64, got: u64) -> Error {
    Error::Limit { what, max, got }
}

/// One bracket of an expression.
#[derive(Default)]
struct Level {
    /// Depth of what was read since the last comma.
    depth: u64,
    /// The deepest before it.
    deepest: u64,
}

/// Counts, without recursion, how deep the tree of every expression will be. False if the source has no tokens.
fn chains(source: &str, syntax: &SyntaxConfig) -> Result<bool> {
    let mut levels = vec![Level::default()];
    let mut elifs = 0;
    for token in tokenize(source, false, syntax.clone()) {
        let Ok((token, _)) = token else {
            return Ok(false);
        };
        match token {
            Token::VariableStart | Token::BlockStart => {
                levels.clear();
                levels.push(Level::default());
            }
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => {
                levels.push(Level::default());
                if levels.len() as u64 > MAX_DEPTH {
                    return Err(limit(
                        "depth of an expression of a chat template",
                        MAX_DEPTH,
                        levels.len() as u64,
                    ));
                }
            }
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                let inner = levels.pop().map_or(0, |l| l.depth.max(l.deepest));
                if levels.is_empty() {
                    levels.push(Level::default());
                }
                deepen(&mut levels, inner)?;
            }
            Token::Comma | Token::Colon => {
                if let Some(level) = levels.last_mut() {
                    level.deepest = level.deepest.max(level.depth);
                    level.depth = 0;
                }
            }
            Token::Ident("elif") => {
                elifs += 1;
                if elifs > MAX_ELIF {
                    return Err(limit("elif in a chat template", MAX_ELIF, elifs));
                }
            }
            Token::Ident("and" | "or" | "not" | "is" | "in" | "if" | "else") => {
                deepen(&mut levels, 0)?;
            }
            Token::TemplateData(_)
            | Token::VariableEnd
            | Token::BlockEnd
            | Token::Ident(_)
            | Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_) => {}
            // Operators, and all that a later version of the engine may add.
            _ => deepen(&mut levels, 0)?,
        }
    }
    Ok(true)
}

/// One node more above what was read and above an operand of depth `inner`.
fn deepen(levels: &mut [Level], inner: u64) -> Result<()> {
    if let Some(level) = levels.last_mut() {
        level.depth = level.depth.max(inner) + 1;
        if level.depth > MAX_DEPTH {
            return Err(limit(
                "depth of an expression of a chat template",
                MAX_DEPTH,
                level.depth,
            ));
        }
    }
    Ok(())
}

/// A constant the compiler will make.
#[derive(Clone, Copy)]
enum Const {
    /// A number or a boolean, with its magnitude as far as it is known.
    Number(u64),
    /// Text or a list, with its bytes when printed, or more.
    Long(u64),
}

impl Const {
    /// What it takes to print it.
    fn printed(self) -> u64 {
        match self {
            Const::Number(_) => 48,
            Const::Long(bytes) => bytes,
        }
    }
}

fn statement(statement: &Stmt<'_>) -> Result<()> {
    match statement {
        Stmt::Template(s) => statements(&s.children),
        Stmt::EmitExpr(s) => seen(&s.expr),
        Stmt::ForLoop(s) => {
            seen(&s.iter)?;
            seen(&s.target)?;
            s.filter_expr.iter().try_for_each(seen)?;
            statements(&s.body)?;
            statements(&s.else_body)
        }
        Stmt::IfCond(s) => {
            seen(&s.expr)?;
            statements(&s.true_body)?;
            statements(&s.false_body)
        }
        Stmt::WithBlock(s) => {
            for (target, value) in &s.assignments {
                seen(target)?;
                seen(value)?;
            }
            statements(&s.body)
        }
        Stmt::Set(s) => {
            seen(&s.target)?;
            seen(&s.expr)
        }
        Stmt::SetBlock(s) => {
            seen(&s.target)?;
            s.filter.iter().try_for_each(seen)?;
            statements(&s.body)
        }
        Stmt::AutoEscape(s) => {
            seen(&s.enabled)?;
            statements(&s.body)
        }
        Stmt::FilterBlock(s) => {
            seen(&s.filter)?;
            statements(&s.body)
        }
        Stmt::Block(s) => statements(&s.body),
        Stmt::Import(s) => seen(&s.expr),
        Stmt::FromImport(s) => seen(&s.expr),
        Stmt::Extends(s) => seen(&s.name),
        Stmt::Include(s) => seen(&s.name),
        Stmt::Macro(s) => macro_(s),
        Stmt::CallBlock(s) => {
            call(&s.call)?;
            macro_(&s.macro_decl)
        }
        Stmt::Do(s) => call(&s.call),
        Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => Ok(()),
    }
}

fn statements(all: &[Stmt<'_>]) -> Result<()> {
    all.iter().try_for_each(statement)
}

fn macro_(m: &ast::Macro<'_>) -> Result<()> {
    m.args.iter().chain(&m.defaults).try_for_each(seen)?;
    statements(&m.body)
}

fn call(c: &ast::Call<'_>) -> Result<()> {
    seen(&c.expr)?;
    arguments(&c.args)
}

fn arguments(args: &[CallArg<'_>]) -> Result<()> {
    args.iter().try_for_each(|arg| match arg {
        CallArg::Pos(e) | CallArg::Kwarg(_, e) | CallArg::PosSplat(e) | CallArg::KwargSplat(e) => {
            seen(e)
        }
    })
}

fn seen(e: &Expr<'_>) -> Result<()> {
    expression(e).map(drop)
}

/// Goes through an expression; `Some` if it will be a constant.
fn expression(e: &Expr<'_>) -> Result<Option<Const>> {
    match e {
        Expr::Const(c) => Ok(Some(match c.value.as_str() {
            Some(text) => Const::Long(text.len() as u64),
            None => {
                Const::Number(i64::try_from(c.value.clone()).map_or(u64::MAX, i64::unsigned_abs))
            }
        })),
        Expr::UnaryOp(u) => Ok(expression(&u.expr)?.map(|value| match (&u.op, value) {
            (UnaryOpKind::Neg, Const::Number(n)) => Const::Number(n),
            (UnaryOpKind::Neg, Const::Long(_)) => Const::Number(u64::MAX),
            (UnaryOpKind::Not, _) => Const::Number(1),
        })),
        Expr::BinOp(op) => binary(op),
        Expr::Compare(c) => {
            let mut value = expression(&c.expr)?;
            for op in &c.ops {
                value = expression(&op.expr)?.and(value);
            }
            Ok(value.map(|_| Const::Number(1)))
        }
        Expr::List(l) => items(&l.items),
        Expr::Tuple(t) => items(&t.items),
        Expr::Map(m) => {
            let keys = items(&m.keys)?;
            let values = items(&m.values)?;
            Ok(keys
                .zip(values)
                .map(|(k, v)| Const::Long(k.printed().saturating_add(v.printed()))))
        }
        Expr::Var(_) => Ok(None),
        Expr::Slice(s) => {
            seen(&s.expr)?;
            for part in [&s.start, &s.stop, &s.step].into_iter().flatten() {
                seen(part)?;
            }
            Ok(None)
        }
        Expr::IfExpr(i) => {
            seen(&i.test_expr)?;
            seen(&i.true_expr)?;
            i.false_expr.iter().try_for_each(seen)?;
            Ok(None)
        }
        Expr::Filter(f) => {
            f.expr.iter().try_for_each(seen)?;
            arguments(&f.args)?;
            Ok(None)
        }
        Expr::Test(t) => {
            seen(&t.expr)?;
            arguments(&t.args)?;
            Ok(None)
        }
        Expr::GetAttr(g) => {
            seen(&g.expr)?;
            Ok(None)
        }
        Expr::GetItem(g) => {
            seen(&g.expr)?;
            seen(&g.subscript_expr)?;
            Ok(None)
        }
        Expr::Call(c) => {
            call(c)?;
            Ok(None)
        }
    }
}

/// A list: the compiler makes it one constant only if its items are written as constants. Long ones are
/// no risk: they are as long as their source.
fn items(all: &[Expr<'_>]) -> Result<Option<Const>> {
    let mut size = Some(2u64);
    for item in all {
        let value = expression(item)?.filter(|_| matches!(item, Expr::Const(_)));
        // Printed, text is quoted and escaped.
        size = size.zip(value).map(|(sum, v)| {
            sum.saturating_add(v.printed().saturating_mul(4))
                .saturating_add(4)
        });
    }
    Ok(size.map(Const::Long))
}

fn binary(op: &ast::BinOp<'_>) -> Result<Option<Const>> {
    let (left, right) = (expression(&op.left)?, expression(&op.right)?);
    let (Some(left), Some(right)) = (left, right) else {
        return Ok(None);
    };
    use Const::{Long, Number};
    let made = match (&op.op, left, right) {
        (BinOpKind::Mul, Number(a), Number(b)) => Number(a.saturating_mul(b)),
        (BinOpKind::Mul, Long(bytes), Number(n)) | (BinOpKind::Mul, Number(n), Long(bytes)) => {
            Long(bytes.saturating_mul(n.max(1)))
        }
        (BinOpKind::Add | BinOpKind::Sub, Number(a), Number(b)) => Number(a.saturating_add(b)),
        (BinOpKind::Add | BinOpKind::Concat | BinOpKind::Mul, a, b) => {
            Long(a.printed().saturating_add(b.printed()))
        }
        (BinOpKind::ScAnd | BinOpKind::ScOr, Number(a), Number(b)) => Number(a.max(b)),
        (BinOpKind::ScAnd | BinOpKind::ScOr, a, b) => Long(a.printed().max(b.printed())),
        _ => Number(u64::MAX),
    };
    // What is as large as it is written needs no bound of its own.
    match made {
        Long(bytes) if bytes > MAX_CONST.max(left.printed().saturating_add(right.printed())) => {
            Err(limit(
                "bytes of a constant expression of a chat template",
                MAX_CONST,
                bytes,
            ))
        }
        made => Ok(Some(made)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str) -> bool {
        match check(source, &SyntaxConfig::default()) {
            Ok(()) => false,
            Err(Error::Limit { .. }) => true,
            Err(e) => panic!("{source:.80}: {e}"),
        }
    }

    #[test]
    fn constants_are_bounded() {
        for (source, bad) in [
            ("{{ 'x' * 80 }}", false),
            ("{{ 'x' * 100000 }}", true),
            ("{{ 100000 * 'x' }}", true),
            ("{{ 'x' * -100000 }}", true),
            ("{{ 'x' * (-400 * -400) }}", true),
            ("{{ 'x' * (400 - -40000) }}", true),
            ("{{ ('x' * 100) * 100 }}", true),
            ("{{ 'x' * (10 * 10) }}", false),
            ("{{ (1, 2) * 5000 }}", true),
            ("{{ (1 or 'x') * 90000 }}", true),
            ("{{ [1, 2] * n * 5000 }}", false),
            ("{{ 'x' * n }}", false),
            ("{% for a in ['x' * 100000] %}{% endfor %}", true),
            ("{% if m(1, b='x' * 100000) %}{% endif %}", true),
            ("{% macro f(a='x' * 100000) %}{% endmacro %}", true),
            ("{% set a = {'k': 'x' * 100000} %}", true),
            ("{{ a | f('x' * 100000) }}", true),
            ("{{ a['x' * 100000] }}", true),
            ("{{ a[1:'x' * 100000] }}", true),
            ("{{ 1 if 'x' * 100000 else 2 }}", true),
            ("{{ 1 < ('x' * 100000) }}", true),
            ("{{ 2 ** 62 * 'x' }}", true),
            ("{% raw %}{{ 'x' * 100000 }}{% endraw %}", false),
            ("{# {{ 'x' * 100000 }} #}", false),
        ] {
            assert_eq!(refused(source), bad, "{source}");
        }
        let long = format!("{{{{ '{}' ~ 'b' ~ [1, 'c'] }}}}", "a".repeat(10_000));
        assert!(!refused(&long));
        let chain = format!("{{{{ {} }}}}", vec!["'some words'"; 200].join(" ~ "));
        assert!(!refused(&chain));
    }

    #[test]
    fn chains_are_bounded() {
        let n = 200_000;
        for (name, source) in [
            ("sums", format!("{{{{ 1{} }}}}", " + 1".repeat(n))),
            ("attributes", format!("{{{{ a{} }}}}", ".b".repeat(n))),
            ("items", format!("{{{{ a{} }}}}", "[0]".repeat(n))),
            ("calls", format!("{{{{ a{} }}}}", "()".repeat(n))),
            ("filters", format!("{{{{ a{} }}}}", "|e".repeat(n))),
            ("tests", format!("{{{{ a{} }}}}", " is b".repeat(n))),
            ("not", format!("{{{{ {} a }}}}", "not ".repeat(n))),
            ("minus", format!("{{{{ {} a }}}}", "- ".repeat(n))),
            ("powers", format!("{{{{ 1{} }}}}", "**1".repeat(n))),
            ("comparisons", format!("{{{{ 1{} }}}}", "<1".repeat(n))),
            (
                "conditions",
                format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(n / 2)),
            ),
            (
                "elif",
                format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(n / 4)),
            ),
            (
                "chains within chains",
                format!(
                    "{{{{ {}a{} }}}}",
                    "(".repeat(100),
                    format!("{})", "+1".repeat(200)).repeat(100)
                ),
            ),
            ("brackets", "{{ ".to_owned() + &"[".repeat(n)),
        ] {
            assert!(refused(&source), "{name}");
        }
        let wide = format!("{{{{ [{}] }}}}", "a.b + 1, ".repeat(20_000));
        assert!(!refused(&wide));
        assert!(!refused("{{ 'unfinished"));
        assert!(!refused(")]}} {{ )]} }}"));
    }
}
