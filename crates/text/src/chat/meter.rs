//! Bounds on what a template may use.
//!
//! Templates come inside model files, so they are not trusted. The engine counts steps, but one step may
//! double a string, and forty doublings are a terabyte. So a compiled template is rewritten before it runs: every
//! instruction that can make something large, or look at all of it, becomes a call to a function here, which
//! says what it costs. It also gets Python's meaning where the engine differs (`[][::-1]`).
//!
//! | instruction | becomes |
//! |---|---|
//! | text of 16 bytes or more | an expression, so that the formatter sees it |
//! | `+ * % ~`, `a[b:c:d]`, `== != < <= > >=`, `in` | a call to the function of that name |
//! | a filter, a test that compares | a call that counts what goes in and comes out |
//! | a loop | first a call that refuses `None`, which the engine takes for an empty list |
//! | storing a variable or a namespace attribute | first a call that refuses what is too large or too deep |
//!
//! The names of these functions begin with a control character: no template can write them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Text shorter than this is not counted: a step of the engine pays for it.
const RAW: usize = 16;

/// How deep values may nest.
const MAX_DEPTH: usize = 100;

/// How many parts a value may have, all levels counted, shared ones as often as they are seen.
const MAX_NODES: usize = 1 << 20;

pub(super) const ADD: &str = "\u{1}add";
pub(super) const MUL: &str = "\u{1}mul";
pub(super) const REM: &str = "\u{1}rem";
pub(super) const CONCAT: &str = "\u{1}concat";
pub(super) const SLICE: &str = "\u{1}slice";
pub(super) const EQ: &str = "\u{1}eq";
pub(super) const NE: &str = "\u{1}ne";
pub(super) const LT: &str = "\u{1}lt";
pub(super) const LE: &str = "\u{1}le";
pub(super) const GT: &str = "\u{1}gt";
pub(super) const GE: &str = "\u{1}ge";
pub(super) const IN: &str = "\u{1}in";
pub(super) const ITERATE: &str = "\u{1}iterate";
pub(super) const KEEP: &str = "\u{1}keep";
pub(super) const KEEP_ATTR: &str = "\u{1}keep_attr";

/// Names of filters or tests, and of the functions that stand for them.
macro_rules! metered {
    ($doc:literal $table:ident: $mark:literal $($name:literal)*) => {
        #[doc = $doc]
        pub(super) const $table: &[(&str, &str)] = &[$(($name, concat!("\u{1}", $mark, $name))),*];
    };
}

metered! { "The filters there are." FILTERS: "filter "
    "abs" "attr" "batch" "bool" "capitalize" "chain" "count" "d" "default" "dictsort" "e" "escape" "first" "float"
    "format" "groupby" "indent" "int" "items" "join" "last" "length" "lines" "list" "lower" "map" "max" "min" "reject"
    "rejectattr" "replace" "reverse" "round" "safe" "select" "selectattr" "slice" "sort" "split" "string" "sum" "title"
    "tojson" "trim" "unique" "upper" "zip"
}
metered! { "The tests that look at whole values." TESTS: "test "
    "eq" "equalto" "==" "ne" "!=" "lt" "lessthan" "<" "le" "<=" "gt" "greaterthan" ">" "ge" ">=" "in"
}

/// The function that stands for a filter or test.
fn function(table: &'static [(&str, &str)], name: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, function)| *function)
}

/// What is left to a rendering. Shared by the functions of its environment.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes that may still be made or looked at.
    work: AtomicU64,
    /// The longest text that may be made.
    pub(super) longest: usize,
    exceeded: AtomicBool,
}

impl Meter {
    pub(super) fn new(work: u64, longest: usize) -> Arc<Self> {
        let (work, exceeded) = (AtomicU64::new(work), AtomicBool::new(false));
        Arc::new(Self {
            work,
            longest,
            exceeded,
        })
    }

    /// Whether a limit stopped the rendering.
    pub(super) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    /// The error that stands for the limit.
    pub(super) fn stop(&self) -> Error {
        self.exceeded.store(true, Ordering::Relaxed);
        Error::new(
            ErrorKind::InvalidOperation,
            "a limit of the chat template was reached",
        )
    }

    /// Pays for `n` bytes.
    pub(super) fn charge(&self, n: usize) -> Result<(), Error> {
        let left = self.work.load(Ordering::Relaxed);
        match left.checked_sub(n as u64 + 8) {
            Some(left) => {
                self.work.store(left, Ordering::Relaxed);
                Ok(())
            }
            None => Err(self.stop()),
        }
    }

