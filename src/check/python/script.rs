//! A script as rules ask about it: its calls, its trainer and arguments, and what ran before what.

use std::collections::HashSet;
use std::path::Path;

use tree_sitter::{Node, Parser, Tree};

use super::text::HOLE;
use super::values::Place;
use super::walk::{Arm, Binding, Event, Walk, children, last_name};
use crate::error::{Error, Result};
use crate::flow::ModelType;

/// A call or assignment that runs, and its number in the order of running.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'t> {
    pub(crate) order: usize,
    pub(crate) place: Place<'t>,
}

impl Seen<'_> {
    /// From 1.
    pub(crate) fn line(self) -> usize {
        self.place.line()
    }
}

/// A parsed script.
pub struct Script {
    text: String,
    tree: Tree,
    smoke: Option<SmokeSwitch>,
}

/// How a smoke test is asked for.
#[derive(Debug, Clone)]
struct SmokeSwitch {
    /// The line it is read on.
    line: usize,
    /// The names and attributes that hold it.
    names: Vec<String>,
}

impl Script {
    /// Parses the text of the script `path`.
    ///
    /// # Errors
    /// When it is not Python, with the line.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut parser = Parser::new();
        parser
            .set_language(&tree_sitter_python::LANGUAGE.into())
            .map_err(|e| Error::Internal(format!("the grammar of Python: {e}")))?;
        let tree = parser.parse(text, None).ok_or_else(|| Error::Internal("Python was not parsed".to_owned()))?;
        if let Some(wrong) = first_error(tree.root_node()).or_else(|| misplaced(tree.root_node())) {
            return Err(Error::data(format!(
                "`{}` line {}: not Python",
                path.display(),
                wrong.start_position().row + 1
            ))
            .with_hint("`python -m py_compile` says what is wrong there"));
        }
        let mut script = Self { text: text.to_owned(), tree, smoke: None };
        script.smoke = script.find_switch();
        Ok(script)
    }

    /// The walk is made anew for each question: it borrows the script, and takes a millisecond.
    pub(crate) fn walk(&self) -> Run<'_> {
        Run { script: self, walk: Walk::of(&self.text, self.tree.root_node()) }
    }

    /// The kind of model it trains, by its trainer.
    #[must_use]
    pub fn model_type(&self) -> Option<ModelType> {
        let run = self.walk();
        let trainer = run.trains().first().and_then(|train| run.trainer(*train));
        let class = match trainer {
            Some((class, _)) => class,
            None => run.calls().find_map(|seen| run.class(seen).filter(|name| name.ends_with("Trainer")))?,
        };
        match class {
            "SentenceTransformerTrainer" => Some(ModelType::SentenceTransformer),
            "CrossEncoderTrainer" => Some(ModelType::CrossEncoder),
            "SparseEncoderTrainer" => Some(ModelType::SparseEncoder),
            "MultiVectorEncoderTrainer" => Some(ModelType::MultiVectorEncoder),
            _ => None,
        }
    }

    fn find_switch(&self) -> Option<SmokeSwitch> {
        let run = self.walk();
        let smoke = |text: &str| text.to_lowercase().contains("smoke");
        let read = run.calls().find_map(|seen| {
            let name = run.name(seen);
            let environment = matches!(name, "get" | "getenv") && run.callee(seen).contains("env");
            let flag = name == "add_argument";
            let first = run.argument(seen, "", Some(0)).and_then(|place| run.string(place))?;
            ((environment || flag) && smoke(&first)).then(|| (seen.line(), flag, first))
        });
        let (line, flag, first) = match read {
            Some(read) => read,
            None => (run.environment_subscript()?, false, String::new()),
        };
        let mut names: Vec<String> = Vec::new();
        if flag {
            names.push(first.trim_start_matches('-').replace('-', "_"));
        }
        // names whose value goes by the switch
        loop {
            let before = names.len();
            for (name, bindings) in &run.walk.bindings {
                let read = |b: &Binding<'_>| !flag && b.value.start_position().row + 1 == line;
                let own = bindings.iter().any(|b| read(b) || plain(b.value) && run.mentions(b.value, &names));
                if own && !names.iter().any(|known| known == name) {
                    names.push((*name).to_owned());
                }
            }
            if names.len() == before {
                break;
            }
        }
        Some(SmokeSwitch { line, names })
    }
}

/// Only plain values spread the switch: a data set or a model that was made with a number which depends on it does not.
fn plain(value: Node<'_>) -> bool {
    matches!(
        value.kind(),
        "comparison_operator"
            | "boolean_operator"
            | "not_operator"
            | "conditional_expression"
            | "identifier"
            | "attribute"
            | "parenthesized_expression"
    )
}

