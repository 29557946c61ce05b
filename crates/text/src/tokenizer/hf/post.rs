//! The `post_processor` of a `tokenizer.json`: the tokens around a text.

use serde_json::Value;

use super::json::{bad, members, text, unsupported};
use crate::{Error, Result};

/// More tokens than this around a text are refused.
const MAX: usize = 4096;

/// What goes before and after a text, and how two texts become one sequence.
#[derive(Debug, Default)]
pub(super) struct Around {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
    /// `None`: the file says nothing about pairs.
    pub(super) pair: Option<Vec<Piece>>,
}

/// A part of a pair's sequence, with its segment (token type).
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    Token(u32, u32),
    First(u32),
    Second(u32),
}

impl Around {
    pub(super) fn read(node: Option<&Value>) -> Result<Self> {
        let mut around = Self::default();
        if let Some(node) = node.filter(|node| !node.is_null()) {
            around.wrap(node)?;
        }
        Ok(around)
    }

    fn wrap(&mut self, node: &Value) -> Result<()> {
        match text(node, "type")? {
            "Sequence" => {
                return members(node, "processors")?
                    .iter()
                    .try_for_each(|p| self.wrap(p));
            }
            "ByteLevel" => {}
            "BertProcessing" | "RobertaProcessing" => {
                let id = |field: &str| {
                    let id = node.get(field).and_then(|pair| pair.get(1)).map(id_of);
                    id.ok_or_else(|| bad(format!("field {field:?}: expected [token, id]")))?
                };
                let (cls, sep) = (id("cls")?, id("sep")?);
                self.before.insert(0, cls);
                self.after.push(sep);
                // RoBERTa has one segment, and two separators between the texts.
                self.pair = Some(match text(node, "type")? {
                    "BertProcessing" => vec![
                        Piece::Token(cls, 0),
                        Piece::First(0),
                        Piece::Token(sep, 0),
                        Piece::Second(1),
                        Piece::Token(sep, 1),
                    ],
                    _ => vec![
                        Piece::Token(cls, 0),
                        Piece::First(0),
                        Piece::Token(sep, 0),
                        Piece::Token(sep, 0),
                        Piece::Second(0),
                        Piece::Token(sep, 0),
                    ],
                });
            }
            "TemplateProcessing" => self.template(node)?,
            other => {
                return Err(unsupported(
                    "post-processor",
                    other,
                    "BertProcessing, ByteLevel, RobertaProcessing, Sequence, TemplateProcessing",
                ));
            }
        }
        let got = self.before.len() + self.after.len();
        if got > MAX {
            let what = "tokens around a text";
            return Err(Error::Limit {
                what,
                max: MAX as u64,
                got: got as u64,
            });
        }
        Ok(())
    }

    fn template(&mut self, node: &Value) -> Result<()> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut seen = false;
        for piece in pieces(node, "single")? {
            match piece {
                Piece::Token(id, _) if seen => after.push(id),
                Piece::Token(id, _) => before.push(id),
                Piece::First(_) if !seen => seen = true,
                _ => return Err(bad("a template for one text has the sequence A once")),
            }
        }
        if !seen {
            return Err(bad("a template for one text has the sequence A once"));
        }
        before.append(&mut self.before);
        self.before = before;
        self.after.append(&mut after);
        // Most texts stand alone: a template for pairs that makes no sense is an error only where a pair is wanted.
        let count = |pair: &[Piece], of: fn(&Piece) -> bool| pair.iter().filter(|p| of(p)).count();
        let both = |pair: &Vec<Piece>| {
            count(pair, |p| matches!(p, Piece::First(_))) == 1
                && count(pair, |p| matches!(p, Piece::Second(_))) == 1
        };
        self.pair = pieces(node, "pair").ok().filter(both);
        Ok(())
    }
}

/// The list `field` of a template.
fn pieces(node: &Value, field: &str) -> Result<Vec<Piece>> {
    let mut list = Vec::new();
    for piece in members(node, field)? {
        let body = piece.get("SpecialToken").or_else(|| piece.get("Sequence"));
        let kind = body.unwrap_or(piece).get("type_id").and_then(Value::as_u64);
        let kind = kind.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        if let Some(special) = piece.get("SpecialToken") {
            let name = text(special, "id")?;
            let token = node.get("special_tokens").and_then(|table| table.get(name));
            let token = token.ok_or_else(|| {
                bad(format!(
                    "the template's token {name:?} is not in special_tokens"
                ))
            })?;
            for id in members(token, "ids")? {
                list.push(Piece::Token(id_of(id)?, kind));
            }
        } else if piece.get("ids").is_some() {
            for id in members(piece, "ids")? {
                list.push(Piece::Token(id_of(id)?, kind));
            }
        } else {
            let name = body.and_then(|s| s.get("id")).or_else(|| piece.get("seq"));
            list.push(match name.and_then(Value::as_str) {
                Some("A") => Piece::First(kind),
                Some("B") => Piece::Second(kind),
                _ => return Err(bad("a template's sequence is A or B")),
            });
        }
        if list.len() > MAX {
            let what = "tokens around a text";
            return Err(Error::Limit {
                what,
                max: MAX as u64,
                got: list.len() as u64,
            });
        }
    }
    Ok(list)
}

fn id_of(value: &Value) -> Result<u32> {
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| bad(format!("expected a token id, found {value}")))
}
