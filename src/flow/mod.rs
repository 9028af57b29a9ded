//! What passes between the stages? Types and small traits only: batches, outputs, labels, metrics, cards.
//!
//! Nothing here opens a file or computes; every stage may import this, and stages meet nowhere else.

pub mod activation;
pub mod batch;
pub mod card;
pub mod embeddings;
pub mod kind;
pub mod labels;
pub mod look;
pub mod metrics;
pub mod multi_vectors;
pub mod outputs;
pub mod pairing;
pub mod sparse;
pub mod traits;

pub use activation::ActivationFn;
pub use batch::{Arrangement, Batch, PackedBatch};
pub use card::{Card, LabelKind};
pub use embeddings::Embeddings;
pub use kind::ModelType;
pub use labels::Labels;
pub use look::{Look, Scores};
pub use metrics::{Document, Metrics, Sample, Statistic};
pub use multi_vectors::MultiVectors;
pub use outputs::{Autoencoded, Outputs};
pub use pairing::Pairing;
pub use sparse::SparseEmbeddings;
pub use traits::{
    Classify, Encode, EncodeMultiVector, EncodeOptions, EncodeSparse, MicroBatch, Piece, Predict, Preprocess, Tokens,
    embedding_not_finite, score_not_finite,
};
