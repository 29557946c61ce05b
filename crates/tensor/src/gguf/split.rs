//! Split sets: `NAME-00001-of-00003.gguf`, numbered from 1 in names and from 0 in `split.no`.

use super::metadata::Metadata;
use crate::{Error, Result};

/// The parts of a split file's name: prefix, number (from 1), count. `None` for any other name.
pub fn split_name(file: &str) -> Option<(&str, u32, u32)> {
    let stem = file.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, no) = rest.rsplit_once('-')?;
    let number = |s: &str| {
        (s.len() == 5).then(|| {
            s.bytes()
                .all(|b| b.is_ascii_digit())
                .then_some(s)?
                .parse()
                .ok()
        })?
    };
    let (no, count) = (number(no)?, number(count)?);
    (1..=count).contains(&no).then_some((prefix, no, count))
}

/// The name of part `no` (from 1) of `count`.
pub fn part_name(prefix: &str, no: u32, count: u32) -> String {
    format!("{prefix}-{no:05}-of-{count:05}.gguf")
}

/// Checks that the part opened as number `no` (from 0) of `count` says the same of itself.
pub(super) fn check_part(metadata: &Metadata, no: usize, count: usize, name: &str) -> Result<()> {
    let says_count = metadata.get_usize("split.count")?.unwrap_or(1).max(1);
    let says_no = metadata.get_usize("split.no")?.unwrap_or(0);
    if says_count != count {
        return Err(Error::invalid(format!(
            "{name} belongs to a split set of {says_count}, {count} given: open it by path with all parts beside it, or \
             give all of them in order"
        )));
    }
    if says_no != no {
        return Err(Error::invalid(format!(
            "{name} is part {} of its split set, given as part {}",
            says_no + 1,
            no + 1
        )));
    }
    Ok(())
}

/// Checks the number of tensors that the first part promises for all.
pub(super) fn check_total(metadata: &Metadata, found: usize) -> Result<()> {
    match metadata.get_usize("split.tensors.count")? {
        Some(promised) if promised != found => Err(Error::invalid(format!(
            "the split set promises {promised} tensors and has {found}: is a part from another set?"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        assert_eq!(split_name("a-b-00002-of-00010.gguf"), Some(("a-b", 2, 10)));
        assert_eq!(part_name("a-b", 2, 10), "a-b-00002-of-00010.gguf");
        for other in [
            "a.gguf",
            "a-2-of-10.gguf",
            "a-00011-of-00010.gguf",
            "a-00000-of-00010.gguf",
            "a-+0001-of-00010.gguf",
            "a-00001-of-00010.bin",
        ] {
            assert_eq!(split_name(other), None, "{other}");
        }
    }
}
