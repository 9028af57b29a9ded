"""backbones_decoders.json and fixtures/decoders: tiny random networks of Llama's relatives and T5's encoder.

Values are computed text by text, so that nothing is padded, in float64. Windows are shorter than the longest text.
"""

import shutil

from common import FIXTURES, tensor, torch, versions, write
from make_backbones import LONG, TEXTS, byte_pairs, gradients, pattern
from safetensors.torch import save_file
from tokenizers import processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, T5EncoderModel

FOLDER = FIXTURES / "decoders"
# the last is longer than a block of the windowed kernel
TEXTS_HERE = (*TEXTS[:2], LONG[:130])


def tokenizer(folder):
    """Texts end in the token that says so, as those of embedding models of these architectures."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    post = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs(special, post), model_max_length=320, padding_side="left",
        bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return fast


def case(name, model_type, seed, wanted, head=False, texts=TEXTS_HERE, **keys):
    folder = FOLDER / name
    folder.mkdir(parents=True)
    fast = tokenizer(folder)
    extra = {"max_position_embeddings": 320} if model_type != "t5" else {}
    config = AutoConfig.for_model(
        model_type, vocab_size=len(fast), initializer_range=0.3, pad_token_id=1, bos_token_id=0, eos_token_id=2, **extra, **keys)
    torch.manual_seed(seed)
    if model_type == "t5":
        whole = T5EncoderModel(config)
    else:
        whole = (AutoModelForCausalLM if head else AutoModel).from_config(config)
    with torch.no_grad():
        for key, value in whole.named_parameters():
            if "norm" in key.lower():
                value.add_(0.2 * torch.randn_like(value))
            elif key.endswith("bias"):
                value.copy_(0.2 * torch.randn_like(value))
            elif model_type == "t5":
                value.copy_(0.3 * torch.randn_like(value))
    if model_type == "t5":
        # what a whole model has beside its encoder
        more = {"lm_head.weight": torch.randn(len(fast), config.d_model), "decoder.final_layer_norm.weight": torch.ones(config.d_model)}
        state = {key: value.contiguous() for key, value in whole.state_dict().items() if key != "encoder.embed_tokens.weight"}
        save_file(state | more, folder / "model.safetensors", metadata={"format": "pt"})
        config.architectures = ["T5EncoderModel"]
        config.save_pretrained(folder)
    else:
        whole.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    (folder / "generation_config.json").unlink(missing_ok=True)
    load = T5EncoderModel if model_type == "t5" else AutoModel
    network = load.from_pretrained(folder, dtype=torch.float64).eval()
    read = AutoTokenizer.from_pretrained(folder)
    features = [read(text, return_tensors="pt") for text in texts]
    ids = [f["input_ids"] for f in features]
    hidden = torch.cat([network(input_ids=i).last_hidden_state[0] for i in ids])
    out = {
        "model": name, "texts": list(texts), "token_ids": [i[0].tolist() for i in ids], "hidden": tensor(hidden.float()),
        "gradients": gradients(network, pattern(hidden), wanted),
    }
    print(name, sum(p.numel() for p in network.parameters()), "numbers", float(hidden.abs().max()))
    return out


SMALL = dict(hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
LAYER = ["layers.0.self_attn.q_proj.weight", "layers.0.self_attn.k_proj.weight", "layers.0.mlp.gate_proj.weight",
         "layers.1.self_attn.v_proj.weight", "layers.1.input_layernorm.weight", "layers.1.mlp.down_proj.weight", "norm.weight"]
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    gemma = dict(SMALL, num_hidden_layers=3, head_dim=6, query_pre_attn_scalar=10, sliding_window=9,
                 layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                 rope_parameters={"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0},
                                  "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}})
    names = [*LAYER, "layers.0.self_attn.q_norm.weight", "layers.2.post_attention_layernorm.weight",
             "layers.1.pre_feedforward_layernorm.weight", "layers.1.post_feedforward_layernorm.weight"]
    t5 = dict(d_model=16, d_kv=6, d_ff=20, num_layers=2, num_heads=3)
    block = ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.block.0.layer.1.layer_norm.weight",
             "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
             "encoder.block.1.layer.1.DenseReluDense.wo.weight", "encoder.final_layer_norm.weight"]
    cases = [
        case("llama", "llama", 31, [*LAYER, "layers.0.self_attn.o_proj.bias", "layers.0.mlp.up_proj.bias"], head=True,
             attention_bias=True, mlp_bias=True, tie_word_embeddings=False, rope_parameters=LLAMA3, **SMALL),
        case("mistral", "mistral", 32, LAYER, sliding_window=7, head_dim=6, **SMALL),
        case("qwen2", "qwen2", 33, [*LAYER, "layers.0.self_attn.k_proj.bias"], head=True, tie_word_embeddings=True,
             use_sliding_window=True, sliding_window=5, max_window_layers=1, **SMALL),
        case("qwen2-bidirectional", "qwen2", 34, LAYER, is_causal=False, **SMALL),
        case("qwen3", "qwen3", 35, [*LAYER, "layers.0.self_attn.q_norm.weight", "layers.1.self_attn.k_norm.weight"],
             head_dim=8, **SMALL),
        case("gemma3", "gemma3_text", 36, names, **gemma),
        case("gemma3-bidirectional", "gemma3_text", 37, names, use_bidirectional_attention=True, **gemma),
        case("t5", "t5", 38, [*block, "encoder.block.0.layer.1.DenseReluDense.wi.weight"], **t5),
        case("t5-gated", "t5", 39, [*block, "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"],
             feed_forward_proj="gated-gelu", relative_attention_num_buckets=16, relative_attention_max_distance=20, **t5),
    ]
    write("backbones_decoders.json", {"about": versions(), "cases": cases})


if __name__ == "__main__":
    main()
