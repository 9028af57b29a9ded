//! The whole path with rmcp's client, over stdio and HTTP, as clients of both protocols go it.

use std::path::Path;
use std::time::{Duration, Instant};

use rmcp::ClientServiceExt;
use rmcp::model::{
    CallToolResponse, CancelTaskParams, GetTaskParams, ProtocolVersion, ReadResourceRequestParams, ResourceContents,
    SubscribeRequestParams, SubscriptionFilter, TaskPayload, TaskStatus,
};
use rmcp::service::ClientLifecycleMode;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use serde_json::{Value, json};

use super::support::{HttpServer, Listening, Session, call, call_once, small_recipe, tallow};
use crate::support::{copy_dir, project, shared};

fn old() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

fn new() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

async fn on_stdio(dir: &Path, listening: Listening, lifecycle: ClientLifecycleMode) -> Session {
    let mut command = tokio::process::Command::from(tallow(dir));
    command.arg("mcp");
    let server = TokioChildProcess::new(command).unwrap();
    listening.serve_with_lifecycle(server, lifecycle).await.unwrap()
}

async fn on_http(server: &HttpServer, listening: Listening, lifecycle: ClientLifecycleMode) -> Session {
    let transport = StreamableHttpClientTransport::from_uri(server.url());
    listening.serve_with_lifecycle(transport, lifecycle).await.unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn text(contents: &[ResourceContents]) -> String {
    match &contents[0] {
        ResourceContents::TextResourceContents { text, .. } => text.clone(),
        other => panic!("{other:?}"),
    }
}

async fn read(session: &Session, uri: String) -> String {
    text(&session.read_resource(ReadResourceRequestParams::new(uri)).await.unwrap().contents)
}

/// From words to an entry in the log of experiments, all of it by tools.
async fn path(session: &Session, listening: &Listening, output: &str) {
    let chosen = call(session, "choose_model_type", json!({"task": "Score how similar two sentences are"})).await;
    let model_type = chosen["model_type"].clone();
    let seen = call(session, "inspect_dataset", json!({"data": "train.jsonl", "eval": "dev.jsonl"})).await;
    assert_eq!(seen["rows"], 300, "{seen}");
    let given = json!({"model_type": model_type, "data": "train.jsonl", "eval": "dev.jsonl", "base": "tiny-bert"});
    let advice = call(session, "recommend_loss", given.clone()).await;
    let mut wanted = given;
    wanted["settings"] = advice["settings"].clone();
    wanted["set"] = json!(["args.max_steps=30", "args.logging_steps=1"]);
    wanted["output"] = json!(output);
    let written = call(session, "render_template", wanted).await;
    assert_eq!(written["losses"][0], advice["losses"][0]["name"], "{written}");
    assert_eq!(call(session, "check", json!({"file": output})).await["ok"], true);
    let tested = call(session, "smoke_test", json!({"recipe": output})).await;
    assert_eq!(tested["ok"], true, "{tested}");

    let started = call(session, "run", json!({"recipe": output})).await;
    let id = started["run_id"].as_str().unwrap().to_owned();
    let ended = loop {
        let status = call(session, "run_status", json!({"run": id, "wait_s": 20})).await;
        if !["running", "queued"].contains(&status["state"].as_str().unwrap()) {
            break status;
        }
    };
    assert_eq!(ended["state"], "done", "{ended}");
    assert!(ended["verdict"].is_string() && ended["score"].is_f64() && ended["baseline"].is_f64(), "{ended}");
    {
        let told = listening.progress.lock().unwrap();
        assert!(told.iter().any(|told| told.message.as_ref().is_some_and(|text| text.contains("step"))), "{told:?}");
    }
    for (part, wanted) in [
        ("log", "VERDICT"),
        ("metrics", "\"loss\""),
        ("recipe", "CoSENTLoss"),
        ("card", "sentence-transformers"),
        ("report", "<html"),
        ("status", "\"done\""),
    ] {
        let text = read(session, format!("run://{id}/{part}")).await;
        assert!(text.contains(wanted), "{part}: {text}");
    }
    let first = read(session, format!("run://{id}/log?from=1&lines=2")).await;
    assert_eq!(first.lines().count(), 2, "{first}");
    let pictured = call_once(session, "run_status", json!({"run": id, "curves": true})).await;
    let CallToolResponse::Complete(pictured) = pictured else { panic!("not an answer") };
    let pictures: Vec<_> = pictured.content.iter().filter_map(|block| block.as_image()).collect();
    assert_eq!(pictures.len(), 2, "loss and metric");
    assert!(pictures.iter().all(|picture| picture.mime_type == "image/png" && picture.data.starts_with("iVBOR")));
    let logged = call(session, "log_experiment", json!({"run": id, "learned": "thirty steps are few"})).await;
    assert!(logged.to_string().contains(&id), "{logged}");
    let log = read(session, "experiments://log".to_owned()).await;
    assert!(log.contains(&id) && log.contains("thirty steps are few"), "{log}");
}

fn real_data(dir: &Path) -> Option<()> {
    for (from, to, rows) in [("data/stsb/train.jsonl", "train.jsonl", 300), ("data/stsb/dev.jsonl", "dev.jsonl", 100)] {
        let text = std::fs::read_to_string(shared(from)?).unwrap();
        let some: Vec<&str> = text.lines().take(rows).collect();
        std::fs::write(dir.join(to), some.join("\n") + "\n").unwrap();
    }
    copy_dir(&project("tests/fixtures/tiny-bert"), &dir.join("tiny-bert"));
    Some(())
}

#[test]
fn the_whole_path_over_stdio() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = real_data(dir.path()) else { return };
    runtime().block_on(async {
        for (lifecycle, output) in [(old(), "old.toml"), (new(), "new.toml")] {
            let listening = Listening::default();
            let session = on_stdio(dir.path(), listening.clone(), lifecycle).await;
            assert!(session.list_all_tools().await.unwrap().len() <= 12);
            path(&session, &listening, output).await;
            session.cancel().await.unwrap();
        }
    });
}

