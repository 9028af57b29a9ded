//! What a teacher says is written beside the rows: the same numbers as the other commands give, and losses that learn them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::project;

fn command(arguments: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallow"));
    command.args(arguments).current_dir(dir).env("TALLOW_CACHE_DIR", dir.join("cache"));
    command
}

/// The JSON answer of a command that has to succeed.
fn answer(arguments: &[&str], dir: &Path) -> Value {
    let out = command(arguments, dir).arg("--json").output().unwrap();
    assert!(
        out.status.success(),
        "{arguments:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn fixture(name: &str) -> String {
    project(&format!("tests/fixtures/{name}")).display().to_string()
}

const ROWS: &str = r#"{"q": "who sells the chair", "p": "the sailor sells it", "n": "a doctor by the sea", "id": 7}
{"q": "where is the boat", "p": "by the sea", "n": "the \"chair\" is red", "id": 8}
{"q": "who sells the chair", "p": "a cook", "n": "by the sea", "id": 9}
"#;

fn close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b)),
        _ => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5,
    }
}

#[test]
fn embeddings_are_those_of_encode() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("rows.jsonl"), ROWS).unwrap();
    let teacher = fixture("tiny-bert");
    let said = answer(
        &[
            "teach",
            "rows.jsonl",
            "--teacher",
            &teacher,
            "--columns",
            "q,p",
            "--labels",
            "embedding",
            "--output",
            "o.jsonl",
        ],
        dir.path(),
    );
    assert_eq!(
        (&said["columns"], &said["left_out"], &said["rows"]),
        (&json!(["q", "p", "label"]), &json!(["n", "id"]), &json!(3))
    );
    answer(&["encode", &teacher, "--input", "rows.jsonl", "--column", "q", "--output", "e.jsonl"], dir.path());
    for ((row, own), given) in lines(&at("o.jsonl")).iter().zip(lines(&at("e.jsonl"))).zip(ROWS.lines()) {
        let given: Value = serde_json::from_str(given).unwrap();
        assert_eq!((&row["q"], &row["p"]), (&given["q"], &given["p"]));
        assert!(close(&row["label"], &own["embedding"]));
    }
    // both columns' one after the other, shorter, of length 1
    answer(
        &[
            "teach",
            "rows.jsonl",
            "--teacher",
            &teacher,
            "--columns",
            "q,p",
            "--labels",
            "embeddings",
            "--truncate-dim",
            "8",
            "--normalize",
            "--output",
            "b.jsonl",
        ],
        dir.path(),
    );
    for row in lines(&at("b.jsonl")) {
        let values: Vec<f64> = row["label"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(values.len(), 16);
        assert!(values.chunks(8).all(|part| (part.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5));
    }
    // a sparse teacher's have all dimensions
    answer(
        &["teach", "rows.jsonl", "--teacher", &fixture("tiny-splade"), "--columns", "q", "--output", "s.jsonl"],
        dir.path(),
    );
    assert!(lines(&at("s.jsonl"))[0]["label"].as_array().unwrap().len() > 100);
    // students learn them
    for (file, columns, loss, more) in [
        ("o.jsonl", "\"q\", \"p\"", "MSELoss", ""),
        ("b.jsonl", "\"q\", \"p\"", "EmbedDistillLoss", "projection_dim = 8"),
    ] {
        let recipe = format!(
            "[model]\nbase = \"{teacher}\"\n[train_dataset]\npath = \"{file}\"\ncolumns = [{columns}]\nlabel = \"label\"\n[loss]\nname = \
             \"{loss}\"\n{more}\n[args]\nper_device_train_batch_size = 2\n"
        );
        std::fs::write(at("r.toml"), recipe).unwrap();
        answer(&["smoke-test", "r.toml"], dir.path());
    }
}

#[test]
fn scores_are_those_of_the_teacher() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("rows.jsonl"), ROWS).unwrap();
    let lists = ROWS.lines().map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        format!("{}\n", json!({"q": row["q"], "all": [row["p"], row["n"]], "old": 1}))
    });
    std::fs::write(at("lists.jsonl"), lists.collect::<String>()).unwrap();
    let reranker = fixture("tiny-cross-encoder");
    let predict = |columns: &str, name: &str| -> Vec<f64> {
        answer(
            &[
                "predict",
                &reranker,
                "--input",
                "rows.jsonl",
                "--columns",
                columns,
                "--activation-fn",
                "Identity",
                "--output",
                name,
            ],
            dir.path(),
        );
        lines(&at(name)).iter().map(|row| row["score"].as_f64().unwrap()).collect()
    };
    let (positive, negative) = (predict("q,p", "p.jsonl"), predict("q,n", "n.jsonl"));
    let teach = |data: &str, more: &[&str]| -> Vec<Value> {
        let arguments = [&["teach", data, "--teacher", &reranker, "--output", "o.jsonl"], more].concat();
        answer(&arguments, dir.path());
        lines(&at("o.jsonl")).into_iter().map(|row| row["label"].clone()).collect()
    };
    let score = teach("rows.jsonl", &["--columns", "q,p"]);
    let margin = teach("rows.jsonl", &["--columns", "q,p,n"]);
    let scores = teach("rows.jsonl", &["--columns", "q,p,n", "--labels", "scores"]);
    let more = ROWS.lines().map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        format!("{}\n", json!({"q": row["q"], "p": row["p"], "n": row["n"], "m": row["n"]}))
    });
    std::fs::write(at("more.jsonl"), more.collect::<String>()).unwrap();
    let margins = teach("more.jsonl", &["--labels", "margin"]);
    let listed = teach("lists.jsonl", &["--columns", "q,all"]);
    let sigmoid = teach("rows.jsonl", &["--columns", "q,p", "--activation-fn", "Sigmoid"]);
    for i in 0..3 {
        let (p, n) = (positive[i], negative[i]);
        assert!(close(&score[i], &json!(p)) && close(&margin[i], &json!(p - n)));
        assert!(close(&scores[i], &json!([p, n])) && close(&listed[i], &json!([p, n])));
        assert!(close(&margins[i], &json!([p - n, p - n])));
        assert!(close(&sigmoid[i], &json!(1.0 / (1.0 + (-p).exp()))));
    }
    // encoders say how similar texts are
    for teacher in ["tiny-bert", "tiny-splade", "tiny-colbert", "tiny-inference-free"] {
        let said = answer(
            &["teach", "rows.jsonl", "--teacher", &fixture(teacher), "--columns", "q,p,n", "--output", "o.jsonl"],
            dir.path(),
        );
        assert_eq!(said["labels"], "margin", "{teacher}");
        let scored = answer(
            &[
                "teach",
                "rows.jsonl",
                "--teacher",
                &fixture(teacher),
                "--columns",
                "q,p,n",
                "--labels",
                "scores",
                "--label",
                "scores",
                "--output",
                "s.jsonl",
            ],
            dir.path(),
        );
        assert!(scored["min"].as_f64().unwrap() <= scored["mean"].as_f64().unwrap());
        let (margins, rows) = (lines(&at("o.jsonl")), lines(&at("s.jsonl")));
        for (margin, row) in margins.iter().zip(&rows) {
            let of = |i: usize| row["scores"][i].as_f64().unwrap();
            assert!(close(&margin["label"], &json!(of(0) - of(1))), "{teacher}");
        }
        let found = answer(
            &["search", &fixture(teacher), "--corpus", "rows.jsonl", "--column", "p", "--query", "where is the boat"],
            dir.path(),
        );
        let hits = found["queries"][0]["hits"].as_array().unwrap();
        if let Some(hit) = hits.iter().find(|hit| hit["text"] == "by the sea") {
            assert!(close(&hit["score"], &rows[1]["scores"][0]), "{teacher}: {hit} {}", rows[1]);
        }
    }
    // and students learn them
    let bert = fixture("tiny-bert");
    for (model, loss, labels) in [
        ("SentenceTransformer", "MarginMSELoss", "margin"),
        ("CrossEncoder", "MarginMSELoss", "margin"),
        ("SentenceTransformer", "DistillKLDivLoss", "scores"),
    ] {
        teach("rows.jsonl", &["--columns", "q,p,n", "--labels", labels]);
        let recipe = format!(
            "model_type = \"{model}\"\n[model]\nbase = \"{bert}\"\n[train_dataset]\npath = \"o.jsonl\"\ncolumns = [\"q\", \"p\", \"n\"]\n\
             label = \"label\"\n[loss]\nname = \"{loss}\"\n[args]\nper_device_train_batch_size = 2\nmax_steps = 2\n"
        );
        std::fs::write(at("r.toml"), recipe).unwrap();
        // the gradients of the reranker's one bias cancel in a difference of scores, which is no fault
        answer(&["smoke-test", "r.toml"], dir.path());
        answer(&["run", "r.toml", "--force"], dir.path());
    }
}

