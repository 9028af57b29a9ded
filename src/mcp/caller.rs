//! Who calls: what the client understands, and how it is told of progress.

// log messages are what clients before 2026-07-28 know
#![allow(deprecated)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rmcp::RoleServer;
use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// From which level on a session wants log messages; it wants none before it says so.
#[derive(Default)]
pub(super) struct LogLevel(AtomicU8);

/// As low as `info`, the level of everything that is told.
const INFORMED: u8 = 1;

impl LogLevel {
    pub(super) fn set(&self, level: LoggingLevel) {
        let informed = matches!(level, LoggingLevel::Debug | LoggingLevel::Info);
        self.0.store(u8::from(informed), Ordering::Relaxed);
    }

    fn informed(&self) -> bool {
        self.0.load(Ordering::Relaxed) == INFORMED
    }
}

/// The client behind one request.
pub(super) struct Caller {
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    cancelled: CancellationToken,
    tasks: bool,
    level: Arc<LogLevel>,
    /// Progress has to grow.
    told: f64,
}

impl Caller {
    pub(super) fn new(context: &RequestContext<RoleServer>, level: Arc<LogLevel>) -> Self {
        Self {
            peer: context.peer.clone(),
            token: context.meta.get_progress_token(),
            cancelled: context.ct.clone(),
            tasks: context.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks()),
            level,
            told: f64::NEG_INFINITY,
        }
    }

    /// Whether the client declared that it follows tasks.
    pub(super) fn follows_tasks(&self) -> bool {
        self.tasks
    }

    /// Whether the client gave the request up.
    pub(super) fn gone(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Until the client gives the request up.
    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Tells how far it is, to a client that asked for it; what does not go forward is not told.
    pub(super) async fn progress(&mut self, progress: f64, total: Option<f64>, message: String) {
        let Some(token) = self.token.clone().filter(|_| progress > self.told) else { return };
        self.told = progress;
        let mut told = ProgressNotificationParam::new(token, progress).with_message(message);
        if let Some(total) = total {
            told = told.with_total(total);
        }
        // a client that does not listen any more is seen by its request's end
        let _ = self.peer.notify_progress(told).await;
    }

    /// Tells a line for people, after `seconds` of work.
    pub(super) async fn line(&mut self, seconds: f64, line: String) {
        if self.level.informed() {
            let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(line)).with_logger("tallow");
            let _ = self.peer.notify_logging_message(message).await;
        }
        self.progress(seconds, None, line).await;
    }
}
