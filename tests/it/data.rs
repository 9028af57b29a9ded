//! Data sets from files to batches: every format, every kind of bad row, labels, reports.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod cache;
mod readers;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray, types::Int32Type};
use tallow::data::source::Reason;
use tallow::data::{BatchSampler, DatasetSpec, OnBadRow, SamplerSettings, Store};
use tallow::flow::{LabelKind, Labels, Preprocess, Tokens};
use tallow::util::progress::Progress;
use tallow::{Error, Result};

/// Words by their hash, one token in front; cut to a limit.
struct Words {
    limit: Option<usize>,
    calls: AtomicUsize,
    version: u64,
}

impl Words {
    fn new() -> Self {
        Self { limit: None, calls: AtomicUsize::new(0), version: 1 }
    }
}

fn word(text: &str) -> u32 {
    text.bytes().fold(7, |h: u32, b| h.wrapping_mul(31).wrapping_add(u32::from(b)))
}

impl Preprocess for Words {
    fn tokenize(&self, texts: &[&str], prompt: Option<&str>) -> Result<Vec<Tokens>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let prompt: Vec<u32> = prompt.unwrap_or_default().split_whitespace().map(word).collect();
        let tokens = texts.iter().map(|text| {
            let mut ids = vec![1];
            ids.extend(&prompt);
            ids.extend(text.split_whitespace().map(word));
            let full_length = ids.len() as u32;
            ids.truncate(self.limit.unwrap_or(usize::MAX));
            let prompt_length = if prompt.is_empty() { 0 } else { 1 + prompt.len() as u32 };
            Tokens { ids, prompt_length, full_length }
        });
        Ok(tokens.collect())
    }

    fn fingerprint(&self) -> u64 {
        self.version * 1000 + self.limit.unwrap_or(0) as u64
    }

    fn max_seq_length(&self) -> Option<usize> {
        self.limit
    }
}

struct Place {
    dir: tempfile::TempDir,
    words: Words,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cache")).unwrap();
        Self { dir, words: Words::new() }
    }

    fn with(name: &str, content: impl AsRef<[u8]>) -> Self {
        let place = Self::new();
        place.write(name, content);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn open(&self, spec: &DatasetSpec) -> Result<Store> {
        Store::open_or_build_in(&self.path("cache"), spec, self.dir.path(), &self.words, &Progress::hidden())
    }

    fn entries(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = fs::read_dir(self.path("cache")).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        all
    }
}

fn spec(path: &str, needs: LabelKind) -> DatasetSpec {
    DatasetSpec::new(vec![path.to_owned()], needs)
}

fn message(result: Result<Store>) -> (String, String) {
    let error: Error = result.err().expect("must be refused");
    (error.to_string(), error.hint().unwrap_or_default().to_owned())
}

const QUESTIONS: [&str; 3] = ["what is a cat", "comma, \"quoted\"", "zwei\nZeilen ü"];
const ANSWERS: [&str; 3] = ["an animal", "that is one", "yes"];
const SCORES: [f64; 3] = [0.5, 1.0, 0.25];

