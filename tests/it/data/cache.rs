//! The store's cache: found again, damaged, made by several at once, in bounded memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tallow::data::{DatasetSpec, OnBadRow, Store};
use tallow::flow::LabelKind;
use tallow::util::progress::Progress;

use super::{Place, Words, spec, word};

#[test]
fn what_was_tokenised_is_found_again_until_something_changes() {
    let mut place = Place::with("a.jsonl", "{\"q\": \"a b\", \"d\": \"c\"}\n{\"q\": \"e\", \"d\": \"f\"}\n");
    let base = spec("a.jsonl", LabelKind::None);
    let first = place.open(&base).unwrap();
    assert!(!first.report().from_cache);
    let calls = place.words.calls.load(Ordering::Relaxed);
    let again = place.open(&base).unwrap();
    assert!(again.report().from_cache);
    assert_eq!(place.words.calls.load(Ordering::Relaxed), calls);
    assert_eq!(again.fingerprint(), first.fingerprint());
    assert_eq!(again.batch(&[0, 1]).unwrap().packed, first.batch(&[0, 1]).unwrap().packed);
    assert_eq!(again.report().columns, first.report().columns);

    // The same contents elsewhere are the same data set, under the new name.
    place.write("moved/b.jsonl", fs::read(place.path("a.jsonl")).unwrap());
    let moved = place.open(&spec("moved/b.jsonl", LabelKind::None)).unwrap();
    assert_eq!((moved.fingerprint(), moved.report().from_cache), (first.fingerprint(), true));
    assert_eq!(moved.locate(1), "`moved/b.jsonl` line 2");
    assert_eq!(moved.report().files, ["moved/b.jsonl"]);

    let mut seen = vec![first.fingerprint().to_owned()];
    let mut changed = |store: Store| {
        assert!(!store.report().from_cache);
        assert!(!seen.contains(&store.fingerprint().to_owned()));
        seen.push(store.fingerprint().to_owned());
    };
    let with = |change: &dyn Fn(&mut DatasetSpec)| {
        let mut spec = base.clone();
        change(&mut spec);
        spec
    };
    changed(place.open(&with(&|s| s.limit = Some(1))).unwrap());
    changed(place.open(&with(&|s| s.columns = Some(vec!["d".into(), "q".into()]))).unwrap());
    changed(place.open(&with(&|s| drop(s.prompts.insert("q".into(), "p ".into())))).unwrap());
    changed(place.open(&with(&|s| s.on_bad_row = OnBadRow::Skip)).unwrap());
    place.words.version = 2;
    changed(place.open(&base).unwrap());
    place.write("a.jsonl", "{\"q\": \"a b\", \"d\": \"c\"}\n{\"q\": \"e\", \"d\": \"g\"}\n");
    changed(place.open(&base).unwrap());
}

#[test]
fn damaged_entries_are_noticed_and_made_again() {
    let place = Place::with("a.jsonl", "{\"q\": \"a b\", \"score\": 1}\n{\"q\": \"e\", \"score\": 2}\n");
    let spec = spec("a.jsonl", LabelKind::Float);
    let whole = place.open(&spec).unwrap().batch(&[0, 1]).unwrap().packed;
    let entry = place.entries().remove(0);
    let names: Vec<PathBuf> = fs::read_dir(&entry).unwrap().map(|e| e.unwrap().path()).collect();
    let mut damaged = 0;
    for path in names.iter().filter(|p| !p.ends_with("last_used")) {
        let good = fs::read(path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0xFF;
        for bad in [Some(&good[..good.len() - 1]), Some(&[][..]), Some(&flipped[..]), None] {
            match bad {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            let store = place.open(&spec).unwrap();
            // A flipped byte in a JSON file may fall on white space or a message; the arrays are what matters.
            if !(bad == Some(&flipped[..]) && path.extension().is_some_and(|e| e == "json")) {
                assert!(!store.report().from_cache, "{} was believed", path.display());
            }
            assert_eq!(store.batch(&[0, 1]).unwrap().packed, whole);
            damaged += 1;
            assert_eq!(place.entries(), std::slice::from_ref(&entry), "nothing is left lying around");
        }
    }
    assert!(damaged >= 32, "{damaged}");
}

#[test]
fn many_at_once_all_end_well() {
    let text: String = (0..5000).map(|i| format!("{{\"q\": \"question {i}\", \"d\": \"document {i}\"}}\n")).collect();
    let place = Place::with("a.jsonl", text);
    let spec = spec("a.jsonl", LabelKind::None);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| place.open(&spec).unwrap())).collect();
        for thread in threads {
            let store = thread.join().unwrap();
            assert_eq!(store.sequence(4321, 1).unwrap().0, [1, word("document"), word("4321")]);
        }
    });
    assert_eq!(place.entries().len(), 1);
}

