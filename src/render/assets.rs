//! What is built into the program: the templates, by name.

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../templates/", $name, ".j2")))),*]
    };
}

/// Name and source of every template. Names with `_` in front are those that others are made of.
pub const TEMPLATES: &[(&str, &str)] = templates![
    "model_card.md",
    "report.html",
    "launch/accelerate.sh",
    "launch/jobs.sh",
    "launch/ray.py",
    "launch/slurm.sh",
    "launch/torchrun.sh",
    "python/_base.py",
    "python/_evaluators.py",
    "python/_parts.py",
    "python/_sparse.py",
    "python/_teacher.py",
    "python/cross_encoder_default.py",
    "python/cross_encoder_distillation.py",
    "python/cross_encoder_listwise.py",
    "python/multi_vector_encoder_default.py",
    "python/sentence_transformer_default.py",
    "python/sentence_transformer_distillation.py",
    "python/sentence_transformer_make_multilingual.py",
    "python/sentence_transformer_matryoshka.py",
    "python/sentence_transformer_mining.py",
    "python/sentence_transformer_multi_dataset.py",
    "python/sentence_transformer_static_embedding.py",
    "python/sentence_transformer_with_lora.py",
    "python/sparse_encoder_default.py",
    "python/sparse_encoder_distillation.py",
    "recipe/_base.toml",
    "recipe/cross_encoder_default.toml",
    "recipe/cross_encoder_distillation.toml",
    "recipe/cross_encoder_listwise.toml",
    "recipe/multi_vector_encoder_default.toml",
    "recipe/sentence_transformer_default.toml",
    "recipe/sentence_transformer_distillation.toml",
    "recipe/sentence_transformer_make_multilingual.toml",
    "recipe/sentence_transformer_matryoshka.toml",
    "recipe/sentence_transformer_mining.toml",
    "recipe/sentence_transformer_multi_dataset.toml",
    "recipe/sentence_transformer_static_embedding.toml",
    "recipe/sentence_transformer_with_lora.toml",
    "recipe/sparse_encoder_default.toml",
    "recipe/sparse_encoder_distillation.toml",
];
