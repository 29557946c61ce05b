//! What the integration tests share.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use firelight_tensor::gguf::{Gguf, Metadata};
use firelight_text::GgufVocab;

/// A folder that only some machines have. Without it the test says so and counts as skipped.
pub(crate) fn folder(variable: &str, what: &str) -> Option<PathBuf> {
    match std::env::var_os(variable) {
        Some(path) => Some(PathBuf::from(path)),
        None => {
            eprintln!("skipped 1: {variable} is not set; it names {what}");
            None
        }
    }
}

/// The vocabulary of a GGUF file.
pub(crate) fn gguf_vocab(path: &Path) -> (GgufVocab, Metadata) {
    let gguf = Gguf::open_path(path).expect("a GGUF file");
    let m = gguf.metadata();
    let text = |key: &str| m.get_as::<&str>(key).unwrap().map(str::to_owned);
    let vocab = GgufVocab {
        model: text("tokenizer.ggml.model").unwrap_or_default(),
        pre: text("tokenizer.ggml.pre"),
        name: text("general.name"),
        tokens: m
            .get_array_str("tokenizer.ggml.tokens")
            .unwrap()
            .map(|a| a.to_vec())
            .unwrap_or_default(),
        token_types: m
            .get_array_i32("tokenizer.ggml.token_type")
            .unwrap()
            .unwrap_or_default()
            .to_vec(),
        scores: m
            .get_array_f32("tokenizer.ggml.scores")
            .unwrap()
            .unwrap_or_default()
            .to_vec(),
        merges: m
            .get_array_str("tokenizer.ggml.merges")
            .unwrap()
            .map(|a| a.to_vec())
            .unwrap_or_default(),
        bos: m.get_as("tokenizer.ggml.bos_token_id").unwrap(),
        eos: m.get_as("tokenizer.ggml.eos_token_id").unwrap(),
        unk: m.get_as("tokenizer.ggml.unknown_token_id").unwrap(),
        pad: m.get_as("tokenizer.ggml.padding_token_id").unwrap(),
        eot: m.get_as("tokenizer.ggml.eot_token_id").unwrap(),
        add_bos: m.get_as("tokenizer.ggml.add_bos_token").unwrap(),
        add_eos: m.get_as("tokenizer.ggml.add_eos_token").unwrap(),
        add_space_prefix: m.get_as("tokenizer.ggml.add_space_prefix").unwrap(),
    };
    (vocab, m.clone())
}
