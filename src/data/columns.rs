//! Which column is an input and which the label, and what a row must have to be used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::probe::{ColumnInfo, ColumnKind, probe};
use super::source::{Cells, Files, Problem, Reason, Value};
use crate::error::{Error, Result};
use crate::flow::LabelKind;
use crate::util::suggest;

/// Names a label column goes by, in order of preference (sentence-transformers' data collator).
pub const LABEL_COLUMNS: [&str; 4] = ["label", "labels", "score", "scores"];

/// What to do with a row that cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// Refuse the data set, naming the rows.
    #[default]
    Refuse,
    /// Leave the row out, and count it.
    Skip,
}

/// One data set as a recipe describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetSpec {
    /// Its name in reports; none for an only one.
    pub name: Option<String>,
    /// Files, globs or directories, as written.
    pub paths: Vec<String>,
    /// The input columns in the loss's order; all text columns in file order without.
    pub columns: Option<Vec<String>>,
    /// The label column; found by [`LABEL_COLUMNS`] without.
    pub label: Option<String>,
    /// Use only the first rows.
    pub limit: Option<usize>,
    pub on_bad_row: OnBadRow,
    /// Prompts by column.
    pub prompts: BTreeMap<String, String>,
    /// Prompts for columns that have none of their own.
    pub common_prompts: CommonPrompts,
    /// The labels the loss takes.
    pub needs: LabelKind,
    /// From how many input columns on it does without labels.
    pub unlabelled_from: usize,
}

impl DatasetSpec {
    /// All of `paths`, roles by the rules, no limit, bad rows refused; labels of any kind may be missing.
    #[must_use]
    pub fn new(paths: Vec<String>, needs: LabelKind) -> Self {
        Self {
            name: None,
            paths,
            columns: None,
            label: None,
            limit: None,
            on_bad_row: OnBadRow::default(),
            prompts: BTreeMap::new(),
            common_prompts: CommonPrompts::default(),
            needs,
            unlabelled_from: if needs == LabelKind::Any { 0 } else { usize::MAX },
        }
    }
}

/// Prompts that were given for more than one data set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommonPrompts {
    /// For every column that is not named.
    pub all: Option<String>,
    /// For the first column, if it is not named.
    pub first: Option<String>,
    /// By column; a name that a data set does not have belongs to another one.
    pub columns: BTreeMap<String, String>,
}

impl CommonPrompts {
    /// That of a column, the data set's `number`th.
    #[must_use]
    pub fn of(&self, column: &str, number: usize) -> Option<&String> {
        let first = self.first.as_ref().filter(|_| number == 0);
        self.columns.get(column).or(first).or(self.all.as_ref())
    }
}

/// How a label cell is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelMode {
    /// A score a row.
    Number,
    /// A class number a row.
    Class,
    /// A class name a row, to be numbered in sorted order.
    ClassName,
    /// A list of scores a row.
    List,
    /// Numbers; whether they are classes or scores is told by what comes.
    Any,
}

