//! Which known words does a task have, and is what they say wanted, ruled out, or only mentioned?

use std::ops::Range;

use super::words::{
    ARTICLES, CLAUSES, GROUPS, Group, JOINED, MADE_OF, MENTIONED_AFTER, MENTIONED_BEFORE, NOT_AFTER, NOT_AFTER_CJK,
    NOT_BEFORE, NOT_BEFORE_CJK, NOT_BUT_MORE, Points, Topic,
};
use crate::flow::ModelType;

/// Words between a `not` and what it rules out, at most.
const REACH: usize = 6;
/// Letters between them in scripts without spaces.
const REACH_CJK: usize = 3;
/// A task's letters that are read.
const LONGEST: usize = 4000;

/// What a found word means for the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Wanted,
    RuledOut,
    Mentioned,
}

/// A known word.
pub struct Found {
    group: &'static Group,
    /// As it stands there.
    text: String,
    pub role: Role,
    /// The word that ruled it out.
    cue: &'static str,
    /// Whether only an `and` or `or` stands between it and the one before.
    joined: bool,
}

/// Two types that are asked for in one breath: `a retriever and a reranker`.
pub fn joined(found: &[Found]) -> Option<[ModelType; 2]> {
    let wanted = |f: &Found| match f.topic() {
        Topic::Type(model_type) if f.role == Role::Wanted && f.points() != Points::Suits => Some(model_type),
        _ => None,
    };
    found.windows(2).find_map(|pair| match (wanted(&pair[0]), wanted(&pair[1])) {
        (Some(first), Some(second)) if pair[1].joined && first != second => Some([first, second]),
        _ => None,
    })
}

impl Found {
    pub fn topic(&self) -> Topic {
        self.group.topic
    }

    pub fn points(&self) -> Points {
        self.group.points
    }

    /// What the word did, as people are told.
    pub fn reason(&self) -> Option<String> {
        let text = &self.text;
        let kind = match self.topic() {
            Topic::Nothing => return None,
            Topic::Outside => "a task for other programs".to_owned(),
            Topic::Type(model_type) => format!("a {model_type}"),
        };
        Some(match (self.role, self.points()) {
            (Role::RuledOut, _) => {
                format!("`{text}` is ruled out (`{}`): no{}", self.cue, kind.trim_start_matches('a'))
            }
            (Role::Mentioned, _) => format!("`{text}` is only mentioned (`{}`), not asked for", self.cue),
            (Role::Wanted, Points::Names) => format!("`{text}` names {kind}"),
            (Role::Wanted, Points::Uses) => format!("`{text}` is the use of {kind}"),
            (Role::Wanted, Points::Suits) => format!("`{text}` suits {kind}"),
            (Role::Wanted, Points::Hints) => format!("`{text}` hints at {kind}"),
        })
    }
}

/// A task in lower case without accents, and its words.
struct Text {
    letters: Vec<char>,
    words: Vec<Word>,
}

struct Word {
    text: String,
    place: Range<usize>,
    /// Whether a clause ends before it.
    begins: bool,
}

