//! The commands, one file each.

mod bench;
mod chat;
mod classify;
mod describe;
mod doctor;
mod embed;
mod models;
mod ner;
mod perplexity;
mod preprocess;
mod quantize;
mod rerank;
mod similar;
mod texts;
mod verify;
mod web;

use anyhow::Result;

/// What can be done.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Ask a model: one answer with a prompt, a conversation without
    Chat(chat::ChatArgs),
    /// Say what is in pictures
    Describe(describe::DescribeArgs),
    /// Turn texts into vectors
    Embed(embed::EmbedArgs),
    /// Find the texts closest to a query
    Similar(similar::SimilarArgs),
    /// Say what a text is: labels of a fine-tuned model, or of your own
    Classify(classify::ClassifyArgs),
    /// Order passages by how well they answer a question
    Rerank(rerank::RerankArgs),
    /// Find names in a text
    Ner(ner::NerArgs),
    /// List, fetch, check and remove models
    Models(models::ModelsArgs),
    /// Say which devices there are, which one runs and why, and prove that it computes right
    Doctor(doctor::DoctorArgs),
    /// Measure prompt and generation speed
    Bench(bench::BenchArgs),
    /// Measure a model's mean next-token loss over a text
    Perplexity(perplexity::PerplexityArgs),
    /// Turn pictures into the tensors a vision model takes
    Preprocess(preprocess::PreprocessArgs),
    /// Write a model as a GGUF file in other types
    Quantize(quantize::QuantizeArgs),
    /// Compare a checkpoint with what its reference implementation computed
    Verify(verify::VerifyArgs),
    /// Serve the browser app with local models, or write it out as static files
    Web(web::WebArgs),
}

impl Command {
    /// Whether standard output is for programs.
    pub(crate) fn json(&self) -> bool {
        match self {
            Command::Chat(a) => a.json,
            Command::Describe(a) => a.json,
            Command::Embed(a) => a.json,
            Command::Similar(a) => a.json,
            Command::Classify(a) => a.json,
            Command::Rerank(a) => a.json,
            Command::Ner(a) => a.json,
            Command::Models(a) => a.json(),
            Command::Doctor(a) => a.json,
            Command::Bench(a) => a.json,
            Command::Perplexity(a) => a.json,
            Command::Preprocess(a) => a.json,
            Command::Quantize(a) => a.json,
            Command::Verify(a) => a.json,
            Command::Web(a) => a.json,
        }
    }

    /// Runs it. Gives the exit code.
    pub(crate) fn run(self) -> Result<u8> {
        match self {
            Command::Chat(a) => chat::run(a),
            Command::Describe(a) => describe::run(&a),
            Command::Embed(a) => embed::run(&a),
            Command::Similar(a) => similar::run(&a),
            Command::Classify(a) => classify::run(&a),
            Command::Rerank(a) => rerank::run(&a),
            Command::Ner(a) => ner::run(&a),
            Command::Models(a) => models::run(a),
            Command::Doctor(a) => doctor::run(&a),
            Command::Bench(a) => bench::run(&a),
            Command::Perplexity(a) => perplexity::run(&a),
            Command::Preprocess(a) => preprocess::run(&a),
            Command::Quantize(a) => quantize::run(&a),
            Command::Verify(a) => verify::run(&a),
            Command::Web(a) => web::run(a),
        }
    }
}
