//! Files that start a training script somewhere else: on several GPUs, in a batch system, on rented machines.

use std::path::Path;

use serde::Serialize;

use super::python::{in_docstring, quoted};
use crate::error::Result;
use crate::render;

/// Where the script is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Accelerate,
    Torchrun,
    Jobs,
    Slurm,
    Ray,
}

impl Kind {
    const fn template(self) -> &'static str {
        match self {
            Self::Accelerate => "launch/accelerate.sh",
            Self::Torchrun => "launch/torchrun.sh",
            Self::Jobs => "launch/jobs.sh",
            Self::Slurm => "launch/slurm.sh",
            Self::Ray => "launch/ray.py",
        }
    }
}

/// What such a file is called.
#[must_use]
pub fn file(kind: Kind) -> &'static str {
    kind.template().trim_start_matches("launch/")
}

/// What to do with it.
#[must_use]
pub fn next(kind: Kind, path: &str) -> String {
    match kind {
        Kind::Slurm => format!("`sbatch {path}`"),
        Kind::Ray => format!("`RAY_ADDRESS=http://head-node:8265 python {path}`"),
        Kind::Accelerate | Kind::Torchrun | Kind::Jobs => format!("`bash {path}`"),
    }
}

#[derive(Debug, Serialize)]
struct Context {
    /// As a shell's word, in comments, and for Python.
    script: String,
    script_shown: String,
    script_doc: String,
    script_name: String,
    file: String,
    file_doc: String,
    job: String,
    requirements: String,
}

/// Writes the file that starts `script`; `output` is where it goes.
///
/// # Errors
/// When the template fails, which is a fault of the program.
pub fn render(kind: Kind, script: &Path, output: &Path, run_name: &str, requirements: &[String]) -> Result<String> {
    let name = script.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let shown = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let output = output.display().to_string();
    let packages: Vec<String> = requirements.iter().map(|package| quoted(package)).collect();
    let context = Context {
        script: shell(&script.display().to_string()),
        script_shown: shown(&script.display().to_string()),
        script_doc: in_docstring(&name),
        script_name: quoted(&name),
        file: shown(&output),
        file_doc: in_docstring(&output),
        // a batch system's names have no blanks
        job: run_name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect(),
        requirements: format!("[{}]", packages.join(", ")),
    };
    render::render(kind.template(), &context)
}

/// A word of a shell, in quotes where it needs them.
fn shell(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if plain && !text.starts_with('-') { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_quoted_for_each_language() {
        let script = Path::new("a b's\"$(x).py");
        for kind in [Kind::Accelerate, Kind::Torchrun, Kind::Jobs, Kind::Slurm] {
            let text = render(kind, script, Path::new("l\n.sh"), "a b", &[]).unwrap();
            assert!(text.contains("'a b'\\''s\"$(x).py'"), "{text}");
            assert!(!text.contains("l\n.sh"), "{text}");
        }
        let text = render(Kind::Ray, script, Path::new("l.py"), "a b", &["peft".to_owned()]).unwrap();
        assert!(text.contains(r#"with_name("a b's\"$(x).py")"#) && text.contains(r#"PACKAGES = ["peft"]"#), "{text}");
        assert!(render(Kind::Slurm, script, Path::new("l"), "a b", &[]).unwrap().contains("--job-name=a-b\n"));
    }
}
