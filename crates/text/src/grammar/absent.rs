//! A build without grammars: the same types, of which there is never a value, so that callers need no conditions of their own.

use super::Grammar;
use crate::{Error, Result, Tokenizer};
use std::convert::Infallible;

/// The tokens of a model as bytes; this build has none.
#[derive(Clone, Debug)]
pub struct Vocabulary(Infallible);

impl Vocabulary {
    /// What a build with the feature `grammar` makes.
    ///
    /// # Errors
    /// `Unsupported`, always.
    pub fn new(_: &Tokenizer, _: usize, _: &[u32]) -> Result<Self> {
        Err(Error::unsupported(
            "grammars: this build is without them; build with the feature `grammar`",
        ))
    }

    /// Starts an answer.
    ///
    /// # Errors
    /// Not reached: there is no vocabulary.
    pub fn matcher(&self, _: &Grammar) -> Result<Matcher> {
        match self.0 {}
    }
}

/// An answer on its way through a grammar; this build has none.
#[derive(Clone, Debug)]
pub struct Matcher(Infallible);

impl Matcher {
    /// The tokens that may come next.
    ///
    /// # Errors
    /// Not reached: there is no matcher.
    pub fn mask(&mut self, _: bool) -> Result<&[u32]> {
        match self.0 {}
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// Not reached: there is no matcher.
    pub fn accept(&mut self, _: u32) -> Result<()> {
        match self.0 {}
    }

    /// Whether what was accepted is a whole answer.
    pub fn is_accepting(&mut self) -> bool {
        match self.0 {}
    }

    /// Whether nothing can follow.
    pub fn is_complete(&self) -> bool {
        match self.0 {}
    }
}
