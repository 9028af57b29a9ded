//! The table on top of `experiments.md`: one row a run, newest first. Training scripts add to it as well.

use super::entry::{Entry, Source, finite};
use super::sortable;
use crate::util::clock;
use crate::util::numbers::thousands;

/// As training scripts write it, too: they find the table by this line.
pub(super) const HEADER: &str =
    "| date | run | base | data | loss | settings | metric | baseline | score | delta | verdict | time |";
const RULE: &str = "|---|---|---|---|---|---|---|---|---|---|---|---|";
/// Its columns.
const COLUMNS: usize = 12;

/// A table cell cannot hold a bar or a line break.
#[must_use]
pub fn escape(cell: &str) -> String {
    cell.replace('\\', "\\\\").replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The data and how many rows they are.
pub(super) fn data(entry: &Entry) -> String {
    match entry.train_rows {
        Some(rows) => format!("{} ({})", entry.data, thousands(rows)),
        None => entry.data.clone(),
    }
}

fn row(entry: &Entry) -> String {
    let plain = |x: Option<f64>| x.map(|x| format!("{x:.4}")).unwrap_or_default();
    let cells: [String; COLUMNS] = [
        entry.date.clone(),
        entry.run_id.clone(),
        short(&entry.base),
        data(entry),
        entry.loss.clone(),
        entry.settings.clone(),
        entry.metric.clone().unwrap_or_default(),
        plain(entry.baseline),
        plain(entry.score),
        entry.delta.map(|d| format!("{d:+.4}")).unwrap_or_default(),
        entry.verdict.clone(),
        entry.seconds.map(clock::human).unwrap_or_default(),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
    format!("| {} |", cells.join(" | "))
}

/// The last two parts of a path: enough to know it again, short enough for a table.
pub(super) fn short(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts.get(parts.len().saturating_sub(2)..).unwrap_or_default().join("/")
}

/// Where the table's rows begin, and how many there are.
fn rows(lines: &[&str]) -> Option<(usize, usize)> {
    let header =
        lines.windows(2).position(|pair| matches!(pair, [h, r] if h.trim() == HEADER && r.starts_with("|--")))?;
    let first = header + 2;
    Some((first, lines.iter().skip(first).take_while(|line| line.starts_with('|')).count()))
}

/// The page with the entry's row at the top of the table, in place of the one it had; with `newest` false the row stays
/// where it is, and one that is not there goes before the first that is older. The table is made when it is not there.
pub(super) fn with_row(text: &str, entry: &Entry, newest: bool) -> String {
    let line = row(entry);
    let mut lines: Vec<&str> = text.lines().collect();
    match rows(&lines) {
        Some((first, count)) => {
            let rows: Vec<Option<Entry>> = lines.iter().skip(first).take(count).map(|line| parsed(line)).collect();
            let place = |fits: &dyn Fn(&Entry) -> bool| rows.iter().position(|row| row.as_ref().is_some_and(fits));
            // rows of one script with equal scores are told apart by their ids where they can be
            let earlier = place(&|row| row.run_id == entry.run_id && entry.is_row(row))
                .or_else(|| place(&|row| entry.is_row(row)));
            let older = || place(&|row| sortable(&row.date) < sortable(&entry.date)).unwrap_or(count);
            if let Some(earlier) = earlier {
                lines.remove(first + earlier);
            }
            lines.insert(first + if newest { 0 } else { earlier.unwrap_or_else(older) }, &line);
        }
        None => {
            if lines.last().is_some_and(|l| !l.trim().is_empty()) {
                lines.push("");
            }
            lines.extend([HEADER, RULE, &line]);
        }
    }
    lines.join("\n") + "\n"
}

/// Whether the entry has one of these rows.
pub(super) fn has_row(rows: &[Entry], entry: &Entry) -> bool {
    rows.iter().any(|row| entry.is_row(row))
}

/// The rows of the table as entries, the newest first.
pub(super) fn entries(text: &str) -> Vec<Entry> {
    let lines: Vec<&str> = text.lines().collect();
    let Some((first, count)) = rows(&lines) else { return Vec::new() };
    lines.iter().skip(first).take(count).filter_map(|line| parsed(line)).collect()
}

/// The cells of a row, as they were before they were escaped.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut chars = line.trim().trim_start_matches('|').chars();
    while let Some(c) = chars.next() {
        match (c, cells.last_mut()) {
            ('\\', Some(cell)) => cell.extend(chars.next()),
            ('|', _) => cells.push(String::new()),
            (c, Some(cell)) => cell.push(c),
            (_, None) => {}
        }
    }
    // behind the last bar
    cells.pop();
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

fn parsed(line: &str) -> Option<Entry> {
    let cells: [String; COLUMNS] = cells(line).try_into().ok()?;
    let [date, run_id, base, data, loss, settings, metric, baseline, score, delta, verdict, time] = cells;
    let number = |text: &str| finite(text.parse().ok());
    (!run_id.is_empty()).then(|| Entry {
        run_name: run_id.clone(),
        run_id,
        date,
        source: Source::Table,
        base,
        data,
        loss,
        settings,
        metric: Some(metric).filter(|metric| !metric.is_empty()),
        baseline: number(&baseline),
        score: number(&score),
        delta: number(&delta),
        verdict,
        seconds: seconds(&time),
        ..Entry::default()
    })
}

/// What `clock::human` wrote, in seconds.
fn seconds(text: &str) -> Option<f64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let parts = words.chunks(2).map(|pair| match pair {
        [number, unit] => {
            let factor = match *unit {
                "h" => 3600.0,
                "min" => 60.0,
                "s" => 1.0,
                _ => return None,
            };
            finite(number.parse().ok()).map(|number: f64| number * factor)
        }
        _ => None,
    });
    let parts: Option<Vec<f64>> = parts.collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.iter().sum())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runs::verdict::Judgement;

    fn entry(run_id: &str) -> Entry {
        Entry { run_id: run_id.into(), ..Entry::default() }
            .judged(&Judgement::new(Some("eval_a|b"), Some(0.9), Some(0.8), true))
            .took(61.0)
    }

    #[test]
    fn newest_first_and_escaped() {
        let text = with_row(&with_row("# Mine\n", &entry("run-one"), true), &entry("run-two"), true);
        assert!(text.find("run-two").unwrap() < text.find("run-one").unwrap());
        assert!(text.contains("eval_a\\|b") && text.contains("| +0.1000 | WIN | 1 min 1 s |"), "{text}");
        assert_eq!(text.matches(HEADER).count(), 1);
        let bars = |l: &str| l.replace("\\|", "").matches('|').count();
        assert!(text.lines().filter(|l| l.starts_with('|')).all(|l| bars(l) == bars(HEADER)), "{text}");
    }

    #[test]
    fn rows_are_read_back() {
        let mut want = entry("a \\ b | c");
        want.data = "pairs (9,999)".into();
        let text = with_row("", &want, true);
        let found = entries(&text);
        assert_eq!(found.len(), 1);
        let row = &found[0];
        assert_eq!((row.run_id.as_str(), row.metric.as_deref()), ("a \\ b | c", Some("eval_a|b")));
        assert_eq!((row.score, row.delta, row.seconds), (Some(0.9), Some(0.1), Some(61.0)));
        assert!(want.is_row(row) && !entry("other").is_row(row));
        for (text, want) in [("3.7 s", Some(3.7)), ("2 h 7 min", Some(7620.0)), ("", None), ("soon", None)] {
            assert_eq!(seconds(text), want, "{text}");
        }
    }

    #[test]
    fn somebody_elses_file_keeps_its_text() {
        let text = with_row("# Mine\n\n| a | b |\n|---|---|\n| 1 | 2 |", &entry("new"), true);
        assert!(text.starts_with("# Mine\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| date"));
        assert!(text.lines().last().unwrap().contains("| new |"), "{text}");
    }

    #[test]
    fn a_resumed_run_replaces_its_own_row_alone() {
        let mut text =
            with_row("", &Entry { date: "monday".into(), verdict: "CANCELLED".into(), ..entry("run-1") }, true);
        text = with_row(&text, &entry("run-11"), true);
        text.push_str("\n| note | run-1 |\n");
        let text = with_row(&text, &Entry { date: "tuesday".into(), ..entry("run-1") }, true);
        assert!(!text.contains("monday") && !text.contains("CANCELLED"), "{text}");
        assert!(text.find("tuesday").unwrap() < text.find("run-11").unwrap(), "{text}");
        assert!(text.ends_with("\n| note | run-1 |\n"), "{text}");
        let text = with_row(&text, &Entry { date: "friday".into(), ..entry("run-11") }, false);
        assert!(text.find("tuesday").unwrap() < text.find("friday").unwrap(), "{text}");
    }

    #[test]
    fn the_row_of_a_script_is_known_by_its_scores() {
        let text = with_row("", &Entry { source: Source::Table, ..entry("mine") }, true);
        let again =
            |score| Entry { source: Source::Script, run_name: "mine".into(), score: Some(score), ..entry("mine-2") };
        assert_eq!(entries(&with_row(&text, &again(0.900_04), true)).len(), 1);
        assert_eq!(entries(&with_row(&text, &again(0.91), true)).len(), 2);
    }

    #[test]
    fn runs_of_one_script_are_told_apart_by_their_scores() {
        let mine = |source, score| Entry { source, score: Some(score), ..entry("mine") };
        let row = mine(Source::Table, 0.9);
        assert!(mine(Source::Script, 0.900_04).is_row(&row) && !mine(Source::Script, 0.91).is_row(&row));
        assert!(mine(Source::Run, 0.91).is_row(&row), "a resumed run has its own row");
    }

    #[test]
    fn a_lost_row_goes_where_its_date_says() {
        let at = |run: &str, day: u32| Entry { date: format!("2026-01-0{day}T00:00:00Z"), ..entry(run) };
        let mut text = with_row(&with_row("", &at("one", 1), true), &at("three", 3), true);
        for (run, day) in [("two", 2), ("none", 0)] {
            assert!(!has_row(&entries(&text), &at(run, day)));
            text = with_row(&text, &at(run, day), false);
        }
        let ids: Vec<String> = entries(&text).into_iter().map(|row| row.run_id).collect();
        assert_eq!(ids, ["three", "two", "one", "none"]);
    }

    #[test]
    fn paths_are_shortened() {
        assert_eq!(short("/a/b/c/all-MiniLM"), "c/all-MiniLM");
        assert_eq!(short("train.jsonl"), "train.jsonl");
    }
}
