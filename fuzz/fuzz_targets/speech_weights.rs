//! Any bytes as a Whisper in whisper.cpp's or CTranslate2's layout: opened, everything in it read.
#![no_main]

use firelight_tensor::{Ct2, Ggml, MemSource, Weights};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let source = || Arc::new(MemSource::new("fuzz", data));
    let ggml = Ggml::open(source()).map(Weights::from);
    for weights in [ggml, Ct2::open(source()).map(Weights::from)] {
        let Ok(weights) = weights else { continue };
        for info in weights.tensors() {
            let tensor = weights
                .read(&info.name)
                .expect("a listed tensor is inside the file");
            assert_eq!(tensor.bytes().len(), info.nbytes);
        }
    }
});
