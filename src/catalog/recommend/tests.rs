#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalog::choose::TYPES;
use crate::data::inspect;

/// Data of a shape, from rows of a file.
fn data(text: &str, rows: u64) -> Inspection {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    std::fs::write(&path, text).unwrap();
    let request = inspect::Request { data: path.to_str().unwrap(), ..inspect::Request::default() };
    Inspection { rows, ..inspect::inspect(&request).unwrap() }
}

const ROWS: &[&str] = &[
    r#"{"text": "how is the weather"}"#,
    r#"{"text": "how is the weather", "label": 3}"#,
    r#"{"text": "how is the weather", "label": [0.1, 0.2, 0.3]}"#,
    r#"{"a": "how is the weather", "b": "it is fine"}"#,
    r#"{"a": "how is the weather", "b": "it is fine", "label": 1}"#,
    r#"{"a": "how is the weather", "b": "it is fine", "score": 0.25}"#,
    r#"{"a": "how is the weather", "b": "it is fine", "score": 4.25}"#,
    r#"{"a": "how is the weather", "b": "it is fine", "label": 2}"#,
    r#"{"a": "how is the weather", "b": "it is fine", "c": "he is not"}"#,
    r#"{"a": "how is the weather", "b": "it is fine", "c": "he is not", "score": 2.5}"#,
    r#"{"a": "how is the weather", "b": "it is fine", "c": "he is not", "scores": [2.5, 0.5]}"#,
    r#"{"a": "how is the weather", "b": ["it is fine", "he is not"], "labels": [1, 0]}"#,
];

fn situation<'a>(model_type: ModelType, data: &'a Inspection) -> Situation<'a> {
    Situation { model_type, goal: None, data, path: "a.jsonl", eval: None, base: None, memory: Some(8 << 30) }
}

#[test]
fn what_is_recommended_fits() {
    let mut advised = 0;
    for row in ROWS {
        let data = data(row, 5000);
        for model_type in TYPES {
            let ranked = losses::ranked(&situation(model_type, &data));
            for candidate in &ranked {
                // those on mined rows, and on a column twice, get other rows
                let reshaped = !candidate.hard_negatives.is_empty() || candidate.columns.len() != data.columns.len();
                let card = fit::plain(model_type).find(|card| card.name == candidate.name).unwrap();
                let refusal = fit::refusal(card, &data);
                assert!(reshaped || refusal.is_none(), "{model_type} {}: {refusal:?} {row}", candidate.name);
            }
            let advice = recommend(&situation(model_type, &data));
            assert_eq!(advice.is_ok(), !ranked.is_empty(), "{model_type} {row}");
            match advice {
                Ok(advice) => {
                    advised += 1;
                    let brief = serde_json::to_string(&advice.brief()).unwrap();
                    assert!(brief.len() < 3100, "{} characters: {brief}", brief.len());
                }
                Err(error) => assert!(error.hint().is_some_and(|hint| hint.contains('`')), "{error}"),
            }
        }
    }
    assert!(advised > 25, "{advised}");
}

#[test]
fn memory_cuts_batches_or_takes_them_in_parts() {
    let data = data(ROWS[3], 100_000);
    let of = |memory: u64, base: &str| {
        let base = bases::find(base).map(Base::from);
        recommend(&Situation { memory: Some(memory), base, ..situation(ModelType::SentenceTransformer, &data) })
            .unwrap()
    };
    let large = of(64 << 30, "sentence-transformers/all-MiniLM-L6-v2").settings;
    assert_eq!(large["args.per_device_train_batch_size"], 64);
    assert!(!large.contains_key("loss.mini_batch_size") && !large.contains_key("model.lora.r"));
    let small = of(8 << 30, "intfloat/multilingual-e5-base").settings;
    assert_eq!((&small["model.lora.r"], &small["args.learning_rate"]), (&json!(16), &json!(2e-4)));
    let scored = self::data(ROWS[5], 100_000);
    let advice =
        recommend(&Situation { memory: Some(600 << 20), ..situation(ModelType::SentenceTransformer, &scored) });
    assert!(advice.unwrap().why.iter().any(|why| why.contains("batch ")));
}

