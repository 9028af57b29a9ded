//! The one place where verbs touch recipes, training and models.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::{Map, Value};

use super::Reporter;
use crate::catalog::choose::TYPES;
use crate::error::{Error, Result};
use crate::eval::{self, Evaluator, nano_beir};
use crate::flow::{Embeddings, Encode, ModelType};
use crate::hub;
use crate::model::distill::Distillation;
pub(super) use crate::model::distill::TeacherPooling;
pub(super) use crate::model::roles::{Role, encode_options, named_options};
use crate::model::{ModelOptions, SentenceTransformer, StaticSource, TextTokenizer, facts};
use crate::ops::{self, device};
use crate::recipe::plan::EvaluatorPlan;
use crate::recipe::schema::PcaDims;
use crate::recipe::{self, Builtin, Plan};
use crate::train::events::Listener;
use crate::train::{self, Outcome};
use crate::util::seed::Rng;
use crate::util::{files, suggest};

/// Reads a recipe and resolves it; the notes say what was decided for the user.
pub(super) fn plan(recipe: &Path, set: &[String]) -> Result<(Plan, Vec<String>)> {
    recipe::load(recipe, set)?.resolve(&Builtin)
}

/// Trains. `keep_base` also saves the model as it was before the first step.
pub(super) fn train(
    plan: &Plan,
    run_dir: &Path,
    resume: bool,
    keep_base: bool,
    listener: &mut dyn Listener,
) -> Result<Outcome> {
    train::run(plan, run_dir, &train::Options { resume, keep_base }, listener)
}

/// An evaluator's own settings from `key=value` texts.
pub(super) fn evaluator_settings(kind: &str, set: &[String]) -> Result<Map<String, Value>> {
    let entry = eval::find(kind)?;
    recipe::settings(&(entry.schema)().to_value(), set)
}

/// Where an evaluator's data are: the path that was given, or for NanoBEIR where the Hub's lie on this machine.
pub(super) fn evaluation_path(
    kind: &str,
    path: Option<&Path>,
    settings: &Map<String, Value>,
    reporter: &mut dyn Reporter,
) -> Result<PathBuf> {
    let on_the_hub = nano_beir::on_the_hub(kind, settings);
    match path {
        Some(path) if path.exists() => Ok(path.to_path_buf()),
        Some(path) => Err(Error::usage(format!("there is nothing at `{}`", path.display()))
            .with_hint("`--path` names the evaluator's data, read relative to the current directory")),
        None if let Some(wanted) = &on_the_hub => train::nano_beir_folder(wanted, &mut |line| reporter.line(line)),
        None => Err(Error::usage(format!("`{kind}` reads its data from `--path`, which is missing"))
            .with_hint("give the folder or file; `tallow evaluate --help` says what is in it")),
    }
}

/// An evaluator with its data.
pub(super) fn evaluator(plan: &EvaluatorPlan) -> Result<Box<dyn Evaluator>> {
    train::build_evaluator(plan)
}

/// Says so where rounded products were `asked` for and would not be faster here.
pub(super) fn warn_of_bf16(asked: bool, reporter: &mut dyn Reporter) {
    let helps = || device::first().is_ok_and(|device| device.is_cpu()) && ops::bf16_products().is_some();
    if asked && !helps() {
        reporter.line("warning: --bf16: products are computed in f32 here, as exact, and not faster");
    }
}

/// Refuses a file for rows that does not say by its ending that it has JSON lines.
pub(super) fn json_lines(output: &Path) -> Result<()> {
    match output.extension() {
        Some(ending) if ending == "jsonl" => Ok(()),
        _ => Err(Error::usage(format!("rows are written as JSON lines, not to `{}`", output.display()))
            .with_hint("end it in `.jsonl`")),
    }
}

/// A saved model on the CPU; a run's folder is taken for the model in it.
pub(super) fn load_model(path: &Path) -> Result<SentenceTransformer> {
    load(path, None)
}

