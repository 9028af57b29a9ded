//! What a file defines: functions, classes and their methods, other names for what is imported.

use tree_sitter::Node;

use super::{Function, Walk, children, last_name};

impl<'t> Walk<'t> {
    /// Functions and classes of the module can be called from functions above them.
    pub(super) fn constants(&mut self, root: Node<'t>) {
        for child in children(root) {
            self.define(child);
        }
    }

    pub(super) fn define(&mut self, node: Node<'t>) {
        match node.kind() {
            "decorated_definition" => {
                if let Some(inner) = node.child_by_field_name("definition") {
                    self.define(inner);
                }
            }
            "function_definition" => {
                if let Some(name) = node.child_by_field_name("name").map(|n| self.text(n)) {
                    self.scopes += 1;
                    self.functions.insert(name, Function { node, scope: self.scopes });
                }
            }
            "class_definition" => self.define_class(node),
            "if_statement" => {
                for block in children(node).into_iter().filter(|n| n.kind() == "block") {
                    self.constants(block);
                }
            }
            _ => {}
        }
    }

    fn define_class(&mut self, node: Node<'t>) {
        let Some(name) = node.child_by_field_name("name").map(|n| self.text(n)) else { return };
        let bases = node.child_by_field_name("superclasses").map(children).unwrap_or_default();
        let bases = bases.into_iter().map(|base| last_name(self.text(base))).collect();
        self.classes.insert(name, bases);
        for member in node.child_by_field_name("body").map(children).unwrap_or_default() {
            let member = member.child_by_field_name("definition").unwrap_or(member);
            if let Some(method) = member.child_by_field_name("name").filter(|_| member.kind() == "function_definition")
            {
                self.scopes += 1;
                let function = Function { node: member, scope: self.scopes };
                self.methods.entry(self.text(method)).or_default().push(function);
            }
        }
    }

    pub(super) fn import(&mut self, node: Node<'t>) {
        for child in children(node).into_iter().filter(|n| n.kind() == "aliased_import") {
            let field = |name| child.child_by_field_name(name).map(|n| self.text(n));
            if let (Some(name), Some(alias)) = (field("name"), field("alias")) {
                self.aliases.insert(alias, last_name(name));
            }
        }
    }
}
