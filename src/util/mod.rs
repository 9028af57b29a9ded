//! Where do the small things live that every layer needs? Files, seeds, progress, time, memory, suggestions, the workspace.

pub mod clock;
pub mod fence;
pub mod files;
pub mod interrupt;
pub mod memory;
pub mod numbers;
pub mod progress;
pub mod registry;
pub mod seed;
pub mod suggest;
