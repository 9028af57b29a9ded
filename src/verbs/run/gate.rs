//! No run without a smoke test of the same plan that was passed.

use super::Request;
use crate::error::{Error, Result};
use crate::recipe::Plan;
use crate::runs::receipt::{self, Known};
use crate::verbs::next_recipe::quoted;

/// Differences that are told.
const SHOWN: usize = 4;

/// Refuses to begin without a passed smoke test of the plan, unless that was asked for.
///
/// # Errors
/// When there was none, or it was not passed: with what is different now, and the way out.
pub(super) fn check(plan: &Plan, request: &Request) -> Result<()> {
    if request.force {
        return Ok(());
    }
    let text = match receipt::look(plan)? {
        Known::Passed(_) => return Ok(()),
        Known::Failed(receipt) => format!("the smoke test of this recipe failed: {}", receipt.problems.join("; ")),
        Known::Nothing(None) => "there was no smoke test of this recipe".to_owned(),
        Known::Nothing(Some(differences)) => {
            format!("the smoke test of this recipe was of another plan: {}", some_of(&differences))
        }
    };
    Err(Error::usage(text).with_hint(format!(
        "`{}` takes two steps and says what the run will need; `--force` (`force`) begins without",
        command(request)
    )))
}

fn some_of(differences: &[String]) -> String {
    let more = differences.len().saturating_sub(SHOWN);
    let shown = differences.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// The smoke test that is missing, to be typed.
fn command(request: &Request) -> String {
    let mut words = vec!["tallow".to_owned(), "smoke-test".to_owned()];
    words.extend(request.recipe.as_ref().map(|recipe| quoted(&recipe.display().to_string())));
    for set in &request.set {
        words.extend(["--set".to_owned(), quoted(set)]);
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_can_be_typed() {
        let set = vec!["args.max_steps=4".to_owned(), "evaluator=[]".to_owned(), "a=it's".to_owned()];
        let request = Request { recipe: Some("my recipe.toml".into()), set, ..Request::default() };
        assert_eq!(
            command(&request),
            r"tallow smoke-test 'my recipe.toml' --set args.max_steps=4 --set 'evaluator=[]' --set 'a=it'\''s'"
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let told: Vec<String> = (0..6).map(|i| format!("`{i}`")).collect();
        assert_eq!(some_of(&told), "`0`, `1`, `2`, `3` and 2 more");
        assert_eq!(some_of(&told[..2]), "`0`, `1`");
    }
}
