//! The MCP handler: lists the tools and calls them.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Implementation, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::jobs::Jobs;
use super::tools::{self, Entry};
use crate::error::Result;

const INSTRUCTIONS: &str = "\
tallow trains and evaluates sentence-transformers models natively. Ask `choose_model_type`, `inspect_dataset` and \
`recommend_loss` first; `render_template` writes a recipe (TOML: model.base, train_dataset, loss, evaluator, args) with \
what they found, `check` says what a recipe or a script lacks. Then: `smoke_test` it (two steps: gradients, memory, time), `run` it (starts a process and \
returns its run_id at once), follow it with `run_status` and wait_s until state is no longer `running`, then \
`evaluate` the model in the run's model_dir. A recipe's mistakes come back as tool errors that say what to change.";

/// The server: the tools and the work under way.
pub(super) struct Server {
    tools: Vec<Entry>,
    jobs: Jobs,
}

impl Server {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { tools: tools::all()?, jobs: Jobs::default() })
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("tallow", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.iter().map(|t| t.definition.clone()).collect()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|t| t.definition.name == name).map(|t| t.definition.clone())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(entry) = self.tools.iter().find(|t| t.definition.name == request.name) else {
            let known: Vec<&str> = self.tools.iter().map(|t| t.definition.name.as_ref()).collect();
            let message = format!("there is no tool `{}`; known are {}", request.name, known.join(", "));
            return Err(ErrorData::invalid_params(message, None));
        };
        Ok(tools::call(entry, request.arguments.unwrap_or_default(), &self.jobs).await.into())
    }
}
