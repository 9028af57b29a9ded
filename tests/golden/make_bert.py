"""bert.json (hidden states and parameter gradients of tiny-bert) and embeddings.json (encode of every fixture)."""

from common import FIXTURES, tensor, torch, versions, write

from sentence_transformers import SentenceTransformer

TEXTS = [
    "Bees carry pollen from flower to flower.",
    "Sugar!",
    "The farmer finds a red bicycle in the garden, loses it near the harbour before lunch, paints the broken lamp "
    "behind the school, and after the storm sells the old radio, a blue coat, the torn map and a leather bag.",
    "Café owners zigzag: it's $10.99, isn't it? ☃ 東京",
    "how do PLANTS turn light into sugar?",
]


def bert():
    model = SentenceTransformer(str(FIXTURES / "tiny-bert"), device="cpu").eval()
    backbone = model[0].auto_model
    features = model.preprocess(TEXTS)
    mask = features["attention_mask"].bool()
    rows = [features["input_ids"][i][mask[i]].tolist() for i in range(len(TEXTS))]
    assert max(map(len, rows)) == 32 and len({len(r) for r in rows}) > 3, [len(r) for r in rows]
    assert 1 in rows[3], "one text should reach the unknown token"

    # The fast tokenizer file alone, truncated to 32, must give the same ids.
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(FIXTURES / "tiny-bert" / "tokenizer.json"))
    plain.no_padding()
    plain.enable_truncation(32)
    assert [e.ids for e in plain.encode_batch(TEXTS)] == rows

    def forward(dtype):
        backbone.to(dtype)
        backbone.zero_grad()
        hidden = backbone(
            input_ids=features["input_ids"],
            attention_mask=features["attention_mask"],
            token_type_ids=features["token_type_ids"],
        ).last_hidden_state[mask]
        flat = hidden.reshape(-1)
        pattern = torch.sin(0.1 * torch.arange(flat.numel(), dtype=torch.float64)).to(dtype)
        value = (flat * pattern).sum()
        value.backward()
        grads = {n: p.grad.clone() for n, p in backbone.named_parameters() if p.grad is not None}
        return hidden.detach(), value.item(), grads

    hidden32, value32, grads32 = forward(torch.float32)
    hidden, value, grads = forward(torch.float64)
    backbone.float()
    worst_hidden = (hidden - hidden32).abs().max().item()
    worst_grad = max((grads[n] - grads32[n]).abs().max().item() for n in grads)
    unused = [n for n, p in backbone.named_parameters() if n not in grads]
    print("tokens", [len(r) for r in rows], "scalar", value, value32, "f32 drift", worst_hidden, worst_grad, "unused", unused)

    write(
        "bert.json",
        {
            "about": versions(),
            "model": "tiny-bert",
            "note": "computed in float64 from the float32 weights, printed with 9 digits",
            "float32_drift": {"hidden": worst_hidden, "gradient": worst_grad},
            "texts": TEXTS,
            "token_ids": rows,
            "hidden": tensor(hidden.float()),
            "scalar": value,
            "unused_parameters": unused,
            "gradients": {n: tensor(g.float()) for n, g in grads.items()},
        },
        break_to=2,
    )


def embeddings():
    cases = []

    def add(name, truncate_dim, normalize):
        model = SentenceTransformer(str(FIXTURES / name), device="cpu")
        # encode_batch order and padding must not matter, so one text at a time and all together are compared.
        vectors = model.encode(TEXTS, truncate_dim=truncate_dim, normalize_embeddings=normalize, convert_to_numpy=True)
        single = model.encode(TEXTS, truncate_dim=truncate_dim, normalize_embeddings=normalize, batch_size=1)
        assert abs(vectors - single).max() < 1e-5
        cases.append(
            {
                "model": name,
                "truncate_dim": truncate_dim,
                "normalize_embeddings": normalize,
                "texts": TEXTS,
                "embeddings": tensor(vectors),
            }
        )

    add("tiny-bert", None, False)
    add("tiny-bert", 8, False)
    add("tiny-bert", 8, True)
    add("tiny-static", None, False)
    add("tiny-static", None, True)
    add("tiny-static", 8, False)
    add("tiny-static", 8, True)
    add("tiny-modules", None, False)
    add("tiny-modules", 8, True)
    write("embeddings.json", {"about": versions(), "cases": cases})


if __name__ == "__main__":
    bert()
    embeddings()
