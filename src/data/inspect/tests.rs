#![allow(clippy::unwrap_used)]

use super::*;

fn look(name: &str, text: &str, eval: Option<&str>) -> Result<Inspection> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let other = dir.path().join("eval.jsonl");
    if let Some(eval) = eval {
        std::fs::write(&other, eval).unwrap();
    }
    let eval = eval.map(|_| other.to_str().unwrap());
    inspect(&Request { data: path.to_str().unwrap(), eval, ..Request::default() })
}

#[test]
fn pairs_are_counted() {
    let rows = r#"{"q": "What is a cat?", "a": "an animal"}
{"q": "What is a dog?", "a": "an animal"}
{"q": "What is a dog?", "a": "a pet"}
{"q": "what is a DOG", "a": "a pet!"}
{"q": "", "a": "x"}
{"q": "What is a cat?", "a": "an animal"}
"#;
    let found = look("a.jsonl", rows, Some(r#"{"q": "what is a cat", "a": "a pet"}"#)).unwrap();
    assert_eq!((found.rows, found.unusable, found.shape), (6, 1, Shape::Pairs));
    assert!(found.first_unusable.unwrap().ends_with("line 5: column `q` has an empty text"));
    assert_eq!(found.duplicates, Duplicates { exact: 1, normalised: 2, estimated: false });
    let wrong = found.false_negatives.unwrap();
    assert_eq!((wrong.anchors_with_several, wrong.positives_of_several), (2, 1));
    let column = &found.columns[0];
    assert_eq!((column.name.as_str(), column.empty, column.repeated), ("q", 1, 2));
    assert_eq!(found.columns[1].near_empty, 1);
    assert_eq!(column.languages, ["en"]);
    assert_eq!(found.signs.asks[0], 1.0);
    let eval = found.eval.unwrap();
    assert_eq!((eval.rows, eval.rows_in_train, eval.first_texts_in_train, eval.other_texts_in_train), (1, 0, 1, 1));
}

/// Each anchor twice, with another positive each: a row has one wrong negative among the other 199.
#[test]
fn wrong_negatives_are_those_expected() {
    let rows: String = (0..200).map(|i| format!("{{\"a\": \"anchor {}\", \"b\": \"text {i}\"}}\n", i / 2)).collect();
    let found = look("a.jsonl", &rows, None).unwrap().false_negatives.unwrap();
    let expected = 200.0 * 32.0 * 31.0 / (200.0 * 199.0);
    assert!((found.per_batch_32 - expected).abs() < 0.01, "{found:?} {expected}");
    assert_eq!((found.anchors_with_several, found.positives_of_several), (100, 0));
    // the same pair twice is one that belongs together
    let rows: String =
        (0..100).map(|i| format!("{{\"a\": \"anchor {}\", \"b\": \"text {}\"}}\n", i / 2, i / 2)).collect();
    assert_eq!(look("a.jsonl", &rows, None).unwrap().false_negatives.unwrap().per_batch_128, 0.0);
}

#[test]
fn shapes_are_told() {
    for (shape, text) in [
        (Shape::Texts, "text\nhello there\n"),
        (Shape::ClassifiedTexts, "text,label\nhello,3\nbye,2\n"),
        (Shape::BinaryPairs, "a,b,label\nx y,z w,1\nx z,y w,0\n"),
        (Shape::ScoredPairs, "a,b,score\nx y,z w,0.25\nx z,y w,1\n"),
        (Shape::ClassifiedPairs, "a,b,label\nx y,z w,entails\n"),
        (Shape::Triplets, "a,b,c\nx y,z w,v\n"),
        (Shape::ScoredTriplets, "a,b,c,score\nx y,z w,v,0.3\n"),
    ] {
        assert_eq!(look("a.csv", text, None).unwrap().shape, shape, "{text}");
    }
    for (shape, text) in [
        (Shape::Lists, r#"{"q": "x", "docs": ["a", "b"], "labels": [1, 0]}"#),
        (Shape::ListedTriplets, r#"{"q": "x", "p": "y", "n": "z", "scores": [1.5, 0.25]}"#),
        (Shape::EmbeddedTexts, r#"{"text": "x", "label": [0.1, 0.2, 0.3]}"#),
        (Shape::Unknown, r#"{"q": "x", "docs": ["a", "b"]}"#),
    ] {
        assert_eq!(look("a.jsonl", text, None).unwrap().shape, shape, "{text}");
    }
}

#[test]
fn triplets_in_a_wrong_order_show_signs() {
    let rows = "anchor,positive,negative\nred cat sits,blue dog,a red cat sits here\nred cat,blue dog,red cat\nx y,same,same\n";
    let signs = look("a.csv", rows, None).unwrap().signs;
    assert!((signs.nearer_negative - 2.0 / 3.0).abs() < 1e-9 && (signs.equal_negative - 1.0 / 3.0).abs() < 1e-9);
}

#[test]
fn what_cannot_be_inspected_is_named() {
    let error = look("a.jsonl", "{\"n\": 1}\n", None).unwrap_err();
    assert!(error.to_string().contains("no column with texts") && error.hint().unwrap().contains("`n` (numbers)"));
    let error = look("a.jsonl", "{\"a\": \"\", \"b\": \"x\"}\n", None).unwrap_err();
    assert!(error.to_string().contains("no row can be used"), "{error}");
    let missing = inspect(&Request { data: "nowhere.jsonl", ..Request::default() });
    assert!(missing.unwrap_err().hint().is_some());
}

#[test]
fn a_second_name_of_the_label_is_no_input() {
    let rows = |name: fn(usize) -> usize| -> String {
        (0..40)
            .map(|i| {
                format!("{{\"text\": \"a question {i}\", \"label\": {}, \"label_name\": \"c{}\"}}\n", i % 4, name(i))
            })
            .collect()
    };
    let found = look("a.jsonl", &rows(|i| i % 4), None).unwrap();
    assert_eq!((found.shape, found.second_names.as_slice()), (Shape::ClassifiedTexts, &["label_name".to_owned()][..]));
    assert_eq!((found.columns.len(), found.ignored.as_slice()), (1, &["label_name".to_owned()][..]));
    // one class with two names, or two classes with one
    for name in [|i| i % 8, |i| i % 2] as [fn(usize) -> usize; 2] {
        assert_eq!(look("a.jsonl", &rows(name), None).unwrap().shape, Shape::ClassifiedPairs);
    }
    // texts of a few rows agree with anything
    let few = "{\"a\": \"x y\", \"b\": \"y\", \"label\": 1}\n{\"a\": \"z\", \"b\": \"v\", \"label\": 0}\n";
    assert_eq!(look("a.jsonl", few, None).unwrap().shape, Shape::BinaryPairs);
}

#[test]
fn words_of_other_languages_have_more_tokens() {
    let rows = "{\"a\": \"The weather is not important\", \"b\": \"Das Wetterleuchten ist nicht bedeutend\"}\n";
    let columns = look("a.jsonl", rows, None).unwrap().columns;
    assert_eq!(
        (columns[0].languages.as_slice(), columns[1].languages.as_slice()),
        (&["en".to_owned()][..], &["de".to_owned()][..])
    );
    assert_eq!((columns[0].tokens[3], columns[1].tokens[3]), (7, 10));
}
