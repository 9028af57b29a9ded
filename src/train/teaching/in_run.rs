//! The step of a run that asks a teacher about the rows of its data sets before the first step.

use candle_core::Device;
use xxhash_rust::xxh3::xxh3_128;

use super::{Subject, Teaching, Wanted, teach};
use crate::data::store::MadeRows;
use crate::error::Result;
use crate::model::{ModelOptions, SentenceTransformer};
use crate::recipe::Plan;
use crate::recipe::plan::DatasetPlan;
use crate::recipe::teacher::Teacher;
use crate::train::events::{Event, Listener};
use crate::train::sets;
use crate::util::files;

/// The plan with rows that have a teacher's labels in place of those without; `None` where no data set has a teacher. What
/// the same teacher said of the same rows before is there still.
///
/// # Errors
/// As [`teach`], within the data set's name.
pub fn local_plan(plan: &Plan, device: &Device, listener: &mut dyn Listener) -> Result<Option<Plan>> {
    if plan.train_dataset.iter().chain(&plan.eval_dataset).all(|set| set.teacher.is_none()) {
        return Ok(None);
    }
    let mut local = plan.clone();
    for set in local.train_dataset.iter_mut().chain(&mut local.eval_dataset) {
        if let Some(teacher) = set.teacher.take() {
            let name = set.name.clone();
            in_set(set, &teacher, device, listener).map_err(|e| e.within(format!("data set `{name}`")))?;
        }
    }
    Ok(Some(local))
}

fn in_set(set: &mut DatasetPlan, asked: &Teacher, device: &Device, listener: &mut dyn Listener) -> Result<()> {
    let label = set.label.clone().unwrap_or_else(|| "label".to_owned());
    let subject = Subject::settle(&Wanted {
        paths: &set.path,
        columns: &set.columns,
        lesson: asked.labels,
        label: &label,
        limit: set.limit,
    })?;
    let folder = sets::locate(&asked.model)?;
    let key = files::fingerprint(&folder)?;
    let entry = MadeRows::of(entry_key(&subject, set, asked, &key)?)?;
    let mut say = |text: &str| listener.event(&Event::Message(text));
    if entry.notes()?.is_some() {
        say(&format!("data set `{}`: the teacher was asked before", set.name));
    } else {
        say(&format!("data set `{}`: asking the teacher", set.name));
        let options = ModelOptions { device: Some(device.clone()), ..ModelOptions::default() };
        let teacher = SentenceTransformer::load_with(&folder, &options)?;
        let teaching = Teaching::new(&subject, asked, &teacher, set.on_bad_row)?;
        let taught = teach(&subject, &teaching, &teacher, &key, &entry.rows, &mut say)?;
        let range = match taught.range {
            Some((least, mean, most)) => format!(", {least:.4} to {most:.4}, {mean:.4} on average"),
            None => String::new(),
        };
        say(&format!("data set `{}`: {} of {} rows{range}", set.name, subject.lesson().name(), taught.rows));
        entry.keep(subject.lesson().name())?;
    }
    set.columns = subject.columns().to_vec();
    set.label = Some(label);
    set.path = vec![entry.rows];
    set.limit = None;
    Ok(())
}

/// Everything that labels depend on.
fn entry_key(subject: &Subject, set: &DatasetPlan, asked: &Teacher, teacher: &str) -> Result<u128> {
    let asked = Teacher { model: teacher.to_owned(), ..asked.clone() };
    let settled = (subject.columns(), subject.lesson(), subject.label(), set.limit, set.on_bad_row);
    let mut from = format!("{asked:?} {settled:?}\n");
    for file in subject.paths() {
        from += &files::fingerprint(file)?;
    }
    Ok(xxh3_128(from.as_bytes()))
}