fn batch() -> RecordBatch {
    let questions: ArrayRef = Arc::new(StringArray::from(QUESTIONS.to_vec()));
    let answers: DictionaryArray<Int32Type> = ANSWERS.into_iter().collect();
    let scores: ArrayRef = Arc::new(Float64Array::from(SCORES.to_vec()));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let columns = [("id", ids), ("question", questions), ("answer", Arc::new(answers) as ArrayRef), ("score", scores)];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn delimited(delimiter: char) -> String {
    let mut text = format!("id{delimiter}question{delimiter}answer{delimiter}score\r\n");
    for i in 0..3 {
        let question = QUESTIONS[i].replace('"', "\"\"");
        text.push_str(&format!(
            "{}{delimiter}\"{question}\"{delimiter}{}{delimiter}{}\r\n",
            i + 1,
            ANSWERS[i],
            SCORES[i]
        ));
    }
    text
}

fn write_all_formats(place: &Place) -> Vec<&'static str> {
    let objects: Vec<String> = (0..3)
        .map(|i| {
            serde_json::json!({"id": i + 1, "question": QUESTIONS[i], "answer": ANSWERS[i], "score": SCORES[i]})
                .to_string()
        })
        .collect();
    place.write("a.jsonl", objects.join("\n"));
    place.write("a.json", format!("[{}]", objects.join(",\n")));
    place.write("a.csv", delimited(','));
    place.write("a.tsv", delimited('\t'));
    let batch = batch();
    let file = fs::File::create(place.path("a.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let file = fs::File::create(place.path("a.feather")).unwrap();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(file, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let file = fs::File::create(place.path("a.arrow")).unwrap();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(file, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    vec!["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.feather", "a.arrow"]
}

#[test]
fn all_formats_give_the_same_rows() {
    let place = Place::new();
    for name in write_all_formats(&place) {
        let store = place.open(&spec(name, LabelKind::Float)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(store.columns(), ["question", "answer"], "{name}");
        assert_eq!(store.len(), 3);
        let batch = store.batch(&[2, 0]).unwrap();
        let expected: Vec<Vec<u32>> = [QUESTIONS[2], QUESTIONS[0], ANSWERS[2], ANSWERS[0]]
            .iter()
            .map(|text| std::iter::once(1).chain(text.split_whitespace().map(word)).collect())
            .collect();
        let sequences: Vec<&[u32]> =
            batch.packed.offsets.windows(2).map(|w| &batch.packed.ids[w[0] as usize..w[1] as usize]).collect();
        assert_eq!(sequences, expected, "{name}");
        assert_eq!((batch.columns, batch.rows, batch.row_ids.clone()), (2, 2, vec![2, 0]));
        assert_eq!(batch.labels, Some(Labels::Float(vec![0.25, 0.5])), "{name}");
        assert_eq!(batch.text_ids[0], [store.text_ids(2)[0], store.text_ids(0)[0]]);
        assert_eq!(store.report().notes, ["columns without a role are ignored: `id`"], "{name}");
    }
}

#[test]
fn rows_know_where_they_stand() {
    let place = Place::new();
    write_all_formats(&place);
    let located = |name: &str| place.open(&spec(name, LabelKind::None)).unwrap().locate(2);
    assert_eq!(located("a.jsonl"), "`a.jsonl` line 3");
    assert_eq!(located("a.csv"), "`a.csv` line 4");
    assert_eq!(located("a.parquet"), "`a.parquet` row 3");
    assert_eq!(located("a.arrow"), "`a.arrow` row 3");
}

#[test]
fn a_directory_of_mixed_formats_is_one_data_set() {
    let place = Place::new();
    place.write("train/b.jsonl", "{\"q\": \"one\", \"a\": \"two\"}\n");
    place.write("train/a.csv", "a,q\nvier,drei\n");
    place.write("train/README.md", "not data");
    let mut spec = spec("train", LabelKind::None);
    spec.columns = Some(vec!["q".into(), "a".into()]);
    let store = place.open(&spec).unwrap();
    assert_eq!([store.locate(0), store.locate(1)], ["`train/a.csv` line 2", "`train/b.jsonl` line 1"]);
    assert_eq!(store.sequence(0, 0).unwrap().0, [1, word("drei")]);
    assert_eq!(store.sequence(1, 0).unwrap().0, [1, word("one")]);
    assert!(store.batch(&[2]).is_err());
}

#[test]
fn damaged_binary_files_are_errors_not_panics() {
    let place = Place::new();
    write_all_formats(&place);
    let mut errors = 0;
    for name in ["a.parquet", "a.feather", "a.arrow"] {
        let whole = fs::read(place.path(name)).unwrap();
        let mut tried = Vec::new();
        tried.extend((0..whole.len()).step_by(29).map(|cut| whole[..cut].to_vec()));
        for at in (0..whole.len()).step_by(11) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xFF;
            tried.push(flipped);
        }
        for bytes in tried {
            place.write(&format!("cut-{name}"), bytes);
            // What was changed may be padding; then the rows are what they were, or other valid ones.
            if let Err(error) = place.open(&spec(&format!("cut-{name}"), LabelKind::Float)) {
                assert!(error.to_string().contains(&format!("cut-{name}`")), "{error}");
                errors += 1;
            }
        }
    }
    assert!(errors > 100, "{errors}");
}

const BAD: &[u8] = b"{\"q\": \"good\", \"label\": 1}\n\
    {\"label\": 1}\n\
    {\"q\": 5, \"label\": 1}\n\
    {\"q\": null, \"label\": 1}\n\
    {\"q\": \" \\t \", \"label\": 1}\n\
    {\"q\": \"x\", \"label\": NaN}\n\
    {\"q\": \"x\", \"label\": \"one\"}\n\
    {\"q\": \"\xff\", \"label\": 1}\n\
    {\"q\": \"x\"\n\
    [\"x\"]\n\
    {\"q\": \"x\", \"label\": null}\n\
    \n\
    {\"q\": \"fine\", \"label\": -Infinity}\n\
    {\"q\": \"good too\", \"label\": 0.5}\n";

#[test]
fn bad_rows_are_refused_by_file_line_and_column() {
    let place = Place::with("bad.jsonl", BAD);
    let (text, hint) = message(place.open(&spec("bad.jsonl", LabelKind::Float)));
    assert_eq!(
        text,
        "11 of 13 rows in `bad.jsonl` cannot be used:\n  \
         `bad.jsonl` line 2, column `q`: missing\n  \
         `bad.jsonl` line 3, column `q`: a number instead of text\n  \
         `bad.jsonl` line 4, column `q`: null instead of text\n  \
         `bad.jsonl` line 5, column `q`: empty text\n  \
         `bad.jsonl` line 6, column `label`: NaN is not a label\n  …"
    );
    assert!(hint.contains("on_bad_row = \"skip\""), "{hint}");
    assert!(place.entries().is_empty(), "nothing half-made stays");
    // A single one reads as one sentence.
    place.write("one.jsonl", "{\"q\": \"a\"}\n{\"q\": \"\"}\n");
    assert_eq!(
        message(place.open(&spec("one.jsonl", LabelKind::None))).0,
        "`one.jsonl` line 2, column `q`: empty text"
    );
}

#[test]
fn bad_rows_are_skipped_and_counted_by_reason() {
    let place = Place::with("bad.jsonl", BAD);
    let mut spec = spec("bad.jsonl", LabelKind::Float);
    spec.on_bad_row = OnBadRow::Skip;
    let store = place.open(&spec).unwrap();
    let report = store.report();
    assert_eq!((report.rows_read, report.rows_used, report.rows_skipped()), (13, 2, 11));
    let counts: BTreeMap<Reason, u64> = report.skipped.iter().map(|s| (s.reason, s.rows)).collect();
    let expected = [
        (Reason::Malformed, 2),
        (Reason::BadUtf8, 1),
        (Reason::MissingColumn, 1),
        (Reason::WrongType, 2),
        (Reason::Null, 2),
        (Reason::EmptyText, 1),
        (Reason::BadLabel, 2),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
    assert_eq!(store.locate(1), "`bad.jsonl` line 14");
    assert_eq!(store.labels(&[0, 1]), Some(Labels::Float(vec![1.0, 0.5])));
    let lines = report.lines(store.files()).join("\n");
    assert!(lines.contains("left out: 2 rows (bad label), first `bad.jsonl` line 6, column `label`: NaN"), "{lines}");
    // None usable at all is an error even so.
    place.write("none.jsonl", "{\"q\": \"\"}\n{\"q\": \"\"}\n");
    spec.paths = vec!["none.jsonl".into()];
    spec.needs = LabelKind::None;
    let (text, hint) = message(place.open(&spec));
    assert_eq!(text, "no usable rows in `none.jsonl`");
    assert_eq!(hint, "all were left out, the first because of `none.jsonl` line 1, column `q`: empty text");
}

#[test]
fn wrong_columns_are_told_with_what_there_is() {
    let place =
        Place::with("a.jsonl", "{\"query\": \"a\", \"answer\": \"b\", \"n\": 3, \"negatives\": [\"x\", \"y\"]}\n");
    let with = |columns: &[&str], label: Option<&str>, needs: LabelKind| {
        let mut spec = spec("a.jsonl", needs);
        spec.columns = (!columns.is_empty()).then(|| columns.iter().map(|c| (*c).to_owned()).collect());
        spec.label = label.map(str::to_owned);
        spec
    };
    let refused =
        |columns: &[&str], label: Option<&str>, needs: LabelKind| message(place.open(&with(columns, label, needs)));
    let none = LabelKind::None;
    assert_eq!(
        refused(&["querry"], None, none),
        ("no column `querry` in `a.jsonl`".into(), "did you mean `query`?".into())
    );
    assert_eq!(refused(&["n"], None, none).0, "column `n` of `a.jsonl` holds numbers, not text");
    let (text, hint) = refused(&[], None, none);
    assert_eq!(text, "column `negatives` of `a.jsonl` holds lists of texts, not text");
    assert!(hint.contains("`negatives_1`"), "{hint}");
    let (text, hint) = refused(&["query", "answer"], None, LabelKind::Float);
    assert_eq!(text, "`a.jsonl` has no label column, and the loss needs one");
    assert!(hint.contains("`label`, `labels`, `score`, `scores`") && hint.contains("`n` (numbers)"), "{hint}");
    let mut either = with(&["query", "answer"], None, LabelKind::Any);
    assert!(place.open(&either).is_ok(), "labels of any kind, or none");
    either.unlabelled_from = 3;
    assert_eq!(message(place.open(&either)).0, "`a.jsonl` has no label column, and the loss needs one");
    either.unlabelled_from = 2;
    assert!(place.open(&either).is_ok());
    assert!(
        refused(&["query"], Some("answer"), LabelKind::Float)
            .0
            .contains("holds text (`b`), and the loss needs numbers")
    );
    assert!(refused(&["query"], Some("query"), none).0.contains("both an input column and the label"));
    let mut prompted = with(&["query"], None, none);
    prompted.prompts.insert("answer".into(), "p: ".into());
    assert_eq!(message(place.open(&prompted)).0, "the prompt for `answer` belongs to no input column");
    // The same column twice is what SimCSE trains on.
    let store = place.open(&with(&["query", "query"], Some("n"), LabelKind::Int)).unwrap();
    assert_eq!(store.columns(), ["query", "query"]);
    assert_eq!(store.labels(&[0]), Some(Labels::Int(vec![3])));
    let mut named = with(&["querry"], None, none);
    named.name = Some("faq".into());
    assert_eq!(message(place.open(&named)).0, "data set `faq`: no column `querry` in `a.jsonl`");
}

#[test]
fn missing_and_empty_inputs() {
    let place = Place::with("train.jsonl", "{\"q\": \"a\"}\n");
    place.write("empty.jsonl", "");
    place.write("broken.parquet", "not parquet");
    place.write("old.feather", "FEA1....");
    place.write("numbers.jsonl", "{\"a\": 1}\n");
    let refused = |path: &str| message(place.open(&spec(path, LabelKind::None)));
    assert_eq!(
        refused("trian.jsonl"),
        ("no such file or directory: `trian.jsonl`".into(), "did you mean `train.jsonl`?".into())
    );
    assert_eq!(refused("*.csv").0, "`*.csv` matches no file");
    assert_eq!(refused("empty.jsonl").0, "no rows in `empty.jsonl`");
    assert!(refused("broken.parquet").0.starts_with("cannot read `broken.parquet` as Parquet: "));
    assert!(refused("old.feather").1.contains("Feather 2"));
    assert_eq!(refused("numbers.jsonl"), ("`numbers.jsonl` has no text column".into(), "it has `a` (numbers)".into()));
}

#[test]
fn labels_become_what_the_loss_takes() {
    let place = Place::new();
    let rows =
        |labels: &[&str]| labels.iter().map(|l| format!("{{\"t\": \"x\", \"label\": {l}}}\n")).collect::<String>();
    let labels = |content: String, needs: LabelKind| {
        place.write("l.jsonl", content);
        place.open(&spec("l.jsonl", needs)).map(|s| s.labels(&(0..s.len() as u32).collect::<Vec<_>>()))
    };
    assert_eq!(
        labels(rows(&["1", "0.5", "true"]), LabelKind::Float).unwrap(),
        Some(Labels::Float(vec![1.0, 0.5, 1.0]))
    );
    assert_eq!(labels(rows(&["1", "2.0", "0"]), LabelKind::Int).unwrap(), Some(Labels::Int(vec![1, 2, 0])));
    assert_eq!(labels(rows(&["1", "2"]), LabelKind::Any).unwrap(), Some(Labels::Int(vec![1, 2])));
    assert_eq!(labels(rows(&["1", "2.0"]), LabelKind::Any).unwrap(), Some(Labels::Float(vec![1.0, 2.0])));
    assert_eq!(labels(rows(&["1"]), LabelKind::None).unwrap(), None);
    let matrix = Labels::Matrix { width: 2, data: vec![1.0, 2.0, 3.0, 4.0] };
    assert_eq!(labels(rows(&["[1, 2]", "[3, 4]"]), LabelKind::Matrix).unwrap(), Some(matrix));
    let error = |content: String, needs| labels(content, needs).unwrap_err().to_string();
    assert_eq!(
        error(rows(&["1", "0.5"]), LabelKind::Int),
        "`l.jsonl` line 2, column `label`: 0.5 is not a class number"
    );
    assert!(error(rows(&["[1, 2]", "[3]"]), LabelKind::Matrix).contains("1 labels where the first row has 2 labels"));
    assert!(
        error(rows(&["[1, 2]"]), LabelKind::Float).contains("lists of numbers, and the loss needs one number a row")
    );
}

#[test]
fn class_names_are_numbered_in_sorted_order_and_told() {
    let place = Place::with("nli.csv", "t,label\na,neutral\nb,entailment\nc,neutral\nd,contradiction\n");
    let store = place.open(&spec("nli.csv", LabelKind::Int)).unwrap();
    assert_eq!(store.labels(&[0, 1, 2, 3]), Some(Labels::Int(vec![2, 1, 2, 0])));
    let label = store.report().label.clone().unwrap();
    assert_eq!(label.names, ["contradiction", "entailment", "neutral"]);
    assert_eq!(label.classes, [(0.0, 1), (1.0, 1), (2.0, 2)]);
    assert!((label.mean - 1.25).abs() < 1e-12);
    let note = "labels of `label` are numbered by name: `contradiction` is 0, `entailment` is 1, `neutral` is 2";
    assert_eq!(store.report().notes, [note]);
}

#[test]
fn the_label_column_is_found_by_the_references_order() {
    let place = Place::with("a.jsonl", "{\"t\": \"x\", \"scores\": 9, \"score\": 0.5, \"labels\": 3}\n");
    let store = place.open(&spec("a.jsonl", LabelKind::Float)).unwrap();
    assert_eq!(store.labels(&[0]), Some(Labels::Float(vec![3.0])));
    // In CSV a number in quotes is still a number, and text may look like one.
    place.write("a.csv", "t,score\n2020,\"0.5\"\nx,1e0\n");
    let store = place.open(&spec("a.csv", LabelKind::Float)).unwrap();
    assert_eq!(store.labels(&[0, 1]), Some(Labels::Float(vec![0.5, 1.0])));
    assert_eq!(store.columns(), ["t"]);
}

#[test]
fn the_report_counts_lengths_truncation_and_repetition() {
    let mut place = Place::new();
    place.words.limit = Some(4);
    // Lengths 1 + words: 2, 3, ..., 11, and the first pair once more.
    let mut text: String =
        (1..=10).map(|n| format!("{{\"q\": \"{}\", \"a\": \"same\"}}\n", vec!["w"; n].join(" "))).collect();
    text.push_str("{\"q\": \"w\", \"a\": \"same\"}\n");
    place.write("a.jsonl", text);
    let store = place.open(&spec("a.jsonl", LabelKind::None)).unwrap();
    let report = store.report();
    let q = &report.columns[0];
    assert_eq!((q.lengths.p50, q.lengths.p90, q.lengths.p99, q.lengths.max), (6, 10, 11, 11));
    assert_eq!((q.truncated, q.repeated, q.tokens), (7, 1, 2 + 2 + 3 + 8 * 4));
    assert_eq!((report.columns[1].repeated, report.repeated_rows), (10, 1));
    assert_eq!(report.total_tokens, q.tokens + 22);
    assert_eq!(report.max_seq_length, Some(4));
    assert_eq!(store.row_tokens(9).unwrap(), 6);
    let lines = report.lines(store.files()).join("\n");
    assert!(lines.contains("7 cut to 4 (63.6 %)"), "{lines}");
}

#[test]
fn prompts_change_tokens_and_text_ids_but_not_what_samplers_compare() {
    let place = Place::with("a.jsonl", "{\"q\": \"same\", \"d\": \"same\"}\n{\"q\": \"x\", \"d\": \"same\"}\n");
    let mut spec = spec("a.jsonl", LabelKind::None);
    spec.prompts.insert("q".into(), "query: ".into());
    let store = place.open(&spec).unwrap();
    assert_eq!(store.sequence(0, 0).unwrap(), (&[1, word("query:"), word("same")][..], 2));
    assert_eq!(store.sequence(0, 1).unwrap().1, 0);
    assert_eq!(*store.batch(&[0, 1]).unwrap().packed.prompt_lengths, [2, 2, 0, 0]);
    let (ids, raw) = (store.text_ids(0), store.raw_text_ids(0));
    assert_ne!(ids[0], ids[1]);
    assert_eq!((raw[0], raw[1], ids[1]), (raw[1], ids[1], store.text_ids(1)[1]));
    let settings = SamplerSettings { batch_size: 2, max_tokens: None, drop_last: false, shuffle: true, seed: 1 };
    let sampler = BatchSampler::NoDuplicates.build(Arc::new(store), settings).unwrap();
    assert_eq!(sampler.batches_per_epoch(0), 2);
}

#[test]
fn limit_counts_usable_rows() {
    let place = Place::with("bad.jsonl", BAD);
    let mut spec = spec("bad.jsonl", LabelKind::Float);
    spec.limit = Some(1);
    // Row 1 is good, and what comes after it is not looked at.
    assert_eq!(place.open(&spec).unwrap().report().rows_read, 1);
}
