//! A tokenizer without the tokens that a static embedding has no use for, as model2vec leaves it.

use std::collections::{HashMap, HashSet};

use regex::Regex;
use serde_json::{Map, Value, json};

use super::parse;
use crate::error::{Error, Result};

/// Tokens of a text that model2vec's models read; a recipe's `max_seq_length` replaces it.
const LIMIT: usize = 512;

/// What is left of a tokenizer.
#[derive(Debug)]
pub struct Pruned {
    /// A tokenizer.json, its tokens numbered without gaps.
    pub bytes: Vec<u8>,
    /// The number that each of its tokens had before.
    pub was: Vec<u32>,
}

/// Removes what frames texts, every added token but those for unknown words and padding, and what `remove` matches at
/// its beginning; the rest keeps its order.
///
/// `unknown` and `padding` are the tokens for these where the file itself names none.
///
/// # Errors
/// When the file is not a tokenizer.json, or nothing is left.
pub fn prune(bytes: &[u8], unknown: Option<&str>, padding: Option<&str>, remove: Option<&Regex>) -> Result<Pruned> {
    let mut file = parse(bytes)?;
    let mut tokens = Vocabulary::read(&file)?;
    let own_padding = file["padding"]["pad_token"].as_str().map(str::to_owned);
    let padding = padding.map(str::to_owned).or(own_padding).filter(|p| tokens.scores.contains_key(p));
    let unknown = unknown_token(&file).or_else(|| unknown.map(str::to_owned)).filter(|u| tokens.scores.contains_key(u));
    let is = |one: &Option<String>, token: &str| one.as_deref() == Some(token);
    let added: HashSet<&str> =
        file["added_tokens"].as_array().into_iter().flatten().filter_map(|a| a["content"].as_str()).collect();
    tokens.ordered.retain(|(token, _)| {
        let kept = is(&unknown, token) || is(&padding, token);
        let matched = remove.is_some_and(|r| r.find(token).is_some_and(|found| found.start() == 0));
        is(&unknown, token) || !matched && (kept || !added.contains(token.as_str()))
    });
    if tokens.ordered.is_empty() {
        return Err(Error::usage("no token of the vocabulary is left")
            .with_hint("`token_remove_pattern` matches them all; the default is `\\[unused\\d+\\]`"));
    }
    let number: HashMap<&str, usize> = tokens.ordered.iter().enumerate().map(|(i, (t, _))| (t.as_str(), i)).collect();
    let kept_added = kept_added(&file, &number, [unknown.as_deref(), padding.as_deref()]);
    let model = &mut file["model"];
    if model["vocab"].is_array() {
        let lowest = tokens.scores.values().copied().flatten().fold(f64::INFINITY, f64::min);
        let score = |token: &String| tokens.scores.get(token).copied().flatten().unwrap_or(lowest);
        model["vocab"] = tokens.ordered.iter().map(|(token, _)| json!([token, score(token)])).collect();
        model["unk_id"] = unknown.as_deref().and_then(|u| number.get(u)).map_or(Value::Null, |id| json!(id));
    } else {
        let vocabulary: Map<String, Value> =
            tokens.ordered.iter().enumerate().map(|(i, (token, _))| (token.clone(), json!(i))).collect();
        model["vocab"] = Value::Object(vocabulary);
        if let Some(unknown) = &unknown {
            model["unk_token"] = json!(unknown);
        }
    }
    if let Some(merges) = model.get_mut("merges").and_then(Value::as_array_mut) {
        merges.retain(|merge| {
            parts(merge).is_some_and(|(left, right)| {
                [left, right, &format!("{left}{right}")].iter().all(|part| number.contains_key(*part))
            })
        });
    }
    file["added_tokens"] = kept_added;
    file["post_processor"] = Value::Null;
    file["padding"] = Value::Null;
    file["truncation"] = json!({"direction": "Right", "max_length": LIMIT, "strategy": "LongestFirst", "stride": 0});
    if let Some(pre_tokenizer) = file.get_mut("pre_tokenizer") {
        space_in_front(pre_tokenizer);
    }
    let bytes = serde_json::to_vec_pretty(&file)
        .map_err(|e| Error::Internal(format!("the tokenizer cannot be written: {e}")))?;
    Ok(Pruned { bytes, was: tokens.ordered.iter().map(|(_, id)| *id).collect() })
}

/// The tokens in the order of their numbers.
struct Vocabulary {
    ordered: Vec<(String, u32)>,
    /// Every token; with a score where the model gives one.
    scores: HashMap<String, Option<f64>>,
}

impl Vocabulary {
    fn read(file: &Value) -> Result<Self> {
        let bad = || Error::model("tokenizer.json has no `model.vocab` that is a list or table of tokens");
        let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        let mut ordered = Vec::new();
        let mut scores = HashMap::new();
        match &file["model"]["vocab"] {
            Value::Array(list) => {
                for (id, entry) in list.iter().enumerate() {
                    let token = entry[0].as_str().ok_or_else(bad)?;
                    ordered.push((token.to_owned(), id as u32));
                    scores.insert(token.to_owned(), entry[1].as_f64());
                }
            }
            Value::Object(table) => {
                for (token, id) in table {
                    ordered.push((token.clone(), number(id).ok_or_else(bad)?));
                    scores.insert(token.clone(), None);
                }
            }
            _ => return Err(bad()),
        }
        for added in file["added_tokens"].as_array().into_iter().flatten() {
            if let (Some(token), Some(id)) = (added["content"].as_str(), number(&added["id"]))
                && !scores.contains_key(token)
            {
                ordered.push((token.to_owned(), id));
                scores.insert(token.to_owned(), None);
            }
        }
        ordered.sort_by_key(|(_, id)| *id);
        Ok(Self { ordered, scores })
    }
}