/// The roles of the columns, settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Roles {
    /// The input columns in the loss's order; a column may be named twice.
    pub inputs: Vec<String>,
    /// One a column.
    pub prompts: Vec<Option<String>>,
    /// Whether the last column holds lists of texts.
    pub lists: bool,
    /// The label column and how its cells are read.
    pub label: Option<(String, LabelMode)>,
    /// Columns without a role.
    pub ignored: Vec<String>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Roles {
    /// Settles the roles from what the data set has and the recipe says.
    ///
    /// # Errors
    /// When a named column is missing or of a wrong kind, no text column is left, or the wanted label is not there.
    pub fn resolve(spec: &DatasetSpec, files: &Files) -> Result<Self> {
        let columns = probe(files)?;
        let find = |name: &str| find(&columns, name, files);
        let label = match &spec.label {
            Some(name) => Some(find(name)?),
            None => LABEL_COLUMNS
                .iter()
                .filter(|name| spec.columns.as_ref().is_none_or(|c| c.iter().all(|x| x != *name)))
                .find_map(|name| columns.iter().find(|c| c.name == *name)),
        };
        let mut notes = Vec::new();
        let wants_lists = spec.needs == LabelKind::Lists;
        let is_list = |column: &ColumnInfo| wants_lists && column.kind == ColumnKind::Texts;
        let inputs = match &spec.columns {
            Some(names) => {
                if names.is_empty() {
                    return Err(
                        Error::data("`columns` is empty").with_hint("name the input columns, or leave the key out")
                    );
                }
                for name in names {
                    let column = find(name)?;
                    if label.is_some_and(|l| l.name == *name) {
                        return Err(Error::data(format!("`{name}` is both an input column and the label")));
                    }
                    // An untyped column of numbers is text where it is asked for as text.
                    let untyped = files.first().is_some_and(|f| !f.format.is_typed());
                    if !matches!(column.kind, ColumnKind::Text | ColumnKind::Empty) && !untyped && !is_list(column) {
                        return Err(not_text(column, files));
                    }
                }
                names.clone()
            }
            None => {
                let others = columns.iter().filter(|c| label.is_none_or(|l| l.name != c.name));
                if let Some(list) = others.clone().find(|c| c.kind == ColumnKind::Texts && !wants_lists) {
                    return Err(not_text(list, files));
                }
                others.filter(|c| c.kind == ColumnKind::Text || is_list(c)).map(|c| c.name.clone()).collect()
            }
        };
        if inputs.is_empty() {
            return Err(Error::data(format!("{} has no text column", files.describe())).with_hint(it_has(&columns)));
        }
        let lists = list_is_last(&inputs, &columns, wants_lists, files)?;
        let ignored: Vec<String> = columns
            .iter()
            .filter(|c| !inputs.contains(&c.name) && label.is_none_or(|l| l.name != c.name))
            .map(|c| c.name.clone())
            .collect();
        if !ignored.is_empty() {
            notes.push(format!("columns without a role are ignored: {}", ticked(&ignored)));
        }
        for name in spec.prompts.keys() {
            if !inputs.contains(name) {
                return Err(Error::data(format!("the prompt for `{name}` belongs to no input column"))
                    .with_hint(suggest::hint(name, inputs.iter().map(String::as_str))));
            }
        }
        let optional = inputs.len() >= spec.unlabelled_from;
        let label = settle_label(spec, label, optional, &columns, files, &mut notes)?;
        Ok(Self {
            prompts: inputs
                .iter()
                .enumerate()
                .map(|(i, c)| spec.prompts.get(c).or_else(|| spec.common_prompts.of(c, i)))
                .map(|prompt| prompt.filter(|p| !p.is_empty()).cloned())
                .collect(),
            lists,
            inputs,
            label,
            ignored,
            notes,
        })
    }

    /// Of texts alone, without a label or prompts: the columns of these names, each once; with `lists`, the last may hold
    /// lists of texts.
    ///
    /// # Errors
    /// When a column is missing, named twice, or holds no text.
    pub fn of_texts(names: Vec<String>, columns: &[ColumnInfo], lists: bool, files: &Files) -> Result<Self> {
        let untyped = files.first().is_some_and(|f| !f.format.is_typed());
        let mut is_list = false;
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                return Err(Error::usage(format!("the column `{name}` is named twice")).with_hint("name it once"));
            }
            let column = find(columns, name, files)?;
            is_list = lists && i + 1 == names.len() && column.kind == ColumnKind::Texts;
            if !matches!(column.kind, ColumnKind::Text | ColumnKind::Empty) && !untyped && !is_list {
                return Err(not_text(column, files));
            }
        }
        if names.is_empty() {
            return Err(Error::data(format!("{} has no text column", files.describe())).with_hint(it_has(columns)));
        }
        let ignored = columns.iter().map(|c| c.name.clone()).filter(|name| !names.contains(name)).collect();
        let prompts = vec![None; names.len()];
        Ok(Self { inputs: names, prompts, lists: is_list, label: None, ignored, notes: Vec::new() })
    }

    /// The columns that have to be read.
    #[must_use]
    pub fn wanted(&self) -> Vec<String> {
        self.inputs.iter().cloned().chain(self.label.iter().map(|l| l.0.clone())).collect()
    }

    /// The texts and the label of a row, or why it cannot be used.
    pub fn check(&self, mut cells: Cells, typed: bool) -> Result<Usable, Problem> {
        let mut texts: Vec<String> = Vec::with_capacity(self.inputs.len());
        for (i, name) in self.inputs.iter().enumerate() {
            if let Some(before) = self.inputs[..i].iter().position(|n| n == name) {
                texts.push(texts[before].clone());
                continue;
            }
            match take(&mut cells, name)? {
                Value::Text(text) if text.trim().is_empty() => {
                    return Err(Problem::cell(Reason::EmptyText, name, "empty text"));
                }
                Value::Text(text) => texts.push(text),
                Value::Texts(list) if self.lists && i + 1 == self.inputs.len() => {
                    if list.is_empty() {
                        return Err(Problem::cell(Reason::EmptyText, name, "an empty list"));
                    }
                    if let Some(at) = list.iter().position(|text| text.trim().is_empty()) {
                        return Err(Problem::cell(Reason::EmptyText, name, format!("empty text at place {at}")));
                    }
                    texts.extend(list);
                }
                Value::Null => return Err(Problem::cell(Reason::Null, name, "null instead of text")),
                other => {
                    return Err(Problem::cell(Reason::WrongType, name, format!("{} instead of text", other.kind())));
                }
            }
        }
        let label = match &self.label {
            None => Label::None,
            Some((name, mode)) => read_label(name, *mode, take(&mut cells, name)?, typed)?,
        };
        if let (true, Some((name, _)), Label::List(list)) = (self.lists, &self.label, &label) {
            let texts = texts.len() + 1 - self.inputs.len();
            if list.len() != texts {
                let text = format!("{} labels for {texts} texts", list.len());
                return Err(Problem::cell(Reason::BadLabel, name, text));
            }
        }
        Ok(Usable { texts, label })
    }
}

