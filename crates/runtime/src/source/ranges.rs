//! Which bytes of a file are on disk: sorted, disjoint, half-open ranges, and their small file beside the download.
use super::Result;
use super::disk::write_atomic;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Sorted, disjoint, non-touching ranges `start..end`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(a, b)| b - a).sum()
    }

    /// Adds `start..end`, joining what touches.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|r| r.1 < start);
        let after = self.0.partition_point(|r| r.0 <= end);
        let joined = self.0.get(first..after).unwrap_or_default();
        let start = joined.first().map_or(start, |r| r.0.min(start));
        let end = joined.last().map_or(end, |r| r.1.max(end));
        self.0.splice(first..after.max(first), [(start, end)]);
    }

    /// What is missing of `0..size`, in pieces of at most `piece` bytes.
    pub(crate) fn missing(&self, size: u64, piece: u64) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let mut at = 0;
        for (start, end) in self.0.iter().copied().chain([(size, size)]) {
            let stop = start.min(size);
            while at < stop {
                let next = at.saturating_add(piece.max(1)).min(stop);
                out.push((at, next));
                at = next;
            }
            at = at.max(end);
        }
        out
    }

    fn clip(&mut self, size: u64) {
        for r in &mut self.0 {
            *r = (r.0.min(size), r.1.min(size));
        }
        self.0.retain(|r| r.0 < r.1);
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    identity: String,
    size: u64,
    done: Vec<(u64, u64)>,
}

/// Reads the ranges of an earlier run. Nothing counts unless it is of the same content (`identity`, `size`) and the data file
/// really is that long; a file that cannot be understood counts as nothing.
pub(crate) fn load(state: &Path, data: &Path, identity: &str, size: u64) -> Ranges {
    let mut ranges = Ranges::default();
    let saved = std::fs::read(state)
        .ok()
        .and_then(|b| serde_json::from_slice::<Saved>(&b).ok());
    if let Some(saved) = saved
        && (saved.version, saved.identity.as_str(), saved.size) == (1, identity, size)
    {
        for (start, end) in saved.done {
            ranges.insert(start, end);
        }
        ranges.clip(std::fs::metadata(data).map_or(0, |m| m.len()).min(size));
    }
    ranges
}

pub(crate) fn save(state: &Path, identity: &str, size: u64, ranges: &Ranges) -> Result<()> {
    let saved = Saved {
        version: 1,
        identity: identity.to_owned(),
        size,
        done: ranges.0.clone(),
    };
    write_atomic(state, &serde_json::to_vec(&saved).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_bytes(
            inserts in prop::collection::vec((0u64..60, 0u64..60), 0..30),
            size in 0u64..64,
            piece in 1u64..9,
        ) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 64];
            for (a, b) in inserts {
                ranges.insert(a, b);
                (a..b).for_each(|i| bytes[i as usize] = true);
            }
            prop_assert_eq!(ranges.total(), bytes.iter().filter(|b| **b).count() as u64);
            prop_assert!(ranges.0.windows(2).all(|w| w[0].1 < w[1].0));
            let mut got = [false; 64];
            for (a, b) in ranges.missing(size, piece) {
                prop_assert!(a < b && b - a <= piece);
                (a..b).for_each(|i| { assert!(!got[i as usize]); got[i as usize] = true; });
            }
            for i in 0..64 {
                prop_assert_eq!(got[i], (i as u64) < size && !bytes[i], "{}", i);
            }
        }
    }

    #[test]
    fn state_counts_only_for_the_same_content_and_what_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (state, data) = (dir.path().join("s"), dir.path().join("d"));
        std::fs::write(&data, [0; 50]).unwrap();
        let mut ranges = Ranges::default();
        ranges.insert(0, 40);
        ranges.insert(45, 80);
        save(&state, "id", 100, &ranges).unwrap();
        assert_eq!(load(&state, &data, "id", 100).0, [(0, 40), (45, 50)]);
        assert_eq!(load(&state, &data, "other", 100), Ranges::default());
        assert_eq!(load(&state, &data, "id", 101), Ranges::default());
        for broken in [
            &b"{"[..],
            b"",
            br#"{"version":1,"identity":"id","size":100,"done":[[9,3]]}"#,
        ] {
            std::fs::write(&state, broken).unwrap();
            assert_eq!(load(&state, &data, "id", 100), Ranges::default());
        }
    }
}
