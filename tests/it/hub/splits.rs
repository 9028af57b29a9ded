//! Splits with slices and sums have the rows that Python's `datasets` takes.

use serde_json::Value;
use tallow::hub::slices;

use super::{hub, recipe};
use crate::support::golden;

#[test]
fn rows_of_slices_are_those_of_datasets() {
    let golden = golden("hub_splits");
    let other = golden["about"]["validation"].as_u64().unwrap();
    let mut refused = 0;
    for case in golden["cases"].as_array().unwrap() {
        let spec = case["spec"].as_str().unwrap();
        for row in case["rows"].as_array().unwrap() {
            let size = row[0].as_u64().unwrap();
            let rows = slices::parse(spec).and_then(|slices| {
                let of = |slice: &slices::Slice| {
                    let rows = slice.rows(if slice.split == "train" { size } else { other })?;
                    Ok((slice.split.clone(), rows.start, rows.end))
                };
                slices.iter().map(of).collect::<Result<Vec<_>, _>>()
            });
            let wanted = row[1].as_array().map(|parts| {
                let part = |part: &Value| {
                    (part[0].as_str().unwrap().to_owned(), part[1].as_u64().unwrap(), part[2].as_u64().unwrap())
                };
                parts.iter().map(part).collect::<Vec<_>>()
            });
            // no rows are no error there, and of no use here
            match wanted.filter(|parts| parts.iter().all(|(_, from, to)| from < to)) {
                Some(wanted) => assert_eq!(rows.unwrap(), wanted, "`{spec}` of {size}"),
                None => {
                    assert!(rows.unwrap_err().hint().is_some(), "`{spec}` of {size}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 20);
}

/// Rows that a run reads of a data set on the Hub, as the numbers of pairs.
#[test]
fn a_run_reads_those_rows() {
    let golden = golden("hub_splits");
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let all: Vec<Value> = String::from_utf8(super::pairs(usize::MAX))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for case in golden["loaded"].as_array().unwrap() {
        let spec = case["spec"].as_str().unwrap();
        let _ = std::fs::remove_dir_all(dir.path().join("cache/rows"));
        recipe(dir.path(), &format!("id = \"owner/halves\"\nsplit = \"{spec}\""), "");
        let (passed, text) = hub.tallow(&["smoke-test", "r.toml"], dir.path(), &[]);
        assert!(passed, "{spec}: {text}");
        let made = std::fs::read_dir(dir.path().join("cache/rows")).unwrap().map(|entry| entry.unwrap().path());
        let made: Vec<_> = made.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
        assert_eq!(made.len(), 1, "{spec}");
        let rows = std::fs::read_to_string(&made[0]).unwrap();
        let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let numbers: Vec<usize> =
            rows.iter().map(|row| all.iter().position(|other| other == row).unwrap_or(usize::MAX)).collect();
        let wanted: Vec<usize> = serde_json::from_value(case["rows"].clone()).unwrap();
        assert_eq!(numbers, wanted, "{spec}");
    }
}
