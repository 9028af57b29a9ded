//! `report`: one page that shows what a run did.

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb};
use crate::error::Result;
use crate::runs::folder::{RUNS, display};
use crate::runs::status::{self, State};
use crate::runs::{RunFolder, report};
use crate::util::files;

/// Make a run's report again; also of a run under way.
///
/// `report.html` needs nothing but a browser: verdict, curves, queries that gained and lost, score distributions, data,
/// time, recipe and environment. Every run writes it at its end.
#[derive(Debug, Clone, Default, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The run: its id, the beginning of its id, or its folder. The latest run when left out.
    #[serde(default)]
    pub run: Option<String>,
    /// Where the page goes; `report.html` in the run's folder when left out.
    #[arg(long, short, value_name = "FILE")]
    #[serde(default)]
    pub output: Option<PathBuf>,
}

/// Where the report is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The run's id.
    pub run_id: String,
    /// `running`, `done`, `failed` or `cancelled`.
    pub state: State,
    /// The page.
    pub report: PathBuf,
    /// The curves as PNG pictures.
    pub pictures: Vec<PathBuf>,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _reporter: &mut dyn Reporter) -> Result<Response> {
        let folder = RunFolder::find(Path::new(RUNS), self.run.as_deref())?;
        let path = report::write(&folder, self.output.as_deref())?;
        let pictures = files::list(&report::captured::dir(&folder))?;
        Ok(Response {
            run_id: folder.run_id().to_owned(),
            state: status::read(&folder)?.state,
            report: files::absolute(&path),
            pictures: pictures.into_iter().filter(|file| file.extension().is_some_and(|e| e == "png")).collect(),
        })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = vec![format!("{}  {}", self.run_id, self.state.name())];
        lines.push(format!("report  {}", display(&self.report)));
        lines.extend(self.pictures.iter().map(|picture| format!("picture {}", display(picture))));
        lines.join("\n")
    }
}
