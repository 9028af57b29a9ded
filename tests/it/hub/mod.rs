//! A stand-in for the Hub on this machine, as far as its interface over HTTP is used.

mod fetched;
mod published;
mod splits;

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
/// Bytes from which on a file is a large one.
const LARGE: usize = 50_000;
const TOKEN: &str = "hf_a_secret_of_this_test";

/// What was asked for.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    /// Without what stands behind `?`.
    path: String,
    token: Option<String>,
    /// The first byte that is wanted of a file.
    from: usize,
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
        let headers =
            [("X-Error-Message", message), ("Retry-After", "0")].map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
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
    let (mut token, mut length, mut from) = (None, 0, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "authorization" => token = value.trim().strip_prefix("Bearer ").map(str::to_owned),
            "range" => from = value.trim().strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?,
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path: target.split('?').next()?.to_owned(), token, from, body })
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
                return Reply::json(&files.iter().map(|(name, data)| entry(name, data)).collect());
            }
            let repository = repository.strip_prefix("models/").unwrap_or(repository);
            if let Some(data) =
                path.strip_prefix(&format!("/{repository}/resolve/{branch}/")).and_then(|name| files.get(name))
            {
                return file(data, asked.from);
            }
        }
    }
    Reply::refuse(404, "Repository not found")
}

/// Small files go by git's hash, which nobody looks at here, large ones by that of their content.
fn entry(name: &str, data: &[u8]) -> Value {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut entry = json!({"type": "file", "oid": hash[..40], "size": data.len(), "path": name});
    if data.len() > LARGE {
        entry["lfs"] = json!({"oid": hash, "size": data.len(), "pointerSize": 130});
    }
    entry
}

/// A file from a byte on.
fn file(data: &[u8], from: usize) -> Reply {
    let mut reply = Reply { status: 200, body: data[from..].to_vec(), ..Reply::default() };
    if from > 0 {
        let range = format!("bytes {from}-{}/{}", data.len() - 1, data.len());
        reply.headers.push(("Content-Range".to_owned(), range));
        reply.status = 206;
    }
    reply
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
        (own("models/owner/tiny", "next"), folder(&tiny)),
        (own("datasets/alone", "main"), data(&[("train.jsonl", 18)])),
        (
            own("datasets/owner/pairs", "main"),
            data(&[
                ("data/train-00000-of-00002.jsonl", 30),
                ("data/train-00001-of-00002.jsonl", 20),
                ("data/dev.jsonl", 10),
                ("README.md", 1),
            ]),
        ),
        (own("datasets/owner/halves", "main"), data(&[("train.jsonl", 50), ("validation.jsonl", 30)])),
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
