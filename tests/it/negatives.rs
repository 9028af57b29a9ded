//! Hard negatives: the reference's rows for every option, exact whatever the chunks, kept embeddings that are used.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallow::Result;
use tallow::flow::{ActivationFn, Embeddings, Encode, EncodeOptions, Predict};
use tallow::negatives::cache::Cache;
use tallow::negatives::rows::{self, Rows};
use tallow::negatives::{self, Depth, Found, Mined, Pool, Prompts, Selection, Settings};
use tallow::scoring::Similarity;
use tallow::scoring::blocks::pairwise;
use tallow::util::seed::Rng;

use crate::support::{golden, project};

/// Embeddings from a table; a prompt turns values around by its length. Counts the texts it was asked for.
struct Table {
    values: HashMap<String, Vec<f32>>,
    asked: Mutex<usize>,
}

impl Table {
    fn new(values: HashMap<String, Vec<f32>>) -> Self {
        Self { values, asked: Mutex::new(0) }
    }
}

impl Encode for Table {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
        *self.asked.lock().unwrap() += texts.len();
        let turn = options.prompt.as_deref().unwrap_or_default().len();
        let mut data = Vec::new();
        for text in texts {
            let mut row = self.values[*text].clone();
            row.rotate_right(turn % self.values[*text].len());
            data.extend(row);
        }
        let embeddings = Embeddings::new(data.len() / texts.len().max(1), data);
        Ok(if options.normalize { embeddings.normalized() } else { embeddings })
    }

    fn similarity_fn_name(&self) -> &str {
        "cosine"
    }
}

/// The candidates of all anchors together.
fn search(pool: &Pool, model: &Table, prompts: &Prompts, depth: Depth, cache: Option<&mut Cache>) -> Result<Found> {
    let mut found = Found::default();
    negatives::search(pool, model, prompts, depth, cache, &mut |next| {
        assert_eq!(next.first, found.candidates.len());
        found.candidates.extend(next.candidates);
        found.positives.extend(next.positives);
        Ok(())
    })?;
    Ok(found)
}

fn select(pool: &Pool, found: &Found, settings: &Settings, last_rank: usize) -> Mined {
    let mut selection = Selection::new(pool, settings, last_rank);
    selection.add(found.clone());
    selection.finish()
}

/// A score a pair, by the numbers in the texts.
struct Reranker;

impl Predict for Reranker {
    fn predict(&self, pairs: &[(&str, &str)], _: Option<ActivationFn>, _: &EncodeOptions) -> Result<Embeddings> {
        let number = |text: &str| text[1..].parse::<u32>().unwrap();
        let score = |a, b| f64::from((number(a) * 7 + number(b) * 13) % 29) / 29.0 - 0.25;
        Ok(Embeddings::new(1, pairs.iter().map(|(a, b)| score(a, b) as f32).collect()))
    }

