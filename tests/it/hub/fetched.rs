//! Models and data sets come from the Hub, once, whole or not at all, and every refusal is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::{COMMIT, Hub, LARGE, OTHER_COMMIT, Reply, TOKEN, file, folder, hub, recipe};
use crate::support::project;

fn weights() -> Vec<u8> {
    let weights = std::fs::read(project("tests/fixtures/tiny-bert/model.safetensors")).unwrap();
    assert!(weights.len() > LARGE);
    weights
}

#[test]
fn models_and_data_sets_come_once() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let rows = |text: &str| text.lines().find(|line| line.contains(" rows, ")).unwrap_or_default().to_owned();
    for (dataset, wanted) in [
        ("id = \"owner/pairs\"", "50 rows"),
        ("id = \"owner/pairs\"\nsplit = \"validation\"", "10 rows"),
        ("id = \"owner/pairs\"\nsplit = \"train[:35]\"", "35 rows"),
        ("id = \"owner/pairs\"\nsplit = \"train[10:16]+dev[-4:]\"", "10 rows"),
        ("id = \"owner/many\"\nsubset = \"pair\"", "24 rows"),
        ("id = \"owner/script\"", "16 rows"),
        ("id = \"alone\"", "18 rows"),
    ] {
        recipe(dir.path(), dataset, "");
        let (passed, text) = hub.tallow(&["run", "r.toml", "--force"], dir.path(), &[]);
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
        ("id = \"owner/pairs\"\nsplit = \"train[60:70]\"", "`train[60:70]` is none of the 50 rows", "train[:1000]"),
        ("id = \"owner/nobody\"", "`owner/nobody`: there is no such repository", "HF_TOKEN"),
        ("id = \"a b\"", "`a b` is no id of a data set", "owner/name"),
        ("id = \"owner/pairs\"\nsplit = \"train[5]\"", "`train[5]` is no split", "train[:1000]"),
        ("id = \"owner/pairs\"\npath = \"x.jsonl\"", "can't be combined with `id`", "leave one"),
        ("path = \"r.toml\"\nsubset = \"a\"", "is only for data sets from the Hub", "path"),
    ] {
        recipe(dir.path(), dataset, "");
        let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
        assert!(!passed && text.contains(message) && text.contains(hint), "{dataset}: {text}");
    }
    recipe(dir.path(), "id = \"owner/other\"", "");
    let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[("HF_HUB_OFFLINE", "true")]);
    assert!(
        !passed && text.contains("`owner/other` is not in the Hugging Face cache") && text.contains("HF_HUB_OFFLINE"),
        "{text}"
    );
}

#[test]
fn a_model_comes_at_a_revision_and_by_its_id_alone() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("texts.txt"), "one\ntwo\n").unwrap();
    let encode = |id: &str| hub.tallow(&["encode", id, "--input", "texts.txt", "--output", "e.npy"], dir.path(), &[]);
    let (passed, text) = encode("owner/tiny");
    assert!(passed, "{text}");
    assert!(hub.asked().iter().any(|asked| asked.path.ends_with("/model.safetensors")));
    let (passed, text) = encode("owner/tinny");
    assert!(
        !passed && text.contains("`owner/tinny`: there is no such repository") && text.contains("directory"),
        "{text}"
    );
    let (passed, text) = encode("owner/tiny/x");
    assert!(!passed && text.contains("there is no model at `owner/tiny/x`"), "{text}");
    hub.asked();
    recipe(dir.path(), "id = \"owner/pairs\"", "");
    let at = |revision: &str| {
        let set = format!("model.revision=\"{revision}\"");
        hub.tallow(&["smoke-test", "r.toml", "--set", &set], dir.path(), &[])
    };
    let (passed, text) = at("next");
    assert!(passed, "{text}");
    let asked = hub.asked();
    assert!(asked.iter().any(|asked| asked.path == "/api/models/owner/tiny/revision/next"), "{asked:?}");
    // its contents are the same, and are here
    assert!(!asked.iter().any(|asked| asked.path.contains("/owner/tiny/resolve/")), "{asked:?}");
    assert!(
        dir.path().join("hf/hub/models--owner--tiny/snapshots").join(OTHER_COMMIT).join("model.safetensors").is_file()
    );
    let (passed, text) = at("none");
    assert!(!passed && text.contains("`model.base`") && text.contains("no such repository or revision"), "{text}");
    let local = format!("model.base=\"{}\"", project("tests/fixtures/tiny-bert").display());
    let (passed, text) =
        hub.tallow(&["smoke-test", "r.toml", "--set", "model.revision=\"next\"", "--set", &local], dir.path(), &[]);
    assert!(!passed && text.contains("model.revision") && text.contains("comes from elsewhere"), "{text}");
}