/// A saved model for much work: on the GPU this program is built for, or, said to `reporter`, on the CPU where that
/// cannot be opened.
pub(super) fn load_encoder(path: &Path, reporter: &mut dyn Reporter) -> Result<SentenceTransformer> {
    let device = device_for_work(reporter);
    let model = load(path, Some(device))?;
    let new = model.new_layers();
    if !new.is_empty() {
        let names: Vec<String> = new.iter().map(|name| format!("`{name}`")).collect();
        reporter.line(&format!(
            "warning: `{}` has no weights for {}, which got random ones: what it gives means nothing before it is trained",
            path.display(),
            names.join(", ")
        ));
    }
    Ok(model)
}

fn device_for_work(reporter: &mut dyn Reporter) -> Device {
    device::first().unwrap_or_else(|e| {
        reporter.line(&format!("warning: {e}; the CPU computes instead"));
        Device::Cpu
    })
}

/// As [`load_encoder`], of a model that scores pairs.
pub(super) fn load_reranker(path: &Path, reporter: &mut dyn Reporter) -> Result<SentenceTransformer> {
    let model = load_encoder(path, reporter)?;
    if model.predictor().is_none() {
        return Err(Error::model(format!("`{}` is a {}, which does not score pairs", path.display(), model.kind()))
            .with_hint("give the folder of a CrossEncoder; a recipe with `model_type = \"CrossEncoder\"` trains one"));
    }
    Ok(model)
}

/// The embeddings of all texts that are not empty, with the model's prompt or route of that name, and which texts they
/// are of.
pub(super) fn encode_filled(
    path: &Path,
    texts: &[String],
    prompt_name: Option<&str>,
    reporter: &mut dyn Reporter,
) -> Result<(Vec<usize>, Embeddings)> {
    let model = load_encoder(path, reporter)?;
    let filled = || texts.iter().enumerate().filter(|(_, text)| !text.trim().is_empty());
    let all: Vec<&str> = filled().map(|(_, text)| text.as_str()).collect();
    let embeddings = model.encode(&all, &named_options(&model, None, prompt_name, ("--prompt", "encoding"))?)?;
    if embeddings.data().iter().any(|value| !value.is_finite()) {
        return Err(Error::model(format!("`{}` gives embeddings with values that are not finite", path.display()))
            .with_hint("the weights are damaged, or training has diverged"));
    }
    Ok((filled().map(|(number, _)| number).collect(), embeddings))
}

/// How to distil, from the arguments of a command.
pub(super) fn distillation(
    pca_dims: Value,
    sif_coefficient: f64,
    token_remove_pattern: &str,
    pooling: TeacherPooling,
) -> Result<Distillation> {
    let components = PcaDims(pca_dims).components().map_err(|text| {
        Error::usage(format!("`--pca-dims` {text}")).with_hint("256 is usual; `auto` keeps all components")
    })?;
    Ok(Distillation {
        components,
        sif_coefficient: Some(sif_coefficient).filter(|sif| *sif > 0.0),
        token_remove_pattern: Some(token_remove_pattern.to_owned()).filter(|pattern| !pattern.is_empty()),
        pooling: pooling.mode(),
    })
}

/// A static embedding out of the transformer in `path`, saved in `output`: its tokens and dimensions.
pub(super) fn distill(
    path: &Path,
    how: Distillation,
    output: &Path,
    reporter: &mut dyn Reporter,
) -> Result<(usize, usize)> {
    let options = ModelOptions { device: Some(device_for_work(reporter)), ..ModelOptions::default() };
    let source = StaticSource::Teacher(found_or_fetched(path)?, how);
    let model = SentenceTransformer::new_static_from(&source, &options, Rng::new(0))?;
    model.save(output)?;
    Ok((model.tokenizer().vocabulary(), model.dimension()))
}

/// The model in `path` with these layers of its network only, saved in `output`: its tokens, dimensions and layers.
pub(super) fn prune(path: &Path, keep: &[usize], output: &Path) -> Result<(usize, usize, usize)> {
    let options = ModelOptions { keep_layers: Some(keep.to_vec()), ..ModelOptions::default() };
    let model = SentenceTransformer::load_with(&found_or_fetched(path)?, &options)?;
    model.save(output)?;
    Ok((model.tokenizer().vocabulary(), model.dimension(), model.layers()))
}

