//! 200 schemas of growing nastiness: written ones first, then ones put together by chance, each deeper than the one before.

use serde_json::{Map, Value, json};

/// All of them, in order.
pub(crate) fn all() -> Vec<Value> {
    let mut all = written();
    let mut random = Random(7);
    while all.len() < 200 {
        let depth = 1 + (all.len() - 40) / 40;
        all.push(random.root(depth));
    }
    all
}

fn written() -> Vec<Value> {
    let text = json!({"type": "string", "minLength": 1, "maxLength": 40});
    vec![
        json!({"type": "boolean"}),
        json!({"type": "null"}),
        json!({"const": "a \"quoted\"\\ \n text / é 漢 🙂"}),
        json!({"enum": ["rot", "grün", "蓝", 3, null, -0.5, {"a": []}]}),
        json!({"type": "integer", "minimum": 0, "maximum": 9}),
        json!({"type": "integer", "exclusiveMinimum": -20, "exclusiveMaximum": -3}),
        json!({"type": "number", "minimum": -1.5, "exclusiveMaximum": 2.25}),
        json!({"type": "integer"}),
        json!({"type": "number"}),
        json!({"type": "integer", "minimum": 990, "maximum": 100_010}),
        json!({"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 500}),
        json!({"type": "string", "maxLength": 12}),
        json!({"type": "string", "minLength": 5, "maxLength": 5}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"}),
        json!({"type": "string", "pattern": "^(foo|bar)+baz?$", "maxLength": 30}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "date-time"}),
        json!({"type": "string", "format": "uuid"}),
        json!({"type": "string", "format": "ipv4"}),
        json!({"type": ["string", "null"], "maxLength": 8}),
        json!({"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 6}, "minItems": 3, "maxItems": 3}),
        json!({"type": "array", "items": text, "maxItems": 4}),
        json!({"type": "array", "prefixItems": [{"type": "integer"}, text, {"type": "boolean"}], "items": false, "minItems": 3}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}, "minItems": 2, "maxItems": 3}),
        json!({"type": "object", "properties": {"name": text, "age": {"type": "integer", "minimum": 0, "maximum": 130}},
               "required": ["name", "age"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"straße": text, "a/b": {"type": "boolean"}, "c~d": {"type": "null"}, "e\"f": {"const": 1}},
               "required": ["straße", "a/b", "c~d", "e\"f"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}, "c": {"type": "boolean"}},
               "additionalProperties": false}),
        json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 99}, "maxProperties": 4, "minProperties": 1}),
        json!({"anyOf": [{"type": "integer", "minimum": 5, "maximum": 7}, {"type": "array", "items": {"type": "null"}, "maxItems": 2}]}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["a"]},
                         {"type": "object", "properties": {"b": text}, "required": ["b"]}], "additionalProperties": true,
               "properties": {"a": true, "b": true}, "maxProperties": 2}),
        json!({"oneOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number", "minimum": 0, "maximum": 10}},
                          "required": ["kind", "r"], "additionalProperties": false},
                         {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"type": "number", "minimum": 0, "maximum": 10}},
                          "required": ["kind", "side"], "additionalProperties": false}]}),
        json!({"$ref": "#/$defs/pair", "$defs": {"pair": {"type": "array", "prefixItems": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}],
               "items": false, "minItems": 2}, "x": {"type": "integer", "minimum": -9, "maximum": 9}}}),
        json!({"type": "object", "properties": {"p": {"$ref": "#/$defs/a~1b%20c"}}, "required": ["p"], "additionalProperties": false,
               "$defs": {"a/b c": {"enum": [1, 2, 3]}}}),
        json!({"$ref": "#node", "$defs": {"n": {"$anchor": "node", "type": "object",
               "properties": {"value": {"type": "integer", "minimum": 0, "maximum": 99}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#node"}]}},
               "required": ["value", "next"], "additionalProperties": false}}}),
        json!({"$defs": {"tree": {"type": "object", "properties": {"leaf": text, "kids": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/tree"}}},
               "required": ["leaf", "kids"], "additionalProperties": false}}, "$ref": "#/$defs/tree"}),
        json!({"$id": "https://example.org/s/root.json", "type": "object", "properties": {"unit": {"$ref": "unit.json"}, "again": {"$ref": "unit.json#/$defs/si"}},
               "required": ["unit", "again"], "additionalProperties": false,
               "$defs": {"u": {"$id": "unit.json", "enum": ["m", "s"], "$defs": {"si": {"type": "boolean"}}}}}),
        json!({"definitions": {"id": {"type": "string", "pattern": "^[0-9a-f]{8}$"}}, "type": "array", "items": {"$ref": "#/definitions/id"}, "minItems": 1, "maxItems": 3,
               "$schema": "http://json-schema.org/draft-07/schema#"}),
        json!({"type": "object", "title": "An invoice", "description": "With lines", "properties": {
               "number": {"type": "string", "pattern": "^INV-[0-9]{6}$"}, "currency": {"enum": ["EUR", "USD", "¥"]},
               "lines": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "object", "properties": {
                   "what": text, "count": {"type": "integer", "minimum": 1, "maximum": 100}, "price": {"type": "number", "minimum": 0, "maximum": 1000}},
                   "required": ["what", "count", "price"], "additionalProperties": false}}},
               "required": ["number", "currency", "lines"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "object", "properties": {"c": {"type": "object",
               "properties": {"d": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2, "maxItems": 4}}, "required": ["d"], "additionalProperties": false}},
               "required": ["c"], "additionalProperties": false}}, "required": ["b"], "additionalProperties": false}}, "required": ["a"], "additionalProperties": false}),
        json!({"type": "object", "patternProperties": {"^k[0-9]$": {"type": "boolean"}}, "additionalProperties": false, "minProperties": 1, "maxProperties": 3}),
    ]
}

