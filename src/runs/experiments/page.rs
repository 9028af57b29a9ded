//! The sections of `experiments.md`: what a run was, what was tried and what was learned, newest first.
//!
//! Of a section only what stands between its marks is written anew; what people add below stays with it.

use std::collections::HashSet;

use super::entry::Entry;
use super::table::{data, escape};
use crate::util::clock;

/// How a page begins.
pub(super) const INTRODUCTION: &str = "# Experiments\n\nOne row and one section a run, newest first, written by tallow when \
                                       a run ends; experiments.jsonl has the same for programs. What stands between a \
                                       section's marks is written anew when its run is; all other text is left alone.\n\n";
const BEGIN: &str = "<!-- written by tallow -->";
const END: &str = "<!-- end -->";

/// A heading is one line.
pub(super) fn heading(run_id: &str) -> String {
    format!("## {}", escape(run_id))
}

/// The part between the marks, heading and marks included.
fn generated(entry: &Entry) -> Vec<String> {
    let mut lines = vec![heading(&entry.run_id), BEGIN.to_owned(), String::new()];
    let mut item = |name: &str, text: String| {
        if !text.trim().is_empty() {
            lines.push(format!("- {name}: {}", text.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    };
    item(
        "ended",
        [entry.date.clone(), took(entry)].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(", "),
    );
    item("type", entry.model_type.map(|model_type| model_type.name().to_owned()).unwrap_or_default());
    item("base", entry.base.clone());
    item("data", data(entry));
    item("loss", entry.loss.clone());
    item("arguments", entry.settings.clone());
    item("result", result(entry));
    item("stopped by", entry.message.clone().unwrap_or_default());
    item("tried", entry.tried.clone());
    item("learned", entry.said.clone().map_or_else(|| entry.learned.clone(), |said| said.clone()));
    if entry.said.is_some() {
        item("numbers", entry.learned.clone());
    }
    for note in &entry.notes {
        item("note", note.clone());
    }
    // a comment in what people or errors say must not end the part
    lines.iter_mut().skip(2).for_each(|line| *line = line.replace("<!--", "&lt;!--"));
    lines.extend([String::new(), END.to_owned()]);
    lines
}

fn took(entry: &Entry) -> String {
    let time = entry.seconds.map(|seconds| format!("took {}", clock::human(seconds)));
    let steps = entry.steps.map(|steps| format!("{steps} steps"));
    let best = entry.best_step.map(|step| format!("the best at step {step}"));
    [time, steps, best].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `**WIN**, eval_x 0.8582 (before 0.8493), delta +0.0089 (95 %: -0.0021 to +0.0199)`.
fn result(entry: &Entry) -> String {
    let mut text = format!("**{}**", entry.verdict);
    if let (Some(metric), Some(score)) = (&entry.metric, entry.score) {
        text.push_str(&format!(", `{metric}` {score:.4}"));
    }
    if let Some(baseline) = entry.baseline {
        text.push_str(&format!(" (before {baseline:.4})"));
    }
    if let Some(delta) = entry.delta {
        text.push_str(&format!(", delta {delta:+.4}"));
    }
    if let Some([low, high]) = entry.delta_interval {
        text.push_str(&format!(" (95 %: {low:+.4} to {high:+.4})"));
    }
    for (name, value) in &entry.costs {
        text.push_str(&format!(", {name} {value:.1}"));
    }
    text
}

/// Where a section begins that was written here.
fn begins(lines: &[&str], at: usize) -> bool {
    lines.get(at).is_some_and(|line| line.starts_with("## ")) && lines.get(at + 1).is_some_and(|line| *line == BEGIN)
}

/// Where people's text begins in the section that begins at `at`, and where that ends: behind its end mark, before the next
/// heading of its rank or above. Without an end mark of its own all behind the first mark may be people's.
fn theirs(lines: &[&str], at: usize) -> (usize, usize) {
    let next = (at + 2..lines.len()).find(|i| begins(lines, *i)).unwrap_or(lines.len());
    let from = (at + 2..next).find(|i| lines[*i] == END).map_or(at + 2, |mark| mark + 1);
    let heading = |i: &usize| lines[*i].starts_with("## ") || lines[*i].starts_with("# ");
    (from, (from..next).find(heading).unwrap_or(next))
}

/// The page with the entry's section before all others, in place of the one it had, whose other text it keeps; with
/// `newest` false it stays where it is, and one that is not there goes before the first of those that `older` says.
pub(super) fn with_section(text: &str, entry: &Entry, newest: bool, older: impl Fn(&str) -> bool) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let own = heading(&entry.run_id);
    let made = generated(entry);
    let mut rest: Vec<&str> = vec![""];
    let mut place = None;
    if let Some(at) = (0..lines.len()).find(|at| lines[*at] == own && begins(&lines, *at)) {
        let (from, end) = theirs(&lines, at);
        rest = lines.drain(at..end).skip(from - at).collect();
        place = Some(at);
    }
    let first = || (0..lines.len()).find(|at| begins(&lines, *at) && (newest || older(lines[*at])));
    let at = match place.filter(|_| !newest).or_else(first) {
        Some(at) => at,
        None => {
            if lines.last().is_some_and(|line| !line.trim().is_empty()) {
                lines.push("");
            }
            lines.len()
        }
    };
    if rest.last().is_none_or(|line| !line.trim().is_empty()) {
        rest.push("");
    }
    lines.splice(at..at, made.iter().map(String::as_str).chain(rest));
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    lines.join("\n") + "\n"
}

/// The headings of sections, also of those that lost their marks.
pub(super) fn headings(text: &str) -> HashSet<String> {
    text.lines().filter(|line| line.starts_with("## ")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(run_id: &str, verdict: &str) -> Entry {
        Entry { run_id: run_id.into(), verdict: verdict.into(), date: "monday".into(), ..Entry::default() }
    }

    fn with_section(text: &str, entry: &Entry, newest: bool) -> String {
        super::with_section(text, entry, newest, |_| false)
    }

    #[test]
    fn sections_stand_newest_first_behind_the_table_and_what_people_wrote() {
        let mut text = "# Mine\n\n| a |\n\nMy own text.\n".to_owned();
        for run in ["one", "two"] {
            text = with_section(&text, &entry(run, "WIN"), true);
        }
        let places: Vec<_> = ["My own text.", "## two", "## one"].iter().map(|part| text.find(part)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{text}");
    }

    #[test]
    fn text_below_a_section_stays_with_it() {
        let mut text = with_section(INTRODUCTION, &entry("one", "CANCELLED"), true);
        text.push_str("\nBy hand: **keep** me.\n\n### and me\n");
        text = with_section(&text, &entry("two", "WIN"), true);
        text = with_section(&text, &entry("one", "MARGINAL"), true);
        assert!(!text.contains("CANCELLED"), "{text}");
        let places: Vec<_> = ["## one", "By hand", "### and me", "## two"].iter().map(|part| text.find(part)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{text}");
        // amended, it stays where it is
        let amended = Entry { notes: vec!["<!-- end -->\n## two".into()], ..entry("two", "WIN") };
        let text = with_section(&text, &amended, false);
        assert!(text.find("## one") < text.find("- note: &lt;!-- end --> ## two"), "{text}");
        assert_eq!(text.matches("## two\n").count(), 1 + usize::from(text.contains("> ## two\n")), "{text}");
        let again = with_section(&text, &amended, false);
        assert_eq!(again, text);
    }

    #[test]
    fn a_section_without_its_end_mark_keeps_what_is_there() {
        let mut text = with_section(INTRODUCTION, &entry("one", "WIN"), true);
        text = with_section(&text, &entry("two", "CANCELLED"), true).replacen(END, "", 1);
        text = text.replacen("## one", "Mine.\n\n## one", 1);
        for newest in [true, false] {
            let text = with_section(&text, &entry("two", "WIN"), newest);
            for part in ["## two\n", "Mine.\n", "## one\n"] {
                assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
            }
            assert_eq!(text.matches(BEGIN).count(), 2, "{text}");
            assert_eq!(with_section(&text, &entry("two", "WIN"), newest), text);
        }
    }

    #[test]
    fn what_a_section_says() {
        let mut entry = entry("one", "WIN");
        (entry.metric, entry.score, entry.baseline) = (Some("eval_x".into()), Some(0.8582), Some(0.8493));
        (entry.delta, entry.delta_interval) = (Some(0.0089), Some([-0.0021, 0.0199]));
        (entry.seconds, entry.steps, entry.best_step) = (Some(35.0), Some(143), Some(36));
        (entry.learned, entry.said) = ("by the numbers".into(), Some("by hand".into()));
        let text = with_section("", &entry, true);
        for part in [
            "- ended: monday, took 35 s, 143 steps, the best at step 36\n",
            "- result: **WIN**, `eval_x` 0.8582 (before 0.8493), delta +0.0089 (95 %: -0.0021 to +0.0199)\n",
            "- learned: by hand\n- numbers: by the numbers\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
