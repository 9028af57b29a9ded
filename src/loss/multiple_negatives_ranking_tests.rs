#![allow(clippy::unwrap_used)]
use super::*;
use crate::loss::tests::{check_gradient, random_columns};

fn value(loss: &MultipleNegativesRankingLoss, outputs: &Outputs) -> f64 {
    loss.compute(outputs, None).unwrap().to_scalar::<f64>().unwrap()
}

#[test]
fn uniform_scores_give_the_log_of_the_candidates() {
    let same = Tensor::ones((4, 3), candle_core::DType::F64, &candle_core::Device::Cpu).unwrap();
    let outputs = Outputs::new(vec![same; 3]);
    let with = |directions: &[Direction]| {
        value(&MultipleNegativesRankingLoss { directions: directions.to_vec(), ..Default::default() }, &outputs)
    };
    // 8 documents; 3 other queries; 4 queries; 6 documents of other rows.
    assert!((with(&[Direction::QueryToDoc]) - 8f64.ln()).abs() < 1e-12);
    assert!((with(&[Direction::QueryToDoc, Direction::QueryToQuery]) - 11f64.ln()).abs() < 1e-12);
    assert!((with(&Direction::ALL) - 21f64.ln()).abs() < 1e-12);
    let symmetric = MultipleNegativesRankingLoss {
        directions: vec![Direction::DocToQuery, Direction::QueryToDoc],
        partition_mode: PartitionMode::PerDirection,
        ..Default::default()
    };
    assert!((value(&symmetric, &outputs) - (8f64.ln() + 4f64.ln()) / 2.0).abs() < 1e-12);
}

#[test]
fn gradient() {
    for similarity_fct in Similarity::ALL {
        for directions in [vec![Direction::QueryToDoc], Direction::ALL.to_vec()] {
            let loss = MultipleNegativesRankingLoss { scale: 2.0, similarity_fct, directions, ..Default::default() };
            check_gradient(&loss, &random_columns(3, 4, 5, 7), None);
        }
    }
    let symmetric = MultipleNegativesRankingLoss {
        directions: vec![Direction::QueryToDoc, Direction::DocToQuery],
        partition_mode: PartitionMode::PerDirection,
        ..Default::default()
    };
    check_gradient(&symmetric, &random_columns(4, 3, 5, 8), None);
}

#[test]
fn hardness_makes_negatives_heavier_without_a_gradient_of_its_own() {
    let columns = random_columns(3, 4, 5, 9);
    let outputs = Outputs::new(columns);
    let with = |mode, strength| {
        let loss = MultipleNegativesRankingLoss {
            scale: 1.0,
            hardness_mode: mode,
            hardness_strength: strength,
            ..Default::default()
        };
        value(&loss, &outputs)
    };
    let plain = with(None, 9.0);
    assert_eq!(with(Some(HardnessMode::AllNegatives), 0.0), plain);
    let (batch, own, all) = (
        with(Some(HardnessMode::InBatchNegatives), 5.0),
        with(Some(HardnessMode::HardNegatives), 5.0),
        with(Some(HardnessMode::AllNegatives), 5.0),
    );
    assert!(batch != plain && own != plain && all != batch && all != own);
    let warned = MultipleNegativesRankingLoss { hardness_mode: Some(HardnessMode::AllNegatives), ..Default::default() };
    assert_eq!(warned.check_dim(5).unwrap().len(), 1);
}

/// The loss by loops, from similarities, with candidates left out as asked.
fn by_hand(outputs: &Outputs, directions: &[Direction], leave_out: impl Fn(usize, usize, usize) -> bool) -> f64 {
    let columns = &outputs.embeddings;
    let rows = columns[0].dim(0).unwrap();
    let similarity = |a: (usize, usize), b: (usize, usize)| {
        let (a, b) = (columns[a.0].narrow(0, a.1, 1).unwrap(), columns[b.0].narrow(0, b.1, 1).unwrap());
        Similarity::Cosine.pairwise(&a, &b).unwrap().to_vec1::<f64>().unwrap()[0] * 20.0
    };
    let mut loss = 0.0;
    for i in 0..rows {
        let positive = similarity((0, i), (1, i));
        let mut sum = 0.0;
        for direction in directions {
            let from = usize::from(matches!(direction, Direction::DocToQuery | Direction::DocToDoc));
            let to =
                if matches!(direction, Direction::QueryToDoc | Direction::DocToDoc) { 1..columns.len() } else { 0..1 };
            for column in to {
                for row in 0..rows {
                    let pair = (from, column) == (0, 1) || (from, column) == (1, 0);
                    let itself = row == i && (from == column || *direction == Direction::DocToDoc);
                    if itself || (!(pair && row == i) && leave_out(i, column, row)) {
                        continue;
                    }
                    sum += similarity((from, i), (column, row)).exp();
                }
            }
        }
        loss += sum.ln() - positive;
    }
    loss / rows as f64
}

