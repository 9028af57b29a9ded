//! The Hub, from a stand-in on this machine: models and data sets come, models go, and every refusal is told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::project;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT: &str = "fedcba9876543210fedcba9876543210fedcba98";
const TOKEN: &str = "hf_a_secret_of_this_test";

/// What was asked for.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    /// Without what stands behind `?`.
    path: String,
    token: Option<String>,
    body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Clone, Default)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The connection ends after half of the body.
    cut: bool,
}

impl Reply {
    fn json(value: &Value) -> Self {
        Self { status: 200, body: value.to_string().into_bytes(), ..Self::default() }
    }

    fn refuse(status: u16, message: &str) -> Self {
        let headers = vec![("X-Error-Message".to_owned(), message.to_owned())];
        Self { status, headers, body: json!({"error": message}).to_string().into_bytes(), cut: false }
    }
}

type Trouble = Box<dyn Fn(&Asked) -> Option<Reply> + Send + Sync>;

/// Files of repositories, `models/owner/name` or `datasets/owner/name`, by branch.
type Repositories = BTreeMap<(String, String), BTreeMap<String, Vec<u8>>>;

struct Hub {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Hub {
    fn start(repositories: Repositories) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, trouble) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None::<Trouble>)));
        let (log, wrong, own, repositories) =
            (Arc::clone(&asked), Arc::clone(&trouble), address.clone(), Arc::new(repositories));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, wrong, own, repositories) =
                    (Arc::clone(&log), Arc::clone(&wrong), own.clone(), Arc::clone(&repositories));
                std::thread::spawn(move || {
                    let Some(question) = read(&stream) else { return };
                    log.lock().unwrap().push(question.clone());
                    let reply = wrong.lock().unwrap().as_ref().and_then(|trouble| trouble(&question));
                    answer(stream, &question, &reply.unwrap_or_else(|| reply_of(&question, &own, &repositories)));
                });
            }
        });
        Self { address, asked, trouble }
    }

    fn trouble(&self, trouble: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) {
        *self.trouble.lock().unwrap() = Some(Box::new(trouble));
    }

    fn well(&self) {
        *self.trouble.lock().unwrap() = None;
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// A command in `dir`: whether it succeeded, and all that it printed.
    fn tallow(&self, arguments: &[&str], dir: &Path, more: &[(&str, &str)]) -> (bool, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_tallow"))
            .args(arguments)
            .current_dir(dir)
            .env("HF_ENDPOINT", &self.address)
            .env("HF_HOME", dir.join("hf"))
            .env("HF_TOKEN", TOKEN)
            .env("TALLOW_CACHE_DIR", dir.join("cache"))
            .env_remove("HF_HUB_OFFLINE")
            .envs(more.iter().copied())
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(!text.contains(TOKEN), "the token is shown: {text}");
        (out.status.success(), text)
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut token, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "authorization" => token = value.trim().strip_prefix("Bearer ").map(str::to_owned),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path: target.split('?').next()?.to_owned(), token, body })
}

fn answer(mut stream: TcpStream, asked: &Asked, reply: &Reply) {
    let mut head =
        format!("HTTP/1.1 {} Answer\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if asked.method != "HEAD" {
        let sent = if reply.cut { reply.body.len() / 2 } else { reply.body.len() };
        let _ = stream.write_all(&reply.body[..sent]);
    }
}

