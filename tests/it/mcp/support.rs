//! Servers, recipes and clients for the tests of MCP.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, Implementation,
    ProgressNotificationParam, ResourceUpdatedNotificationParam,
};
use rmcp::service::{NotificationContext, RunningService};
use rmcp::{ClientHandler, RoleClient};
use serde_json::Value;

use crate::support::{copy_dir, project};

/// A recipe on twenty scored pairs that takes `steps` steps of a few milliseconds.
pub fn small_recipe(dir: &Path, steps: usize) {
    let rows = std::fs::read_to_string(project("tests/golden/curves_scored.jsonl")).unwrap();
    let some: Vec<&str> = rows.lines().take(20).collect();
    std::fs::write(dir.join("train.jsonl"), some.join("\n") + "\n").unwrap();
    copy_dir(&project("tests/fixtures/tiny-bert"), &dir.join("tiny-bert"));
    let recipe = format!(
        r#"
run_name = "small"
[model]
base = "tiny-bert"
[[train_dataset]]
path = "train.jsonl"
columns = ["sentence1", "sentence2"]
label = "score"
[loss]
name = "CoSENTLoss"
[[evaluator]]
type = "EmbeddingSimilarityEvaluator"
name = "dev"
path = "train.jsonl"
[args]
max_steps = {steps}
per_device_train_batch_size = 4
logging_steps = 5
"#
    );
    std::fs::write(dir.join("recipe.toml"), recipe).unwrap();
}

/// The program with its caches in `dir`.
pub fn tallow(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallow"));
    command.current_dir(dir).env("XDG_CACHE_HOME", dir.join(".cache")).env("HF_HUB_OFFLINE", "1");
    command
}

/// What a command answers as JSON.
pub fn ask(dir: &Path, arguments: &[&str]) -> Value {
    let out = tallow(dir).args(arguments).arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}{}", String::from_utf8_lossy(&out.stderr)))
}

/// A server over HTTP, killed when it goes out of scope.
pub struct HttpServer {
    child: Child,
    pub address: String,
}

impl HttpServer {
    pub fn start(dir: &Path, token: Option<&str>, arguments: &[&str]) -> Self {
        let mut command = tallow(dir);
        command.args(["mcp", "--http", "127.0.0.1:0"]).args(arguments).env_remove("TALLOW_MCP_TOKEN");
        if let Some(token) = token {
            command.env("TALLOW_MCP_TOKEN", token);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split("/mcp").next());
        let address = address.unwrap_or_else(|| panic!("no address: {line}")).to_owned();
        Self { child, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that remembers what it was told.
#[derive(Clone, Default)]
pub struct Listening {
    pub tasks: bool,
    pub progress: Arc<Mutex<Vec<ProgressNotificationParam>>>,
    pub updated: Arc<Mutex<Vec<String>>>,
}

impl ClientHandler for Listening {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder();
        let capabilities = if self.tasks { capabilities.enable_tasks().build() } else { capabilities.build() };
        ClientConfig::new(capabilities, Implementation::new("test", "1"))
    }

    async fn on_progress(&self, told: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.lock().unwrap().push(told);
    }

    async fn on_resource_updated(&self, told: ResourceUpdatedNotificationParam, _: NotificationContext<RoleClient>) {
        self.updated.lock().unwrap().push(told.uri);
    }
}

pub type Session = RunningService<RoleClient, Listening>;

/// A call as it is answered.
pub async fn call_once(session: &Session, tool: &str, arguments: Value) -> CallToolResponse {
    let arguments = arguments.as_object().unwrap().clone();
    let begun = std::time::Instant::now();
    let request = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
    let answer = session.call_tool_once(request).await.unwrap();
    assert!(begun.elapsed().as_secs_f64() < 25.0, "{tool} took {:?}", begun.elapsed());
    answer
}

/// The structured answer of a call, made again while the tool is at work.
pub async fn call(session: &Session, tool: &str, arguments: Value) -> Value {
    loop {
        let CallToolResponse::Complete(result) = call_once(session, tool, arguments.clone()).await else {
            panic!("{tool}: not an answer");
        };
        assert_ne!(result.is_error, Some(true), "{tool}: {:?}", result.content);
        let answer = result.structured_content.unwrap();
        // an answer of a tool that may take long stands in `result`
        match answer["state"].as_str() {
            Some("running") if answer.get("run_id").is_none() => {}
            Some("done") if answer.get("result").is_some() => return answer["result"].clone(),
            _ => return answer,
        }
    }
}
