//! Who may call the server over HTTP, and what it opens for them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};

use super::support::{HttpServer, ask, small_recipe, tallow};

/// A request by hand: status line, headers and body of the answer.
fn post(server: &HttpServer, path: &str, headers: &[(&str, &str)], body: &Value) -> String {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let body = body.to_string();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: {}\r\n",
        body.len()
    );
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request.push_str(&format!("Host: {}\r\n", server.address));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(25))).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn hello() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
    }})
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn strangers_are_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "0123456789abcdef0123456789abcdef";
    let server = HttpServer::start(dir.path(), Some(secret), &["--allow-origin", "https://app.example.com:443"]);
    let bearer = format!("Bearer {secret}");
    let own = ("Authorization", bearer.as_str());
    for (path, headers, wanted) in [
        ("/mcp", vec![own], 200),
        ("/mcp", vec![own, ("Origin", "http://localhost:3000")], 200),
        ("/mcp", vec![own, ("Origin", "https://app.example.com")], 200),
        ("/mcp", vec![own, ("Origin", "https://evil.example.com")], 403),
        ("/mcp", vec![own, ("Origin", "null")], 403),
        ("/mcp", vec![own, ("Host", "evil.example.com")], 403),
        ("/mcp", vec![], 401),
        ("/mcp", vec![("Authorization", "Bearer wrong")], 401),
        ("/", vec![own], 404),
        ("/mcp/../etc", vec![own], 404),
    ] {
        let answer = post(&server, path, &headers, &hello());
        assert_eq!(status(&answer), wanted, "{path} {headers:?}: {answer}");
    }
    assert!(post(&server, "/mcp", &[], &hello()).to_lowercase().contains("www-authenticate: bearer"));
}

#[test]
fn a_server_that_would_be_open_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, token, wanted) in [
        (vec!["--http", "0.0.0.0:0"], "", "TALLOW_MCP_TOKEN"),
        (vec!["--http", "127.0.0.1:0"], "short", "16 characters"),
        (vec!["--http", "127.0.0.1:0", "--root", "nowhere"], "", "nowhere"),
    ] {
        let out = tallow(dir.path()).arg("mcp").args(&arguments).env("TALLOW_MCP_TOKEN", token).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(wanted) && text.contains("hint: "), "{arguments:?}: {text}");
        assert!(out.stdout.is_empty());
    }
}

/// Calls a tool of the 2026-07-28 protocol, which needs no session.
fn tool(server: &HttpServer, name: &str, arguments: &Value) -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name, "arguments": arguments, "_meta": meta}});
    let headers = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", name)];
    let answer = post(server, "/mcp", &headers, &body);
    assert_eq!(status(&answer), 200, "{answer}");
    answer
}

