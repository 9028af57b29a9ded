//! What a name or an expression comes to, as far as it can be followed.

use tree_sitter::Node;

use super::walk::{Binding, Event, Scope, Walk, children, last_name};

/// Steps from name to name at most.
const DEEPEST: usize = 24;

/// An expression, and where its names are looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'t> {
    pub(crate) node: Node<'t>,
    pub(super) scope: Scope,
    pub(super) at: usize,
}

impl<'t> Place<'t> {
    pub(super) fn of(event: &Event<'t>) -> Self {
        Self { node: event.node, scope: event.scope, at: event.at }
    }

    /// Another expression at the same place.
    pub(crate) fn with(self, node: Node<'t>) -> Self {
        Self { node, ..self }
    }

    /// From 1.
    pub(crate) fn line(self) -> usize {
        self.node.start_position().row + 1
    }
}

impl<'t> Walk<'t> {
    /// What a name was bound to last.
    pub(super) fn binding(&self, name: &str, place: Place<'t>) -> Option<Binding<'t>> {
        let all = self.bindings.get(name)?;
        let last = |scope: Scope| {
            let own = || all.iter().filter(move |b| b.scope == scope);
            own().rfind(|b| b.at < place.at).or_else(|| own().next())
        };
        last(place.scope).or_else(|| last(0)).copied()
    }

    /// What an expression is once names are followed.
    pub(super) fn resolve(&self, place: Place<'t>) -> Place<'t> {
        let mut place = place;
        for _ in 0..DEEPEST {
            let node = match place.node.kind() {
                "identifier" => match self.binding(self.text(place.node), place).filter(|b| !b.part) {
                    Some(b) => {
                        place = Place { node: b.value, scope: b.value_scope, at: b.at };
                        continue;
                    }
                    None => return place,
                },
                "parenthesized_expression" | "await" => place.node.named_child(0),
                "named_expression" => place.node.child_by_field_name("value"),
                _ => return place,
            };
            match node {
                Some(node) => place = place.with(node),
                None => return place,
            }
        }
        place
    }

    /// The values an expression can have: both sides of a choice that is not known.
    pub(super) fn possible(&self, place: Place<'t>) -> Vec<Place<'t>> {
        let place = self.resolve(place);
        let parts = children(place.node);
        match (place.node.kind(), parts.as_slice()) {
            ("conditional_expression", [yes, condition, no]) => {
                let truth = self.truth(*condition);
                let sides = [(yes, Some(false)), (no, Some(true))].into_iter().filter(|(_, dead)| truth != *dead);
                sides.flat_map(|(side, _)| self.possible(place.with(*side))).collect()
            }
            _ => vec![place],
        }
    }

    /// The class of an object and the call that makes it.
    pub(super) fn made(&self, place: Place<'t>) -> Option<(&'t str, Place<'t>)> {
        self.made_within(place, DEEPEST)
    }

    fn made_within(&self, place: Place<'t>, depth: usize) -> Option<(&'t str, Place<'t>)> {
        let depth = depth.checked_sub(1)?;
        self.possible(place).into_iter().find_map(|place| {
            let callee = place.node.child_by_field_name("function").filter(|_| place.node.kind() == "call")?;
            let name = last_name(self.text(callee));
            let name = self.aliases.get(name).copied().unwrap_or(name);
            if let Some(function) = self.functions.get(name) {
                let returned = self.returns.get(&function.scope)?;
                return returned.iter().rev().find_map(|node| {
                    self.made_within(Place { node: *node, scope: function.scope, at: usize::MAX }, depth)
                });
            }
            Some((self.family(name), place))
        })
    }

    /// The class of the library that a class of the file is made from; its own name otherwise.
    pub(super) fn family(&self, name: &'t str) -> &'t str {
        let mut name = name;
        for _ in 0..DEEPEST {
            match self.classes.get(name).and_then(|bases| bases.first()) {
                Some(base) => name = self.aliases.get(base).copied().unwrap_or(base),
                None => break,
            }
        }
        name
    }

    /// A call's argument by name, or by position; also out of `**` of a table that can be followed.
    pub(super) fn argument(&self, call: Place<'t>, name: &str, position: Option<usize>) -> Option<Place<'t>> {
        let arguments = call.node.child_by_field_name("arguments").map(children).unwrap_or_default();
        let named = arguments.iter().find(|a| {
            a.kind() == "keyword_argument" && a.child_by_field_name("name").is_some_and(|n| self.text(n) == name)
        });
        if let Some(value) = named.and_then(|a| a.child_by_field_name("value")) {
            return Some(call.with(value));
        }
        let plain = |a: &&Node<'t>| !matches!(a.kind(), "keyword_argument" | "dictionary_splat" | "list_splat");
        if let Some(value) = position.and_then(|n| arguments.iter().filter(plain).nth(n)) {
            return Some(call.with(*value));
        }
        let splats = arguments.iter().filter(|a| a.kind() == "dictionary_splat").filter_map(|a| a.named_child(0));
        splats.into_iter().find_map(|splat| self.entry(call.with(splat), name, DEEPEST))
    }

    /// A key of a dictionary.
    pub(super) fn entry(&self, place: Place<'t>, key: &str, depth: usize) -> Option<Place<'t>> {
        let depth = depth.checked_sub(1)?;
        self.possible(place).into_iter().find_map(|place| match place.node.kind() {
            "dictionary" => children(place.node).into_iter().find_map(|pair| {
                let own = pair.child_by_field_name("key")?;
                let value = pair.child_by_field_name("value")?;
                (self.string(place.with(own)).as_deref() == Some(key)).then(|| place.with(value))
            }),
            "call" => {
                let name = last_name(self.text(place.node.child_by_field_name("function")?));
                if name == "dict" {
                    return self.argument(place, key, None);
                }
                let function = self.functions.get(name)?;
                let returned = self.returns.get(&function.scope)?;
                returned.iter().rev().find_map(|node| {
                    self.entry(Place { node: *node, scope: function.scope, at: usize::MAX }, key, depth)
                })
            }
            _ => None,
        })
    }

    /// A number that is written out.
    pub(super) fn number(&self, place: Place<'t>) -> Option<f64> {
        let place = self.resolve(place);
        match place.node.kind() {
            "integer" | "float" => self.text(place.node).replace('_', "").parse().ok(),
            "unary_operator" => {
                let value = self.number(place.with(place.node.child_by_field_name("argument")?))?;
                Some(if self.text(place.node).starts_with('-') { -value } else { value })
            }
            _ => None,
        }
    }

    /// `True` or `False` that is written out.
    pub(super) fn boolean(&self, place: Place<'t>) -> Option<bool> {
        match self.resolve(place).node.kind() {
            "true" => Some(true),
            "false" | "none" => Some(false),
            _ => None,
        }
    }

    /// A text that is known as a whole.
    pub(super) fn string(&self, place: Place<'t>) -> Option<String> {
        let text = self.words(place);
        (!text.contains(super::text::HOLE) && !text.is_empty()).then_some(text)
    }
}
