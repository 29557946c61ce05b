//! What a WAV header says about its length, and what is there.
//!
//! Recorders that write to a pipe leave the lengths at 2³²−1 (or 0, if they were interrupted); files are cut in transfer.
//! The demuxer would drop the last packet of all these, so the lengths are set right before it sees them.

use crate::{Error, Result};

const FORMAT: &str = "WAV";

/// Corrections to the header of a WAV file (none for another format): offsets and the bytes that belong there.
///
/// # Errors
/// `Malformed` if the samples end before the header says and `keep_truncated` is not set.
pub(super) fn patches(bytes: &[u8], keep_truncated: bool) -> Result<Vec<(u64, [u8; 4])>> {
    let long = |at: usize| {
        let b = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(u32::from_le_bytes(b))
    };
    if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
        return Ok(Vec::new());
    }
    let riff = long(4).unwrap_or(0);
    let mut at = 12usize;
    while let Some(declared) = long(at.saturating_add(4)) {
        let start = at + 8;
        if &bytes[at..at + 4] != b"data" {
            at = start
                .saturating_add(declared as usize)
                .saturating_add(declared as usize & 1);
            continue;
        }
        let there = bytes.len() - start;
        let open = declared == u32::MAX || declared == 0 && matches!(riff, 0 | u32::MAX);
        if !open && there >= declared as usize {
            return Ok(Vec::new());
        }
        if !open && !keep_truncated {
            return Err(Error::malformed(
                FORMAT,
                bytes.len() as u64,
                format!(
                    "{declared} bytes of samples promised, {there} found (truncated?); \
                     set keep_truncated to take what is there"
                ),
            ));
        }
        let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        return Ok(vec![
            (4, length(bytes.len() - 8)),
            (at as u64 + 4, length(there)),
        ]);
    }
    Ok(Vec::new())
}
