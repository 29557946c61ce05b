//! Files and inputs that have to be refused, by the name of what is wrong.

use super::{altered, cpu, data, edit_config};
use firelight_runtime::encoder::{EncoderRun, Tokens, Want};
use firelight_runtime::pipelines::embed::Embedder;
use firelight_runtime::{CancelToken, Error};
use pollster::block_on;
use serde_json::Value;
use std::path::Path;

#[test]
fn bad_files_are_refused_by_the_name_of_the_field() {
    type Change = Box<dyn FnOnce(&Path)>;
    let set = |key: &'static str, value: Value| -> Change {
        Box::new(move |dir: &Path| {
            edit_config(dir, |c| {
                c.insert(key.into(), value);
            });
        })
    };
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "bert",
            set("hidden_act", "gelu_9000".into()),
            "`hidden_act` `gelu_9000`",
        ),
        (
            "bert",
            set("num_attention_heads", 7.into()),
            "num_attention_heads",
        ),
        (
            "bert",
            set("num_attention_heads", 0.into()),
            "num_attention_heads",
        ),
        ("bert", set("hidden_size", 44.into()), "hidden_size"),
        ("bert", set("hidden_size", Value::from("40")), "hidden_size"),
        ("bert", set("vocab_size", 301.into()), "word_embeddings"),
        (
            "bert",
            set("num_hidden_layers", 3.into()),
            "encoder.layer.2",
        ),
        ("bert", set("num_hidden_layers", 4000.into()), "4000 layers"),
        ("bert", set("intermediate_size", 64.into()), "intermediate"),
        ("bert", set("type_vocab_size", 3.into()), "token_type"),
        (
            "bert",
            set("position_embedding_type", "relative_key".into()),
            "relative_key",
        ),
        ("bert", set("is_decoder", true.into()), "is_decoder"),
        ("bert", set("model_type", "roberta".into()), "roberta"),
        (
            "bert_rank",
            set("id2label", serde_json::json!({"0": "a", "1": "b"})),
            "classifier",
        ),
        (
            "distilbert",
            set("activation", "sine".into()),
            "`activation` `sine`",
        ),
        ("distilbert", set("dim", 36.into()), "dim"),
        ("distilbert", set("n_heads", 3.into()), "n_heads"),
        (
            "nomic_bert",
            set("hidden_act", "relu".into()),
            "`hidden_act` `relu`",
        ),
        ("nomic_bert", set("head_dim", 16.into()), "head_dim"),
        (
            "nomic_bert",
            set("num_attention_heads", 10.into()),
            "head_dim",
        ),
        (
            "nomic_bert",
            set("rope_parameters", serde_json::json!({"rope_type": "yarn"})),
            "yarn",
        ),
        ("nomic_bert", set("n_embd", 40.into()), "n_head"),
    ];
    for (family, change, fault) in cases {
        let dir = altered(family, change);
        let message = match block_on(cpu().load_encoder(dir.path(), &mut |_, _| ())) {
            Ok(_) => panic!("{family} loaded, expected `{fault}`"),
            Err(e) => e.to_string(),
        };
        assert!(message.contains(fault), "expected `{fault}` in: {message}");
    }
    // A language model is no encoder, and the other way round.
    let Err(error) = block_on(cpu().load_encoder(data("llama"), &mut |_, _| ())) else {
        panic!("a llama embeds");
    };
    assert!(error.to_string().contains("bert"), "{error}");
    let Err(error) = block_on(cpu().load(data("bert"), &mut |_, _| ())) else {
        panic!("a bert writes");
    };
    assert!(error.to_string().contains("embed"), "{error}");
    // Steps of sentence-transformers that are not there.
    let dir = altered("bert", |dir| {
        let dense =
            serde_json::json!([{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]);
        std::fs::write(dir.join("modules.json"), dense.to_string()).expect("written");
    });
    let Err(error) = block_on(Embedder::load(&cpu(), dir.path(), &mut |_, _| ())) else {
        panic!("a dense layer was ignored");
    };
    assert!(error.to_string().contains("Dense"), "{error}");
}

#[test]
fn inputs_the_model_has_no_row_for_are_refused() {
    let engine = cpu();
    let model = block_on(engine.load_encoder(data("bert"), &mut |_, _| ())).expect("loads");
    let run = EncoderRun::new(&engine, model);
    let cancel = CancelToken::new();
    let refused = |ids: Vec<u32>, types: Vec<u32>| {
        let text = [Tokens { ids, types }];
        block_on(run.run(&text, Want::First, 64, &cancel, &mut |_, _| ())).expect_err("refused")
    };
    assert!(matches!(refused(vec![], vec![]), Error::InvalidInput(_)));
    assert!(matches!(
        refused(vec![1; 97], vec![]),
        Error::Limit {
            max: 96,
            got: 97,
            ..
        }
    ));
    assert!(matches!(refused(vec![300], vec![]), Error::InvalidInput(_)));
    assert!(matches!(refused(vec![1], vec![2]), Error::InvalidInput(_)));
    assert!(matches!(
        refused(vec![1], vec![0, 0]),
        Error::InvalidInput(_)
    ));
    let none = block_on(run.run(&[], Want::First, 64, &cancel, &mut |_, _| ())).expect("nothing");
    assert!(none.is_empty());
    let head = block_on(run.run(
        &[Tokens {
            ids: vec![1],
            types: vec![],
        }],
        Want::Logits,
        64,
        &cancel,
        &mut |_, _| (),
    ));
    assert!(matches!(head, Err(Error::Unsupported(_))));
}