    fn num_labels(&self) -> usize {
        1
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Equal, numbers to 1e-6.
fn same(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-6,
        _ => got == want,
    }
}

/// The first whole number in a line, commas left out.
fn count(line: &str) -> usize {
    let word = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap();
    word.replace(',', "").parse().unwrap()
}

#[test]
fn every_option_gives_the_references_rows() {
    let golden = golden("negatives");
    let values = golden["embeddings"].as_object().unwrap().iter().map(|(text, row)| {
        (text.clone(), row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect())
    });
    let model = Table::new(values.collect());
    let pairs =
        || golden["pairs"].as_array().unwrap().iter().map(texts).map(|p| (p[0].clone(), p[1].clone())).collect();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 40);
    for case in cases {
        let mut settings = case["settings"].as_object().unwrap().clone();
        let what = Value::Object(settings.clone());
        let mut take = |name: &str| settings.remove(name);
        let corpus = take("corpus").is_some_and(|x| x == true).then(|| texts(&golden["corpus"]));
        let rescored = take("cross_encoder").is_some_and(|x| x == true);
        let options = |prompt: Option<Value>| EncodeOptions {
            prompt: prompt.map(|prompt| prompt.as_str().unwrap().to_owned()),
            ..EncodeOptions::default()
        };
        let prompts = Prompts { query: options(take("query_prompt")), document: options(take("corpus_prompt")) };
        let settings: Settings = serde_json::from_value(Value::Object(settings)).unwrap();
        let settings = settings.settled().unwrap().0;
        let pool = Pool::new(pairs(), corpus).unwrap();
        let rescored = rescored && settings.limited();
        let last_rank = settings.last_rank(pool.max_positives(), rescored);
        let depth = settings.depth(pool.max_positives(), last_rank);
        let mut found = search(&pool, &model, &prompts, depth, None).unwrap();
        if rescored {
            negatives::rescore(&pool, &mut found, &Reranker).unwrap();
        }
        let mined = select(&pool, &found, &settings, last_rank);
        rows::check(&pool, &settings, ("anchor", "positive")).unwrap();
        let rows = Rows::new(&pool, &mined, &settings, ("anchor", "positive"));
        let mut got = Vec::new();
        rows.each(&mut |row| {
            assert_eq!(row.keys().cloned().collect::<Vec<_>>(), rows.columns());
            got.push(Value::Array(row.into_iter().map(|(_, value)| value).collect()));
            Ok(())
        })
        .unwrap();
        assert_eq!(json!(rows.columns()), case["columns"], "{what}");
        let want = case["rows"].as_array().unwrap();
        assert_eq!(got.len(), want.len(), "{what}\n{got:?}\n{want:?}");
        for (got, want) in got.iter().zip(want) {
            assert!(same(got, want), "{what}: {got} instead of {want}");
        }
        // what is printed of it
        let table = rows.statistics().table();
        for (line, want) in table.iter().zip(texts(&case["table"])) {
            // no figure: a dash here, what arithmetic on nothing gives there
            let cells = |text: &str| -> Vec<String> {
                text.split_whitespace()
                    .map(|cell| if matches!(cell, "nan" | "inf" | "-inf") { "-" } else { cell }.to_owned())
                    .collect()
            };
            assert_eq!(cells(line), cells(&want), "{what}\n{table:#?}");
        }
        let missing = rows.most().saturating_sub(got.len());
        let told: usize = texts(&case["missing"]).iter().map(|line| count(line)).sum();
        assert_eq!(missing, told, "{what}");
        for skipped in &mined.skipped {
            // the reference counts those again that other rules left out before
            if skipped.setting == "min_score" {
                continue;
            }
            let line = texts(&case["skipped"]).into_iter().find(|line| line.contains(&skipped.setting)).unwrap();
            assert_eq!(skipped.skipped, count(&line), "{what}");
            assert!(line.contains(&format!("({:.2}%)", 100.0 * skipped.ratio)), "{what}: {line} {skipped:?}");
        }
        let counted = mined.skipped.iter().filter(|s| s.setting != "min_score").count();
        let lines = texts(&case["skipped"]).iter().filter(|line| !line.contains("min_score")).count();
        assert_eq!(counted, lines, "{what}");
    }
}

/// Many texts, some of them equal, with few different values so that similarities tie.
fn random_pool(rng: &mut Rng, queries: usize, documents: usize) -> (Pool, Table) {
    let mut values = HashMap::new();
    let mut row = |text: String| {
        let row: Vec<f32> = (0..5).map(|_| rng.below(3) as f32 - 1.0 + 0.01).collect();
        values.insert(text, row);
    };
    (0..queries).for_each(|i| row(format!("q{i}")));
    (0..documents).for_each(|i| row(format!("d{i}")));
    let mut rng = rng.fork(1);
    let mut pairs: Vec<(String, String)> =
        (0..queries).map(|i| (format!("q{i}"), format!("d{}", rng.below(documents as u64)))).collect();
    pairs.push((pairs[0].0.clone(), format!("d{}", rng.below(documents as u64))));
    let corpus = (0..documents).map(|i| format!("d{i}")).collect();
    (Pool::new(pairs, Some(corpus)).unwrap(), Table::new(values))
}

