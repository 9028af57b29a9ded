//! Which parameters take weight decay: all but biases and normalisation weights, as transformers' Trainer decides.

/// Whether the parameter called `name` decays.
#[must_use]
pub fn decays(name: &str) -> bool {
    let name = name.to_lowercase();
    let norm = name.split('.').any(|part| part == "norm" || part.ends_with("_norm"));
    !(name.contains("bias") || name.contains("layernorm") || name.contains("rmsnorm") || norm)
}

#[cfg(test)]
mod tests {
    use super::decays;

    #[test]
    fn biases_and_norms_do_not_decay() {
        assert!(decays("0.auto_model.encoder.layer.0.attention.self.query.weight"));
        assert!(decays("0.embedding.weight"));
        assert!(!decays("0.auto_model.encoder.layer.0.attention.self.query.bias"));
        assert!(!decays("0.auto_model.embeddings.LayerNorm.weight"));
        assert!(!decays("0.auto_model.layers.1.attn_norm.weight"));
        assert!(!decays("0.auto_model.final.norm.weight"));
        assert!(decays("0.normal.weight"));
    }
}