    /// Pays for a value as far as a look at its top goes.
    pub(super) fn charge_value(&self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.charge(text.len()),
            None => self.charge(8 * value.len().unwrap_or(1).min(MAX_NODES)),
        }
    }

    /// Pays for a value all the way down, and refuses one that is too large.
    pub(super) fn charge_deep(&self, value: &Value) -> Result<(), Error> {
        let mut nodes = 0;
        self.weigh(value, 0, false, &mut nodes)?;
        self.charge(8 * nodes)
    }

    fn weigh(
        &self,
        value: &Value,
        depth: usize,
        attr: bool,
        nodes: &mut usize,
    ) -> Result<(), Error> {
        *nodes += 1;
        if *nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(self.stop());
        }
        if let Some(text) = value.as_str() {
            *nodes += text.len() / 16;
            return if text.len() > self.longest {
                Err(self.stop())
            } else {
                Ok(())
            };
        }
        let Some(object) = value.as_object() else {
            return Ok(());
        };
        if attr && object.type_name().contains("Namespace") {
            let what = "a namespace cannot hold a namespace";
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                for item in object.try_iter().into_iter().flatten() {
                    self.weigh(&item, depth + 1, attr, nodes)?;
                }
            }
            ValueKind::Map => {
                for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                    self.weigh(&key, depth + 1, attr, nodes)?;
                    self.weigh(&item, depth + 1, attr, nodes)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A value on its way into a variable: paid for, and lists in place of iterators, which could be
    /// wrapped into each other without end.
    pub(super) fn keep(&self, value: Value, attr: bool) -> Result<Value, Error> {
        let value = match value.kind() {
            ValueKind::Iterable => {
                let mut items = Vec::new();
                for item in value.try_iter()? {
                    if items.len() >= MAX_NODES {
                        return Err(self.stop());
                    }
                    items.push(item);
                }
                Value::from(items)
            }
            _ => value,
        };
        let mut nodes = 0;
        self.weigh(&value, 0, attr, &mut nodes)?;
        self.charge(8 * nodes)?;
        Ok(value)
    }
}

/// The template with metered instructions.
pub(super) fn rewrite<'s>(old: &Instructions<'s>) -> Result<Instructions<'s>, String> {
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(instruction) = old.get(starts.len() as u32) {
        starts.push(at);
        at += expand(instruction, |_| None)?.len() as u32;
    }
    starts.push(at);
    let mut new = Instructions::new(old.name(), old.source());
    for index in 0..starts.len() as u32 - 1 {
        let Some(instruction) = old.get(index) else {
            break;
        };
        let target = |old: u32| starts.get(old as usize).copied();
        for instruction in expand(instruction, target)? {
            match (old.get_span(index), old.get_line(index)) {
                (Some(span), _) => new.add_with_span(instruction, span),
                (None, Some(line)) => new.add_with_line(instruction, line as u16),
                (None, None) => new.add(instruction),
            };
        }
    }
    Ok(new)
}

/// The instructions in place of one. `target` maps a jump's old target to the new one.
fn expand<'s>(
    old: &Instruction<'s>,
    target: impl Fn(u32) -> Option<u32>,
) -> Result<Vec<Instruction<'s>>, String> {
    use Instruction as I;
    let call = |name: &'static str, n| Ok(vec![I::CallFunction(name, Some(n))]);
    let to = |old: &u32| target(*old).unwrap_or(*old);
    Ok(vec![match old {
        I::EmitRaw(text) if text.len() >= RAW => {
            return Ok(vec![I::LoadConst(Value::from(*text)), I::Emit]);
        }
        I::Add => return call(ADD, 2),
        I::Mul => return call(MUL, 2),
        I::Rem => return call(REM, 2),
        I::StringConcat => return call(CONCAT, 2),
        I::Slice => return call(SLICE, 4),
        I::Eq => return call(EQ, 2),
        I::Ne => return call(NE, 2),
        I::Lt => return call(LT, 2),
        I::Lte => return call(LE, 2),
        I::Gt => return call(GT, 2),
        I::Gte => return call(GE, 2),
        I::In => return call(IN, 2),
        I::ApplyFilter(name, n, id) => match function(FILTERS, name) {
            Some(function) => I::CallFunction(function, *n),
            // Unknown to the reference as well, which says so only where the filter is used.
            None => I::ApplyFilter(name, *n, *id),
        },
        I::PerformTest(name, n, id) => match function(TESTS, name) {
            Some(function) => I::CallFunction(function, *n),
            None => I::PerformTest(name, *n, *id),
        },
        I::PushLoop(flags) => {
            return Ok(vec![I::CallFunction(ITERATE, Some(1)), I::PushLoop(*flags)]);
        }
        // What these run would not be metered.
        I::Include(_) | I::LoadBlocks | I::CallBlock(_) | I::FastSuper | I::ExportLocals => {
            return Err("include, import, extends and block".to_owned());
        }
        I::StoreLocal(name) => {
            return Ok(vec![I::CallFunction(KEEP, Some(1)), I::StoreLocal(name)]);
        }
        I::SetAttr(name) => {
            return Ok(vec![
                I::Swap,
                I::CallFunction(KEEP_ATTR, Some(1)),
                I::Swap,
                I::SetAttr(name),
            ]);
        }
        I::Iterate(at) => I::Iterate(to(at)),
        I::Jump(at) => I::Jump(to(at)),
        I::JumpIfFalse(at) => I::JumpIfFalse(to(at)),
        I::JumpIfFalseOrPop(at) => I::JumpIfFalseOrPop(to(at)),
        I::JumpIfTrueOrPop(at) => I::JumpIfTrueOrPop(to(at)),
        I::BuildMacro(name, at, flags) => I::BuildMacro(name, to(at), *flags),
        other => other.clone(),
    }])
}