#[test]
fn the_whole_path_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = real_data(dir.path()) else { return };
    let server = HttpServer::start(dir.path(), None, &[]);
    runtime().block_on(async {
        for (lifecycle, output) in [(old(), "old.toml"), (new(), "new.toml")] {
            let listening = Listening::default();
            let session = on_http(&server, listening.clone(), lifecycle).await;
            path(&session, &listening, output).await;
            session.cancel().await.unwrap();
        }
    });
}

async fn until_ended(session: &Session, id: &str) -> TaskPayload {
    let begun = Instant::now();
    loop {
        let seen = session.peer().get_task(GetTaskParams::new(id.to_owned())).await.unwrap().task;
        if seen.status().is_terminal() {
            return seen.payload;
        }
        assert_eq!(seen.task.ttl_ms.is_none(), id.starts_with("run:"), "a run's task does not expire");
        assert!(begun.elapsed() < Duration::from_secs(120), "{seen:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A client that follows tasks gets a run as one; the server may end meanwhile and the run does not.
#[test]
fn runs_are_tasks_and_outlive_the_server() {
    let dir = tempfile::tempdir().unwrap();
    small_recipe(dir.path(), 400);
    runtime().block_on(async {
        for lifecycle in [old(), new()] {
            let follower = || Listening { tasks: true, ..Listening::default() };
            let session = on_stdio(dir.path(), follower(), lifecycle.clone()).await;
            let answer = call_once(&session, "run", json!({"recipe": "recipe.toml", "force": true})).await;
            let CallToolResponse::Task(created) = answer else { panic!("no task") };
            let id = created.task.task_id.clone();
            assert!(id.starts_with("run:small-") && created.task.ttl_ms.is_none(), "{created:?}");
            session.cancel().await.unwrap();

            let session = on_stdio(dir.path(), follower(), lifecycle.clone()).await;
            let TaskPayload::Completed { result } = until_ended(&session, &id).await else { panic!("not completed") };
            let status = &result["structuredContent"];
            assert_eq!((&status["state"], &status["step"]), (&json!("done"), &json!(400)), "{status}");

            // stopped at the client's wish, and only then
            let recipe = json!({"recipe": "recipe.toml", "force": true, "set": ["args.max_steps=100000"]});
            let CallToolResponse::Task(created) = call_once(&session, "run", recipe).await else { panic!("no task") };
            let id = created.task.task_id;
            while session
                .peer()
                .get_task(GetTaskParams::new(id.clone()))
                .await
                .unwrap()
                .task
                .task
                .status_message
                .is_none_or(|line| !line.contains("step"))
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            session.peer().cancel_task(CancelTaskParams::new(id.clone())).await.unwrap();
            assert_eq!(until_ended(&session, &id).await.status(), TaskStatus::Cancelled);
            let unknown = session.peer().get_task(GetTaskParams::new("run:no-such".to_owned())).await;
            assert!(unknown.is_err());
            session.cancel().await.unwrap();
        }
    });
}

#[test]
fn what_was_subscribed_to_is_told() {
    let dir = tempfile::tempdir().unwrap();
    small_recipe(dir.path(), 2000);
    runtime().block_on(async {
        // before 2026-07-28: one by one
        let listening = Listening::default();
        let session = on_stdio(dir.path(), listening.clone(), old()).await;
        let started = call(&session, "run", json!({"recipe": "recipe.toml", "force": true})).await;
        let uri = format!("run://{}/status", started["run_id"].as_str().unwrap());
        #[allow(deprecated)]
        session.subscribe(SubscribeRequestParams::new(uri.clone())).await.unwrap();
        let begun = Instant::now();
        while !listening.updated.lock().unwrap().contains(&uri) {
            assert!(begun.elapsed() < Duration::from_secs(30), "nothing was told");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        session.cancel().await.unwrap();

        // since then: one stream
        let server = HttpServer::start(dir.path(), None, &[]);
        let session = on_http(&server, Listening::default(), new()).await;
        let started = call(&session, "run", json!({"recipe": "recipe.toml", "force": true})).await;
        let uri = format!("run://{}/status", started["run_id"].as_str().unwrap());
        let filter = SubscriptionFilter::builder().resource_subscriptions(vec![uri]).build();
        let mut subscription = session.peer().listen(filter).await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(60), subscription.next()).await;
        assert!(told.is_ok_and(|told| told.is_ok_and(|told| told.is_some())), "nothing was told");
        session.cancel().await.unwrap();
    });
}

/// What is asked while a tool is at work: it goes on, and the answer is there when it is asked for again.
#[test]
fn a_slow_call_of_a_task_follower_is_a_task() {
    let dir = tempfile::tempdir().unwrap();
    let line = |n: usize| {
        json!({"anchor": format!("word{n} a b c"), "positive": format!("b c word{n} d e f")}).to_string() + "\n"
    };
    let rows: String = (0..120_000).map(line).collect();
    std::fs::write(dir.path().join("many.jsonl"), rows).unwrap();
    runtime().block_on(async {
        let session = on_stdio(dir.path(), Listening { tasks: true, ..Listening::default() }, new()).await;
        let arguments = json!({"data": "many.jsonl"});
        let answer: Value = match call_once(&session, "inspect_dataset", arguments).await {
            CallToolResponse::Task(created) => match until_ended(&session, &created.task.task_id).await {
                TaskPayload::Completed { result } => result["structuredContent"].clone(),
                other => panic!("{other:?}"),
            },
            CallToolResponse::Complete(result) => {
                println!("skipped: this machine inspects 120,000 rows in less than two seconds");
                result.structured_content.unwrap()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((&answer["state"], &answer["result"]["rows"]), (&json!("done"), &json!(120_000)), "{answer}");
        session.cancel().await.unwrap();
    });
}
