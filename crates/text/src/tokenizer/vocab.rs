//! The table of tokens: id ↔ piece, and what kind each token is.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Error, Result};

/// Ids above this are refused: no published vocabulary comes near, and tables are indexed by id.
pub(crate) const MAX_ID: u32 = (1 << 22) - 1;

/// What a token is to the encoder and the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Produced by the model; its piece is in the vocabulary's own spelling (`Ġthe`, `▁the`).
    Normal,
    /// Matched in the text as it stands and decoded as it stands (`<tool_call>`).
    Added,
    /// As `Added`, but control: left out by `skip_special`, and never matched in untrusted text.
    Special,
    /// One raw byte, spelled `<0x0A>`.
    Byte,
}

impl Kind {
    pub(crate) fn is_special(self) -> bool {
        self == Kind::Special
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) piece: Arc<str>,
    pub(crate) kind: Kind,
    /// Whether the model has it; false for one that was only added.
    pub(crate) in_model: bool,
    /// What decoding starts from, where it is not the piece.
    spelled: Option<Arc<str>>,
}

impl Token {
    /// What decoding starts from.
    pub(crate) fn spelled(&self) -> &str {
        self.spelled.as_deref().unwrap_or(&self.piece)
    }

    /// Whether the model may make it out of text. Never a control token.
    pub(crate) fn of_model(&self) -> bool {
        self.in_model && !self.kind.is_special()
    }
}

/// Tokens by id (holes are possible in `tokenizer.json`) and ids by piece.
#[derive(Debug, Default)]
pub(crate) struct Vocab {
    tokens: Vec<Option<Token>>,
    ids: HashMap<Arc<str>, u32>,
}

impl Vocab {
    pub(crate) fn with_capacity(n: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(n),
            ids: HashMap::with_capacity(n),
        }
    }

    /// Puts a token at `id`. A piece given twice keeps the id given last, as the references do.
    pub(crate) fn insert(&mut self, id: u32, piece: &str, kind: Kind) -> Result<()> {
        if id > MAX_ID {
            return Err(Error::Limit {
                what: "token id",
                max: MAX_ID.into(),
                got: id.into(),
            });
        }
        let index = id as usize;
        if self.tokens.len() <= index {
            self.tokens.resize(index + 1, None);
        }
        let piece: Arc<str> = piece.into();
        if let Some(slot) = self.tokens.get_mut(index) {
            let in_model = kind == Kind::Normal
                || kind == Kind::Byte
                || slot
                    .as_ref()
                    .is_some_and(|old| old.in_model && old.piece == piece);
            *slot = Some(Token {
                piece: piece.clone(),
                kind,
                in_model,
                spelled: None,
            });
        }
        self.ids.insert(piece, id);
        Ok(())
    }

    /// Says what decoding starts from for a token that is matched in another form than its piece.
    pub(crate) fn set_spelled(&mut self, id: u32, spelled: &str) {
        if let Some(Some(token)) = self.tokens.get_mut(id as usize)
            && &*token.piece != spelled
        {
            token.spelled = Some(spelled.into());
        }
    }

    /// The highest id plus one: the rows of the model's head that have a meaning.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Token> {
        self.tokens.get(id as usize)?.as_ref()
    }

    pub(crate) fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Token)> {
        self.tokens
            .iter()
            .zip(0u32..)
            .filter_map(|(t, id)| t.as_ref().map(|t| (id, t)))
    }
}

/// The byte that a `<0x0A>` piece stands for.
pub(crate) fn byte_piece(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u8::from_str_radix(hex, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_pieces() {
        assert_eq!(byte_piece("<0x0A>"), Some(10));
        assert_eq!(byte_piece("<0xfF>"), Some(255));
        for piece in ["<0x+A>", "<0xA>", "<0x0A", "0x0A>", "<0x0AA>", "<0xé>", ""] {
            assert_eq!(byte_piece(piece), None, "{piece}");
        }
    }

    #[test]
    fn holes_and_limits() {
        let mut vocab = Vocab::default();
        vocab.insert(3, "d", Kind::Normal).unwrap();
        assert_eq!((vocab.len(), vocab.id("d")), (4, Some(3)));
        assert!(vocab.get(1).is_none() && vocab.get(4).is_none());
        assert!(matches!(
            vocab.insert(u32::MAX, "x", Kind::Normal),
            Err(Error::Limit { .. })
        ));
        assert_eq!(vocab.len(), 4);
    }
}
