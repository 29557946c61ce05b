//! Byte-pair encoding by merge rank.
//!
//! The neighbours whose merge has the lowest rank are merged, the leftmost of equals first, until no
//! neighbours have a merge. O(n log n) in the symbols of a word.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::vocab::Vocab;
use crate::{Error, Result};

/// A merge that could be done: rank, place, and what makes it out of date.
type Candidate = (u32, usize, u32, u32, u32);

/// (left id, right id) → (rank, merged id).
#[derive(Debug)]
pub(crate) struct Merges(HashMap<(u32, u32), (u32, u32)>);

impl Merges {
    /// `merges` has one pair a line, `left right`, in order of rank; a piece may begin with a space.
    pub(crate) fn new(vocab: &Vocab, merges: &[String]) -> Result<Self> {
        let pairs = merges.iter().map(|merge| split_pair(merge));
        Self::from_pairs(vocab, pairs, "", "GGUF vocabulary")
    }

    /// Pairs in order of rank; `None` is one that could not be read. `prefix` is what pieces inside a word
    /// begin with: it goes when such a piece is merged.
    pub(crate) fn from_pairs<'p>(
        vocab: &Vocab,
        pairs: impl ExactSizeIterator<Item = Option<(&'p str, &'p str)>>,
        prefix: &str,
        format: &'static str,
    ) -> Result<Self> {
        let mut map = HashMap::with_capacity(pairs.len());
        let mut joined = String::new();
        for (rank, pair) in (0u32..).zip(pairs) {
            let Some((left, right)) = pair else {
                let what = format!("merge {rank}: expected two pieces with a space between");
                return Err(Error::malformed(format, what));
            };
            joined.clear();
            joined.push_str(left);
            joined.push_str(right.strip_prefix(prefix).unwrap_or(right));
            let ids = (vocab.id(left), vocab.id(right), vocab.id(&joined));
            let (Some(l), Some(r), Some(m)) = ids else {
                let what = format!(
                    "merge {rank} ({left:.40?} {right:.40?}): both pieces and what they make must be tokens"
                );
                return Err(Error::malformed(format, what));
            };
            // Text must not add up to a control token.
            if vocab.get(m).is_some_and(|token| !token.kind.is_special()) {
                map.entry((l, r)).or_insert((rank, m));
            }
        }
        Ok(Self(map))
    }

    /// Merges `symbols` (ids of the smallest pieces) as far as it goes.
    pub(crate) fn apply(&self, symbols: &mut Vec<u32>) {
        match symbols.len() {
            0 | 1 => {}
            // A scan per merge beats a heap on words, which most calls are.
            2..=24 => self.apply_short(symbols),
            _ => self.apply_long(symbols),
        }
    }

    fn get(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        self.0.get(&(left, right)).copied()
    }

    fn apply_short(&self, symbols: &mut Vec<u32>) {
        loop {
            let best = symbols
                .windows(2)
                .enumerate()
                .filter_map(|(at, w)| self.get(w[0], w[1]).map(|(rank, id)| (rank, at, id)))
                .min();
            let Some((_, at, id)) = best else { return };
            symbols[at] = id;
            symbols.remove(at + 1);
        }
    }

    fn apply_long(&self, symbols: &mut Vec<u32>) {
        const NONE: usize = usize::MAX;
        let n = symbols.len();
        let mut next: Vec<usize> = (1..=n).map(|i| if i == n { NONE } else { i }).collect();
        let mut prev: Vec<usize> = (0..n).map(|i| i.checked_sub(1).unwrap_or(NONE)).collect();
        let mut alive = vec![true; n];
        // (rank, left position, left id, right id, merged id): ids tell stale entries.
        let mut queue: BinaryHeap<Reverse<Candidate>> = BinaryHeap::new();
        for (at, w) in symbols.windows(2).enumerate() {
            if let Some((rank, id)) = self.get(w[0], w[1]) {
                queue.push(Reverse((rank, at, w[0], w[1], id)));
            }
        }
        while let Some(Reverse((_, at, left, right, id))) = queue.pop() {
            let to = next[at];
            if !alive[at] || to == NONE || symbols[at] != left || symbols[to] != right {
                continue;
            }
            symbols[at] = id;
            alive[to] = false;
            next[at] = next[to];
            if next[at] != NONE {
                prev[next[at]] = at;
            }
            for at in [prev[at], at] {
                if at != NONE
                    && next[at] != NONE
                    && let Some((rank, id)) = self.get(symbols[at], symbols[next[at]])
                {
                    queue.push(Reverse((rank, at, symbols[at], symbols[next[at]], id)));
                }
            }
        }
        let mut keep = alive.iter();
        symbols.retain(|_| keep.next().copied().unwrap_or(false));
    }
}

/// The pair of a merge line. The space that parts them is not the first character: a piece may be
/// a space itself.
fn split_pair(merge: &str) -> Option<(&str, &str)> {
    let first = merge.chars().next()?.len_utf8();
    let at = first + merge.get(first..)?.find(' ')?;
    let (left, right) = (merge.get(..at)?, merge.get(at + 1..)?);
    (!right.is_empty()).then_some((left, right))
}

#[cfg(test)]
mod tests {
    use super::super::vocab::Kind;
    use super::*;
    use proptest::prelude::*;

    fn small() -> (Vocab, Merges) {
        let mut vocab = Vocab::default();
        for (id, piece) in ["a", "b", "c", "ab", "bc", "aa", "abc", "aab", "bb", "aaaa"]
            .iter()
            .enumerate()
        {
            vocab.insert(id as u32, piece, Kind::Normal).unwrap();
        }
        let merges = ["b c", "a b", "a a", "ab c", "a ab", "b b", "aa aa"].map(String::from);
        let merges = Merges::new(&vocab, &merges).unwrap();
        (vocab, merges)
    }

    #[test]
    fn pairs() {
        assert_eq!(split_pair("a b"), Some(("a", "b")));
        assert_eq!(split_pair("  b"), Some((" ", "b")));
        assert_eq!(split_pair("é  "), Some(("é", " ")));
        for bad in ["", "a", "a ", " b"] {
            assert_eq!(split_pair(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_merge_of_unknown_pieces_is_refused() {
        let (vocab, _) = small();
        for bad in ["a z", "c a", "a"] {
            let got = Merges::new(&vocab, &[bad.to_owned()]);
            assert!(matches!(got, Err(Error::Malformed { .. })), "{bad}");
        }
    }

    #[test]
    fn lowest_rank_then_leftmost() {
        let (_, merges) = small();
        let mut symbols = vec![0, 1, 2]; // "abc": "b c" is first
        merges.apply(&mut symbols);
        assert_eq!(symbols, [0, 4]);
        let mut symbols = vec![0, 0, 0];
        merges.apply(&mut symbols);
        assert_eq!(symbols, [5, 0]);
    }

    proptest! {
        #[test]
        fn the_two_forms_agree(symbols in proptest::collection::vec(0u32..3, 2..120)) {
            let (_, merges) = small();
            let (mut a, mut b) = (symbols.clone(), symbols);
            merges.apply_short(&mut a);
            merges.apply_long(&mut b);
            prop_assert_eq!(a, b);
        }
    }
}
