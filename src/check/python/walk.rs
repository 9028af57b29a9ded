//! The walk: statements in the order they run.

mod call;
mod define;
mod expression;
mod statement;
mod truth;

use std::collections::HashMap;

use tree_sitter::Node;

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

    fn enter_arm(&mut self, condition: Option<Node<'t>>) {
        self.here.push(self.arms.len());
        self.arms.push(Arm { condition });
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
