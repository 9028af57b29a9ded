//! What does a training script do when it runs? Its calls in order, through the functions of the file, without dead code.
//!
//! The script is parsed (tree-sitter) and walked as Python would run it: from the first statement of the module, into a
//! function where it is called. What cannot run is not seen: comments, strings, `if False`, statements after a `return`,
//! functions that nobody calls. Conditions that are not known are remembered with each call. Names are followed to what was
//! last assigned to them; what cannot be followed is unknown, and rules say so rather than guess.

mod facts;
mod origin;
mod script;
mod text;
mod training;
mod values;
mod walk;

pub use script::Script;
pub(crate) use script::{Run, Seen};
pub(crate) use values::Place;