/// Not a test of its own: what the tests below run in processes of their own.
#[test]
#[ignore = "started by other tests"]
fn child_opens_a_store() {
    let Some(dir) = std::env::var_os("TALLOW_TEST_DIR").map(PathBuf::from) else {
        return;
    };
    let words = Words::new();
    let before = tallow::util::memory::peak();
    let store = Store::open_or_build_in(
        &dir.join("cache"),
        &spec("a.jsonl", LabelKind::None),
        &dir,
        &words,
        &Progress::hidden(),
    );
    let store = store.unwrap();
    let report = store.report();
    let told = serde_json::json!({
        "grown": tallow::util::memory::peak() - before,
        "rows": store.len(),
        "repeated": report.columns[0].repeated,
        "seconds": report.seconds,
    });
    fs::write(dir.join(format!("told-{}.json", std::process::id())), told.to_string()).unwrap();
}

fn start_child(dir: &Path) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "data::cache::child_opens_a_store"])
        .env("TALLOW_TEST_DIR", dir)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "started by other tests"]
fn child_tells_the_cache_folder() {
    if let Some(out) = std::env::var_os("TALLOW_TEST_OUT") {
        let told = match tallow::data::store::cache::folder() {
            Ok(folder) => folder.display().to_string(),
            Err(error) => format!("error: {error}"),
        };
        fs::write(out, told).unwrap();
    }
}

#[test]
fn the_cache_follows_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "in the way").unwrap();
    let folder = |variables: &[(&str, &str)]| {
        let out = dir.path().join("out");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--ignored", "--exact", "data::cache::child_tells_the_cache_folder"]).env("TALLOW_TEST_OUT", &out);
        for name in ["TALLOW_CACHE_DIR", "XDG_CACHE_HOME", "HOME"] {
            child.env_remove(name);
        }
        child.env("TMPDIR", dir.path().join("tmp"));
        child.envs(variables.iter().map(|(name, value)| (name, dir.path().join(value))));
        assert!(child.stdout(std::process::Stdio::null()).status().unwrap().success());
        fs::read_to_string(out).unwrap().replace(dir.path().to_str().unwrap(), "")
    };
    let all = [("TALLOW_CACHE_DIR", "own"), ("XDG_CACHE_HOME", "xdg"), ("HOME", "home")];
    assert_eq!(folder(&all), "/own/store");
    assert_eq!(folder(&all[1..]), "/xdg/tallow/store");
    assert_eq!(folder(&all[2..]), "/home/.cache/tallow/store");
    assert_eq!(folder(&[]), "/tmp/tallow/store");
    // What was asked for by name is not silently replaced; what is only usual is.
    assert!(folder(&[("TALLOW_CACHE_DIR", "file")]).starts_with("error: cannot create the directory `/file/store`"));
    assert_eq!(folder(&[("XDG_CACHE_HOME", "file"), ("HOME", "home")]), "/home/.cache/tallow/store");
}

fn told(dir: &Path) -> Vec<serde_json::Value> {
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let told = files.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("told-"));
    told.map(|p| serde_json::from_str(&fs::read_to_string(p).unwrap()).unwrap()).collect()
}

fn write_rows(place: &Place, rows: usize) {
    use std::io::Write;
    let mut out = std::io::BufWriter::new(fs::File::create(place.path("a.jsonl")).unwrap());
    let filler = "some more words that make the row as long as rows are, give or take a few words".repeat(2);
    for i in 0..rows {
        writeln!(out, "{{\"q\": \"question {i}\", \"d\": \"document {i} {filler}\"}}").unwrap();
    }
    out.flush().unwrap();
}

#[test]
fn memory_does_not_grow_with_the_rows() {
    let grown = |rows: usize| {
        let place = Place::new();
        write_rows(&place, rows);
        assert!(start_child(place.dir.path()).wait().unwrap().success());
        let told = told(place.dir.path()).remove(0);
        assert_eq!(told["rows"], rows);
        assert_eq!(told["repeated"], 0);
        told["grown"].as_u64().unwrap()
    };
    if tallow::util::memory::peak() == 0 {
        eprintln!("skipped: this system does not tell how much memory a process uses");
        return;
    }
    let (few, many) = (grown(10_000), grown(150_000));
    // 30 MB of text and 20 MB of tokens more. Pages of mapped files that were looked at count too, hence the margin.
    assert!(many < few + (14 << 20), "{few} bytes for 10,000 rows, {many} for 150,000");
}

#[test]
fn processes_that_build_the_same_at_once_all_end_well() {
    let place = Place::new();
    write_rows(&place, 20_000);
    let children: Vec<_> = (0..4).map(|_| start_child(place.dir.path())).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let told = told(place.dir.path());
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|t| t["rows"] == 20_000));
    assert_eq!(place.entries().len(), 1);
}
