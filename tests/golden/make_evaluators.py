"""evaluators.json: every metric the real evaluator classes return for fixed float32 embeddings."""

import math
import warnings

import numpy as np
from common import tensor, torch, versions, write

from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    TripletEvaluator,
)
from sentence_transformers.util import (
    SimilarityFunction,
    cos_sim,
    dot_score,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
)

warnings.simplefilter("ignore")
cases = []
rng = np.random.default_rng(51)


class Card:
    def set_evaluation_metrics(self, *args, **kwargs):
        pass


class Stub:
    """A model whose encode looks every text up in a table of vectors."""

    model_card_data = Card()

    def __init__(self, table, similarity_fn_name="cosine"):
        self.table = table
        self.similarity_fn_name = similarity_fn_name
        self.similarity = SimilarityFunction.to_similarity_fn(similarity_fn_name)

    def encode(self, texts, convert_to_tensor=False, truncate_dim=None, **kwargs):
        rows = np.stack([self.table[t] for t in texts])
        if truncate_dim is not None:
            rows = rows[:, :truncate_dim]
        return torch.from_numpy(rows.copy()) if convert_to_tensor else rows

    encode_query = encode
    encode_document = encode


def smooth(rows, dim):
    return np.round(rng.standard_normal((rows, dim)), 3).astype(np.float32)


def tied(rows, dim=8):
    """Four entries of +-1 each: norm 2, so dot products and cosines are exact and often equal."""
    out = np.zeros((rows, dim), dtype=np.float32)
    for row in out:
        row[rng.choice(dim, 4, replace=False)] = rng.choice([-1.0, 1.0], 4)
    return out


def record(kind, inputs, config, embeddings, evaluator, model):
    metrics = evaluator(model)
    again = evaluator(model)
    assert list(metrics) == list(again)
    for key, value in metrics.items():
        assert value == again[key] or (math.isnan(value) and math.isnan(again[key]))
    assert evaluator.primary_metric in metrics
    cases.append(
        {
            "evaluator": kind,
            "config": config,
            "inputs": inputs,
            "embeddings": {k: tensor(v) for k, v in embeddings.items()},
            "metrics": metrics,
            "primary_metric": evaluator.primary_metric,
            "trainer_keys": {k: (k if k.startswith("eval_") else f"eval_{k}") for k in metrics},
            "greater_is_better": evaluator.greater_is_better,
        }
    )


# --- InformationRetrievalEvaluator

IR_DEFAULT = {
    "name": "",
    "mrr_at_k": [10],
    "ndcg_at_k": [10],
    "accuracy_at_k": [1, 3, 5, 10],
    "precision_recall_at_k": [1, 3, 5, 10],
    "map_at_k": [100],
    "score_functions": None,
    "main_score_function": None,
    "truncate_dim": None,
    "corpus_chunk_size": 50000,
}
SCORE = {"cosine": cos_sim, "dot": dot_score}


def retrieval(draw, dim, changes, similarity_fn_name="cosine"):
    query_ids = [f"q{i}" for i in range(20)]
    # Insertion order differs from the order of the ids, which matters when scores tie.
    doc_ids = [f"d{i}" for i in rng.permutation(40)]
    queries, docs = draw(20, dim), draw(40, dim)
    relevant = {q: sorted({f"d{d}" for d in rng.choice(40, rng.integers(1, 6), replace=False)}) for q in query_ids}
    if draw is smooth:
        # Pull relevant documents towards their query, or the metrics would be near zero.
        for i, q in enumerate(query_ids):
            for d in relevant[q]:
                docs[doc_ids.index(d)] = np.round(docs[doc_ids.index(d)] + 0.8 * queries[i], 3)
    relevant["q3"] = ["x1", "x2"]  # relevant ids that the corpus does not hold: the query counts, with zeros
    relevant["q4"].append("x3")  # one of several is missing: it still counts in recall and ndcg
    relevant["q5"] = []  # no relevant ids: the query is left out
    del relevant["q6"]  # not mentioned: left out as well
    relevant["q7"] = sorted(doc_ids)[:14]  # more relevant documents than k
    table = {f"text of {q}": queries[i] for i, q in enumerate(query_ids)}
    table |= {f"text of {d}": docs[i] for i, d in enumerate(doc_ids)}
    model = Stub(table, similarity_fn_name)
    for change in changes:
        config = {**IR_DEFAULT, **change}
        arguments = dict(config)
        if config["score_functions"] is not None:
            arguments["score_functions"] = {n: SCORE[n] for n in config["score_functions"]}
        evaluator = InformationRetrievalEvaluator(
            {q: f"text of {q}" for q in query_ids},
            {d: f"text of {d}" for d in doc_ids},
            {q: set(ids) for q, ids in relevant.items()},
            write_csv=False,
            **arguments,
        )
        inputs = {"query_ids": query_ids, "corpus_ids": doc_ids, "relevant_docs": relevant}
        config = {**config, "similarity_fn_name": similarity_fn_name}
        record("InformationRetrievalEvaluator", inputs, config, {"queries": queries, "corpus": docs}, evaluator, model)


# --- EmbeddingSimilarityEvaluator and TripletEvaluator

ALL = ["cosine", "manhattan", "euclidean", "dot"]
PAIRWISE = {
    "cosine": pairwise_cos_sim,
    "manhattan": pairwise_manhattan_sim,
    "euclidean": pairwise_euclidean_sim,
    "dot": pairwise_dot_score,
}


def spread(first, second):
    """The smallest gap between two similarities of any kind: above rounding, so that ranks do not hang on it."""
    a, b = torch.from_numpy(first), torch.from_numpy(second)
    return min(PAIRWISE[name](a, b).sort().values.diff().min().item() for name in ALL)


