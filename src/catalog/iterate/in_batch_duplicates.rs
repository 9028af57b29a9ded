//! A text twice in a batch is a wrong negative of itself.

use super::{Change, Facts, Rule, Step};

/// Losses that take other rows of a batch for negatives want each text once in it.
pub(super) const RULE: Rule = Rule {
    id: "in-batch-duplicates",
    summary: "A loss with in-batch negatives takes `args.batch_sampler = \"no_duplicates\"`.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let key = "args.batch_sampler";
    // of a script it may not be known
    let Some(sampler) = facts.run.text(key) else { return Vec::new() };
    if !facts.in_batch_negatives() || sampler.starts_with("no_duplicates") {
        return Vec::new();
    }
    let change = Change::setting(
        "keep equal texts out of a batch",
        "the loss takes every other row of a batch for a negative: a text that is there twice becomes a wrong one",
        key,
        "no_duplicates",
    );
    vec![Step::Change(change.because(format!("`{key}` is `{sampler}`")))]
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::look;

    #[test]
    fn only_where_the_batch_gives_negatives() {
        let mut case = Case::pairs();
        assert_eq!(look(&case.facts()).len(), 1);
        case.history[0].settings.insert("args.batch_sampler".into(), "no_duplicates_hashed".into());
        assert!(look(&case.facts()).is_empty());
        assert!(look(&Case::scored().facts()).is_empty());
        let mut unknown = Case::pairs();
        unknown.history[0].settings.shift_remove("args.batch_sampler");
        assert!(look(&unknown.facts()).is_empty());
    }
}
