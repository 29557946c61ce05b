//! Lists what is in a GGUF file and dequantises one of its tensors.
//!
//! ```text
//! cargo run -p firelight-read-gguf -- MODEL.gguf               metadata and tensors
//! cargo run -p firelight-read-gguf -- MODEL.gguf TENSOR        its first values and their statistics
//! ```
//! Only the header and the tensor asked for are read, so a large file on a small machine is fine.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result};
use firelight_tensor::Gguf;
use firelight_tensor::gguf::Value;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args
        .next()
        .context("usage: firelight-read-gguf MODEL.gguf [TENSOR]")?;
    let file = Gguf::open_path(&path)?;
    match args.next() {
        Some(name) => show(&file, &name),
        None => {
            list(&file);
            Ok(())
        }
    }
}

fn list(file: &Gguf) {
    println!(
        "GGUF version {}, tensor data aligned to {} bytes",
        file.version(),
        file.alignment()
    );
    for (key, value) in file.metadata().iter() {
        match value {
            Value::Array(a) => println!("  {key} = {} × {}", a.len(), a.type_name()),
            Value::String(s) if s.chars().count() > 60 => {
                println!("  {key} = {:?}…", s.chars().take(60).collect::<String>());
            }
            Value::String(s) => println!("  {key} = {s:?}"),
            other => println!("  {key} = {other:?}"),
        }
    }
    println!("{} tensors:", file.tensors().len());
    for t in file.tensors() {
        println!(
            "  {:<32} {:<5} {:<16} {:>11} bytes",
            t.name,
            t.dtype,
            t.shape.to_string(),
            t.nbytes
        );
    }
    for t in file.unsupported() {
        println!(
            "  {:<32} {} {}: not read by this version",
            t.name, t.type_name, t.shape
        );
    }
}

fn show(file: &Gguf, name: &str) -> Result<()> {
    let tensor = file.read(name)?;
    let values = tensor.to_f32_vec()?;
    println!("{name}: {} {:?}", tensor.dtype(), tensor.shape());
    println!("first values: {:?}", &values[..values.len().min(8)]);
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let square = values
        .iter()
        .map(|&v| f64::from(v) * f64::from(v))
        .sum::<f64>()
        / n;
    let (lo, hi) = values
        .iter()
        .fold((f32::MAX, f32::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    println!(
        "min {lo}  max {hi}  mean {mean:.6}  rms {:.6}",
        square.sqrt()
    );
    Ok(())
}