#[test]
fn a_killed_call_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let rows = (0..12_000).map(|i| {
        format!("{{\"a\": \"the sailor sells chair {i} by the sea and the doctor does not\", \"b\": \"row {i}\"}}\n")
    });
    std::fs::write(at("rows.jsonl"), rows.collect::<String>()).unwrap();
    let teacher = fixture("tiny-bert");
    let arguments = |output: &'static str| {
        ["teach", "rows.jsonl", "--teacher", &teacher, "--columns", "a", "--output", output].map(str::to_owned)
    };
    let part = at(".o.jsonl.part");
    let mut child = command(&arguments("o.jsonl").each_ref().map(String::as_str), dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while std::fs::metadata(&part).map_or(0, |meta| meta.len()) == 0 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(part.exists() && !at("o.jsonl").exists(), "it was done before it could be killed");
    // half a line, as a killed process leaves it
    let mut half = std::fs::read(&part).unwrap();
    half.extend(b"{\"a\": \"the sai");
    std::fs::write(&part, half).unwrap();
    let whole = answer(&arguments("whole.jsonl").each_ref().map(String::as_str), dir.path());
    let resumed = answer(&arguments("o.jsonl").each_ref().map(String::as_str), dir.path());
    assert_eq!((whole["resumed"].as_u64(), whole["rows"].as_u64()), (Some(0), Some(12_000)));
    assert!(resumed["resumed"].as_u64().unwrap() > 0, "{resumed}");
    assert!(std::fs::read(at("o.jsonl")).unwrap() == std::fs::read(at("whole.jsonl")).unwrap());
    assert!(!part.exists() && !at(".o.jsonl.part-of").exists());
}

