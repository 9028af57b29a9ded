//! What is built into the program: the skill and its references, and the templates, by name.

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../templates/", $name, ".j2")))),*]
    };
}

macro_rules! documents {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../", $path)))),*]
    };
}

/// Path and text of the skill and of every page of its references.
pub const DOCUMENTS: &[(&str, &str)] = documents![
    "SKILL.md",
    "references/base_model_selection.md",
    "references/catalogue.md",
    "references/checks.md",
    "references/dataset_formats.md",
    "references/decisions.md",
    "references/evaluators_cross_encoder.md",
    "references/evaluators_multi_vector_encoder.md",
    "references/evaluators_sentence_transformer.md",
    "references/evaluators_sparse_encoder.md",
    "references/experiments.md",
    "references/hardware_guide.md",
    "references/hf_jobs_execution.md",
    "references/losses_cross_encoder.md",
    "references/losses_multi_vector_encoder.md",
    "references/losses_sentence_transformer.md",
    "references/losses_sparse_encoder.md",
    "references/mcp.md",
    "references/model_architectures.md",
    "references/performance.md",
    "references/prompts_and_instructions.md",
    "references/results.md",
    "references/training_args.md",
    "references/troubleshooting.md",
];

/// Name and source of every template. Names with `_` in front are those that others are made of.
pub const TEMPLATES: &[(&str, &str)] = templates![
    "model_card.md",
    "prompts/improve_last_run.md",
    "prompts/train_a_reranker.md",
    "prompts/train_a_retriever.md",
    "prompts/train_a_sparse_encoder.md",
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
