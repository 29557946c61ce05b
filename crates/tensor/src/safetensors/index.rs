//! `model.safetensors.index.json`: which shard holds which tensor.

use super::FORMAT;
use super::header::json_offset;
use crate::header::{MAX_TENSORS, TensorSet};
use crate::{Error, Result};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The longest index read, in bytes.
const MAX_INDEX: u64 = 100_000_000;

/// A parsed index.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[non_exhaustive]
pub struct ShardIndex {
    /// Tensor name to file name; the files are plain names beside the index.
    #[serde(deserialize_with = "unique")]
    pub weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// The shards, each once, in name order.
    pub fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// The error for the first tensor that the index promises and no shard has.
    pub(super) fn missing(&self, set: &TensorSet) -> Error {
        let other: BTreeSet<_> = set.unsupported().iter().map(|t| t.name.as_str()).collect();
        let gap = self
            .weight_map
            .iter()
            .find(|(n, _)| set.info(n).is_none() && !other.contains(n.as_str()));
        let (name, file) = gap.map_or(("", ""), |(n, f)| (n, f));
        Error::malformed(
            FORMAT,
            0,
            format!("the index puts tensor `{name}` in {file}, which lacks it"),
        )
    }
}

/// Parses an index and checks that it names only plain files beside it.
///
/// # Errors
/// `Malformed` if it is not such JSON or a file name leads elsewhere, `Limit` if it is too long.
pub fn parse_index(json: &[u8]) -> Result<ShardIndex> {
    if json.len() as u64 > MAX_INDEX {
        return Err(Error::Limit {
            what: "bytes of a safetensors index",
            max: MAX_INDEX,
            got: json.len() as u64,
        });
    }
    let index: ShardIndex = serde_json::from_slice(json).map_err(|e| {
        Error::malformed(FORMAT, json_offset(json, &e) as u64, format!("index: {e}"))
    })?;
    if index.weight_map.len() as u64 > MAX_TENSORS {
        return Err(Error::Limit {
            what: "safetensors tensors",
            max: MAX_TENSORS,
            got: index.weight_map.len() as u64,
        });
    }
    for file in index.files() {
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':', '\0']) {
            return Err(Error::malformed(
                FORMAT,
                0,
                format!("the index names {file:?}: expected a plain file name beside it"),
            ));
        }
    }
    Ok(index)
}

/// A map whose keys may not repeat: serde's own would keep the last.
fn unique<'de, D: Deserializer<'de>>(de: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Unique;
    impl<'de> Visitor<'de> for Unique {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of file names")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((name, file)) = entries.next_entry::<String, String>()? {
                if map.contains_key(&name) {
                    return Err(A::Error::custom(format!("tensor `{name}` is listed twice")));
                }
                map.insert(name, file);
            }
            Ok(map)
        }
    }
    de.deserialize_map(Unique)
}

/// Reads and parses a whole index file.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn read_index(source: &dyn crate::ByteSource) -> Result<ShardIndex> {
    let len = source.len();
    if len > MAX_INDEX {
        return Err(Error::Limit {
            what: "bytes of a safetensors index",
            max: MAX_INDEX,
            got: len,
        });
    }
    let mut json = vec![0; crate::header::to_usize(len)?];
    source.read_at(0, &mut json)?;
    parse_index(&json)
}
