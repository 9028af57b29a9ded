//! Which language is a text in, roughly? Scripts, and in Latin and Cyrillic letters the commonest small words.
//!
//! It is a guess: short texts often have no small word and stay unknown, and of languages that share words the nearest
//! known one is named.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use super::text::is_cjk;

/// Small words that a language has and its neighbours mostly have not.
#[rustfmt::skip]
const SMALL_WORDS: &[(&str, &[&str])] = &[
    ("en", &["the", "of", "and", "to", "is", "that", "for", "with", "are", "was", "this", "what", "how", "from", "by", "an", "be", "it", "or", "which", "not", "you", "i", "do", "my", "on", "we"]),
    ("de", &["der", "die", "das", "und", "ist", "nicht", "ein", "eine", "mit", "für", "auf", "den", "dem", "von", "zu", "im", "sich", "wie", "wird", "sind", "auch", "des"]),
    ("fr", &["le", "les", "des", "est", "et", "une", "dans", "pour", "que", "qui", "sur", "pas", "avec", "du", "au", "ce", "il", "sont", "aux", "plus"]),
    ("es", &["el", "los", "las", "es", "y", "una", "en", "para", "que", "por", "con", "del", "como", "su", "al", "son", "más", "qué", "cómo", "un"]),
    ("pt", &["o", "os", "as", "é", "e", "uma", "em", "para", "que", "não", "com", "do", "da", "dos", "das", "um", "no", "na", "por", "são"]),
    ("it", &["il", "gli", "è", "e", "una", "di", "per", "che", "non", "con", "del", "della", "un", "sono", "come", "nel", "alla", "dei", "da", "più"]),
    ("nl", &["de", "het", "een", "en", "van", "is", "niet", "met", "voor", "op", "zijn", "dat", "aan", "te", "wordt", "naar", "ook", "er", "hoe", "wat"]),
    ("sv", &["och", "att", "det", "som", "är", "en", "för", "på", "av", "inte", "med", "den", "till", "har", "ett"]),
    ("pl", &["i", "w", "nie", "się", "na", "jest", "z", "że", "jak", "przez", "czy", "dla", "są"]),
    ("ru", &["и", "в", "не", "на", "что", "с", "по", "как", "это", "для", "из", "к", "от", "или"]),
    ("uk", &["і", "та", "не", "на", "що", "з", "до", "як", "це", "для", "є", "від"]),
];

/// For each small word the languages that have it, a bit each.
static LANGUAGES: LazyLock<HashMap<&str, u16>> = LazyLock::new(|| {
    let mut languages = HashMap::new();
    for (i, (_, words)) in SMALL_WORDS.iter().enumerate() {
        for word in *words {
            *languages.entry(*word).or_default() |= 1 << i;
        }
    }
    languages
});
/// Letters of the longest small word.
const LONGEST: usize = 5;

/// The language of a text by its script, else by its small words; `None` where neither tells.
pub fn of(text: &str) -> Option<&'static str> {
    let mut counts = [0usize; 8];
    const SCRIPTS: [&str; 8] = ["ja", "ko", "zh", "ar", "hi", "el", "he", "th"];
    let mut letters = 0usize;
    for c in text.chars().take(400).filter(|c| c.is_alphabetic()) {
        letters += 1;
        let script = match c {
            '\u{3040}'..='\u{30ff}' => 0,
            '\u{ac00}'..='\u{d7af}' => 1,
            c if is_cjk(c) => 2,
            '\u{0600}'..='\u{06ff}' => 3,
            '\u{0900}'..='\u{097f}' => 4,
            '\u{0370}'..='\u{03ff}' => 5,
            '\u{0590}'..='\u{05ff}' => 6,
            '\u{0e00}'..='\u{0e7f}' => 7,
            _ => continue,
        };
        counts[script] += 1;
    }
    // Japanese has Chinese letters, and some kana wherever it has a sentence
    if counts[0] > 0 && counts[0] * 10 >= counts[2] {
        counts[0] += std::mem::take(&mut counts[2]);
    }
    if let Some((script, _)) = counts.iter().enumerate().filter(|(_, n)| **n * 2 > letters).max_by_key(|(_, n)| **n) {
        return Some(SCRIPTS[script]);
    }
    let mut hits = [0usize; SMALL_WORDS.len()];
    for word in text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).take(60) {
        if word.chars().nth(LONGEST).is_some() {
            continue;
        }
        let having = LANGUAGES.get(word.to_lowercase().as_str()).copied().unwrap_or(0);
        for (i, hit) in hits.iter_mut().enumerate() {
            *hit += usize::from(having >> i & 1 == 1);
        }
    }
    let most = hits.iter().copied().max().unwrap_or(0);
    let mut best = hits.iter().enumerate().filter(|(_, n)| **n == most);
    match (most, best.next(), best.next()) {
        (1.., Some((language, _)), None) => Some(SMALL_WORDS[language].0),
        _ => None,
    }
}

/// Texts by language.
#[derive(Debug, Default)]
pub struct Languages {
    texts: BTreeMap<&'static str, u64>,
    total: u64,
}

/// Below this part a language is not told.
const LEAST: f64 = 0.1;

impl Languages {
    /// Counts a text that stands for `weight` texts.
    pub fn add(&mut self, text: &str, weight: u64) {
        self.total += weight;
        if let Some(language) = of(text) {
            *self.texts.entry(language).or_default() += weight;
        }
    }

    /// The languages that a tenth of the recognised texts have or more, most first; empty where too few were recognised
    /// to tell.
    pub fn main(&self) -> Vec<&'static str> {
        let known: u64 = self.texts.values().sum();
        if (known as f64) < 0.05 * self.total as f64 {
            return Vec::new();
        }
        let mut languages: Vec<(&'static str, u64)> = self.texts.iter().map(|(l, n)| (*l, *n)).collect();
        languages.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        languages.retain(|(_, n)| *n as f64 >= LEAST * known as f64);
        languages.into_iter().map(|(language, _)| language).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_guessed() {
        for (language, text) in [
            ("en", "What is the capital of France?"),
            ("de", "Wie ist das Wetter in der Stadt?"),
            ("fr", "Quelle est la capitale de la France et des îles ?"),
            ("es", "¿Cuál es la capital de los países del norte?"),
            ("pt", "Não há uma capital em todos os países"),
            ("it", "Qual è la capitale della Francia e degli altri?"),
            ("nl", "Wat is de hoofdstad van het land?"),
            ("ru", "Что это и как это работает"),
            ("zh", "法国的首都是哪里"),
            ("ja", "フランスの首都はどこですか"),
            ("ko", "프랑스의 수도는 어디입니까"),
            ("ar", "ما هي عاصمة فرنسا"),
            ("el", "Ποια είναι η πρωτεύουσα"),
        ] {
            assert_eq!(of(text), Some(language), "{text}");
        }
        // what languages share decides nothing
        assert_eq!((of("I lost my card"), of("Can I top up?"), of("I")), (Some("en"), None, None));
        assert_eq!(of("Nie wiem, czy i jak to jest"), Some("pl"));
        assert_eq!(of("XJ-42"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn mixtures_are_told() {
        let mut languages = Languages::default();
        languages.add("what is the matter", 6);
        languages.add("das ist nicht der Fall", 3);
        languages.add("42", 1);
        assert_eq!(languages.main(), ["en", "de"]);
        assert!(Languages::default().main().is_empty());
    }
}
