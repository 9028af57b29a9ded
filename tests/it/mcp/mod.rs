//! The MCP server from outside, as JSON-RPC lines on its stdin and stdout.

mod clients;
mod http;
mod killed;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    last_id: u64,
}

impl Client {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    fn start_with(dir: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tallow"))
            .arg("mcp")
            .current_dir(dir)
            .envs(variables.iter().copied())
            .env("XDG_CACHE_HOME", dir.join(".cache"))
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

/// Definitions as clients read them, answers as models do: what changes here is seen by everybody who uses the server.
#[test]
fn the_surface_is_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::start(dir.path());
    let surface = client.call("tools/list", json!({}))["result"]["tools"].clone();
    insta::assert_json_snapshot!("mcp_tools", surface);
    let prompts = client.call("prompts/list", json!({}))["result"]["prompts"].clone();
    let templates = client.call("resources/templates/list", json!({}))["result"]["resourceTemplates"].clone();
    insta::assert_json_snapshot!("mcp_prompts_and_templates", json!([prompts, templates]));
    client.end();
}

#[test]
fn answers_are_what_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = (0..40)
        .map(|n| json!({"query": format!("what is {n}"), "answer": format!("{n} is a number")}).to_string() + "\n")
        .collect();
    std::fs::write(dir.path().join("pairs.jsonl"), rows).unwrap();
    std::fs::write(dir.path().join("dev.jsonl"), "{\"query\": \"why\", \"answer\": \"because\"}\n").unwrap();
    std::fs::write(dir.path().join("bad.py"), "from sentence_transformers import SentenceTransformer\n").unwrap();
    let mut client = Client::start(dir.path());
    let mut answers = Vec::new();
    for (tool, arguments) in [
        ("choose_model_type", json!({"task": "An embedding model that finds the passage which answers a question"})),
        ("inspect_dataset", json!({"data": "pairs.jsonl"})),
        ("recommend_loss", json!({"model_type": "SentenceTransformer", "data": "pairs.jsonl"})),
        (
            "render_template",
            json!({"model_type": "SentenceTransformer", "data": "pairs.jsonl", "eval": "dev.jsonl", "settings": {"args.max_steps": 7}, "output": "a.toml"}),
        ),
        ("check", json!({"file": "bad.py"})),
    ] {
        let mut answer = client.tool(tool, arguments)["result"].clone();
        let content = answer["structuredContent"].to_string();
        assert_eq!(answer["content"][0]["text"].as_str(), Some(content.as_str()), "{tool}");
        assert!(content.len() < 8000, "{tool}: {} bytes", content.len());
        // once is enough
        answer["content"].as_array_mut().unwrap().remove(0);
        answers.push(json!({tool: answer}));
    }
    insta::with_settings!({filters => vec![
        ("\"seconds\": [0-9.]+", "\"seconds\": 0"),
        (r#"file:///[^"]*/"#, "file:///DIR/"),
        (r"answer://[0-9a-f]+", "answer://HASH"),
        ("about [0-9.]+ [MG]B", "about N GB"), ("of [0-9.]+ [MG]B free", "of N GB free"),
    ]}, { insta::assert_json_snapshot!("mcp_answers", answers) });
    client.end();
}

/// Whatever libraries would like to say.
#[test]
fn stdout_carries_the_protocol_alone() {
    for level in ["trace", "debug,hyper=trace,rmcp=trace", "off"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("recipe.toml"), "[args]\nlearning_rat = 1\n").unwrap();
        // every line that comes is parsed by the client
        let mut client =
            Client::start_with(dir.path(), &[("RUST_LOG", level), ("RUST_BACKTRACE", "full"), ("TALLOW_LOG", level)]);
        client.tool("smoke_test", json!({"recipe": "recipe.toml"}));
        client.tool("check", json!({"file": "recipe.toml"}));
        client.call("resources/list", json!({}));
        client.send(&json!({"jsonrpc": "2.0", "id": "x", "method": "no/such"}));
        client.end();
    }
}

#[test]
fn resources_prompts_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("train.jsonl"), "{}\n").unwrap();
    let mut client = Client::start(dir.path());
    let listed = client.call("resources/list", json!({}))["result"]["resources"].clone();
    let skill = listed[0]["uri"].as_str().unwrap();
    assert!(skill.starts_with("skill://") && skill.ends_with("/SKILL.md"), "{skill}");
    let text = client.call("resources/read", json!({"uri": skill}))["result"]["contents"][0]["text"].clone();
    assert!(text.as_str().unwrap().contains("tallow render"));
    for resource in listed.as_array().unwrap() {
        let read = client.call("resources/read", json!({"uri": resource["uri"]}));
        assert!(read["result"]["contents"][0]["text"].as_str().is_some_and(|text| !text.is_empty()), "{resource}");
    }
    for uri in ["run://no-such/log", "file:///etc/passwd", "skill://train-sentence-transformers-rs/../Cargo.toml", "x"]
    {
        let answer = client.call("resources/read", json!({"uri": uri}));
        assert!(answer["error"]["message"].as_str().unwrap().contains("hint: "), "{uri}: {answer}");
    }
    let file = format!("file://{}", dir.path().canonicalize().unwrap().join("train.jsonl").display());
    assert_eq!(client.call("resources/read", json!({"uri": file}))["result"]["contents"][0]["text"], "{}\n");

    let prompt = client.call("prompts/get", json!({"name": "train_a_reranker", "arguments": {"task": "order hits"}}));
    let text = prompt["result"]["messages"][0]["content"]["text"].as_str().unwrap();
    assert!(text.contains("order hits") && text.contains("CrossEncoder"), "{text}");
    assert!(
        client.call("prompts/get", json!({"name": "train"}))["error"]["message"].as_str().unwrap().contains("train_a_")
    );

    let mut complete = |reference: Value, name: &str, value: &str| {
        let argument = json!({"name": name, "value": value});
        client.call("completion/complete", json!({"ref": reference, "argument": argument}))["result"]["completion"]["values"].clone()
    };
    let prompt = json!({"type": "ref/prompt", "name": "train_a_retriever"});
    assert_eq!(complete(prompt.clone(), "data", "tr"), json!(["train.jsonl"]));
    assert!(complete(prompt, "base", "sentence-transformers/").as_array().is_some_and(|all| !all.is_empty()));
    let run = json!({"type": "ref/resource", "uri": "run://{id}/{part}"});
    assert_eq!(complete(run, "part", "re"), json!(["recipe", "report"]));
    let page = json!({"type": "ref/resource", "uri": "skill://train-sentence-transformers-rs/references/{page}"});
    assert_eq!(complete(page, "page", "troub"), json!(["troubleshooting.md"]));
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