/// A row that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Usable {
    /// One an input column; of a last column of lists all that the row has.
    pub texts: Vec<String>,
    pub label: Label,
}

/// A row's label.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    None,
    /// A number, and whether it was written as an integer.
    Number(f64, bool),
    Name(String),
    List(Vec<f64>),
}

/// The columns with texts, and with `lists` those with lists of them, that are not called as labels are.
#[must_use]
pub fn text_columns(columns: &[ColumnInfo], lists: bool) -> Vec<String> {
    let wanted = |column: &&ColumnInfo| {
        let text = column.kind == ColumnKind::Text || (lists && column.kind == ColumnKind::Texts);
        text && !LABEL_COLUMNS.contains(&column.name.as_str())
    };
    columns.iter().filter(wanted).map(|column| column.name.clone()).collect()
}

fn take(cells: &mut Cells, name: &str) -> Result<Value, Problem> {
    match cells.iter_mut().find(|(n, _)| n.as_ref() == name) {
        Some((_, value)) => Ok(std::mem::replace(value, Value::Null)),
        None => Err(Problem::cell(Reason::MissingColumn, name, "missing")),
    }
}

/// Integers beyond this are not exact as f64.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn read_label(name: &str, mode: LabelMode, value: Value, typed: bool) -> Result<Label, Problem> {
    let bad = |text: String| Err(Problem::cell(Reason::BadLabel, name, text));
    let wrong = |value: &Value, instead: &str| {
        Err(Problem::cell(Reason::WrongType, name, format!("{} instead of {instead}", value.kind())))
    };
    if mode == LabelMode::ClassName {
        return match value {
            Value::Text(text) if text.trim().is_empty() => bad("empty label".into()),
            Value::Text(text) => Ok(Label::Name(text)),
            Value::Null => Err(Problem::cell(Reason::Null, name, "null instead of a label")),
            other => wrong(&other, "a class name"),
        };
    }
    let (number, integer) = match value {
        Value::Null => return Err(Problem::cell(Reason::Null, name, "null instead of a label")),
        Value::Integer(i) => (i as f64, true),
        Value::Number(x) => (x, false),
        Value::Bool(b) => (f64::from(u8::from(b)), true),
        Value::Text(text) if !typed => {
            let text = text.trim();
            match text.parse::<f64>() {
                Ok(x) => (x, text.parse::<i64>().is_ok()),
                Err(_) if text.is_empty() => return Err(Problem::cell(Reason::Null, name, "no label")),
                Err(_) => {
                    return Err(Problem::cell(Reason::WrongType, name, format!("`{}` is not a number", short(text))));
                }
            }
        }
        Value::Numbers(list) if matches!(mode, LabelMode::List | LabelMode::Any) => {
            return match list.iter().find(|x| !x.is_finite()) {
                Some(x) => bad(format!("{x} in the list of labels")),
                None if list.is_empty() => bad("an empty list of labels".into()),
                None => Ok(Label::List(list)),
            };
        }
        other => return wrong(&other, "a number"),
    };
    if !number.is_finite() {
        return bad(format!("{number} is not a label"));
    }
    match mode {
        LabelMode::Class if number.fract() != 0.0 || number.abs() > EXACT => {
            bad(format!("{number} is not a class number"))
        }
        LabelMode::List => Ok(Label::List(vec![number])),
        _ => Ok(Label::Number(number, integer && number.abs() <= EXACT)),
    }
}

