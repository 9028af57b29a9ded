//! A run that waits for its turn, as its records tell it.

use std::time::Instant;

use super::{Recorder, held};
use crate::runs::queue::Wait;
use crate::runs::status::State;

impl Recorder<'_> {
    /// The run waits; told again whenever its place or what it waits for has changed.
    pub fn queued(&mut self, wait: &Wait) {
        self.waited = true;
        self.update(|status| {
            (status.state, status.phase) = (State::Queued, "queued".to_owned());
            (status.position, status.waits_for) = (Some(wait.position), Some(wait.reason.clone()));
        });
        let written = self.board.write();
        self.complain(written);
        self.line(&format!(
            "queued at place {}: {}; `tallow run --now` does not wait, `tallow cancel {}` ends the waiting",
            wait.position,
            wait.reason,
            self.folder.run_id()
        ));
    }

    /// Its turn has come.
    pub fn begins(&mut self) {
        if !self.waited {
            return;
        }
        *held(&self.board.taken_up) = Instant::now();
        self.update(|status| {
            (status.state, status.phase) = (State::Running, "starting".to_owned());
            (status.position, status.waits_for) = (None, None);
        });
        let written = self.board.write();
        self.complain(written);
        self.line("its turn has come");
    }

    /// Whether it had to wait.
    #[must_use]
    pub fn waited(&self) -> bool {
        self.waited
    }
}
