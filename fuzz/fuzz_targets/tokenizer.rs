//! Any bytes as a tokenizer.json, and any text through tokenizers that are right. What is read must work to the end, and
//! streaming must be the same as decoding at once.
#![no_main]

use firelight_text::{Error, Tokenizer};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static KNOWN: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    macro_rules! tokenizers {
        ($($name:literal)*) => {
            [$(&include_bytes!(concat!("../../crates/text/tests/data/tokenizers/", $name, ".json"))[..]),*]
        };
    }
    tokenizers!["bert" "clip" "gemma" "gpt2" "llama2" "llama3" "o200k" "qwen" "siglip" "t5"]
        .iter()
        .map(|json| Tokenizer::from_json(json).expect("a file of the tests"))
        .collect()
});

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((b'{', _)) => {
            let Ok(tokenizer) = Tokenizer::from_json(data) else {
                return;
            };
            for text in ["", "Hello <s> wörld 🙂\n\n  x 123", "▁<0x41>\u{fffd}\0<|end|>"] {
                through(&tokenizer, text);
            }
        }
        Some((choice, text)) => {
            let tokenizer = &KNOWN[usize::from(*choice) % KNOWN.len()];
            through(tokenizer, &String::from_utf8_lossy(text));
            // The bytes as ids, too: any sequence can come out of a model.
            let ids: Vec<u32> = text
                .chunks(2)
                .map(|c| u32::from(c[0]) | u32::from(*c.last().unwrap_or(&0)) << 8)
                .map(|id| id % (tokenizer.vocab_size() as u32 + 3))
                .collect();
            decode(tokenizer, &ids);
        }
        None => {}
    }
});

fn through(tokenizer: &Tokenizer, text: &str) {
    for special in [false, true] {
        match tokenizer.encode(text, special) {
            Ok(ids) => decode(tokenizer, &ids),
            Err(Error::Limit { .. } | Error::InvalidInput(_) | Error::Unsupported(_)) => {}
            Err(e) => panic!("encoding fails with {e}"),
        }
    }
    if let Ok(ids) = tokenizer.encode_plain(text, false) {
        decode(tokenizer, &ids);
    }
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) {
    for skip in [false, true] {
        let whole = tokenizer.decode(ids, skip);
        let mut stream = tokenizer.stream(skip);
        let mut text = String::new();
        for &id in ids {
            text.extend(stream.push(id));
        }
        text.push_str(&stream.finish());
        assert_eq!(text, whole, "{ids:?}");
    }
}
