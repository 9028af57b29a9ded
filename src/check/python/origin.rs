//! Where rows come from: the call that loads them and what is taken of them, written in one way so that two can be compared.

use std::collections::HashMap;

use tree_sitter::Node;

use super::script::Run;
use super::values::Place;
use super::walk::{children, last_name};

/// Steps at most.
const DEEPEST: usize = 32;
/// Origins by the names of parameters.
type Given<'s> = HashMap<&'s str, String>;
/// Methods that take some of the rows.
const TAKES: [&str; 6] = ["select", "filter", "skip", "take", "shard", "train_test_split"];

impl<'s> Run<'s> {
    /// The origin of a data set.
    pub(crate) fn origin(&self, place: Place<'s>) -> String {
        self.origin_within(place, &HashMap::new(), DEEPEST)
    }

    /// `given` are the origins of the parameters of the function that is looked into.
    fn origin_within(&self, place: Place<'s>, given: &Given<'s>, depth: usize) -> String {
        let Some(depth) = depth.checked_sub(1) else { return String::new() };
        let node = place.node;
        match node.kind() {
            "identifier" => self.named(place, given, depth),
            "parenthesized_expression" => node
                .named_child(0)
                .map_or_else(String::new, |inner| self.origin_within(place.with(inner), given, depth)),
            "conditional_expression" => match children(node).as_slice() {
                // of a choice by a smoke test the side of the whole run
                [yes, condition, no] => {
                    let whole = if self.by_smoke(*condition) && condition.kind() != "not_operator" { no } else { yes };
                    self.origin_within(place.with(*whole), given, depth)
                }
                _ => String::new(),
            },
            "subscript" => {
                let value = node.child_by_field_name("value");
                let value = value.map(|value| self.origin_within(place.with(value), given, depth));
                let key = node.child_by_field_name("subscript").map(|key| self.words(place.with(key)));
                format!("{}[{}]", value.unwrap_or_default(), key.unwrap_or_default())
            }
            "call" => self.loaded(place, given, depth),
            _ => self.text(node).to_owned(),
        }
    }

    /// What a name stands for; what a smoke test leaves of it is not looked at.
    fn named(&self, place: Place<'s>, given: &Given<'s>, depth: usize) -> String {
        let name = self.text(place.node);
        if let Some(origin) = given.get(name) {
            return origin.clone();
        }
        let all = self.walk.bindings.get(name).map(Vec::as_slice).unwrap_or_default();
        let smoke =
            |arm: Option<usize>| arm.and_then(|arm| self.walk.arms.get(arm)).is_some_and(|arm| self.is_smoke(arm));
        let own = |scope| all.iter().rfind(move |b| b.scope == scope && b.at < place.at && !smoke(b.arm));
        match own(place.scope).or_else(|| own(0)) {
            Some(b) => {
                let whole = self.origin_within(Place { node: b.value, scope: b.value_scope, at: b.at }, given, depth);
                if b.part { format!("{whole}#{name}") } else { whole }
            }
            None => name.to_owned(),
        }
    }

    fn loaded(&self, place: Place<'s>, given: &Given<'s>, depth: usize) -> String {
        let Some(callee) = place.node.child_by_field_name("function") else { return String::new() };
        let name = last_name(self.text(callee));
        let arguments = place.node.child_by_field_name("arguments").map(children).unwrap_or_default();
        let written = || -> String {
            let parts = arguments.iter().map(|argument| self.argument_text(place, *argument));
            parts.collect::<Vec<_>>().join(",")
        };
        if let Some(function) = self.walk.functions.get(self.text(callee))
            && let Some(returned) = self.walk.returns.get(&function.scope).and_then(|all| all.last())
        {
            let parameters = function.node.child_by_field_name("parameters").map(children).unwrap_or_default();
            let positional = arguments.iter().filter(|argument| argument.kind() != "keyword_argument");
            let inner = parameters.iter().zip(positional).map(|(parameter, argument)| {
                let name = parameter.child_by_field_name("name").unwrap_or(*parameter);
                (self.text(name), self.origin_within(place.with(*argument), given, depth))
            });
            let inner: Given<'s> = inner.collect();
            let returned = Place { node: *returned, scope: function.scope, at: usize::MAX };
            return self.origin_within(returned, &inner, depth);
        }
        let object = callee.child_by_field_name("object");
        match object {
            Some(object) if !self.text(object).chars().next().is_some_and(char::is_uppercase) => {
                let rows = self.origin_within(place.with(object), given, depth);
                if TAKES.contains(&name) { format!("{rows}.{name}({})", written()) } else { rows }
            }
            _ => format!("{name}({})", written()),
        }
    }

    fn argument_text(&self, place: Place<'s>, argument: Node<'s>) -> String {
        let value = argument.child_by_field_name("value").filter(|_| argument.kind() == "keyword_argument");
        let words = self.words(place.with(value.unwrap_or(argument)));
        let words = if words.contains('…') { self.text(value.unwrap_or(argument)).to_owned() } else { words };
        match argument.child_by_field_name("name").filter(|_| value.is_some()) {
            Some(name) => format!("{}={words}", self.text(name)),
            None => words,
        }
    }
}
