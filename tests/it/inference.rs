//! Pairs, communities and fewer bits equal the reference's.

use serde_json::Value;
use tallow::flow::Embeddings;
use tallow::scoring::Similarity;
use tallow::scoring::communities::communities;
use tallow::scoring::mining;
use tallow::scoring::quantize::{Precision, Ranges, quantize};

use crate::support::{golden, numbers, shape, whole};

fn embeddings(value: &Value) -> Embeddings {
    Embeddings::new(shape(value)[1], numbers(value).into_iter().map(|x| x as f32).collect())
}

fn count(value: &Value, default: usize) -> usize {
    value.as_u64().map_or(default, |x| x as usize)
}

#[test]
fn mined_pairs_equal_the_reference() {
    let golden = golden("inference");
    let rows = embeddings(&golden["mining"]["embeddings"]);
    for case in golden["mining"]["cases"].as_array().unwrap() {
        let options = &case["options"];
        let (top_k, most) = (count(&options["top_k"], 100), count(&options["max_pairs"], 500_000));
        let found = mining::pairs(Similarity::Cosine, rows.clone(), top_k, most);
        let expected = case["pairs"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{options}");
        for (pair, expected) in found.iter().zip(expected) {
            let numbers = (u64::from(pair.first), u64::from(pair.second));
            assert_eq!(numbers, (expected[1].as_u64().unwrap(), expected[2].as_u64().unwrap()), "{options}");
            assert!((f64::from(pair.score) - expected[0].as_f64().unwrap()).abs() < 1e-6, "{options}");
        }
    }
}

#[test]
fn communities_equal_the_reference() {
    let golden = golden("inference");
    let rows = embeddings(&golden["communities"]["embeddings"]);
    for case in golden["communities"]["cases"].as_array().unwrap() {
        let (threshold, size) = (case["threshold"].as_f64().unwrap(), count(&case["min_community_size"], 0));
        let expected: Vec<Vec<u32>> = case["communities"].as_array().unwrap().iter().map(whole).collect();
        assert_eq!(communities(rows.clone(), threshold as f32, size), expected, "{threshold} {size}");
    }
}

#[test]
fn fewer_bits_equal_the_reference() {
    let golden = &golden("inference")["quantized"];
    let rows = embeddings(&golden["embeddings"]);
    let (own, calibrated) = (Ranges::of(&rows), Ranges::of(&embeddings(&golden["calibration"])));
    for (name, expected) in golden["made"].as_object().unwrap() {
        let (precision, ranges) = match name.strip_suffix(" calibrated") {
            Some(precision) => (precision, &calibrated),
            None => (name.as_str(), &own),
        };
        let precision: Precision = serde_json::from_value(precision.into()).unwrap();
        let made = quantize(&rows, precision, ranges).unwrap();
        let signed = precision.is_signed();
        let got: Vec<f64> =
            made.bytes.iter().map(|b| if signed { f64::from(*b as i8) } else { f64::from(*b) }).collect();
        assert_eq!((vec![made.rows, made.width], got), (shape(expected), numbers(expected)), "{name}");
    }
}