#[test]
fn languages_goals_and_prompts_count() {
    let german = data(r#"{"a": "wie ist das Wetter", "b": "es ist nicht gut und nicht schlecht"}"#, 20_000);
    let advice = recommend(&situation(ModelType::SentenceTransformer, &german)).unwrap();
    assert_eq!(advice.settings["model.base"], "intfloat/multilingual-e5-small");
    assert_eq!(advice.settings["args.prompts"], json!({"a": "query: ", "b": "passage: "}));
    let fast = Situation { goal: Some(Goal::Speed), ..situation(ModelType::SentenceTransformer, &german) };
    let fast = recommend(&fast).unwrap().settings;
    assert_eq!(fast["model.static_embedding.distill_from"], "intfloat/multilingual-e5-small");
    assert_eq!((&fast["args.learning_rate"], &fast["args.per_device_train_batch_size"]), (&json!(1e-2), &json!(512)));
    let translated =
        data(r#"{"a": "what is the weather like", "b": "wie ist das Wetter und was ist nicht gut"}"#, 20_000);
    let advice = recommend(&situation(ModelType::SentenceTransformer, &translated)).unwrap();
    assert_eq!(advice.evaluator.unwrap().metric, "eval_dev_mean_accuracy");
    assert_eq!(advice.settings["args.prompts"], json!({"a": "query: ", "b": "query: "}));
    assert_eq!(advice.settings["loss.name"], "MultipleNegativesSymmetricRankingLoss");
    assert_eq!(advice.mine_first, None);
    let similar = Situation { goal: Some(Goal::Similarity), ..situation(ModelType::SentenceTransformer, &german) };
    assert_eq!(recommend(&similar).unwrap().losses[0].name, "MultipleNegativesSymmetricRankingLoss");
}

/// Pairs of texts with so many words each.
fn long(words: usize) -> Inspection {
    let text = "weather ".repeat(words);
    data(&format!("{{\"a\": \"{text}\", \"b\": \"{text}\"}}"), 100_000)
}

#[test]
fn large_batches_are_taken_in_parts() {
    let data = long(200);
    let of =
        |model_type| recommend(&Situation { memory: Some(3 << 30), ..situation(model_type, &data) }).unwrap().settings;
    let dense = of(ModelType::SentenceTransformer);
    assert_eq!(dense["loss.name"], "CachedMultipleNegativesRankingLoss");
    assert_eq!(dense["args.per_device_train_batch_size"], 64);
    assert!((4..=32).contains(&dense["loss.mini_batch_size"].as_u64().unwrap()), "{dense:?}");
    let sparse = of(ModelType::SparseEncoder);
    assert!(sparse.contains_key("loss.cached_splade.mini_batch_size"), "{sparse:?}");
    assert!(sparse.contains_key("loss.cached_splade.document_regularizer_weight"));
    let late = of(ModelType::MultiVectorEncoder);
    assert_eq!(late["loss.name"], "CachedMultiVectorMultipleNegativesRankingLoss");
}

#[test]
fn long_texts_get_a_base_that_reads_them() {
    let settings = |words: usize| {
        recommend(&Situation { memory: Some(64 << 30), ..situation(ModelType::SentenceTransformer, &long(words)) })
            .unwrap()
            .settings
    };
    let (short, far) = (settings(300), settings(700));
    assert_eq!(short["model.base"], "sentence-transformers/all-MiniLM-L6-v2");
    assert_eq!(
        (&far["model.base"], &far["model.max_seq_length"]),
        (&json!("Alibaba-NLP/gte-modernbert-base"), &json!(1024))
    );
}

#[test]
fn weights_of_positives_are_counted() {
    let rows: String = (0..10)
        .map(|i| format!("{{\"a\": \"how is it {i}\", \"b\": \"fine\", \"label\": {}}}\n", u8::from(i == 0)))
        .collect();
    let advice = recommend(&situation(ModelType::CrossEncoder, &data(&rows, 10))).unwrap();
    assert_eq!(advice.settings["loss.pos_weight"], "auto");
    assert!(advice.why[0].contains("comes to 9:"), "{:?}", advice.why);
}
