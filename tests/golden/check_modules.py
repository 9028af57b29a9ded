"""Loads every model below a folder with sentence-transformers and compares embeddings, as check_saved.py does for one.

    python check_modules.py FOLDER [--tolerance 1e-5]

FOLDER is what the tests leave when the environment variable TALLOW_SAVED names it: NAME/TASK/{model, embeddings.jsonl,
texts.txt}, TASK being `none`, `query` or `document`. Exits with 1 when a model differs by more than the tolerance.
"""

import argparse
import json
import sys
from pathlib import Path

import common  # noqa: F401  (offline, one thread)
import numpy as np

from sentence_transformers import SentenceTransformer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    worst = {}
    for model_dir in sorted(arguments.folder.glob("*/*/model")):
        case = model_dir.parent
        texts = (case / "texts.txt").read_text(encoding="utf-8").split("\n")
        given = np.array([json.loads(line) for line in (case / "embeddings.jsonl").read_text().splitlines()])
        model = SentenceTransformer(str(model_dir), device="cpu", local_files_only=True)
        task = {} if case.name == "none" else {"task": case.name}
        # one by one: a convolution over a padded batch sees the padding
        expected = np.stack([model.encode([text], **task)[0] for text in texts])
        name = f"{case.parent.name} ({case.name})"
        worst[name] = float(np.abs(given - expected).max()) if given.shape == expected.shape else float("inf")
        print(f"{name}: {worst[name]:.3e}")
    if not worst:
        sys.exit(f"no models in {arguments.folder}")
    sys.exit(0 if all(value <= arguments.tolerance for value in worst.values()) else 1)


if __name__ == "__main__":
    main()
