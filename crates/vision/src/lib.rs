//! placeholder head, replaced as the crate is written
