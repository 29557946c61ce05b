//! Numbers that plans depend on and that only a measurement knows for a device: from where on another variant wins, how large a
//! part is.
//!
//! A kernel names them ([`Tunable`]) with calls to time them by ([`Kernel::tunables`]), and asks [`Caps::tuned`](crate::Caps::tuned)
//! for them. [`tune()`] proves each choice against the references, times those that are right, and keeps the fastest in a
//! [`Tuning`], which [`Device::tuned`](crate::Device::tuned) puts to use. Every choice answers right; they differ in speed only.

#[cfg(not(target_arch = "wasm32"))]
mod pass;
#[cfg(not(target_arch = "wasm32"))]
mod time;

#[cfg(not(target_arch = "wasm32"))]
pub use pass::{Pick, TuneOptions, Tuned, prove, tune};

#[cfg(not(target_arch = "wasm32"))]
use crate::{Error, Kernel, Result};
use firelight_tensor::DType;
#[cfg(not(target_arch = "wasm32"))]
use std::collections::BTreeMap;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::Arc;

/// Which devices a [`Tunable`] matters to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// GPUs.
    Gpu,
    /// The CPU with several threads.
    Threads,
}

/// A number that may be chosen per device and element type.
#[derive(Debug)]
pub struct Tunable {
    /// `kernel.number`.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// Where it matters.
    pub on: On,
    /// The operand whose element type it is chosen for: weights, or caches.
    pub operand: usize,
    /// What is used where nothing was measured.
    pub default: u32,
    /// What may be chosen, the default among them.
    pub choices: &'static [u32],
}

/// Chosen numbers, by tunable and element type; empty where nothing was measured. Cloning shares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    #[cfg(not(target_arch = "wasm32"))]
    chosen: Option<Arc<BTreeMap<(&'static str, &'static str), u32>>>,
}

impl Tuning {
    /// Every tunable at its default.
    pub const NONE: Tuning = Tuning {
        #[cfg(not(target_arch = "wasm32"))]
        chosen: None,
    };

    /// The number for this element type.
    pub fn get(&self, tunable: &Tunable, dtype: DType) -> u32 {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(&value) = self
            .chosen
            .as_ref()
            .and_then(|c| c.get(&(tunable.name, dtype.name())))
        {
            return value;
        }
        let _ = dtype;
        tunable.default
    }

    /// The same with one number set.
    ///
    /// # Errors
    /// `InvalidInput` for a number that is not among the choices.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn with(&self, tunable: &Tunable, dtype: DType, value: u32) -> Result<Tuning> {
        if !tunable.choices.contains(&value) {
            let known = tunable.choices;
            return Err(Error::invalid(format!(
                "{} = {value}; known: {known:?}",
                tunable.name
            )));
        }
        let mut chosen = self.chosen.as_deref().cloned().unwrap_or_default();
        chosen.insert((tunable.name, dtype.name()), value);
        Ok(Tuning {
            chosen: Some(Arc::new(chosen)),
        })
    }

    /// The tunable of this name among those of `kernels`.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn find(kernels: &[&'static dyn Kernel], name: &str) -> Option<&'static Tunable> {
        let mut all = kernels.iter().flat_map(|k| k.tunables());
        all.find(|(t, _)| t.name == name).map(|(t, _)| t)
    }

    /// True if no number was chosen.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn is_empty(&self) -> bool {
        self.chosen.as_ref().is_none_or(|c| c.is_empty())
    }
}
