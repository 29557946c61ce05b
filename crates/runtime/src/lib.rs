//! placeholder head, replaced as the crate is written
pub mod catalogue;
pub mod source;