#[cfg(unix)]
#[test]
fn nothing_outside_the_workspace_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    small_recipe(&work, 2);
    let secret = dir.path().join("secret.jsonl");
    std::fs::write(&secret, "{\"sentence1\": \"very secret\", \"sentence2\": \"b\", \"score\": 1}\n").unwrap();
    std::os::unix::fs::symlink(&secret, work.join("link.jsonl")).unwrap();
    std::os::unix::fs::symlink(dir.path(), work.join("up")).unwrap();
    let recipe = std::fs::read_to_string(work.join("recipe.toml")).unwrap();
    let write = |name: &str, from: &str, to: &str| {
        assert!(recipe.contains(from));
        std::fs::write(work.join(name), recipe.replace(from, to)).unwrap();
    };
    let outside = secret.display().to_string();
    write("absolute.toml", "path = \"train.jsonl\"", &format!("path = \"{outside}\""));
    write("linked.toml", "path = \"train.jsonl\"", "path = \"link.jsonl\"");
    let base = crate::support::project("tests/fixtures/tiny-bert");
    write("base.toml", "base = \"tiny-bert\"", &format!("base = \"{}\"", base.display()));
    write("upwards.toml", "path = \"train.jsonl\"", "path = \"../secret.jsonl\"");
    write(
        "elsewhere.toml",
        "run_name = \"small\"",
        &format!("run_name = \"small\"\noutput_dir = \"{}\"", dir.path().join("out").display()),
    );
    let server = HttpServer::start(&work, None, &[]);
    let rows = json!({"data": "link.jsonl", "anchor_column_name": "sentence1", "positive_column_name": "sentence2", "bm25": true, "output": "mined.jsonl"});
    let mined_outside = json!({"data": "train.jsonl", "bm25": true, "output": dir.path().join("mined.jsonl")});
    for (name, arguments) in [
        ("inspect_dataset", json!({"data": outside})),
        ("inspect_dataset", json!({"data": "../secret.jsonl"})),
        ("inspect_dataset", json!({"data": "link.jsonl"})),
        ("inspect_dataset", json!({"data": "up/secret.jsonl"})),
        ("inspect_dataset", json!({"data": "up/*.jsonl"})),
        ("inspect_dataset", json!({"data": "*/../../*.jsonl"})),
        ("smoke_test", json!({"recipe": "recipe.toml", "set": ["train_dataset.0.path=/etc/pass*"]})),
        ("smoke_test", json!({"recipe": "recipe.toml", "set": ["train_dataset.0.path=*/../../*.jsonl"]})),
        ("inspect_dataset", json!({"data": "train.jsonl", "eval": "/etc"})),
        ("recommend_loss", json!({"model_type": "SentenceTransformer", "data": "up/secret.jsonl"})),
        ("render_template", json!({"model_type": "SentenceTransformer", "data": "train.jsonl", "output": "../x.toml"})),
        ("render_template", json!({"model_type": "SentenceTransformer", "data": "train.jsonl", "output": "up/x.toml"})),
        ("check", json!({"file": "/etc/passwd"})),
        ("smoke_test", json!({"recipe": "absolute.toml"})),
        ("smoke_test", json!({"recipe": "linked.toml"})),
        ("smoke_test", json!({"recipe": "upwards.toml"})),
        ("smoke_test", json!({"recipe": "base.toml"})),
        ("run", json!({"recipe": "elsewhere.toml", "force": true})),
        ("run_status", json!({"run": dir.path()})),
        ("mine_hard_negatives", rows),
        ("mine_hard_negatives", mined_outside),
        ("evaluate", json!({"model": "/", "evaluator": "TripletEvaluator", "path": "train.jsonl"})),
    ] {
        let answer = tool(&server, name, &arguments);
        assert!(answer.contains("leads out of the workspace"), "{name} {arguments}: {answer}");
        assert!(!answer.contains("very secret"), "{name} {arguments}: {answer}");
    }
    // a pattern of the workspace itself is served, without what leads out of it
    let served = tool(&server, "inspect_dataset", &json!({"data": "*.jsonl"}));
    assert!(!served.contains("leads out") && served.contains("rows") && !served.contains("very secret"), "{served}");
    // texts that look like paths are looked up nowhere
    let gate = |prompt: &str| json!({"recipe": "recipe.toml", "set": [format!("model.prompts.query={prompt}")]});
    tool(&server, "smoke_test", &json!({"recipe": "recipe.toml"}));
    let refused = tool(&server, "run", &gate("/etc/*"));
    assert!(refused.contains("smoke test") && !refused.contains("/etc/passwd"), "{refused}");
    // a log that is a link is not written through
    std::fs::create_dir(work.join("logs")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("stolen"), work.join("logs/linked.log")).unwrap();
    let linked = json!({"recipe": "recipe.toml", "force": true, "set": ["run_name=linked"]});
    tool(&server, "run", &linked);
    let failed = ask(&work, &["status", "linked", "--wait", "60"]);
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(failed["message"].as_str().unwrap().contains("leads out of the workspace"), "{failed}");
    std::fs::remove_dir_all(work.join("runs")).unwrap();
    let names: Vec<String> = names(dir.path());
    assert_eq!(names, ["secret.jsonl", "work"], "something was written outside");
    assert!(!work.join("runs").exists() && !work.join("mined.jsonl").exists());
    // what lies inside is served, by runs that the server starts as well
    let started = tool(&server, "run", &json!({"recipe": "recipe.toml", "force": true}));
    assert!(started.contains("run_id"), "{started}");
    let ended = ask(&work, &["status", "--wait", "60"]);
    assert_eq!(ended["state"], "done", "{ended}");
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
