//! Statements: which of them run, in which order, and whether what follows them does.

use tree_sitter::Node;

use super::{Walk, children};

/// Whether what follows still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Falls,
    Leaves,
}

impl<'t> Walk<'t> {
    pub(super) fn block(&mut self, block: Node<'t>) -> Flow {
        for statement in children(block) {
            if self.statement(statement) == Flow::Leaves {
                return Flow::Leaves;
            }
        }
        Flow::Falls
    }

    fn field_block(&mut self, node: Node<'t>, field: &str) -> Flow {
        node.child_by_field_name(field).map_or(Flow::Falls, |block| self.block(block))
    }

    pub(super) fn statement(&mut self, node: Node<'t>) -> Flow {
        match node.kind() {
            "return_statement" => {
                self.all(node);
                if let Some(value) = node.named_child(0) {
                    self.returns.entry(self.scope()).or_default().push(value);
                }
                return Flow::Leaves;
            }
            "raise_statement" => {
                self.all(node);
                return Flow::Leaves;
            }
            "continue_statement" | "break_statement" => return Flow::Leaves,
            "if_statement" => return self.condition(node),
            "match_statement" => return self.cases(node),
            "while_statement" => {
                let condition = node.child_by_field_name("condition");
                if condition.and_then(|c| self.truth(c)) != Some(false) {
                    if let Some(condition) = condition {
                        self.expression(condition);
                    }
                    self.field_block(node, "body");
                }
            }
            "for_statement" => self.repeat(node),
            "try_statement" => return self.attempt(node),
            "with_statement" => {
                for child in children(node).into_iter().filter(|n| n.kind() == "with_clause") {
                    self.all(child);
                    self.entered(child);
                }
                return self.field_block(node, "body");
            }
            "function_definition" | "class_definition" | "decorated_definition" => {
                if node.parent().is_some_and(|parent| parent.kind() == "block") {
                    self.define(node);
                }
                if node.kind() == "class_definition" {
                    for member in node.child_by_field_name("body").map(children).unwrap_or_default() {
                        if member.kind() == "expression_statement" {
                            self.all(member);
                        }
                    }
                }
            }
            "import_from_statement" | "import_statement" => self.import(node),
            "expression_statement" => {
                self.all(node);
                if node.named_child(0).is_some_and(|call| self.ends(call)) {
                    return Flow::Leaves;
                }
            }
            _ => self.all(node),
        }
        Flow::Falls
    }

    /// Whether a call ends the program.
    fn ends(&self, node: Node<'t>) -> bool {
        let name = node.child_by_field_name("function").filter(|_| node.kind() == "call").map(|f| self.text(f));
        name.is_some_and(|name| ["sys.exit", "exit", "quit", "os._exit"].contains(&name))
    }

    fn condition(&mut self, node: Node<'t>) -> Flow {
        let mut flows = Vec::new();
        let mut open = true;
        let mut outer = Vec::new();
        let mut arms = vec![(node.child_by_field_name("condition"), node.child_by_field_name("consequence"))];
        for clause in children(node) {
            match clause.kind() {
                "elif_clause" => {
                    arms.push((clause.child_by_field_name("condition"), clause.child_by_field_name("consequence")));
                }
                "else_clause" => arms.push((None, clause.child_by_field_name("body"))),
                _ => {}
            }
        }
        for (condition, body) in arms {
            if !open {
                break;
            }
            let truth = condition.map_or(Some(true), |c| self.truth(c));
            if let Some(condition) = condition {
                self.expression(condition);
            }
            if truth == Some(false) {
                continue;
            }
            // an `else` runs under what the arms before it did not
            let known = truth == Some(true) && outer.is_empty();
            open = truth != Some(true);
            let shown = condition.filter(|_| truth.is_none()).or_else(|| outer.last().copied());
            if !known {
                self.enter_arm(shown);
            }
            outer.extend(condition.filter(|_| truth.is_none()));
            flows.push(body.map_or(Flow::Falls, |body| self.block(body)));
            if !known {
                self.here.pop();
            }
        }
        if !open && !flows.is_empty() && flows.iter().all(|flow| *flow == Flow::Leaves) {
            Flow::Leaves
        } else {
            Flow::Falls
        }
    }

    fn cases(&mut self, node: Node<'t>) -> Flow {
        if let Some(subject) = node.child_by_field_name("subject") {
            self.expression(subject);
        }
        for clause in node.child_by_field_name("body").map(children).unwrap_or_default() {
            self.enter_arm(node.child_by_field_name("subject"));
            self.field_block(clause, "consequence");
            self.here.pop();
        }
        Flow::Falls
    }

    fn repeat(&mut self, node: Node<'t>) {
        let over = node.child_by_field_name("right");
        if over.is_some_and(|n| matches!(n.kind(), "list" | "tuple" | "set") && n.named_child_count() == 0) {
            return;
        }
        if let (Some(target), Some(over)) = (node.child_by_field_name("left"), over) {
            self.expression(over);
            self.targets(target, over, true);
        }
        self.field_block(node, "body");
        for clause in children(node).into_iter().filter(|n| n.kind() == "else_clause") {
            self.field_block(clause, "body");
        }
    }

    fn attempt(&mut self, node: Node<'t>) -> Flow {
        self.tries.push(node);
        let body = self.field_block(node, "body");
        self.tries.pop();
        let mut handlers = Vec::new();
        for clause in children(node) {
            match clause.kind() {
                "except_clause" | "except_group_clause" => {
                    self.enter_arm(None);
                    let block = children(clause).into_iter().find(|n| n.kind() == "block");
                    handlers.push(block.map_or(Flow::Falls, |block| self.block(block)));
                    self.here.pop();
                }
                "else_clause" => {
                    self.field_block(clause, "body");
                }
                "finally_clause" => {
                    for block in children(clause).into_iter().filter(|n| n.kind() == "block") {
                        self.block(block);
                    }
                }
                _ => {}
            }
        }
        let all_leave = body == Flow::Leaves && handlers.iter().all(|flow| *flow == Flow::Leaves);
        if all_leave { Flow::Leaves } else { Flow::Falls }
    }

    /// `with open(..) as file`.
    fn entered(&mut self, clause: Node<'t>) {
        for item in children(clause) {
            let Some(pattern) = item.child_by_field_name("value").filter(|n| n.kind() == "as_pattern") else {
                continue;
            };
            let parts = children(pattern);
            if let [value, target, ..] = parts.as_slice()
                && let Some(name) = target.named_child(0)
            {
                let scope = self.scope();
                self.bind(self.text(name), *value, false, scope);
            }
        }
    }

    pub(super) fn all(&mut self, node: Node<'t>) {
        for child in children(node) {
            self.expression(child);
        }
    }
}
