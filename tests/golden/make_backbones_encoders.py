"""backbones_encoders.json and more of fixtures/backbones: DeBERTa-v2 and v3, NomicBERT and GTE, as backbones.json.

`nomic-old` and `new` have the names and keys of the code that lies beside the published checkpoints. transformers reads
those names, too; what it lacks (NomicBERT's biases, GTE's scaled angles) is put into its modules here.
"""

import json
import shutil
import tempfile
from pathlib import Path

from common import torch, versions, write
from make_backbones import FOLDER, LETTERS, LONG, TEXTS, case, make, word_pieces, xlm_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

import make_backbones

# longer than a block of queries
TWO_BLOCKS = LONG[:150]
FEW = TEXTS[:3]


def deberta_tokenizer():
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    pieces = [(token, 0.0) for token in special]
    pieces += [("▁", -3.0), ("▁the", -2.5), ("ing", -3.5), *((letter, -4.0 - 0.1 * i) for i, letter in enumerate(LETTERS))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return tokenizer, dict(zip(["pad", "cls", "sep", "unk", "mask"], special)), True


def bucket_rows(buckets, farthest, reach):
    """The row of a key so many places before its query, as the attention looks it up."""
    tokens = torch.zeros(1, reach + 1, 1)
    rows = build_relative_position(tokens, tokens, bucket_size=buckets, max_position=farthest)[0]
    span = buckets if buckets > 0 else farthest
    by_distance = torch.cat([rows[0, 1:].flip(0), rows[:, 0]])
    return torch.clamp(by_distance + span, 0, 2 * span - 1)


def old_nomic(name):
    """A checkpoint's names as the code beside the first ones has them."""
    for new, old in [("embeddings.LayerNorm", "emb_ln"), ("nomic_bert.layers", "nomic_bert.encoder.layers"),
                     ("self_attn.o_proj", "attn.out_proj"), ("self_attn.qkv", "attn.Wqkv"), ("up_proj", "fc11"),
                     ("gate_proj", "fc12"), ("down_proj", "fc2"), ("post_attention_layernorm", "norm1"),
                     ("post_mlp_layernorm", "norm2")]:
        name = name.replace(new, old)
    return name


def old_gte(name):
    for new, old in [("gte.layers", "gte.encoder.layer"), ("self_attn.o_proj", "attention.o_proj"),
                     ("self_attn.qkv", "attention.qkv_proj"), ("mlp.up_gate", "mlp.up_gate_proj"),
                     ("post_attention_layernorm", "attn_ln"), ("post_mlp_layernorm", "mlp_ln"),
                     ("lm_head.layer_norm", "lm_head.norm")]:
        name = name.replace(new, old)
    return name.replace("gte.", "new.", 1) if name.startswith("gte.") else name


def fused(state, parts, whole):
    """Layers of one input as one: `parts` of a name in this order."""
    for key in [key for key in state if f".{parts[0]}." in key]:
        tensors = [state.pop(key.replace(parts[0], part)) for part in parts]
        state[key.replace(parts[0], whole)] = torch.cat(tensors)
    return state


def in_old_form(source, name, rename, parts, keys, drop):
    """A copy of a folder with the names and keys of the code beside the checkpoints; `drop`: keys that it lacks."""
    target = FOLDER / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    state = load_file(source / "model.safetensors")
    for names, whole in parts:
        state = fused(state, names, whole)
    save_file({rename(key): value for key, value in state.items()}, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in drop} | keys
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for file in target.iterdir():
        file.chmod(0o644)
    return target


def patched(change):
    """Lets `change` have every model that is loaded, before it is used."""
    class Loading:
        def __enter__(self):
            self.kinds = [make_backbones.AutoModelForMaskedLM, make_backbones.AutoModelForSequenceClassification]
            self.loads = [kind.from_pretrained for kind in self.kinds]
            for kind, load in zip(self.kinds, self.loads):
                kind.from_pretrained = lambda folder, load=load: changed(load(folder), folder)

        def __exit__(self, *_):
            for kind, load in zip(self.kinds, self.loads):
                kind.from_pretrained = load

    def changed(model, folder):
        change(model, folder)
        return model

    return Loading()


def with_biases(model, folder):
    """NomicBERT's layers with the biases that a file beside the folder has."""
    biases = load_file(folder.parent / f"{folder.name}.safetensors")
    for name, value in biases.items():
        layer, _ = name.rsplit(".", 1)
        model.get_submodule(layer).bias = torch.nn.Parameter(value.clone())


def nomic_cases():
    shape = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20,
                 max_position_embeddings=320, limit=320, rope_parameters={"rope_type": "default", "rope_theta": 1000.0})
    native = make("nomic", "nomic_bert", word_pieces(True), 11, **shape)
    names = ["embeddings.LayerNorm.weight", "layers.0.self_attn.q_proj.weight", "layers.1.self_attn.v_proj.weight",
             "layers.0.mlp.gate_proj.weight", "layers.1.mlp.up_proj.weight", "layers.1.post_mlp_layernorm.bias",
             "embeddings.token_type_embeddings.weight"]
    heads = ["nomic_bert.pooler.dense.weight", "classifier.weight", "nomic_bert.layers.0.mlp.down_proj.weight"]
    yield case("nomic", native, names, heads, texts=FEW)

    base = make("nomic-old", "nomic_bert", word_pieces(True), 12, **dict(shape, num_hidden_layers=1))
    generator = torch.Generator().manual_seed(13)
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    sizes = {"self_attn.q_proj": hidden, "self_attn.k_proj": hidden, "self_attn.v_proj": hidden, "self_attn.o_proj": hidden,
             "mlp.gate_proj": inner, "mlp.up_proj": inner, "mlp.down_proj": hidden}
    biases = {f"nomic_bert.layers.0.{name}.bias": 0.3 * torch.randn(size, generator=generator) for name, size in sizes.items()}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "nomic-old"
        shutil.copytree(base, copy)
        save_file(biases, Path(folder) / "nomic-old.safetensors")
        with patched(with_biases):
            found = case("nomic-old", copy, ["layers.0.self_attn.o_proj.bias", "layers.0.mlp.up_proj.bias",
                                             "layers.0.mlp.gate_proj.weight"], ["classifier.bias"], texts=FEW)
        found["gradients"] = {old_nomic(f"nomic_bert.{key}").removeprefix("nomic_bert."): value
                              for key, value in found["gradients"].items()}
        state = load_file(copy / "model.safetensors") | biases
        save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((copy / "config.json").read_text())
        old = {"n_embd": hidden, "n_head": 2, "n_layer": 1, "n_inner": inner, "n_positions": 320, "activation_function": "swiglu",
               "layer_norm_epsilon": config["layer_norm_eps"], "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
               "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "prenorm": False,
               "parallel_block": False, "causal": False, "use_rms_norm": False, "qkv_proj_bias": True, "mlp_fc1_bias": True,
               "mlp_fc2_bias": True, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
        drop = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
                "hidden_act", "layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "rope_parameters", "head_dim"]
        qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
        in_old_form(copy, "nomic-old", old_nomic, [(qkv, "self_attn.qkv")], old, drop)
    yield found | {"reference": "transformers has no such biases"}


def ntk(base, factor, dim):
    """The speeds of angles for `factor` times as many places (<https://kexue.fm/archives/9706>)."""
    speeds = 1.0 / ((base * factor) ** (torch.arange(0, dim, 2).float() / dim))
    return speeds / factor ** (2 / dim)


def gte_cases():
    shape = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, type_vocab_size=1,
                 max_position_embeddings=320, limit=320, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    native = make("gte", "gte", xlm_tokenizer(), 14, **shape)
    names = ["embeddings.LayerNorm.weight", "layers.0.self_attn.q_proj.weight", "layers.1.self_attn.k_proj.bias",
             "layers.0.mlp.gate_proj.weight", "layers.1.mlp.up_proj.weight", "embeddings.token_type_embeddings.weight"]
    heads = ["gte.pooler.dense.weight", "classifier.weight", "gte.layers.0.mlp.down_proj.bias"]
    yield case("gte", native, names, heads, texts=FEW)

    base = make("new", "gte", word_pieces(False), 15, **dict(shape, num_hidden_layers=1, type_vocab_size=0))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "new"
        shutil.copytree(base, copy)

        def scaled(model, _):
            rotary = model.base_model.rotary_emb
            rotary.inv_freq.copy_(ntk(300.0, 2.0, shape["hidden_size"] // 2))

        with patched(scaled):
            found = case("new", copy, ["layers.0.self_attn.o_proj.weight", "layers.0.post_mlp_layernorm.bias",
                                       "layers.0.mlp.down_proj.weight"],
                         ["classifier.bias"], texts=FEW)
        found["gradients"] = {old_gte(f"gte.{key}").removeprefix("new."): value for key, value in found["gradients"].items()}
        old = {"model_type": "new", "architectures": ["NewModel"], "layer_norm_type": "layer_norm", "position_embedding_type": "rope",
               "rope_theta": 300.0, "rope_scaling": {"factor": 2.0, "type": "ntk"}, "pack_qkv": True, "unpad_inputs": False,
               "use_memory_efficient_attention": False, "logn_attention_scale": False, "logn_attention_clip1": False}
        qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
        parts = [(qkv, "self_attn.qkv"), (["mlp.up_proj", "mlp.gate_proj"], "mlp.up_gate")]
        in_old_form(copy, "new", old_gte, parts, old, ["rope_parameters"])
    yield found | {"reference": "transformers has no such type"}


def deberta_cases():
    shape = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, relative_attention=True,
                 pooler_hidden_act="gelu", pooler_dropout=0, max_position_embeddings=320, limit=320)
    third = dict(shape, position_buckets=16, max_relative_positions=-1, norm_rel_ebd="layer_norm", share_att_key=True,
                 pos_att_type="p2c|c2p", position_biased_input=False, type_vocab_size=0, legacy=False)
    names = ["encoder.rel_embeddings.weight", "encoder.LayerNorm.weight", "encoder.LayerNorm.bias",
             "encoder.layer.0.attention.self.query_proj.weight", "encoder.layer.1.attention.self.key_proj.weight",
             "encoder.layer.1.attention.self.key_proj.bias", "encoder.layer.1.output.LayerNorm.weight"]
    heads = ["pooler.dense.weight", "classifier.weight", "deberta.embeddings.word_embeddings.weight"]
    yield case("deberta-v3", make("deberta-v3", "deberta-v2", deberta_tokenizer(), 9, **third), names, heads, texts=[*FEW, TWO_BLOCKS])

    second = dict(shape, embedding_size=12, position_buckets=-1, max_relative_positions=24, share_att_key=False,
                  pos_att_type=["c2p", "p2c"], position_biased_input=True, type_vocab_size=2, conv_kernel_size=3,
                  conv_act="gelu", legacy=True, pooler_dropout=0.1)
    names = ["encoder.rel_embeddings.weight", "embeddings.embed_proj.weight", "embeddings.position_embeddings.weight",
             "encoder.layer.0.attention.self.pos_key_proj.weight", "encoder.layer.1.attention.self.pos_query_proj.weight",
             "encoder.layer.1.attention.self.pos_key_proj.bias", "encoder.layer.0.attention.self.pos_query_proj.bias",
             "encoder.conv.conv.weight", "encoder.conv.conv.bias", "encoder.conv.LayerNorm.weight"]
    heads = ["pooler.dense.bias", "classifier.bias", "deberta.embeddings.token_type_embeddings.weight"]
    yield case("deberta-v2", make("deberta-v2", "deberta-v2", deberta_tokenizer(), 10, **second), names, heads, texts=FEW)


def main():
    cases = [*deberta_cases(), *nomic_cases(), *gte_cases()]
    rows = [{"position_buckets": buckets, "max_relative_positions": farthest, "rows": bucket_rows(buckets, farthest, reach).tolist()}
            for buckets, farthest, reach in [(256, 512, 700), (16, 320, 330), (-1, 24, 30), (5, 40, 60)]]
    write("backbones_encoders.json", {"about": versions(), "cases": cases, "distances": rows})


if __name__ == "__main__":
    main()
