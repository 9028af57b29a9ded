"""Loads the sparse models that the tests saved with sentence-transformers and compares their embeddings with those of
sparse_more.json.

    python check_sparse.py FOLDER [--tolerance 1e-5]

FOLDER is what `TALLOW_SAVED=FOLDER cargo test --test it sparse_more` leaves: `sparse-inference-free`, `sparse-csr`. Exits
with 1 when a model differs by more than the tolerance, or keeps anything else than the reference wrote.
"""

import argparse
import json
import sys
from pathlib import Path

from common import HERE

import numpy as np
from sentence_transformers import SparseEncoder


def dense(rows, width):
    out = np.zeros((len(rows), width))
    for row, values in zip(rows, out):
        values[row["indices"]] = row["values"]["data"]
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    golden = json.loads((HERE / "sparse_more.json").read_text())
    cases = [("sparse-inference-free", case["task"], case["embeddings"]) for case in golden["inference_free"]["cases"]]
    cases.append(("sparse-csr", None, golden["csr"]["embeddings"]))
    failed = False
    for name, task, wanted in cases:
        model = SparseEncoder(str(arguments.folder / name), device="cpu", local_files_only=True)
        encode = {"query": model.encode_query, "document": model.encode_document, None: model.encode}[task]
        got = encode(golden["texts"], convert_to_sparse_tensor=False).numpy()
        worst = float(np.abs(got - dense(wanted, got.shape[1])).max())
        failed |= not worst <= arguments.tolerance
        print(f"{name} ({task or 'any'}): {worst:.3e}, {[type(module).__name__ for module in model]}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
