//! More rows in a batch are more negatives.

use super::{Change, Facts, Rule, Step};

/// As many rows as pay for networks, and for static embeddings.
const MOST: [f64; 2] = [512.0, 2048.0];
/// Steps an epoch has at least.
const STEPS: f64 = 20.0;

/// Losses with in-batch negatives learn more from larger batches; for others the size matters little.
pub(super) const RULE: Rule = Rule {
    id: "larger-batch",
    summary: "Under a loss with in-batch negatives the batch is doubled, up to 512 rows (static embeddings 2048).",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let key = "args.per_device_train_batch_size";
    let Some(batch) = facts.run.number(key).filter(|_| facts.in_batch_negatives()) else { return Vec::new() };
    let is_static = ["static_embedding", "static_embedding_and_tokenizer", "distilled"]
        .iter()
        .any(|source| facts.run.has_table(&format!("model.source.{source}")));
    let doubled = batch * 2.0;
    let few = facts.run.train_rows.is_some_and(|rows| (rows as f64) < STEPS * doubled);
    if doubled > MOST[usize::from(is_static)] || few {
        return Vec::new();
    }
    let change = Change::setting(
        format!("twice as many rows a batch: {doubled}"),
        "every other row of a batch is a negative, so a larger one asks harder questions; memory is seen to by the run",
        key,
        doubled as u64,
    );
    vec![Step::Change(change.because(format!("the batch has {batch} rows")))]
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::look;

    #[test]
    fn up_to_what_pays_and_the_data_give() {
        let mut case = Case::pairs();
        assert_eq!(look(&case.facts()).len(), 1);
        case.history[0].train_rows = Some(1000);
        assert!(look(&case.facts()).is_empty(), "15 steps an epoch are few");
        case.history[0].train_rows = Some(1_000_000);
        case.history[0].settings.insert("args.per_device_train_batch_size".into(), 512.into());
        assert!(look(&case.facts()).is_empty());
        case.history[0].settings.insert("model.source.static_embedding.embedding_dim".into(), 256.into());
        assert_eq!(look(&case.facts()).len(), 1);
        assert!(look(&Case::scored().facts()).is_empty());
    }
}