#[test]
fn the_search_is_exact_whatever_the_chunks() {
    let mut rng = Rng::new(9);
    // the last has more documents than one chunk holds
    for (queries, documents, k) in [(1, 2, 5), (7, 40, 6), (33, 300, 300), (5, 9000, 20)] {
        let (pool, model) = random_pool(&mut rng, queries, documents);
        let found = search(&pool, &model, &Prompts::default(), Depth::Same(k), None).unwrap();
        let options = EncodeOptions { normalize: true, ..EncodeOptions::default() };
        let encode =
            |texts: &[String]| model.encode(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &options).unwrap();
        let (anchors, all) = (encode(pool.queries()), encode(pool.documents()));
        for (query, hits) in found.candidates.iter().enumerate() {
            let repeated = anchors.select(&vec![query; pool.documents().len()]);
            let scores = pairwise(Similarity::Cosine, &repeated, &all);
            let mut best = scores.clone();
            best.sort_by(|a, b| b.total_cmp(a));
            assert_eq!(hits.len(), k.min(pool.documents().len()));
            for (hit, want) in hits.iter().zip(&best) {
                assert!((hit.score - want).abs() < 1e-5 && (scores[hit.rank as usize] - want).abs() < 1e-5);
            }
            for (score, document) in found.positives[query].iter().zip(&pool.positives()[query]) {
                assert!((score - scores[*document as usize]).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn negatives_keep_to_all_limits() {
    let mut rng = Rng::new(21);
    let mut shallow = 0;
    for round in 0..60 {
        let (pool, model) = random_pool(&mut rng, 1 + round % 9, 2 + round % 37);
        let some = |rng: &mut Rng, value: f32| (rng.below(2) == 0).then_some(value);
        let settings = Settings {
            num_negatives: 1 + rng.below(5) as usize,
            range_min: rng.below(4) as usize,
            max_score: some(&mut rng, 0.6),
            min_score: some(&mut rng, -0.3),
            absolute_margin: some(&mut rng, 0.1),
            relative_margin: some(&mut rng, 0.05),
            sampling_strategy: if round % 2 == 0 {
                negatives::SamplingStrategy::Random
            } else {
                negatives::SamplingStrategy::Top
            },
            seed: round as u64,
            ..Settings::default()
        };
        let last_rank = settings.last_rank(pool.max_positives(), false);
        let k = last_rank + pool.max_positives();
        let found = search(&pool, &model, &Prompts::default(), Depth::Same(k), None).unwrap();
        let mined = select(&pool, &found, &settings, last_rank);
        assert_eq!(mined, select(&pool, &found, &settings, last_rank), "the same seed, the same rows");
        // no more candidates than needed give the same rows
        let depth = settings.depth(pool.max_positives(), last_rank);
        let fewer = search(&pool, &model, &Prompts::default(), depth, None).unwrap();
        assert_eq!(mined, select(&pool, &fewer, &settings, last_rank));
        shallow += usize::from(depth != Depth::Same(k));
        for (query, hits) in mined.negatives.iter().enumerate() {
            let lowest = mined.positives[query].iter().copied().fold(f32::INFINITY, f32::min);
            let allowed: Vec<u32> = found.candidates[query]
                .iter()
                .filter(|hit| {
                    !pool.positives()[query].contains(&hit.rank)
                        && settings.max_score.is_none_or(|most| hit.score <= most)
                        && settings.min_score.is_none_or(|least| hit.score >= least)
                        && settings.absolute_margin.is_none_or(|margin| hit.score + margin <= lowest)
                        && settings.relative_margin.is_none_or(|margin| hit.score <= lowest - lowest.abs() * margin)
                })
                .map(|hit| hit.rank)
                .take(last_rank)
                .skip(settings.range_min)
                .collect();
            let ranks: Vec<u32> = hits.iter().map(|hit| hit.rank).collect();
            assert_eq!(ranks.len(), settings.num_negatives.min(allowed.len()));
            assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
            match settings.sampling_strategy {
                negatives::SamplingStrategy::Top => assert_eq!(ranks, allowed[..ranks.len()]),
                negatives::SamplingStrategy::Random => assert!(ranks.iter().all(|rank| allowed.contains(rank))),
            }
        }
    }
    assert!(shallow > 0);
}

#[test]
fn kept_embeddings_are_used_and_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (pool, model) = random_pool(&mut Rng::new(4), 6, 50);
    let looked = |prompts: &Prompts, cache: Option<&mut Cache>| search(&pool, &model, prompts, Depth::Same(10), cache);
    let search = |cache: &mut Cache| looked(&Prompts::default(), Some(cache)).unwrap();
    let plain = looked(&Prompts::default(), None).unwrap();
    *model.asked.lock().unwrap() = 0;
    {
        let mut cache = Cache::new(dir.path(), "model");
        assert_eq!(search(&mut cache), plain);
        assert_eq!(cache.counts(), (0, 56));
        // another process at the same time is refused
        let error = looked(&Prompts::default(), Some(&mut Cache::new(dir.path(), "model")));
        assert!(error.unwrap_err().to_string().contains("another process"));
    }
    let asked = || *model.asked.lock().unwrap();
    assert_eq!(asked(), 56);
    {
        let mut cache = Cache::new(dir.path(), "model");
        assert_eq!(search(&mut cache), plain);
        assert_eq!((cache.counts(), asked()), ((56, 0), 56));
    }
    // a process that is killed leaves half an embedding, or embeddings whose texts are not noted yet
    let folder = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let cut = |name: &str, by: u64| {
        let file = std::fs::OpenOptions::new().write(true).open(folder.join(name)).unwrap();
        file.set_len(file.metadata().unwrap().len() - by).unwrap();
    };
    for (name, by, lost) in [("vectors.bin", 3, 1), ("texts.bin", 16 * 2 + 5, 3), ("texts.bin", 8 + 16 * 56 - 3, 56)] {
        cut(name, by);
        let mut cache = Cache::new(dir.path(), "model");
        assert_eq!(search(&mut cache), plain);
        assert_eq!(cache.counts(), (56 - lost, lost), "{name}");
        assert!(cache.damaged().is_empty());
    }
    // a width that cannot be, or is not the one that was written
    for width in [0, 1 << 62, u64::MAX, 17] {
        let mut bytes = std::fs::read(folder.join("texts.bin")).unwrap();
        bytes[..8].copy_from_slice(&u64::to_le_bytes(width));
        std::fs::write(folder.join("texts.bin"), bytes).unwrap();
        let mut cache = Cache::new(dir.path(), "model");
        assert_eq!(search(&mut cache), plain, "{width}");
        assert_eq!((cache.counts(), cache.damaged()), ((0, 56), &[folder.clone()][..]), "{width}");
    }
    // another model and another prompt have their own
    let mut other = Cache::new(dir.path(), "other");
    search(&mut other);
    assert_eq!(other.counts(), (0, 56));
    let prompts = Prompts {
        query: EncodeOptions { prompt: Some("ab".to_owned()), ..EncodeOptions::default() },
        ..Prompts::default()
    };
    drop(other);
    let mut cache = Cache::new(dir.path(), "other");
    looked(&prompts, Some(&mut cache)).unwrap();
    assert_eq!(cache.counts(), (50, 6));
}

fn mine(arguments: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tallow")).arg("mine").args(arguments).current_dir(dir).output().unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const PAIRS: &str = r#"{"question": "how do I reset my password", "answer": "open settings and choose reset"}
{"question": "where is my parcel", "answer": "the parcel is on its way"}
{"question": "where is my parcel", "answer": "look at the tracking page"}
{"question": "can I pay by card", "answer": "cards and bank transfers are taken"}
"#;

#[test]
fn a_file_of_pairs_becomes_rows_to_train_on() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("pairs.jsonl"), PAIRS).unwrap();
    std::fs::write(at("more.txt"), "choose a new password\n\nparcel or password\nlook at the card page\n").unwrap();
    let model = project("tests/fixtures/tiny-bert");
    let model = model.to_str().unwrap();
    let reranker = project("tests/fixtures/tiny-cross-encoder");
    let out = mine(
        &[
            "pairs.jsonl",
            "--model",
            model,
            "--corpus",
            "more.txt",
            "--num-negatives",
            "2",
            "--output",
            "mined.jsonl",
            "--cache-folder",
            "kept",
        ],
        dir.path(),
    );
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(shown.contains("3 anchors with 1.33 positives on average, 7 documents"), "{shown}");
    assert!(shown.contains("8 rows (question, answer, negative) in mined.jsonl"), "{shown}");
    assert!(shown.contains("0 kept from before, 10 new"), "{shown}");
    let rows = lines(&at("mined.jsonl"));
    assert_eq!(rows.len(), 8);
    for row in &rows {
        assert!(row["question"] != "where is my parcel" || row["negative"] != "the parcel is on its way");
        assert!(row["answer"] != row["negative"]);
    }
    let rescored = mine(
        &[
            "pairs.jsonl",
            "--model",
            model,
            "--corpus",
            "more.txt",
            "--cross-encoder",
            reranker.to_str().unwrap(),
            "--max-score",
            "0.9999",
            "--output-format",
            "labeled-list",
            "--output-scores",
            "--output",
            "lists.jsonl",
            "--cache-folder",
            "kept",
            "--json",
        ],
        dir.path(),
    );
    assert!(rescored.status.success(), "{}", String::from_utf8_lossy(&rescored.stderr));
    let answer: Value = serde_json::from_slice(&rescored.stdout).unwrap();
    assert_eq!((&answer["columns"], &answer["cached"]), (&json!(["question", "answer", "scores"]), &json!([10, 0])));
    for row in lines(&at("lists.jsonl")) {
        let scores = row["scores"].as_array().unwrap();
        assert!(scores.len() == row["answer"].as_array().unwrap().len() && scores[0].as_f64().unwrap() < 1.0);
    }
    // words alone
    let words = mine(&["pairs.jsonl", "--bm25", "--corpus", "more.txt", "--output", "words.jsonl"], dir.path());
    assert!(words.status.success(), "{}", String::from_utf8_lossy(&words.stderr));
    let rows = lines(&at("words.jsonl"));
    let of = |question: &str| -> Vec<&str> {
        rows.iter().filter(|r| r["question"] == question).map(|r| r["negative"].as_str().unwrap()).collect()
    };
    assert_eq!(of("how do I reset my password"), ["parcel or password", "choose a new password"]);
    assert_eq!(of("can I pay by card"), ["look at the card page"]);
}

#[test]
fn every_other_model_type_finds_candidates() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pairs.jsonl"), PAIRS).unwrap();
    for fixture in ["tiny-splade", "tiny-colbert", "tiny-static", "tiny-inference-free"] {
        let model = project(&format!("tests/fixtures/{fixture}"));
        let out = mine(
            &["pairs.jsonl", "--model", model.to_str().unwrap(), "--num-negatives", "1", "--output", "out.jsonl"],
            dir.path(),
        );
        assert!(out.status.success(), "{fixture}: {}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(lines(&dir.path().join("out.jsonl")).len(), 4, "{fixture}");
    }
}

#[test]
fn what_cannot_be_meant_is_told_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("pairs.jsonl"), PAIRS).unwrap();
    std::fs::write(at("gap.jsonl"), format!("{PAIRS}{{\"question\": \"x\", \"answer\": \"\"}}\n")).unwrap();
    std::fs::write(at("negative.jsonl"), "{\"a\": \"x\", \"negative\": \"y\"}\n{\"a\": \"z\", \"negative\": \"w\"}\n")
        .unwrap();
    std::fs::write(at("one.jsonl"), "{\"text\": \"x\"}\n").unwrap();
    std::fs::write(at("same.jsonl"), "{\"a\": \"x\", \"b\": \"y\"}\n").unwrap();
    let model = project("tests/fixtures/tiny-bert");
    let model = model.to_str().unwrap();
    let classifier = project("tests/fixtures/tiny-classifier");
    let classifier = classifier.to_str().unwrap();
    std::fs::write(at("wide.csv"), "text,more\nx,y\n").unwrap();
    let cases: [(&[&str], &str, &str); 23] = [
        (&["pairs.jsonl", "--output", "o.jsonl"], "nothing says where candidates come from", "bm25"),
        (&["pairs.jsonl", "--model", model, "--output", "o.csv"], "`o.csv`", ".jsonl"),
        (
            &["pairs.jsonl", "--model", model, "--output", "o.jsonl", "--num-negatives", "0"],
            "`num_negatives` is 0",
            "one",
        ),
        (
            &["pairs.jsonl", "--model", model, "--output", "o.jsonl", "--range-min", "5", "--range-max", "5"],
            "`range_min` (5) must be smaller than `range_max` (5)",
            "",
        ),
        (
            &["pairs.jsonl", "--model", model, "--output", "o.jsonl", "--range-max", "2"],
            "3 negatives an anchor do not fit",
            "raise `range_max`",
        ),
        (
            &["pairs.jsonl", "--model", model, "--output", "o.jsonl", "--min-score", "0.5", "--max-score", "0.4"],
            "`min_score` (0.5) is above `max_score` (0.4)",
            "no candidate",
        ),
        (&["gap.jsonl", "--model", model, "--output", "o.jsonl"], "`gap.jsonl` line 5", "--on-bad-row skip"),
        (
            &["pairs.jsonl", "--bm25", "--output", "o.jsonl", "--max-score", "-1", "--output-format", "labeled-pair"],
            "`pairs.jsonl`: no candidate is left",
            "`max_score` (higher)",
        ),
        (
            &["pairs.jsonl", "--model", model, "--output", "o.jsonl", "--output-format", "n-tuple", "--range-min", "1"],
            "`pairs.jsonl`: no anchor has the 3 negatives",
            "`num_negatives` (lower)",
        ),
        (
            &[
                "pairs.jsonl",
                "--bm25",
                "--output",
                "o.jsonl",
                "--output-format",
                "n-tuple",
                "--num-negatives",
                "4000000000",
            ],
            "no anchor can have more than 3",
            "lower `num_negatives`",
        ),
        (
            &["pairs.jsonl", "--bm25", "--output", "o.jsonl", "--num-negatives", "18446744073709551615"],
            "never so many documents",
            "is the most",
        ),
        (&["pairs.jsonl", "--bm25", "--output", "o.jsonl", "--bf16"], "`bf16` has no meaning with `bm25`", "out"),
        (
            &["pairs.jsonl", "--bm25", "--output", "o.jsonl", "--corpus", "wide.csv"],
            "several text columns",
            "`corpus_column`",
        ),
        (&["pairs.jsonl", "--bm25", "--output", "o.jsonl", "--positive-column-name", "answr"], "`answr`", "`answer`"),
        // what fails at last is told before anything is encoded
        (
            &["pairs.jsonl", "--model", model, "--output", "no/o.jsonl", "--cache-folder", "kept"],
            "cannot create `no/o.jsonl`",
            "",
        ),
        (
            &[
                "pairs.jsonl",
                "--model",
                model,
                "--output",
                "o.jsonl",
                "--cache-folder",
                "kept",
                "--cross-encoder",
                model,
                "--max-score",
                "1",
            ],
            "which does not score pairs",
            "CrossEncoder",
        ),
        (
            &[
                "pairs.jsonl",
                "--model",
                model,
                "--output",
                "o.jsonl",
                "--cache-folder",
                "kept",
                "--cross-encoder",
                classifier,
                "--max-score",
                "1",
            ],
            "scores",
            "one label",
        ),
        (
            &[
                "pairs.jsonl",
                "--model",
                model,
                "--output",
                "o.jsonl",
                "--cache-folder",
                "kept",
                "--query-prompt-name",
                "nobody",
            ],
            "no prompt `nobody`",
            "the text itself",
        ),
        (&["negative.jsonl", "--bm25", "--output", "o.jsonl"], "two columns `negative`", "otherwise"),
        (&["one.jsonl", "--bm25", "--output", "o.jsonl"], "fewer than two text columns", "anchor"),
        (&["same.jsonl", "--bm25", "--output", "o.jsonl"], "one document only", "corpus"),
        (
            &["pairs.jsonl", "--bm25", "--output", "o.jsonl", "--max-score", "-1"],
            "no candidate is left",
            "`max_score` (higher)",
        ),
        (&["pairs.jsonl", "--model", "nowhere", "--output", "o.jsonl"], "there is no model at `nowhere`", "folder"),
    ];
    for (arguments, message, hint) in cases {
        let out = mine(arguments, dir.path());
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(message) && text.contains(hint), "{arguments:?}: {text}");
        assert!(!at("o.jsonl").exists() && !at("kept").exists(), "{arguments:?}");
    }
    let hidden = |dir: &Path| {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).count()
    };
    assert_eq!(hidden(dir.path()), 0, "nothing half written stays");
    let out = mine(
        &[
            "gap.jsonl",
            "--model",
            model,
            "--num-negatives",
            "1",
            "--output",
            "o.jsonl",
            "--on-bad-row",
            "skip",
            "--json",
        ],
        dir.path(),
    );
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["rows_skipped"], 1);
}

