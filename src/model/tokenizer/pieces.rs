//! Which tokens begin a word?

use tokenizers::{ModelWrapper, Tokenizer};

use crate::flow::Piece;

/// What each token of the vocabulary is, by its id.
///
/// WordPiece marks what goes on with a word (`##ing`), byte-level BPE and Unigram what begins one (`Ġword`, `▁word`);
/// punctuation is a word of its own in all of them.
pub(super) fn of(tokenizer: &Tokenizer) -> Vec<Piece> {
    let vocabulary = tokenizer.get_vocab(true);
    let size = vocabulary.values().max().map_or(0, |id| *id as usize + 1);
    let mut pieces = vec![Piece::Start; size];
    let prefix = match tokenizer.get_model() {
        ModelWrapper::WordPiece(model) => Some(model.continuing_subword_prefix.clone()),
        _ => None,
    };
    let begins = |token: &str| token.starts_with(['Ġ', '▁']);
    let marked = prefix.is_none() && vocabulary.keys().any(|token| begins(token));
    for (token, id) in &vocabulary {
        let goes_on = match &prefix {
            Some(prefix) => !prefix.is_empty() && token.starts_with(prefix.as_str()) && token != prefix,
            None => marked && !begins(token) && token.chars().any(char::is_alphanumeric),
        };
        if goes_on {
            pieces[*id as usize] = Piece::Continuation;
        }
    }
    // what stands for a word that is not known is one, though it is among the special tokens
    let unknown = match tokenizer.get_model() {
        ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
        ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
        ModelWrapper::BPE(model) => model.unk_token.clone(),
        ModelWrapper::Unigram(_) => None,
    };
    for (id, token) in tokenizer.get_added_tokens_decoder() {
        let special = token.special && unknown.as_ref() != Some(&token.content);
        if let Some(piece) = pieces.get_mut(id as usize).filter(|_| special) {
            *piece = Piece::Special;
        }
    }
    pieces
}
