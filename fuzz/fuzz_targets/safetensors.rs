//! Any bytes as a safetensors file, and as an index of shards: opened whole and in steps, everything in it read, what was
//! read written and read again.
#![no_main]

use firelight_tensor::safetensors::{SafeTensors, parse_header, parse_index, write_to_vec};
use firelight_tensor::{HeaderStep, MemSource};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    if let Ok(index) = parse_index(data) {
        assert!(index.files().iter().all(|f| !f.contains('/') && *f != ".."));
    }
    let whole = SafeTensors::open(Arc::new(MemSource::new("fuzz", data)));
    let mut have = 0;
    let steps = loop {
        match parse_header(&data[..have], data.len() as u64) {
            Ok(HeaderStep::NeedMore(n)) => {
                assert!(n > have as u64 && n <= data.len() as u64);
                have = n as usize;
            }
            Ok(HeaderStep::Done(header)) => break Some(header),
            Err(_) => break None,
        }
    };
    let Ok(file) = whole else { return };
    let header = steps.expect("what opens whole opens in steps");
    assert_eq!(header.tensors, file.tensors());
    let mut tensors = Vec::new();
    for info in file.tensors() {
        let tensor = file
            .read(&info.name)
            .expect("a listed tensor is inside the file");
        assert_eq!(
            tensor.to_f32_vec().expect("any bytes convert").len(),
            info.shape.elements()
        );
        tensors.push((info.name.as_str(), tensor));
    }
    let copy = write_to_vec(file.metadata(), tensors.iter().map(|(n, t)| (*n, t)))
        .expect("what was read can be written");
    let again =
        SafeTensors::open(Arc::new(MemSource::new("copy", copy))).expect("what was written opens");
    assert_eq!(again.metadata(), file.metadata());
    for (name, tensor) in &tensors {
        assert_eq!(
            again.read(name).expect("it is there").bytes(),
            tensor.bytes()
        );
    }
});
