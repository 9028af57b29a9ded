//! What is this machine? Name and value, as far as the system tells.

use crate::util::memory;

/// Program, system, processor, memory.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    let mut known = vec![
        ("tallow".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("System".to_owned(), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
    ];
    if let Some(name) = field("/proc/cpuinfo", "model name") {
        known.push(("Processor".to_owned(), name));
    }
    if let Ok(cores) = std::thread::available_parallelism() {
        known.push(("Cores".to_owned(), cores.to_string()));
    }
    let memory = field("/proc/meminfo", "MemTotal");
    let bytes = memory.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).map(|kib| kib * 1024);
    if let Some(bytes) = bytes {
        known.push(("Memory".to_owned(), memory::human(bytes)));
    }
    known
}

/// The value of a line `name : value` of a system's file.
fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))?.1.trim();
    (!value.is_empty()).then(|| value.to_owned())
}
