//! Telling clients that a run has moved on: what they subscribed to is looked at every second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::ResourceUpdatedNotificationParam;
use rmcp::service::{Peer, RoleServer, SubscriptionContext};
use tokio::task::AbortHandle;

use super::resources;
use crate::verbs::run_files;

const EVERY: Duration = Duration::from_secs(1);

/// What a session subscribed to.
#[derive(Default)]
pub(super) struct Watched(Mutex<HashMap<String, AbortHandle>>);

impl Watched {
    /// Looks at `uri` from now on.
    pub(super) fn add(&self, uri: String, peer: Peer<RoleServer>) {
        let watched = uri.clone();
        let handle = tokio::spawn(async move {
            let mut stamp = look(uri.clone()).await;
            loop {
                tokio::time::sleep(EVERY).await;
                let now = look(uri.clone()).await;
                if now != stamp {
                    stamp = now;
                    let told = peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri.clone())).await;
                    if told.is_err() {
                        return;
                    }
                }
                if peer.is_transport_closed() {
                    return;
                }
            }
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = all.insert(watched, handle.abort_handle()) {
            earlier.abort();
        }
    }

    /// Looks at it no longer.
    pub(super) fn remove(&self, uri: &str) {
        if let Some(handle) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uri) {
            handle.abort();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let all = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        all.values().for_each(AbortHandle::abort);
    }
}

/// Tells a subscription of the 2026-07-28 protocol until it is cancelled.
pub(super) async fn listen(context: &SubscriptionContext) {
    let uris = context.accepted().resource_subscriptions.clone().unwrap_or_default();
    let lists = context.accepted().resources_list_changed == Some(true);
    let mut stamps = HashMap::new();
    for uri in &uris {
        stamps.insert(uri.clone(), look(uri.clone()).await);
    }
    let mut runs = count().await;
    loop {
        tokio::select! {
            () = context.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        for uri in &uris {
            let now = look(uri.clone()).await;
            if stamps.insert(uri.clone(), now) != Some(now)
                && context.sink().notify_resource_updated(uri.clone()).await.is_err()
            {
                return;
            }
        }
        if lists {
            let now = count().await;
            if now != runs && context.sink().notify_resource_list_changed().await.is_err() {
                return;
            }
            runs = now;
        }
    }
}

/// Tells an older client when runs come or go, as long as it is there.
pub(super) async fn runs(peer: Peer<RoleServer>) {
    let mut runs = count().await;
    while !peer.is_transport_closed() {
        tokio::time::sleep(EVERY).await;
        let now = count().await;
        if now != runs && peer.notify_resource_list_changed().await.is_err() {
            return;
        }
        runs = now;
    }
}

async fn look(uri: String) -> Option<u64> {
    let stamp = move || resources::run_of(&uri).and_then(|(run, part)| run_files::stamp(&run, &part));
    tokio::task::spawn_blocking(stamp).await.ok().flatten()
}

async fn count() -> usize {
    tokio::task::spawn_blocking(run_files::count).await.unwrap_or(0)
}
