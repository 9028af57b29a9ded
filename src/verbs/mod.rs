//! What can tallow be asked to do? One file a verb: its request, its response, and what it does.
//!
//! A request is at once the command line's arguments and the MCP tool's input: its doc comments are the help
//! text and the schema's descriptions. A response is the JSON document, and says how people read it. The fronts
//! know nothing else.

pub mod cancel;
pub mod check;
pub mod choose;
pub mod cluster;
pub mod demo;
pub mod distill;
pub mod encode;
pub mod evaluate;
pub mod experiments;
pub mod inspect;
pub mod install;
pub mod library;
pub mod log;
pub mod mcp;
pub mod mine;
pub mod paraphrase_mining;
pub mod predict;
pub mod prompts;
pub mod pull;
pub mod push;
pub mod rank;
pub mod recommend;
pub mod render;
pub mod report;
pub mod run;
pub mod run_files;
pub mod runs;
pub mod search;
pub mod smoke_test;
pub mod status;
pub mod teach;
pub mod workspace;

mod engine;
mod next_recipe;
mod publish;
mod record;
mod vectors;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
pub use crate::util::interrupt::stoppable;

/// A request that can be answered.
pub trait Verb: DeserializeOwned + JsonSchema + Send + 'static {
    /// What comes back.
    type Response: Answer;

    /// Does it. Blocks until done; lines for people go to `reporter` on the way.
    ///
    /// # Errors
    /// Whatever the user or the machine got wrong, with the way out as the hint.
    fn run(self, reporter: &mut dyn Reporter) -> Result<Self::Response>;

    /// Told before [`Verb::run`] by a front that must answer within `seconds`: waiting is cut to that.
    fn answer_within(&mut self, seconds: f64) {
        let _ = seconds;
    }
}

/// What a verb answers.
pub trait Answer: Serialize + JsonSchema + Send + 'static {
    /// The answer for people, on stdout; without a line break at the end.
    fn human(&self) -> String;

    /// The exit code: 0, or 3 when something was checked and found wanting.
    fn exit_code(&self) -> u8 {
        0
    }
}

/// Where lines for people go while a verb works.
pub trait Reporter {
    /// One line, without its end.
    fn line(&mut self, text: &str);
}

impl<F: FnMut(&str)> Reporter for F {
    fn line(&mut self, text: &str) {
        self(text);
    }
}
