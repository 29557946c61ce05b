//! Giving the worker's messages a turn while a computation goes on.

use js_sys::{Function, Promise};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// Milliseconds of work between two turns: a stop is heard this soon, and a turn's cost does not show.
const WORK_MS: f64 = 8.0;

thread_local! {
    static TURN: RefCell<Option<Function>> = const { RefCell::new(None) };
    static LAST: Cell<f64> = const { Cell::new(0.0) };
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn milliseconds() -> f64;
}

/// Milliseconds of the worker's clock.
pub(crate) fn now() -> f64 {
    milliseconds()
}

/// Sets the function whose promise resolves after the messages that wait were handled.
pub(crate) fn set_turn(turn: Function) {
    TURN.set(Some(turn));
}

/// A turn, if the last one is a while ago.
pub(crate) fn pause() -> Pin<Box<dyn Future<Output = ()>>> {
    if now() - LAST.get() < WORK_MS {
        return Box::pin(std::future::ready(()));
    }
    let promise = TURN.with_borrow(|turn| {
        let promise = turn.as_ref()?.call0(&JsValue::NULL).ok()?;
        promise.dyn_into::<Promise>().ok()
    });
    Box::pin(async move {
        if let Some(promise) = promise {
            // A turn that fails is over, too.
            let _ = JsFuture::from(promise).await;
        }
        LAST.set(now());
    })
}
