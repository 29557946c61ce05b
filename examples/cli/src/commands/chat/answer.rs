//! Where an answer goes: streamed text, or JSON lines, and the line that closes it.

use crate::json::Event;
use crate::ui::{self, Ui};
use crate::{format, interrupt};
use anyhow::Result;
use firelight_runtime::{Answer, Error, Finish, GenerateOptions, Message, Report, Session};
use std::io::{self, IsTerminal};

/// The ids of a conversation. Says if its pictures had to be made smaller.
pub(super) fn prompt(
    session: &mut Session,
    messages: &[Message],
    options: &GenerateOptions,
    ui: &Ui,
) -> Result<Vec<u32>> {
    let mut told = Ok(());
    let ids = session.prompt(messages, options, &mut |event| {
        if let firelight_runtime::Event::Scaled { from, to } = event {
            told = scaled(ui, from, to);
        }
    })?;
    told.map(|()| ids)
}

fn scaled(ui: &Ui, from: usize, to: usize) -> Result<()> {
    ui.note(&format!(
        "[pictures made smaller to fit into the context: {to} tokens instead of {from}]"
    ));
    ui.event(&Event::Scaled { from, to })
}

/// Generates an answer and shows it as it comes. Ctrl-C ends it.
pub(super) fn stream(
    session: &mut Session,
    ids: &[u32],
    options: &GenerateOptions,
    ui: &mut Ui,
) -> Result<Answer> {
    let cancel = interrupt::listen();
    let terminal = io::stdout().is_terminal();
    let (mut shown, mut ends_line): (Result<()>, bool) = (Ok(()), true);
    let mut calls = Vec::new();
    let mut on_event = |event: firelight_runtime::Event| {
        if shown.is_err() {
            return;
        }
        shown = match event {
            firelight_runtime::Event::Token(_) => Ok(()),
            firelight_runtime::Event::Text(text) if ui.events() => {
                ui.event(&Event::Text { text: &text })
            }
            firelight_runtime::Event::Text(text) => {
                ends_line = text.ends_with('\n');
                ui::to_stdout(&if terminal {
                    format::harmless(&text)
                } else {
                    text
                })
            }
            firelight_runtime::Event::Moved { why, device } => {
                ui.note(&format!("\n[{why}; the answer goes on, on {device}]"));
                ui.event(&Event::Moved {
                    why: &why,
                    device: &device,
                })
            }
            firelight_runtime::Event::Call(call) => {
                calls.push(call);
                Ok(())
            }
            firelight_runtime::Event::Scaled { from, to } => scaled(ui, from, to),
        };
        if shown.is_err() {
            // Nobody reads any more.
            cancel.cancel();
        }
    };
    let answer = pollster::block_on(session.generate(ids, options, &cancel, &mut on_event));
    if !ends_line {
        ui::to_stdout("\n")?;
    }
    shown?;
    for call in &calls {
        let arguments = serde_json::Value::Object(call.arguments.clone());
        ui.note(&format!("— calls {}({arguments})", call.name));
        ui.event(&Event::Call {
            name: &call.name,
            arguments: &call.arguments,
        })?;
    }
    Ok(answer?)
}

/// The last line: speed and device for people, everything for programs.
pub(super) fn close(
    answer: &Answer,
    options: &GenerateOptions,
    report: &Report,
    ui: &Ui,
) -> Result<()> {
    ui.note(&summary(answer, options, report));
    ui.event(&Event::Done {
        prompt_ids: &answer.prompt_ids,
        encoded: answer.encoded,
        drafted: answer.drafted,
        drafts_right: answer.drafts_right,
        ids: &answer.ids,
        text: &answer.text,
        device: &report.device,
        rung: report.rung.name(),
        ttft_ms: answer.ttft.as_secs_f64() * 1e3,
        prefill_tps: answer.prefill_tps(),
        decode_tps: answer.decode_tps(),
        finish: answer.finish.name(),
        seed: options.sampling.seed,
    })?;
    Ok(())
}

/// `— 64 tokens · first after 0.12 s · prefill 210 tok/s · decode 98.3 tok/s · CPU, avx2, 2 threads (rung cpu)`.
pub(super) fn summary(answer: &Answer, options: &GenerateOptions, report: &Report) -> String {
    let mut parts = vec![format::count(answer.ids.len(), "token")];
    if !answer.ttft.is_zero() {
        parts.push(format!(
            "first after {}",
            format::seconds(answer.ttft.as_secs_f64())
        ));
        parts.push(format!("prefill {}", format::rate(answer.prefill_tps())));
    }
    if answer.ids.len() > 1 {
        parts.push(format!("decode {}", format::rate(answer.decode_tps())));
    }
    if answer.drafted > 0 {
        parts.push(format!(
            "{} of {} guessed tokens right",
            answer.drafts_right, answer.drafted
        ));
    }
    parts.push(format!("{} (rung {})", report.device, report.rung));
    match answer.finish {
        Finish::Cancelled => parts.push(interrupt::MESSAGE.to_owned()),
        Finish::MaxTokens => parts.push(format!("cut at --max-tokens {}", options.max_tokens)),
        Finish::Context => parts.push("cut: the context is full".to_owned()),
        Finish::Eos | Finish::Stop => {}
    }
    format!("— {}", parts.join(" · "))
}

/// True if the conversation is longer than the model, or `--ctx`, allows.
pub(super) fn is_context_full(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(Error::Limit {
            what: "tokens of the prompt",
            ..
        })
    )
}
