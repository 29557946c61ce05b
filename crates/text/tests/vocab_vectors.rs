//! The tokenizer vectors that llama.cpp keeps beside its vocabulary files: `NAME.gguf`, `NAME.gguf.inp` (texts),
//! `NAME.gguf.out` (ids by the reference tokenizer, a line a text). They are other people's vocabularies and
//! not kept here; `FIRELIGHT_VOCAB_DIR` names a folder with them (`llama.cpp/models`).

mod common;

use std::time::Instant;

use firelight_text::{Error, Tokenizer};

#[test]
fn vectors() {
    let Some(dir) = common::folder(
        "FIRELIGHT_VOCAB_DIR",
        "a folder with ggml-vocab-*.gguf, .inp and .out",
    ) else {
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no .gguf files in FIRELIGHT_VOCAB_DIR");
    let (mut wrong, mut passed, mut unsupported) = (Vec::new(), 0, Vec::new());
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (vocab, _) = common::gguf_vocab(&path);
        let tokens = vocab.tokens.len();
        let start = Instant::now();
        let tokenizer = match Tokenizer::from_gguf(vocab) {
            Ok(tokenizer) => tokenizer,
            Err(Error::Unsupported(what)) => {
                unsupported.push(format!("{name}: {what}"));
                continue;
            }
            Err(e) => panic!("{name}: {e}"),
        };
        let took = start.elapsed();
        let with = |extension: &str| {
            let mut path = path.clone().into_os_string();
            path.push(extension);
            std::fs::read_to_string(path)
        };
        let (Ok(inputs), Ok(outputs)) = (with(".inp"), with(".out")) else {
            eprintln!("{name}: {tokens} tokens, {took:.0?}; no vectors");
            continue;
        };
        let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
        let outputs: Vec<&str> = outputs.lines().collect();
        assert!(
            inputs.len() >= outputs.len() && outputs.len() > 40,
            "{name}"
        );
        let mut right = 0;
        for (input, output) in inputs.iter().zip(&outputs) {
            let expected: Vec<u32> = output
                .split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect();
            let got = tokenizer.encode_plain(input, false).unwrap();
            let parsed = tokenizer.encode(input, false).unwrap();
            assert_eq!(got, parsed, "{name}: no vector has a special token in it");
            if got == expected {
                right += 1;
                // Byte-level vocabularies give every text back; SentencePiece strips a space.
                let back = tokenizer.decode(&got, false);
                assert!(
                    back == *input || back.trim_start() == input.trim_start(),
                    "{name}: {back:?}"
                );
            } else {
                wrong.push(format!(
                    "{name}: {input:?}\n  expected {expected:?}\n  got      {got:?}"
                ));
            }
        }
        passed += right;
        eprintln!(
            "{name}: {tokens} tokens, {took:.0?}; {right} of {} vectors",
            outputs.len()
        );
    }
    eprintln!(
        "{passed} vectors passed; unsupported:\n  {}",
        unsupported.join("\n  ")
    );
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(passed > 0);
}
