//! The only place that writes to the terminal: answers to stdout, messages to stderr.

use std::io::Write;

use serde_json::json;

use crate::error::{Error, Kind};
use crate::verbs::{Answer, Reporter};

/// Prints for people, or one JSON document for programs.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    json: bool,
}

impl Printer {
    /// With `json`, stdout gets exactly one JSON document.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints an answer and returns its exit code.
    pub fn answer(&self, answer: &impl Answer) -> u8 {
        if self.json {
            match serde_json::to_string(answer) {
                Ok(text) => self.text(&text),
                Err(cause) => {
                    let error = Error::Internal(format!("the answer as JSON: {cause}"));
                    self.error(&error);
                    return super::exit::code(&error);
                }
            }
        } else {
            self.text(&answer.human());
        }
        answer.exit_code()
    }

    /// Prints an error: for programs on stdout too, so that they find one document there in any case.
    pub fn error(&self, error: &Error) {
        if self.json {
            self.text(&document(error));
        } else {
            note(&rendered(error));
        }
    }

    /// Prints text on stdout.
    pub fn text(&self, text: &str) {
        // a reader that has gone away (`| head`) is no error of ours
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
        let _ = out.flush();
    }
}

impl Reporter for Printer {
    fn line(&mut self, text: &str) {
        note(text);
    }
}

fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The message, and the way out on a line of its own.
#[must_use]
pub fn rendered(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("error: {error}{hint}")
}

/// `{"error": {"kind", "message", "hint"}}`.
fn document(error: &Error) -> String {
    let kind = match error.kind() {
        Kind::Usage => "usage",
        Kind::Failed => "failed",
        Kind::Cancelled => "cancelled",
        Kind::Internal => "internal",
    };
    json!({"error": {"kind": kind, "message": error.to_string(), "hint": error.hint()}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_stands_apart() {
        let error = Error::usage("`a.toml` line 3: unknown key `lr`").with_hint("did you mean `learning_rate`?");
        assert_eq!(rendered(&error), "error: `a.toml` line 3: unknown key `lr`\nhint: did you mean `learning_rate`?");
        assert_eq!(document(&Error::data("x")), r#"{"error":{"kind":"failed","message":"x","hint":null}}"#);
    }
}
