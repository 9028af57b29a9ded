//! tallow trains sentence-transformers models natively: recipes in, evaluated models out.
//!
//! Data flows one way: [`recipe`] -> plan -> [`data`] (tokenised, packed) -> [`model`] -> [`scoring`] and
//! [`loss`] -> [`optim`] -> [`eval`] -> checkpoint and model directory -> run record. [`verbs`] holds one file a
//! verb; the command line and the MCP server are thin fronts over it.

pub mod data;
pub mod error;
pub mod eval;
pub mod flow;
pub mod loss;
pub mod model;
pub mod ops;
pub mod optim;
pub mod recipe;
pub mod scoring;
pub mod util;

pub use error::{Error, Result};
