"""borrowed.json and fixtures/borrowed: networks that are computed and not trained.

JinaBERT is not in transformers, its code lives beside its weights. Here it is written down from its paper
(https://arxiv.org/abs/2310.19923) and ALiBi's (https://arxiv.org/abs/2108.12409), in float64, text by text.
"""

import json
import math
import shutil

from common import FIXTURES, tensor, torch, versions, write
from make_backbones import TEXTS, word_pieces
from safetensors.torch import save_file
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

FOLDER = FIXTURES / "borrowed/jina-bert"
# six heads: their slopes are no plain powers
HIDDEN, HEADS, LAYERS, INNER = 24, 6, 2, 20


def slopes(heads):
    power = 2 ** math.floor(math.log2(heads))
    plain = lambda n: [2 ** (-8 * (i + 1) / n) for i in range(n)]
    return plain(power) + plain(2 * power)[0::2][: heads - power]


def hidden_states(ids, w):
    normal = lambda x, name: functional.layer_norm(x, (HIDDEN,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)
    linear = lambda x, name: functional.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))
    x = normal(w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    places = torch.arange(len(ids), dtype=torch.float64)
    distance = (places[:, None] - places[None, :]).abs()
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        q, k, v = (linear(x, f"{at}.attention.self.{n}").view(len(ids), HEADS, -1).transpose(0, 1) for n in ["query", "key", "value"])
        scores = q @ k.transpose(1, 2) / math.sqrt(HIDDEN // HEADS)
        scores = scores - torch.tensor(slopes(HEADS), dtype=torch.float64)[:, None, None] * distance
        seen = (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(ids), HIDDEN)
        x = normal(x + linear(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        gate, value = linear(x, f"{at}.mlp.gated_layers").chunk(2, dim=-1)
        x = normal(x + linear(functional.gelu(gate) * value, f"{at}.mlp.wo"), f"{at}.mlp.layernorm")
    return x


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    plain, special, _ = word_pieces(True)
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, model_max_length=160, **{f"{what}_token": token for what, token in special.items()})
    fast.save_pretrained(FOLDER)
    torch.manual_seed(11)
    new = lambda *shape: 0.3 * torch.randn(*shape)
    weights = {"embeddings.word_embeddings.weight": new(len(fast), HIDDEN), "embeddings.token_type_embeddings.weight": new(2, HIDDEN)}
    norms, layers = ["embeddings.LayerNorm"], {}
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        layers |= {f"{at}.attention.self.{n}": (HIDDEN, HIDDEN) for n in ["query", "key", "value"]}
        layers |= {f"{at}.attention.output.dense": (HIDDEN, HIDDEN), f"{at}.mlp.wo": (HIDDEN, INNER)}
        weights[f"{at}.mlp.gated_layers.weight"] = new(2 * INNER, HIDDEN)
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.mlp.layernorm"]
    for name, shape in (layers | {"pooler.dense": (HIDDEN, HIDDEN)}).items():
        weights |= {f"{name}.weight": new(*shape), f"{name}.bias": new(shape[0])}
    for name in norms:
        weights |= {f"{name}.weight": 1 + new(HIDDEN), f"{name}.bias": new(HIDDEN)}
    save_file(weights, FOLDER / "model.safetensors", metadata={"format": "pt"})
    config = dict(
        architectures=["JinaBertForMaskedLM"], model_type="bert", position_embedding_type="alibi", feed_forward_type="geglu",
        vocab_size=len(fast), hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=INNER,
        hidden_act="gelu", max_position_embeddings=160, type_vocab_size=2, initializer_range=0.02, layer_norm_eps=1e-12,
        pad_token_id=0, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0, emb_pooler="mean",
    )
    (FOLDER / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    # the last is longer than the table of distances that is made first
    texts = [*TEXTS, TEXTS[1], "x y z " * 46]
    ids = [fast(text)["input_ids"] for text in texts]
    exact = {name: value.double() for name, value in weights.items()}
    states = torch.cat([hidden_states(torch.tensor(i), exact) for i in ids])
    assert max(map(len, ids)) > 128
    write("borrowed.json", {"about": versions(), "texts": texts, "token_ids": ids, "hidden": tensor(states.float())})
    for file in FOLDER.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main()
