//! `mcp`: how the server is asked to serve.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::install;

/// Serve the verbs to an AI agent: an MCP server on stdin and stdout, or over HTTP.
///
/// Tools: choose_model_type, inspect_dataset, recommend_loss, render_template, check, smoke_test, run, run_status,
/// cancel_run, log_experiment, mine_hard_negatives, evaluate; resources: the skill, its references and templates, and
/// the files of every run; prompts. Relative paths are read relative to the directory the server was started in. Runs
/// are processes of their own and go on when the server ends.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Request {
    #[command(subcommand)]
    pub action: Option<Action>,
    #[command(flatten)]
    pub serve: Serve,
}

/// What else there is to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    Install(install::Request),
}

/// Where and how to serve.
#[derive(Debug, Clone, Default, Args)]
pub struct Serve {
    /// Serve streamable HTTP here, as `127.0.0.1:8765`, at `/mcp`; port 0 takes a free one, which is told on stderr.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// The workspace: no path outside is read or written, whatever links say. Default with `--http`: the current
    /// directory; without: no limit.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// An origin (`https://app.example.com:443`) whose pages may call the server. Pages of this machine may without.
    /// Repeatable.
    #[arg(long = "allow-origin", value_name = "ORIGIN", requires = "http")]
    pub allow_origin: Vec<String>,
    /// A host name under which the server is called, besides those of this machine. Repeatable.
    #[arg(long = "allow-host", value_name = "HOST", requires = "http")]
    pub allow_host: Vec<String>,
}

/// The variable with the token that HTTP requests have to bear; an address that others can reach needs one.
pub const TOKEN: &str = "TALLOW_MCP_TOKEN";