fn load(path: &Path, device: Option<Device>) -> Result<SentenceTransformer> {
    SentenceTransformer::load_with(&found_or_fetched(path)?, &ModelOptions { device, ..ModelOptions::default() })
}

/// A type of model by its name, in any case.
pub(super) fn model_type(text: &str) -> std::result::Result<ModelType, String> {
    let found = TYPES.into_iter().find(|known| known.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| suggest::hint(text, TYPES.iter().map(|known| known.name())))
}

/// Where the small files of a base model lie: its folder, or that of an id in the Hub's cache; `None` for one that would
/// have to be downloaded.
///
/// # Errors
/// When it is neither a folder nor an id.
pub(super) fn base_folder(base: &str) -> Result<Option<PathBuf>> {
    let path = Path::new(base);
    if path.is_dir() {
        return found(path).map(Some);
    }
    if !hub::is_id(base) {
        return Err(Error::usage(format!("there is no model at `{base}`")).with_hint(
            "name the folder of a model, or an id on the Hub such as `sentence-transformers/all-MiniLM-L6-v2`",
        ));
    }
    Ok(hub::cached(base))
}

/// The tokenizer of a base model that is on this machine; a note says where it is not.
pub(super) fn base_tokenizer(base: &str, notes: &mut Vec<String>) -> Result<Option<TextTokenizer>> {
    match base_folder(base)? {
        Some(folder) => facts::tokenizer_of(&folder).map(Some),
        None => {
            notes.push(format!(
                "`{base}` is not on this machine, so token lengths are estimates; `tallow pull {base}` fetches it"
            ));
            Ok(None)
        }
    }
}

/// Publishes a model's folder; a run's is taken for the model in it.
pub(super) fn push(what: &hub::Push<'_>) -> Result<hub::Pushed> {
    hub::push(&hub::Push { folder: &found(what.folder)?, ..what.clone() })
}

/// A repository of the Hub as it is now, in the cache.
pub(super) fn pull(
    id: &str,
    kind: Option<hub::Kind>,
    revision: Option<&str>,
    reporter: &mut dyn Reporter,
) -> Result<hub::Pulled> {
    hub::pull(id, kind, revision, &mut |line| reporter.line(line))
}

/// The model in a checkpoint as a folder of its own, which shares its contents where the file system can.
pub(super) fn copy_model(checkpoint: &Path, to: &Path) -> Result<()> {
    train::copy_model(checkpoint, to)
}

/// Refuses to begin a run that could not publish its model.
pub(super) fn check_push(plan: &Plan) -> Result<()> {
    if plan.hub.push_to_hub {
        hub::check_push(&plan.hub.hub_model_id).map_err(|e| e.within("`hub.push_to_hub`"))?;
    }
    Ok(())
}

/// What stands for a model in a cache: it changes with any of its files.
pub(super) fn model_key(path: &Path) -> Result<String> {
    files::fingerprint(&found_or_fetched(path)?)
}

/// As [`found`]; an id that is no path here is fetched from the Hub, or from its cache.
fn found_or_fetched(path: &Path) -> Result<PathBuf> {
    let id = path.to_str().filter(|text| !path.exists() && text.contains('/') && hub::is_id(text));
    id.map_or_else(|| found(path), |id| hub::fetch(id, None))
}

/// The folder of a model: a run's is taken for the model in it.
fn found(path: &Path) -> Result<PathBuf> {
    if !path.exists() {
        return Err(Error::usage(format!("there is no model at `{}`", path.display())).with_hint(
            "name the folder of a saved model, such as `runs/<run_id>/model`, or an id on the Hub (`owner/name`)",
        ));
    }
    Ok(model_inside(path).unwrap_or_else(|| path.to_path_buf()))
}

fn model_inside(path: &Path) -> Option<PathBuf> {
    let inside = path.join("model");
    (path.join("status.json").is_file() && inside.is_dir()).then_some(inside)
}