fn reply_of(asked: &Asked, own: &str, repositories: &Repositories) -> Reply {
    let path = asked.path.replace("%2F", "/");
    if path == "/api/whoami-v2" {
        return Reply::json(&json!({"name": "me", "type": "user"}));
    }
    if path == "/api/repos/create" {
        let wanted: Value = serde_json::from_slice(&asked.body).unwrap();
        let owner = wanted["organization"].as_str().unwrap_or("me");
        return Reply::json(&json!({"url": format!("{own}/{owner}/{}", wanted["name"].as_str().unwrap())}));
    }
    if path.contains("/branch/") {
        return Reply { status: 200, ..Reply::default() };
    }
    if path.contains("/preupload/") {
        let wanted: Value = serde_json::from_slice(&asked.body).unwrap();
        let files = wanted["files"].as_array().unwrap().iter();
        let files: Vec<Value> = files.map(|file| json!({"path": file["path"], "uploadMode": "regular"})).collect();
        return Reply::json(&json!({"files": files}));
    }
    if path.contains("/commit/") {
        return Reply::json(&json!({"commitUrl": "there", "commitOid": COMMIT}));
    }
    for ((repository, branch), files) in repositories {
        let commit = if branch == "main" { COMMIT } else { OTHER_COMMIT };
        for branch in [branch.as_str(), commit] {
            if path == format!("/api/{repository}/revision/{branch}")
                || (branch == "main" && path == format!("/api/{repository}"))
            {
                return Reply::json(&json!({"id": repository, "sha": commit}));
            }
            if path == format!("/api/{repository}/tree/{branch}") {
                let entries = files
                    .iter()
                    .map(|(name, data)| json!({"type": "file", "oid": "0", "size": data.len(), "path": name}));
                return Reply::json(&entries.collect());
            }
            let repository = repository.strip_prefix("models/").unwrap_or(repository);
            if let Some(data) =
                path.strip_prefix(&format!("/{repository}/resolve/{branch}/")).and_then(|name| files.get(name))
            {
                return file(data, commit);
            }
        }
    }
    Reply::refuse(404, "Repository not found")
}

/// A file; large ones go by the hash of their content.
fn file(data: &[u8], commit: &str) -> Reply {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = if data.len() > 50_000 { hash } else { hash[..40].to_owned() };
    let headers = vec![("ETag".to_owned(), format!("\"{etag}\"")), ("X-Repo-Commit".to_owned(), commit.to_owned())];
    Reply { status: 200, headers, body: data.to_vec(), cut: false }
}

fn folder(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![path.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let name = entry.strip_prefix(path).unwrap().display().to_string();
                files.insert(name, std::fs::read(entry).unwrap());
            }
        }
    }
    files
}

fn pairs(count: usize) -> Vec<u8> {
    let rows = std::fs::read_to_string(project("tests/golden/curves_pairs.jsonl")).unwrap();
    rows.lines().take(count).map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

fn hub() -> Hub {
    let own = |name: &str, branch: &str| (name.to_owned(), branch.to_owned());
    let data = |files: &[(&str, usize)]| files.iter().map(|(name, rows)| ((*name).to_owned(), pairs(*rows))).collect();
    let tiny = project("tests/fixtures/tiny-bert");
    Hub::start(BTreeMap::from([
        (own("models/owner/tiny", "main"), folder(&tiny)),
        (
            own("datasets/owner/pairs", "main"),
            data(&[
                ("data/train-00000-of-00002.jsonl", 30),
                ("data/train-00001-of-00002.jsonl", 20),
                ("data/dev.jsonl", 10),
                ("README.md", 1),
            ]),
        ),
        (own("datasets/owner/many", "main"), data(&[("pair/train.jsonl", 24), ("other/train.jsonl", 12)])),
        (own("datasets/owner/script", "main"), data(&[("load.py", 1)])),
        (own("datasets/owner/script", "refs/convert/parquet"), data(&[("default/train/0000.jsonl", 16)])),
    ]))
}

/// A recipe on a model and a data set of the Hub.
fn recipe(dir: &Path, dataset: &str, more: &str) {
    let text = format!(
        "run_name = \"small\"\n[model]\nbase = \"owner/tiny\"\n[train_dataset]\n{dataset}\ncolumns = [\"anchor\", \"positive\"]\n[loss]\n\
         name = \"MultipleNegativesRankingLoss\"\n[args]\nmax_steps = 2\nper_device_train_batch_size = 4\n{more}"
    );
    std::fs::write(dir.join("r.toml"), text).unwrap();
}

#[test]
fn models_and_data_sets_come_once() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let rows = |text: &str| text.lines().find(|line| line.contains(" rows, ")).unwrap_or_default().to_owned();
    for (dataset, wanted) in [
        ("id = \"owner/pairs\"", "50 rows"),
        ("id = \"owner/pairs\"\nsplit = \"validation\"", "10 rows"),
        ("id = \"owner/pairs\"\nsplit = \"train[:35]\"", "35 rows"),
        ("id = \"owner/many\"\nsubset = \"pair\"", "24 rows"),
        ("id = \"owner/script\"", "16 rows"),
    ] {
        recipe(dir.path(), dataset, "");
        let (passed, text) = hub.tallow(&["run", "r.toml"], dir.path(), &[]);
        assert!(passed && rows(&text).contains(wanted) && text.contains(" on the Hub, "), "{dataset}: {text}");
        assert!(hub.asked().iter().all(|asked| asked.token.as_deref() == Some(TOKEN)));
    }
    // what is here needs nobody
    recipe(dir.path(), "id = \"owner/pairs\"", "");
    for more in [&[][..], &[("HF_HUB_OFFLINE", "1")]] {
        let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), more);
        assert!(passed, "{text}");
        assert_eq!(hub.asked().len(), 0);
    }
    for (dataset, message, hint) in [
        ("id = \"owner/many\"", "`owner/many` has several subsets", "`other`, `pair`"),
        ("id = \"owner/many\"\nsubset = \"pairs\"", "`owner/many` has no subset `pairs`", "`other`, `pair`"),
        ("id = \"owner/pairs\"\nsplit = \"test\"", "`owner/pairs` has no split `test`", "`dev`, `train`"),
        ("id = \"owner/nobody\"", "`owner/nobody`: there is no such repository", "HF_TOKEN"),
        ("id = \"pairs\"", "`pairs` is no id of a data set", "owner/name"),
        ("id = \"owner/pairs\"\nsplit = \"train[5:9]\"", "`train[5:9]` is no split", "train[:1000]"),
        ("id = \"owner/pairs\"\npath = \"x.jsonl\"", "can't be combined with `id`", "leave one"),
        ("path = \"r.toml\"\nsubset = \"a\"", "is only for data sets from the Hub", "path"),
    ] {
        recipe(dir.path(), dataset, "");
        let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
        assert!(!passed && text.contains(message) && text.contains(hint), "{dataset}: {text}");
    }
    recipe(dir.path(), "id = \"owner/other\"", "");
    let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[("HF_HUB_OFFLINE", "true")]);
    assert!(!passed && text.contains("`owner/other` is not in the cache") && text.contains("HF_HUB_OFFLINE"), "{text}");
}

