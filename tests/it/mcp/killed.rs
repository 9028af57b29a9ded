//! A server that is killed at any moment leaves runs that go on and statuses that are true.

#![cfg(unix)]

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{ask, small_recipe, tallow};

/// A sequence of moments that a failure can be told by.
fn moments(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 500
    })
}

#[test]
fn killed_at_twenty_moments() {
    let dir = tempfile::tempdir().unwrap();
    small_recipe(dir.path(), 40);
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    for (n, moment) in moments(seed).take(20).enumerate() {
        let mut server = tallow(dir.path())
            .arg("mcp")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = server.stdin.take().unwrap();
        let key = format!("kill-{n}");
        let hello =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let arguments = json!({"recipe": "recipe.toml", "force": true, "key": key});
        for message in [
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}),
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "run", "arguments": arguments}}),
        ] {
            writeln!(input, "{message}").unwrap();
        }
        std::thread::sleep(Duration::from_millis(moment));
        // the whole server at once, as the kernel does when memory is short
        server.kill().unwrap();
        server.wait().unwrap();
        seen(dir.path(), &format!("seed {seed}, killed after {moment} ms"));
    }
    // every run that was begun ends as if nothing had happened; a start that was cut off leaves one that failed at once
    for run in seen(dir.path(), "at the end") {
        let id = run["run_id"].as_str().unwrap();
        let ended = ask(dir.path(), &["status", id, "--wait", "120"]);
        match ended["state"].as_str() {
            Some("done") => assert_eq!(ended["step"], 40, "{ended}"),
            Some("failed") => assert_eq!(ended["step"], 0, "{ended}"),
            other => panic!("{other:?}: {ended}"),
        }
    }
}

/// All runs, each with a state that is true: who runs has a living process.
fn seen(dir: &std::path::Path, when: &str) -> Vec<Value> {
    let runs = ask(dir, &["runs", "--limit", "100"])["runs"].as_array().cloned().unwrap_or_else(|| panic!("{when}"));
    for run in &runs {
        let id = run["run_id"].as_str().unwrap_or_else(|| panic!("{when}: {run}"));
        let status = ask(dir, &["status", id]);
        let state = status["state"].as_str().unwrap_or_else(|| panic!("{when}: {status}"));
        assert!(["running", "queued", "done", "failed"].contains(&state), "{when}: {status}");
        if state == "running" {
            let pid = status["pid"].as_u64().unwrap();
            let alive = std::path::Path::new(&format!("/proc/{pid}")).exists();
            // it may have ended between the two looks
            let again = || ask(dir, &["status", id]);
            assert!(alive || !cfg!(target_os = "linux") || again()["state"] != "running", "{when}: {status}");
        }
    }
    runs
}
