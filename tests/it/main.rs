//! One binary for all integration tests: linking it once is what takes the time.

mod data;