#[test]
fn duplicates_are_left_out_when_asked() {
    let mut outputs = Outputs::new(random_columns(3, 4, 5, 10));
    // Row 1 has row 0's positive, row 2 row 0's anchor, row 3's negative is its own positive's text.
    outputs.text_ids = vec![vec![1, 2, 1, 4], vec![11, 11, 13, 14], vec![21, 22, 23, 14]];
    let ids = outputs.text_ids.clone();
    for directions in [vec![Direction::QueryToDoc], Direction::ALL.to_vec()] {
        let plain = MultipleNegativesRankingLoss { directions: directions.clone(), ..Default::default() };
        let masked = MultipleNegativesRankingLoss { mask_duplicates: true, ..plain.clone() };
        let (without, with) = (value(&plain, &outputs), value(&masked, &outputs));
        assert!((without - by_hand(&outputs, &directions, |_, _, _| false)).abs() < 1e-10);
        let expected = by_hand(&outputs, &directions, |i, column, row| {
            ids[column][row] == ids[0][i] || ids[column][row] == ids[1][i]
        });
        assert!((with - expected).abs() < 1e-10, "{directions:?}: {with} {expected}");
        assert!(with < without);
        let mut unique = outputs.clone();
        unique.text_ids = (0..3).map(|c| (0..4).map(|r| c * 4 + r).collect()).collect();
        assert_eq!(value(&masked, &unique), without);
    }
    outputs.text_ids.clear();
    let loss = MultipleNegativesRankingLoss { mask_duplicates: true, ..Default::default() };
    let error = loss.compute(&outputs, None).unwrap_err();
    assert!(error.to_string().contains("`mask_duplicates` needs a text id"), "{error}");
}

#[test]
fn a_row_whose_candidates_are_all_removed_is_fine() {
    // Nothing but duplicates: only the positive pair is left.
    let columns = random_columns(2, 3, 4, 11);
    let mut outputs = Outputs::new(columns.clone());
    outputs.text_ids = vec![vec![1; 3], vec![2; 3]];
    let loss = MultipleNegativesRankingLoss {
        mask_duplicates: true,
        directions: Direction::ALL.to_vec(),
        ..Default::default()
    };
    let vars: Vec<_> = columns.iter().map(|c| candle_core::Var::from_tensor(c).unwrap()).collect();
    let outputs = outputs.with_embeddings(vars.iter().map(|v| v.as_tensor().clone()).collect());
    let value = loss.compute(&outputs, None).unwrap();
    // The pair itself in both directions.
    assert!((value.to_scalar::<f64>().unwrap() - 2f64.ln()).abs() < 1e-12);
    let grads = value.backward().unwrap();
    for var in &vars {
        let grad = grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(grad.iter().all(|g| g.abs() < 1e-9));
    }
}

#[test]
fn settings_are_checked() {
    let read = |text: &str| {
        let table: serde_json::Value = serde_json::from_str(text).unwrap();
        crate::loss::build(CARD.name, table.as_object().unwrap()).map(|loss| loss.config())
    };
    let config = read(r#"{"similarity_fct": "dot_score", "scale": 1, "hardness_mode": "hard_negatives"}"#).unwrap();
    assert_eq!((config["similarity_fct"].as_str(), config["scale"].as_f64()), (Some("dot"), Some(1.0)));
    for (text, part) in [
        (r#"{"scale": 0}"#, "`scale` must be a positive number, got 0"),
        (r#"{"directions": []}"#, "`directions` must contain `query_to_doc`"),
        (r#"{"directions": ["doc_to_query"]}"#, "`directions` must contain `query_to_doc`"),
        (r#"{"directions": ["query_to_document"]}"#, "setting `directions`: unknown variant `query_to_document`"),
        (
            r#"{"directions": ["query_to_doc", "doc_to_doc"], "partition_mode": "per_direction"}"#,
            "needs the positive pair in every direction",
        ),
        (r#"{"hardness_strength": -1}"#, "`hardness_strength` must not be negative"),
        (r#"{"gather_across_devices": true}"#, "a run uses one device"),
        (r#"{"temperature": 0.05}"#, "has no setting `temperature`"),
        (r#"{"similarity_fct": "maxsim"}"#, "setting `similarity_fct`"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.to_string().contains(part), "{text}: {error}");
        assert!(error.to_string().contains(CARD.name), "{text}: {error}");
    }
}
