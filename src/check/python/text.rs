//! Texts that a script puts together: f-strings, sums, paths. What is not known is a hole.

use super::values::Place;
use super::walk::{Walk, children, last_name};

/// Stands for what is not known.
pub(super) const HOLE: char = '\u{0}';
const DEEPEST: usize = 12;

impl<'t> Walk<'t> {
    /// The text an expression gives, with holes; a lone hole where it gives none that is known.
    pub(super) fn words(&self, place: Place<'t>) -> String {
        self.words_within(place, DEEPEST)
    }

    fn words_within(&self, place: Place<'t>, depth: usize) -> String {
        let Some(depth) = depth.checked_sub(1) else { return HOLE.to_string() };
        let place = self.resolve(place);
        let node = place.node;
        let inner = |node| self.words_within(place.with(node), depth);
        match node.kind() {
            "string" => children(node)
                .into_iter()
                .map(|part| match part.kind() {
                    "string_content" => unescaped(self.text(part)),
                    "interpolation" => part.child_by_field_name("expression").map_or_else(|| HOLE.to_string(), inner),
                    _ => String::new(),
                })
                .collect(),
            "concatenated_string" => children(node).into_iter().map(inner).collect(),
            "binary_operator" => {
                let (Some(left), Some(right)) = (node.child_by_field_name("left"), node.child_by_field_name("right"))
                else {
                    return HOLE.to_string();
                };
                match node.child_by_field_name("operator").map(|op| self.text(op)) {
                    Some("+") => inner(left) + &inner(right),
                    Some("/") => format!("{}/{}", inner(left), inner(right)),
                    Some("%") => inner(left),
                    _ => HOLE.to_string(),
                }
            }
            "call" => {
                let Some(callee) = node.child_by_field_name("function") else { return HOLE.to_string() };
                let arguments = node.child_by_field_name("arguments").map(children).unwrap_or_default();
                match (callee.kind(), last_name(self.text(callee))) {
                    (_, "Path" | "PurePath" | "str") if arguments.len() == 1 => inner(arguments[0]),
                    (_, "Path" | "join")
                        if self.text(callee) != "join" && callee.kind() != "attribute"
                            || self.text(callee).ends_with("path.join") =>
                    {
                        arguments.into_iter().map(inner).collect::<Vec<_>>().join("/")
                    }
                    ("attribute", "format") => {
                        callee.child_by_field_name("object").map_or_else(|| HOLE.to_string(), inner)
                    }
                    ("attribute", "joinpath") => {
                        let own = callee.child_by_field_name("object").map(inner);
                        own.into_iter().chain(arguments.into_iter().map(inner)).collect::<Vec<_>>().join("/")
                    }
                    _ => HOLE.to_string(),
                }
            }
            "integer" | "float" => self.text(node).to_owned(),
            _ => HOLE.to_string(),
        }
    }
}

/// The escapes that matter in names and marks.
fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\")
}
