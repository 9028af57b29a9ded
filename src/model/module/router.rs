//! Several ways through a model: queries go one, documents another.
//!
//! The way is chosen by the task of a text (`query`, `document`), in the reference's order: by `route_mappings`, then
//! the route of the task's name, then `default_route`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Config, Features, Module, Source, chain_width, write_json};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::tokenizer::TextTokenizer;
use crate::ops::{Context, Param};
use crate::util::files;

const CONFIG: &str = "router_config.json";

/// A module, and the folder it is saved in.
struct Routed {
    id: String,
    module: Box<dyn Module>,
}

/// The ways, and which text goes which.
pub struct Router {
    modules: Vec<Routed>,
    /// Name and numbers of modules.
    routes: Vec<(String, Vec<usize>)>,
    default_route: Option<String>,
    allow_empty_key: bool,
    /// As they stand in the file: `"('query', 'text')"` to a route.
    mappings: Map<String, Value>,
    width: usize,
}

/// A task or modality in the key of `route_mappings`.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Any,
    Name(String),
    /// Several modalities: never those of a text.
    Other,
}

/// The two parts of a Python tuple such as `('query', None)`.
fn parse(key: &str) -> Option<(Wanted, Wanted)> {
    let inner = key.trim().strip_prefix('(')?.strip_suffix(')')?;
    let (task, modality) = inner.split_once(',')?;
    let part = |text: &str| {
        let text = text.trim();
        let quoted = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
        match quoted('\'').or_else(|| quoted('"')) {
            Some(name) => Wanted::Name(name.to_owned()),
            None if text == "None" => Wanted::Any,
            None => Wanted::Other,
        }
    };
    Some((part(task), part(modality)))
}

