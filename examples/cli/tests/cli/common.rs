//! Running the built program as a user would, away from the user's own caches and network.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A command that sees no cache but an empty one, and no network.
pub(crate) fn firelight(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firelight"));
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty");
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("FIRELIGHT_") || shown.starts_with("HF_") {
            command.env_remove(&name);
        }
    }
    command
        .env("FIRELIGHT_CACHE", nowhere.join("firelight"))
        .env("HF_HOME", nowhere.join("hub"));
    command
        .env("FIRELIGHT_OFFLINE", "1")
        .env("HF_HUB_OFFLINE", "1");
    command
}

/// What a run left behind.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Ran {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Ran {
    /// The lines of standard output as JSON, all of them.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}"));
        self.out.lines().map(parse).collect()
    }

    /// The last line of standard output as JSON.
    pub(crate) fn last(&self) -> Value {
        self.json()
            .pop()
            .unwrap_or_else(|| panic!("no output; standard error: {}", self.err))
    }

    /// Fails unless the run ended with this code.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Ran {
        assert_eq!(
            self.code,
            Some(code),
            "\nstdout: {}\nstderr: {}",
            self.out,
            self.err
        );
        self
    }
}

/// Runs to the end.
pub(crate) fn run(args: &[&str]) -> Ran {
    firelight(args).output().expect("the program starts").into()
}

/// Runs to the end with this standard input.
pub(crate) fn run_with_input(args: &[&str], input: &[u8]) -> Ran {
    use std::io::Write;
    let mut child = firelight(args)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It may end without reading.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends").into()
}

/// The folder of a tiny checkpoint.
pub(crate) fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/runtime/tests/data")
        .join(family)
}

/// As an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

/// A copy of a tiny checkpoint that may be changed.
pub(crate) fn copy_of(family: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for entry in std::fs::read_dir(fixture(family)).expect("the fixture is there") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
    }
    dir
}

/// A safetensors file's bytes and where a tensor's data are.
pub(crate) fn tensor(file: &Path, name: &str) -> (Vec<u8>, std::ops::Range<usize>) {
    let bytes = std::fs::read(file).expect("readable");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..header]).expect("a JSON header");
    let offset = |i: usize| header + json[name]["data_offsets"][i].as_u64().expect(name) as usize;
    (bytes, offset(0)..offset(1))
}

/// An i64 tensor's numbers.
pub(crate) fn ids(file: &Path, name: &str) -> Vec<i64> {
    let (bytes, range) = tensor(file, name);
    bytes[range]
        .chunks_exact(8)
        .map(|c| i64::from_le_bytes(c.try_into().expect("8 bytes")))
        .collect()
}

/// A JSON array's numbers.
pub(crate) fn numbers(value: &Value) -> Vec<i64> {
    value
        .as_array()
        .expect("an array")
        .iter()
        .map(|v| v.as_i64().expect("a number"))
        .collect()
}
