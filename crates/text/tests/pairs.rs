//! Two texts as one sequence, for each kind of post-processor.

use firelight_text::Tokenizer;
use serde_json::{Value, json};

fn tokenizer(post: Value) -> Result<Tokenizer, firelight_text::Error> {
    let vocab = json!({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4, "c": 5});
    let file = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": post,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    Tokenizer::from_json(file.to_string().as_bytes())
}

fn template(pair: Value) -> Value {
    let special =
        |id: &str| json!({"id": id, "ids": [if id == "[CLS]" { 1 } else { 2 }], "tokens": [id]});
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": pair,
        "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
    })
}

fn bert_pair() -> Value {
    json!([{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 1}}])
}

#[test]
fn templates_and_the_older_processors_join_alike() {
    let older = json!({"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]});
    for post in [template(bert_pair()), older] {
        let t = tokenizer(post).expect("reads");
        assert_eq!(t.encode("a b", true).expect("encodes"), [1, 3, 4, 2]);
        assert_eq!(t.around(), (1, 1));
        let (ids, kinds) = t.join(&[3, 4], &[5]).expect("joins");
        assert_eq!(ids, [1, 3, 4, 2, 5, 2]);
        assert_eq!(kinds, [0, 0, 0, 0, 1, 1]);
        assert_eq!(t.join(&[], &[]).expect("joins").0, [1, 2, 2]);
    }
    let roberta = json!({"type": "RobertaProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1],
        "trim_offsets": true, "add_prefix_space": false});
    let (ids, kinds) = tokenizer(roberta)
        .expect("reads")
        .join(&[3], &[5])
        .expect("joins");
    assert_eq!((ids, kinds), (vec![1, 3, 2, 2, 5, 2], vec![0; 6]));
}

#[test]
fn without_a_template_for_pairs_there_is_none() {
    let t = tokenizer(Value::Null).expect("reads");
    assert_eq!(t.around(), (0, 0));
    assert!(
        t.join(&[3], &[4])
            .expect_err("no template")
            .to_string()
            .contains("pair")
    );
    for broken in [
        json!([{"Sequence": {"id": "A", "type_id": 0}}]),
        json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]),
        json!([{"Sequence": {"id": "C", "type_id": 0}}]),
        json!([{"SpecialToken": {"id": "[MASK]", "type_id": 0}}]),
        json!("A B"),
    ] {
        // Single texts go on working.
        let t = tokenizer(template(broken.clone())).expect("reads");
        assert_eq!(t.encode("a", true).expect("encodes"), [1, 3, 2]);
        assert!(t.join(&[3], &[4]).is_err(), "{broken}");
    }
}
