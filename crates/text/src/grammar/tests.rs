//! Grammars over small vocabularies, driven by chance.

use super::*;
use serde_json::json;

/// Single bytes, some words, twins, a special token and an end.
fn tokenizer() -> (Tokenizer, usize, u32) {
    let mut vocab: Vec<String> = (0u8..=255)
        .map(|b| crate::tokenizer::bytes::byte_to_char(b).to_string())
        .collect();
    for word in [
        "{}", "\"}", "null", "true", "Ġ\"", "\",", "\":", "name", "Ġ", "[]", "\"\"", "yes", "no",
        "ÃĤ",
    ] {
        if !vocab.iter().any(|v| v == word) {
            vocab.push(word.to_owned());
        }
    }
    let mut map = serde_json::Map::new();
    for (id, piece) in vocab.iter().enumerate() {
        map.insert(piece.clone(), id.into());
    }
    let n = vocab.len();
    let added = json!([
        {"id": n, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
        {"id": n + 1, "content": "yes!", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
    ]);
    let file = json!({
        "added_tokens": added,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "vocab": map, "merges": []},
    });
    let tokenizer = Tokenizer::from_json(file.to_string().as_bytes()).unwrap();
    // The model has more logits than there are tokens.
    (tokenizer, n + 2 + 37, n as u32)
}

fn vocabulary() -> (Tokenizer, Vocabulary, u32) {
    let (tokenizer, size, end) = tokenizer();
    let vocabulary = Vocabulary::new(&tokenizer, size, &[end]).unwrap();
    (tokenizer, vocabulary, end)
}

fn allowed(mask: &[u32]) -> Vec<u32> {
    (0..mask.len() as u32 * 32)
        .filter(|&id| bit(mask, id))
        .collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

/// An answer of tokens drawn at random from what is allowed; closing after `room` tokens.
fn answer(grammar: &Grammar, seed: u64, room: usize) -> String {
    let (tokenizer, vocabulary, end) = vocabulary();
    let mut matcher = vocabulary.matcher(grammar).unwrap();
    let mut random = Random(seed);
    let mut ids = Vec::new();
    while !matcher.is_complete() {
        assert!(
            ids.len() < room + 400,
            "no end: {}",
            tokenizer.decode(&ids, false)
        );
        let ids_allowed = allowed(matcher.mask(ids.len() >= room).unwrap());
        let id = ids_allowed[random.below(ids_allowed.len())];
        matcher.accept(id).unwrap();
        if id == end {
            break;
        }
        ids.push(id);
    }
    assert!(matcher.is_accepting());
    tokenizer.decode(&ids, false)
}

#[test]
fn choices_and_patterns() {
    let choices = ["yes", "no", "yes \"and\" no\n", "né/x"]
        .map(String::from)
        .to_vec();
    let grammar = Grammar::Choices(choices.clone());
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let text = answer(&grammar, seed, 50);
        assert!(choices.contains(&text), "{text:?}");
        seen.insert(text);
    }
    assert_eq!(seen.len(), 4);
    for pattern in [
        "[a-c]{2,4}",
        "^(yes|no)/[0-9]+$",
        r"\d{3}-\d{4}",
        "é+漢?",
        r"a\$",
    ] {
        let grammar = Grammar::Regex(pattern.to_owned());
        let whole = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
        for seed in 0..20 {
            let text = answer(&grammar, seed, 10);
            assert!(whole.is_match(&text), "{pattern}: {text:?}");
        }
    }
}

#[test]
fn specials_and_what_is_no_token_stay_out_and_twins_come_in() {
    let (tokenizer, vocabulary, end) = vocabulary();
    let mut matcher = vocabulary
        .matcher(&Grammar::Choices(vec!["yes!".into(), "yes".into()]))
        .unwrap();
    let first = allowed(matcher.mask(false).unwrap());
    let special = tokenizer.token_to_id("yes!").unwrap();
    assert!(!first.contains(&special) && !first.contains(&end));
    assert!(
        first
            .iter()
            .all(|&id| (id as usize) < tokenizer.vocab_size())
    );
    assert!(first.contains(&tokenizer.token_to_id("yes").unwrap()));
    assert!(matcher.accept(special).is_err());

    let mut matcher = vocabulary
        .matcher(&Grammar::Choices(vec!["yes!".into(), "yes".into()]))
        .unwrap();
    matcher
        .accept(tokenizer.token_to_id("yes").unwrap())
        .unwrap();
    assert!(matcher.is_accepting() && !matcher.is_complete());
    let next = allowed(matcher.mask(false).unwrap());
    assert_eq!(next.len(), 2, "{next:?}");
    assert!(next.contains(&end));
    // Closing leaves only the end.
    assert_eq!(allowed(matcher.mask(true).unwrap()), [end]);
    matcher.accept(end).unwrap();
    assert!(matcher.is_complete());
}

#[test]
fn schemas() {
    let cases = [
        json!(true),
        json!({"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer", "minimum": -3, "maximum": 17}},
               "required": ["name", "n"], "additionalProperties": false}),
        json!({"type": "array", "items": {"$ref": "#/$defs/a~1b"}, "minItems": 2, "$defs": {"a/b": {"enum": ["é\"", 1, null, {"k": []}]}}}),
        json!({"$ref": "#tree", "$defs": {"t": {"$anchor": "tree", "type": "object", "required": ["v", "kids"],
               "properties": {"v": {"type": "number"}, "kids": {"type": "array", "items": {"$ref": "#tree"}}}, "additionalProperties": false}}}),
        json!({"anyOf": [{"type": "string", "minLength": 3, "maxLength": 5}, {"const": {"ü": [true, false]}}]}),
        json!({"$id": "https://x.org/a/root.json", "type": "object", "required": ["p"], "properties": {"p": {"$ref": "leaf.json#/$defs/n"}},
               "additionalProperties": false,
               "$defs": {"leaf": {"$id": "leaf.json", "$defs": {"n": {"type": "boolean"}}}}}),
    ];
    for schema in cases {
        let grammar = Grammar::JsonSchema(schema.clone());
        for seed in 0..25 {
            let text = answer(&grammar, seed, 30);
            let value: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{schema}: {text:?}: {e}"));
            match &schema["type"] {
                serde_json::Value::String(kind) if kind == "object" => assert!(value.is_object()),
                serde_json::Value::String(kind) if kind == "array" => {
                    assert!(value.as_array().unwrap().len() >= 2);
                    for item in value.as_array().unwrap() {
                        assert!(
                            [json!("é\""), json!(1), json!(null), json!({"k": []})].contains(item),
                            "{item}"
                        );
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn what_cannot_be_is_said() {
    let (_, vocabulary, _) = vocabulary();
    let error = |grammar: Grammar| vocabulary.matcher(&grammar).unwrap_err().to_string();
    for (schema, wanted) in [
        (json!([1]), "a list"),
        (json!(false), "no text"),
        (json!({"$ref": "#/$defs/none"}), "leads nowhere"),
        (json!({"$ref": "#none"}), "no $anchor"),
        (
            json!({"$ref": "https://example.com/x.json"}),
            "another document",
        ),
        (json!({"not": {"type": "string"}}), "not"),
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (json!({"type": "integer", "minimum": 5, "maximum": 4}), ""),
    ] {
        let text = error(Grammar::JsonSchema(schema.clone()));
        assert!(text.contains(wanted), "{schema}: {text}");
    }
    assert!(error(Grammar::Regex("(a".into())).contains("unclosed group"));
    assert!(error(Grammar::Regex("a(?=b)".into())).contains("look-around"));
    assert!(error(Grammar::Choices(vec![])).contains("empty list"));
    assert!(error(Grammar::Choices(vec![String::new()])).contains("empty choice"));
    let mut deep = json!({});
    for _ in 0..300 {
        deep = json!({"items": deep});
    }
    assert!(matches!(
        vocabulary.matcher(&Grammar::JsonSchema(deep)),
        Err(Error::Limit { .. })
    ));
    let (tokenizer, size, _) = tokenizer();
    assert!(Vocabulary::new(&tokenizer, size, &[]).is_err());
    assert!(Vocabulary::new(&tokenizer, size, &[u32::MAX]).is_err());
}
