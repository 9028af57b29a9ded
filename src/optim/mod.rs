//! How do gradients become new weights, and when? Learning-rate schedules and the arithmetic of steps.

pub mod interval;
pub mod schedule;
pub mod steps;