impl Router {
    /// Reads the folder's router_config.json (config.json of older versions) and every module below it.
    ///
    /// # Errors
    /// When a file or key is missing, or the routes do not fit together.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let name = if source.directory.join(CONFIG).exists() { CONFIG } else { "config.json" };
        let config = Config::read(source.directory, name)?;
        let table = |key: &str| {
            config.get(&[key]).and_then(Value::as_object).ok_or_else(|| config.bad(format!("`{key}` is not a table")))
        };
        let types = table("types")?;
        let mut router = Self {
            modules: Vec::new(),
            routes: Vec::new(),
            default_route: None,
            allow_empty_key: true,
            mappings: Map::new(),
            width: 0,
        };
        for (route, ids) in table("structure")? {
            let ids: Vec<String> = serde_json::from_value(ids.clone())
                .map_err(|_| config.bad(format!("`structure.{route}` is not a list of modules")))?;
            let mut numbers = Vec::with_capacity(ids.len());
            for (i, id) in ids.into_iter().enumerate() {
                if let Some(known) = router.modules.iter().position(|routed| routed.id == id) {
                    numbers.push(known);
                    continue;
                }
                let kind = types.get(&id).and_then(Value::as_str);
                let kind = kind.ok_or_else(|| config.bad(format!("`types` has no `{id}`")))?;
                if Path::new(&id).components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
                    return Err(config.bad(format!("`{id}` is not the name of a folder")));
                }
                let folder = source.directory.join(&id);
                let prefix = format!("{}sub_modules.{route}.{i}.", source.prefix);
                let module = super::load(kind, &Source { directory: &folder, prefix: &prefix, ..*source })
                    .map_err(|e| e.within(format!("route `{route}`")))?;
                numbers.push(router.modules.len());
                router.modules.push(Routed { id, module });
            }
            router.routes.push((route.clone(), numbers));
        }
        let parameters = config.get(&["parameters"]).cloned().unwrap_or(Value::Null);
        router.allow_empty_key = parameters.get("allow_empty_key").and_then(Value::as_bool).unwrap_or(true);
        router.default_route = parameters.get("default_route").and_then(Value::as_str).map(str::to_owned);
        if router.default_route.is_none() && router.allow_empty_key {
            router.default_route = router.routes.first().map(|(name, _)| name.clone());
        }
        router.mappings = parameters.get("route_mappings").and_then(Value::as_object).cloned().unwrap_or_default();
        router.check().map_err(|e| e.within(format!("`{}`", source.directory.join(name).display())))?;
        router.width = router.widths()?.first().copied().unwrap_or(0);
        Ok(router)
    }

    /// One way for queries and one for documents, the latter for texts of no known task.
    ///
    /// # Errors
    /// When a way has no modules, or they do not fit together.
    pub fn for_query_document(query: Vec<Box<dyn Module>>, document: Vec<Box<dyn Module>>) -> Result<Self> {
        let mut router = Self {
            modules: Vec::new(),
            routes: Vec::new(),
            default_route: Some("document".to_owned()),
            allow_empty_key: true,
            mappings: Map::new(),
            width: 0,
        };
        for (route, modules) in [("query", query), ("document", document)] {
            let first = router.modules.len();
            for (i, module) in modules.into_iter().enumerate() {
                router.modules.push(Routed { id: format!("{route}_{i}_{}", module.name()), module });
            }
            router.routes.push((route.to_owned(), (first..router.modules.len()).collect()));
        }
        router.check()?;
        router.width = router.widths()?.first().copied().unwrap_or(0);
        Ok(router)
    }

    /// Every route that is named is there, and has modules.
    fn check(&self) -> Result<()> {
        let names: Vec<&str> = self.routes.iter().map(|(name, _)| name.as_str()).collect();
        let hint = format!("the routes are {}", names.join(", "));
        let mapped = self.mappings.values().filter_map(Value::as_str);
        for route in mapped.chain(self.default_route.as_deref()) {
            if !names.contains(&route) {
                return Err(Error::model(format!("there is no route `{route}`")).with_hint(hint));
            }
        }
        match self.routes.iter().find(|(_, modules)| modules.is_empty()) {
            Some((route, _)) => Err(Error::model(format!("route `{route}` has no modules"))),
            None if names.is_empty() => Err(Error::model("there are no routes")),
            None => Ok(()),
        }
    }

    fn widths(&self) -> Result<Vec<usize>> {
        let widths = self
            .routes
            .iter()
            .map(|(name, _)| chain_width(self.along(name)).map_err(|e| e.within(format!("route `{name}`"))))
            .collect::<Result<Vec<_>>>()?;
        if widths.windows(2).any(|w| w[0] != w[1]) {
            return Err(Error::model(format!("the routes give embeddings of different widths: {widths:?}"))
                .with_hint("embeddings of queries and documents are compared, so both need one width"));
        }
        Ok(widths)
    }

    fn along(&self, route: &str) -> impl Iterator<Item = &dyn Module> {
        let numbers = self.routes.iter().find(|(name, _)| name == route).map(|(_, numbers)| numbers.as_slice());
        numbers.unwrap_or_default().iter().filter_map(|i| self.modules.get(*i)).map(|routed| routed.module.as_ref())
    }

    /// The route of a text.
    ///
    /// # Errors
    /// When no route is for `task`.
    pub fn route(&self, task: Option<&str>) -> Result<&str> {
        let mapped = |wanted: &dyn Fn(&Wanted, &Wanted) -> bool| {
            self.mappings.iter().find_map(|(key, route)| {
                let (task, modality) = parse(key)?;
                route.as_str().filter(|_| wanted(&task, &modality))
            })
        };
        let task_is = |wanted: &Wanted| match (wanted, task) {
            (Wanted::Name(name), Some(task)) => name == task,
            (Wanted::Any, None) => true,
            _ => false,
        };
        let text = Wanted::Name("text".to_owned());
        let named = |name: &str| self.routes.iter().map(|(route, _)| route.as_str()).find(|route| *route == name);
        let found = mapped(&|t, m| task_is(t) && *m == text)
            .or_else(|| mapped(&|t, m| task_is(t) && *m == Wanted::Any))
            .or_else(|| mapped(&|t, m| *t == Wanted::Any && *m == text))
            .or_else(|| mapped(&|t, m| *t == Wanted::Any && *m == Wanted::Any))
            .or_else(|| task.and_then(named))
            .or_else(|| named("text"));
        let names = || self.routes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        match (found, task, self.default_route.as_deref()) {
            (Some(route), _, _) | (None, None, Some(route)) => Ok(route),
            (None, Some(task), _) => Err(Error::usage(format!("the model's Router has no route for `{task}`"))
                .with_hint(format!("its routes are {}", names()))),
            (None, None, None) => Err(Error::usage("the model's Router has no default route")
                .with_hint(format!("say which texts these are (query or document); its routes are {}", names()))),
        }
    }
}

