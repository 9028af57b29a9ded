//! How much memory the process has used, and how much it may still have: of the machine, and of the control groups
//! (containers, services, batch jobs) it runs in.

use std::fs;
use std::path::{Path, PathBuf};

/// The largest resident set of this process so far, in bytes; 0 where the system does not tell.
#[must_use]
pub fn peak() -> u64 {
    status_field("VmHWM:").unwrap_or(0)
}

/// The resident set now, in bytes; 0 where the system does not tell.
#[must_use]
pub fn resident() -> u64 {
    status_field("VmRSS:").unwrap_or(0)
}

/// The resident set of a process now, in bytes; 0 where the system does not tell.
#[must_use]
pub fn resident_of(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|text| field(&text, "VmRSS:")).unwrap_or(0)
}

/// Memory that can still be had without swapping and without meeting a limit, in bytes.
#[must_use]
pub fn available() -> Option<u64> {
    let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(left_in_groups(&groups, Path::new("/sys/fs/cgroup")).map_or(machine, |left| left.min(machine)))
}

/// The least that any of a process's control groups has left; `None` where none has a limit. `groups` is its
/// `/proc/self/cgroup`, and `root` where the groups are mounted.
fn left_in_groups(groups: &str, root: &Path) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        // `0::/path` in the second version, `4:memory:/path` in the first
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (mount, files) = if controllers.is_empty() {
            (root.to_owned(), &V2)
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), &V1)
        } else {
            continue;
        };
        // A limit holds for all groups below it. Inside a container the path can be that of the host, which is not to
        // be seen there: its root, where the container's own group is mounted, comes last.
        let mut group = Some(Path::new(path.trim_start_matches('/')));
        while let Some(now) = group {
            if let Some(left) = files.left(&mount.join(now)) {
                least = Some(least.map_or(left, |other| other.min(left)));
            }
            group = now.parent();
        }
    }
    least
}

/// What the files of a control group are called.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// The line of memory.stat with what caches files and can be given back.
    cached: &'static str,
}

const V2: Files = Files { limit: "memory.max", used: "memory.current", cached: "inactive_file" };
const V1: Files =
    Files { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cached: "total_inactive_file" };

impl Files {
    /// What a group has left below its own limit; `None` without one (`max`, or a number that does not exist).
    fn left(&self, group: &Path) -> Option<u64> {
        let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let limit = number(group.join(self.limit))?;
        let used = number(group.join(self.used))?;
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(self.cached)?.trim().parse::<u64>().ok());
        Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
    }
}

fn status_field(name: &str) -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, name)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// `1.4 GB`, `312 MB`, `88 kB`.
#[must_use]
pub fn human(bytes: u64) -> String {
    let mb = bytes as f64 / 1e6;
    if mb >= 1000.0 {
        format!("{:.1} GB", mb / 1000.0)
    } else if mb >= 1.0 {
        format!("{mb:.0} MB")
    } else {
        format!("{:.0} kB", mb * 1000.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_kib_fields() {
        assert_eq!(field("VmHWM:\t  2048 kB\n", "VmHWM:"), Some(2 << 20));
        assert_eq!(field("", "VmHWM:"), None);
        assert_eq!(human(1_430_000_000), "1.4 GB");
    }

    /// A mount of control groups: files by path, with their text.
    fn mounted(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_containers_limit_counts() {
        // in a container of its own the group is the root of the mount
        let root = mounted(&[
            ("memory.max", "1000\n"),
            ("memory.current", "700\n"),
            ("memory.stat", "anon 500\ninactive_file 150\nactive_file 50\n"),
        ]);
        assert_eq!(left_in_groups("0::/\n", root.path()), Some(450), "what files are cached in can be given back");
        assert_eq!(left_in_groups("0::/not/seen/here\n", root.path()), Some(450));
        assert_eq!(left_in_groups("", root.path()), None);
        // the tightest of a group and those above it
        let root = mounted(&[
            ("jobs/memory.max", "900"),
            ("jobs/memory.current", "800"),
            ("jobs/one/memory.max", "max"),
            ("jobs/one/memory.current", "10"),
        ]);
        assert_eq!(left_in_groups("0::/jobs/one", root.path()), Some(100));
        assert_eq!(left_in_groups("0::/other", root.path()), None);
    }

    #[test]
    fn the_first_version_has_other_names() {
        let root = mounted(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/memory.usage_in_bytes", "5"),
            ("memory/a/b/memory.limit_in_bytes", "2000"),
            ("memory/a/b/memory.usage_in_bytes", "2500"),
            ("memory/a/b/memory.stat", "inactive_file 1\ntotal_inactive_file 600\n"),
        ]);
        let groups = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n";
        assert_eq!(left_in_groups(groups, root.path()), Some(100));
        let far = left_in_groups("4:memory:/a", root.path()).unwrap();
        assert!(far > 1 << 60, "a limit beyond all memory limits nothing: {far}");
    }

    #[test]
    fn this_process_can_have_some() {
        // where there is /proc
        assert_eq!(available().is_some_and(|bytes| bytes > 0), cfg!(target_os = "linux"));
    }
}
