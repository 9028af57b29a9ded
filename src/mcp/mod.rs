//! How is tallow used by an AI agent? An MCP server whose tools are the verbs.
//!
//! Requests and responses are the verbs' own, so their doc comments are the tools' descriptions and schemas. Every
//! call answers within 25 seconds: waiting is cut to 24, and `smoke_test` and `evaluate`, which can take longer,
//! then answer `running`; the same call made again waits on and gets the result. A run is a process of its own and
//! is followed with `run_status`. What the user can put right comes back as a tool error with the way out. Relative
//! paths are read relative to the server's directory.

mod jobs;
mod server;
mod tools;

use rmcp::ServiceExt;

use crate::error::{Error, Result};

/// Serves on stdin and stdout until the client goes away.
///
/// # Errors
/// When the client does not speak MCP, or the server cannot start.
pub fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::io("start", "the MCP server"))?;
    let result = runtime.block_on(async {
        let fault = |e: String| {
            Error::train(format!("the MCP session ended: {e}"))
                .with_hint("`tallow mcp` is started by an MCP client and speaks JSON-RPC on stdin and stdout")
        };
        let service = server::Server::new()?.serve(rmcp::transport::stdio()).await.map_err(|e| fault(e.to_string()))?;
        service.waiting().await.map(drop).map_err(|e| fault(e.to_string()))
    });
    // work that nobody will ask about any more must not keep the process alive
    runtime.shutdown_background();
    result
}
