//! How is tallow used by an AI agent? An MCP server whose tools are the verbs.
//!
//! Requests and responses are the verbs' own, so their doc comments are the tools' descriptions and schemas, made short
//! ([`schema`]). Every call answers within 25 seconds: waiting is cut to 23, and tools that can take longer then answer
//! `running`; the same call made again waits on and gets the result ([`jobs`]). Clients that declare the Tasks extension
//! get a task instead ([`tasks`]). A run is a process of its own, followed with `run_status`, which tells its progress
//! meanwhile. What the user can put right comes back as a tool error with the way out. An answer of more than 2,000
//! tokens is cut, with a link to the whole ([`answers`]).
//!
//! Over stdio the server speaks on what was stdout when it started; whatever a library prints there later goes to
//! stderr. Over HTTP it keeps to a workspace ([`crate::verbs::workspace`]).

mod answers;
mod caller;
mod http;
mod jobs;
mod resources;
mod schema;
mod server;
mod stdio;
mod tasks;
mod tools;
mod watch;

use std::path::Path;
use std::sync::Arc;

use rmcp::ServiceExt;

use crate::error::{Error, Result};
use crate::verbs::mcp::Serve;
use crate::verbs::{Reporter, workspace};

/// Serves until the client goes away, or over HTTP until Ctrl-C; `reporter` is told where.
///
/// # Errors
/// When the client does not speak MCP, or the server cannot start.
pub fn serve(options: &Serve, reporter: &mut dyn Reporter) -> Result<()> {
    let token = options.http.map(http::token).transpose()?.flatten();
    let root = options.root.as_deref().or_else(|| options.http.map(|_| Path::new(".")));
    root.map_or(Ok(()), workspace::enter)?;
    let shared = Arc::new(server::Shared::new()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::io("start", "the MCP server"))?;
    let result = match options.http {
        Some(address) => runtime.block_on(http::serve(address, options, token, shared, |address, path| {
            reporter.line(&format!("serving MCP at http://{address}{path}; Ctrl-C ends it, runs go on"));
        })),
        None => runtime.block_on(on_stdio(shared)),
    };
    // work that nobody will ask about any more must not keep the process alive
    runtime.shutdown_background();
    result
}

async fn on_stdio(shared: Arc<server::Shared>) -> Result<()> {
    let fault = |e: String| {
        Error::train(format!("the MCP session ended: {e}"))
            .with_hint("`tallow mcp` is started by an MCP client and speaks JSON-RPC on stdin and stdout")
    };
    let transport = (tokio::io::stdin(), stdio::protocol_output()?);
    let service = server::Server::new(shared).serve(transport).await.map_err(|e| fault(e.to_string()))?;
    service.waiting().await.map(drop).map_err(|e| fault(e.to_string()))
}
