"""evaluators_pairs.json: every metric the evaluators of CrossEncoder models return for fixed float32 scores."""

import make_evaluators
from common import np, versions, write
from make_evaluators import Card, record

from sentence_transformers.cross_encoder.evaluation import (
    CrossEncoderClassificationEvaluator,
    CrossEncoderCorrelationEvaluator,
    CrossEncoderNanoBEIREvaluator,
    CrossEncoderRerankingEvaluator,
)

rng = np.random.default_rng(53)


class Stub:
    """A model that looks the scores of a pair up."""

    model_card_data = Card()

    def __init__(self, table, labels=1):
        self.table = table
        self.num_labels = labels

    def predict(self, pairs, prompt_name=None, **kwargs):
        rows = np.stack([self.table[tuple(pair)] for pair in pairs]).astype(np.float32)
        return rows[:, 0] if self.num_labels == 1 else rows


def keep(kind, inputs, config, table, evaluator, labels=1):
    pairs = list(table)
    inputs = {**inputs, "pairs": pairs, "num_labels": labels}
    scores = np.stack([table[pair] for pair in pairs]).astype(np.float32)
    evaluator.greater_is_better = True  # which some of them do not say
    record(kind, inputs, config, {"scores": scores}, evaluator, Stub(table, labels))


def smooth(rows, labels=1):
    return np.round(rng.standard_normal((rows, labels)), 3).astype(np.float32)


def tied(rows, labels=1):
    return rng.integers(0, 3, (rows, labels)).astype(np.float32)


def pairs_of(rows):
    return [(f"a{i}", f"b{i}") for i in range(rows)]


def correlation():
    for draw in (smooth, tied):
        for rows, change in ((20, {}), (20, {"name": "dev"}), (3, {})):
            table = dict(zip(pairs_of(rows), draw(rows)))
            scores = [round(float(x) * 5) / 5 for x in rng.uniform(0, 1, rows)]
            scores[:3] = [0.0, 0.4, 1.0]
            config = {"name": "", **change}
            evaluator = CrossEncoderCorrelationEvaluator(list(table), scores, **config)
            keep("CrossEncoderCorrelationEvaluator", {"scores": scores}, config, table, evaluator)
    constant = dict.fromkeys(pairs_of(5), np.array([0.5], dtype=np.float32))
    evaluator = CrossEncoderCorrelationEvaluator(list(constant), [0.0, 1.0, 0.5, 0.2, 0.3])
    keep("CrossEncoderCorrelationEvaluator", {"scores": [0.0, 1.0, 0.5, 0.2, 0.3]}, {"name": ""}, constant, evaluator)


def classification():
    def one(table, labels, change, count):
        config = {"name": "", **change}
        evaluator = CrossEncoderClassificationEvaluator(list(table), labels, **config)
        keep("CrossEncoderClassificationEvaluator", {"labels": labels}, config, table, evaluator, count)

    for change in ({}, {"name": "dev"}):
        for draw in (smooth, tied):
            labels = [int(x) for x in rng.integers(0, 2, 24)]
            scores = draw(24) + np.array(labels, dtype=np.float32)[:, None] if draw is smooth else draw(24)
            one(dict(zip(pairs_of(24), scores)), labels, change, 1)
    for count in (2, 3, 5):
        for draw in (smooth, tied):
            labels = [int(x) for x in rng.integers(0, count, 24)]
            one(dict(zip(pairs_of(24), draw(24, count))), labels, {"name": "nli"} if count == 3 else {}, count)
    # classes that are never right, and never predicted
    one(dict(zip(pairs_of(6), smooth(6, 4))), [0, 0, 1, 1, 0, 1], {}, 4)
    one(dict(zip(pairs_of(4), np.eye(4, 3, dtype=np.float32))), [0, 0, 2, 2], {}, 3)


def table_of(samples, draw):
    pairs = [(s["query"], d) for s in samples for d in [*s["positive"], *s.get("negative", []), *s.get("documents", [])]]
    pairs = list(dict.fromkeys(pairs))
    return dict(zip(pairs, draw(len(pairs))))


