"""negatives.json: rows that `mine_hard_negatives` gives for every option, with embeddings and scores from a table."""

import contextlib
import io
import random
import types

import torch
from common import versions, write
from datasets import Dataset
from sentence_transformers.util import mine_hard_negatives, cos_sim, pairwise_cos_sim

WIDTH = 6


class Model:
    """Embeddings by text; a prompt turns an embedding's values around by its length."""

    device = torch.device("cpu")
    model_card_data = types.SimpleNamespace(base_model="table")

    def __init__(self, table):
        self.table = table

    def encode(self, texts, prompt, **kwargs):
        rows = torch.tensor([self.table[text] for text in texts])
        rows = rows.roll(len(prompt or ""), dims=1)
        return torch.nn.functional.normalize(rows, dim=1).numpy()

    def encode_query(self, texts, prompt=None, **kwargs):
        return self.encode(texts, prompt)

    def encode_document(self, texts, prompt=None, **kwargs):
        return self.encode(texts, prompt)

    def similarity(self, a, b):
        return cos_sim(a, b)

    def similarity_pairwise(self, a, b):
        return pairwise_cos_sim(a, b)


class Reranker:
    """A score a pair, by the numbers in the texts."""

    def predict(self, pairs, convert_to_tensor=True, **kwargs):
        return torch.tensor([score(a, b) for a, b in pairs])


def score(anchor, document):
    return ((int(anchor[1:]) * 7 + int(document[1:]) * 13) % 29) / 29 - 0.25


def main():
    rng = random.Random(5)
    anchors, positives = [f"q{i}" for i in range(8)], [f"d{i}" for i in range(9)]
    others = [f"d{i}" for i in range(9, 24)]
    table = {text: [round(rng.gauss(0, 1), 3) for _ in range(WIDTH)] for text in anchors + positives + others}
    # close to their anchors, but for one that lies opposite
    for i, text in enumerate(positives):
        sign = -1 if i == 3 else 1
        table[text] = [round(sign * x + rng.gauss(0, 0.8), 3) for x in table[anchors[min(i, 7)]]]
    # the last anchor has two positives, the first one row twice
    rows = [(a, p) for a, p in zip(anchors, positives)] + [(anchors[7], positives[8]), (anchors[0], positives[0])]
    base = {"corpus": False, "cross_encoder": False}
    cases = [
        {},
        {"corpus": True},
        {"corpus": True, "num_negatives": 1},
        {"corpus": True, "range_min": 2},
        {"corpus": True, "range_min": 1, "range_max": 5, "num_negatives": 4},
        {"corpus": True, "range_max": 30, "num_negatives": 25},
        {"corpus": True, "max_score": 0.4},
        {"corpus": True, "min_score": 0.3},
        {"corpus": True, "absolute_margin": 0.2},
        {"corpus": True, "relative_margin": 0.3},
        {"corpus": True, "relative_margin": 0.1, "absolute_margin": 0.05, "max_score": 0.5, "min_score": -0.2, "range_min": 1},
        {"corpus": True, "include_positives": True},
        {"corpus": True, "include_positives": True, "num_negatives": 5, "range_min": 1},
        {"corpus": True, "query_prompt": "ab"},
        {"corpus": True, "corpus_prompt": "abc", "query_prompt": "a"},
        {"corpus": True, "cross_encoder": True, "max_score": 0.5},
        {"corpus": True, "cross_encoder": True, "min_score": 0.1},
        {"corpus": True, "cross_encoder": True, "relative_margin": 0.2, "num_negatives": 2},
        {"corpus": True, "cross_encoder": True},
        # nothing is left to choose from, so that random choices are told
        {"corpus": True, "sampling_strategy": "random", "range_max": 3},
        {"num_negatives": 9},
    ]
    out = []
    for number, case in enumerate(cases):
        for format in ["triplet", "n-tuple", "labeled-pair", "labeled-list"]:
            if case.get("include_positives") and format != "n-tuple":
                continue
            # every format with and without scores, and every setting
            whole = number in (0, 3, 9) or case.get("include_positives")
            if format != "triplet" and not whole:
                continue
            for output_scores in [False, True] if whole else [True]:
                settings = {"output_format": format, "output_scores": output_scores, **case}
                options = {k: v for k, v in settings.items() if k not in base}
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    mined = mine_hard_negatives(
                        Dataset.from_dict({"anchor": [r[0] for r in rows], "positive": [r[1] for r in rows]}),
                        Model(table),
                        corpus=others if settings.get("corpus") else None,
                        cross_encoder=Reranker() if settings.get("cross_encoder") else None,
                        **options,
                    )
                lines = printed.getvalue().splitlines()
                begin = next(i for i, line in enumerate(lines) if line.startswith("Metric"))
                out.append({
                    "settings": settings, "columns": mined.column_names, "rows": [list(row.values()) for row in mined],
                    "table": [line.rstrip() for line in lines[begin:begin + 10]],
                    "skipped": [line for line in lines if line.startswith("Skipped")],
                    "missing": [line for line in lines if line.startswith("Could not")],
                })
    write("negatives.json", {"about": versions(), "embeddings": table, "pairs": rows, "corpus": others, "cases": out})


if __name__ == "__main__":
    main()
