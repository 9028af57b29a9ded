#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::runs::verdict::Judgement;

fn entry(run_id: &str, score: f64, rate: f64) -> Entry {
    let plan = json!({"args": {"learning_rate": rate}, "evaluator": [{"path": "/dev.jsonl"}]});
    Entry { run_id: run_id.into(), plan: compare::flat(&plan), date: clock_of(run_id), ..Entry::default() }
        .judged(&Judgement::new(Some("eval_x"), Some(score), Some(0.5), true))
}

fn clock_of(run_id: &str) -> String {
    format!("2026-01-01T00:00:0{}Z", run_id.len())
}

struct Work {
    _dir: tempfile::TempDir,
    page: PathBuf,
}

impl Work {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("logs/experiments.md");
        Self { _dir: dir, page }
    }

    fn text(&self) -> String {
        files::read_text(&self.page).unwrap()
    }

    fn ids(&self) -> Vec<String> {
        read(&self.page).unwrap().entries.into_iter().map(|entry| entry.run_id).collect()
    }
}

#[test]
fn an_entry_says_what_was_tried_and_learned() {
    let work = Work::new();
    let (first, renewed) = enter(&work.page, entry("a", 0.52, 2e-5)).unwrap();
    assert!(!renewed && first.tried.starts_with("the first run"), "{}", first.tried);
    let (second, _) = enter(&work.page, entry("ab", 0.523, 1e-5)).unwrap();
    assert_eq!(second.tried, "`args.learning_rate` 2e-5 -> 1e-5; otherwise no other than `a`");
    assert_eq!(second.learned, "+0.0230 over the base; +0.0030 against `a`, within noise");
    let text = work.text();
    assert!(
        text.find("## ab\n") < text.find("## a\n") && text.contains("- tried: `args.learning_rate` 2e-5"),
        "{text}"
    );
    // another metric, or other held-out rows, are another series
    let other = Entry { metric: Some("eval_y".into()), ..entry("abc", 0.6, 3e-5) };
    assert!(enter(&work.page, other).unwrap().0.tried.starts_with("the first run"));
    assert_eq!(work.ids(), ["a", "ab", "abc"]);
}

#[test]
fn a_resumed_run_renews_its_own_entry_and_keeps_its_notes() {
    let work = Work::new();
    for id in ["a", "ab"] {
        enter(&work.page, Entry { verdict: "CANCELLED".into(), ..entry(id, 0.5, 2e-5) }).unwrap();
    }
    amend(&work.page, "a", Some("stopped for the night"), None).unwrap();
    amend(&work.page, "a", Some("stopped for the night"), Some("all is well")).unwrap();
    assert_eq!(work.ids(), ["a", "ab"], "a note changes no order");
    let (renewed, was_there) = enter(&work.page, Entry { date: clock_of("abc"), ..entry("a", 0.6, 2e-5) }).unwrap();
    assert!(was_there);
    assert_eq!(renewed.notes, ["stopped for the night"]);
    assert_eq!(work.ids(), ["ab", "a"]);
    let text = work.text();
    assert_eq!((text.matches("## a\n").count(), text.matches("CANCELLED").count()), (1, 2), "{text}");
    assert!(text.contains("- learned: all is well\n- numbers: "), "{text}");
    assert!(amend(&work.page, "zzz", Some("x"), None).unwrap_err().hint().is_some());
}

#[test]
fn runs_that_end_together_lose_no_entry() {
    let work = Work::new();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let page = &work.page;
            scope.spawn(move || enter(page, entry(&format!("run-{i}."), 0.6, 2e-5)).unwrap());
        }
    });
    let text = work.text();
    assert!(
        (0..8).all(|i| text.matches(&format!("run-{i}. |")).count() == 1 && text.contains(&format!("## run-{i}.\n")))
    );
    assert_eq!(work.ids().len(), 8);
}

