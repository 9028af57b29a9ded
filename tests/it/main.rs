//! One binary for all integration tests: linking candle for each file would be slow.

mod evaluators;
mod losses;