/// The token for unknown words that the model itself names.
fn unknown_token(file: &Value) -> Option<String> {
    let model = &file["model"];
    let by_number = || {
        let id = usize::try_from(model["unk_id"].as_u64()?).ok()?;
        model["vocab"][id][0].as_str()
    };
    model["unk_token"].as_str().or_else(by_number).map(str::to_owned)
}

/// Those of the added tokens that are left, under their new numbers, and `special` ones that were none.
fn kept_added(file: &Value, number: &HashMap<&str, usize>, special: [Option<&str>; 2]) -> Value {
    let mut kept: Vec<Value> = Vec::new();
    for added in file["added_tokens"].as_array().into_iter().flatten() {
        if let Some(id) = added["content"].as_str().and_then(|content| number.get(content)) {
            let mut added = added.clone();
            added["id"] = json!(id);
            kept.push(added);
        }
    }
    for content in special.into_iter().flatten() {
        if let Some(id) = number.get(content).filter(|_| !kept.iter().any(|a| a["content"] == content)) {
            kept.push(json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }));
        }
    }
    kept.sort_by_key(|added| added["id"].as_u64());
    Value::Array(kept)
}

/// The two parts of a merge, written as `"a b"` or `["a", "b"]`.
fn parts(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        other => Some((other[0].as_str()?, other[1].as_str()?)),
    }
}

/// The first word of a text is the token that it is anywhere else.
fn space_in_front(pre_tokenizer: &mut Value) {
    if pre_tokenizer["type"] == "ByteLevel" {
        pre_tokenizer["add_prefix_space"] = json!(true);
    }
    if let Some(list) = pre_tokenizer.get_mut("pretokenizers").and_then(Value::as_array_mut) {
        list.iter_mut().for_each(space_in_front);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(vocab: Value, merges: Value) -> Vec<u8> {
        json!({
            "added_tokens": [{"id": 1, "content": "<s>"}, {"id": 0, "content": "<pad>"}, {"id": 9, "content": "new"}],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": false}]},
            "post_processor": {"type": "TemplateProcessing"},
            "model": {"vocab": vocab, "merges": merges, "unk_token": null, "unk_id": 2},
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn merges_of_removed_tokens_go_and_numbers_close_up() {
        let vocab = json!({"<pad>": 0, "<s>": 1, "a": 2, "b": 3, "ab": 4, "[x]": 5, "c": 6, "abc": 7});
        let bytes = file(vocab, json!(["a b", ["ab", "c"], "c a"]));
        let pattern = Regex::new(r"\[x\]|bc|abc").unwrap();
        let pruned = prune(&bytes, Some("nowhere"), Some("<pad>"), Some(&pattern)).unwrap();
        let made: Value = serde_json::from_slice(&pruned.bytes).unwrap();
        assert_eq!(made["model"]["vocab"], json!({"<pad>": 0, "a": 1, "b": 2, "ab": 3, "c": 4}));
        assert_eq!(made["model"]["merges"], json!(["a b"]));
        assert_eq!(pruned.was, [0, 2, 3, 4, 6]);
        assert_eq!(made["added_tokens"][0]["content"], "<pad>");
        assert_eq!(made["added_tokens"].as_array().unwrap().len(), 1);
        assert_eq!(made["pre_tokenizer"]["pretokenizers"][0]["add_prefix_space"], true);
        assert!(made["post_processor"].is_null() && made["model"]["unk_token"].is_null());
    }

    #[test]
    fn scores_stay_with_their_tokens() {
        let vocab = json!([["<pad>", 0.0], ["<s>", 0.0], ["<unk>", 0.0], ["x", -2.5], ["y", -3.5]]);
        let pruned = prune(&file(vocab, Value::Null), None, None, None).unwrap();
        let made: Value = serde_json::from_slice(&pruned.bytes).unwrap();
        assert_eq!(made["model"]["vocab"], json!([["<unk>", 0.0], ["x", -2.5], ["y", -3.5]]));
        assert_eq!((&made["model"]["unk_id"], pruned.was), (&json!(0), vec![2, 3, 4]));
        assert_eq!(made["added_tokens"][0]["content"], "<unk>", "it is matched in texts as a special token is");
    }

    #[test]
    fn a_pattern_that_leaves_nothing_is_refused() {
        let bytes = file(json!({"a": 2, "<pad>": 0}), Value::Null);
        let error = prune(&bytes, None, None, Some(&Regex::new("").unwrap())).unwrap_err();
        assert!(error.hint().unwrap().contains("token_remove_pattern"), "{error}");
    }
}
