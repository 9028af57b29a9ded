"""Loads what the tests of every architecture saved, with transformers and sentence-transformers, and compares it with
backbones.json and backbones_encoders.json.

    TALLOW_SAVED=FOLDER cargo test --test it -- backbones::
    python check_backbones.py FOLDER [--tolerance 1e-5]

FOLDER holds `embeddings-NAME`, `scores-NAME` and `sparse-NAME`. Exits with 1 when a model differs by more than the
tolerance, names another class than transformers makes of it, or lacks weights that transformers then makes anew.
"""

import argparse
import json
import sys
from pathlib import Path

from common import HERE
import numpy as np
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer, logging

from sentence_transformers import CrossEncoder, SparseEncoder

CLASSES = {"embeddings": AutoModel, "scores": AutoModelForSequenceClassification, "sparse": AutoModelForMaskedLM}


def given(case, kind, folder):
    """What the reference makes of the saved model."""
    if kind == "scores":
        model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
        return np.stack([model.predict([pair], activation_fn=torch.nn.Identity())[0] for pair in case["pairs"]])
    if kind == "sparse":
        model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
        return np.stack([model.encode([text], convert_to_sparse_tensor=False)[0].numpy() for text in case["texts"]])
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in case["texts"]]
    return torch.cat(states).numpy()


def missing(kind, folder):
    """Weights that are not in the file, but for a pooler and a bias that an untied head has and does not use; a class
    that is not the one of its configuration."""
    model, info = CLASSES[kind].from_pretrained(folder, output_loading_info=True)
    if kind != "embeddings" and model.config.architectures != [type(model).__name__]:
        return [f"{type(model).__name__} is not {model.config.architectures}"]
    harmless = ("pooler.dense.weight", "pooler.dense.bias", "cls.predictions.bias")
    return sorted(key for key in info["missing_keys"] if not key.endswith(harmless))


def main():
    logging.set_verbosity_error()  # each folder has weights of both heads, or a head and no pooler
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    failed = False
    wanted = {"embeddings": "hidden", "scores": "logits", "sparse": "splade"}
    files = ["backbones.json", "backbones_encoders.json"]
    cases = [case for file in files for case in json.loads((HERE / file).read_text())["cases"]]
    for case in cases:
        if "reference" in case:
            print(f"{case['model']}: not compared, {case['reference']}")
            continue
        for kind, key in wanted.items():
            folder = arguments.folder / f"{kind}-{case['model']}"
            expected = np.array(case[key]["data"]).reshape(case[key]["shape"])
            largest = np.abs(given(case, kind, folder) - expected).max()
            lacking = missing(kind, folder)
            print(f"{folder.name}: largest difference {largest:.3e}{', without ' if lacking else ''}{', '.join(lacking)}")
            failed |= bool(lacking) or not largest <= arguments.tolerance
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
