//! Which GPU tests run, and skips that are counted.
//!
//! `GPU_TESTS=auto` (the default) runs them where an adapter is found, `require` fails where none is, `off` runs none. A test
//! that does not run says so on a line of its own, which `scripts/test.sh` counts:
//!
//! ```text
//! SKIPPED attention_gpu: no adapter was found
//! SKIPPED attention_gpu [f16]: the adapter has no shader-f16
//! ```
//!
//! Without brackets the whole test did not run (it is then not counted as passed), with brackets a part of it did not.

use std::fmt::Display;
use std::io::Write;
use std::str::FromStr;

/// What the environment variable `GPU_TESTS` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuTests {
    /// Run where there is an adapter, else skip and say so.
    #[default]
    Auto,
    /// No adapter is a failure.
    Require,
    /// Skip, and say so.
    Off,
}

impl GpuTests {
    /// Reads `GPU_TESTS`.
    ///
    /// # Panics
    /// On any other value: a misspelt `require` must not quietly mean `auto`.
    pub fn from_env() -> Self {
        match std::env::var("GPU_TESTS") {
            Err(_) => Self::default(),
            Ok(v) => v.parse().unwrap_or_else(|e| panic!("{e}")),
        }
    }
}

impl FromStr for GpuTests {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "" | "auto" => Ok(Self::Auto),
            "require" => Ok(Self::Require),
            "off" => Ok(Self::Off),
            other => Err(format!(
                "GPU_TESTS={other:?}: expected auto, require or off"
            )),
        }
    }
}

/// Opens a device for a test, or reports why the test is skipped and returns `None`.
///
/// ```
/// # fn open() -> Result<(), String> { Err("no adapter was found".into()) }
/// # if std::env::var_os("GPU_TESTS").is_none() {
/// let Some(device) = firelight_testing::gpu_or_skip("softmax_gpu", open) else { return };
/// # }
/// ```
///
/// # Panics
/// When `GPU_TESTS=require` and `open` fails.
pub fn gpu_or_skip<T, E: Display>(test: &str, open: impl FnOnce() -> Result<T, E>) -> Option<T> {
    match choose(GpuTests::from_env(), open) {
        Choice::Run(device) => return Some(device),
        Choice::Skip(reason) => report_skip(test, reason),
        Choice::Fail(reason) => panic!("{test}: {reason}"),
    }
    None
}

#[derive(Debug, PartialEq)]
enum Choice<T> {
    Run(T),
    Skip(String),
    Fail(String),
}

fn choose<T, E: Display>(mode: GpuTests, open: impl FnOnce() -> Result<T, E>) -> Choice<T> {
    if mode == GpuTests::Off {
        return Choice::Skip("GPU_TESTS=off".into());
    }
    match open() {
        Ok(device) => Choice::Run(device),
        Err(e) if mode == GpuTests::Require => Choice::Fail(format!(
            "GPU_TESTS=require, but no device could be opened: {e}"
        )),
        Err(e) => Choice::Skip(e.to_string()),
    }
}

/// Writes `SKIPPED test: reason`. Past the test runner's capture, which would hide it: the test itself ends as `ok`.
pub fn report_skip(test: &str, reason: impl Display) {
    // One write, so that lines of tests running side by side do not mix. A closed stderr leaves nobody to tell.
    let reason = reason.to_string().replace('\n', " ");
    let _ = std::io::stderr()
        .lock()
        .write_all(format!("\nSKIPPED {test}: {reason}\n").as_bytes());
}

/// Says that a test did not run: `skip!("name", "reason")`, then `return`. For a part of a test: `skip!("name", "part", "reason")`.
///
/// ```no_run
/// firelight_testing::skip!("softmax_gpu", "f16", "the adapter has no shader-f16");
/// ```
#[macro_export]
macro_rules! skip {
    ($test:expr, $reason:expr $(,)?) => {
        $crate::gpu::report_skip($test, $reason)
    };
    ($test:expr, $part:expr, $reason:expr $(,)?) => {
        $crate::gpu::report_skip(&format!("{} [{}]", $test, $part), $reason)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_parse_and_typos_do_not() {
        assert_eq!("".parse(), Ok(GpuTests::Auto));
        assert_eq!("auto".parse(), Ok(GpuTests::Auto));
        assert_eq!("require".parse(), Ok(GpuTests::Require));
        assert_eq!("off".parse(), Ok(GpuTests::Off));
        for wrong in ["required", "OFF", "1", " auto"] {
            assert!(wrong.parse::<GpuTests>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_mode_chooses_as_it_says() {
        let found = || Ok::<_, String>(5);
        let none = || Err::<i32, _>("no adapter");
        assert_eq!(choose(GpuTests::Auto, found), Choice::Run(5));
        assert_eq!(choose(GpuTests::Require, found), Choice::Run(5));
        assert_eq!(
            choose(GpuTests::Auto, none),
            Choice::Skip("no adapter".into())
        );
        assert!(
            matches!(choose(GpuTests::Require, none), Choice::Fail(e) if e.ends_with("no adapter"))
        );
        let mut opened = false;
        let off = choose(GpuTests::Off, || {
            opened = true;
            found()
        });
        assert_eq!(off, Choice::Skip("GPU_TESTS=off".into()));
        assert!(!opened, "off must not touch the driver");
    }
}
