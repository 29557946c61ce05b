//! The commands, one file each.

mod bench;
mod chat;
mod classify;
mod describe;
mod doctor;
mod embed;
mod features;
mod listen;
mod models;
mod ner;
mod perplexity;
mod preprocess;
mod quantize;
mod rerank;
mod scribe;
mod search;
mod similar;
mod sound;
mod texts;
mod transcribe;
mod tune;
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
    /// Turn texts or pictures into vectors
    Embed(embed::EmbedArgs),
    /// Find the texts closest to a query
    Similar(similar::SimilarArgs),
    /// Find the pictures of a folder by what is on them
    Search(search::SearchArgs),
    /// Say what a text or a picture is: labels of a fine-tuned model, or of your own
    Classify(classify::ClassifyArgs),
    /// Order passages by how well they answer a question
    Rerank(rerank::RerankArgs),
    /// Find names in a text
    Ner(ner::NerArgs),
    /// Write down what is said in recordings: text, subtitles, times of words
    Transcribe(transcribe::TranscribeArgs),
    /// Write down what is said while it is said, and follow spoken commands
    Listen(listen::ListenArgs),
    /// Make a structured note of a dictation: what is said, and a note of it under a schema
    Scribe(scribe::ScribeArgs),
    /// Write the features a model hears of a recording
    Features(features::FeaturesArgs),
    /// List, fetch, check and remove models
    Models(models::ModelsArgs),
    /// Say which devices there are, which one runs and why, and prove that it computes right
    Doctor(doctor::DoctorArgs),
    /// Measure which variants and sizes of kernels are the fastest on this device, and keep that
    Tune(tune::TuneArgs),
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
            Command::Search(a) => a.json,
            Command::Classify(a) => a.json,
            Command::Rerank(a) => a.json,
            Command::Ner(a) => a.json,
            Command::Transcribe(a) => a.format == transcribe::FormatKind::Json,
            Command::Listen(a) => a.json,
            Command::Scribe(_) | Command::Features(_) => false,
            Command::Models(a) => a.json(),
            Command::Doctor(a) => a.json,
            Command::Tune(a) => a.json,
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
            Command::Search(a) => search::run(&a),
            Command::Classify(a) => classify::run(&a),
            Command::Rerank(a) => rerank::run(&a),
            Command::Ner(a) => ner::run(&a),
            Command::Transcribe(a) => transcribe::run(&a),
            Command::Listen(a) => listen::run(&a),
            Command::Scribe(a) => scribe::run(&a),
            Command::Features(a) => features::run(&a),
            Command::Models(a) => models::run(a),
            Command::Doctor(a) => doctor::run(&a),
            Command::Tune(a) => tune::run(&a),
            Command::Bench(a) => bench::run(&a),
            Command::Perplexity(a) => perplexity::run(&a),
            Command::Preprocess(a) => preprocess::run(&a),
            Command::Quantize(a) => quantize::run(&a),
            Command::Verify(a) => verify::run(&a),
            Command::Web(a) => web::run(a),
        }
    }
}
