//! Huffman codes of a JPEG's coefficients, and the bits that hold them. ITU-T T.81, annex F.

/// Codes of up to this many bits are looked up at once.
const FAST: u32 = 10;

/// A Huffman table.
pub(super) struct Table {
    /// By the next `FAST` bits: the code's length (0: longer than those) and its symbol.
    fast: [(u8, u8); 1 << FAST],
    /// By length: one beyond the last code, moved to the top of 16 bits, and what to add to a code for its symbol's place.
    end: [u32; 17],
    offset: [i32; 17],
    symbols: Vec<u8>,
    /// By symbol: the code and its length (0: the symbol has none).
    codes: [(u16, u8); 256],
}

impl Table {
    pub(super) fn new(counts: &[u8], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            fast: [(0, 0); 1 << FAST],
            end: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
            codes: [(0, 0); 256],
        };
        let (mut code, mut k) = (0u32, 0usize);
        for (length, &count) in (1..=16u32).zip(counts) {
            table.offset[length as usize] = k as i32 - code as i32;
            for _ in 0..count {
                if code >> length != 0 {
                    return None;
                }
                let symbol = symbols[k];
                table.codes[usize::from(symbol)] = (code as u16, length as u8);
                if length <= FAST {
                    let first = (code << (FAST - length)) as usize;
                    table.fast[first..first + (1 << (FAST - length))].fill((length as u8, symbol));
                }
                code += 1;
                k += 1;
            }
            table.end[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// The next code's length and symbol.
    #[inline(always)]
    fn next(&self, bits: &Bits<'_>) -> Option<(u32, u8)> {
        let (length, symbol) = self.fast[bits.peek(FAST) as usize];
        if length != 0 {
            return Some((u32::from(length), symbol));
        }
        let next = bits.peek(16);
        let length = (FAST + 1..=16).find(|&l| next < self.end[l as usize])?;
        let place = (next >> (16 - length)) as i32 + self.offset[length as usize];
        Some((length, *self.symbols.get(usize::try_from(place).ok()?)?))
    }
}

/// A DC coefficient, as it is told: its difference from the one before.
#[inline(always)]
pub(super) fn difference(bits: &mut Bits<'_>, table: &Table) -> Option<i32> {
    bits.fill();
    let (length, size) = table.next(bits)?;
    let size = u32::from(size);
    if size > 11 {
        return None;
    }
    bits.skip(length)?;
    if size == 0 {
        return Some(0);
    }
    let value = bits.peek(size) as i32;
    bits.skip(size)?;
    // Values below half of the range stand for negative ones.
    Some(if value >> (size - 1) == 0 {
        value - (1 << size) + 1
    } else {
        value
    })
}

/// A block's AC coefficients from the `k`th on; each code with its value's bits goes to `copy`.
#[inline(always)]
pub(super) fn coefficients(
    bits: &mut Bits<'_>,
    table: &Table,
    mut k: u32,
    mut copy: impl FnMut(u32, u32),
) -> Option<()> {
    while k < 64 {
        bits.fill();
        let (length, symbol) = table.next(bits)?;
        let (run, size) = (symbol >> 4, u32::from(symbol & 15));
        copy(bits.peek(length + size), length + size);
        bits.skip(length + size)?;
        k += match (run, size) {
            (15, 0) => 16,
            (0, 0) => return Some(()),
            (_, 0) => return None,
            (run, _) => u32::from(run) + 1,
        };
    }
    (k == 64).then_some(())
}

/// AC coefficients that are only passed over, several at a time.
pub(super) struct Passed {
    /// By the next `SEVERAL` bits, of the whole coefficients in them: their bits (4; 0 where not even one is whole), whether
    /// the block's end follows and is counted in (1), by how many places of the block they move on (the rest).
    by_bits: Vec<u16>,
}

const SEVERAL: u32 = 12;

impl Passed {
    pub(super) fn new(table: &Table) -> Self {
        let by_bits = (0..1u32 << SEVERAL)
            .map(|next| {
                let (mut left, mut ends, mut places) = (SEVERAL, 0, 0);
                while left > 0 && ends == 0 {
                    let bits = Bits::of(u64::from(next) << (64 - left), left);
                    let Some((length, symbol)) = table.next(&bits) else {
                        break;
                    };
                    let (zeros, size) = (symbol >> 4, u32::from(symbol & 15));
                    if length + size > left || (size == 0 && !matches!(zeros, 0 | 15)) {
                        break;
                    }
                    left -= length + size;
                    if symbol == 0 {
                        ends = 1;
                    } else {
                        places += u16::from(zeros) + 1;
                    }
                }
                (SEVERAL - left) as u16 | ends << 4 | places << 5
            })
            .collect();
        Self { by_bits }
    }

    /// Passes over a block's AC coefficients.
    #[inline(always)]
    pub(super) fn block(&self, bits: &mut Bits<'_>, table: &Table) -> Option<()> {
        let mut k = 1;
        loop {
            bits.fill();
            let run = u32::from(self.by_bits[bits.peek(SEVERAL) as usize]);
            let (n, ends, after) = (run & 15, run & 16 != 0, k + (run >> 5));
            // Beyond the last place what follows is another block's.
            if n == 0 || after > 64 || (after == 64 && ends) {
                return coefficients(bits, table, k, |_, _| {});
            }
            bits.skip(n)?;
            if ends || after == 64 {
                return Some(());
            }
            k = after;
        }
    }
}

/// Bits of entropy-coded data up to the first marker.
#[derive(Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte to take.
    pub(super) at: usize,
    /// The next `count` bits, from the top; zeros below.
    held: u64,
    pub(super) count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            held: 0,
            count: 0,
        }
    }

    /// The `count` bits at the top of `held`.
    fn of(held: u64, count: u32) -> Self {
        Self {
            bytes: &[],
            at: 0,
            held,
            count,
        }
    }

    /// Holds more than 32 bits, unless a marker or the end comes first.
    #[inline(always)]
    pub(super) fn fill(&mut self) {
        if self.count > 32 {
            return;
        }
        if let Some(&[a, b, c, d]) = self.bytes.get(self.at..self.at + 4) {
            let word = u32::from_be_bytes([a, b, c, d]);
            if !holds_ff(word) {
                self.held |= u64::from(word) << (32 - self.count);
                self.count += 32;
                self.at += 4;
                return;
            }
        }
        self.fill_by_bytes();
    }

    #[cold]
    fn fill_by_bytes(&mut self) {
        while self.count <= 56 {
            let Some(&byte) = self.bytes.get(self.at) else {
                return;
            };
            if byte == 0xff {
                // A byte of ones is followed by a zero; another value makes it a marker.
                if self.bytes.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.at += 1;
            self.held |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next `n` bits, 0 to 32; zeros beyond the end.
    #[inline(always)]
    pub(super) fn peek(&self, n: u32) -> u32 {
        ((self.held >> 32) >> (32 - n)) as u32
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, n: u32) -> Option<()> {
        self.count = self.count.checked_sub(n)?;
        self.held <<= n;
        Some(())
    }
}

fn holds_ff(word: u32) -> bool {
    let inverted = !word;
    inverted.wrapping_sub(0x0101_0101) & !inverted & 0x8080_8080 != 0
}

/// Entropy-coded data as it is written.
pub(super) struct Writer {
    out: Vec<u8>,
    held: u64,
    count: u32,
}

impl Writer {
    pub(super) fn new(out: Vec<u8>) -> Self {
        Self {
            out,
            held: 0,
            count: 0,
        }
    }

    /// The lowest `n` bits of `value`, 0 to 32.
    pub(super) fn push(&mut self, value: u32, n: u32) {
        self.held = (self.held << n) | u64::from(value);
        self.count += n;
        if self.count >= 32 {
            self.count -= 32;
            let word = (self.held >> self.count) as u32;
            if holds_ff(word) {
                word.to_be_bytes().into_iter().for_each(|b| self.byte(b));
            } else {
                self.out.extend_from_slice(&word.to_be_bytes());
            }
        }
    }

    fn byte(&mut self, byte: u8) {
        self.out.push(byte);
        if byte == 0xff {
            self.out.push(0);
        }
    }

    pub(super) fn symbol(&mut self, table: &Table, symbol: u8) -> Option<()> {
        let (code, length) = table.codes[usize::from(symbol)];
        self.push(u32::from(code), u32::from(length));
        (length != 0).then_some(())
    }

    pub(super) fn difference(&mut self, table: &Table, value: i32) -> Option<()> {
        let size = 32 - value.unsigned_abs().leading_zeros();
        if size > 11 {
            return None;
        }
        self.symbol(table, size as u8)?;
        let told = if value < 0 {
            value + (1 << size) - 1
        } else {
            value
        };
        self.push(told as u32, size);
        Some(())
    }

    /// The file: bits up to a whole byte are ones, then the end marker.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.push(0x7f, 7);
        while self.count >= 8 {
            self.count -= 8;
            self.byte((self.held >> self.count) as u8);
        }
        self.out.extend_from_slice(&[0xff, 0xd9]);
        self.out
    }
}
