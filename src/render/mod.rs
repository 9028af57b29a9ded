//! How do typed values become files? Embedded templates, rendered with every variable required.

pub mod assets;
pub mod env;

pub use env::{Keys, render, render_filled};