#[test]
fn nano_beir_comes_once() {
    let (nano, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    crate::nano::write(nano.path());
    let own = ("datasets/sentence-transformers/NanoBEIR-en".to_owned(), "main".to_owned());
    let hub = Hub::start(BTreeMap::from([(own, folder(nano.path()))]));
    let (bi, cross) = (project("tests/fixtures/tiny-bert"), project("tests/fixtures/tiny-cross-encoder"));
    for (model, evaluator) in [(&bi, "NanoBEIREvaluator"), (&cross, "CrossEncoderNanoBEIREvaluator")] {
        let arguments = ["evaluate", model.to_str().unwrap(), "--evaluator", evaluator, "--json"];
        let by_path = [&arguments[..], &["--path", nano.path().to_str().unwrap()]].concat();
        let metrics = |(done, text): (bool, String)| {
            assert!(done, "{text}");
            let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{text}"));
            let answer: Value = serde_json::from_str(line).unwrap();
            answer["metrics"].clone()
        };
        let fetched = metrics(hub.tallow(&arguments, dir.path(), &[]));
        assert_eq!(fetched, metrics(hub.tallow(&by_path, dir.path(), &[])));
    }
    // the second evaluator found them in the cache
    let paths: Vec<String> =
        hub.asked().into_iter().map(|asked| asked.path).filter(|path| path.contains("/tree/")).collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    let offline = [("HF_HUB_OFFLINE", "1")];
    let arguments = ["evaluate", bi.to_str().unwrap(), "--evaluator", "NanoBEIREvaluator", "--json"];
    assert!(hub.tallow(&arguments, dir.path(), &offline).0);
    let elsewhere = [&arguments[..], &["--set", "dataset_id=owner/none"]].concat();
    let (done, text) = hub.tallow(&elsewhere, dir.path(), &[]);
    assert!(!done && text.contains("`owner/none`"), "{text}");
}

#[test]
fn every_refusal_is_told() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    recipe(dir.path(), "id = \"owner/pairs\"", "");
    for (status, said, message, hint) in [
        (401, "Invalid credentials", "wants to know who asks (401)", "hf auth login"),
        (
            403,
            "Access to model owner/tiny is restricted",
            "refuses access (403): Access to model owner/tiny is restricted",
            "ask for access",
        ),
        (404, "Repository not found", "no such repository or revision", "check the id"),
        (429, "Too many requests", "too many requests (429)", "wait some minutes"),
        (500, "oops", "in trouble (500)", "later"),
    ] {
        hub.trouble(move |asked| asked.path.contains("owner/tiny").then(|| Reply::refuse(status, said)));
        let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
        assert!(
            !passed && text.contains(message) && text.contains(hint) && text.contains("`owner/tiny`"),
            "{status}: {text}"
        );
    }
    // a connection that is cut leaves nothing that would be taken for whole
    hub.trouble(|asked| {
        let cut = asked.method == "GET" && asked.path.ends_with("model.safetensors");
        cut.then(|| Reply {
            cut: true,
            ..file(&std::fs::read(project("tests/fixtures/tiny-bert/model.safetensors")).unwrap(), COMMIT)
        })
    });
    let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
    assert!(!passed && text.contains("`owner/tiny`: the Hub cannot be asked: the connection was cut"), "{text}");
    // nor do contents that are others
    hub.trouble(|asked| {
        let mut reply = file(&std::fs::read(project("tests/fixtures/tiny-bert/model.safetensors")).unwrap(), COMMIT);
        reply.body[1000] ^= 1;
        (asked.method == "GET" && asked.path.ends_with("model.safetensors")).then_some(reply)
    });
    let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
    assert!(!passed && text.contains("`model.safetensors` was damaged on its way"), "{text}");
    hub.well();
    let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
    assert!(passed, "{text}");
    // nobody there
    let tiny = project("tests/fixtures/tiny-bert");
    let away = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), "owner/new"], dir.path(), &away);
    assert!(!passed && text.contains("no connection") && text.contains("HF_ENDPOINT"), "{text}");
}

