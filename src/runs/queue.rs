//! Whose turn is it? A run uses all cores, so those of one user on one machine train one after the other, in whatever
//! folders they are.
//!
//! Each run has a ticket, a file in the user's cache that its process keeps locked. A process that is gone, however it
//! went, has no lock, so its ticket counts for nothing and is swept away by the next who looks. Tickets are numbered in
//! the order of arrival.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::folder::RunFolder;
use super::process::{self, Identity};
use crate::data::store::cache;
use crate::error::{Error, Result};
use crate::util::{files, interrupt, memory};

/// How many runs of a user may train at once on a machine.
const MOST: &str = "TALLOW_MAX_RUNS";

/// Held while tickets are looked at, which takes moments.
const LOCK: &str = ".lock";
const PATIENCE: Duration = Duration::from_secs(5);

/// The runs of this user on this machine.
#[derive(Debug, Clone)]
pub struct Queue {
    dir: PathBuf,
    most: usize,
}

/// What a ticket says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    run_id: String,
    run_dir: PathBuf,
    process: Identity,
    /// The most memory it will need, in bytes, where a smoke test has told.
    memory: Option<u64>,
    /// Whether its turn has come.
    begun: bool,
}

/// A run's place; it is given up when this is dropped, or the process ends.
#[derive(Debug)]
pub struct Ticket {
    queue: Queue,
    path: PathBuf,
    file: File,
    entry: Entry,
}

/// Why a run has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Its place among those that wait; 1 for the next.
    pub position: usize,
    /// What it waits for.
    pub reason: String,
}

/// How many runs may train at once: 1, or what `TALLOW_MAX_RUNS` says.
///
/// # Errors
/// When that is no number of runs.
pub fn most() -> Result<usize> {
    match std::env::var(MOST) {
        Err(_) => Ok(1),
        Ok(text) if text.trim().is_empty() => Ok(1),
        Ok(text) => text.trim().parse().ok().filter(|most| *most > 0).ok_or_else(|| {
            Error::usage(format!("`{MOST}` is `{text}`, which is no number of runs"))
                .with_hint("1 lets runs train one after the other, 2 two at a time")
        }),
    }
}

impl Queue {
    /// The queue of this user on this machine.
    ///
    /// # Errors
    /// When `TALLOW_MAX_RUNS` cannot be meant, or there is no place for tickets.
    pub fn here() -> Result<Self> {
        // caches are often shared by machines, processors are not
        let machine = process::machine().unwrap_or_else(|| "machine".to_owned());
        Self::at(cache::place("queue")?.join(machine), most()?)
    }

    fn at(dir: PathBuf, most: usize) -> Result<Self> {
        files::create_dir(&dir)?;
        Ok(Self { dir, most })
    }

    /// Gives a run of this process the last place. `memory` is the most it will need, in bytes, where that is known.
    ///
    /// # Errors
    /// When tickets cannot be written.
    pub fn join(&self, folder: &RunFolder, memory: Option<u64>) -> Result<Ticket> {
        let (path, file) = loop {
            let last = self.tickets()?.iter().filter_map(|path| number(path)).max().unwrap_or(0);
            let path = self.dir.join(format!("{:016}.json", last + 1));
            match File::options().write(true).create_new(true).open(&path) {
                // another took it for one that nobody holds, and sweeps it away
                Ok(file) if !files::lock(&file) || !files::is_at(&file, &path) => {}
                Ok(file) => break (path, file),
                // another was faster
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", &path)(error)),
            }
        };
        let (run_id, run_dir) = (folder.run_id().to_owned(), folder.dir());
        let entry = Entry { run_id, run_dir, process: Identity::own(), memory, begun: false };
        let mut ticket = Ticket { queue: self.clone(), path, file, entry };
        ticket.write()?;
        Ok(ticket)
    }

    /// All tickets, in order.
    fn tickets(&self) -> Result<Vec<PathBuf>> {
        Ok(files::list(&self.dir)?.into_iter().filter(|path| number(path).is_some()).collect())
    }

    /// The tickets of other processes that are alive, in order; the rest is swept away. Under the lock only.
    fn others(&self, own: &Path) -> Result<Vec<(u64, Entry)>> {
        let mut found = Vec::new();
        for path in self.tickets()?.into_iter().filter(|path| path != own) {
            // gone meanwhile, with its process
            let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
            let entry = files::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
            // the second where a file system has no locks
            let alive = !files::lock(&file) || entry.as_ref().is_some_and(|e| e.process.alive() == Some(true));
            match (alive, number(&path), entry) {
                (true, Some(number), Some(entry)) => found.push((number, entry)),
                // a ticket that could not be written down (a full disk) is in nobody's way
                (true, _, _) => {}
                (false, _, _) => drop(std::fs::remove_file(&path)),
            }
        }
        Ok(found)
    }
}