/// The known words of a task in their order; of those that overlap the longest.
pub fn read(task: &str) -> Vec<Found> {
    let text = Text::new(task);
    let mut matches: Vec<(Range<usize>, &'static Group)> = Vec::new();
    for group in GROUPS {
        for pattern in group.words {
            let places = if is_cjk(pattern) { text.letters_of(pattern) } else { text.words_of(pattern) };
            matches.extend(places.into_iter().map(|place| (place, group)));
        }
    }
    // the longest first, then the strongest
    matches.sort_by_key(|(place, group)| (std::cmp::Reverse(place.len()), std::cmp::Reverse(group.points)));
    let mut kept: Vec<(Range<usize>, &'static Group)> = Vec::new();
    for (place, group) in matches {
        if kept.iter().all(|(other, _)| place.end <= other.start || other.end <= place.start) {
            kept.push((place, group));
        }
    }
    kept.sort_by_key(|(place, _)| place.start);
    let mut before = 0;
    let found = kept.into_iter().map(|(place, group)| {
        let (role, cue) = text.role(&place);
        let joined = text.joined(std::mem::replace(&mut before, place.end)..place.start);
        Found { group, text: text.letters[place].iter().collect(), role, cue, joined }
    });
    found.collect()
}

fn is_cjk(text: &str) -> bool {
    text.chars().any(cjk)
}

/// Letters of scripts that are written without spaces, or with endings that are letters of their own.
fn cjk(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}')
}

/// Lower case, without the accents of Latin letters.
fn fold(c: char) -> impl Iterator<Item = char> {
    const ACCENTS: &[(&str, char)] = &[
        ("àáâãäåā", 'a'),
        ("çćč", 'c'),
        ("èéêëēę", 'e'),
        ("ìíîïī", 'i'),
        ("ñń", 'n'),
        ("òóôõöøō", 'o'),
        ("ùúûüū", 'u'),
        ("ýÿ", 'y'),
        ("šś", 's'),
        ("žźż", 'z'),
        ("ł", 'l'),
        ("ё", 'е'),
    ];
    c.to_lowercase().map(|c| ACCENTS.iter().find(|(all, _)| all.contains(c)).map_or(c, |(_, plain)| *plain))
}

impl Text {
    fn new(task: &str) -> Self {
        let letters: Vec<char> = task.chars().take(LONGEST).flat_map(fold).collect();
        let mut words: Vec<Word> = Vec::new();
        let (mut begins, mut start) = (true, None);
        let mut end = |start: &mut Option<usize>, at: usize, begins: &mut bool| {
            if let Some(from) = start.take() {
                let text: String = letters[from..at].iter().collect();
                let begins = std::mem::take(begins) || CLAUSES.contains(&text.as_str());
                words.push(Word { text, place: from..at, begins });
            }
        };
        for (at, c) in letters.iter().enumerate() {
            if c.is_alphanumeric() && !cjk(*c) {
                start.get_or_insert(at);
                continue;
            }
            end(&mut start, at, &mut begins);
            begins |= ",;:.!?()，。；：！？、".contains(*c);
        }
        end(&mut start, letters.len(), &mut begins);
        Self { letters, words }
    }

    /// Where a sequence of words stands, as letters.
    fn words_of(&self, pattern: &str) -> Vec<Range<usize>> {
        let pattern: Vec<&str> = pattern.split(' ').collect();
        let places = (0..self.words.len()).filter(|at| self.at(*at, &pattern));
        places.map(|at| self.words[at].place.start..self.words[at + pattern.len() - 1].place.end).collect()
    }

    /// Whether the words from `at` on are those of the pattern, in one clause.
    fn at(&self, at: usize, pattern: &[&str]) -> bool {
        self.words.get(at..at + pattern.len()).is_some_and(|words| {
            let fit = words.iter().zip(pattern).all(|(word, wanted)| fits(&word.text, wanted));
            fit && words.iter().skip(1).all(|word| !word.begins)
        })
    }

    fn letters_of(&self, pattern: &str) -> Vec<Range<usize>> {
        let wanted: Vec<char> = pattern.chars().collect();
        let windows = self.letters.windows(wanted.len()).enumerate();
        windows.filter(|(_, window)| *window == wanted).map(|(at, _)| at..at + wanted.len()).collect()
    }

    /// What a word at `place` means, and the word that says so.
    fn role(&self, place: &Range<usize>) -> (Role, &'static str) {
        let around = |cues: &[&'static str], place: Range<usize>| {
            let letters: String = self.letters[place].iter().collect();
            cues.iter().copied().find(|cue| letters.contains(cue))
        };
        let before = place.start.saturating_sub(4 + REACH_CJK)..place.start;
        if let Some(cue) = around(NOT_BEFORE_CJK, before) {
            return (Role::RuledOut, cue);
        }
        let behind: String = self.letters[place.end..].iter().take(8).collect();
        if let Some(cue) = NOT_AFTER_CJK.iter().copied().find(|cue| behind.trim_start().starts_with(cue)) {
            return (Role::RuledOut, cue);
        }
        // words: those before it in its clause, nearest first
        let first = self.words.iter().position(|word| word.place.end > place.start).unwrap_or(self.words.len());
        let next = self.words.iter().position(|word| word.place.start >= place.end).unwrap_or(self.words.len());
        if let Some(cue) = self.cue_behind(next, MENTIONED_AFTER) {
            return (Role::Mentioned, cue);
        }
        if let Some(cue) = self.cue_behind(next, NOT_AFTER) {
            return (Role::RuledOut, cue);
        }
        if self.made_of(first, next) {
            return (Role::Mentioned, "made into another");
        }
        let mut at = first;
        for _ in 0..REACH {
            if at == 0 || self.words.get(at).is_some_and(|word| word.begins) {
                break;
            }
            at -= 1;
            let cue = |cues: &[&'static str]| cues.iter().copied().find(|cue| self.cue_at(at, first, cue));
            if let Some(cue) = cue(MENTIONED_BEFORE) {
                return (Role::Mentioned, cue);
            }
            if let Some(cue) = cue(NOT_BEFORE) {
                let more = self.words.get(at + 1).is_some_and(|word| NOT_BUT_MORE.contains(&word.text.as_str()));
                return if more { (Role::Wanted, "") } else { (Role::RuledOut, cue) };
            }
        }
        (Role::Wanted, "")
    }

    /// Whether what stands between two words is an `and` or `or` and nothing but articles.
    fn joined(&self, place: Range<usize>) -> bool {
        let between = self.words.iter().filter(|word| place.start <= word.place.start && word.place.end <= place.end);
        let (joins, others): (Vec<&Word>, Vec<&Word>) = between.partition(|word| JOINED.contains(&word.text.as_str()));
        joins.len() == 1 && others.iter().all(|word| ARTICLES.contains(&word.text.as_str()))
    }

    /// Whether a cue stands at the word `at` and ends before `first`.
    fn cue_at(&self, at: usize, first: usize, cue: &str) -> bool {
        let pattern: Vec<&str> = cue.split(' ').collect();
        at + pattern.len() <= first && self.at(at, &pattern)
    }

    fn cue_behind(&self, next: usize, cues: &'static [&'static str]) -> Option<&'static str> {
        let here = self.words.get(next).is_some_and(|word| !word.begins);
        cues.iter().copied().find(|cue| here && self.at(next, &cue.split(' ').collect::<Vec<_>>()))
    }

    /// Whether one model is made of the words from `first` to `next`: `distil … into`.
    fn made_of(&self, first: usize, next: usize) -> bool {
        let verb = |word: &Word| MADE_OF.0.iter().any(|verb| fits(&word.text, verb));
        let into = |word: &Word| MADE_OF.1.contains(&word.text.as_str());
        let near = first.saturating_sub(REACH);
        self.words[near..first].iter().any(verb) && self.words[next..].iter().take(2).any(into)
    }
}

