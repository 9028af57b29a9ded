//! The `tallow` program.

fn main() {}
