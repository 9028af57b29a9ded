//! One binary for all integration tests; a file a promise.
#![allow(
    clippy::err_expect,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod advice;
mod agent_path;
mod backbones;
mod borrowed;
mod catalogue;
mod check;
mod checkpointing;
mod choose;
mod classifier;
mod cli;
mod composed;
mod cross_encoder;
mod curves;
mod data;
mod decoders;
mod denoising;
mod disentangled;
mod distill;
mod dora;
mod encoders;
mod evaluators;
mod experiments;
mod hub;
mod inference;
mod known_faults;
mod layers;
mod lora;
mod losses;
mod mcp;
mod measured;
mod model;
mod modules;
mod multi_vector;
mod nano;
mod negatives;
mod ops;
mod optim;
mod prompts;
mod recipe;
mod references;
mod render;
mod report;
mod resume;
mod run_queue;
mod run_truth;
mod runs;
mod samplers;
mod schedule;
mod sparse_encoder;
mod sparse_more;
mod sparse_targets;
mod stepped;
mod students;
mod support;
mod teach;
#[cfg(unix)]
mod trackers;
mod train;