#[test]
fn what_cannot_be_taught_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    std::fs::write(dir.path().join("gap.jsonl"), format!("{ROWS}{{\"q\": \"x\", \"p\": null, \"n\": \"y\"}}\n"))
        .unwrap();
    let (bert, reranker, colbert) = (fixture("tiny-bert"), fixture("tiny-cross-encoder"), fixture("tiny-colbert"));
    for (data, teacher, more, message) in [
        ("rows.jsonl", &reranker, &["--columns", "q", "--labels", "embedding"][..], "has no embeddings to teach"),
        ("rows.jsonl", &colbert, &["--columns", "q", "--labels", "embedding"], "a vector for each token"),
        (
            "rows.jsonl",
            &bert,
            &["--columns", "q,p", "--labels", "margin"],
            "`margin` cannot be taught of 2 column(s): `q`, `p`",
        ),
        ("rows.jsonl", &bert, &["--columns", "q,p", "--normalize"], "are for embeddings"),
        ("rows.jsonl", &bert, &["--columns", "q,x"], "no column `x` in `rows.jsonl`"),
        ("rows.jsonl", &bert, &["--columns", "q,p,p"], "the column `p` is named twice"),
        ("rows.jsonl", &bert, &["--columns", "q,p", "--activation-fn", "Sigmoid"], "`activation_fn` is for rerankers"),
        ("rows.jsonl", &bert, &["--columns", "q", "--corpus-prompt", "d: "], "are for documents that are scored"),
        ("rows.jsonl", &reranker, &["--columns", "q,p", "--corpus-prompt", "d: "], "has one prompt, before the pair"),
        ("rows.jsonl", &bert, &["--columns", "q", "--query-prompt-name", "nobody"], "with `query_prompt`"),
        ("rows.jsonl", &bert, &["--columns", "q,p", "--label", "p"], "`p` is a column of texts"),
        ("rows.jsonl", &bert, &["--columns", "q,id"], "column `id` of `rows.jsonl` holds numbers, not text"),
        ("gap.jsonl", &bert, &["--columns", "q,p,n"], "`gap.jsonl` line 4, column `p`: null instead of text"),
        ("rows.jsonl", &bert, &["--columns", "q,p", "--query-prompt-name", "nobody"], "`nobody`"),
    ] {
        let arguments = [&["teach", data, "--teacher", teacher, "--output", "o.jsonl"], more].concat();
        let out = command(&arguments, dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(message), "{more:?}: {text}");
        assert!(!dir.path().join("o.jsonl").exists());
    }
    let kept = answer(
        &[
            "teach",
            "gap.jsonl",
            "--teacher",
            &bert,
            "--output",
            "o.jsonl",
            "--columns",
            "q,p,n",
            "--on-bad-row",
            "skip",
        ],
        dir.path(),
    );
    assert_eq!((&kept["rows"], &kept["rows_skipped"]), (&json!(3), &json!(1)));
    // its own data, by whatever name
    std::os::unix::fs::symlink("rows.jsonl", dir.path().join("link.jsonl")).unwrap();
    for output in ["rows.jsonl", "link.jsonl"] {
        let arguments = ["teach", "rows.jsonl", "--teacher", &bert, "--columns", "q", "--output", output];
        let out = command(&arguments, dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains("another name"), "{text}");
        assert_eq!(std::fs::read_to_string(dir.path().join("rows.jsonl")).unwrap(), ROWS);
    }
}

