//! placeholder

#[path = "lib.rs"]
mod harness;

fn main() {}
