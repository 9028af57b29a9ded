//! How is tallow used from a shell? Arguments in, answers on stdout, everything else on stderr, an exit code.

pub mod args;
pub mod exit;
pub mod printer;

use std::ffi::OsString;

use args::{Command, Invocation};
use printer::Printer;

use crate::error::{Error, Result};
use crate::verbs::Verb;
use crate::verbs::mcp::{Action, Serve};
use crate::verbs::workspace;

/// What is left to do for the program after the arguments were seen to.
#[derive(Debug, Clone)]
pub enum Next {
    /// End with this code.
    Exit(u8),
    /// Be an MCP server.
    Serve(Serve),
}

/// Does what the arguments ask.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Next {
    if let Err(error) = workspace::enter_inherited() {
        return Next::Exit(fail(&Printer::new(false), &error));
    }
    match args::parse(arguments.into_iter().collect()) {
        Invocation::Text(text) => {
            Printer::new(false).text(&text);
            Next::Exit(exit::DONE)
        }
        Invocation::Mistake { json, error } => Next::Exit(fail(&Printer::new(json), &error)),
        Invocation::Command { json, command } => dispatch(command, &mut Printer::new(json)),
    }
}

fn dispatch(command: Command, printer: &mut Printer) -> Next {
    let code = match command {
        Command::Demo(request) => answer(request, printer),
        Command::Choose(request) => answer(request, printer),
        Command::Inspect(request) => answer(request, printer),
        Command::Recommend(request) => answer(request, printer),
        Command::Render(request) => answer(*request, printer),
        Command::Check(request) => answer(request, printer),
        Command::SmokeTest(request) => answer(request, printer),
        Command::Run(request) => answer(*request, printer),
        Command::Runs(request) => answer(request, printer),
        Command::Status(request) => answer(request, printer),
        Command::Report(request) => answer(request, printer),
        Command::Cancel(request) => answer(request, printer),
        Command::Log(request) => answer(request, printer),
        Command::Experiments(request) => answer(request, printer),
        Command::Encode(request) => answer(request, printer),
        Command::Predict(request) => answer(request, printer),
        Command::Rank(request) => answer(request, printer),
        Command::Evaluate(request) => answer(request, printer),
        Command::Search(request) => answer(request, printer),
        Command::Mine(request) => answer(*request, printer),
        Command::Teach(request) => answer(*request, printer),
        Command::Pull(request) => answer(request, printer),
        Command::Push(request) => answer(request, printer),
        Command::ParaphraseMining(request) => answer(request, printer),
        Command::Cluster(request) => answer(request, printer),
        Command::Distill(request) => answer(request, printer),
        Command::Mcp(request) => match request.action {
            Some(Action::Install(request)) => answer(request, printer),
            None => return Next::Serve(request.serve),
        },
    };
    Next::Exit(code)
}

fn answer(request: impl Verb, printer: &mut Printer) -> u8 {
    match request.run(printer) {
        Ok(answer) => printer.answer(&answer),
        Err(error) => fail(printer, &error),
    }
}

fn fail(printer: &Printer, error: &Error) -> u8 {
    printer.error(error);
    exit::code(error)
}

/// Ends a server: silent when it went well.
pub fn end(result: Result<()>) -> u8 {
    match result {
        Ok(()) => exit::DONE,
        Err(error) => fail(&Printer::new(false), &error),
    }
}
