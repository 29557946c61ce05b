//! A JSON Schema made ready for the compiler: references resolved to plain paths, white space bounded.
//!
//! The compiler follows `#/$defs/name` by key. Escapes (`~1`, `%20`), `$anchor`s and embedded `$id`s are resolved
//! here; what they name is copied under `$defs` if no plain path leads to it. Source: JSON Schema 2020-12, §8.2; RFC 6901.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// How deep a schema may nest.
const MAX_DEPTH: usize = 128;

/// White space between the parts of an answer: a blank, or a new line with an indent. Bounded, or a small model may write
/// nothing else.
const WHITE_SPACE: &str = r"\x20|\x0A\x20{0,24}";

pub(super) fn prepare(schema: &Value, max: usize) -> Result<Value> {
    let mut root = match schema {
        Value::Object(map) => map.clone(),
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return Err(Error::invalid("no text fulfils the schema `false`")),
        other => {
            return Err(Error::invalid(format!(
                "a JSON Schema is an object or a boolean, this is {}",
                kind(other)
            )));
        }
    };
    let size = schema.to_string().len();
    if size > max {
        return Err(Error::Limit {
            what: "bytes of a JSON Schema",
            max: max as u64,
            got: size as u64,
        });
    }
    let mut found = Found::default();
    found.schema(schema, &mut Vec::new(), "", &[])?;
    let mut targets: BTreeMap<Vec<String>, String> = BTreeMap::new();
    let mut whole = Value::Object(std::mem::take(&mut root));
    for (at, base, home, reference) in &found.references {
        let target = found.resolve(&whole, base, home, reference)?;
        let plain = target
            .iter()
            .all(|key| !key.contains('/') && !key.is_empty());
        let new = if plain {
            let path: String = target.iter().map(|key| format!("/{key}")).collect();
            format!("#{path}")
        } else {
            let n = targets.len();
            let name = targets
                .entry(target)
                .or_insert_with(|| format!("firelight-ref-{n}"));
            format!("#/$defs/{name}")
        };
        if let Some(slot) = follow_mut(&mut whole, at) {
            *slot = Value::String(new);
        }
    }
    let copies: Vec<(String, Value)> = targets
        .iter()
        .filter_map(|(target, name)| Some((name.clone(), follow(&whole, target)?.clone())))
        .collect();
    if let Value::Object(root) = &mut whole {
        if !copies.is_empty()
            && let Value::Object(defs) = root.entry("$defs").or_insert_with(|| json!({}))
        {
            defs.extend(copies);
        }
        root.entry("x-guidance")
            .or_insert_with(|| json!({"whitespace_pattern": WHITE_SPACE}));
    }
    Ok(whole)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

type Path = Vec<String>;

/// The references, anchors and ids of a schema.
#[derive(Default)]
struct Found {
    /// Where the text of the reference is, its base (an `$id`), where that resource is, the text.
    references: Vec<(Path, String, Path, String)>,
    /// `(base, anchor)` and where.
    anchors: BTreeMap<(String, String), Path>,
    /// Absolute `$id` and where.
    ids: BTreeMap<String, Path>,
}

impl Found {
    fn schema(&mut self, schema: &Value, at: &mut Path, base: &str, home: &[String]) -> Result<()> {
        if at.len() > MAX_DEPTH {
            return Err(Error::Limit {
                what: "depth of a JSON Schema",
                max: MAX_DEPTH as u64,
                got: at.len() as u64,
            });
        }
        let map = match schema {
            Value::Object(map) => map,
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    at.push(i.to_string());
                    self.schema(item, at, base, home)?;
                    at.pop();
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let id = map.get("$id").or_else(|| map.get("id"));
        let id = id.and_then(Value::as_str).filter(|id| !id.starts_with('#'));
        let (base, home) = match id {
            Some(id) => (join(base, id), at.clone()),
            None => (base.to_owned(), home.to_vec()),
        };
        if id.is_some() || at.is_empty() {
            self.ids.insert(base.clone(), at.clone());
        }
        for key in ["$anchor", "$dynamicAnchor"] {
            if let Some(anchor) = map.get(key).and_then(Value::as_str) {
                self.anchors
                    .insert((base.clone(), anchor.to_owned()), at.clone());
            }
        }
        for (key, value) in map {
            at.push(key.clone());
            match (key.as_str(), value) {
                ("$ref" | "$dynamicRef", Value::String(reference)) => {
                    self.references.push((
                        at.clone(),
                        base.clone(),
                        home.clone(),
                        reference.clone(),
                    ));
                }
                ("const" | "enum" | "default" | "examples" | "example" | "x-guidance", _) => {}
                (
                    "properties" | "patternProperties" | "$defs" | "definitions"
                    | "dependentSchemas" | "dependencies",
                    Value::Object(schemas),
                ) => {
                    for (name, schema) in schemas {
                        at.push(name.clone());
                        self.schema(schema, at, &base, &home)?;
                        at.pop();
                    }
                }
                _ => self.schema(value, at, &base, &home)?,
            }
            at.pop();
        }
        Ok(())
    }

    fn resolve(&self, whole: &Value, base: &str, home: &[String], reference: &str) -> Result<Path> {
        let lost = |why: &str| Error::invalid(format!("JSON Schema: the $ref {reference:?} {why}"));
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let (base, mut path) = if document.is_empty() {
            (base.to_owned(), home.to_vec())
        } else {
            let wanted = join(base, document);
            match self.ids.get(&wanted) {
                Some(path) => (wanted, path.clone()),
                None => {
                    return Err(Error::unsupported(format!(
                        "JSON Schema: the $ref {reference:?} to another document; put it under $defs"
                    )));
                }
            }
        };
        let fragment = percent_decoded(fragment).ok_or_else(|| lost("is not UTF-8"))?;
        match fragment.strip_prefix('/') {
            Some(pointer) => {
                // `#/` is common for the whole document, though it means the key ``.
                if !(pointer.is_empty() && follow(whole, &[String::new()]).is_none()) {
                    path.extend(
                        pointer
                            .split('/')
                            .map(|key| key.replace("~1", "/").replace("~0", "~")),
                    );
                }
            }
            None if fragment.is_empty() => {}
            None => {
                path = self
                    .anchors
                    .get(&(base, fragment))
                    .ok_or_else(|| lost("names no $anchor of the schema"))?
                    .clone();
            }
        }
        match follow(whole, &path) {
            Some(Value::Object(_) | Value::Bool(_)) => Ok(path),
            Some(other) => Err(lost(&format!("leads to {}, not to a schema", kind(other)))),
            None => Err(lost("leads nowhere")),
        }
    }
}

/// A relative reference against its base, as far as schemas use it.
fn join(base: &str, reference: &str) -> String {
    let reference = reference.split('#').next().unwrap_or_default();
    if reference.contains(':') || base.is_empty() {
        return reference.to_owned();
    }
    let scheme = base.find("://").map_or(0, |at| at + 3);
    if reference.starts_with('/') {
        let host = base.get(scheme..).and_then(|rest| rest.find('/'));
        let end = host.map_or(base.len(), |at| scheme + at);
        return format!("{}{reference}", base.get(..end).unwrap_or(base));
    }
    match base.get(scheme..).and_then(|rest| rest.rfind('/')) {
        Some(at) => format!(
            "{}{reference}",
            base.get(..scheme + at + 1).unwrap_or_default()
        ),
        None if scheme > 0 => format!("{base}/{reference}"),
        None => reference.to_owned(),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(bytes).ok()
}

fn follow<'v>(root: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(root, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        other => other.get(key),
    })
}

fn follow_mut<'v>(root: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(root, |value, key| match value {
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        other => other.get_mut(key),
    })
}
