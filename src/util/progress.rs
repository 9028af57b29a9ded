//! Progress of long work: a bar on a terminal, nothing otherwise (the run's files tell it there).

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on stderr, or a silent stand-in.
#[derive(Debug, Clone)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar over `total` units of `what`; silent when stderr is not a terminal.
    #[must_use]
    pub fn new(what: &str, total: u64) -> Self {
        Self::with_template(what, total, "{prefix} {wide_bar} {pos}/{len} {elapsed}<{eta} {msg}")
    }

    /// A bar over the `total` bytes of a file.
    #[must_use]
    pub fn bytes(what: &str, total: u64) -> Self {
        let template = "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
        Self::with_template(what, total, template)
    }

    fn with_template(what: &str, total: u64, template: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        Self(Some(bar))
    }

    /// One that never shows.
    #[must_use]
    pub fn hidden() -> Self {
        Self(None)
    }

    /// Whether somebody sees it.
    #[must_use]
    pub const fn shown(&self) -> bool {
        self.0.is_some()
    }

    /// Sets how far it is.
    pub fn set(&self, position: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(position);
        }
    }

    /// Moves on by `n`.
    pub fn inc(&self, n: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(n);
        }
    }

    /// The text behind the bar.
    pub fn message(&self, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.0 {
            bar.set_message(text());
        }
    }

    /// Runs `f` with the bar out of the way, so that lines can be printed.
    pub fn suspend<R>(&self, f: impl FnOnce() -> R) -> R {
        match &self.0 {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
