//! `render`: a recipe, a training script or a launch file to begin with.

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Answer, Reporter, Verb};
use crate::check;
use crate::draft::{self, Wanted, launch, python};
use crate::error::{Error, Result};
use crate::flow::ModelType;
use crate::recipe::Builtin;
use crate::util::files;

/// What kind of file to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum Target {
    /// A recipe for `tallow run`.
    #[default]
    Recipe,
    /// A training script for sentence-transformers.
    Python,
    /// A shell script that starts the training script on all GPUs of a machine, with Accelerate.
    Accelerate,
    /// The same with torchrun, on one machine or several.
    Torchrun,
    /// A script that submits it to Hugging Face Jobs.
    Jobs,
    /// A batch script for SLURM.
    Slurm,
    /// A Python file that starts it on a Ray cluster.
    Ray,
}

/// Write a recipe, a training script for sentence-transformers, or a file that starts one elsewhere.
///
/// Begins with the nearest variant, names your data's columns, and puts every value you set in its place. What is written
/// passes `check`.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The kind of model.
    #[arg(long, value_name = "TYPE", value_parser = model_type)]
    pub model_type: ModelType,
    /// What it is to learn, or how: `default`, `matryoshka`, `multi_dataset`, `with_lora`, `distillation`,
    /// `make_multilingual`, `static_embedding`, `mining`; of a CrossEncoder `default`, `distillation`, `listwise`; of a
    /// SparseEncoder `default`, `distillation`.
    #[arg(long, value_name = "NAME")]
    #[serde(default)]
    pub variant: Option<String>,
    /// What kind of file.
    #[arg(long, value_enum, value_name = "TARGET", default_value_t = Target::Recipe)]
    #[serde(default)]
    pub target: Target,
    /// Rows to train on; their columns are taken from the file. Without, a data set on the Hub.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub data: Option<String>,
    /// Held-out rows to measure with, or a folder with corpus.jsonl, queries.jsonl and qrels.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub eval: Option<String>,
    /// The model to start from: a folder, or an id on the Hub.
    #[arg(long, value_name = "MODEL")]
    #[serde(default)]
    pub base: Option<String>,
    /// Set a recipe's key, as `args.learning_rate=2e-5` or `evaluator.0.name=dev`. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    #[serde(default)]
    pub set: Vec<String>,
    /// Settings from the JSON that `tallow recommend --json` writes: an object `settings` of a recipe's dotted keys.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// Settings themselves, as `recommend_loss` answers them: a recipe's dotted keys and their values.
    #[arg(skip)]
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// The model that teaches, or that looks for hard negatives, where the data do not have that yet.
    #[arg(long, value_name = "MODEL")]
    #[serde(default)]
    pub teacher: Option<String>,
    /// Where it goes. Default: after the model type and variant, in the current directory.
    #[arg(long, short, value_name = "FILE")]
    #[serde(default)]
    pub output: Option<PathBuf>,
    /// Write over a file that is there.
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

fn model_type(text: &str) -> std::result::Result<ModelType, String> {
    serde_json::from_value(text.into()).map_err(|_| {
        "there are `SentenceTransformer`, `CrossEncoder`, `SparseEncoder` and `MultiVectorEncoder`".to_owned()
    })
}

/// What was written.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The file, and beside a launch file the script that it starts.
    pub files: Vec<PathBuf>,
    pub target: Target,
    pub model_type: ModelType,
    pub variant: String,
    /// The loss, or those of the data sets.
    pub losses: Vec<String>,
    /// What was decided for you.
    pub notes: Vec<String>,
    /// What to do next.
    pub next: String,
}

impl Request {
    fn output(&self, target: Target) -> Result<PathBuf> {
        let named = self.output.clone().filter(|_| target == self.target);
        let variant = draft::variants::find(self.model_type, self.variant.as_deref().unwrap_or("default"))?;
        Ok(match (named, target, &self.output) {
            (Some(path), ..) => path,
            // beside the launch file
            (None, Target::Python, Some(launch)) => launch.with_file_name(script_name(launch)),
            (None, Target::Python, None) => PathBuf::from(format!("{}.py", variant.run_name().replace('-', "_"))),
            (None, Target::Recipe, _) => PathBuf::from(format!("{}.toml", variant.run_name())),
            (None, _, _) => PathBuf::from(format!("{}-{}", variant.run_name(), launch::file(kind(target)))),
        })
    }
}