#[test]
fn ids_without_an_owner_are_sent_on() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    hub.trouble(|asked| {
        let there = asked.path.replacen("/old", "/owner/pairs", 1);
        (there != asked.path).then(|| Reply {
            status: 307,
            headers: vec![("Location".to_owned(), there)],
            ..Reply::default()
        })
    });
    recipe(dir.path(), "id = \"old\"", "");
    let (passed, text) = hub.tallow(&["run", "r.toml", "--force"], dir.path(), &[]);
    assert!(passed && text.contains("50 rows"), "{text}");
    assert!(hub.asked().iter().all(|asked| asked.token.as_deref() == Some(TOKEN)));
    assert!(dir.path().join("hf/hub/datasets--old").is_dir());
}

#[test]
fn pull_asks_for_what_is_new() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let pull = |arguments: &[&str], more: &[(&str, &str)]| {
        let (passed, text) = hub.tallow(&[&["pull", "--json"], arguments].concat(), dir.path(), more);
        assert!(passed, "{text}");
        let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{text}"));
        serde_json::from_str::<Value>(line).unwrap()
    };
    let tiny = folder(&project("tests/fixtures/tiny-bert"));
    let wanted = tiny.keys().filter(|name| !name.ends_with(".md")).count();
    let first = pull(&["owner/tiny"], &[]);
    assert_eq!(
        (&first["repo_type"], &first["files"], &first["fetched"]),
        (&json!("model"), &json!(wanted), &json!(wanted))
    );
    assert!(first["folder"].as_str().unwrap().ends_with(COMMIT), "{first}");
    assert_eq!(
        std::fs::read(dir.path().join(first["folder"].as_str().unwrap()).join("model.safetensors")).unwrap(),
        weights()
    );
    // the main branch has moved, its contents have not
    hub.trouble(|asked| {
        (asked.path == "/api/models/owner/tiny/revision/main").then(|| Reply::json(&json!({"sha": OTHER_COMMIT})))
    });
    let second = pull(&["owner/tiny"], &[]);
    assert!(second["folder"].as_str().unwrap().ends_with(OTHER_COMMIT) && second["fetched"] == 0, "{second}");
    assert_eq!(pull(&["owner/tiny"], &[("HF_HUB_OFFLINE", "1")])["folder"], second["folder"]);
    hub.well();
    let data = pull(&["owner/pairs"], &[]);
    assert_eq!((&data["repo_type"], &data["files"]), (&json!("dataset"), &json!(3)));
    assert_eq!(pull(&["owner/script"], &[])["files"], 1);
    assert_eq!(pull(&["owner/tiny", "--revision", "next", "--repo-type", "model"], &[])["folder"], second["folder"]);
    for (arguments, message) in [
        (&["owner/none"][..], "`owner/none`: there is no such repository"),
        (&["owner/tiny", "--repo-type", "dataset"], "there is no such repository"),
        (&["owner/tiny", "--revision", "x"], "no such repository or revision"),
        (&["a/b/c"], "neither the id of a model nor of a data set"),
    ] {
        let (passed, text) = hub.tallow(&[&["pull"], arguments].concat(), dir.path(), &[]);
        assert!(!passed && text.contains(message), "{text}");
    }
    let (passed, text) = hub.tallow(&["pull", "owner/many"], dir.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert!(!passed && text.contains("`owner/many` is not in the Hugging Face cache"), "{text}");
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
    // the second evaluator found in the cache what the first had fetched
    let mut paths: Vec<String> =
        hub.asked().into_iter().map(|asked| asked.path).filter(|path| path.contains("/resolve/")).collect();
    let all = paths.len();
    assert!(paths.iter().any(|path| path.contains("/bm25/")), "{paths:?}");
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), all, "{paths:?}");
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
    for (status, said, message, hint, times) in [
        (401, "Invalid credentials", "wants to know who asks (401)", "hf auth login", 1),
        (
            403,
            "Access to model owner/tiny is restricted",
            "refuses access (403): Access to model owner/tiny is restricted",
            "ask for access",
            1,
        ),
        (404, "Repository not found", "no such repository or revision", "check the id", 1),
        (429, "Too many requests", "too many requests (429)", "wait some minutes", 5),
        (500, "oops", "in trouble (500)", "later", 5),
    ] {
        hub.trouble(move |asked| asked.path.contains("owner/tiny").then(|| Reply::refuse(status, said)));
        hub.asked();
        let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
        assert!(
            !passed && text.contains(message) && text.contains(hint) && text.contains("`owner/tiny`"),
            "{status}: {text}"
        );
        assert_eq!(hub.asked().len(), times, "{status}");
    }
    // what the Hub repeats of a token is not shown (`tallow` looks at all that is printed)
    hub.trouble(|asked| asked.path.contains("owner/tiny").then(|| Reply::refuse(403, &format!("{TOKEN} may not"))));
    let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
    assert!(!passed && text.contains("*** may not"), "{text}");
    // nobody there
    let tiny = project("tests/fixtures/tiny-bert");
    let away = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    for arguments in [&["push", tiny.to_str().unwrap(), "owner/new"][..], &["pull", "owner/tiny"]] {
        let (passed, text) = hub.tallow(arguments, dir.path(), &away);
        assert!(!passed && text.contains("no connection") && text.contains("HF_ENDPOINT"), "{text}");
    }
    let (passed, text) = hub.tallow(&["pull", "owner/tiny"], dir.path(), &[("HF_ENDPOINT", "nowhere")]);
    assert!(!passed && text.contains("`HF_ENDPOINT` is `nowhere`, which is no address"), "{text}");
}

