//! The MCP handler: tools, resources, prompts, completion, subscriptions, tasks.

// log messages, and subscriptions one by one, are what clients before 2026-07-28 know
#![allow(deprecated)]

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult, CompletionInfo,
    GetPromptRequestParams, GetPromptResponse, GetPromptResult, GetTaskParams, GetTaskResult, Implementation,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    Prompt, PromptArgument, PromptMessage, ReadResourceRequestParams, ReadResourceResponse, Reference, Role,
    ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool,
    UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::answers::{Answers, text};
use super::caller::{Caller, LogLevel};
use super::jobs::Jobs;
use super::tools::{self, Entry};
use super::watch::{self, Watched};
use super::{resources, tasks};
use crate::error::Result;
use crate::verbs::{library, prompts, run_files};

const INSTRUCTIONS: &str = "\
tallow trains and evaluates sentence-transformers models natively. `choose_model_type`, `inspect_dataset` and \
`recommend_loss` first; `render_template` writes a recipe (TOML: model.base, train_dataset, loss, evaluator, args) with \
the `settings` they found; `check` says what a recipe or a script lacks. Then `smoke_test` it (two steps: gradients, \
memory, time), `run` it (a process of its own; returns a run_id at once), `run_status` with wait_s until it has ended, \
`log_experiment` with what was learned. Mistakes come back as tool errors that say what to change. The skill and its \
references are resources (skill://), as are the files of every run (run://ID/log, metrics, recipe, report, card).";

/// What all sessions of a server share.
pub(super) struct Shared {
    tools: Vec<Entry>,
    pub(super) jobs: Jobs,
    pub(super) answers: Answers,
}

impl Shared {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { tools: tools::all()?, jobs: Jobs::default(), answers: Answers::default() })
    }
}

/// One session.
pub(super) struct Server {
    shared: Arc<Shared>,
    watched: Watched,
    level: Arc<LogLevel>,
}

impl Server {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, watched: Watched::default(), level: Arc::default() }
    }
}

fn capabilities() -> ServerCapabilities {
    ServerCapabilities::builder()
        .enable_tools()
        .enable_resources()
        .enable_resources_subscribe()
        .enable_resources_list_changed()
        .enable_prompts()
        .enable_completions()
        .enable_logging()
        .enable_tasks()
        .build()
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(capabilities())
            .with_server_info(Implementation::new("tallow", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        tokio::spawn(watch::runs(context.peer));
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.level.set(request.level);
        Ok(())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.shared.tools.iter().map(|t| t.definition.clone()).collect()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.shared.tools.iter().find(|t| t.definition.name == name).map(|t| t.definition.clone())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(entry) = self.shared.tools.iter().find(|t| t.definition.name == request.name) else {
            let known: Vec<&str> = self.shared.tools.iter().map(|t| t.definition.name.as_ref()).collect();
            let message = format!("there is no tool `{}`; known are {}", request.name, known.join(", "));
            return Err(ErrorData::invalid_params(message, None));
        };
        let mut caller = Caller::new(&context, Arc::clone(&self.level));
        tools::call(entry, request.arguments.unwrap_or_default(), &self.shared, &mut caller).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let cursor = request.and_then(|page| page.cursor);
        blocking(move || resources::list(cursor.as_deref())).await
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let shared = Arc::clone(&self.shared);
        blocking(move || resources::read(&request.uri, &shared.answers)).await.map(Into::into)
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.watched.add(request.uri, context.peer);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.watched.remove(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&capabilities()))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        watch::listen(&context).await;
        Ok(())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let argument =
            |a: &prompts::Argument| PromptArgument::new(a.name).with_description(a.description).with_required(false);
        let all = prompts::PROMPTS.iter().map(|prompt| {
            Prompt::new(prompt.name, Some(prompt.description), Some(prompt.arguments.iter().map(argument).collect()))
                .with_title(prompt.title)
        });
        Ok(ListPromptsResult::with_all_items(all.collect()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let wrong = |error| ErrorData::invalid_params(text(&error), None);
        let prompt = prompts::find(&request.name).map_err(wrong)?;
        let message = prompts::text(&request.name, &request.arguments.unwrap_or_default()).map_err(wrong)?;
        let result = GetPromptResult::new(vec![PromptMessage::new_text(Role::User, message)]);
        Ok(result.with_description(prompt.description).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        blocking(move || {
            let mut values = completions(&request);
            let all = values.len();
            values.truncate(CompletionInfo::MAX_VALUES);
            let more = values.len() < all;
            let completion = CompletionInfo::with_pagination(values, u32::try_from(all).ok(), more)
                .map_err(|e| ErrorData::internal_error(e, None))?;
            Ok(CompleteResult::new(completion))
        })
        .await
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        tasks::find(&request.task_id, &self.shared).await.map(GetTaskResult::new)
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        // no task asks for anything, so answers to questions that were never put are passed over
        tasks::find(&request.task_id, &self.shared).await.map(drop)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::stop(&request.task_id, &self.shared).await
    }
}

/// What an argument may become, for a prompt or an address.
fn completions(request: &CompleteRequestParams) -> Vec<String> {
    let (argument, begun) = (request.argument.name.as_str(), request.argument.value.as_str());
    let begins = |value: &String| value.starts_with(begun);
    match &request.r#ref {
        Reference::Prompt(of) if prompts::find(&of.name).is_ok() => prompts::completions(argument, begun),
        Reference::Resource(of) if of.uri.starts_with("run://") => match argument {
            "id" => run_files::known(100).unwrap_or_default().into_iter().map(|run| run.id).filter(begins).collect(),
            "part" => run_files::PARTS.iter().map(|part| part.name.to_owned()).filter(begins).collect(),
            _ => Vec::new(),
        },
        Reference::Resource(of) if of.uri.starts_with(library::ROOT) => {
            let folder = if argument == "page" { "references/" } else { "templates/" };
            let names = library::documents().iter().filter_map(|d| d.path.strip_prefix(folder).map(str::to_owned));
            names.filter(begins).collect()
        }
        _ => Vec::new(),
    }
}

/// Looks at files on a thread that may wait for them.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ErrorData> + Send + 'static,
) -> Result<T, ErrorData> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ErrorData::internal_error("the server stumbled; please report it", None)),
    }
}
