//! Renders a conversation with a model's chat template and tokenises it.
//!
//! ```text
//! cargo run -p firelight-chat-template -- FOLDER "What is in this picture?"
//! ```
//! FOLDER holds `tokenizer.json` and a template: `chat_template.jinja`, or one inside `tokenizer_config.json`.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result};
use firelight_text::{ChatInput, ChatTemplate, Message, Tokenizer, TokenizerConfig};
use std::path::PathBuf;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args
        .next()
        .context("usage: firelight-chat-template FOLDER [QUESTION]")?;
    let folder = PathBuf::from(folder);
    let question = args
        .next()
        .unwrap_or_else(|| "Why is the sky blue?".to_owned());
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };

    let config = TokenizerConfig::from_json(&read("tokenizer_config.json")?)?;
    let tokenizer = Tokenizer::from_json(&read("tokenizer.json")?)?.with_config(&config);
    let own = read("chat_template.jinja")
        .ok()
        .map(String::from_utf8)
        .transpose()?;
    let source = own.as_deref().or_else(|| config.chat_template(false));
    let template = ChatTemplate::new(source.context("this folder has no chat template")?)?;

    let messages = [Message::system("Be brief."), Message::user(question)];
    let text = template.render(&ChatInput {
        messages: &messages,
        add_generation_prompt: true,
        bos_token: config.bos_token.clone(),
        eos_token: config.eos_token.clone(),
        ..ChatInput::default()
    })?;
    println!("{text}");

    // The template has written the special tokens: none are added.
    let ids = tokenizer.encode(&text, false)?;
    println!("{} tokens: {ids:?}", ids.len());
    let mut decoder = tokenizer.stream(false);
    let mut pieces: Vec<String> = ids.iter().filter_map(|&id| decoder.push(id)).collect();
    pieces.push(decoder.finish());
    println!("as streamed: {pieces:?}");
    Ok(())
}
