//! Every command that a page shows runs, and says how it ends.

use std::collections::BTreeMap;
use std::process::Command;

use super::pages;
use super::place::Place;

/// Blocks that are not run: they need the Hub, or a machine that is rented.
const TEXT_BLOCKS: usize = 2;

/// The exit code that a line's comment names.
fn expected(line: &str) -> i32 {
    line.split_once("# exit ").map_or(0, |(_, code)| code.trim().parse().unwrap())
}

#[test]
fn every_command_runs() {
    let mut failed = Vec::new();
    let mut seen = 0;
    for page in pages() {
        // a page's commands build on each other
        let place = Place::new();
        for line in page.blocks().iter().filter(|block| block.language == "sh").flat_map(|block| block.text.lines()) {
            assert!(line.starts_with("tallow "), "{}: a line that is not run: {line}", page.name);
            seen += 1;
            let output = place.shell(line);
            if output.status.code() != Some(expected(line)) {
                let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                failed.push(format!("{}: {line}\n{}\n{out}{err}", page.name, output.status));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {seen} fail:\n\n{}", failed.len(), failed.join("\n\n"));
    assert!(seen >= 30, "{seen} commands were found");
}

#[test]
fn few_commands_are_not_run() {
    let blocks: Vec<String> = pages()
        .iter()
        .flat_map(|page| page.blocks().into_iter().map(|block| (page.name.clone(), block)))
        .filter(|(_, block)| block.language == "text")
        .map(|(page, _)| page)
        .collect();
    assert!(blocks.len() <= TEXT_BLOCKS, "{blocks:?}");
}

/// Commands in prose name verbs and options that there are.
#[test]
fn commands_in_prose_are_understood() {
    let mut helps: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut failed = Vec::new();
    for page in pages() {
        for span in page.spans().into_iter().filter(|span| span.starts_with("tallow ")) {
            let mut words = span.split_whitespace().skip(1);
            let mut verb = words.next().unwrap_or_default().to_owned();
            if verb == "mcp" && words.clone().next() == Some("install") {
                verb.push_str(" install");
            }
            let help = helps.entry(verb.clone()).or_insert_with(|| {
                let asked = verb.split(' ').chain(["--help"]);
                let output = Command::new(env!("CARGO_BIN_EXE_tallow")).args(asked).output().unwrap();
                output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
            });
            let Some(help) = help else {
                failed.push(format!("{}: `{span}`: there is no verb `{verb}`", page.name));
                continue;
            };
            for option in words.filter(|word| word.starts_with("--")) {
                if !help.contains(&format!("{option} ")) && !help.contains(&format!("{option}\n")) {
                    failed.push(format!("{}: `{span}`: `{verb}` has no `{option}`", page.name));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
