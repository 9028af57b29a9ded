//! A model whose embeddings are weights of words, most of them zero.

use super::SentenceTransformer;
use super::sentence_transformer::TEXTS_PER_BLOCK;
use crate::error::Result;
use crate::flow::{EncodeOptions, EncodeSparse, SparseEmbeddings};
use crate::util::progress::Progress;

impl SentenceTransformer {
    /// The words of an embedding and their weights, the largest first, `top_k` at most.
    ///
    /// Source: `SparseEncoder.decode` of sentence-transformers.
    #[must_use]
    pub fn decode(&self, embeddings: &SparseEmbeddings, row: usize, top_k: Option<usize>) -> Vec<(String, f32)> {
        let (indices, values) = embeddings.row(row);
        let mut entries: Vec<(u32, f32)> = indices.iter().copied().zip(values.iter().copied()).collect();
        entries.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        entries.truncate(top_k.unwrap_or(usize::MAX));
        let indices: Vec<u32> = entries.iter().map(|entry| entry.0).collect();
        self.words(&indices).into_iter().zip(entries.iter().map(|entry| entry.1)).collect()
    }
}

impl EncodeSparse for SentenceTransformer {
    fn encode_sparse(&self, texts: &[&str], options: &EncodeOptions) -> Result<SparseEmbeddings> {
        let progress = options.progress.map_or_else(Progress::hidden, |what| Progress::new(what, texts.len() as u64));
        let mut embeddings = SparseEmbeddings::new(self.dimension());
        let most = options.max_active_dims.or(self.description().max_active_dims);
        let options = &EncodeOptions { max_active_dims: most, ..options.clone() };
        for block in texts.chunks(TEXTS_PER_BLOCK) {
            let mut rows = vec![Vec::new(); block.len()];
            self.encode_each(block, options, &progress, &mut |i, row| {
                rows[i] = SparseEmbeddings::entries(row, most);
            })?;
            rows.iter().for_each(|row| embeddings.push_entries(row));
        }
        progress.finish();
        Ok(embeddings)
    }

    fn words(&self, dimensions: &[u32]) -> Vec<String> {
        // those of an autoencoder are no words
        let word = |id: &u32| self.tokenizer().word(*id).filter(|_| self.autoencoder().is_none());
        dimensions.iter().map(|id| word(id).unwrap_or_else(|| format!("[{id}]"))).collect()
    }
}
