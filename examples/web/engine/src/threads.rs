//! Helpers of the processor's rung: workers of the page, each with an instance of this module (`api/threads.js`, `api/helper.js`).

use crate::error::invalid;
use firelight_kernels::cpu::{self, Helpers};
use firelight_runtime::Device;
use serde_json::{Value, json};
use std::cell::RefCell;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `Threads` of `threads.js`.
    pub type Threads;
    #[wasm_bindgen(method, getter)]
    fn count(this: &Threads) -> usize;
    #[wasm_bindgen(method, getter)]
    fn room(this: &Threads) -> usize;
    #[wasm_bindgen(method)]
    fn write(this: &Threads, at: usize, bytes: &[u8]);
    #[wasm_bindgen(method)]
    fn send(this: &Threads, helper: usize, len: usize);
    #[wasm_bindgen(method)]
    fn receive(this: &Threads, helper: usize, reply: &mut [u8]) -> bool;
}

thread_local! {
    /// Here, because a device must be shareable between threads, which JavaScript's values are not. There is one thread.
    static THREADS: RefCell<Option<Threads>> = const { RefCell::new(None) };
}

struct Way;

/// What `f` makes of the helpers, or `none` without any.
fn with<T>(none: T, f: impl FnOnce(&Threads) -> T) -> T {
    THREADS.with_borrow(|threads| threads.as_ref().map_or(none, f))
}

impl Helpers for Way {
    fn count(&self) -> usize {
        with(0, Threads::count)
    }

    fn room(&self) -> usize {
        with(0, Threads::room)
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        with((), |t| t.write(at, bytes));
    }

    fn send(&self, helper: usize, len: usize) {
        with((), |t| t.send(helper, len));
    }

    fn receive(&self, helper: usize, reply: &mut [u8]) -> bool {
        with(false, |t| t.receive(helper, reply))
    }
}

/// Lets these helpers compute for a device from now on. False if it is none of the processor's, or has helpers.
pub(crate) fn share(device: &Device, threads: Threads) -> Result<(), JsValue> {
    let Some(cpu) = device.as_cpu() else {
        return Err(invalid("helpers of a GPU"));
    };
    THREADS.set(Some(threads));
    cpu.share_with(Box::new(Way)).map_err(invalid)
}

/// What they do, as JSON.
pub(crate) fn sharing(device: &Device) -> Value {
    let now = device.as_cpu().map(cpu::Cpu::sharing).unwrap_or_default();
    json!({"helpers": now.helpers, "jobs": now.jobs, "bytes": now.bytes, "failed": now.failed})
}

/// The helper's side.
#[wasm_bindgen]
#[derive(Default)]
pub struct Helper(cpu::Helper);

#[wasm_bindgen]
impl Helper {
    /// Holds nothing yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where in this instance's memory a request of `len` bytes is to be put.
    pub fn room(&mut self, len: usize) -> *mut u8 {
        self.0.room(len).as_mut_ptr()
    }

    /// Does what the request asks for; bytes of the reply.
    pub fn answer(&mut self, len: usize) -> usize {
        self.0.answer(len).len()
    }

    /// Where the reply is.
    pub fn reply(&self) -> *const u8 {
        self.0.reply().as_ptr()
    }
}
