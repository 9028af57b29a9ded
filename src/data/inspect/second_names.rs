//! Which columns say the label in other words, as `card_arrival` beside class 12? The first rows tell.

use std::collections::HashMap;

use crate::data::source::{Files, Rows, Value};
use crate::error::Result;

/// Rows that are looked at.
const LOOKED_AT: usize = 2000;
/// Rows that a label has to have on average, for the agreement to be no chance.
const ROWS_A_LABEL: usize = 4;

/// A column's text by label, and the label by text, as long as each has one of the other.
#[derive(Default)]
struct Names {
    by_label: HashMap<String, String>,
    by_text: HashMap<String, String>,
    broken: bool,
}

impl Names {
    fn add(&mut self, label: &str, text: &str) {
        let agrees = |map: &mut HashMap<String, String>, key: &str, value: &str| match map.get(key) {
            Some(known) => known == value,
            None => {
                map.insert(key.to_owned(), value.to_owned());
                true
            }
        };
        if !self.broken {
            self.broken = !agrees(&mut self.by_label, label, text) || !agrees(&mut self.by_text, text, label);
        }
    }
}

/// Those of `columns` in which each label has one text and each text one label; never all of them.
///
/// # Errors
/// When the files cannot be read.
pub fn find(files: &Files, label: &str, columns: &[String]) -> Result<Vec<String>> {
    let wanted = columns.iter().cloned().chain([label.to_owned()]).collect();
    let mut rows = Rows::new(files, Some(wanted));
    let mut names: Vec<Names> = columns.iter().map(|_| Names::default()).collect();
    let mut seen = 0;
    while seen < LOOKED_AT {
        let Some((_, cells)) = rows.next_row()? else { break };
        let Ok(cells) = cells else { continue };
        let cell = |name: &str| cells.iter().find(|(n, _)| n.as_ref() == name).map(|(_, value)| value);
        let label = match cell(label) {
            Some(Value::Integer(class)) => class.to_string(),
            Some(Value::Text(class)) => class.clone(),
            _ => continue,
        };
        seen += 1;
        for (names, column) in names.iter_mut().zip(columns) {
            match cell(column) {
                Some(Value::Text(text)) => names.add(&label, text),
                _ => names.broken = true,
            }
        }
    }
    let is_name = |names: &Names| {
        let labels = names.by_label.len();
        !names.broken && labels > 1 && seen >= ROWS_A_LABEL * labels
    };
    let found = columns.iter().zip(&names).filter(|(_, names)| is_name(names));
    let found: Vec<String> = found.map(|(column, _)| column.clone()).collect();
    Ok(if found.len() < columns.len() { found } else { Vec::new() })
}
