//! Expressions: calls inside first, as Python evaluates them, and names that are bound on the way.

use tree_sitter::Node;

use super::{Walk, children};

impl<'t> Walk<'t> {
    /// Calls inside first, as Python evaluates them.
    pub(super) fn expression(&mut self, node: Node<'t>) {
        match node.kind() {
            "assignment" | "augmented_assignment" => {
                if let Some(value) = node.child_by_field_name("right") {
                    self.expression(value);
                    if let Some(target) = node.child_by_field_name("left") {
                        let last = if value.kind() == "assignment" { value.child_by_field_name("right") } else { None };
                        self.targets(target, last.unwrap_or(value), false);
                    }
                }
                if node.child_by_field_name("left").is_some_and(|n| matches!(n.kind(), "attribute" | "subscript")) {
                    self.event(node);
                }
            }
            "named_expression" => {
                self.all(node);
                if let (Some(name), Some(value)) = (node.child_by_field_name("name"), node.child_by_field_name("value"))
                {
                    let scope = self.scope();
                    self.bind(self.text(name), value, false, scope);
                }
            }
            "call" => {
                self.all(node);
                self.event(node);
                self.follow(node);
            }
            "conditional_expression" => self.choice(node),
            "boolean_operator" => self.shortcut(node),
            "function_definition" | "class_definition" | "comment" => {}
            _ => self.all(node),
        }
    }

    /// `a if c else b`.
    fn choice(&mut self, node: Node<'t>) {
        let parts = children(node);
        let [yes, condition, no] = parts.as_slice() else { return self.all(node) };
        self.expression(*condition);
        let truth = self.truth(*condition);
        for (part, dead) in [(yes, Some(false)), (no, Some(true))] {
            if truth == dead {
                continue;
            }
            if truth.is_none() {
                self.enter_arm(Some(*condition));
            }
            self.expression(*part);
            if truth.is_none() {
                self.here.pop();
            }
        }
    }

    /// `a and b()`: the right side runs under what the left is.
    fn shortcut(&mut self, node: Node<'t>) {
        let (Some(left), Some(right)) = (node.child_by_field_name("left"), node.child_by_field_name("right")) else {
            return self.all(node);
        };
        self.expression(left);
        let and = node.child_by_field_name("operator").is_some_and(|op| self.text(op) == "and");
        match self.truth(left) {
            Some(truth) if truth == and => self.expression(right),
            Some(_) => {}
            None => {
                self.enter_arm(Some(left));
                self.expression(right);
                self.here.pop();
            }
        }
    }

    pub(super) fn targets(&mut self, target: Node<'t>, value: Node<'t>, part: bool) {
        let scope = self.scope();
        match target.kind() {
            "identifier" => self.bind(self.text(target), value, part, scope),
            "pattern_list" | "tuple_pattern" | "list_pattern" => {
                let targets = children(target);
                let values = children(value);
                let matches = !part && matches!(value.kind(), "expression_list" | "tuple" | "list");
                for (i, target) in targets.iter().enumerate() {
                    match values.get(i).filter(|_| matches && values.len() == targets.len()) {
                        Some(own) => self.targets(*target, *own, false),
                        None => self.targets(*target, value, true),
                    }
                }
            }
            _ => {}
        }
    }
}