/// A script and what its walk saw.
pub(crate) struct Run<'s> {
    script: &'s Script,
    pub(super) walk: Walk<'s>,
}

impl<'s> Run<'s> {
    /// All calls that run, in order.
    pub(crate) fn calls(&self) -> impl Iterator<Item = Seen<'s>> + '_ {
        self.seen("call")
    }

    /// All assignments to attributes and items.
    pub(crate) fn settings(&self) -> impl Iterator<Item = Seen<'s>> + '_ {
        self.seen("assignment")
    }

    fn seen(&self, kind: &'static str) -> impl Iterator<Item = Seen<'s>> + '_ {
        let events = self.walk.events.iter().enumerate();
        events
            .filter(move |(_, event)| event.node.kind() == kind)
            .map(|(order, event)| Seen { order, place: Place::of(event) })
    }

    fn event(&self, seen: Seen<'s>) -> Option<&Event<'s>> {
        self.walk.events.get(seen.order)
    }

    /// The source of an expression.
    pub(crate) fn text(&self, node: Node<'s>) -> &'s str {
        self.walk.text(node)
    }

    /// What is called, as written.
    pub(crate) fn callee(&self, seen: Seen<'s>) -> &'s str {
        seen.place.node.child_by_field_name("function").map(|f| self.walk.text(f)).unwrap_or_default()
    }

    /// The last name of what is called, as it is called where it comes from.
    pub(crate) fn name(&self, seen: Seen<'s>) -> &'s str {
        let name = last_name(self.callee(seen));
        self.walk.aliases.get(name).copied().unwrap_or(name)
    }

    /// The class a call makes an object of; of a class of the file the library's that it is made from.
    pub(crate) fn class(&self, seen: Seen<'s>) -> Option<&'s str> {
        let name = self.walk.family(self.name(seen));
        name.chars().next().filter(char::is_ascii_uppercase).map(|_| name)
    }

    /// What a call of a method is on.
    pub(crate) fn object(&self, seen: Seen<'s>) -> Option<Place<'s>> {
        let callee = seen.place.node.child_by_field_name("function")?;
        callee.child_by_field_name("object").map(|object| seen.place.with(object))
    }

    pub(crate) fn argument(&self, seen: Seen<'s>, name: &str, position: Option<usize>) -> Option<Place<'s>> {
        self.walk.argument(seen.place, name, position)
    }

    pub(crate) fn argument_of(&self, call: Place<'s>, name: &str, position: Option<usize>) -> Option<Place<'s>> {
        self.walk.argument(call, name, position)
    }

    pub(crate) fn made(&self, place: Place<'s>) -> Option<(&'s str, Place<'s>)> {
        self.walk.made(place)
    }

    pub(crate) fn resolve(&self, place: Place<'s>) -> Place<'s> {
        self.walk.resolve(place)
    }

    pub(crate) fn possible(&self, place: Place<'s>) -> Vec<Place<'s>> {
        self.walk.possible(place)
    }

    pub(crate) fn number(&self, place: Place<'s>) -> Option<f64> {
        self.walk.number(place)
    }

    pub(crate) fn boolean(&self, place: Place<'s>) -> Option<bool> {
        self.walk.boolean(place)
    }

    pub(crate) fn string(&self, place: Place<'s>) -> Option<String> {
        self.walk.string(place)
    }

    /// What is chosen, in small letters: a text, or the last part of a name (`BatchSamplers.NO_DUPLICATES`).
    pub(crate) fn word(&self, place: Place<'s>) -> String {
        let text = self.string(place).unwrap_or_else(|| self.text(self.resolve(place).node).to_owned());
        text.rsplit('.').next().unwrap_or_default().to_lowercase()
    }

    /// A text with `…` for what is not known.
    pub(crate) fn words(&self, place: Place<'s>) -> String {
        self.walk.words(place).replace(HOLE, "…")
    }

    /// The items of a list, tuple or dictionary that is written out; one item otherwise.
    pub(crate) fn items(&self, place: Place<'s>) -> Vec<Place<'s>> {
        let place = self.walk.resolve(place);
        match place.node.kind() {
            "list" | "tuple" | "set" | "expression_list" => {
                children(place.node).into_iter().map(|node| place.with(node)).collect()
            }
            "dictionary" => {
                let values = children(place.node).into_iter().filter_map(|pair| pair.child_by_field_name("value"));
                values.map(|node| place.with(node)).collect()
            }
            "none" => Vec::new(),
            _ => vec![place],
        }
    }

    /// The items a loop's variable goes through.
    pub(crate) fn looped(&self, place: Place<'s>) -> Vec<Place<'s>> {
        if place.node.kind() != "identifier" {
            return vec![place];
        }
        match self.walk.binding(self.text(place.node), place) {
            Some(b) if b.part => self.items(Place { node: b.value, scope: b.value_scope, at: b.at }),
            _ => vec![place],
        }
    }

    /// The line of the condition that keeps `seen` from running wherever `other` runs; conditions on a smoke test aside.
    pub(crate) fn conditional(&self, seen: Seen<'s>, other: Seen<'s>) -> Option<usize> {
        let (own, others) = (self.event(seen)?, self.event(other)?);
        let only = own.arms.iter().filter(|arm| !others.arms.contains(arm));
        let arms = only.filter_map(|arm| self.walk.arms.get(*arm)).filter(|arm| !self.is_smoke(arm));
        arms.map(|arm| arm.condition.map_or(seen.line(), |node| node.start_position().row + 1)).next()
    }

    /// Whether a call stands in an arm that a smoke test decides.
    pub(crate) fn under_smoke(&self, seen: Seen<'s>) -> bool {
        let arms = self.event(seen).map(|event| event.arms.as_slice()).unwrap_or_default();
        arms.iter().filter_map(|arm| self.walk.arms.get(*arm)).any(|arm| self.is_smoke(arm))
    }

    /// Whether a smoke test decides an arm.
    pub(super) fn is_smoke(&self, arm: &Arm<'s>) -> bool {
        arm.condition.is_some_and(|condition| self.by_smoke(condition))
    }

    /// The line on which a smoke test is asked for.
    pub(crate) fn smoke_switch(&self) -> Option<usize> {
        self.script.smoke.as_ref().map(|switch| switch.line)
    }

    /// Whether an expression goes by the smoke test's switch.
    pub(crate) fn by_smoke(&self, node: Node<'s>) -> bool {
        self.script.smoke.as_ref().is_some_and(|switch| self.mentions(node, &switch.names))
    }

    /// Whether one of `names` stands in an expression.
    pub(super) fn mentions(&self, node: Node<'s>, names: &[String]) -> bool {
        let own = matches!(node.kind(), "identifier") && names.iter().any(|name| name == self.text(node));
        own || children(node).into_iter().any(|child| self.mentions(child, names))
    }

    /// `os.environ["SMOKE_TEST"]`, which is no call.
    fn environment_subscript(&self) -> Option<usize> {
        let mut all: Vec<Node<'s>> = self.walk.bindings.values().flatten().map(|b| b.value).collect();
        all.extend(self.walk.arms.iter().filter_map(|arm| arm.condition));
        all.into_iter().find_map(|node| self.reads_environment(node)).map(|node| node.start_position().row + 1)
    }

    fn reads_environment(&self, node: Node<'s>) -> Option<Node<'s>> {
        let text = self.text(node);
        let own = matches!(node.kind(), "subscript" | "comparison_operator")
            && text.contains("environ")
            && text.to_lowercase().contains("smoke");
        if own { Some(node) } else { children(node).into_iter().find_map(|child| self.reads_environment(child)) }
    }

    /// The `try` statements around a call, innermost last.
    pub(crate) fn tries(&self, seen: Seen<'s>) -> Vec<Node<'s>> {
        self.event(seen).map(|event| event.tries.clone()).unwrap_or_default()
    }

    /// The source of a node that a question gave.
    pub(crate) fn source(&self, node: Node<'_>) -> &'s str {
        self.script.text.get(node.byte_range()).unwrap_or_default()
    }

    /// A key of a dictionary.
    pub(crate) fn entry(&self, place: Place<'s>, key: &str) -> Option<Place<'s>> {
        self.walk.entry(place, key, 8)
    }

    /// The call of `name` that gives an object.
    pub(crate) fn made_by(&self, place: Place<'s>, name: &str) -> Option<(&'s str, Place<'s>)> {
        self.made(place).filter(|(own, _)| *own == name)
    }

    /// Whether what a call gives is used: assigned, returned, compared, an argument.
    pub(crate) fn kept(&self, seen: Seen<'s>) -> bool {
        seen.place.node.parent().is_some_and(|parent| parent.kind() != "expression_statement")
    }

    /// Whether a call ran before a place.
    pub(crate) fn ran_before(&self, seen: Seen<'s>, place: Place<'s>) -> bool {
        let (own, other) = (seen.place, place);
        if own.scope == other.scope && other.at != usize::MAX {
            return own.node.start_byte() < other.node.start_byte();
        }
        own.at <= other.at
    }

    /// Whether rows are cut by a smoke test with a slice: `rows[:50]`.
    pub(crate) fn sliced_by_smoke(&self) -> bool {
        let values = self.walk.bindings.values().flatten();
        values.into_iter().any(|b| {
            let arm = b.arm.and_then(|arm| self.walk.arms.get(arm)).is_some_and(|arm| self.is_smoke(arm));
            slices(b.value) && (arm || self.by_smoke(b.value))
        })
    }

    /// The data sets that a call's arguments read: names and items of names in them.
    pub(crate) fn reads(&self, seen: Seen<'s>) -> Vec<Place<'s>> {
        let mut found = Vec::new();
        let mut open: Vec<Place<'s>> =
            seen.place.node.child_by_field_name("arguments").map(|node| seen.place.with(node)).into_iter().collect();
        while let Some(place) = open.pop() {
            match place.node.kind() {
                "identifier" => {
                    let name = self.text(place.node);
                    // lists of texts are made of data sets, a step before
                    match self.walk.binding(name, place).filter(|b| !b.part && b.value.kind() != "call") {
                        Some(b) if found.len() < 1000 => {
                            found.push(place);
                            open.push(Place { node: b.value, scope: b.value_scope, at: b.at });
                        }
                        _ => found.push(place),
                    }
                }
                "subscript" => {
                    found.push(place);
                    open.extend(place.node.child_by_field_name("value").map(|node| place.with(node)));
                }
                "keyword_argument" => open.extend(place.node.child_by_field_name("value").map(|node| place.with(node))),
                "call" => {
                    // a function of the file that makes evaluation data of rows
                    found.push(place);
                    open.extend(place.node.child_by_field_name("arguments").map(|node| place.with(node)));
                }
                _ => open.extend(children(place.node).into_iter().map(|node| place.with(node))),
            }
        }
        found
    }

    /// All parts of an expression, itself first, names followed.
    pub(crate) fn parts(&self, place: Place<'s>) -> Vec<Place<'s>> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        self.collect(place, &mut found, &mut seen, 24);
        found
    }

    /// Every expression once, however many names lead to it.
    fn collect(&self, place: Place<'s>, found: &mut Vec<Place<'s>>, seen: &mut HashSet<usize>, depth: usize) {
        if depth == 0 {
            return;
        }
        if place.node.kind() == "identifier" {
            found.push(place);
            if let Some(b) = self.walk.binding(self.text(place.node), place) {
                self.collect(Place { node: b.value, scope: b.value_scope, at: b.at }, found, seen, depth - 1);
            }
            return;
        }
        if !seen.insert(place.node.id()) {
            return;
        }
        found.push(place);
        if let Some(name) = place.node.child_by_field_name("function").filter(|_| place.node.kind() == "call")
            && let Some(function) = self.walk.functions.get(self.text(name))
        {
            for node in self.walk.returns.get(&function.scope).into_iter().flatten() {
                let returned = Place { node: *node, scope: function.scope, at: usize::MAX };
                self.collect(returned, found, seen, depth - 1);
            }
        }
        for child in children(place.node) {
            self.collect(place.with(child), found, seen, depth);
        }
    }
}

/// Whether an expression takes a slice of something.
fn slices(node: Node<'_>) -> bool {
    node.kind() == "slice" || children(node).into_iter().any(slices)
}

/// The first statement that stands further in or out than the others of its block, which the grammar lets pass.
fn misplaced(node: Node<'_>) -> Option<Node<'_>> {
    let statements = children(node);
    if matches!(node.kind(), "module" | "block") {
        let mut first = None;
        let mut row = None;
        for statement in &statements {
            let place = statement.start_position();
            // several on one line are not indented by themselves
            if row != Some(place.row) && place.column != *first.get_or_insert(place.column) {
                return Some(*statement);
            }
            row = Some(statement.end_position().row);
        }
        if node.kind() == "module" && first.is_some_and(|column| column > 0) {
            return statements.first().copied();
        }
    }
    statements.into_iter().find_map(misplaced)
}

/// The first place that is not Python.
fn first_error(node: Node<'_>) -> Option<Node<'_>> {
    if !node.has_error() {
        return None;
    }
    if node.is_error() || node.is_missing() {
        return Some(node);
    }
    let mut cursor = node.walk();
    let found = node.children(&mut cursor).find_map(first_error);
    found.or(Some(node))
}
