//! Models go to the Hub whole, or are kept.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Asked, COMMIT, Reply, TOKEN, folder, hub, recipe};
use crate::support::project;

/// The files of a commit.
fn uploaded(asked: &[Asked]) -> BTreeMap<String, usize> {
    let commit = asked.iter().find(|asked| asked.path.contains("/commit/")).expect("nothing was committed");
    let lines = String::from_utf8(commit.body.clone()).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let file = |line: Value| {
        let content = line["value"]["content"].as_str()?.trim_end_matches('=').len() * 3 / 4;
        Some((line["value"]["path"].as_str()?.to_owned(), content))
    };
    lines.filter_map(file).collect()
}

#[test]
fn a_model_is_published_whole_or_kept() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let tiny = project("tests/fixtures/tiny-bert");
    let (passed, text) =
        hub.tallow(&["push", tiny.to_str().unwrap(), "owner/new", "--private", "--revision", "next"], dir.path(), &[]);
    assert!(
        passed && text.contains("published at") && text.contains("owner/new") && text.contains(&COMMIT[..10]),
        "{text}"
    );
    let asked = hub.asked();
    let want: BTreeMap<String, usize> = folder(&tiny).into_iter().map(|(name, data)| (name, data.len())).collect();
    assert_eq!(uploaded(&asked), want);
    let created: Value =
        serde_json::from_slice(&asked.iter().find(|a| a.path == "/api/repos/create").unwrap().body).unwrap();
    assert_eq!(
        (&created["private"], &created["organization"], &created["name"]),
        (&json!(true), &json!("owner"), &json!("new"))
    );
    for path in ["/api/models/owner/new/branch/next", "/api/models/owner/new/commit/next"] {
        assert!(asked.iter().any(|a| a.method == "POST" && a.path == path), "{asked:?}");
    }
    assert!(asked.iter().all(|asked| asked.token.as_deref() == Some(TOKEN)));
    // a name alone is the account's, and a repository that is there is used
    hub.trouble(|asked| {
        (asked.path == "/api/repos/create").then(|| Reply::refuse(409, "You already created this model repo"))
    });
    let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), "again", "--json"], dir.path(), &[]);
    assert!(passed && text.contains("me/again"), "{text}");
    // but what is to be private is not put where all can read
    for (visible, public) in [(true, false), (false, true)] {
        hub.trouble(move |asked| match asked.path.as_str() {
            "/api/repos/create" => Some(Reply::refuse(409, "You already created this model repo")),
            "/api/models/me/again" => Some(Reply::json(&json!({"id": "me/again", "private": visible}))),
            _ => None,
        });
        hub.asked();
        let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), "again", "--private"], dir.path(), &[]);
        assert_eq!(passed, visible, "{text}");
        assert_eq!(text.contains("`me/again` is there and public"), public, "{text}");
        assert_eq!(hub.asked().iter().any(|asked| asked.path.contains("/commit/")), visible);
    }
    // somebody else's is proposed to, not made
    hub.trouble(|asked| {
        (asked.path == "/api/repos/create").then(|| Reply::refuse(403, "You don't have the rights to create a model"))
    });
    let proposed = ["push", tiny.to_str().unwrap(), "owner/tiny", "--create-pr"];
    let (passed, text) = hub.tallow(&proposed, dir.path(), &[]);
    assert!(passed, "{text}");
    // a token that may make none still writes to what is there
    let (passed, text) = hub.tallow(&proposed[..3], dir.path(), &[]);
    assert!(passed, "{text}");
    let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), "owner/none"], dir.path(), &[]);
    assert!(!passed && text.contains("the rights to create"), "{text}");
    hub.well();
    std::fs::create_dir(dir.path().join("none")).unwrap();
    let (passed, text) = hub.tallow(&["push", "none", "owner/new"], dir.path(), &[]);
    assert!(!passed && text.contains("`none` is no model's folder"), "{text}");
    hub.asked();
    // a run publishes last
    recipe(dir.path(), "id = \"owner/pairs\"", "[hub]\npush_to_hub = true\nhub_private_repo = true\n");
    let (passed, text) = hub.tallow(&["run", "r.toml", "--force"], dir.path(), &[]);
    assert!(passed && text.contains("published at") && text.contains("me/small"), "{text}");
    let (_, status) = hub.tallow(&["status", "--json"], dir.path(), &[]);
    assert!(status.contains("/me/small\""), "{status}");
    let files = uploaded(&hub.asked());
    assert!(
        files.contains_key("model.safetensors")
            && files.contains_key("README.md")
            && files.contains_key("1_Pooling/config.json"),
        "{files:?}"
    );
    // and is kept when that fails
    hub.trouble(|asked| asked.path.contains("/commit/").then(|| Reply::refuse(403, "You may not write")));
    let (passed, text) = hub.tallow(&["run", "r.toml", "--force"], dir.path(), &[]);
    assert!(
        passed && text.contains("warning: not published: `me/small`: the Hub refuses access (403): You may not write"),
        "{text}"
    );
    assert!(text.contains("tallow push runs/") && text.contains("/model small --private` tries again"), "{text}");
    let (_, status) = hub.tallow(&["status", "--json"], dir.path(), &[]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert!(status["hub_error"].as_str().unwrap().contains("You may not write"), "{status}");
    // what could not be published is told before it is trained
    let runs = || std::fs::read_dir(dir.path().join("runs")).unwrap().count();
    let before = runs();
    let (passed, text) = hub.tallow(&["run", "r.toml", "--force"], dir.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert!(!passed && text.contains("`hub.push_to_hub`") && text.contains("forbids to publish"), "{text}");
    hub.trouble(|asked| (asked.path == "/api/whoami-v2").then(|| Reply::refuse(401, "Invalid username or password.")));
    let (passed, text) = hub.tallow(&["run", "r.toml", "--force"], dir.path(), &[]);
    assert!(!passed && text.contains("wants to know who asks"), "{text}");
    assert_eq!(runs(), before);
    hub.trouble(|asked| asked.path.contains("/commit/").then(|| Reply::refuse(403, "You may not write")));
    let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), "owner/new"], dir.path(), &[]);
    assert!(!passed && text.contains("You may not write"), "{text}");
    for (id, message) in [("a/b/c", "is not the id of a repository"), ("/x", "is not the id of a repository")] {
        let (passed, text) = hub.tallow(&["push", tiny.to_str().unwrap(), id], dir.path(), &[]);
        assert!(!passed && text.contains(message), "{text}");
    }
    let (passed, text) =
        hub.tallow(&["push", tiny.to_str().unwrap(), "owner/x"], dir.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert!(!passed && text.contains("forbids to publish"), "{text}");
}

