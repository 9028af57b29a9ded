//! Which columns a data set has and what they hold, told by its first rows.

use super::source::{Files, Rows, Value};
use crate::error::{Error, Result};

/// What a column holds, as far as its first rows tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    Text,
    Number,
    Bool,
    Numbers,
    Texts,
    Other,
    /// Nothing but nulls.
    Empty,
}

impl ColumnKind {
    /// For messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "numbers",
            Self::Bool => "booleans",
            Self::Numbers => "lists of numbers",
            Self::Texts => "lists of texts",
            Self::Other => "objects",
            Self::Empty => "nothing",
        }
    }
}

/// A column and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    pub name: String,
    pub kind: ColumnKind,
    /// A text of the column, for messages.
    pub example: Option<String>,
}

/// Rows looked at to tell the columns.
const PROBED: usize = 256;

/// The columns of a data set in file order, from its first rows.
///
/// # Errors
/// When no file can be read or none has a usable row.
pub fn probe(files: &Files) -> Result<Vec<ColumnInfo>> {
    const KINDS: [ColumnKind; 6] = [
        ColumnKind::Text,
        ColumnKind::Number,
        ColumnKind::Bool,
        ColumnKind::Numbers,
        ColumnKind::Texts,
        ColumnKind::Other,
    ];
    let mut rows = Rows::new(files, None);
    let mut columns: Vec<(String, [usize; 6], Option<String>)> = Vec::new();
    let (mut good, mut first_bad) = (0, None);
    while good < PROBED {
        let Some((place, cells)) = rows.next_row()? else {
            break;
        };
        let typed = files.get(place.file as usize).is_none_or(|f| f.format.is_typed());
        match cells {
            Ok(cells) => {
                good += 1;
                for (name, value) in cells {
                    let at = match columns.iter().position(|c| c.0 == name.as_ref()) {
                        Some(at) => at,
                        None => {
                            columns.push((name.to_string(), [0; 6], None));
                            columns.len() - 1
                        }
                    };
                    let kind = match &value {
                        Value::Null => continue,
                        Value::Text(t) if !typed && t.trim().is_empty() => continue,
                        Value::Text(t) if !typed && t.trim().parse::<f64>().is_ok() => 1,
                        Value::Text(_) => 0,
                        Value::Integer(_) | Value::Number(_) => 1,
                        Value::Bool(_) => 2,
                        Value::Numbers(_) => 3,
                        Value::Texts(_) => 4,
                        Value::Other(_) => 5,
                    };
                    columns[at].1[kind] += if kind == 0 && !typed {
                        // One word makes an untyped column text, however many years and codes stand in it.
                        PROBED
                    } else {
                        1
                    };
                    if let (0, Value::Text(text), None) = (kind, value, &columns[at].2) {
                        columns[at].2 = Some(text);
                    }
                }
            }
            Err(problem) => {
                first_bad.get_or_insert((place, problem));
            }
        }
    }
    if let (0, Some((place, problem))) = (good, &first_bad) {
        return Err(Error::data(format!(
            "no row of {} can be read; {}: {}",
            files.describe(),
            files.locate(*place),
            problem.text
        )));
    }
    if good == 0 {
        return Err(Error::data(format!("no rows in {}", files.describe())));
    }
    Ok(columns
        .into_iter()
        .map(|(name, counts, example)| {
            let most = counts.iter().copied().max().unwrap_or(0);
            let kind = KINDS.iter().zip(counts).find(|(_, n)| *n == most).map_or(ColumnKind::Empty, |(k, _)| *k);
            let kind = if most == 0 { ColumnKind::Empty } else { kind };
            ColumnInfo { name, kind, example }
        })
        .collect())
}