fn settle_label(
    spec: &DatasetSpec,
    label: Option<&ColumnInfo>,
    optional: bool,
    columns: &[ColumnInfo],
    files: &Files,
    notes: &mut Vec<String>,
) -> Result<Option<(String, LabelMode)>> {
    let Some(column) = label else {
        return match spec.needs {
            LabelKind::None => Ok(None),
            _ if optional => Ok(None),
            _ => {
                Err(Error::data(format!("{} has no label column, and the loss needs one", files.describe())).with_hint(
                    format!("name it with `label`, or call it one of {}; {}", ticked(&LABEL_COLUMNS), it_has(columns)),
                ))
            }
        };
    };
    let text = column.kind == ColumnKind::Text;
    let list = column.kind == ColumnKind::Numbers;
    let mode = match spec.needs {
        LabelKind::None => {
            notes.push(format!("the label column `{}` is not used: the loss takes no labels", column.name));
            return Ok(None);
        }
        LabelKind::Float | LabelKind::Matrix | LabelKind::Lists if text => {
            let example = column.example.as_deref().unwrap_or_default();
            let error = format!(
                "the label column `{}` of {} holds text (`{}`), and the loss needs numbers",
                column.name,
                files.describe(),
                short(example)
            );
            return Err(Error::data(error).with_hint(
                "write scores as numbers, name another column with `label`, or use a loss that takes classes",
            ));
        }
        LabelKind::Float | LabelKind::Int if list => {
            return Err(Error::data(format!(
                "the label column `{}` of {} holds lists of numbers, and the loss needs one number a row",
                column.name,
                files.describe()
            ))
            .with_hint("name another column with `label`, or use a loss that takes lists of scores"));
        }
        LabelKind::Float => LabelMode::Number,
        LabelKind::Matrix | LabelKind::Lists => LabelMode::List,
        LabelKind::Int | LabelKind::Any if text => LabelMode::ClassName,
        LabelKind::Int => LabelMode::Class,
        LabelKind::Any if list => LabelMode::List,
        LabelKind::Any => LabelMode::Any,
    };
    Ok(Some((column.name.clone(), mode)))
}

/// Whether the last input column holds lists, where lists are wanted: then it has to, and no other may.
fn list_is_last(inputs: &[String], columns: &[ColumnInfo], wanted: bool, files: &Files) -> Result<bool> {
    if !wanted {
        return Ok(false);
    }
    let list = |name: &String| columns.iter().any(|c| c.name == *name && c.kind == ColumnKind::Texts);
    let [singles @ .., last] = inputs else { return Ok(false) };
    let hint = "a row is a query, a list of its texts and a list of their scores: \
                `{\"query\": \"…\", \"docs\": [\"…\", \"…\"], \"labels\": [1, 0]}`; order them with `columns`";
    if !list(last) {
        let error = format!("column `{last}` of {} holds no lists of texts, and the loss needs them", files.describe());
        return Err(Error::data(error).with_hint(hint));
    }
    match singles.iter().find(|name| list(name)) {
        Some(other) => Err(Error::data(format!("`{other}` and `{last}` both hold lists of texts")).with_hint(hint)),
        None => Ok(true),
    }
}

fn find<'a>(columns: &'a [ColumnInfo], name: &str, files: &Files) -> Result<&'a ColumnInfo> {
    columns.iter().find(|c| c.name == name).ok_or_else(|| {
        let error = Error::data(format!("no column `{name}` in {}", files.describe()));
        match suggest::nearest(name, columns.iter().map(|c| c.name.as_str())) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error.with_hint(it_has(columns)),
        }
    })
}

fn not_text(column: &ColumnInfo, files: &Files) -> Error {
    let error = format!("column `{}` of {} holds {}, not text", column.name, files.describe(), column.kind.name());
    Error::data(error).with_hint(if column.kind == ColumnKind::Texts {
        format!("write one column a text (`{0}_1`, `{0}_2`), or name the `columns` to use without it", column.name)
    } else {
        "name other `columns`, or write its values as text".to_owned()
    })
}

fn it_has(columns: &[ColumnInfo]) -> String {
    let names: Vec<String> = columns.iter().map(|c| format!("`{}` ({})", c.name, c.kind.name())).collect();
    format!("it has {}", names.join(", "))
}

fn ticked<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|n| format!("`{}`", n.as_ref())).collect::<Vec<_>>().join(", ")
}

fn short(text: &str) -> String {
    let mut cut: String = text.chars().take(40).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}
