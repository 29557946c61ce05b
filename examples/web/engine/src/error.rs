//! Errors as objects with a code, a message and a remedy; the codes are those of `errors.js`.

use firelight_kernels::DeviceFault;
use firelight_runtime::Error;
use js_sys::{Object, Reflect};
use std::cell::RefCell;
use wasm_bindgen::prelude::*;

thread_local! {
    /// An error that JavaScript threw inside a read: it goes out as it came in.
    static THROWN: RefCell<Option<JsValue>> = const { RefCell::new(None) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what JavaScript threw for [`to_js`], and gives the error that stands for it until then.
pub(crate) fn thrown(value: JsValue) -> Error {
    let message = Reflect::get(&value, &"message".into())
        .ok()
        .and_then(|m| m.as_string())
        .unwrap_or_else(|| format!("{value:?}"));
    THROWN.set(Some(value));
    Error::invalid(message)
}

/// Remembers the message of a panic for [`last_panic`].
pub(crate) fn watch_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
}

/// The message of the panic that stopped the engine; empty if there was none.
#[allow(unreachable_pub)] // reached from JavaScript
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> String {
    PANIC.with_borrow(String::clone)
}

fn object(code: &str, message: &str, remedy: &str) -> JsValue {
    let object = Object::new();
    for (key, value) in [("code", code), ("message", message), ("remedy", remedy)] {
        // Setting a field of a fresh object does not fail.
        let _ = Reflect::set(&object, &key.into(), &value.into());
    }
    object.into()
}

/// An error of the caller's.
pub(crate) fn invalid(message: impl std::fmt::Display) -> JsValue {
    object("invalid_input", &message.to_string(), "")
}

/// No model is loaded.
pub(crate) fn no_model() -> JsValue {
    object("no_model", "no model is loaded", "Load a model first.")
}

/// What this version cannot do.
pub(crate) fn unsupported(message: &str, remedy: &str) -> JsValue {
    object("unsupported", message, remedy)
}

/// What only the engine with everything can do: the page's side loads that one, and asks again.
pub(crate) fn other_part(what: &str) -> JsValue {
    object(
        "part",
        &format!("{what}: not in the engine for text alone"),
        "Load the engine with everything: `create({ parts: 'everything' })`.",
    )
}

/// An error of the engine as JavaScript gets it.
pub(crate) fn to_js(error: Error) -> JsValue {
    if let Some(value) = THROWN.take() {
        return value;
    }
    let (code, remedy) = match &error {
        Error::InvalidInput(_) => ("invalid_input", ""),
        Error::Unsupported(_) => ("unsupported", "Take another model, or a newer version."),
        Error::Malformed { .. } | Error::Tensor(_) => (
            "malformed",
            "Delete the stored model and load it again; if it repeats, the file itself is damaged or not what it says.",
        ),
        Error::Limit { .. } => (
            "limit",
            "Shorten the conversation, or take a model with a longer context.",
        ),
        Error::BadLogits { .. } => (
            "bad_logits",
            "Delete the stored model and load it again; if it repeats, choose the CPU in the settings.",
        ),
        Error::Cancelled => ("cancelled", ""),
        Error::Unfinished { .. } => (
            "unfinished",
            "Allow more tokens, or bound the schema (maxLength, maxItems).",
        ),
        Error::Kernels(e) => match e {
            firelight_kernels::Error::Device { fault, .. } => match fault {
                DeviceFault::OutOfMemory => (
                    "memory",
                    "Close other tabs and programs, or take a smaller model.",
                ),
                DeviceFault::NoAdapter => (
                    "device",
                    "Choose the CPU, or allow the browser to use the GPU (hardware acceleration).",
                ),
                _ => (
                    "device",
                    "Reload the page; if it repeats, update the graphics driver or choose the CPU.",
                ),
            },
            firelight_kernels::Error::InvalidInput(_) => ("invalid_input", ""),
            firelight_kernels::Error::Unsupported(_) => ("unsupported", ""),
            firelight_kernels::Error::Limit { .. } => ("limit", ""),
            _ => ("internal", "Please report this with the device report."),
        },
        #[cfg(feature = "audio")]
        Error::Audio(e) => match e {
            firelight_audio::Error::Unsupported(_) => {
                ("unsupported", "Take WAV, FLAC, MP3, Ogg, M4A or WebM.")
            }
            firelight_audio::Error::Limit { .. } => ("limit", "Take a shorter recording."),
            _ => (
                "invalid_input",
                "Take another recording: this one cannot be used.",
            ),
        },
        #[cfg(feature = "vision")]
        Error::Vision(e) => match e {
            firelight_vision::Error::Unsupported(_) => ("unsupported", ""),
            firelight_vision::Error::Limit { .. } => ("limit", "Take a smaller picture."),
            _ => (
                "invalid_input",
                "Take another picture: this one cannot be used.",
            ),
        },
        Error::Text(_) => (
            "invalid_input",
            "The model's template or tokenizer does not accept this conversation.",
        ),
        _ => ("internal", "Please report this with the device report."),
    };
    object(code, &error.to_string(), remedy)
}
