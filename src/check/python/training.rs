//! What a script trains: its trainers with their arguments and losses, and its evaluators.

use super::script::{Run, Seen};
use super::values::Place;

impl<'s> Run<'s> {
    /// Calls of a trainer's `train`.
    pub(crate) fn trains(&self) -> Vec<Seen<'s>> {
        let train = |seen: &Seen<'s>| {
            let Some(object) = self.object(*seen).filter(|_| self.name(*seen) == "train") else { return false };
            match self.made(object) {
                Some((class, _)) => class.ends_with("Trainer"),
                None => self.text(object.node).to_lowercase().contains("trainer"),
            }
        };
        self.calls().filter(train).collect()
    }

    /// The class of what trains, and the call that made it.
    pub(crate) fn trainer(&self, train: Seen<'s>) -> Option<(&'s str, Place<'s>)> {
        self.made(self.object(train)?)
    }

    /// The trainers that are trained; each with the training arguments it was given, where they can be followed.
    pub(crate) fn trainers(&self) -> Vec<Place<'s>> {
        let mut found: Vec<Place<'s>> = Vec::new();
        for (_, trainer) in self.trains().into_iter().filter_map(|train| self.trainer(train)) {
            if found.iter().all(|known| known.node.id() != trainer.node.id()) {
                found.push(trainer);
            }
        }
        found
    }

    /// The call that makes a trainer's arguments.
    pub(crate) fn arguments(&self, trainer: Place<'s>) -> Option<Place<'s>> {
        self.made(self.argument_of(trainer, "args", Some(1))?).map(|(_, call)| call)
    }

    /// The losses a trainer is given, outermost, each with its class and the call that makes it.
    pub(crate) fn losses(&self, trainer: Place<'s>) -> Vec<(&'s str, Place<'s>)> {
        let Some(loss) = self.argument_of(trainer, "loss", None) else { return Vec::new() };
        let items = self.items(loss);
        items.into_iter().filter_map(|item| self.made(item)).collect()
    }

    /// A loss and those inside it.
    pub(crate) fn nested(&self, loss: (&'s str, Place<'s>)) -> Vec<(&'s str, Place<'s>)> {
        let mut all = vec![loss];
        for _ in 0..8 {
            let Some((class, call)) = all.last().copied() else { break };
            let position = (class != "SpladeLoss" && class != "CachedSpladeLoss"
                || self.argument_of(call, "loss", None).is_none())
            .then_some(1);
            let inner = self.argument_of(call, "loss", position).and_then(|place| self.made(place));
            match inner.filter(|(class, _)| class.ends_with("Loss")) {
                Some(inner) => all.push(inner),
                None => break,
            }
        }
        all
    }

    /// Calls of an evaluator: `evaluator(model)`, or `model.evaluate(evaluator)`.
    pub(crate) fn evaluations(&self) -> Vec<Seen<'s>> {
        self.calls().filter(|seen| self.evaluator(*seen).is_some()).collect()
    }

    /// The evaluator a call runs: its class and the call that made it, where that is known.
    pub(crate) fn evaluator(&self, seen: Seen<'s>) -> Option<Option<(&'s str, Place<'s>)>> {
        let callee = seen.place.node.child_by_field_name("function")?;
        let place = match callee.kind() {
            "attribute" if self.name(seen) == "evaluate" => self.argument(seen, "evaluator", Some(0))?,
            "identifier" if !self.walk.functions.contains_key(self.text(callee)) => seen.place.with(callee),
            "attribute" | "subscript" | "call" => seen.place.with(callee),
            _ => return None,
        };
        match self.made(place) {
            Some((class, call)) if class.ends_with("Evaluator") => Some(Some((class, call))),
            Some(_) => None,
            // a loop's variable, a parameter that nobody gives: by its name
            None => {
                let parts = self.looped(place);
                let made = parts.into_iter().find_map(|part| self.made(part));
                let name = self.text(place.node);
                let variable = name.chars().next().is_some_and(|c| !c.is_uppercase());
                let named = place.node.kind() == "identifier" && variable && name.to_lowercase().ends_with("evaluator");
                match made {
                    Some((class, call)) => class.ends_with("Evaluator").then_some(Some((class, call))),
                    None => named.then_some(None),
                }
            }
        }
    }

    /// All evaluators that are made.
    pub(crate) fn evaluators(&self) -> Vec<(&'s str, Seen<'s>)> {
        let made = |seen| self.class(seen).filter(|class| class.ends_with("Evaluator")).map(|class| (class, seen));
        self.calls().filter_map(made).collect()
    }
}