fn fits(word: &str, wanted: &str) -> bool {
    match (wanted.strip_prefix('*'), wanted.strip_suffix('*')) {
        (Some(_), Some(_)) => word.contains(wanted.trim_matches('*')),
        (None, Some(beginning)) => word.starts_with(beginning),
        (Some(end), None) => word.ends_with(end),
        (None, None) => word == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(task: &str) -> Vec<(String, Role)> {
        read(task).into_iter().map(|f| (f.text, f.role)).collect()
    }

    #[test]
    fn clauses_end_a_negation() {
        assert_eq!(
            roles("not a reranker, embeddings"),
            [("reranker".into(), Role::RuledOut), ("embeddings".into(), Role::Wanted)]
        );
        assert_eq!(roles("not only a reranker"), [("reranker".into(), Role::Wanted)]);
        assert_eq!(roles("リランカーではなく"), [("リランカー".into(), Role::RuledOut)]);
        assert_eq!(roles("不要重排序"), [("重排序".into(), Role::RuledOut)]);
    }

    #[test]
    fn teachers_and_what_is_there_are_only_mentioned() {
        for task in ["a cross-encoder as the teacher", "distil a cross-encoder into", "we already have a cross-encoder"]
        {
            assert_eq!(roles(task), [("cross-encoder".into(), Role::Mentioned)], "{task}");
        }
    }

    #[test]
    fn the_longest_word_counts() {
        assert_eq!(roles("Sparse Embeddings"), [("sparse embeddings".into(), Role::Wanted)]);
        assert_eq!(roles("ModernColBERT"), [("moderncolbert".into(), Role::Wanted)]);
        assert!(roles("unsparsely").is_empty());
    }
}
