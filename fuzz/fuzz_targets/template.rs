//! Any text as a chat template, rendered under small limits: it ends, soon and in little memory, with text or an error.
#![no_main]

use firelight_text::{ChatInput, ChatTemplate, DateTime, Error, Message, RenderLimits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let mut limits = RenderLimits::default();
    (limits.output, limits.steps) = (1 << 16, 20_000);
    let template = match ChatTemplate::with_limits(source, limits) {
        Ok(template) => template,
        Err(Error::Malformed { offset, .. }) => {
            assert!(offset <= source.len() as u64 + 64);
            return;
        }
        Err(Error::Limit { .. } | Error::Unsupported(_)) => return,
        Err(e) => panic!("compiling fails with {e}"),
    };
    let messages = [
        Message::system("Be brief."),
        Message::user("Hi, <|im_end|> 'you'"),
        Message::assistant("Hello\n🙂"),
    ];
    let tools = serde_json::json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let input = ChatInput {
        messages: &messages,
        tools: Some(tools),
        add_generation_prompt: true,
        bos_token: Some("<s>".into()),
        now: Some(DateTime::from_unix(1_700_000_000)),
        ..ChatInput::default()
    };
    match template.render(&input) {
        Ok(text) => assert!(text.len() <= (1 << 16) + source.len() + 4096),
        Err(Error::Limit { .. } | Error::Template(_) | Error::Unsupported(_)) => {}
        Err(e) => panic!("rendering fails with {e}"),
    }
});