/// The files of a commit.
fn uploaded(asked: &[Asked]) -> BTreeMap<String, usize> {
    let commit = asked.iter().find(|asked| asked.path.contains("/commit/")).expect("nothing was committed");
    let lines = String::from_utf8(commit.body.clone()).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let file = |line: Value| {
        let content = line["value"]["content"].as_str()?.trim_end_matches('=').len() * 3 / 4;
        Some((line["value"]["path"].as_str()?.to_owned(), content))
    };
    lines.filter_map(file).collect()
}

#[test]
fn a_model_is_published_whole_or_kept() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let tiny = project("tests/fixtures/tiny-bert");
    let (passed, text) =
        hub.tallow(&["push", tiny.to_str().unwrap(), "owner/new", "--private", "--revision", "next"], dir.path(), &[]);
    assert!(
        passed && text.contains("published at") && text.contains("owner/new") && text.contains(&COMMIT[..10]),
        "{text}"
    );
    let asked = hub.asked();
    let want: BTreeMap<String, usize> = folder(&tiny).into_iter().map(|(name, data)| (name, data.len())).collect();
    assert_eq!(uploaded(&asked), want);
    let created: Value =
        serde_json::from_slice(&asked.iter().find(|a| a.path == "/api/repos/create").unwrap().body).unwrap();
    assert_eq!(
        (&created["private"], &created["organization"], &created["name"]),
        (&json!(true), &json!("owner"), &json!("new"))
    );
    for path in ["/api/models/owner/new/branch/next", "/api/models/owner/new/commit/next"] {
        assert!(asked.iter().any(|a| a.method == "POST" && a.path == path), "{asked:?}");
    }
    assert!(asked.iter().all(|asked| asked.token.as_deref() == Some(TOKEN)));
    // a name alone is the account's, and a repository that is there is used
    hub.trouble(|asked| {
        (asked.path == "/api/repos/create").then(|| Reply::refuse(409, "You already created this model repo"))
    });
    let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), "again", "--json"], dir.path(), &[]);
    assert!(passed && text.contains("me/again"), "{text}");
    // but what is to be private is not put where all can read
    for (visible, public) in [(true, false), (false, true)] {
        hub.trouble(move |asked| match asked.path.as_str() {
            "/api/repos/create" => Some(Reply::refuse(409, "You already created this model repo")),
            "/api/models/me/again" => Some(Reply::json(&json!({"id": "me/again", "private": visible}))),
            _ => None,
        });
        hub.asked();
        let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), "again", "--private"], dir.path(), &[]);
        assert_eq!(passed, visible, "{text}");
        assert_eq!(text.contains("`me/again` is there and public"), public, "{text}");
        assert_eq!(hub.asked().iter().any(|asked| asked.path.contains("/commit/")), visible);
    }
    // somebody else's is proposed to, not made
    hub.trouble(|asked| {
        (asked.path == "/api/repos/create").then(|| Reply::refuse(403, "You don't have the rights to create a model"))
    });
    let proposed = ["push", tiny.to_str().unwrap(), "owner/tiny", "--create-pr"];
    let (passed, text) = hub.tallow(&proposed, dir.path(), &[]);
    assert!(passed, "{text}");
    // a token that may make none still writes to what is there
    let (passed, text) = hub.tallow(&proposed[..3], dir.path(), &[]);
    assert!(passed, "{text}");
    let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), "owner/none"], dir.path(), &[]);
    assert!(!passed && text.contains("the rights to create"), "{text}");
    hub.well();
    std::fs::create_dir(dir.path().join("none")).unwrap();
    let (passed, text) = hub.tallow(&["push", "none", "owner/new"], dir.path(), &[]);
    assert!(!passed && text.contains("`none` is no model's folder"), "{text}");
    hub.asked();
    // a run publishes last
    recipe(dir.path(), "id = \"owner/pairs\"", "[hub]\npush_to_hub = true\nhub_private_repo = true\n");
    let (passed, text) = hub.tallow(&["run", "r.toml"], dir.path(), &[]);
    assert!(passed && text.contains("published at") && text.contains("me/small"), "{text}");
    let (_, status) = hub.tallow(&["status", "--json"], dir.path(), &[]);
    assert!(status.contains("/me/small\""), "{status}");
    let files = uploaded(&hub.asked());
    assert!(
        files.contains_key("model.safetensors")
            && files.contains_key("README.md")
            && files.contains_key("1_Pooling/config.json"),
        "{files:?}"
    );
    // and is kept when that fails
    hub.trouble(|asked| asked.path.contains("/commit/").then(|| Reply::refuse(403, "You may not write")));
    let (passed, text) = hub.tallow(&["run", "r.toml"], dir.path(), &[]);
    assert!(
        passed && text.contains("warning: not published: `me/small`: the Hub refuses access (403): You may not write"),
        "{text}"
    );
    assert!(text.contains("tallow push runs/") && text.contains("/model small --private` tries again"), "{text}");
    let (_, status) = hub.tallow(&["status", "--json"], dir.path(), &[]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert!(status["hub_error"].as_str().unwrap().contains("You may not write"), "{status}");
    // what could not be published is told before it is trained
    let runs = || std::fs::read_dir(dir.path().join("runs")).unwrap().count();
    let before = runs();
    let (passed, text) = hub.tallow(&["run", "r.toml"], dir.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert!(!passed && text.contains("`hub.push_to_hub`") && text.contains("forbids to publish"), "{text}");
    hub.trouble(|asked| (asked.path == "/api/whoami-v2").then(|| Reply::refuse(401, "Invalid username or password.")));
    let (passed, text) = hub.tallow(&["run", "r.toml"], dir.path(), &[]);
    assert!(!passed && text.contains("wants to know who asks"), "{text}");
    assert_eq!(runs(), before);
    hub.trouble(|asked| asked.path.contains("/commit/").then(|| Reply::refuse(403, "You may not write")));
    let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), "owner/new"], dir.path(), &[]);
    assert!(!passed && text.contains("You may not write"), "{text}");
    for (id, message) in [("a/b/c", "is not the id of a repository"), ("/x", "is not the id of a repository")] {
        let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), id], dir.path(), &[]);
        assert!(!passed && text.contains(message), "{text}");
    }
    let (passed, text) =
        hub.tallow(&["push", tiny.to_str().unwrap(), "owner/x"], dir.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert!(!passed && text.contains("forbids to publish"), "{text}");
}
