"""Loads a saved CrossEncoder, SparseEncoder or MultiVectorEncoder with the reference and compares what it says with what tallow wrote.

    python check_reranker.py scores MODEL_DIR SCORES.jsonl PAIRS.jsonl FIRST,SECOND [--tolerance 1e-4]
    python check_reranker.py sparse MODEL_DIR EMBEDDINGS.jsonl TEXTS.txt [--tolerance 1e-4]
    python check_reranker.py query|document MODEL_DIR VECTORS.jsonl TEXTS.txt [--tolerance 1e-4]

Scores are compared with `CrossEncoder.predict` and, through transformers alone, with the logits of
AutoModelForSequenceClassification; sparse embeddings with `SparseEncoder.encode`, and the words' scores of
AutoModelForMaskedLM pooled by hand; vectors with `MultiVectorEncoder.encode_query` and `encode_document`. Exits with 1 when the largest difference is above the tolerance.
"""

import argparse
import json
import sys

import common  # noqa: F401  (offline, one thread)
import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder


def rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def scores(arguments):
    first, second = arguments.columns.split(",")
    pairs = [(row[first], row[second]) for row in rows(arguments.inputs)]
    given = np.asarray([row.get("score", row.get("scores")) for row in rows(arguments.given)], dtype=np.float64)
    model = CrossEncoder(arguments.model, device="cpu", local_files_only=True)
    print(f"CrossEncoder with {type(model.activation_fn).__name__}, at most {model.max_seq_length} tokens")
    expected = np.stack([model.predict([pair])[0] for pair in pairs])
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    plain = AutoModelForSequenceClassification.from_pretrained(arguments.model).eval()
    logits = []
    for pair in pairs:
        features = tokenizer(*pair, truncation="longest_first", max_length=model.max_seq_length, return_tensors="pt")
        with torch.no_grad():
            logits.append(model.activation_fn(plain(**features).logits)[0].numpy())
    logits = np.stack(logits)
    return {"predict": given - expected.reshape(given.shape), "transformers": given - logits.reshape(given.shape)}


def lines(path):
    with open(path, encoding="utf-8") as file:
        texts = file.read().split("\n")
    return texts[:-1] if texts and texts[-1] == "" else texts


def vectors(arguments):
    texts = lines(arguments.inputs)
    model = MultiVectorEncoder(arguments.model, device="cpu", local_files_only=True)
    for index, module in enumerate(model):
        print(f"module {index}: {type(module).__name__}")
    encode = model.encode_query if arguments.what == "query" else model.encode_document
    given = [np.asarray(row["embeddings"], dtype=np.float64) for row in rows(arguments.given)]
    expected = [encode([text])[0].numpy() for text in texts]
    assert [len(x) for x in given] == [len(x) for x in expected], "other numbers of vectors"
    return {f"encode_{arguments.what}": np.concatenate(given) - np.concatenate(expected)}


def sparse(arguments):
    texts = lines(arguments.inputs)
    model = SparseEncoder(arguments.model, device="cpu", local_files_only=True)
    for index, module in enumerate(model):
        print(f"module {index}: {type(module).__name__}")
    expected = np.stack([model.encode([text], convert_to_sparse_tensor=False)[0].numpy() for text in texts])
    given = np.zeros_like(expected)
    for row, entry in zip(given, rows(arguments.given)):
        row[entry["indices"]] = entry["values"]
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    plain = AutoModelForMaskedLM.from_pretrained(arguments.model).eval()
    pooled = []
    for text in texts:
        features = tokenizer(text, truncation=True, max_length=model.max_seq_length, return_tensors="pt")
        with torch.no_grad():
            pooled.append(torch.log1p(torch.relu(plain(**features).logits[0])).max(dim=0).values.numpy())
    return {"encode": given - expected, "transformers": given - np.stack(pooled)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["scores", "sparse", "query", "document"])
    parser.add_argument("model")
    parser.add_argument("given")
    parser.add_argument("inputs")
    parser.add_argument("columns", nargs="?")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    failed = False
    compare = {"scores": scores, "sparse": sparse}.get(arguments.what, vectors)
    for name, difference in compare(arguments).items():
        largest = np.abs(difference).max()
        print(f"{name}: largest difference {largest:.3e}; tolerance {arguments.tolerance:.1e}")
        failed |= not largest <= arguments.tolerance
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
