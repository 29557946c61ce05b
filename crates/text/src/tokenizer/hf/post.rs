//! The `post_processor` of a `tokenizer.json`: the tokens around a text.

use serde_json::Value;

use super::json::{bad, members, text, unsupported};
use crate::{Error, Result};

/// More tokens than this around a text are refused.
const MAX: usize = 4096;

/// What goes before and after a text.
#[derive(Debug, Default)]
pub(super) struct Around {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
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
                self.before.insert(0, id("cls")?);
                self.after.push(id("sep")?);
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
        for piece in members(node, "single")? {
            let side = if seen { &mut after } else { &mut before };
            if let Some(special) = piece.get("SpecialToken") {
                let name = text(special, "id")?;
                let token = node.get("special_tokens").and_then(|table| table.get(name));
                let token = token.ok_or_else(|| {
                    bad(format!(
                        "the template's token {name:?} is not in special_tokens"
                    ))
                })?;
                for id in members(token, "ids")? {
                    side.push(id_of(id)?);
                }
            } else if piece.get("ids").is_some() {
                for id in members(piece, "ids")? {
                    side.push(id_of(id)?);
                }
            } else {
                let name = piece
                    .get("Sequence")
                    .and_then(|s| s.get("id"))
                    .or_else(|| piece.get("seq"));
                if name.and_then(Value::as_str) != Some("A") || seen {
                    return Err(bad("a template for one text has the sequence A once"));
                }
                seen = true;
            }
        }
        if !seen {
            return Err(bad("a template for one text has the sequence A once"));
        }
        before.append(&mut self.before);
        self.before = before;
        self.after.append(&mut after);
        Ok(())
    }
}

fn id_of(value: &Value) -> Result<u32> {
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| bad(format!("expected a token id, found {value}")))
}
