//! The MCP server from outside, as JSON-RPC lines on its stdin and stdout.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    last_id: u64,
}

impl Client {
    fn start(dir: &std::path::Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tallow"))
            .arg("mcp")
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut client = Self { child, input, output, last_id: 0 };
        let hello = client.call(
            "initialize",
            json!({
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            }),
        );
        assert_eq!(hello["result"]["serverInfo"]["name"], "tallow", "{hello}");
        assert!(hello["result"]["instructions"].as_str().unwrap().contains("smoke_test"));
        client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{message}").unwrap();
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the server went away");
            let message: Value = serde_json::from_str(&line).expect("only JSON-RPC may stand on stdout");
            if message["id"] == id {
                return message;
            }
        }
    }

    fn tool(&mut self, name: &str, arguments: Value) -> Value {
        self.call("tools/call", json!({"name": name, "arguments": arguments}))
    }

    /// Closes stdin and waits for the server's end.
    fn end(mut self) {
        self.input.take();
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn the_surface_is_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::start(dir.path());
    let tools = client.call("tools/list", json!({}));
    let names = |schema: &Value| -> Vec<String> {
        schema["properties"].as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default()
    };
    let surface: Vec<Value> = tools["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| {
            json!({
                "name": tool["name"],
                "annotations": tool["annotations"],
                "input": names(&tool["inputSchema"]),
                "required": tool["inputSchema"].get("required").cloned().unwrap_or(json!([])),
                "output": names(&tool["outputSchema"]),
            })
        })
        .collect();
    insta::assert_json_snapshot!(surface);
    client.end();
}

#[test]
fn mistakes_are_tool_errors_that_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("recipe.toml"), "[args]\nlearning_rat = 1\n").unwrap();
    let mut client = Client::start(dir.path());
    for (tool, arguments, wanted) in [
        ("smoke_test", json!({"recipe": "recipe.toml"}), "learning_rate"),
        ("run", json!({"recipe": "missing.toml"}), "missing.toml"),
        ("run", json!({}), "no recipe"),
        ("run", json!({"recipe": "recipe.toml", "detach": true}), "unknown field"),
        ("run_status", json!({}), "no runs"),
        ("cancel_run", json!({"run": "a-2026"}), "a-2026"),
        ("mine_hard_negatives", json!({"data": "d.jsonl", "output": "o.csv"}), "o.csv"),
        ("mine_hard_negatives", json!({"data": "d.jsonl", "output": "o.jsonl", "range": 3}), "unknown field"),
        ("evaluate", json!({"model": "m", "evaluator": "Triplet", "path": "."}), "TripletEvaluator"),
    ] {
        let answer = client.tool(tool, arguments);
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert_eq!(answer["result"]["isError"], true, "{tool}: {answer}");
        // several mistakes in one recipe have their hints behind them
        let hint = text.contains("hint: ") || text.contains("did you mean");
        assert!(text.contains(wanted) && hint, "{tool}: {text}");
    }
    let unknown = client.tool("no_such_tool", json!({}));
    assert!(unknown["error"]["message"].as_str().unwrap().contains("run_status"), "{unknown}");
    assert!(!dir.path().join("runs").exists());
    client.end();
}
