//! Another model to start from.

use serde_json::Value;

use super::{Change, Facts, Rule, Step};
use crate::catalog::bases;

/// Last of all, because a new base makes all scores before it another series: the published models that are recommended for
/// the type and need no prompts.
pub(super) const RULE: Rule = Rule {
    id: "other-base",
    summary: "Another published base model of the type, without prompts, when nothing else is left.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let (Some(data), Some(own)) = (facts.data, facts.written("model.base").and_then(Value::as_str)) else {
        return Vec::new();
    };
    if facts.written("model.revision").is_some() {
        return Vec::new();
    }
    let english = data.columns.iter().flat_map(|column| &column.languages).all(|language| language == "en");
    let name = |id: &str| id.rsplit('/').next().unwrap_or(id).to_owned();
    let others = bases::suggest(facts.model_type, english).into_iter();
    let others = others.filter(|known| known.prompts == ["", ""] && name(known.id) != name(own));
    let step = |known: &bases::Published| {
        Step::Change(Change {
            what: format!("start from {}", known.id),
            why: format!("{} M parameters, {} tokens, {}", known.parameters, known.max_seq_length, known.licence),
            evidence: vec![format!("with `{own}` data, negatives, loss, batch and rate were tried")],
            set: vec![("model.base".to_owned(), known.id.into())],
            marks: vec![("model.source.base.hub".to_owned(), known.id.into())],
        })
    };
    others.map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;
    use crate::data::inspect::{self, Inspection};
    use serde_json::json;

    fn data() -> Option<Inspection> {
        let dir = tempfile::tempdir().ok()?;
        let path = dir.path().join("s.jsonl");
        std::fs::write(&path, "{\"a\": \"one text\", \"b\": \"another text\", \"score\": 0.5}\n").ok()?;
        let data = path.display().to_string();
        inspect::inspect(&inspect::Request { data: &data, ..inspect::Request::default() }).ok()
    }

    #[test]
    fn others_than_the_one_that_was_used() {
        let data = data();
        assert!(data.is_some());
        let mut case = Case::scored();
        let bases = |case: &Case| look(&Facts { data: data.as_ref(), ..case.facts() });
        assert!(bases(&case).is_empty(), "a model of its own has no other base");
        case.recipe.insert("model".into(), json!({"base": "models/all-MiniLM-L6-v2"}));
        let found = bases(&case);
        assert!(!found.is_empty());
        assert!(found.iter().all(|step| matches!(step, Step::Change(c) if !c.what.contains("all-MiniLM-L6-v2"))));
        case.recipe.insert("model".into(), json!({"base": "x", "revision": "abc"}));
        assert!(bases(&case).is_empty());
    }
}
