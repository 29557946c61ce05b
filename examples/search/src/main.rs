//! Finds the lines of a file that mean what a question means: an index of embeddings in thirty lines.
//!
//! ```text
//! firelight models fetch all-minilm-l6-v2
//! cargo run --release -p firelight-search -- MODEL_FOLDER notes.txt "where did I put the keys"
//! ```
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result};
use firelight_runtime::pipelines::embed::{EmbedOptions, Embedder, nearest};
use firelight_runtime::{Engine, EngineOptions};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file, question] = &args[..] else {
        anyhow::bail!("usage: firelight-search MODEL_FOLDER FILE QUESTION");
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();

    pollster::block_on(async {
        let engine = Engine::new(EngineOptions::default()).await?;
        let embedder = Embedder::load(&engine, folder, &mut |_, _| ()).await?;
        let options = EmbedOptions::default();
        // An application would keep these vectors: they change only when the lines do.
        let index = embedder.embed(&lines, &options).await?.vectors();
        let query = embedder.embed(&[question], &options).await?.vectors();
        for (line, similarity) in nearest(&query[0], &index, 5) {
            println!("{similarity:.3}  {}", lines[line]);
        }
        Ok(())
    })
}
