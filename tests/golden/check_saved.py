"""Loads a saved model with sentence-transformers and compares its embeddings with given vectors.

    python check_saved.py MODEL_DIR EMBEDDINGS.jsonl TEXTS.txt [--truncate-dim N] [--normalize] [--task TASK] [--tolerance 1e-5]

Texts are encoded one by one: a convolution over a padded batch sees the padding. With `--task` a Router's route of that
task is taken. TEXTS.txt has one text a line; EMBEDDINGS.jsonl has one JSON array, or one {"embedding": [...]}, a line.
Exits with 1 when the largest absolute difference is above the tolerance, with 2 when the files do not fit together.
"""

import argparse
import json
import sys

import common  # noqa: F401  (offline, one thread)
import numpy as np

from sentence_transformers import SentenceTransformer


def fail(message):
    print(message)
    sys.exit(2)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("embeddings")
    parser.add_argument("texts")
    parser.add_argument("--truncate-dim", type=int)
    parser.add_argument("--normalize", action="store_true", help="normalise after truncation")
    parser.add_argument("--task", help="query or document, for a model with a Router")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()

    with open(arguments.texts, encoding="utf-8") as file:
        texts = file.read().split("\n")
    if texts and texts[-1] == "":
        texts.pop()
    given = []
    with open(arguments.embeddings, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                given.append(row["embedding"] if isinstance(row, dict) else row)
    if not texts or len(given) != len(texts):
        fail(f"{len(given)} embeddings for {len(texts)} texts")
    if len({len(row) for row in given}) != 1:
        fail("the embeddings differ in length")

    model = SentenceTransformer(arguments.model, device="cpu", truncate_dim=arguments.truncate_dim, local_files_only=True)
    for index, module in enumerate(model):
        print(f"module {index}: {type(module).__name__}")
    task = {"task": arguments.task} if arguments.task else {}
    rows = [model.encode([text], normalize_embeddings=arguments.normalize, **task)[0] for text in texts]
    expected = np.stack(rows)
    given = np.asarray(given, dtype=np.float64)
    if given.shape != expected.shape:
        fail(f"the embeddings are {list(given.shape)}, the model gives {list(expected.shape)}")
    difference = np.abs(given - expected)
    if not np.isfinite(given).all():
        fail("the embeddings are not all finite")
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    largest = difference[row, column]
    print(f"largest difference: {largest:.3e} (text {row + 1}, dimension {column + 1}); tolerance {arguments.tolerance:.1e}")
    sys.exit(0 if largest <= arguments.tolerance else 1)


if __name__ == "__main__":
    main()
