//! The command line: verbs and their requests, read by clap.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::error::Error;
use crate::verbs::{
    cancel, check, choose, cluster, demo, distill, encode, evaluate, experiments, inspect, log, mcp, mine,
    paraphrase_mining, predict, pull, push, rank, recommend, render, report, run, runs, search, smoke_test, status,
    teach,
};

const AFTER_HELP: &str = "\
From a file of pairs to a trained model:
  tallow demo                       train on bundled data and see it work, offline
  tallow choose TASK                which type of model
  tallow inspect pairs.jsonl        what is in the data, and what is wrong with it
  tallow recommend ...              loss, batch size, evaluator, base model for it
  tallow render --model-type SentenceTransformer --data pairs.jsonl --eval dev.jsonl
                                    a recipe to begin with; `--target python` for a script
  tallow check recipe.toml          does it keep what every run has to keep
  tallow smoke-test recipe.toml     two steps: does it run, how long will it take
  tallow run recipe.toml            train, evaluate, save
  tallow experiments propose -o next.toml
                                    what to try next, when the verdict is weak

Answers go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 bad usage,
3 a check found something, 130 cancelled.";

/// Train and use sentence-transformers models, natively.
///
/// A recipe (TOML) says what to train on what; a run evaluates before and after, saves a model that
/// sentence-transformers loads, and ends with a verdict.
#[derive(Debug, Parser)]
#[command(name = "tallow", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    /// Print one JSON document on stdout, errors included.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(demo::Request),
    Choose(choose::Request),
    Inspect(inspect::Request),
    Recommend(recommend::Request),
    Render(Box<render::Request>),
    Check(check::Request),
    SmokeTest(smoke_test::Request),
    Run(Box<run::Request>),
    Runs(runs::Request),
    Status(status::Request),
    Report(report::Request),
    Cancel(cancel::Request),
    Log(log::Request),
    Experiments(experiments::Request),
    Encode(encode::Request),
    Predict(predict::Request),
    Rank(rank::Request),
    Evaluate(evaluate::Request),
    Search(search::Request),
    Mine(Box<mine::Request>),
    Teach(Box<teach::Request>),
    Pull(pull::Request),
    Push(push::Request),
    ParaphraseMining(paraphrase_mining::Request),
    Cluster(cluster::Request),
    Distill(distill::Request),
    Mcp(mcp::Request),
}

/// What the arguments come to.
#[derive(Debug)]
pub enum Invocation {
    /// Help or the version.
    Text(String),
    /// Arguments that cannot be meant.
    Mistake { json: bool, error: Error },
    /// A verb.
    Command { json: bool, command: Command },
}

/// Reads the arguments, the program's name first.
#[must_use]
pub fn parse(arguments: Vec<OsString>) -> Invocation {
    let json = arguments.iter().take_while(|a| *a != "--").any(|a| a == "--json");
    match Cli::try_parse_from(arguments) {
        Ok(cli) => Invocation::Command { json: cli.json, command: cli.command },
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Invocation::Text(error.render().to_string()),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Invocation::Mistake {
                json,
                error: Error::usage("no command was given")
                    .with_hint("`tallow --help` lists them; `tallow demo` shows what it does"),
            },
            _ => Invocation::Mistake { json, error: mistake(&error.render().to_string()) },
        },
    }
}

/// clap's message in our form: what is wrong on one line, the way out apart.
fn mistake(rendered: &str) -> Error {
    let mut blocks = rendered.split("\n\n");
    let first: Vec<&str> = blocks.next().unwrap_or_default().lines().map(str::trim).collect();
    let message = first.join(" ");
    let mut tips = Vec::new();
    let mut usage = None;
    for line in blocks.flat_map(str::lines).map(str::trim) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            tips.push(tip.to_owned());
        } else if let Some(text) = line.strip_prefix("Usage: ") {
            usage = Some(format!("usage is `{text}`"));
        }
    }
    let hint =
        if tips.is_empty() { usage.unwrap_or_else(|| "see `tallow --help`".to_owned()) } else { tips.join("; ") };
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    Error::usage(message.replace('\'', "`")).with_hint(hint.replace('\'', "`"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use clap::CommandFactory;

    fn read(line: &str) -> Invocation {
        parse(std::iter::once("tallow").chain(line.split_whitespace()).map(OsString::from).collect())
    }

    fn run(line: &str) -> run::Request {
        match read(line) {
            Invocation::Command { command: Command::Run(request), .. } => *request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn runs_are_asked_for_as_pinned() {
        let request = run("run a.toml --set args.max_steps=1 --set seed=2 --json");
        assert_eq!(request.recipe.unwrap().to_str(), Some("a.toml"));
        assert_eq!(request.set, ["args.max_steps=1", "seed=2"]);
        assert_eq!(run("run a.toml --resume").resume.as_deref(), Some("latest"));
        assert_eq!(run("run --resume a-2026").resume.as_deref(), Some("a-2026"));
        assert!(run("run a.toml --detach").detach);
        let request = run("run a.toml --key night-1 --force --now");
        assert_eq!((request.key.as_deref(), request.force, request.now), (Some("night-1"), true, true));
        assert!(matches!(read("runs --state done --limit 5"), Invocation::Command { command: Command::Runs(_), .. }));
        assert!(matches!(read("runs --state gone"), Invocation::Mistake { .. }));
        assert!(matches!(read("status --wait 5 --json"), Invocation::Command { json: true, .. }));
        assert!(matches!(read("search m --corpus c --query a --query b"), Invocation::Command { json: false, .. }));
        assert!(matches!(read("mcp"), Invocation::Command { command: Command::Mcp(_), .. }));
    }

    #[test]
    fn mistakes_have_a_message_and_a_hint() {
        for (line, message, hint) in [
            ("rum a.toml", "unrecognized subcommand `rum`", "subcommands exist: `runs`, `run`"),
            (
                "smoke-test",
                "the following required arguments were not provided: <RECIPE>",
                "usage is `tallow smoke-test",
            ),
            ("run a.toml --sets x", "unexpected argument `--sets` found", "`--set`"),
            ("", "no command was given", "tallow demo"),
        ] {
            let Invocation::Mistake { error, .. } = read(line) else { panic!("{line}") };
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
        }
        assert!(matches!(read("rum --json"), Invocation::Mistake { json: true, .. }));
        assert!(matches!(read("--version"), Invocation::Text(text) if text.starts_with("tallow ")));
    }
}