def unequal_positives(table, samples):
    """Ties that the reference's sort leaves open would change MRR: each positive gets a score of its own."""
    for sample in samples:
        for i, document in enumerate(sample["positive"]):
            if (sample["query"], document) in table:
                table[sample["query"], document] = np.array([0.5 + i % 2 + i / 64], dtype=np.float32)
    return table


def reranking():
    names = iter(f"d{i}" for i in range(10000))
    some = lambda count: [next(names) for _ in range(count)]
    lists = [{"query": f"q{i}", "positive": some(p), "negative": some(n)} for i, (p, n) in enumerate([(1, 4), (2, 9), (3, 1), (2, 0), (1, 15)])]
    found = []
    for i, (hits, missed, others) in enumerate([(1, 0, 9), (2, 1, 8), (0, 1, 6), (1, 2, 12), (3, 0, 2)]):
        positive, negative = some(hits + missed), some(others)
        documents = [*positive[:hits], *negative]
        found.append({"query": f"q{i}", "positive": positive, "documents": [documents[j] for j in rng.permutation(len(documents))]})
    twice = [{**found[0], "documents": [*found[0]["documents"], found[0]["documents"][0]]}, found[1]]
    mixed = [lists[0], found[1], found[3]]
    for samples in (lists, found, twice, mixed):
        for draw in (smooth, tied):
            table = table_of(samples, draw)
            if draw is tied:
                table = unequal_positives(table, samples)
            for change in ({}, {"name": "dev", "at_k": 3}, {"always_rerank_positives": False}):
                config = {"name": "", "at_k": 10, "always_rerank_positives": True, **change}
                evaluator = CrossEncoderRerankingEvaluator([dict(s) for s in samples], **config)
                keep("CrossEncoderRerankingEvaluator", {"samples": samples}, config, table, evaluator)


def nano():
    """The evaluator as it is, but for where the data comes from: three data sets instead of the Hub."""
    names = ["NanoNFCorpus", "NanoMSMARCO", "NanoSciFact"]
    data, table = {}, {}
    for name in names:
        relevant = {f"q{i}": [f"d{3 * i}", f"d{3 * i + 1}"][: i % 2 + 1] for i in range(4)}
        found = {f"q{i}": [f"d{j}" for j in rng.permutation(12)] for i in range(4)}
        data[name] = {"relevant": relevant, "found": found}
        for i in range(4):
            for j, score in enumerate(smooth(12)):
                table[f"{name} q{i}", f"{name} d{j}"] = score

    class Local(CrossEncoderNanoBEIREvaluator):
        def _load_dataset_subset_split(self, subset, split, required_columns):
            from datasets import Dataset

            if subset == "qrels":
                return [{"query-id": q, "corpus-id": d} for q, ids in data[split]["relevant"].items() for d in ids]
            if subset == "bm25":
                return Dataset.from_list([{"query-id": q, "corpus-ids": ids} for q, ids in data[split]["found"].items()])
            letter, count = ("d", 12) if subset == "corpus" else ("q", 4)
            rows = [{"_id": f"{letter}{i}", "text": f"{split} {letter}{i}"} for i in range(count)]
            return Dataset.from_list(rows)

    for change in ({}, {"rerank_k": 5}, {"rerank_k": 4, "at_k": 3, "always_rerank_positives": False, "aggregate_key": "avg"}):
        config = {"dataset_names": ["msmarco", "NFCorpus", "scifact"], "rerank_k": 100, "at_k": 10, "always_rerank_positives": True, "aggregate_key": "mean", **change}
        evaluator = Local(**config)
        inputs = {"names": names, "sets": data}
        keep("CrossEncoderNanoBEIREvaluator", inputs, config, table, evaluator)


def main():
    for make in (correlation, classification, reranking, nano):
        make()
    write("evaluators_pairs.json", {"about": versions(), "cases": make_evaluators.cases})
    for c in make_evaluators.cases:
        print(c["evaluator"][12:24], c["config"].get("name"), c["primary_metric"], {k: round(v, 4) for k, v in list(c["metrics"].items())[:6]})


if __name__ == "__main__":
    main()