#[test]
fn a_busy_hub_is_waited_for_as_long_as_it_asks() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let refusals = AtomicUsize::new(0);
    hub.trouble(move |asked| {
        let busy = asked.path.ends_with("/config.json") && refusals.fetch_add(1, Ordering::Relaxed) < 2;
        busy.then(|| {
            let headers = vec![("Retry-After".to_owned(), "1".to_owned())];
            Reply { status: 429, headers, ..Reply::default() }
        })
    });
    let begun = Instant::now();
    let (passed, text) = hub.tallow(&["pull", "owner/tiny"], dir.path(), &[]);
    assert!(passed && text.contains("too many requests (429), trying again in 1 s"), "{text}");
    assert!(begun.elapsed().as_secs() >= 2, "{text}");
    // who is to wait for an hour is told
    hub.trouble(|asked| {
        let headers = vec![("RateLimit".to_owned(), "\"api\";r=0;t=3600".to_owned())];
        asked.path.starts_with("/api/").then(|| Reply { status: 429, headers: headers.clone(), ..Reply::default() })
    });
    let (passed, text) = hub.tallow(&["pull", "owner/pairs"], dir.path(), &[]);
    assert!(!passed && text.contains("too many requests (429)") && !text.contains("trying again"), "{text}");
}

#[test]
fn what_was_cut_goes_on_where_it_was() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let is_weights = |path: &str| path.ends_with("/model.safetensors");
    // every connection ends after half of what it was to bring
    let cuts = AtomicUsize::new(0);
    hub.trouble(move |asked| {
        let cut = is_weights(&asked.path) && cuts.fetch_add(1, Ordering::Relaxed) < 2;
        cut.then(|| Reply { cut: true, ..file(&weights(), asked.from) })
    });
    let (passed, text) = hub.tallow(&["pull", "owner/tiny"], dir.path(), &[]);
    assert!(passed && text.contains("the connection was cut, trying again") && text.contains("goes on at"), "{text}");
    let size = weights().len();
    let from: Vec<usize> = hub.asked().iter().filter(|asked| is_weights(&asked.path)).map(|asked| asked.from).collect();
    assert_eq!(from, [0, size / 2, size / 2 + size.div_ceil(2) / 2]);
    let model = dir.path().join("hf/hub/models--owner--tiny");
    assert_eq!(std::fs::read(model.join("snapshots").join(COMMIT).join("model.safetensors")).unwrap(), weights());

    // so does one that another process began
    std::fs::remove_dir_all(&model).unwrap();
    hub.trouble(move |asked| is_weights(&asked.path).then(|| Reply { cut: true, ..file(&weights(), asked.from) }));
    let (passed, text) = hub.tallow(&["pull", "owner/tiny"], dir.path(), &[]);
    assert!(!passed && text.contains("the connection was cut") && text.contains("goes on there"), "{text}");
    // nothing of it would be taken for whole
    let (passed, text) = hub.tallow(&["pull", "owner/tiny"], dir.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert!(!passed && text.contains("is not in the Hugging Face cache"), "{text}");
    assert!(!model.join("snapshots").join(COMMIT).join("model.safetensors").exists());
    let furthest = hub.asked().iter().map(|asked| asked.from).max().unwrap();
    assert!(furthest > size / 2);
    hub.well();
    let (passed, text) = hub.tallow(&["pull", "owner/tiny"], dir.path(), &[]);
    assert!(passed, "{text}");
    let asked = hub.asked();
    let again: Vec<usize> = asked.iter().filter(|asked| is_weights(&asked.path)).map(|asked| asked.from).collect();
    assert!(again.len() == 1 && again[0] > furthest, "{again:?} after {furthest}");

    // who does not know of ranges sends all of it
    std::fs::remove_dir_all(&model).unwrap();
    let cuts = AtomicUsize::new(0);
    hub.trouble(move |asked| {
        let first = cuts.load(Ordering::Relaxed) == 0;
        is_weights(&asked.path).then(|| {
            cuts.fetch_add(1, Ordering::Relaxed);
            Reply { cut: first, ..file(&weights(), 0) }
        })
    });
    let (passed, text) = hub.tallow(&["pull", "owner/tiny"], dir.path(), &[]);
    assert!(passed, "{text}");
    assert_eq!(std::fs::read(model.join("snapshots").join(COMMIT).join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_content_that_is_another_is_not_kept() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    recipe(dir.path(), "id = \"owner/pairs\"", "");
    hub.trouble(|asked| {
        let mut reply = file(&weights(), 0);
        reply.body[1000] ^= 1;
        asked.path.ends_with("/model.safetensors").then_some(reply)
    });
    let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
    assert!(!passed && text.contains("`model.safetensors` was damaged on its way"), "{text}");
    hub.well();
    let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
    assert!(passed, "{text}");
    // of what was there before, only the beginning may be at fault: it comes anew
    let blobs = dir.path().join("hf/hub/models--owner--tiny/blobs");
    let large = std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let large = large.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut begun = std::fs::read(&large).unwrap();
    begun.truncate(20_000);
    begun[5000] ^= 1;
    std::fs::remove_file(&large).unwrap();
    std::fs::write(large.with_extension("incomplete"), begun).unwrap();
    hub.asked();
    let (passed, text) = hub.tallow(&["pull", "owner/tiny"], dir.path(), &[]);
    assert!(passed, "{text}");
    let from: Vec<usize> =
        hub.asked().iter().filter(|a| a.path.ends_with("/model.safetensors")).map(|a| a.from).collect();
    assert_eq!(from, [20_000, 0]);
    assert_eq!(std::fs::read(&large).unwrap(), weights());
    // a listing that names other places is not followed
    hub.trouble(|asked| {
        let entries = json!([{"type": "file", "oid": "a".repeat(40), "size": 3, "path": "../../../../../escaped.json"},
                             {"type": "file", "oid": "b".repeat(40), "size": 3, "path": "/escaped.json"}]);
        asked.path.contains("/tree/").then(|| Reply::json(&entries))
    });
    let (passed, text) = hub.tallow(&["pull", "owner/other"], dir.path(), &[]);
    assert!(!passed, "{text}");
    assert!(!dir.path().join("escaped.json").exists() && !dir.path().parent().unwrap().join("escaped.json").exists());
}

#[test]
fn long_listings_have_pages() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let address = hub.address.clone();
    let pages = AtomicUsize::new(0);
    hub.trouble(move |asked| {
        if !asked.path.contains("/tree/") {
            return None;
        }
        let data = super::pairs(30);
        match pages.fetch_add(1, Ordering::Relaxed) {
            0 => {
                let mut reply = Reply::json(&json!([super::entry("data/train-00000-of-00002.jsonl", &data)]));
                let next = format!("<{address}{}?cursor=2>; rel=\"next\"", asked.path);
                reply.headers.push(("Link".to_owned(), next));
                Some(reply)
            }
            _ => Some(Reply::json(&json!([super::entry("data/train-00001-of-00002.jsonl", &super::pairs(20))]))),
        }
    });
    recipe(dir.path(), "id = \"owner/pairs\"", "");
    let local = format!("model.base=\"{}\"", project("tests/fixtures/tiny-bert").display());
    let (passed, text) = hub.tallow(&["run", "r.toml", "--force", "--set", &local], dir.path(), &[]);
    assert!(passed && text.contains("50 rows"), "{text}");
}
