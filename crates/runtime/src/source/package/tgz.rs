//! A forward-only reader of `.tgz` archives: just enough of POSIX tar (ustar, GNU long names, pax paths) to find one file.
//! Nothing is kept in memory but a header and a name; what is skipped is bounded.
use crate::source::CancelToken;
use flate2::bufread::MultiGzDecoder;
use std::io::{BufRead, Read};

const BLOCK: usize = 512;
const MAX_NAME_BYTES: u64 = 64 << 10;
/// Bytes unpacked while looking for a member, at most.
const MAX_TOTAL_BYTES: u64 = 32 << 30;

pub(super) struct Reader<R: BufRead> {
    from: MultiGzDecoder<R>,
    left: u64,
    budget: u64,
    cancel: CancelToken,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(from: R, cancel: CancelToken) -> Self {
        Self {
            from: MultiGzDecoder::new(from),
            left: 0,
            budget: MAX_TOTAL_BYTES,
            cancel,
        }
    }

    /// Goes to the plain file of this name and says how long it is; `None` when the archive has none.
    pub(super) fn find(&mut self, wanted: &str) -> Result<Option<u64>, String> {
        let mut long_name = None;
        let mut long_size = None;
        while let Some(header) = self.header()? {
            let size = long_size
                .take()
                .map_or_else(|| number(field(&header, 124, 12)), Ok)?;
            let kind = header.get(156).copied().unwrap_or(0);
            match kind {
                b'L' => long_name = Some(trim(&self.small(size)?).to_vec()),
                b'x' => {
                    let records = self.small(size)?;
                    long_name = pax(&records, b"path").map(<[u8]>::to_vec).or(long_name);
                    long_size = match pax(&records, b"size") {
                        Some(text) => Some(decimal(text)?),
                        None => None,
                    };
                }
                _ => {
                    let name = long_name.take().unwrap_or_else(|| short_name(&header));
                    if name == wanted.as_bytes() && matches!(kind, 0 | b'0') {
                        self.left = size;
                        return Ok(Some(size));
                    }
                    // Links and folders have no content, whatever their size field says.
                    let has_content = !matches!(kind, b'1'..=b'6');
                    self.skip(if has_content { padded(size)? } else { 0 })?;
                }
            }
        }
        Ok(None)
    }

    /// The content of what was found.
    pub(super) fn content(&mut self) -> impl Read + '_ {
        (&mut self.from).take(self.left)
    }

    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, String> {
        let mut block = [0; BLOCK];
        self.spend(BLOCK as u64)?;
        self.from
            .read_exact(&mut block)
            .map_err(|e| format!("header: {e}"))?;
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let stored = number(field(&block, 148, 8))?;
        let sum = block.iter().enumerate().map(|(i, b)| match i {
            148..156 => u64::from(b' '),
            _ => u64::from(*b),
        });
        if sum.sum::<u64>() != stored {
            return Err("header checksum does not match".into());
        }
        Ok(Some(block))
    }

    fn small(&mut self, size: u64) -> Result<Vec<u8>, String> {
        if size > MAX_NAME_BYTES {
            return Err(format!(
                "a name record has {size} bytes, at most {MAX_NAME_BYTES}"
            ));
        }
        let whole = padded(size)?;
        self.spend(whole)?;
        let mut data = vec![0; whole as usize];
        self.from
            .read_exact(&mut data)
            .map_err(|e| format!("name record: {e}"))?;
        data.truncate(size as usize);
        Ok(data)
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), String> {
        let mut buffer = [0; 16 << 10];
        while bytes > 0 {
            self.cancel.check().map_err(|e| e.to_string())?;
            let room = usize::try_from(bytes)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.spend(room as u64)?;
            let slice = buffer.get_mut(..room).unwrap_or_default();
            self.from
                .read_exact(slice)
                .map_err(|e| format!("content: {e}"))?;
            bytes -= room as u64;
        }
        Ok(())
    }

    fn spend(&mut self, bytes: u64) -> Result<(), String> {
        let limit = || format!("more than {MAX_TOTAL_BYTES} bytes before the member");
        self.budget = self.budget.checked_sub(bytes).ok_or_else(limit)?;
        Ok(())
    }
}

fn padded(size: u64) -> Result<u64, String> {
    size.checked_next_multiple_of(BLOCK as u64)
        .ok_or_else(|| format!("size {size}"))
}

fn field(header: &[u8; BLOCK], at: usize, len: usize) -> &[u8] {
    header.get(at..at + len).unwrap_or_default()
}

/// Up to the first zero byte.
fn trim(text: &[u8]) -> &[u8] {
    text.split(|b| *b == 0).next().unwrap_or_default()
}

