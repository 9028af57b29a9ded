//! tallow trains sentence-transformers models natively: recipes in, evaluated models out.
//!
//! Data flows one way: [`recipe`] -> plan -> [`data`] (tokenised, packed) -> [`model`] -> [`scoring`] and
//! [`loss`] -> [`optim`] -> [`eval`] -> checkpoint and model directory -> run record. [`verbs`] holds one file a
//! verb; the command line and the MCP server are thin fronts over it.

pub mod catalog;
pub mod check;
pub mod cli;
pub mod data;
pub mod draft;
pub mod error;
pub mod eval;
pub mod flow;
pub mod hub;
pub mod loss;
pub mod mcp;
pub mod model;
pub mod negatives;
pub mod ops;
pub mod optim;
pub mod recipe;
pub mod render;
pub mod runs;
pub mod scoring;
pub mod train;
pub mod util;
pub mod verbs;

pub use error::{Error, Result};
