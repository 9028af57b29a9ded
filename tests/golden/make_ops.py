"""ops.json: small float64 cases of the building blocks, with the gradient of every input."""

import torch.nn.functional as F
from common import tensor, torch, versions, write

from sentence_transformers.sentence_transformer.modules import Pooling

LENGTHS = [1, 5, 9]
cases = []


def draw(*shape, scale=1.0):
    """Random values with few digits: exact in the JSON file, and short."""
    return torch.round(torch.randn(*shape, dtype=torch.float64) * scale * 1000) / 1000


def case(op, inputs, function, **extra):
    """Runs `function` on copies of the float inputs and stores output, upstream gradient and input gradients."""
    leaves = {}
    for name, value in inputs.items():
        if torch.is_tensor(value) and value.is_floating_point():
            leaves[name] = value.clone().requires_grad_(True)
    output = function(**{n: leaves.get(n, v) for n, v in inputs.items()})
    upstream = draw(*output.shape) if output.dim() else torch.tensor(1.0, dtype=torch.float64)
    (output * upstream).sum().backward()
    cases.append(
        {
            "op": op,
            **extra,
            "inputs": {n: tensor(v) if torch.is_tensor(v) else v for n, v in inputs.items()},
            "grad_output": tensor(upstream),
            "output": tensor(output),
            "grads": {n: tensor(v.grad) for n, v in leaves.items()},
        }
    )


def attention(q, k, v, lengths, heads):
    """Softmax attention inside each sequence of a packed stream; q, k, v are [tokens, heads * dim]."""
    pieces = []
    for q_seq, k_seq, v_seq in zip(q.split(lengths), k.split(lengths), v.split(lengths)):
        q_h, k_h, v_h = (x.reshape(x.shape[0], heads, -1).transpose(0, 1) for x in (q_seq, k_seq, v_seq))
        mixed = F.scaled_dot_product_attention(q_h, k_h, v_h)
        pieces.append(mixed.transpose(0, 1).reshape(q_seq.shape[0], -1))
    return torch.cat(pieces)


def pooled(mode):
    """The library's own pooling module, over padded rows built from the packed stream."""

    def run(tokens, lengths):
        module = Pooling(tokens.shape[1], mode)
        width = max(lengths)
        padded = torch.stack([F.pad(s, (0, 0, 0, width - s.shape[0])) for s in tokens.split(lengths)])
        mask = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
        return module({"token_embeddings": padded, "attention_mask": mask})["sentence_embedding"]

    return run


def main():
    torch.manual_seed(31)
    case("linear", {"x": draw(5, 4), "weight": draw(3, 4), "bias": draw(3)}, lambda x, weight, bias: F.linear(x, weight, bias))
    case(
        "residual_layer_norm",
        {"x": draw(6, 8), "residual": draw(6, 8), "weight": 1 + draw(8, scale=0.3), "bias": draw(8, scale=0.3)},
        lambda x, residual, weight, bias: F.layer_norm(x + residual, (8,), weight, bias, 1e-12),
        eps=1e-12,
    )
    tokens = sum(LENGTHS)
    case(
        "attention",
        {"q": draw(tokens, 8), "k": draw(tokens, 8), "v": draw(tokens, 8), "lengths": LENGTHS, "heads": 2},
        attention,
        head_dim=4,
    )
    # Larger scores, so that some softmax weights are close to one.
    case(
        "attention",
        {"q": draw(tokens, 8, scale=6), "k": draw(tokens, 8, scale=6), "v": draw(tokens, 8), "lengths": LENGTHS, "heads": 2},
        attention,
        head_dim=4,
    )
    grid = torch.cat([torch.linspace(-8, 8, 33, dtype=torch.float64), torch.tensor([0.0, 1e-3, -1e-3], dtype=torch.float64)])
    case("gelu_erf", {"x": grid}, lambda x: F.gelu(x))
    case(
        "embedding_sum",
        {
            "word": draw(10, 4),
            "position": draw(6, 4),
            "token_type": draw(2, 4),
            "word_ids": torch.tensor([1, 7, 7, 2, 1, 9, 0, 3, 7]),
            "position_ids": torch.tensor([0, 1, 2, 3, 0, 1, 2, 0, 1]),
            "token_type_ids": torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1]),
        },
        lambda word, position, token_type, word_ids, position_ids, token_type_ids: F.embedding(word_ids, word)
        + F.embedding(position_ids, position)
        + F.embedding(token_type_ids, token_type),
    )
    lengths = [1, 4, 6, 2]
    for mode in Pooling.POOLING_MODES:
        case("pooling", {"tokens": draw(sum(lengths), 5), "lengths": lengths}, pooled(mode), mode=mode)
    case("pooling", {"tokens": draw(sum(lengths), 3), "lengths": lengths}, pooled(("cls", "mean", "max")), mode=["cls", "mean", "max"])
    rows = draw(5, 6)
    rows[2] = 0.0
    case("l2_normalize", {"x": rows}, lambda x: F.normalize(x, p=2, dim=-1), eps=1e-12)
    case(
        "cross_entropy",
        {"logits": draw(6, 5, scale=4), "targets": torch.tensor([0, 4, 2, 2, 1, 3])},
        lambda logits, targets: F.cross_entropy(logits, targets),
    )
    case(
        "cross_entropy",
        {"logits": draw(3, 4) * 300, "targets": torch.tensor([3, 0, 1])},
        lambda logits, targets: F.cross_entropy(logits, targets),
    )
    case(
        "dense_tanh",
        {"x": draw(4, 6), "weight": draw(3, 6, scale=0.5), "bias": draw(3, scale=0.5)},
        lambda x, weight, bias: torch.tanh(F.linear(x, weight, bias)),
    )
    # Mean of embedding rows per text, as in the static model; the second text has no tokens at all.
    case(
        "embedding_bag_mean",
        {"weight": draw(8, 3), "ids": torch.tensor([1, 1, 5, 7, 2, 2, 2]), "lengths": [3, 0, 4]},
        lambda weight, ids, lengths: F.embedding_bag(
            ids, weight, torch.tensor([0] + lengths[:-1]).cumsum(0), mode="mean"
        ),
    )
    write("ops.json", {"about": versions(), "cases": cases})


if __name__ == "__main__":
    main()
