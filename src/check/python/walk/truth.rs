//! Conditions that are known before the script runs.

use tree_sitter::Node;

use super::Walk;

impl<'t> Walk<'t> {
    /// Whether a condition holds, where that is known before the script runs.
    pub(in crate::check::python) fn truth(&self, node: Node<'t>) -> Option<bool> {
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