#[test]
fn what_is_read_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("pairs.jsonl"), PAIRS).unwrap();
    std::fs::write(at("more.jsonl"), "{\"text\": \"choose a new password\"}\n").unwrap();
    std::os::unix::fs::symlink("pairs.jsonl", at("link.jsonl")).unwrap();
    for output in ["pairs.jsonl", "./pairs.jsonl", "link.jsonl", "more.jsonl"] {
        let out = mine(&["pairs.jsonl", "--bm25", "--corpus", "more.jsonl", "--output", output], dir.path());
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains("read") && text.contains("another name"), "{output}: {text}");
        assert_eq!(std::fs::read_to_string(at("pairs.jsonl")).unwrap(), PAIRS);
    }
}

#[test]
fn columns_that_are_not_used_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = PAIRS.lines().map(|line| line.replace('}', ", \"tags\": [\"a\"], \"more\": \"\"}\n")).collect();
    std::fs::write(dir.path().join("pairs.jsonl"), rows).unwrap();
    std::fs::write(dir.path().join("more.txt"), "choose a new password\n\nlook at the card page\n").unwrap();
    let out = mine(&["pairs.jsonl", "--bm25", "--corpus", "more.txt", "--output", "o.jsonl", "--json"], dir.path());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["columns"], json!(["question", "answer", "negative"]));
    assert!(answer["notes"].to_string().contains("1 empty texts of `more.txt` were left out"), "{answer}");
}