fn short_name(header: &[u8; BLOCK]) -> Vec<u8> {
    let prefix = trim(field(header, 345, 155));
    let name = trim(field(header, 0, 100));
    if field(header, 257, 5) == b"ustar" && field(header, 257, 6) != b"ustar " && !prefix.is_empty()
    {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

/// An octal number, or GNU's big-endian form for large ones.
fn number(field: &[u8]) -> Result<u64, String> {
    if let [0x80, rest @ ..] = field {
        let big = rest
            .iter()
            .try_fold(0u64, |n, b| n.checked_mul(256)?.checked_add((*b).into()));
        return big.ok_or_else(|| "a number in a header is too large".into());
    }
    let text = String::from_utf8_lossy(trim(field)).trim().to_owned();
    u64::from_str_radix(&text, 8).map_err(|_| format!("{text:?} is not an octal number"))
}

fn decimal(text: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(text);
    text.parse()
        .map_err(|_| format!("{text:?} is not a number"))
}

/// A value of pax records: `LENGTH KEY=VALUE\n` each.
fn pax<'a>(mut records: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut found = None;
    loop {
        let space = match records.iter().position(|b| *b == b' ') {
            Some(space) => space,
            None => return found,
        };
        let Ok(length) = decimal(records.get(..space)?) else {
            return found;
        };
        let Ok(length) = usize::try_from(length) else {
            return found;
        };
        let Some(record) = records.get(space + 1..length.saturating_sub(1)) else {
            return found;
        };
        let at = record.iter().position(|b| *b == b'=');
        if let Some((k, v)) = at.and_then(|at| Some((record.get(..at)?, record.get(at + 1..)?)))
            && k == key
        {
            found = Some(v);
        }
        records = records.get(length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn entry(name: &[u8], kind: u8, size_field: &str, content: &[u8]) -> Vec<u8> {
        let mut h = [0u8; BLOCK];
        h[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        h[124..124 + size_field.len()].copy_from_slice(size_field.as_bytes());
        h[156] = kind;
        h[257..263].copy_from_slice(b"ustar\0");
        h[148..156].fill(b' ');
        let sum = h.iter().map(|b| u32::from(*b)).sum::<u32>();
        h[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut out = h.to_vec();
        out.extend(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    fn file(name: &str, content: &[u8]) -> Vec<u8> {
        entry(
            name.as_bytes(),
            b'0',
            &format!("{:011o}", content.len()),
            content,
        )
    }

    fn read(tar: &[u8], wanted: &str) -> Result<Option<Vec<u8>>, String> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(tar).unwrap();
        let gz = gz.finish().unwrap();
        let mut reader = Reader::new(gz.as_slice(), CancelToken::new());
        let Some(size) = reader.find(wanted)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        reader.content().read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, size);
        Ok(Some(content))
    }

    #[test]
    fn finds_by_plain_long_and_pax_names() {
        let long = format!("package/{}", "d/".repeat(80) + "f");
        let pax_record = |v: &str| {
            let body = format!(" path={v}\n");
            let length = (1..)
                .find(|n: &usize| n.to_string().len() + body.len() == *n)
                .unwrap();
            format!("{length}{body}").into_bytes()
        };
        let record = pax_record("package/pax");
        let size = format!("{:011o}", record.len());
        let gnu = [long.as_bytes(), b"\0"].concat();
        let gnu_size = format!("{:011o}", gnu.len());
        let tar = [
            file("package/a", &[1; 700]),
            entry(b"package/dir", b'5', "00000000000", b""),
            entry(b"x", b'L', &gnu_size, &gnu),
            file("short", b"long"),
            entry(b"x", b'x', &size, &record),
            file("short", b"pax"),
            file("package/last", b"!"),
            vec![0; 1024],
        ]
        .concat();
        assert_eq!(read(&tar, "package/a").unwrap().unwrap(), [1; 700]);
        assert_eq!(read(&tar, &long).unwrap().unwrap(), b"long");
        assert_eq!(read(&tar, "package/pax").unwrap().unwrap(), b"pax");
        assert_eq!(read(&tar, "package/last").unwrap().unwrap(), b"!");
        assert_eq!(read(&tar, "short").unwrap(), None);
        assert_eq!(read(&tar, "../evil").unwrap(), None);
    }

    #[test]
    fn hostile_archives_are_errors() {
        let end = vec![0; 1024];
        let huge = "77777777777";
        assert!(read(&[entry(b"a", b'L', huge, b""), end.clone()].concat(), "b").is_err());
        assert!(read(&[entry(b"a", b'0', huge, b""), end.clone()].concat(), "b").is_err());
        assert!(read(&[entry(b"a", b'0', "zz", b""), end.clone()].concat(), "b").is_err());
        assert!(read(&file("a", b"x")[..700], "b").is_err());
        let mut flipped = file("a", b"x");
        flipped[3] ^= 1;
        assert!(
            read(&[flipped, end.clone()].concat(), "a")
                .unwrap_err()
                .contains("checksum")
        );
        // A symbolic link of the wanted name is not a file.
        let link = entry(b"a", b'2', "00000000000", b"");
        assert_eq!(read(&[link, end].concat(), "a").unwrap(), None);
        assert!(read(b"", "a").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            flips in prop::collection::vec((0usize..2560, any::<u8>()), 0..12),
            cut in 0usize..2560,
            fix_sums: bool,
        ) {
            let long = entry(b"x", b'L', "00000000004", b"long");
            let mut tar = [long, file("f", &[7; 600]), vec![0; 1024]].concat();
            for (at, value) in flips {
                if let Some(b) = tar.get_mut(at) {
                    *b = value;
                }
            }
            tar.truncate(tar.len().saturating_sub(cut % 700));
            if fix_sums {
                for at in [0, 1024] {
                    let sum = tar.get(at..at + 512).map(|h| {
                        let all = h.iter().map(|b| u32::from(*b)).sum::<u32>();
                        all + 8 * 32 - h[148..156].iter().map(|b| u32::from(*b)).sum::<u32>()
                    });
                    if let Some(sum) = sum {
                        tar[at + 148..at + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
                    }
                }
            }
            let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
            gz.write_all(&tar).unwrap();
            let gz = gz.finish().unwrap();
            let mut reader = Reader::new(gz.as_slice(), CancelToken::new());
            if let Ok(Some(size)) = reader.find("long") {
                let mut content = Vec::new();
                let _ = reader.content().read_to_end(&mut content);
                prop_assert!(content.len() as u64 <= size);
            }
        }
    }
}