/// Pseudo-random numbers that are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// A schema with definitions that refer to each other downwards.
    fn root(&mut self, depth: usize) -> Value {
        let mut defs = Map::new();
        for i in 0..depth.min(3) {
            let names: Vec<String> = defs.keys().cloned().collect();
            let schema = self.schema(1 + depth / 2, &names);
            defs.insert(
                format!("d{i} {}", self.of(&["", "ä", "/", "~", "%"])),
                schema,
            );
        }
        let names: Vec<String> = defs.keys().cloned().collect();
        let mut root = self.object(depth, &names);
        if let Value::Object(map) = &mut root {
            map.insert("$defs".into(), Value::Object(defs));
        }
        root
    }

    fn schema(&mut self, depth: usize, defs: &[String]) -> Value {
        let kinds = if depth == 0 { 7 } else { 12 };
        match self.below(kinds) {
            0 => json!({"type": "boolean"}),
            1 => {
                let (low, range) = (self.below(2000) as i64 - 1000, self.below(300) as i64);
                json!({"type": "integer", "minimum": low, "maximum": low + range})
            }
            2 => {
                let low = self.below(100) as f64 / 8.0 - 6.0;
                json!({"type": "number", "minimum": low, "exclusiveMaximum": low + 0.5 + self.below(9) as f64})
            }
            3 => {
                let least = self.below(4);
                json!({"type": "string", "minLength": least, "maxLength": least + 1 + self.below(20)})
            }
            4 => json!({"enum": self.values()}),
            5 => {
                let pattern = self.of(&[
                    "^[a-z]{1,8}$",
                    "^[0-9]{4}-[0-9]{2}$",
                    "^#[0-9A-F]{6}$",
                    "^(ja|nein|vielleicht)$",
                    "^[α-ω]{2,5}$",
                ]);
                json!({"type": "string", "pattern": pattern})
            }
            6 => match defs.len() {
                0 => json!({"const": self.values()[0]}),
                n => {
                    let name = &defs[self.below(n)];
                    let name = name.replace('~', "~0").replace('/', "~1");
                    let path: String = name
                        .bytes()
                        .map(|b| match b {
                            b'a'..=b'z' | b'0'..=b'9' | b'~' => char::from(b).to_string(),
                            b => format!("%{b:02X}"),
                        })
                        .collect();
                    json!({"$ref": format!("#/$defs/{path}")})
                }
            },
            7 | 8 => {
                let least = self.below(3);
                json!({"type": "array", "items": self.schema(depth - 1, defs), "minItems": least, "maxItems": least + self.below(2)})
            }
            9 => {
                json!({"anyOf": [self.schema(depth - 1, defs), self.schema(depth - 1, defs), {"type": "null"}]})
            }
            10 => {
                json!({"type": "array", "prefixItems": [self.schema(0, defs), self.schema(depth - 1, defs)], "items": false, "minItems": 2})
            }
            _ => self.object(depth - 1, defs),
        }
    }

    fn object(&mut self, depth: usize, defs: &[String]) -> Value {
        let names = [
            "name",
            "größe",
            "a b",
            "x/y",
            "quote\"d",
            "名前",
            "n",
            "is_on",
            "kind",
            "items",
            "\\",
            "type",
            "properties",
        ];
        let mut properties = Map::new();
        for _ in 0..1 + self.below(4) {
            let name = self.of(&names).to_owned();
            let schema = self.schema(depth.saturating_sub(1), defs);
            properties.insert(name, schema);
        }
        let required: Vec<String> = properties
            .keys()
            .filter(|_| self.below(3) > 0)
            .cloned()
            .collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }

    fn values(&mut self) -> Vec<Value> {
        let all = [
            json!("a"),
            json!("ä\t\"x\""),
            json!(17),
            json!(-2.5),
            json!(null),
            json!(true),
            json!([]),
            json!({"k": [1, "二"]}),
            json!(""),
        ];
        (0..1 + self.below(4))
            .map(|_| all[self.below(all.len())].clone())
            .fold(Vec::new(), |mut list, value| {
                if !list.contains(&value) {
                    list.push(value);
                }
                list
            })
    }
}