/// The name of the script that a launch file starts.
fn script_name(launch: &Path) -> String {
    let stem = launch.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{stem}_train.py")
}

const fn kind(target: Target) -> launch::Kind {
    match target {
        Target::Torchrun => launch::Kind::Torchrun,
        Target::Jobs => launch::Kind::Jobs,
        Target::Slurm => launch::Kind::Slurm,
        Target::Ray => launch::Kind::Ray,
        Target::Accelerate | Target::Recipe | Target::Python => launch::Kind::Accelerate,
    }
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _: &mut dyn Reporter) -> Result<Response> {
        let mut settings = match &self.from {
            Some(path) => draft::settings_of(&path.display().to_string(), &files::read_text(path)?)?,
            None => Vec::new(),
        };
        if !self.settings.is_empty() {
            let given = json!({"settings": self.settings}).to_string();
            settings.extend(draft::settings_of("settings", &given)?);
        }
        let native = self.target == Target::Recipe;
        let file = self.output(if native { Target::Recipe } else { Target::Python })?;
        let wanted = Wanted {
            model_type: self.model_type,
            variant: self.variant.clone(),
            data: self.data.clone(),
            eval: self.eval.clone(),
            base: self.base.clone(),
            teacher: self.teacher.clone(),
            settings,
            set: self.set.clone(),
            file: file.clone(),
        };
        let draft = if native { draft::recipe(&wanted)? } else { draft::values(&wanted)? };
        let mut notes = draft.notes.clone();
        let mut written = Vec::new();
        if native {
            let (_, more) = draft.loaded.resolve(&Builtin)?;
            notes.extend(more);
            written.push((file, draft.text.clone()));
        } else {
            let script = python(&draft, &wanted)?;
            if self.target != Target::Python {
                let output = self.output(self.target)?;
                let packages = draft::requirements(&draft);
                let text = launch::render(kind(self.target), &file, &output, &draft.run_name(), &packages)?;
                written.push((output, text));
            }
            written.push((file, script));
        }
        // last is what trains; a launch file before it only starts that
        if let Some((path, text)) = written.last() {
            let report = check::check(path, text)?;
            if let Some(violation) = report.violations.first() {
                return Err(violation.refusal(path));
            }
        }
        let paths = self.write(&written)?;
        let first = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
        Ok(Response {
            next: match self.target {
                Target::Recipe => format!("`tallow smoke-test {first}`, then `tallow run {first}`"),
                Target::Python => {
                    format!("`SMOKE_TEST=1 uv run {first}` (or `python {first}`), then without SMOKE_TEST")
                }
                target => launch::next(kind(target), &first),
            },
            files: paths,
            target: self.target,
            model_type: self.model_type,
            variant: draft.variant.name.to_owned(),
            losses: draft.losses(),
            notes,
        })
    }
}

impl Request {
    /// Writes the files, or none of them where one is there already.
    fn write(&self, written: &[(PathBuf, String)]) -> Result<Vec<PathBuf>> {
        if let Some((path, _)) = written.iter().find(|(path, _)| path.exists() && !self.force) {
            return Err(Error::usage(format!("`{}` is there already", path.display()))
                .with_hint("name another file with `--output`, or write over it with `--force`"));
        }
        for (path, text) in written {
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                files::create_dir(folder)?;
            }
            files::write_atomic(path, text.as_bytes())?;
        }
        Ok(written.iter().map(|(path, _)| path.clone()).collect())
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines: Vec<String> = self.files.iter().map(|path| format!("wrote  {}", path.display())).collect();
        lines.push(format!("loss   {}", self.losses.join(", ")));
        lines.extend(self.notes.iter().map(|note| format!("note   {note}")));
        lines.push(format!("next   {}", self.next));
        lines.join("\n")
    }
}
