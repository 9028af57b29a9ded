//! Which numbers are made of rankings and scores? Pure functions, without models or names.

pub mod classification;
pub mod correlation;
pub mod ranking;