#[test]
fn a_signal_stops_the_work_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let rows = (0..40_000)
        .map(|i| format!("{{\"a\": \"the sailor sells chair {i} by the sea\", \"b\": \"the doctor {i} does not\"}}\n"));
    std::fs::write(at("pairs.jsonl"), rows.collect::<String>()).unwrap();
    let model = project("tests/fixtures/tiny-bert");
    let child = Command::new(env!("CARGO_BIN_EXE_tallow"))
        .args(["mine", "pairs.jsonl", "--model", model.to_str().unwrap(), "--output", "o.jsonl"])
        .args(["--cache-folder", "kept"])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !at("kept").exists() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(130) && text.contains("mining was stopped"), "{text}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// A run in a folder of its own, whose kept data are there, too.
fn tallow(arguments: &[&str], dir: &Path) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tallow"))
        .args(arguments)
        .current_dir(dir)
        .env("TALLOW_CACHE_DIR", dir.join("cache"))
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.success(), text)
}

#[test]
fn a_run_looks_for_hard_negatives_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::copy(project("tests/golden/curves_pairs.jsonl"), at("pairs.jsonl")).unwrap();
    std::fs::write(at("more.txt"), "the sailor\nthe chair by the sea\n").unwrap();
    let bert = project("tests/fixtures/tiny-bert").display().to_string();
    let recipe = |model: &str, mining: &str, loss: &str, rest: &str| {
        format!(
            "run_name = \"mined\"\n{model}\nbase = \"{bert}\"\n[[train_dataset]]\npath = \"pairs.jsonl\"\n\
             columns = [\"anchor\", \"positive\"]\nlimit = 60\n[train_dataset.hard_negatives]\n{mining}\n[loss]\nname = \
             \"{loss}\"\n[args]\nmax_steps = 3\nper_device_train_batch_size = 8\n{rest}"
        )
    };
    std::fs::write(
        at("r.toml"),
        recipe(
            "[model]",
            "num_negatives = 2\ncorpus = \"more.txt\"\nrelative_margin = 0.0",
            "MultipleNegativesRankingLoss",
            "prompts = { negative = \"x: \" }\n",
        ),
    )
    .unwrap();
    let (passed, text) = tallow(&["smoke-test", "r.toml"], dir.path());
    assert!(passed && !text.contains("found before"), "{text}");
    let (passed, text) = tallow(&["run", "r.toml", "--force"], dir.path());
    assert!(passed, "{text}");
    assert!(text.contains("hard negatives found before") && text.contains("Metric"), "{text}");
    assert!(text.contains("rows of anchor, positive, negative"), "{text}");
    assert!(
        text.contains("2 hard negatives of each anchor by") && text.contains("relative_margin 0, rows as triplet"),
        "{text}"
    );
    let mined: Vec<_> = std::fs::read_dir(at("cache/rows")).unwrap().map(|e| e.unwrap().path()).collect();
    let rows = mined.iter().find(|path| path.extension().is_some_and(|e| e == "jsonl")).unwrap();
    assert_eq!((mined.len(), lines(rows)[0].as_object().unwrap().len()), (2, 3));
    // other data, other rows
    std::fs::write(at("more.txt"), "the sailor\n").unwrap();
    let (passed, text) = tallow(&["smoke-test", "r.toml"], dir.path());
    assert!(passed && !text.contains("found before"), "{text}");
    // lists and scores for rerankers
    let model = "model_type = \"CrossEncoder\"\n[model]";
    for (mining, loss) in [
        (format!("model = \"{bert}\"\noutput_format = \"labeled-list\""), "LambdaLoss"),
        ("bm25 = true\noutput_format = \"labeled-pair\"".to_owned(), "BinaryCrossEntropyLoss"),
        (
            "bm25 = true\noutput_scores = true\nnum_negatives = 1\noutput_format = \"labeled-pair\"".to_owned(),
            "MSELoss",
        ),
    ] {
        std::fs::write(at("c.toml"), recipe(model, &mining, loss, "")).unwrap();
        let (passed, text) = tallow(&["smoke-test", "c.toml"], dir.path());
        assert!(passed, "{mining}: {text}");
    }
    // and what cannot be meant
    for (model, mining, message) in [
        (model, "num_negatives = 2", "needs a model to find candidates with"),
        ("[model]", "num_negatives = 0", "`num_negatives` is 0"),
        ("[model]", "num_negative = 3", "did you mean `num_negatives`?"),
        ("[model]", "corpus = \"nowhere.txt\"", "there is no `nowhere.txt`"),
        ("[model]", "max_score = -1.0", "no candidate is left"),
        ("[model]", "output_format = \"list\"", "labeled-list"),
    ] {
        std::fs::write(at("w.toml"), recipe(model, mining, "MultipleNegativesRankingLoss", "")).unwrap();
        let (passed, text) = tallow(&["smoke-test", "w.toml"], dir.path());
        assert!(!passed && text.contains(message), "{mining}: {text}");
    }
}

