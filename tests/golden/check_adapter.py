"""An adapter that tallow saved, in PEFT over transformers' network, gives what the merged model gives.

    python check_adapter.py BASE ADAPTER MERGED [--tolerance 1e-5]

Token embeddings of a few texts, or logits of pairs for adapters of classifiers. Exits with 1 above the tolerance.
"""

import argparse
import json
import sys
from pathlib import Path

import common  # noqa: F401  (offline, one thread)
import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

TEXTS = ["the sailor sells the chair", "a doctor by the sea", "who cooks the rice?"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("merged")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    classify = json.loads((Path(arguments.adapter) / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    kind = AutoModelForSequenceClassification if classify else AutoModel
    # a classifier is the adapter's, whatever is made of the base here
    more = {"num_labels": AutoModelForSequenceClassification.from_pretrained(arguments.merged).num_labels} if classify else {}
    network = PeftModel.from_pretrained(kind.from_pretrained(arguments.base, **more), arguments.adapter).eval()
    merged = kind.from_pretrained(arguments.merged).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.merged)
    worst = 0.0
    with torch.no_grad():
        for text in TEXTS:
            inputs = tokenizer(text, TEXTS[0], return_tensors="pt") if classify else tokenizer(text, return_tensors="pt")
            worst = max(worst, (network(**inputs)[0] - merged(**inputs)[0]).abs().max().item())
    plain = kind.from_pretrained(arguments.base, **more).eval()
    with torch.no_grad():
        moved = (plain(**inputs)[0] - merged(**inputs)[0]).abs().max().item()
    print(f"largest difference {worst:.1e}; the adapter itself makes one of {moved:.1e}")
    sys.exit(0 if worst <= arguments.tolerance and moved > 10 * arguments.tolerance else 1)


if __name__ == "__main__":
    main()
