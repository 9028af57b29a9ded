"""students.json: networks of the fixtures with some of their layers, as sentence-transformers' examples of distillation
make them, saved and loaded again.
"""

import tempfile

from common import FIXTURES, tensor, torch, versions, write
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder

TEXTS = ["bees carry pollen", "the old clock strikes twelve in the hall"]
PAIRS = [["who sells the box", "a tall woman"], ["bees", "bees carry pollen from flower to flower"]]


def layers_of(network):
    """The module that holds the layers, and the name of the list in it."""
    inner = getattr(network, "encoder", None) or getattr(network, "transformer", None) or network
    return inner, "layer" if hasattr(inner, "layer") else "layers"


def prune(network, keep):
    inner, name = layers_of(network)
    kept = [layer for i, layer in enumerate(getattr(inner, name)) if i in keep]
    setattr(inner, name, torch.nn.ModuleList(kept))
    count = "n_layers" if hasattr(network.config, "n_layers") else "num_hidden_layers"
    setattr(network.config, count, len(keep))
    if getattr(network.config, "layer_types", None):
        network.config.layer_types = [network.config.layer_types[i] for i in keep]


def case(kind, folder, keep, make):
    model = kind(str(FIXTURES / folder), device="cpu")
    network = model[0].auto_model if hasattr(model[0], "auto_model") else model.model
    prune(network.base_model, keep)
    before = make(model)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        after = make(kind(directory, device="cpu"))
    for a, b in zip(before, after):
        assert torch.allclose(a, b, atol=1e-6), folder
    print(folder, keep, [tuple(value.shape) for value in after])
    return {"kind": kind.__name__, "model": folder, "keep": keep, "values": [tensor(value.float()) for value in after]}


def dense(model):
    # text by text, so that nothing is padded
    return [model.encode(text, convert_to_tensor=True) for text in TEXTS]


def sparse(model):
    return [model.encode(text, convert_to_tensor=True).to_dense() for text in TEXTS]


def scores(model):
    return [torch.as_tensor(model.predict([pair])) for pair in PAIRS]


def vectors(model):
    return [model.encode_document(text) for text in TEXTS]


def main():
    networks = [
        ("tiny-bert", [1]), ("backbones/roberta", [1]), ("backbones/distilbert", [1]), ("backbones/electra", [1]),
        ("backbones/mpnet", [1]), ("backbones/modernbert", [0, 2, 3]), ("backbones/modernbert", [0, 3]),
    ]
    cases = [case(SentenceTransformer, folder, keep, dense) for folder, keep in networks]
    cases.append(case(SparseEncoder, "tiny-splade", [1], sparse))
    cases.append(case(CrossEncoder, "tiny-cross-encoder", [1], scores))
    cases.append(case(MultiVectorEncoder, "tiny-colbert", [0], vectors))
    write("students.json", {"about": versions(), "texts": TEXTS, "pairs": PAIRS, "cases": cases})


if __name__ == "__main__":
    main()