#[test]
fn what_is_taught_follows_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("one.txt"), "the sailor sells it\nby the sea\n").unwrap();
    // a teacher with prompts
    let teacher = at("teacher");
    for entry in walk(Path::new(&fixture("tiny-bert"))) {
        let to = teacher.join(entry.strip_prefix(fixture("tiny-bert")).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&entry, to).unwrap();
    }
    let config = teacher.join("config_sentence_transformers.json");
    let mut described: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    described["prompts"] = json!({"query": "who sells ", "document": "where is ", "plain": "the "});
    described["default_prompt_name"] = json!("plain");
    std::fs::write(&config, described.to_string()).unwrap();
    let teacher = teacher.to_str().unwrap();
    // one column is embedded, with the prompt of texts of no role
    let said = answer(&["teach", "one.txt", "--teacher", teacher, "--normalize", "--output", "o.jsonl"], dir.path());
    assert_eq!((&said["labels"], &said["columns"]), (&json!("embedding"), &json!(["text", "label"])));
    answer(&["encode", teacher, "--input", "one.txt", "--normalize", "--output", "e.jsonl"], dir.path());
    for (row, own) in lines(&at("o.jsonl")).iter().zip(lines(&at("e.jsonl"))) {
        assert!(close(&row["label"], &own["embedding"]), "{row} {own}");
    }
    // rows of which nobody knows what they are made of are not gone on with, and that is said
    std::fs::write(at(".o.jsonl.part"), "{\"label\": 1.0}\n").unwrap();
    let out = command(&["teach", "one.txt", "--teacher", teacher, "--output", "o.jsonl"], dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && text.contains("1 rows in `.o.jsonl.part`") && text.contains("thrown away"),
        "{text}"
    );
    assert_eq!(lines(&at("o.jsonl")).len(), 2);
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_run_asks_its_teacher_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    let (bert, reranker) = (fixture("tiny-bert"), fixture("tiny-cross-encoder"));
    let cases = [
        (
            "SentenceTransformer",
            &bert,
            &bert,
            "MSELoss",
            &["q"][..],
            "labels = \"embedding\"",
            &["--labels", "embedding"][..],
        ),
        ("SentenceTransformer", &bert, &reranker, "MarginMSELoss", &["q", "p", "n"], "", &[]),
        (
            "SparseEncoder",
            &bert,
            &bert,
            "SparseMarginMSELoss",
            &["q", "p", "n"],
            "query_prompt = \"q: \"",
            &["--query-prompt", "q: "],
        ),
        ("CrossEncoder", &reranker, &reranker, "MSELoss", &["q", "p"], "", &[]),
    ];
    for (i, (model_type, base, teacher, loss, columns, settings, more)) in cases.into_iter().enumerate() {
        let splade = if model_type == "SparseEncoder" {
            "[loss.splade]\ndocument_regularizer_weight = 0.003\nquery_regularizer_weight = 0.005\n"
        } else {
            ""
        };
        let recipe = format!(
            "run_name = \"r{i}\"\nmodel_type = \"{model_type}\"\n[model]\nbase = \"{base}\"\n[train_dataset]\npath = \"rows.jsonl\"\n\
             columns = {columns:?}\nlimit = 2\n[train_dataset.teacher]\nmodel = \"{teacher}\"\n{settings}\n[loss]\nname = \"{loss}\"\n\
             {splade}[args]\nmax_steps = 2\nper_device_train_batch_size = 2\n"
        );
        std::fs::write(dir.path().join("r.toml"), recipe).unwrap();
        let rows = dir.path().join("cache/rows");
        let _ = std::fs::remove_dir_all(&rows);
        let run = || {
            let out = command(&["run", "r.toml", "--force"], dir.path()).output().unwrap();
            let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert!(out.status.success(), "{loss}: {text}");
            text
        };
        assert!(run().contains("asking the teacher"));
        assert!(run().contains("the teacher was asked before"));
        let made = std::fs::read_dir(&rows).unwrap().map(|entry| entry.unwrap().path());
        let made: Vec<_> = made.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
        assert_eq!(made.len(), 1);
        let columns = columns.join(",");
        let arguments = ["teach", "rows.jsonl", "--teacher", teacher, "--columns", &columns, "--output", "o.jsonl"];
        answer(&[&arguments[..], more].concat(), dir.path());
        assert_eq!(lines(&made[0]), lines(&dir.path().join("o.jsonl"))[..2], "{loss}");
    }
    let recipe = std::fs::read_to_string(dir.path().join("r.toml")).unwrap();
    for (from, to, message) in [
        ("model = ", "labels = \"embedding\"\nmodel = ", "a CrossEncoder has no embeddings to teach"),
        ("model = ", "normalize = true\nmodel = ", "are for embeddings"),
        ("model = ", "query_prompt = \"\"\nquery_prompt_name = \"q\"\nmodel = ", "say the same in two ways"),
        ("model = ", "modell = ", "modell"),
        (
            "[train_dataset.teacher]\nmodel = ",
            "[train_dataset.teacher]\nmodel = \"no/where/at/all\" # ",
            "train_dataset.teacher.model",
        ),
    ] {
        let at = recipe.find("[train_dataset.teacher]").unwrap();
        let (head, tail) = recipe.split_at(at);
        std::fs::write(dir.path().join("r.toml"), format!("{head}{}", tail.replacen(from, to, 1))).unwrap();
        let out = command(&["run", "r.toml", "--force"], dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(message), "{to}: {text}");
    }
}
