//! How is a batch turned into gradients?

mod plain;

pub use plain::forward_backward;
