//! Registries: an extension is a file of its own and one line in a list.
//!
//! A list is declared with [`registry!`](crate::registry); its entry type says in `new::<T>(card)` what it keeps of
//! each `module::Type` (a builder, a schema, the card). Settings are read with [`read_settings`], so that a typing
//! mistake is told the same way everywhere.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::util::suggest;

/// Settings of a registered thing: every field has a default, unknown keys are refused.
pub trait Settings: Default + DeserializeOwned + Serialize + JsonSchema {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the key and the values it may have.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// The settings as JSON, defaults filled in.
    fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

/// Something that is found by its name.
pub trait Named {
    /// The name in recipes.
    fn name(&self) -> &'static str;
}

/// The entry called `name`; `what` is the kind of thing, for the message: "loss", "evaluator".
///
/// # Errors
/// [`Error::Usage`] with the nearest name as hint.
pub fn find<'a, E: Named>(entries: &'a [E], what: &str, name: &str) -> Result<&'a E> {
    entries
        .iter()
        .find(|entry| entry.name() == name)
        .ok_or_else(|| unknown(entries.iter().map(Named::name), what, name))
}

/// The error for a name that nothing registered has.
pub fn unknown<'a>(known: impl Iterator<Item = &'a str> + Clone, what: &str, name: &str) -> Error {
    Error::usage(format!("unknown {what} `{name}`")).with_hint(suggest::hint(name, known))
}

/// What stands before a name that has the same meaning for models of several types.
const PREFIXES: [&str; 4] = ["Sparse", "CrossEncoder", "MultiVector", "Cached"];

/// What to say of a name that is another type of model's: message and hint. `own` are the names of the type that is
/// wanted.
#[must_use]
pub fn of_another_type(
    what: &str,
    (name, theirs): (&str, impl std::fmt::Display),
    (wanted, own): (impl std::fmt::Display, &[&str]),
) -> (String, String) {
    let bare = |name: &str| {
        let mut name = name.to_owned();
        while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            name = rest.to_owned();
        }
        name
    };
    let same = own.iter().find(|known| bare(known) == bare(name));
    let hint = match same {
        Some(same) => format!("the {what} of a {wanted} is `{same}`; or set `model_type = \"{theirs}\"`"),
        None => format!("set `model_type = \"{theirs}\"`, or take one of {}", own.join(", ")),
    };
    (format!("the {what} `{name}` is for a {theirs}, not for a {wanted}"), hint)
}

/// The keys `T` has, in the order of its fields.
#[must_use]
pub fn keys<T: Settings>() -> Vec<String> {
    match T::default().to_json() {
        Value::Object(fields) => fields.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// Reads and validates settings given as a JSON or TOML table; `name` is whose they are.
///
/// # Errors
/// [`Error::Usage`]: an unknown key (with the keys there are), or a value of the wrong type or range (with its key).
pub fn read_settings<T: Settings>(name: &str, settings: &Map<String, Value>) -> Result<T> {
    let parsed: T = serde_json::from_value(Value::Object(settings.clone())).map_err(|whole| {
        // Every field has a default, so each key can be tried alone to find the one at fault.
        for (key, value) in settings {
            let alone = Map::from_iter([(key.clone(), value.clone())]);
            if let Err(error) = serde_json::from_value::<T>(Value::Object(alone)) {
                return fault::<T>(name, key, &error);
            }
        }
        // Only keys that exclude each other get here: a key and its other spelling, both given.
        Error::usage(format!("`{name}`: {whole}")).with_hint("give each setting once")
    })?;
    parsed.validate().map_err(|error| error.within(format!("`{name}`")))?;
    Ok(parsed)
}

fn fault<T: Settings>(name: &str, key: &str, error: &serde_json::Error) -> Error {
    if error.to_string().starts_with(&format!("unknown field `{key}`")) {
        let known = keys::<T>();
        let text = format!("`{name}` has no setting `{key}`");
        if known.is_empty() {
            return Error::usage(text).with_hint("it takes no settings");
        }
        let list = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
        let hint = match suggest::nearest(key, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`? Its settings are {list}"),
            None => format!("its settings are {list}"),
        };
        return Error::usage(text).with_hint(hint);
    }
    Error::usage(format!("`{name}` setting `{key}`: {error}"))
}

/// Declares a registry: a `static` slice with one entry for each `module::Type` line.
///
/// The entry is `Entry::new::<module::Type>(&module::CARD)`; the `mod` lines stand beside the list, because rustfmt
/// skips modules declared inside macros.
#[macro_export]
macro_rules! registry {
    ($(#[$meta:meta])* $vis:vis static $name:ident: [$entry:ty] = { $($module:ident :: $type:ident),* $(,)? }) => {
        $(#[$meta])*
        $vis static $name: &[$entry] = &[$(<$entry>::new::<$module::$type>(&$module::CARD)),*];
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Toy {
        scale: f64,
        #[serde(alias = "matryoshka_dims")]
        dims: Vec<usize>,
    }

    impl Settings for Toy {
        fn validate(&self) -> Result<()> {
            if self.scale < 0.0 {
                return Err(Error::usage("`scale` must not be negative"));
            }
            Ok(())
        }
    }

    fn read(value: Value) -> Result<Toy> {
        read_settings("Toy", value.as_object().unwrap())
    }

    #[test]
    fn names_the_key_at_fault() {
        assert_eq!(read(json!({"scale": 2, "matryoshka_dims": [1]})).unwrap().dims, [1]);
        let error = read(json!({"dims": [3], "scal": 1.0})).unwrap_err();
        assert_eq!(error.to_string(), "`Toy` has no setting `scal`");
        assert_eq!(error.hint(), Some("did you mean `scale`? Its settings are `scale`, `dims`"));
        let error = read(json!({"dims": [3], "scale": "high"})).unwrap_err();
        assert!(error.to_string().starts_with("`Toy` setting `scale`: invalid type: string \"high\""), "{error}");
        let error = read(json!({"scale": -1.0})).unwrap_err();
        assert_eq!(error.to_string(), "`Toy`: `scale` must not be negative");
        let error = read(json!({"dims": [3], "matryoshka_dims": [3]})).unwrap_err();
        assert!(error.to_string().contains("duplicate field"), "{error}");
    }

    #[test]
    fn unknown_names_get_a_suggestion() {
        struct Entry(&'static str);
        impl Named for Entry {
            fn name(&self) -> &'static str {
                self.0
            }
        }
        let entries = [Entry("CoSENTLoss"), Entry("TripletLoss")];
        assert_eq!(find(&entries, "loss", "TripletLoss").map(|e| e.0).unwrap_or_default(), "TripletLoss");
        let error = find(&entries, "loss", "CosentLos").map(|e| e.0).unwrap_err();
        assert_eq!(error.to_string(), "unknown loss `CosentLos`");
        assert_eq!(error.hint(), Some("did you mean `CoSENTLoss`?"));
    }
}