impl Module for Router {
    fn name(&self) -> &'static str {
        "Router"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let route = self.route(features.task.as_deref())?;
        for module in self.along(route) {
            features = module.forward(features, context)?;
        }
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        let own = |routed: &Routed| {
            let id = routed.id.clone();
            routed.module.params().into_iter().map(move |(name, param)| (format!("{id}.{name}"), param))
        };
        self.modules.iter().flat_map(own).collect()
    }

    fn rows(&self, batch: &PackedBatch, task: Option<&str>) -> Vec<(Arc<Param>, Vec<u32>)> {
        let Ok(route) = self.route(task) else { return Vec::new() };
        self.along(route).flat_map(|module| module.rows(batch, task)).collect()
    }

    fn activation_floats(&self) -> usize {
        let of = |name: &str| self.along(name).map(Module::activation_floats).sum::<usize>();
        self.routes.iter().map(|(name, _)| of(name)).max().unwrap_or(0)
    }

    fn output_dimension(&self, _: usize) -> usize {
        self.width
    }

    fn new_layers(&self) -> Vec<String> {
        self.modules.iter().flat_map(|routed| routed.module.new_layers()).collect()
    }

    fn tokenizer(&self, task: Option<&str>) -> Result<Option<&Arc<TextTokenizer>>> {
        match self.along(self.route(task)?).next() {
            Some(first) => first.tokenizer(task),
            None => Ok(None),
        }
    }

    fn tasks(&self) -> Vec<String> {
        let mut tasks: Vec<String> = self.routes.iter().map(|(name, _)| name.clone()).collect();
        for (task, _) in self.mappings.keys().filter_map(|key| parse(key)) {
            if let Wanted::Name(task) = task
                && !tasks.contains(&task)
            {
                tasks.push(task);
            }
        }
        tasks.retain(|task| self.route(Some(task)).is_ok());
        tasks
    }

    fn drop_normalize(&mut self) {
        let kept: Vec<bool> = self.modules.iter().map(|routed| routed.module.name() != "Normalize").collect();
        let before = |number: usize| kept[..number].iter().filter(|kept| **kept).count();
        for (_, numbers) in &mut self.routes {
            numbers.retain(|number| kept[*number]);
            numbers.iter_mut().for_each(|number| *number = before(*number));
        }
        let mut keeps = kept.iter();
        self.modules.retain(|_| keeps.next() == Some(&true));
        self.modules.iter_mut().for_each(|routed| routed.module.drop_normalize());
    }

    fn network(&self, task: Option<&str>) -> bool {
        // without a route of that name texts take the default one
        let route = self.route(task).or_else(|_| self.route(None));
        route.is_ok_and(|route| self.along(route).any(|module| module.network(task)))
    }

    fn looks_up(&self) -> bool {
        self.modules.iter().any(|routed| routed.module.looks_up())
    }

    fn encoder_shape(&self) -> Option<(usize, usize)> {
        self.modules.iter().filter_map(|routed| routed.module.encoder_shape()).max()
    }

    fn saves_in_root(&self) -> bool {
        true
    }

    fn save(&self, directory: &Path) -> Result<()> {
        let mut types = Map::new();
        for routed in &self.modules {
            let folder = directory.join(&routed.id);
            files::create_dir(&folder)?;
            routed.module.save(&folder)?;
            types.insert(routed.id.clone(), routed.module.class_path().into());
        }
        let ids = |numbers: &[usize]| -> Vec<&str> {
            numbers.iter().filter_map(|i| self.modules.get(*i)).map(|routed| routed.id.as_str()).collect()
        };
        let structure: Map<String, Value> =
            self.routes.iter().map(|(name, numbers)| (name.clone(), json!(ids(numbers)))).collect();
        let parameters = json!({
            "default_route": self.default_route,
            "allow_empty_key": self.allow_empty_key,
            "route_mappings": self.mappings,
        });
        let config = json!({"types": types, "structure": structure, "parameters": parameters});
        write_json(&directory.join(CONFIG), &config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_mappings_are_python_tuples() {
        let name = |text: &str| Wanted::Name(text.to_owned());
        assert_eq!(parse("('query', None)"), Some((name("query"), Wanted::Any)));
        assert_eq!(parse("(None, 'text')"), Some((Wanted::Any, name("text"))));
        assert_eq!(parse("(None, ('image', 'text'))"), Some((Wanted::Any, Wanted::Other)));
        assert_eq!(parse("query"), None);
    }
}
