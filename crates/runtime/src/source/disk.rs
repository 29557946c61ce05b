//! Files: locks between processes, hashes, atomic writes, and a full disk told apart from other failures.
use super::{CancelToken, Error, Options, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An exclusive lock between processes, let go when dropped or when the process ends. It is the lock the hub's own client
/// takes (`flock` on Unix), so the two do not write the same blob.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, calling `waiting` while another process has it.
    pub(crate) fn take(
        path: &Path,
        cancel: &CancelToken,
        mut waiting: impl FnMut(),
    ) -> Result<Self> {
        if let Some(dir) = path.parent() {
            create_dir(dir)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path);
        let file = file.map_err(|e| Error::io("open lock file", path, e))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => {
                    cancel.check()?;
                    waiting();
                    std::thread::sleep(Duration::from_millis(50));
                }
                // Some network file systems have no locks; the hash still guards the result.
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {
                    return Ok(Self { _file: file });
                }
                Err(TryLockError::Error(e)) => return Err(Error::io("lock", path, e)),
            }
        }
    }
}

pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create folder", dir, e))
}

/// A failed write: a full disk gets its own error.
pub(crate) fn write_error(
    options: &Options,
    path: &Path,
    missing: u64,
    e: std::io::Error,
) -> Error {
    let full = matches!(
        e.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    );
    if !full {
        return Error::io("write", path, e);
    }
    let dir = path.parent().unwrap_or(path).to_owned();
    let free = (options.free_space)(&dir).unwrap_or(0);
    Error::NoSpace {
        dir,
        needed: missing,
        free,
    }
}

/// Hex sha256 of a file. `step` is told the bytes read so far.
pub(crate) fn sha256_file(
    path: &Path,
    cancel: &CancelToken,
    mut step: impl FnMut(u64),
) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        cancel.check()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => {
                hash.update(buffer.get(..n).unwrap_or_default());
                done += n as u64;
                step(done);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", path, e)),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes a small file so that a reader sees the old content or the new, never half.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = append(path, ".new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        drop(file);
        std::fs::rename(&temporary, path)
    };
    write().map_err(|e| Error::io("write", path, e))
}

/// `path` with more at the end of its name.
pub(crate) fn append(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a file; one that is not there is fine. Returns the bytes it had.
pub(crate) fn remove_file(path: &Path) -> Result<u64> {
    let size = std::fs::symlink_metadata(path).map_or(0, |m| if m.is_file() { m.len() } else { 0 });
    match std::fs::remove_file(path) {
        Ok(()) => Ok(size),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(Error::io("remove", path, e)),
    }
}

/// Removes a folder with all in it; one that is not there is fine.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("remove", path, e)),
    }
}

/// Bytes of all files under a folder; symbolic links are not followed. Files that vanish meanwhile count as nothing.
pub(crate) fn folder_bytes(dir: &Path) -> u64 {
    let mut sum = 0u64;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(m) if m.is_dir() => folders.push(entry.path()),
                Ok(m) if m.is_file() => sum = sum.saturating_add(m.len()),
                _ => {}
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_of_known_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, b"abc").unwrap();
        let mut seen = 0;
        let got = sha256_file(&file, &CancelToken::new(), |n| seen = n).unwrap();
        assert_eq!(
            got,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(seen, 3);
        let cancel = CancelToken::new();
        cancel.cancel();
        assert!(matches!(
            sha256_file(&file, &cancel, |_| ()),
            Err(Error::Cancelled)
        ));
    }

    #[test]
    fn lock_excludes_and_waiting_can_be_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.lock");
        let cancel = CancelToken::new();
        let held = Lock::take(&path, &cancel, || ()).unwrap();
        let mut waits = 0;
        let second = Lock::take(&path, &cancel, || {
            waits += 1;
            if waits == 2 {
                cancel.cancel();
            }
        });
        assert!(matches!(second, Err(Error::Cancelled)));
        drop(held);
        cancel.reset();
        Lock::take(&path, &cancel, || panic!("free")).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_has_its_own_error() {
        let options = Options::from_vars(|_| None).unwrap();
        let path = Path::new("/dev/full");
        let e = File::create(path).unwrap().write_all(b"x").unwrap_err();
        let e = write_error(&options, path, 1 << 30, e);
        assert!(
            matches!(e, Error::NoSpace { needed, .. } if needed == 1 << 30),
            "{e}"
        );
        let other = write_error(&options, path, 1, ErrorKind::PermissionDenied.into());
        assert!(matches!(other, Error::Io { .. }));
    }
}
