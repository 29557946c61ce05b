//! Takes one named member out of a wheel (zip) or an npm archive (tar in gzip).
//!
//! No name inside the archive ever becomes a path: the caller gives the output. Sizes are bounded by what the catalogue says
//! before and while unpacking, whatever the archive's own headers claim.
use super::tgz;
use crate::source::{CancelToken, Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

pub(super) struct Request<'a> {
    pub(super) archive: &'a Path,
    /// Path in the archive, compared byte by byte.
    pub(super) member: &'a str,
    /// Bytes the member must have.
    pub(super) size: u64,
}

/// Writes the member to `out`. `step` is told the bytes so far, `failed` names an error of writing.
pub(super) fn member(
    request: &Request<'_>,
    out: &mut impl Write,
    cancel: &CancelToken,
    step: impl FnMut(u64),
    failed: impl Fn(std::io::Error, u64) -> Error,
) -> Result<()> {
    let file = File::open(request.archive).map_err(|e| Error::io("open", request.archive, e))?;
    let reader = BufReader::with_capacity(64 << 10, file);
    let what = format!("{} in {}", request.member, request.archive.display());
    if request.archive.extension().is_some_and(|e| e == "tgz") {
        let mut archive = tgz::Reader::new(reader, cancel.clone());
        return match archive
            .find(request.member)
            .map_err(|e| Error::malformed(&what, e))?
        {
            Some(size) => {
                check_size(&what, request.size, size)?;
                copy(
                    archive.content(),
                    &what,
                    request.size,
                    out,
                    cancel,
                    step,
                    failed,
                )
            }
            None => Err(Error::malformed(what, "the package has no such member")),
        };
    }
    let bad = |e: zip::result::ZipError| Error::malformed(&what, e.to_string());
    let mut archive = zip::ZipArchive::new(reader).map_err(bad)?;
    let member = archive.by_name(request.member).map_err(bad)?;
    if !member.is_file() || member.is_symlink() {
        return Err(Error::malformed(what, "the member is not a plain file"));
    }
    check_size(&what, request.size, member.size())?;
    copy(member, &what, request.size, out, cancel, step, failed)
}

fn check_size(what: &str, expected: u64, got: u64) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    let origin = "the archive's header".to_owned();
    Err(Error::WrongSize {
        file: what.to_owned(),
        expected,
        got,
        origin,
    })
}

fn copy(
    mut from: impl Read,
    what: &str,
    size: u64,
    out: &mut impl Write,
    cancel: &CancelToken,
    mut step: impl FnMut(u64),
    failed: impl Fn(std::io::Error, u64) -> Error,
) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0u64;
    loop {
        cancel.check()?;
        // One byte more than promised is enough to know that the header lied.
        let room = usize::try_from(size - done + 1)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let got = match from.read(buffer.get_mut(..room).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::malformed(what, format!("after {done} bytes: {e}"))),
        };
        if done + got as u64 > size {
            let what = format!("unpacked size of {what}");
            return Err(Error::Limit {
                what,
                max: size,
                got: done + got as u64,
            });
        }
        out.write_all(buffer.get(..got).unwrap_or_default())
            .map_err(|e| failed(e, done))?;
        done += got as u64;
        step(done);
    }
    if done < size {
        let origin = "the archive".to_owned();
        return Err(Error::WrongSize {
            file: what.to_owned(),
            expected: size,
            got: done,
            origin,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_does_not_end_is_cut_off_at_the_pinned_size() {
        let run = |from: &mut dyn Read, size| {
            let (mut out, cancel) = (Vec::new(), CancelToken::new());
            let failed = |_, _| Error::Cancelled;
            let result = copy(from, "m", size, &mut out, &cancel, |_| (), failed);
            (result, out.len())
        };
        let (result, written) = run(&mut std::io::repeat(0), 600_000);
        assert!(
            matches!(result, Err(Error::Limit { max: 600_000, .. })),
            "{result:?}"
        );
        assert!(written <= 600_000);
        assert!(
            run(&mut std::io::repeat(0).take(600_000), 600_000)
                .0
                .is_ok()
        );
        let (result, _) = run(&mut std::io::repeat(0).take(599_999), 600_000);
        assert!(
            matches!(result, Err(Error::WrongSize { got: 599_999, .. })),
            "{result:?}"
        );
    }
}