def similarity(draw, dim, gold, changes, similarity_fn_name="cosine", constant=False):
    rows = len(gold)
    while True:
        first, second = draw(rows, dim), draw(rows, dim)
        if constant:
            first[:], second[:] = first[0], second[0]
        elif draw is smooth:
            for i, score in enumerate(gold):
                second[i] = np.round(second[i] + 2.0 * score * first[i], 3)
        if constant or draw is tied or min(spread(first, second), spread(first[:, :3], second[:, :3])) > 2e-5:
            break
    table = {f"a{i}": v for i, v in enumerate(first)} | {f"b{i}": v for i, v in enumerate(second)}
    model = Stub(table, similarity_fn_name)
    for change in changes:
        config = {"name": "", "main_similarity": None, "similarity_fn_names": None, "truncate_dim": None, **change}
        arguments = {k: list(v) if isinstance(v, list) else v for k, v in config.items()}
        evaluator = EmbeddingSimilarityEvaluator(
            [f"a{i}" for i in range(rows)], [f"b{i}" for i in range(rows)], gold, write_csv=False, **arguments
        )
        config = {**config, "similarity_fn_name": similarity_fn_name}
        record("EmbeddingSimilarityEvaluator", {"scores": gold}, config, {"sentences1": first, "sentences2": second}, evaluator, model)


def triplets(draw, dim, changes, similarity_fn_name="cosine"):
    rows = 30
    anchors, positives, negatives = draw(rows, dim), draw(rows, dim), draw(rows, dim)
    if draw is smooth:
        positives = np.round(positives + 0.6 * anchors, 3).astype(np.float32)
    negatives[4] = positives[4]  # equal scores are not a success
    table = {f"a{i}": v for i, v in enumerate(anchors)}
    table |= {f"p{i}": v for i, v in enumerate(positives)} | {f"n{i}": v for i, v in enumerate(negatives)}
    model = Stub(table, similarity_fn_name)
    for change in changes:
        config = {"name": "", "main_similarity_function": None, "margin": None, "similarity_fn_names": None, "truncate_dim": None, **change}
        arguments = {k: list(v) if isinstance(v, list) else v for k, v in config.items()}
        evaluator = TripletEvaluator(
            *[[f"{c}{i}" for i in range(rows)] for c in "apn"], write_csv=False, **arguments
        )
        config = {**config, "similarity_fn_name": similarity_fn_name}
        record("TripletEvaluator", {}, config, {"anchors": anchors, "positives": positives, "negatives": negatives}, evaluator, model)


def main():
    both = ["cosine", "dot"]
    custom = {
        "mrr_at_k": [1, 5, 10],
        "ndcg_at_k": [3, 10],
        "accuracy_at_k": [1, 2],
        "precision_recall_at_k": [2, 7],
        "map_at_k": [5, 20],
    }
    changes = [
        {},
        {"name": "dev"},
        {"score_functions": both},
        {"score_functions": both, "name": "dev", "main_score_function": "dot"},
        {"score_functions": both, "name": "dev", **custom},
        {"score_functions": both, "corpus_chunk_size": 7},
        {"truncate_dim": 3, "score_functions": both},
    ]
    retrieval(smooth, 6, changes)
    retrieval(smooth, 7, [{}, {"name": "dev"}], similarity_fn_name="dot")
    ties = [{"score_functions": both}, {"score_functions": both, "name": "dev", **custom}, {"score_functions": both, "corpus_chunk_size": 7}]
    retrieval(tied, 8, ties)

    plain = [round(float(x), 3) for x in rng.uniform(0, 1, 25)]
    with_ties = [round(float(x) * 5) / 5 for x in rng.uniform(0, 1, 40)]
    changes = [
        {},
        {"name": "dev"},
        {"similarity_fn_names": ALL},
        {"similarity_fn_names": ALL, "main_similarity": "dot", "name": "sts-dev"},
        {"main_similarity": "euclidean"},
        {"main_similarity": "manhattan", "name": "dev"},
        {"similarity_fn_names": ALL, "truncate_dim": 3, "name": "dev"},
    ]
    similarity(smooth, 6, plain, changes)
    similarity(smooth, 6, with_ties, [{"similarity_fn_names": ALL}])
    similarity(tied, 8, with_ties, [{"similarity_fn_names": ALL}, {"similarity_fn_names": ["dot"], "name": "dev"}])
    similarity(smooth, 6, plain, [{}], similarity_fn_name="dot")
    similarity(smooth, 6, plain, [{}], similarity_fn_name="manhattan")
    similarity(smooth, 6, [0.0, 1.0], [{}])
    similarity(smooth, 6, plain, [{}], constant=True)  # no variance: not a number
    similarity(smooth, 6, [0.5] * 10, [{}])

    changes = [
        {},
        {"name": "dev"},
        {"similarity_fn_names": ALL},
        {"similarity_fn_names": ["cosine", "dot", "euclidean", "manhattan"], "name": "dev", "main_similarity_function": "dot"},
        {"main_similarity_function": "euclidean"},
        {"similarity_fn_names": ALL, "margin": 0.1},
        {"similarity_fn_names": ALL, "margin": {"cosine": 0.2, "manhattan": 1.5}},
        {"similarity_fn_names": ALL, "truncate_dim": 3, "name": "dev"},
    ]
    triplets(smooth, 6, changes)
    triplets(tied, 8, [{"similarity_fn_names": ALL}])
    triplets(smooth, 6, [{}], similarity_fn_name="dot")
    write("evaluators.json", {"about": versions(), "cases": cases})
    for c in cases:
        print(c["evaluator"][:12], c["config"]["name"], c["primary_metric"], {k: round(v, 4) for k, v in list(c["metrics"].items())[:6]})


if __name__ == "__main__":
    main()
