//! What do the paths of a data set's files say? Which subset and split each belongs to, and whether all parts are there.

/// Endings of data, the best first: of a split that is there in several only the first is read.
const ENDINGS: [&str; 6] = ["parquet", "arrow", "jsonl", "json", "csv", "tsv"];

/// What a path says of the file: `data/train-00000-of-00002.parquet`, `pair/dev.jsonl`, `default/train/0000.parquet`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub subset: String,
    pub split: String,
    /// Its place among [`ENDINGS`].
    pub ending: usize,
}

impl Part {
    /// `None` for files that hold no rows.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
        let (stem, ending) = file.rsplit_once('.')?;
        let ending = ENDINGS.iter().position(|known| *known == ending)?;
        let mut folders: Vec<&str> = folders.split('/').filter(|folder| !folder.is_empty()).collect();
        let name = Shard::of(stem).name;
        let split = if is_number(name) || matches!(name, "part" | "data") { folders.pop()? } else { name };
        if folders.first() == Some(&"data") {
            folders.remove(0);
        }
        Some(Self { subset: folders.join("/"), split: split.to_owned(), ending })
    }

    /// Whether it is Parquet.
    pub(super) const fn is_parquet(&self) -> bool {
        self.ending == 0
    }
}

/// A file's name without its ending: `train-00000-of-00002` is a part of `train`, of which there are two.
struct Shard<'a> {
    name: &'a str,
    /// Whether there is a number.
    numbered: bool,
    /// How many parts there are, where the name tells.
    count: Option<usize>,
}

impl<'a> Shard<'a> {
    fn of(stem: &'a str) -> Self {
        let (mut name, mut count) = (stem, None);
        if let Some((before, last)) = name.rsplit_once("-of-")
            && is_number(last)
        {
            (name, count) = (before, last.parse().ok());
        }
        match name.rsplit_once(['-', '_']).filter(|(_, last)| is_number(last)) {
            Some((before, _)) => Self { name: before, numbered: true, count },
            None => Self { name, numbered: is_number(name), count },
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

/// Whether the files of a split are all of its parts: `None` where their names do not tell.
pub(super) fn whole(chosen: &[String]) -> Option<bool> {
    let [first, ..] = chosen else { return Some(false) };
    let file = first.rsplit('/').next().unwrap_or(first);
    let shard = Shard::of(file.rsplit_once('.').map_or(file, |(stem, _)| stem));
    match shard.count {
        Some(count) => Some(count == chosen.len()),
        None => (chosen.len() == 1 && !shard.numbered).then_some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_they_are() {
        let of = |path: &str| Part::of(path).map(|part| (part.subset, part.split));
        let is = |subset: &str, split: &str| Some((subset.to_owned(), split.to_owned()));
        assert_eq!(of("data/train-00000-of-00002.parquet"), is("", "train"));
        assert_eq!(of("triplet/dev-00000-of-00001.parquet"), is("triplet", "dev"));
        assert_eq!(of("default/train/0000.parquet"), is("default", "train"));
        assert_eq!(of("train.jsonl"), is("", "train"));
        assert_eq!(of("en/test/part-3.csv"), is("en", "test"));
        assert_eq!(of("data/en/validation_12.parquet"), is("en", "validation"));
        assert_eq!(of("corpus/NanoNQ-00000-of-00001.parquet"), is("corpus", "NanoNQ"));
        assert_eq!(of("README.md"), None);
        assert_eq!(of("0000.parquet"), None);
    }

    #[test]
    fn names_tell_whether_all_parts_are_there() {
        let of = |paths: &[&str]| whole(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]), Some(true));
        assert_eq!(of(&["data/train-00000-of-00002.parquet"]), Some(false));
        assert_eq!(of(&["dev.csv"]), Some(true));
        assert_eq!(of(&[]), Some(false));
        // of these there may be more
        assert_eq!((of(&["default/train/0000.parquet"]), of(&["train-1.jsonl", "train-2.jsonl"])), (None, None));
    }
}
