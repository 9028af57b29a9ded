"""Loads in sentence-transformers what tallow saved of Llama's relatives and T5's encoder: the last tokens' states are those
of backbones_decoders.json.

    TALLOW_SAVED=DIR cargo test --test it -- decoders::a_saved_network
    python check_decoders.py DIR
"""

import json
import sys
from pathlib import Path

import numpy as np
from common import HERE
from sentence_transformers import SentenceTransformer


def main(folder):
    cases = json.loads((HERE / "backbones_decoders.json").read_text())["cases"]
    for case in cases:
        model = SentenceTransformer(str(folder / f"decoders-{case['model']}"), device="cpu")
        got = model.encode(case["texts"])
        ends = np.cumsum([len(ids) for ids in case["token_ids"]]) - 1
        hidden = np.array(case["hidden"]["data"]).reshape(case["hidden"]["shape"])
        worst = np.abs(got - hidden[ends]).max()
        print(f"{case['model']}: {worst:.1e}")
        assert worst < 1e-5, case["model"]
        keys = model[0].auto_model.state_dict().keys()
        assert not any("lm_head" in key or "decoder" in key for key in keys), sorted(keys)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
