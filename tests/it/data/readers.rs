//! What evaluators read: tables, plain texts, the BEIR layout; and real data sets, where they are there.

use std::fs;
use std::path::Path;

use tallow::Result;
use tallow::data::beir::{Beir, read_beir};
use tallow::data::texts::{read_columns, read_lines, read_texts};
use tallow::flow::{LabelKind, Labels};

use super::{Place, spec};

#[test]
fn tables_for_evaluators() {
    let place = Place::new();
    place.write("dev.tsv", "sentence1\tsentence2\tscore\nA cat\tA dog\t0.5\nX\tY\t1\n");
    let columns = ["sentence2", "sentence1"];
    let table = read_columns(&place.path("dev.tsv"), Some(&columns), Some("score"), LabelKind::Float).unwrap();
    assert_eq!(table.columns, [["A dog", "Y"], ["A cat", "X"]]);
    assert_eq!(table.labels, Some(Labels::Float(vec![0.5, 1.0])));
    assert!(table.locate(1).ends_with("dev.tsv` line 3"));
    place.write("bad.jsonl", "{\"t\": \"a\", \"score\": 1}\n{\"t\": 7, \"score\": 1}\n");
    let error = read_columns(&place.path("bad.jsonl"), Some(&["t"]), None, LabelKind::Float).unwrap_err();
    assert!(error.to_string().ends_with("bad.jsonl` line 2, column `t`: a number instead of text"), "{error}");

    place.write("t.txt", b"\xEF\xBB\xBFone\r\n\ntwo");
    assert_eq!(read_lines(&place.path("t.txt")).unwrap(), ["one", "", "two"]);
    assert_eq!(read_texts(&place.path("t.txt"), None).unwrap().len(), 3);
    let store = place.open(&spec("t.txt", LabelKind::None)).unwrap();
    assert_eq!((store.columns(), store.len()), (&["text".to_owned()][..], 2));
    assert_eq!(store.locate(1), "`t.txt` line 3", "blank lines do not count");
    place.write("bad.txt", b"ok\nn\xff\n");
    assert!(read_lines(&place.path("bad.txt")).unwrap_err().to_string().contains("line 2: bad UTF-8 at byte 2"));
    assert_eq!(read_texts(&place.path("dev.tsv"), Some("sentence1")).unwrap(), ["A cat", "X"]);
    let error = read_texts(&place.path("dev.tsv"), None).unwrap_err();
    assert!(error.to_string().contains("several text columns: `sentence1`, `sentence2`"), "{error}");
    assert!(read_texts(&place.path("no.txt"), None).unwrap_err().to_string().starts_with("no such file"));
}

fn beir(place: &Place, qrels: &str) -> Result<Beir> {
    place.write(
        "beir/corpus.jsonl",
        "{\"_id\": \"d1\", \"title\": \"Title\", \"text\": \"body \"}\n{\"_id\": 2, \"title\": \"\", \"text\": \"plain\"}\n\
         {\"_id\": \"d3\", \"text\": \"\"}\n",
    );
    place.write(
        "beir/queries.jsonl",
        "{\"_id\": \"q1\", \"text\": \"one\"}\n{\"_id\": \"q2\", \"text\": \"two\"}\n{\"_id\": \"q3\", \"text\": \"three\"}\n",
    );
    place.write("beir/qrels/test.tsv", qrels);
    read_beir(&place.path("beir"), "test")
}

#[test]
fn the_beir_layout() {
    let place = Place::new();
    let header = "query-id\tcorpus-id\tscore\n";
    let data = beir(&place, &format!("{header}q2\td1\t2\nq2\t2\t1\nq2\tgone\t1\nq1\td1\t0\nq9\td1\t1\n")).unwrap();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(data.corpus, [pair("d1", "Title body"), pair("2", "plain"), pair("d3", "")]);
    assert_eq!(data.queries, [pair("q2", "two")]);
    assert_eq!(data.relevant, [["d1", "2", "gone"]]);
    assert_eq!((data.queries_without_relevant, data.missing_documents, data.missing_queries), (2, 1, 1));

    let error = beir(&place, "q2\td1\t2\nq2\td2\t1\n").unwrap_err();
    assert!(error.hint().unwrap().contains("`query-id`, `corpus-id`, `score`"), "{error}");
    let error = beir(&place, &format!("{header}q2\td1\tx\n")).unwrap_err();
    assert!(error.to_string().ends_with("test.tsv` line 2, column `score`: `x` is not a number"), "{error}");
    assert!(beir(&place, &format!("{header}q1\td1\t0\n")).unwrap_err().to_string().starts_with("no query of"));
    fs::remove_file(place.path("beir/queries.jsonl")).unwrap();
    assert!(read_beir(&place.path("beir"), "test").unwrap_err().to_string().contains("queries.jsonl`"));
}

#[test]
fn real_data_sets() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    if !shared.is_dir() {
        eprintln!("skipped: {} is not there", shared.display());
        return;
    }
    let place = Place::new();
    let open = |path: &str, needs| {
        let spec = spec(shared.join(path).to_str().unwrap(), needs);
        place.open(&spec).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    assert_eq!(open("stsb/train.jsonl", LabelKind::Float).len(), 4549);
    assert_eq!(open("pairs_squad/train.jsonl", LabelKind::None).len(), 9999);
    let nli = open("nli_snli/test.jsonl", LabelKind::Int);
    assert_eq!(nli.report().label.as_ref().unwrap().names.len(), 3);
    let beir = read_beir(&shared.join("cranfield"), "test").unwrap();
    assert_eq!((beir.corpus.len(), beir.queries.len(), beir.missing_documents), (1400, 225, 0));
    assert_eq!(read_lines(&shared.join("sentences/sentences.txt")).unwrap().len(), 19_991);
}
