//! Files whose bytes JavaScript has, or will have: stored ones, and ones that are being downloaded.

use crate::error::thrown;
use firelight_runtime::CancelToken;
use firelight_runtime::stream::{Arrivals, Waiting};
use firelight_tensor::{ByteSource, Error, Result};
use js_sys::Promise;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// A file of `store.js`.
    pub type FileHandle;
    #[wasm_bindgen(method, getter)]
    fn name(this: &FileHandle) -> String;
    #[wasm_bindgen(method, getter)]
    fn size(this: &FileHandle) -> f64;
    /// Fills `into` from `offset` on; false if some of these bytes are not there yet.
    #[wasm_bindgen(method, catch)]
    fn read(this: &FileHandle, offset: f64, into: &mut [u8]) -> std::result::Result<bool, JsValue>;
    /// Resolves when the bytes from `start` to `end` are there.
    #[wasm_bindgen(method, catch)]
    fn arrived(this: &FileHandle, start: f64, end: f64) -> std::result::Result<Promise, JsValue>;
}

thread_local! {
    /// Handles by number: a source must be shareable between threads, which JavaScript's values are not. There is one thread.
    static HANDLES: RefCell<HashMap<u32, FileHandle>> = RefCell::new(HashMap::new());
    static NEXT: Cell<u32> = const { Cell::new(0) };
}

/// One file.
pub(crate) struct JsFile {
    id: u32,
    len: u64,
    name: String,
    /// The bytes that a failed read wanted.
    missing: Mutex<Option<Range<u64>>>,
}

impl JsFile {
    pub(crate) fn new(handle: FileHandle) -> Self {
        let id = NEXT.get();
        NEXT.set(id.wrapping_add(1));
        let (len, name) = (handle.size() as u64, handle.name());
        HANDLES.with_borrow_mut(|all| all.insert(id, handle));
        JsFile {
            id,
            len,
            name,
            missing: Mutex::default(),
        }
    }

    fn wait(&self, range: Range<u64>) -> Waiting<'_> {
        let promise = HANDLES.with_borrow(|all| match all.get(&self.id) {
            Some(handle) => handle.arrived(range.start as f64, range.end as f64),
            None => Err(JsValue::from_str("the file was closed")),
        });
        Box::pin(async move {
            let waited = match promise {
                Ok(promise) => JsFuture::from(promise).await,
                Err(e) => Err(e),
            };
            waited.map(|_| ()).map_err(thrown)
        })
    }
}

impl Drop for JsFile {
    fn drop(&mut self) {
        HANDLES.with_borrow_mut(|all| all.remove(&self.id));
    }
}

impl ByteSource for JsFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|&end| end <= self.len) else {
            return Err(Error::InvalidInput(format!(
                "{}: bytes {offset} to {offset}+{} of a file of {}",
                self.name,
                buf.len(),
                self.len
            )));
        };
        let io = |what: String| Error::Io {
            path: self.name.clone(),
            source: std::io::Error::other(what),
        };
        let read = HANDLES.with_borrow(|all| match all.get(&self.id) {
            Some(handle) => handle.read(offset as f64, buf),
            None => Err(JsValue::from_str("the file was closed")),
        });
        match read {
            Ok(true) => Ok(()),
            Ok(false) => {
                let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
                *missing = Some(offset..end);
                Err(io("not downloaded yet".to_owned()))
            }
            Err(e) => Err(io(thrown(e).to_string())),
        }
    }
}

/// After this many reads of what is not there a file is waited for as a whole: each costs another plan of the load.
const PATIENCE: u32 = 8;

/// The files of a model, in the order of its checkpoint's parts.
pub(crate) struct JsFiles(Vec<Arc<JsFile>>, Cell<u32>);

impl JsFiles {
    pub(crate) fn new(handles: Vec<FileHandle>) -> Self {
        let files = handles.into_iter().map(|f| Arc::new(JsFile::new(f)));
        JsFiles(files.collect(), Cell::new(0))
    }

    /// As a checkpoint takes them.
    pub(crate) fn sources(&self) -> Vec<Arc<dyn ByteSource>> {
        let sources = self.0.iter().map(|f| Arc::clone(f) as Arc<dyn ByteSource>);
        sources.collect()
    }

    /// Runs `load` until it ends: it reads what it needs when it needs it, so it begins anew when bytes have come that were missing.
    ///
    /// # Errors
    /// What `load` returns when nothing is missing; `Cancelled` between two runs.
    pub(crate) async fn until_there<T>(
        &self,
        cancel: &CancelToken,
        mut load: impl AsyncFnMut() -> firelight_runtime::Result<T>,
    ) -> firelight_runtime::Result<T> {
        loop {
            match load().await {
                Ok(loaded) => return Ok(loaded),
                Err(e) => match self.missing() {
                    Some(wait) => wait.await?,
                    None => return Err(e),
                },
            }
            if cancel.heard().await {
                return Err(firelight_runtime::Error::Cancelled);
            }
        }
    }
}

impl Arrivals for JsFiles {
    fn arrived(&self, part: usize, range: Range<u64>) -> Waiting<'_> {
        match self.0.get(part) {
            Some(file) => file.wait(range),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn missing(&self) -> Option<Waiting<'_>> {
        self.0.iter().find_map(|file| {
            let mut missing = file.missing.lock().unwrap_or_else(PoisonError::into_inner);
            let range = missing.take()?;
            self.1.set(self.1.get() + 1);
            let whole = self.1.get() > PATIENCE;
            Some(file.wait(if whole { 0..file.len } else { range }))
        })
    }
}