/// The number of a ticket.
fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

impl Ticket {
    fn write(&mut self) -> Result<()> {
        let text = serde_json::to_vec(&self.entry).map_err(|e| Error::Internal(format!("a ticket: {e}")))?;
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&text)
        };
        write(&mut self.file).map_err(Error::io("write", &self.path))
    }

    /// Asks whether it may begin: `None`, and it has begun, or why not yet. `now` does not wait for anybody.
    ///
    /// # Errors
    /// When tickets cannot be read or written.
    pub fn ask(&mut self, now: bool) -> Result<Option<Wait>> {
        self.ask_within(now, PATIENCE)
    }

    fn ask_within(&mut self, now: bool, patience: Duration) -> Result<Option<Wait>> {
        let path = self.queue.dir.join(LOCK);
        let lock = files::lock_within(&path, patience, interrupt::requested)?;
        if lock.is_none() && !now {
            // a process that was stopped in the middle: if nobody waited for it, all would begin at once
            let ahead = self.queue.tickets()?.iter().filter(|other| **other < self.path).count();
            let reason = format!("another process holds `{}`", path.display());
            return Ok(Some(Wait { position: ahead + 1, reason }));
        }
        if !now {
            let others = self.queue.others(&self.path)?;
            let own = number(&self.path).unwrap_or(u64::MAX);
            if let Some(wait) = judge(own, self.entry.memory, &others, self.queue.most, memory::available()) {
                return Ok(Some(wait));
            }
        }
        self.entry.begun = true;
        self.write()?;
        Ok(None)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // before the lock goes with the file: a ticket without one is anybody's to sweep away
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the run with ticket `own` has to wait, and for what. Runs begin in the order of their tickets: one that has no
/// room is not overtaken by a smaller one.
fn judge(own: u64, memory: Option<u64>, others: &[(u64, Entry)], most: usize, available: Option<u64>) -> Option<Wait> {
    let ahead = others.iter().filter(|(number, entry)| !entry.begun && *number < own).count();
    let running: Vec<&Entry> = others.iter().map(|(_, entry)| entry).filter(|entry| entry.begun).collect();
    // a run alone on the machine takes its batches in parts where memory is short
    if running.is_empty() && ahead == 0 {
        return None;
    }
    let position = ahead + 1;
    if running.len() >= most {
        let reason = format!("{} under way on this machine", names(&running));
        return Some(Wait { position, reason });
    }
    let held: Vec<(Option<u64>, u64)> =
        running.iter().map(|entry| (entry.memory, memory::resident_of(entry.process.pid))).collect();
    if let Some((need, left)) = short_of(memory, &held, available) {
        let (need, left) = (memory::human(need), memory::human(left));
        let reason =
            format!("about {need} of memory are needed, and beside {} about {left} will be free", which(&running));
        return Some(Wait { position, reason });
    }
    (ahead > 0).then(|| Wait { position, reason: format!("{ahead} that came before") })
}

/// What is needed and what is left, where that is less. `running` has for each run what it will need at most, where that
/// is known, and what it has by now, which is not `available` any more.
fn short_of(memory: Option<u64>, running: &[(Option<u64>, u64)], available: Option<u64>) -> Option<(u64, u64)> {
    let (need, available) = (memory?, available?);
    let growth: u64 = running.iter().map(|(peak, now)| peak.unwrap_or(*now).saturating_sub(*now)).sum();
    let left = available.saturating_sub(growth);
    (!running.is_empty() && need > left).then_some((need, left))
}

/// The runs by their ids, and the verb.
fn names(running: &[&Entry]) -> String {
    format!("{} {}", which(running), if running.len() == 1 { "is" } else { "are" })
}

fn which(running: &[&Entry]) -> String {
    let ids: Vec<String> = running.iter().map(|entry| format!("`{}`", entry.run_id)).collect();
    format!("{} {}", if ids.len() == 1 { "run" } else { "runs" }, ids.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runs::status::{self, Status};

    fn run(dir: &Path, name: &str) -> RunFolder {
        let folder = RunFolder::create(&dir.join("runs"), name).unwrap();
        status::write(&folder, &Status::starting(folder.run_id(), name)).unwrap();
        folder
    }

    #[test]
    fn turns_come_in_the_order_of_arrival() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::at(dir.path().join("queue"), 1).unwrap();
        let folders = ["a", "b", "c"].map(|name| run(dir.path(), name));
        let mut tickets: Vec<Ticket> = folders.iter().map(|folder| queue.join(folder, None).unwrap()).collect();
        // whoever asks first: the second has to wait for the first
        assert_eq!(tickets[1].ask(false).unwrap().unwrap(), Wait { position: 2, reason: "1 that came before".into() });
        assert_eq!(tickets[0].ask(false).unwrap(), None);
        let wait = tickets[1].ask(false).unwrap().unwrap();
        assert_eq!(wait.position, 1);
        assert!(wait.reason.contains(folders[0].run_id()) && wait.reason.ends_with("is under way on this machine"));
        assert_eq!(tickets[2].ask(false).unwrap().unwrap().position, 2);
        // one that does not wait counts as well
        assert_eq!(tickets[2].ask(true).unwrap(), None);
        drop(tickets.remove(0));
        assert!(tickets[0].ask(false).unwrap().unwrap().reason.contains(folders[2].run_id()));
        drop(tickets.remove(1));
        assert_eq!(tickets[0].ask(false).unwrap(), None);
        drop(tickets);
        assert!(queue.tickets().unwrap().is_empty());
    }

    #[test]
    fn a_lock_that_is_held_lets_only_those_begin_that_do_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::at(dir.path().join("queue"), 1).unwrap();
        let held = files::wait_for_lock(&queue.dir.join(LOCK), PATIENCE).unwrap();
        let mut tickets = ["a", "b"].map(|name| queue.join(&run(dir.path(), name), None).unwrap());
        let wait = tickets[1].ask_within(false, Duration::ZERO).unwrap().unwrap();
        assert!(wait.position == 2 && wait.reason.contains("another process holds"), "{wait:?}");
        assert_eq!(tickets[1].ask_within(true, Duration::ZERO).unwrap(), None);
        drop(held);
        assert!(tickets[0].ask(false).unwrap().is_some());
        drop(tickets);
        assert!(queue.tickets().unwrap().is_empty());
    }

    #[test]
    fn tickets_taken_at_once_are_of_different_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::at(dir.path().join("queue"), 1).unwrap();
        let folder = run(dir.path(), "a");
        let taken: Vec<Ticket> = std::thread::scope(|scope| {
            let join = || scope.spawn(|| queue.join(&folder, None).unwrap());
            let all: Vec<_> = (0..8).map(|_| join()).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(queue.tickets().unwrap().len(), taken.len());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_dead_are_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::at(dir.path().join("queue"), 1).unwrap();
        let folder = run(dir.path(), "a");
        let dead = |begun: bool| {
            let mut process = Identity::own();
            process.started_ticks = process.started_ticks.map(|ticks| ticks - 1);
            let run_id = "dead".to_owned();
            serde_json::to_vec(&Entry { run_id, run_dir: folder.dir(), process, memory: Some(1 << 60), begun }).unwrap()
        };
        for (name, text) in [("1", dead(true)), ("2", dead(false)), ("3", b"{\"half".to_vec())] {
            std::fs::write(queue.dir.join(format!("{name}.json")), text).unwrap();
        }
        let mut ticket = queue.join(&folder, Some(1)).unwrap();
        assert_eq!(number(&ticket.path), Some(4));
        assert_eq!(ticket.ask(false).unwrap(), None);
        assert_eq!(queue.tickets().unwrap(), [ticket.path.clone()]);
    }

    #[test]
    fn memory_guards_runs_beside_each_other() {
        // what the others will still take is not free
        assert_eq!(short_of(Some(400), &[(Some(1000), 700)], Some(700)), None);
        assert_eq!(short_of(Some(401), &[(Some(1000), 700)], Some(700)), Some((401, 400)));
        assert_eq!(
            short_of(Some(401), &[(Some(1000), 1200)], Some(401)),
            None,
            "one that took more than was estimated"
        );
        assert_eq!(short_of(Some(9), &[(None, 5)], Some(8)), Some((9, 8)));
        assert_eq!(short_of(Some(9), &[], Some(8)), None, "alone it takes its batches in parts");
        assert_eq!(short_of(None, &[(Some(9), 0)], Some(1)), None);
        assert_eq!(short_of(Some(9), &[(Some(9), 0)], None), None, "where the system does not tell");
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::at(dir.path().join("queue"), 2).unwrap();
        let mut tickets = [1 << 20, 1 << 62, 1].map(|need| queue.join(&run(dir.path(), "a"), Some(need)).unwrap());
        assert_eq!(tickets[0].ask(false).unwrap(), None);
        if memory::available().is_some() {
            let wait = tickets[1].ask(false).unwrap().unwrap();
            assert!(wait.reason.contains("of memory are needed"), "{wait:?}");
            assert_eq!(tickets[2].ask(false).unwrap().unwrap().position, 2, "a smaller one overtook");
        }
    }
}
