//! How much memory the process has used and the machine has left.

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

/// Memory that can still be had without swapping, in bytes.
#[must_use]
pub fn available() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

fn status_field(name: &str) -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, name)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// `1.4 GB`, `312 MB`.
#[must_use]
pub fn human(bytes: u64) -> String {
    let mb = bytes as f64 / 1e6;
    if mb >= 1000.0 { format!("{:.1} GB", mb / 1000.0) } else { format!("{mb:.0} MB") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_kib_fields() {
        assert_eq!(super::field("VmHWM:\t  2048 kB\n", "VmHWM:"), Some(2 << 20));
        assert_eq!(super::field("", "VmHWM:"), None);
        assert_eq!(super::human(1_430_000_000), "1.4 GB");
    }
}