#[test]
fn old_tables_and_lines_of_others_are_kept() {
    let work = Work::new();
    std::fs::create_dir_all(work.page.parent().unwrap()).unwrap();
    let old = format!(
        "# Experiments\n\nMine.\n\n{}\n|---|---|---|---|---|---|---|---|---|---|---|---|\n\
         | 2025-11-23T17:04:39Z | old | b | d | l | s | eval_x | 0.5000 | 0.5100 | +0.0100 | WIN | 3.7 s |\n\nLearned: much.\n",
        table::HEADER
    );
    std::fs::write(&work.page, old).unwrap();
    std::fs::write(jsonl(&work.page), "{\"from\": \"the future\"}\nnot json\n").unwrap();
    assert_eq!(work.ids(), ["old"]);
    let (entry, _) = enter(&work.page, entry("new", 0.53, 2e-5)).unwrap();
    assert!(entry.learned.contains("against `old`"), "{}", entry.learned);
    let text = work.text();
    for part in ["Mine.", "| old |", "| new |", "Learned: much.", "## new"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let lines = files::read_text(&jsonl(&work.page)).unwrap();
    assert!(lines.starts_with("{\"from\": \"the future\"}\nnot json\n{"), "{lines}");
    let found = read(&work.page).unwrap();
    assert_eq!((found.unreadable, work.ids()), (2, vec!["old".to_owned(), "new".to_owned()]));
}

#[test]
fn experiments_are_found_by_id_and_its_beginning() {
    let work = Work::new();
    for id in ["alpha-1", "alpha-22", "beta"] {
        enter(&work.page, entry(id, 0.6, 2e-5)).unwrap();
    }
    let found = read(&work.page).unwrap();
    assert_eq!(found.find("alpha-1").unwrap().run_id, "alpha-1");
    assert_eq!(found.find("be").unwrap().run_id, "beta");
    assert!(found.find("alpha").unwrap_err().hint().unwrap().contains("`alpha-22`"));
    assert!(found.find("gamma").unwrap_err().to_string().contains("no experiment"));
    assert!(Experiments::default().find("x").unwrap_err().hint().unwrap().contains("tallow log"));
}

#[test]
fn what_the_page_lost_is_put_back() {
    let work = Work::new();
    for id in ["a", "ab", "abc"] {
        enter(&work.page, entry(id, 0.6, 2e-5)).unwrap();
    }
    let whole = work.text();
    let without = |id: &str| {
        let (before, rest) = whole.split_once(&format!("## {id}\n")).unwrap();
        let behind = rest.find("## ").map_or("", |at| &rest[at..]);
        let text = format!("{before}{behind}");
        text.lines().filter(|line| !line.contains(&format!("| {id} |"))).map(|line| line.to_owned() + "\n").collect()
    };
    let texts: [String; 3] = [without("a"), without("ab"), String::new()];
    for text in texts {
        assert_ne!(text, whole);
        std::fs::write(&work.page, text).unwrap();
        amend(&work.page, "abc", None, None).unwrap();
        let found = work.text();
        let places: Vec<_> = ["| abc |", "| ab |", "| a |", "## abc\n", "## ab\n", "## a\n"]
            .iter()
            .map(|part| (found.matches(part).count(), found.find(part)))
            .collect();
        assert!(places.is_sorted() && places.iter().all(|(count, _)| *count == 1), "{places:?} {found}");
    }
}

#[test]
fn of_two_lines_of_one_run_the_last_stays() {
    let work = Work::new();
    for id in ["a", "ab"] {
        enter(&work.page, entry(id, 0.6, 2e-5)).unwrap();
    }
    let path = jsonl(&work.page);
    let mut text = files::read_text(&path).unwrap();
    text.push_str(&(serde_json::to_string(&entry("a", 0.7, 2e-5)).unwrap() + "\n{\"not\": \"ours\"}\n"));
    std::fs::write(&path, text).unwrap();
    amend(&work.page, "a", Some("twice"), None).unwrap();
    let text = files::read_text(&path).unwrap();
    assert_eq!((text.lines().count(), text.matches("\"run_id\":\"a\"").count()), (3, 1), "{text}");
    let found = read(&work.page).unwrap();
    let own = found.find("a").unwrap();
    assert_eq!((own.score, own.notes.as_slice()), (Some(0.7), ["twice".to_owned()].as_slice()));
}

#[test]
fn an_old_run_that_is_entered_late_follows_none_after_it() {
    let work = Work::new();
    for (id, date) in [("first", 1), ("third", 3)] {
        enter(&work.page, Entry { date: format!("2026-02-0{date}T00:00:00Z"), ..entry(id, 0.6, 2e-5) }).unwrap();
    }
    let late = Entry { date: "2026-02-02 10:00".into(), ..entry("second", 0.61, 1e-5) };
    let (late, _) = enter(&work.page, late).unwrap();
    assert!(late.tried.ends_with("than `first`"), "{}", late.tried);
    let text = work.text();
    let places: Vec<_> = ["## third\n", "## second\n", "## first\n"].iter().map(|part| text.find(part)).collect();
    assert!(places.is_sorted() && places[0].is_some(), "{text}");
}

#[test]
fn losses_are_compared_with_the_same_loss_alone() {
    let lost = |scale: f64, metric: &str| {
        let plan = json!({"train_dataset": [{"loss": {"name": "A", "scale": scale}}]});
        Entry { metric: Some(metric.into()), loss: "A".into(), plan: compare::flat(&plan), ..Entry::default() }
    };
    assert!(lost(20.0, "eval_loss").measured_as(&lost(20.0, "eval_loss")));
    assert!(!lost(20.0, "eval_loss").measured_as(&lost(30.0, "eval_loss")));
    assert!(lost(20.0, "eval_x").measured_as(&lost(30.0, "eval_x")));
    let other = Entry { loss: "B".into(), source: Source::Table, plan: Default::default(), ..lost(20.0, "eval_loss") };
    assert!(!other.measured_as(&lost(20.0, "eval_loss")));
}
