//! Being built.

pub mod generate;
