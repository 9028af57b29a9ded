"""Loads the students that the tests saved with sentence-transformers and transformers, and compares them with students.json.

    TALLOW_SAVED=FOLDER cargo test --test it students::
    python check_students.py FOLDER
"""

import json
import sys
from pathlib import Path

from common import HERE, torch
from make_students import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from make_students import dense, scores, sparse, vectors
from transformers import AutoModel

KINDS = {
    "SentenceTransformer": (SentenceTransformer, dense),
    "SparseEncoder": (SparseEncoder, sparse),
    "CrossEncoder": (CrossEncoder, scores),
    "MultiVectorEncoder": (MultiVectorEncoder, vectors),
}


def main():
    worst = 0.0
    for case in json.loads((HERE / "students.json").read_text())["cases"]:
        name = "student-" + case["model"].replace("/", "-") + "-" + "".join(map(str, case["keep"]))
        folder = str(Path(sys.argv[1]) / name)
        kind, make = KINDS[case["kind"]]
        apart = 0.0
        for got, want in zip(make(kind(folder, device="cpu")), case["values"]):
            want = torch.tensor(want["data"]).reshape(want["shape"])
            apart = max(apart, (got.reshape(want.shape) - want).abs().max().item())
        config = AutoModel.from_pretrained(folder).config
        count = getattr(config, "n_layers", config.num_hidden_layers)
        print(f"{name}: {count} layers, differs by {apart:.1e}")
        assert count == len(case["keep"])
        worst = max(worst, apart)
    sys.exit(0 if worst <= 1e-5 else 1)


if __name__ == "__main__":
    main()
