//! Values as Python writes them, and names out of `snake_case`.

use serde_json::Value;

use super::settings::number;
pub(super) use super::settings::quoted;

/// A literal.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(n) => number(n),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let entries: Vec<String> = table.iter().map(|(k, v)| format!("{}: {}", quoted(k), literal(v))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// Text for the inside of a docstring.
pub(super) fn in_docstring(text: &str) -> String {
    let shown: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    shown.replace('\\', "\\\\").replace('"', "\\\"")
}

/// A name for a variable, out of any text.
pub(super) fn variable(text: &str) -> String {
    let name: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let name = name.trim_matches('_').to_owned();
    match name.chars().next() {
        None => "rows".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("rows_{name}"),
        Some(_) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn literals_are_pythons() {
        let value = json!({"a\"b": [true, null, 2e-5, 20.0, 3, "x\n\\"]});
        assert_eq!(literal(&value), r#"{"a\"b": [True, None, 2e-5, 20.0, 3, "x\n\\"]}"#);
        assert_eq!(quoted("\u{0}\u{2028}"), "\"\\u0000\\u2028\"");
        assert_eq!(in_docstring("a\"\"\"b\\\n"), "a\\\"\\\"\\\"b\\\\?");
        assert_eq!(
            (variable("all-nli"), variable("1 x"), variable("ä")),
            ("all_nli".into(), "rows_1_x".into(), "rows".into())
        );
    }
}
