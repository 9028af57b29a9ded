//! Calls of the file's own functions: into their bodies, with what their parameters are bound to.

use tree_sitter::Node;

use super::{Function, Scope, Walk, children, last_name};

/// Functions entered at most, so that calls that call each other end.
const MOST_CALLS: usize = 2000;

impl<'t> Walk<'t> {
    /// Into the functions of the file that a call runs: the one it names, a class's methods, and those among its arguments.
    pub(super) fn follow(&mut self, call: Node<'t>) {
        let Some(callee) = call.child_by_field_name("function") else { return };
        let arguments = call.child_by_field_name("arguments").map(children).unwrap_or_default();
        let mut entered: Vec<(Function<'t>, bool, usize)> = Vec::new();
        let name = last_name(self.text(callee));
        match callee.kind() {
            "identifier" => {
                entered.extend(self.functions.get(name).map(|f| (*f, true, 0)));
                if self.classes.contains_key(name) {
                    entered.extend(self.methods.get("__init__").into_iter().flatten().map(|f| (*f, true, 1)));
                }
            }
            "attribute" => entered.extend(self.methods.get(name).into_iter().flatten().map(|f| (*f, true, 1))),
            _ => {}
        }
        for argument in &arguments {
            let value = argument.child_by_field_name("value").filter(|_| argument.kind() == "keyword_argument");
            let value = value.unwrap_or(*argument);
            if value.kind() == "identifier" {
                entered.extend(self.functions.get(self.text(value)).map(|f| (*f, false, 0)));
            }
        }
        for (function, direct, skipped) in entered {
            self.enter(function, if direct { &arguments } else { &[] }, skipped);
        }
    }

    fn enter(&mut self, function: Function<'t>, arguments: &[Node<'t>], skipped: usize) {
        if self.stack.contains(&function.scope) || self.calls >= MOST_CALLS {
            return;
        }
        self.calls += 1;
        let outer = self.scope();
        self.stack.push(function.scope);
        self.parameters(function, arguments, skipped, outer);
        // a `try` around the call guards what the function does, too
        if let Some(body) = function.node.child_by_field_name("body") {
            self.block(body);
        }
        self.stack.pop();
    }

    fn parameters(&mut self, function: Function<'t>, arguments: &[Node<'t>], skipped: usize, outer: Scope) {
        let parameters = function.node.child_by_field_name("parameters").map(children).unwrap_or_default();
        let mut positional = arguments.iter().filter(|a| !matches!(a.kind(), "keyword_argument" | "comment"));
        for parameter in parameters.into_iter().skip(skipped) {
            let default = parameter.child_by_field_name("value");
            let name = parameter.child_by_field_name("name").unwrap_or(match parameter.kind() {
                "typed_parameter" => parameter.named_child(0).unwrap_or(parameter),
                _ => parameter,
            });
            let name = self.text(name);
            let named = arguments.iter().find(|a| {
                a.kind() == "keyword_argument" && a.child_by_field_name("name").is_some_and(|n| self.text(n) == name)
            });
            let given = match named {
                Some(named) => named.child_by_field_name("value"),
                None => positional.next().copied(),
            };
            match (given, default) {
                (Some(value), _) => self.bind(name, value, false, outer),
                (None, Some(value)) => self.bind(name, value, false, 0),
                (None, None) => {}
            }
        }
    }
}
