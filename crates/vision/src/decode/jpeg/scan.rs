//! The entropy-coded data of a baseline JPEG: read for where its rows begin, and written again from one of them on.
//!
//! What is read: Huffman coding of 8-bit samples in one scan of three components, without restart markers. Anything else,
//! and any damage met on the way, is `None`. ITU-T T.81, annexes B and F.

use super::huffman::{Bits, Passed, Table, Writer, coefficients, difference};

/// A component of the scan: its blocks in each minimal coded unit (MCU) and its tables.
struct Component {
    blocks: usize,
    dc: usize,
    ac: usize,
    passed: Passed,
}

/// What the headers say.
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    pub(super) height: usize,
    /// Pixel rows of an MCU: 8, or 16 where the colours have half the rows.
    pub(super) unit: usize,
    mcus: usize,
    components: Vec<Component>,
    dc: [Option<Box<Table>>; 4],
    ac: [Option<Box<Table>>; 4],
    /// Where the frame header's height stands.
    height_at: usize,
    /// The first byte of the entropy-coded data.
    start: usize,
}

/// A place in the data, and the value that each component's next DC coefficient is told as a difference from.
#[derive(Clone)]
pub(super) struct Place<'a> {
    bits: Bits<'a>,
    before: [i32; 3],
}

impl<'a> Scan<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut tables: [[Option<Box<Table>>; 4]; 2] = Default::default();
        let mut frame = None;
        let mut at = 2;
        loop {
            if *bytes.get(at)? != 0xff {
                return None;
            }
            let marker = *bytes.get(at + 1)?;
            if marker == 0xff {
                at += 1;
                continue;
            }
            let length = usize::from(u16_at(bytes, at + 2)?);
            let body = bytes.get(at + 4..at + 2 + length)?;
            match marker {
                0xc4 => huffman_tables(body, &mut tables)?,
                // Baseline, or extended of 8 bits: the same data.
                0xc0 | 0xc1 if frame.is_none() => frame = Some((at + 5, body)),
                // A comment, an application's segment, quantization tables; restarts never.
                0xfe | 0xe0..=0xef | 0xdb => {}
                0xdd if body == [0, 0] => {}
                0xda => {
                    let (height_at, frame) = frame?;
                    let [dc, ac] = tables;
                    return Self::begin(bytes, at + 2 + length, height_at, frame, body, dc, ac);
                }
                _ => return None,
            }
            at += 2 + length;
        }
    }

    fn begin(
        bytes: &'a [u8],
        start: usize,
        height_at: usize,
        frame: &[u8],
        scan: &[u8],
        dc: [Option<Box<Table>>; 4],
        ac: [Option<Box<Table>>; 4],
    ) -> Option<Self> {
        let &[8, h1, h0, w1, w0, 3, ref told @ ..] = frame else {
            return None;
        };
        let height = usize::from(u16::from_be_bytes([h1, h0]));
        let width = usize::from(u16::from_be_bytes([w1, w0]));
        // Identifier, sampling, quantization table; identifier, Huffman tables.
        let (&[3, ref coded @ .., 0, 63, 0], 9, 10) = (scan, told.len(), scan.len()) else {
            return None;
        };
        let mut components = Vec::new();
        let mut most = (1, 1);
        for (i, (told, coded)) in told.chunks_exact(3).zip(coded.chunks_exact(2)).enumerate() {
            let sampling = (usize::from(told[1] >> 4), usize::from(told[1] & 15));
            let allowed = if i == 0 {
                matches!(sampling, (1 | 2, 1 | 2))
            } else {
                sampling == (1, 1)
            };
            if !allowed || told[0] != coded[0] {
                return None;
            }
            if i == 0 {
                most = sampling;
            }
            let (d, a) = (usize::from(coded[1] >> 4), usize::from(coded[1] & 15));
            dc.get(d)?.as_ref()?;
            let passed = Passed::new(ac.get(a)?.as_ref()?);
            components.push(Component {
                blocks: sampling.0 * sampling.1,
                dc: d,
                ac: a,
                passed,
            });
        }
        Some(Self {
            bytes,
            height,
            unit: 8 * most.1,
            mcus: width.div_ceil(8 * most.0),
            components,
            dc,
            ac,
            height_at,
            start,
        })
    }

    /// Where the first row of MCUs begins.
    pub(super) fn start(&self) -> Place<'a> {
        Place {
            bits: Bits::new(self.bytes, self.start),
            before: [0; 3],
        }
    }

    /// Moves `place` on by `rows` rows of MCUs.
    pub(super) fn walk(&self, place: &mut Place<'a>, rows: usize) -> Option<()> {
        let mut bits = place.bits.clone();
        let mut before = place.before;
        for _ in 0..rows * self.mcus {
            for (component, before) in self.components.iter().zip(&mut before) {
                let (dc, ac) = self.tables(component)?;
                for _ in 0..component.blocks {
                    *before = before.checked_add(difference(&mut bits, dc)?)?;
                    component.passed.block(&mut bits, ac)?;
                }
            }
        }
        *place = Place { bits, before };
        Some(())
    }

    fn tables(&self, component: &Component) -> Option<(&Table, &Table)> {
        Some((
            self.dc[component.dc].as_deref()?,
            self.ac[component.ac].as_deref()?,
        ))
    }

    /// The whole file, saying that it is `height` pixels high.
    pub(super) fn of_height(&self, height: usize) -> Option<Vec<u8>> {
        let mut out = self.bytes.to_vec();
        self.tell(&mut out, height)?;
        Some(out)
    }

    fn tell(&self, file: &mut [u8], height: usize) -> Option<()> {
        let height = u16::try_from(height).ok()?;
        file.get_mut(self.height_at..self.height_at + 2)?
            .copy_from_slice(&height.to_be_bytes());
        Some(())
    }

    /// A file of the rows from `from` on: `height` pixels, of data up to `to`, or to the picture's end.
    pub(super) fn cut(
        &self,
        mut from: Place<'a>,
        to: Option<&Place<'a>>,
        height: usize,
    ) -> Option<Vec<u8>> {
        // `to` itself and what is held at most beyond it.
        let end = to.map_or(self.bytes.len(), |p| p.bits.at + 16);
        let mut out = Vec::with_capacity(self.start + end.saturating_sub(from.bits.at) + 64);
        out.extend_from_slice(&self.bytes[..self.start]);
        self.tell(&mut out, height)?;
        let mut out = Writer::new(out);
        // The decoder begins with differences from 0.
        for (component, before) in self.components.iter().zip(from.before) {
            let (dc, ac) = self.tables(component)?;
            for block in 0..component.blocks {
                let value = difference(&mut from.bits, dc)?;
                let told = value.checked_add(if block == 0 { before } else { 0 })?;
                out.difference(dc, told)?;
                coefficients(&mut from.bits, ac, 1, |value, n| out.push(value, n))?;
            }
        }
        let mut bits = from.bits;
        loop {
            bits.fill();
            if bits.count < 32 || bits.at > end {
                break;
            }
            out.push(bits.peek(32), 32);
            bits.skip(32)?;
        }
        let rest = bits.count.min(31);
        out.push(bits.peek(rest), rest);
        if to.is_none() && self.bytes.get(bits.at..bits.at + 2) != Some(&[0xff, 0xd9]) {
            return None;
        }
        Some(out.finish())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn huffman_tables(mut body: &[u8], tables: &mut [[Option<Box<Table>>; 4]; 2]) -> Option<()> {
    while let [which, rest @ ..] = body {
        let (counts, rest) = rest.split_at_checked(16)?;
        let n = counts.iter().map(|&c| usize::from(c)).sum();
        let (symbols, rest) = rest.split_at_checked(n)?;
        let class = tables.get_mut(usize::from(which >> 4))?;
        *class.get_mut(usize::from(which & 15))? = Some(Box::new(Table::new(counts, symbols)?));
        body = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_that_never_end_are_refused() {
        let mut file = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut file, 90);
        encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::R_4_4_4);
        let grey = [128; 8 * 8 * 3];
        encoder
            .encode(&grey, 8, 8, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        let scan = Scan::new(&file).unwrap();
        let mut header = file[..scan.start].to_vec();
        header[scan.height_at..scan.height_at + 4].fill(0xff);
        let mcus = usize::from(u16::MAX).div_ceil(8);
        let rows = i32::MAX as usize / 2047 / mcus + 2;
        // The largest difference again and again, its blocks and those of the colours ending at once.
        let mut data = Writer::new(header);
        for _ in 0..rows * mcus {
            for (i, component) in scan.components.iter().enumerate() {
                let (dc, ac) = scan.tables(component).unwrap();
                for _ in 0..component.blocks {
                    data.difference(dc, if i == 0 { 2047 } else { 0 }).unwrap();
                    data.symbol(ac, 0).unwrap();
                }
            }
        }
        let file = data.finish();
        let scan = Scan::new(&file).unwrap();
        assert_eq!(scan.mcus, mcus);
        let mut place = scan.start();
        assert!(scan.walk(&mut place, rows / 2).is_some());
        assert!(scan.walk(&mut place, rows - rows / 2).is_none());
    }
}
