//! Processes: is that one still alive, stop it, start one that outlives us.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::util::{fence, files};

/// A process that can be told from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Identity {
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`); none where the system does
    /// not tell.
    pub started_ticks: Option<u64>,
    /// The boot and process namespace in which the two above mean something.
    pub place: String,
    /// What the machine is known by, the same after a restart; none where it has no such name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

/// How near a process is of which [`Identity::alive`] cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// In another container of this machine: its locks are seen from here.
    Kernel,
    /// In a container that calls itself as this one does, of another boot.
    Name,
    /// Anywhere.
    Unknown,
}

impl Identity {
    /// This process.
    #[must_use]
    pub fn own() -> Self {
        let pid = std::process::id();
        Self { pid, started_ticks: stat(pid).map(|s| s.started_ticks), place: place(), machine: machine() }
    }

    /// Whether it runs still; `None` when that cannot be known from here (another machine or container).
    #[must_use]
    pub fn alive(&self) -> Option<bool> {
        let here = place();
        if self.place != here {
            return self.restarted(&here, machine().as_deref()).then_some(false);
        }
        Some(match stat(self.pid) {
            Some(now) => !now.ended && self.started_ticks.is_none_or(|then| then == now.started_ticks),
            None if cfg!(target_os = "linux") => false,
            None => answers(self.pid),
        })
    }

    /// Whether the machine was started again since: its name is the same, its boot another. In a container the name
    /// may be that of its image, which several machines have.
    fn restarted(&self, here: &str, machine: Option<&str>) -> bool {
        let outside = |place: &str| place.ends_with(FIRST_NAMESPACE);
        machine.is_some()
            && self.machine.as_deref() == machine
            && outside(here)
            && outside(&self.place)
            && boot(&self.place) != boot(here)
    }

    /// How near it is, where [`Identity::alive`] cannot tell.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let here = place();
        if !boot(&here).is_empty() && boot(&self.place) == boot(&here) {
            Reach::Kernel
        } else if self.machine.is_some() && self.machine == machine() {
            Reach::Name
        } else {
            Reach::Unknown
        }
    }

    /// Asks it to stop (SIGTERM). False when it was not there any more.
    ///
    /// # Errors
    /// When the system refuses, or when the process cannot be identified from here.
    pub fn terminate(&self) -> Result<bool> {
        if *self == Self::own() {
            return Err(Error::usage("the run's own process has not begun yet").with_hint("try again in a moment"));
        }
        match self.alive() {
            Some(true) => signal(self.pid),
            Some(false) => Ok(false),
            None => Err(Error::usage(format!("process {} runs on another machine or in another container", self.pid))
                .with_hint("cancel the run where it was started")),
        }
    }
}

struct Stat {
    ended: bool,
    started_ticks: u64,
}

/// State and start time from `/proc/<pid>/stat` (proc(5)).
fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // the name in parentheses may itself hold spaces and parentheses
    let after_name = text.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    Some(Stat {
        // a zombie has ended, its parent has only not looked yet
        ended: matches!(state, "Z" | "X" | "x"),
        started_ticks: fields.nth(18)?.parse().ok()?,
    })
}

fn place() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// The namespace of processes outside all containers (Linux, `PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

fn boot(place: &str) -> &str {
    place.split_once(' ').map_or(place, |(boot, _)| boot)
}

/// A name that the machine keeps when it is started again: of its id (machine-id(5), to be shown to nobody as it is) and
/// its host name.
#[must_use]
pub fn machine() -> Option<String> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?.trim().to_owned();
        Some(text).filter(|text| !text.is_empty())
    };
    let id = read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id"))?;
    let host = read("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(format!("{:032x}", xxhash_rust::xxh3::xxh3_128(format!("{id} {host}").as_bytes())))
}

#[cfg(unix)]
fn answers(pid: u32) -> bool {
    // SAFETY: signal 0 only asks whether the process exists.
    libc::pid_t::try_from(pid).is_ok_and(|pid| unsafe { libc::kill(pid, 0) } == 0)
}