#[test]
fn a_run_looks_with_the_prompts_it_trains_with() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let pairs = std::fs::read_to_string(project("tests/golden/curves_pairs.jsonl")).unwrap();
    let pairs: String = pairs.lines().take(40).map(|line| format!("{line}\n")).collect();
    std::fs::write(at("pairs.jsonl"), pairs).unwrap();
    let bert = project("tests/fixtures/tiny-bert").display().to_string();
    // scores tell which prompts there were
    let mined = |arguments: &[&str]| {
        let all =
            [&["pairs.jsonl", "--model", &bert, "--output-scores", "--output", "o.jsonl"][..], arguments].concat();
        let out = mine(&all, dir.path());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        lines(&at("o.jsonl"))
    };
    let columns = "prompts = { anchor = \"query: \", positive = \"passage: \" }";
    for (set, mining, args, wanted) in [
        ("", "", columns, &["--query-prompt", "query: ", "--corpus-prompt", "passage: "][..]),
        (columns, "", "", &["--query-prompt", "query: ", "--corpus-prompt", "passage: "]),
        ("", "", "prompts = \"all: \"", &["--query-prompt", "all: ", "--corpus-prompt", "all: "]),
        ("", "", "prompts = { anchor = \"query: \" }", &["--query-prompt", "query: ", "--corpus-prompt", ""]),
        ("", "query_prompt = \"own: \"", columns, &["--query-prompt", "own: ", "--corpus-prompt", "passage: "]),
        ("", "", "", &[]),
    ] {
        let recipe = format!(
            "run_name = \"mined\"\n[model]\nbase = \"{bert}\"\n[[train_dataset]]\npath = \"pairs.jsonl\"\n{set}\n\
             [train_dataset.hard_negatives]\noutput_scores = true\noutput_format = \"triplet\"\n{mining}\n[loss]\nname = \
             \"MarginMSELoss\"\n[args]\nmax_steps = 1\nper_device_train_batch_size = 4\n{args}\n"
        );
        std::fs::write(at("r.toml"), recipe).unwrap();
        let _ = std::fs::remove_dir_all(at("cache"));
        let (_, text) = tallow(&["smoke-test", "r.toml"], dir.path());
        assert!(text.contains("rows of anchor, positive, negative, scores"), "{text}");
        let mut rows = std::fs::read_dir(at("cache/rows")).unwrap().map(|e| e.unwrap().path());
        let rows = rows.find(|path| path.extension().is_some_and(|ending| ending == "jsonl")).unwrap();
        assert_eq!(lines(&rows), mined(wanted), "{set} {mining} {args}");
    }
    assert_ne!(mined(&["--query-prompt", "query: "]), mined(&[]));
}
