//! How is each differentiable operation computed, forward and backward?
//!
//! candle records these as custom operations; their kernels are here: threaded with rayon, vectorised with
//! run-time dispatch, generic over f32 (speed) and f64 (proof by finite differences). Parameters stand outside
//! candle's graph: an operation holds its [`Param`]s and its backward pass adds their gradients in place, so a
//! weight gradient is never zero-filled, copied or added twice. Sequences are packed, never padded: wherever
//! sequences matter, an operation takes their offsets in the token stream. Where the values are not on the CPU the
//! same functions are made of candle's own operations, in [`composed`].

pub mod activation;
pub mod adapter;
pub mod attention;
mod block;
mod checkpoint;
pub mod composed;
pub mod context;
mod curves;
pub mod device;
pub mod disentangled;
mod dora;
pub mod dropout;
pub mod eigen;
pub mod embedding;
pub mod encoder;
pub mod feed_forward;
pub mod gated;
pub(crate) mod kernel;
pub mod late_interaction;
pub mod linear;
mod math;
mod matmul;
pub mod norm;
pub mod param;
pub mod parameter;
pub mod pool;
pub mod product;
pub mod ranking;
pub(crate) mod real;
pub mod relative;
mod rms_norm;
pub mod rotary;
mod scratch;
pub mod seam;
mod self_attention;
mod sight;
pub mod splade;
pub mod stable;
pub mod vocabulary;
pub mod windows;

pub use activation::{Activation, activation};
pub use adapter::Adapter;
pub use attention::{attention, relative_attention};
pub use checkpoint::checkpoint;
pub use composed::select::{PAD, Selection};
pub use context::{Context, Dropout};
pub use device::number;
pub use disentangled::{Disentangled, disentangled_attention};
pub use dora::lengths as row_lengths;
pub use dropout::dropout;
pub use eigen::symmetric_eigen;
pub use embedding::{embedding_bag_mean, embedding_sum};
pub use encoder::{EncoderLayer, Keep, encoder};
pub use feed_forward::{FeedForward, feed_forward};
pub use gated::{gated, gated_last};
pub(crate) use kernel::simd_fn;
pub use late_interaction::{LateInteraction, Pairs, late_interaction, late_interaction_scores};
pub use linear::{linear, linears};
pub use matmul::{Bf16Products, Precision, bf16_products};
pub use norm::{l2_normalize, l2_normalize_prefix, layer_norm, residual_layer_norm};
pub use param::{Param, RowGradient, collect};
pub use parameter::parameter;
pub use pool::{PoolingMode, pool};
pub use product::dot_products;
pub use ranking::ranking_cross_entropy;
pub use real::Real;
pub use relative::Relative;
pub use rms_norm::rms_norm;
pub use rotary::{Rotary, rotary_attention, rotary_attention_to};
pub use scratch::release as release_scratch;
pub use seam::with_gradient;
pub use self_attention::{SelfAttention, causal_self_attention, self_attention};
pub use sight::Sight;
pub use splade::{SpladePooling, splade_pool};
pub use stable::{cross_entropy, logsumexp};
pub use vocabulary::vocabulary_cross_entropy;
pub use windows::windows;

/// Which vector instructions the kernels use on this machine: `avx512`, `avx2` or `baseline`.
#[must_use]
pub fn simd_level() -> &'static str {
    kernel::level().name()
}
