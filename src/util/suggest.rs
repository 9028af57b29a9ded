//! "Did you mean": the nearest known name.

/// The known name nearest to `word`, if it is near enough to be meant.
///
/// Case, `-` and `_` do not count; otherwise a third of the letters may differ.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |s: &str| s.to_lowercase().replace(['-', '_', ' '], "");
    let folded = fold(word);
    known
        .into_iter()
        .map(|name| {
            let candidate = fold(name);
            let mut distance = strsim::damerau_levenshtein(&folded, &candidate);
            // `MNRL` style prefixes and suffixes: `CoSENT` for `CoSENTLoss`
            if folded.len() >= 3 && (candidate.starts_with(&folded) || candidate.ends_with(&folded)) {
                distance = distance.min(1);
            }
            (distance, name)
        })
        .filter(|(distance, name)| *distance <= 1.max(name.len().max(word.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `did you mean `x`?` or the list of what is known, as a hint.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let names: Vec<String> = known.into_iter().map(|n| format!("`{n}`")).collect();
            format!("known are {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typos_and_not_strangers() {
        let known = ["learning_rate", "num_train_epochs", "CoSENTLoss"];
        assert_eq!(nearest("learning-rat", known), Some("learning_rate"));
        assert_eq!(nearest("cosent", known), Some("CoSENTLoss"));
        assert_eq!(nearest("zebra", known), None);
        assert!(hint("zebra", known).contains("`num_train_epochs`"));
    }
}