/// What commits say of themselves, in order.
fn messages(asked: &[Asked]) -> Vec<String> {
    let commits = asked.iter().filter(|asked| asked.path.contains("/commit/"));
    let message = |asked: &Asked| {
        let lines = String::from_utf8(asked.body.clone()).unwrap();
        let header =
            lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|line| line["key"] == "header");
        header.unwrap()["value"]["summary"].as_str().unwrap().to_owned()
    };
    commits.map(message).collect()
}

#[test]
fn checkpoints_are_published_while_training_goes_on() {
    let (hub, dir) = (hub(), tempfile::tempdir().unwrap());
    let each = "save_strategy = \"steps\"\nsave_steps = 1\n[hub]\npush_to_hub = true\nhub_strategy = \"every_save\"\n";
    recipe(dir.path(), "id = \"owner/pairs\"", &format!("{each}hub_always_push = true\n"));
    let (passed, text) = hub.tallow(&["run", "r.toml", "--force", "--set", "args.max_steps=3"], dir.path(), &[]);
    assert!(passed && text.contains("published the model of step 1 at"), "{text}");
    let asked = hub.asked();
    let said = messages(&asked);
    for (message, wanted) in said.iter().zip(["Training in progress, step 1", "Training in progress, step 2"]) {
        assert_eq!(message, wanted);
    }
    assert!(said.len() >= 3 && said.last().unwrap().starts_with("Add the model of the run "), "{said:?}");
    // what training needs to go on stays here
    let first = uploaded(&asked);
    assert!(
        first.contains_key("model.safetensors") && !first.keys().any(|name| name.contains("optimizer")),
        "{first:?}"
    );
    let run = std::fs::read_dir(dir.path().join("runs")).unwrap().next().unwrap().unwrap().path();
    assert!(!run.join(".publishing").exists());
    // what becomes of them does not touch the run
    hub.trouble(|asked| {
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        let refused = asked.path.contains("/commit/") && body.contains("Training in progress");
        refused.then(|| Reply::refuse(403, "not now"))
    });
    let (passed, text) = hub.tallow(&["run", "r.toml", "--force"], dir.path(), &[]);
    assert!(
        passed
            && text.contains("warning: the model of step 1 is not published: ")
            && text.contains("not now")
            && text.contains("published at"),
        "{text}"
    );
    hub.well();
    for (strategy, message) in [
        ("checkpoint", "`hub.hub_strategy`: would publish the state of training"),
        ("all_checkpoints", "`hub.hub_strategy`: would publish the state of training"),
    ] {
        let set = format!("hub.hub_strategy=\"{strategy}\"");
        let (passed, text) = hub.tallow(&["run", "r.toml", "--force", "--set", &set], dir.path(), &[]);
        assert!(!passed && text.contains(message) && text.contains("every_save"), "{text}");
    }
    let (passed, text) =
        hub.tallow(&["run", "r.toml", "--force", "--set", "args.save_strategy=\"no\""], dir.path(), &[]);
    assert!(passed && text.contains("saves no checkpoints, so the model is published at the end alone"), "{text}");
}