#[cfg(unix)]
fn signal(pid: u32) -> Result<bool> {
    let number =
        libc::pid_t::try_from(pid).map_err(|_| Error::Internal(format!("process id {pid} is out of range")))?;
    // SAFETY: a plain system call; the process was identified just before.
    if unsafe { libc::kill(number, libc::SIGTERM) } == 0 {
        return Ok(true);
    }
    let cause = std::io::Error::last_os_error();
    if cause.raw_os_error() == Some(libc::ESRCH) {
        return Ok(false);
    }
    Err(Error::train(format!("cannot stop process {pid}: {cause}")).with_hint("it may belong to another user"))
}

#[cfg(not(unix))]
fn answers(_pid: u32) -> bool {
    false
}

#[cfg(not(unix))]
fn signal(_pid: u32) -> Result<bool> {
    Err(Error::usage("stopping another process is only possible on Unix"))
}

/// Starts this program again with `arguments`, in a session of its own: it outlives its parent and the terminal.
/// What it writes is appended to `console`.
///
/// # Errors
/// When the program or the file cannot be opened.
pub fn spawn_detached(arguments: &[&std::ffi::OsStr], directory: &Path, console: &Path) -> Result<Child> {
    let program = std::env::current_exe().map_err(Error::io("find", "the tallow program"))?;
    let output = files::append(console)?;
    let errors = output.try_clone().map_err(Error::io("open", console))?;
    let mut command = Command::new(&program);
    if let Some(workspace) = fence::workspace() {
        command.env(fence::VARIABLE, workspace);
    }
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(output).stderr(errors);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // SAFETY: setsid is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                Ok(())
            });
        }
    }
    command.spawn().map_err(Error::io("start", &program))
}

/// The last lines of a file, for error messages; empty when there are none.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = files::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_reused_number_is_another_process() {
        let own = Identity::own();
        assert_eq!(own.alive(), Some(true));
        let earlier = Identity { started_ticks: own.started_ticks.map(|t| t - 1), ..own.clone() };
        assert_eq!(earlier.alive(), Some(false));
        assert!(!earlier.terminate().unwrap());
        let elsewhere = Identity { place: "another boot".into(), ..own };
        assert_eq!(elsewhere.alive(), None);
        assert!(elsewhere.terminate().is_err());
    }

    #[test]
    fn a_restarted_machine_has_no_old_processes() {
        let at =
            |place: &str| Identity { pid: 1, started_ticks: Some(1), place: place.into(), machine: Some("m".into()) };
        let (first, second) = (format!("boot-1 {FIRST_NAMESPACE}"), format!("boot-2 {FIRST_NAMESPACE}"));
        assert!(at(&first).restarted(&second, Some("m")));
        assert!(!at(&first).restarted(&first, Some("m")));
        assert!(!at(&first).restarted(&second, Some("another")) && !at(&first).restarted(&second, None));
        // a container's name says little
        assert!(!at("boot-1 pid:[4026532000]").restarted(&second, Some("m")));
        assert!(!at(&first).restarted("boot-2 pid:[4026532000]", Some("m")));
        let nameless = Identity { machine: None, ..at(&first) };
        assert!(!nameless.restarted(&second, None));
    }

    #[test]
    fn near_and_far_are_told_apart() {
        let own = Identity::own();
        assert_eq!(own.reach(), Reach::Kernel);
        let elsewhere = Identity { place: "another boot".into(), machine: Some("m".into()), ..own.clone() };
        assert_eq!(elsewhere.reach(), Reach::Unknown);
        let named = Identity { machine: machine(), ..elsewhere };
        assert_eq!(named.reach(), if machine().is_some() { Reach::Name } else { Reach::Unknown });
    }

    #[test]
    fn an_unreaped_child_counts_as_ended() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let started_ticks = stat(child.id()).map(|s| s.started_ticks);
        let identity = Identity { pid: child.id(), started_ticks, place: place(), machine: None };
        assert_eq!(identity.alive(), Some(true));
        assert!(identity.terminate().unwrap());
        let ended = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            identity.alive() == Some(false)
        });
        assert!(ended, "a zombie was taken for a running process");
        child.wait().unwrap();
        assert_eq!(identity.alive(), Some(false));
    }

    #[test]
    fn names_with_parentheses_are_read() {
        let line = format!("7 (a) b) S {} 4242 0", (1..=18).map(|n| n.to_string()).collect::<Vec<_>>().join(" "));
        assert_eq!(parse_stat(&line).unwrap().started_ticks, 4242);
    }
}
