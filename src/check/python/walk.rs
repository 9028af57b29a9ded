//! The walk: statements in the order they run.

use std::collections::HashMap;

use tree_sitter::Node;

/// Functions entered at most, so that calls that call each other end.
const MOST_CALLS: usize = 2000;

/// Which function's names are meant; 0 for the module's.
pub(super) type Scope = usize;

/// Something that runs.
#[derive(Debug, Clone)]
pub(super) struct Event<'t> {
    /// A call, or an assignment to an attribute.
    pub(super) node: Node<'t>,
    pub(super) scope: Scope,
    /// How many names were bound before it.
    pub(super) at: usize,
    /// The arms of conditions it stands in, outermost first.
    pub(super) arms: Vec<usize>,
    /// The `try` statements whose body it stands in, outermost first.
    pub(super) tries: Vec<Node<'t>>,
}

/// An arm of a condition that is not known.
#[derive(Debug, Clone)]
pub(super) struct Arm<'t> {
    /// The condition; none of an exception's handler.
    pub(super) condition: Option<Node<'t>>,
}

/// What a name was bound to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding<'t> {
    pub(super) scope: Scope,
    /// Where the value's own names are looked up.
    pub(super) value_scope: Scope,
    pub(super) at: usize,
    pub(super) value: Node<'t>,
    /// Whether it is an item of the value rather than the value: of a loop, or of several targets.
    pub(super) part: bool,
    /// The innermost arm of a condition it stands in.
    pub(super) arm: Option<usize>,
}

/// A function of the file, with a number that is its scope.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function<'t> {
    pub(super) node: Node<'t>,
    pub(super) scope: Scope,
}

/// What the walk has seen.
#[derive(Debug, Default)]
pub(super) struct Walk<'t> {
    source: &'t str,
    pub(super) events: Vec<Event<'t>>,
    pub(super) arms: Vec<Arm<'t>>,
    pub(super) bindings: HashMap<&'t str, Vec<Binding<'t>>>,
    pub(super) functions: HashMap<&'t str, Function<'t>>,
    /// Methods by name, whatever class has them.
    pub(super) methods: HashMap<&'t str, Vec<Function<'t>>>,
    /// Classes with the names of what they are made from.
    pub(super) classes: HashMap<&'t str, Vec<&'t str>>,
    /// Imported names that are called otherwise here.
    pub(super) aliases: HashMap<&'t str, &'t str>,
    /// Returned values by function.
    pub(super) returns: HashMap<Scope, Vec<Node<'t>>>,
    here: Vec<usize>,
    tries: Vec<Node<'t>>,
    stack: Vec<Scope>,
    scopes: usize,
    bound: usize,
    calls: usize,
}

/// Whether what follows still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Falls,
    Leaves,
}

impl<'t> Walk<'t> {
    pub(super) fn of(source: &'t str, root: Node<'t>) -> Self {
        let mut walk = Self { source, stack: vec![0], ..Self::default() };
        walk.constants(root);
        walk.block(root);
        walk
    }

    pub(super) fn text(&self, node: Node<'t>) -> &'t str {
        self.source.get(node.byte_range()).unwrap_or_default()
    }

    fn scope(&self) -> Scope {
        self.stack.last().copied().unwrap_or(0)
    }

    fn event(&mut self, node: Node<'t>) {
        let (scope, at) = (self.scope(), self.bound);
        self.events.push(Event { node, scope, at, arms: self.here.clone(), tries: self.tries.clone() });
    }

    fn bind(&mut self, name: &'t str, value: Node<'t>, part: bool, value_scope: Scope) {
        let (scope, at) = (self.scope(), self.bound);
        self.bound += 1;
        let arm = self.here.last().copied();
        self.bindings.entry(name).or_default().push(Binding { scope, value_scope, at, value, part, arm });
    }

    /// Functions and classes of the module can be called from functions above them.
    fn constants(&mut self, root: Node<'t>) {
        for child in children(root) {
            self.define(child);
        }
    }

    fn define(&mut self, node: Node<'t>) {
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

    fn block(&mut self, block: Node<'t>) -> Flow {
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

    fn statement(&mut self, node: Node<'t>) -> Flow {
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

    fn import(&mut self, node: Node<'t>) {
        for child in children(node).into_iter().filter(|n| n.kind() == "aliased_import") {
            let field = |name| child.child_by_field_name(name).map(|n| self.text(n));
            if let (Some(name), Some(alias)) = (field("name"), field("alias")) {
                self.aliases.insert(alias, last_name(name));
            }
        }
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

    fn enter_arm(&mut self, condition: Option<Node<'t>>) {
        self.here.push(self.arms.len());
        self.arms.push(Arm { condition });
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

    fn all(&mut self, node: Node<'t>) {
        for child in children(node) {
            self.expression(child);
        }
    }

    /// Calls inside first, as Python evaluates them.
    fn expression(&mut self, node: Node<'t>) {
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

    fn targets(&mut self, target: Node<'t>, value: Node<'t>, part: bool) {
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

    /// Into the functions of the file that a call runs: the one it names, a class's methods, and those among its arguments.
    fn follow(&mut self, call: Node<'t>) {
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

    /// Whether a condition holds, where that is known before the script runs.
    pub(super) fn truth(&self, node: Node<'t>) -> Option<bool> {
        match node.kind() {
            "true" => Some(true),
            "false" | "none" => Some(false),
            "integer" | "float" => self.text(node).parse::<f64>().ok().map(|x| x != 0.0),
            "string" => Some(node.named_child_count() > 2),
            "parenthesized_expression" => self.truth(node.named_child(0)?),
            "not_operator" => self.truth(node.child_by_field_name("argument")?).map(|truth| !truth),
            "boolean_operator" => {
                let and = self.text(node.child_by_field_name("operator")?) == "and";
                let sides = [node.child_by_field_name("left")?, node.child_by_field_name("right")?];
                let known = sides.map(|side| self.truth(side));
                if known.contains(&Some(!and)) {
                    return Some(!and);
                }
                known.iter().all(|side| *side == Some(and)).then_some(and)
            }
            "comparison_operator" => {
                let text: String = self.text(node).split_whitespace().collect();
                ["__name__==\"__main__\"", "__name__=='__main__'"].contains(&text.as_str()).then_some(true)
            }
            "identifier" if self.text(node) == "TYPE_CHECKING" => Some(false),
            "identifier" => self.constant(node),
            _ => None,
        }
    }

    /// A name that has one value in the whole file, and that a plain one.
    fn constant(&self, node: Node<'t>) -> Option<bool> {
        let [only] = self.bindings.get(self.text(node))?.as_slice() else { return None };
        let plain = matches!(only.value.kind(), "true" | "false" | "none" | "integer");
        if only.scope == 0 && !only.part && plain { self.truth(only.value) } else { None }
    }
}

/// The named children, without comments.
pub(super) fn children(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.named_children(&mut cursor).filter(|child| child.kind() != "comment").collect()
}

/// `a.b.C` is called `C`.
pub(super) fn last_name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path).trim()
}
